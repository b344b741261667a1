// Why: `lepton keys`: making keys, planning, signing and installing changes of them, and looking at them.
// Trusts: key-bundles.ts and the registry for every judgement. Must never: talk to a registry in a command that
// is meant for a machine without a network; only plan, install and status do.

import type { Command } from 'commander';
import { parseStrictJson } from '../../shared/crypto/canonical-json.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type KeysStatus, keysInstalledSchema, keysStatusSchema } from '../../shared/wire/http.ts';
import { checkHolder } from '../../shared/wire/key-file.ts';
import { keyPlanSchema } from '../../shared/wire/key-plan.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags } from './flags.ts';
import { openBundle, signatureWords, signBundle } from './key-bundles.ts';
import { addChangeCommands } from './key-change-commands.ts';
import {
  createKey,
  openPrivateKey,
  readBundle,
  readBytes,
  readPublicKey,
  writeDocument,
} from './key-files.ts';
import { print, spoken, table, when } from './output.ts';

export function addKeyCommands(program: Command): void {
  const keys = program
    .command('keys')
    .description('keys of root, targets, region and publishers: made offline, rotated, lost and stolen');
  addCreate(keys);
  addShow(keys);
  addPlan(keys);
  addChangeCommands(keys);
  addSign(keys);
  addInstall(keys);
  addStatus(keys);
}

function addCreate(keys: Command): void {
  keys
    .command('create')
    .description('make a key: FILE, sealed under a passphrase, and FILE.pub; works without a network')
    .argument('<file>', 'where to write the private key; never replaced')
    .requiredOption('--holder <name>', 'who keeps it')
    .option(
      '--passphrase-file <file>',
      'take the passphrase from a file (or LEPTON_PASSPHRASE); else it is asked for',
    )
    .option('--json', 'one JSON document on stdout')
    .addHelpText('after', '\nThe passphrase cannot be recovered. Carry FILE.pub to others, never FILE.')
    .action((path: string, flags: { holder: string; json?: boolean }) => {
      const { holder, publicKey, keyId } = createKey(path, unwrap(checkHolder(flags.holder)));
      const made = { file: path, publicFile: `${path}.pub`, holder, publicKey, keyId };
      print(
        { json: flags.json === true },
        made,
        () => `key ${keyId.slice(0, 16)} of ${holder}: ${path} (secret), ${path}.pub (to be carried)`,
      );
    });
}

function addShow(keys: Command): void {
  keys
    .command('show')
    .description('what a key file, .pub file or bundle says; no passphrase, no network')
    .argument('<file>')
    .option('--json', 'one JSON document on stdout')
    .action((path: string, flags: { json?: boolean }) => {
      const output = { json: flags.json === true };
      const json = parseStrictJson(readBytes(path));
      const kind =
        json.ok && json.value !== null && typeof json.value === 'object' && 'kind' in json.value
          ? json.value['kind']
          : null;
      if (kind === 'lepton-key-bundle') {
        const { changes, missing, addedAtInstall } = openBundle(readBundle(path));
        const view = { changes, missing, addedAtInstall };
        print(output, { file: path, ...view }, () => [...changes, ...signatureWords(view, path)].join('\n'));
        return;
      }
      const { holder, publicKey, keyId } = readPublicKey(path);
      print(output, { file: path, holder, publicKey, keyId }, () =>
        [`holder      ${holder}`, `public key  ${publicKey}`, `key id      ${keyId}`].join('\n'),
      );
    });
}

function addPlan(keys: Command): void {
  connected(keys.command('plan'))
    .description('fetch what is in force, to be carried to machines without a network')
    .requiredOption('--out <file>', 'where to write the plan')
    .option(
      '--new-online',
      'let the registry make new online keys; they sign nothing until a root names them',
    )
    .addHelpText(
      'after',
      '\nMaking new online keys again gives up those of an earlier plan that was not installed.',
    )
    .action(async (flags: GlobalFlags & { out: string; newOnline?: boolean }) => {
      const plan = await connect(flags).send(
        'POST',
        '/api/v1/keys/plan',
        { newOnline: flags.newOnline === true },
        keyPlanSchema,
      );
      writeDocument(flags.out, plan);
      const shown = {
        file: flags.out,
        region: plan.region,
        keys: plan.keys,
        publishers: plan.publishers.map((one) => one.namespace),
        newOnline: plan.newOnline !== null,
      };
      print({ json: flags.json === true }, shown, () =>
        [
          `plan of region ${plan.region} (${plan.keys} keys) written to ${flags.out}${plan.newOnline === null ? '' : ', with new online keys'}`,
          plan.newOnline === null
            ? 'next: lepton keys ceremony, rotate or revoke --plan'
            : `next: lepton keys rotate --plan ${flags.out} --online --out bundle.json`,
        ].join('\n'),
      );
    });
}

function addSign(keys: Command): void {
  keys
    .command('sign')
    .description('read what a bundle would change, and add this key’s signatures; works without a network')
    .argument('<bundle>')
    .requiredOption('--key <file>', 'private key: one of `keys create`, or PKCS #8 in PEM')
    .option('--out <file>', 'where to write it (default: in place)')
    .option('--json', 'one JSON document on stdout')
    .addHelpText(
      'after',
      '\nCompare the digests with `lepton keys status` and new key ids with what their holders say.',
    )
    .action((path: string, flags: { key: string; out?: string; json?: boolean }) => {
      const output = { json: flags.json === true };
      const opened = openBundle(readBundle(path));
      // Before the passphrase: who reads something unexpected does not type it.
      if (!output.json) process.stdout.write(`${spoken(opened.changes.join('\n'))}\n`);
      const { bundle, signed, ...view } = signBundle(opened, openPrivateKey(flags.key));
      const out = flags.out ?? path;
      writeDocument(out, bundle);
      print(output, { file: out, signed, ...view }, () =>
        [
          signed.length === 0 ? 'this key had signed it all before' : `signed: ${signed.join(', ')}`,
          ...signatureWords(view, out),
        ].join('\n'),
      );
    });
}

function addInstall(keys: Command): void {
  connected(keys.command('install'))
    .description('put a signed bundle in force, all of it or nothing')
    .argument('<bundle>')
    .addHelpText(
      'after',
      '\nOn a registry with development keys, it adds their signatures and then deletes them.',
    )
    .action(async (path: string, flags: GlobalFlags) => {
      const bundle = readBundle(path);
      const done = await connect(flags).send('POST', '/api/v1/keys/install', { bundle }, keysInstalledSchema);
      print({ json: flags.json === true }, done, () =>
        [
          done.status === 'installed' ? `in force: ${done.documents.join(', ')}` : 'it was in force already',
          ...(done.signedHere.length === 0
            ? []
            : [`signed by the registry’s development keys: ${done.signedHere.join(', ')}`]),
          ...(done.deleted.length === 0
            ? []
            : [
                'deleted from the registry’s disk:',
                ...done.deleted.map((key) => `  ${key.role} ${key.keyId.slice(0, 16)}`),
              ]),
          ...(done.reissued === 0 ? [] : [`assignments signed again: ${done.reissued}`]),
          `the registry’s keys are ${done.keys} ones now`,
          'next: lepton keys status',
        ].join('\n'),
      );
    });
}

function statusText(status: KeysStatus): string {
  const { region, keys, catalogueRootSha256, regionRootSha256, roles, pending, warnings } = status;
  const rows = roles.flatMap((role) =>
    role.keys.map((key, index) => [
      index === 0 ? role.role : '',
      index === 0 ? `${role.threshold} of ${role.keys.length}` : '',
      key.keyId.slice(0, 16),
      key.holder ?? '-',
      key.where,
      index === 0 && role.version !== null ? `${role.version}` : '',
      index === 0 && role.expiresAtMs !== null ? when(role.expiresAtMs).slice(0, 10) : '',
      index === 0 && role.daysLeft !== null ? `${role.daysLeft}` : '',
    ]),
  );
  return [
    `region ${region}: ${keys} keys`,
    `catalogue root ${catalogueRootSha256}`,
    `region root    ${regionRootSha256}`,
    '',
    table(['ROLE', 'MUST SIGN', 'KEY', 'HOLDER', 'WHERE', 'VERSION', 'EXPIRES', 'DAYS'], rows),
    ...(pending.length === 0
      ? []
      : [
          '',
          'waiting for a bundle that names them:',
          ...pending.map((key) => `  ${key.role} ${key.keyId.slice(0, 16)}`),
        ]),
    ...(warnings.length === 0
      ? []
      : ['', ...warnings.map((one) => `warning: ${one.role}: ${one.detail}; next: ${one.next}`)]),
  ].join('\n');
}

function addStatus(keys: Command): void {
  connected(keys.command('status'))
    .description('every role: its keys, who holds them and where, its threshold, and what expires when')
    .action(async (flags: GlobalFlags) => {
      const status = await connect(flags).get('/api/v1/keys', keysStatusSchema);
      print({ json: flags.json === true }, status, () => statusText(status));
    });
}
