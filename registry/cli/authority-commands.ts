// Why: `lepton authorities` and `lepton broker`: who issues the fleet's certificates, and the files by which a
// broker of another maker knows it.
// Trusts: the registry's answers, validated. Must never: leave a file that looks whole and is not.

import { randomBytes } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { pkcs8PemFromSeed, seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import { makeFolders } from '../../shared/host/folders.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import {
  type AuthorityView,
  authoritySchema,
  brokerCertificateSchema,
  brokerFilesSchema,
} from '../../shared/wire/http.ts';
import { mosquittoFolder } from '../fleet/mosquitto.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags } from './flags.ts';
import { print, table, when } from './output.ts';

const listSchema = z.array(authoritySchema);

function authorityTable(list: AuthorityView[]): string {
  return table(
    ['AUTHORITY', 'STATE', 'MADE', 'ENDS', 'DEVICES', 'OPEN CLAIMS'],
    list.map((one) => [
      one.id,
      one.state,
      when(one.createdAtMs),
      when(one.expiresAtMs),
      String(one.devices),
      String(one.claims),
    ]),
  );
}

/** A broker may read the folder at any time: each file is the old one or the new one. */
async function writeWhole(path: string, text: string, mode = 0o644): Promise<void> {
  try {
    const handle = await open(`${path}.new`, 'w', mode);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(`${path}.new`, path);
  } catch (cause) {
    const words = cause instanceof Error ? cause.message : String(cause);
    throw new FleetError('disk-io', `cannot write ${path}: ${words}`, { cause });
  }
}

/** The key of the broker in this folder, made where there is none; it never leaves it. */
async function brokerKey(path: string): Promise<Uint8Array> {
  const text = await readFile(path, 'utf8').catch(() => null);
  const stored = text === null ? null : seedFromPkcs8Pem(text);
  if (stored?.ok === false) throw new FleetError('config-invalid', `${path} is no Ed25519 private key`);
  if (stored !== null) return stored.value;
  const seed = new Uint8Array(randomBytes(32));
  await writeWhole(path, pkcs8PemFromSeed(seed), 0o600);
  return seed;
}

/** Nothing where the token may read the lists only: the certificate that is there stays. */
async function brokerCertificate(
  registry: ReturnType<typeof connect>,
  folder: string,
  hosts: string[],
): Promise<Record<string, string>> {
  const seed = await brokerKey(join(folder, 'server.key'));
  const { makeDeviceRequest } = await import('../../shared/host/certificates.ts');
  const request = { csr: await makeDeviceRequest(seed), hosts };
  try {
    const answer = await registry.send(
      'POST',
      '/api/v1/broker/certificate',
      request,
      brokerCertificateSchema,
    );
    return { 'server.crt': answer.certificate };
  } catch (thrown) {
    if (thrown instanceof FleetError && thrown.code === 'role-forbidden') return {};
    throw thrown;
  }
}

export function addAuthorityCommands(program: Command): void {
  const authorities = program
    .command('authorities')
    .description('certificate authorities of the fleet, and their replacement');

  connected(authorities.command('list'))
    .description('authorities, newest first, and how many devices depend on each')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/authorities', listSchema);
      print({ json: flags.json === true }, list, () => authorityTable(list));
    });

  connected(authorities.command('rotate'))
    .description('make the next authority; devices get certificates of it by themselves')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).send('POST', '/api/v1/authorities', {}, listSchema);
      print({ json: flags.json === true }, list, () =>
        [
          authorityTable(list),
          `next: lepton authorities list until no device is left at the old one, then lepton authorities retire ${list[1]?.id ?? 'ID'}`,
        ].join('\n'),
      );
    });

  connected(authorities.command('retire'))
    .description('end an authority: its certificates are refused from now on')
    .argument('<id>', 'as `lepton authorities list` shows it')
    .option('--force', 'also where active devices depend on it; they must enrol again')
    .action(async (id: string, flags: GlobalFlags & { force?: boolean }) => {
      const list = await connect(flags).send(
        'POST',
        `/api/v1/authorities/${encodeURIComponent(id)}/retire`,
        { force: flags.force === true },
        listSchema,
      );
      print({ json: flags.json === true }, list, () => authorityTable(list));
    });

  const broker = program.command('broker').description('an external MQTT broker');

  connected(broker.command('files'))
    .description('write access rules, revocation lists, certificates and settings for mosquitto')
    .requiredOption('--out <folder>', 'where to write them; made where it is missing')
    .option('--host <name...>', 'under which devices dial the broker, beside what the registry knows')
    .option('--path <folder>', 'where the broker will find the files; default: where they are written')
    .action(async (flags: GlobalFlags & { out: string; host?: string[]; path?: string }) => {
      const registry = connect(flags);
      const files = await registry.get('/api/v1/broker/files', brokerFilesSchema);
      makeFolders(flags.out);
      const certified = await brokerCertificate(registry, flags.out, flags.host ?? []);
      const folder = flags.path ?? resolve(flags.out);
      const written = {
        acl: files.acl,
        'revoked.crl.pem': files.revoked,
        'authorities.pem': files.authorities,
        ...certified,
        'mosquitto.conf': files.settings.replaceAll(mosquittoFolder, folder),
      };
      for (const [name, text] of Object.entries(written)) await writeWhole(join(flags.out, name), text);
      const shown = {
        folder: flags.out,
        files: Object.keys(written),
        revokedDevices: files.revokedDevices,
      };
      print({ json: flags.json === true }, shown, () =>
        [
          `${shown.files.join(', ')} in ${flags.out}; ${files.revokedDevices} devices are shut out`,
          'next: let the broker read them again (kill -HUP; restart it after authorities changed)',
        ].join('\n'),
      );
    });
}
