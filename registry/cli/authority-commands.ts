// Why: `lepton authorities` and `lepton broker`: who issues the fleet's certificates, and the files by which a
// broker of another maker knows it.
// Trusts: the registry's answers, validated. Must never: leave a file that looks whole and is not.

import { open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { makeFolders } from '../../shared/host/folders.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type AuthorityView, authoritySchema, brokerFilesSchema } from '../../shared/wire/http.ts';
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
async function writeWhole(path: string, text: string): Promise<void> {
  try {
    const handle = await open(`${path}.new`, 'w', 0o644);
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
    .description('write access rules, revocation lists, authorities and settings for mosquitto')
    .requiredOption('--out <folder>', 'where to write them; made where it is missing')
    .action(async (flags: GlobalFlags & { out: string }) => {
      const files = await connect(flags).get('/api/v1/broker/files', brokerFilesSchema);
      makeFolders(flags.out);
      const written = {
        acl: files.acl,
        'revoked.crl.pem': files.revoked,
        'authorities.pem': files.authorities,
        'mosquitto.conf': files.settings,
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
