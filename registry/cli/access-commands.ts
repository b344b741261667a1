// Why: `lepton tokens`, `lepton claims` and `lepton publishers`: who may do what.
// Trusts: the registry for every decision. Must never: write a secret into a file that others can read.

import { type Command, Option } from 'commander';
import { z } from 'zod';
import { FleetError } from '../../shared/kernel/errors.ts';
import { publisherRole } from '../../shared/trust/ceremony/standing.ts';
import { isNamespace } from '../../shared/trust/tuf/namespaces.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import { publisherSchema, roles, tokenCreatedSchema, tokenSchema } from '../../shared/wire/http.ts';
import { anyAnswer, connect } from './client.ts';
import { collect, connected, duration, type GlobalFlags, label, positive } from './flags.ts';
import { makeBundle } from './key-bundles.ts';
import { printBundle } from './key-change-commands.ts';
import { keyArgument } from './key-files.ts';
import { print, table, when } from './output.ts';
import { publisherKey } from './publisher-key.ts';
import { writeSecret } from './secret-file.ts';
import { addPublisherStepCommands } from './step-commands.ts';

export function addTokenCommands(program: Command): void {
  const tokens = program.command('tokens').description('access tokens of people and programs');

  connected(tokens.command('create'))
    .description('make a token; its secret is shown once')
    .requiredOption('--user <name>', 'who uses it')
    .addOption(new Option('--role <role>', 'what it allows').choices([...roles]).makeOptionMandatory())
    .option('--namespace <ns>', 'bind it to one publisher namespace')
    .option('--ttl <duration>', 'how long it is valid, e.g. 30d (default: until revoked)', duration)
    .option('--at <region>', 'where its user sits: what is read goes there (default: this region)')
    .action(
      async (
        flags: GlobalFlags & { user: string; role: string; namespace?: string; ttl?: number; at?: string },
      ) => {
        const created = await connect(flags).send(
          'POST',
          '/api/v1/tokens',
          {
            user: flags.user,
            role: flags.role,
            ...(flags.namespace === undefined ? {} : { namespace: flags.namespace }),
            ...(flags.ttl === undefined ? {} : { ttlMs: flags.ttl }),
            ...(flags.at === undefined ? {} : { at: flags.at }),
          },
          tokenCreatedSchema,
        );
        print({ json: flags.json === true }, created, () =>
          [
            created.token,
            `token ${created.id} for ${created.user}, role ${created.role}${created.atRegion === null ? '' : `, in ${created.atRegion}`}, expires ${when(created.expiresAtMs)}; it is not shown again`,
          ].join('\n'),
        );
      },
    );

  connected(tokens.command('list'))
    .description('tokens and when they expire')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/tokens', z.array(tokenSchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['ID', 'USER', 'ROLE', 'NAMESPACE', 'AT', 'CREATED', 'EXPIRES', 'REVOKED'],
          list.map((one) => [
            one.id,
            one.user,
            one.role,
            one.namespace ?? '(all)',
            one.atRegion ?? '(here)',
            when(one.createdAtMs),
            when(one.expiresAtMs),
            when(one.revokedAtMs),
          ]),
        ),
      );
    });

  connected(tokens.command('revoke'))
    .description('make a token useless at once')
    .argument('<id>', 'token id, as `lepton tokens list` shows it')
    .action(async (id: string, flags: GlobalFlags) => {
      await connect(flags).send('DELETE', `/api/v1/tokens/${encodeURIComponent(id)}`, {}, anyAnswer);
      print({ json: flags.json === true }, { id, revoked: true }, () => `token ${id} is revoked`);
    });
}

export function addClaimCommands(program: Command): void {
  const claims = program.command('claims').description('enrolment claims: files that let new devices in');

  connected(claims.command('create'))
    .description('make a claim file for one or more devices; treat it as a secret')
    .option('--label <k=v>', 'label of the devices it enrols (repeatable)', label)
    .option('--uses <n>', 'how many devices it enrols', positive, 1)
    .option(
      '--device <id>',
      'for this device alone, by its key; for an order to move it here (repeatable)',
      collect,
    )
    .option('--ttl <duration>', 'how long it is valid', duration, 86_400_000)
    .requiredOption('--out <file>', 'where to write it (mode 0600)')
    .action(
      async (
        flags: GlobalFlags & {
          label?: Record<string, string>;
          uses: number;
          device?: string[];
          ttl: number;
          out: string;
        },
      ) => {
        const claim = await connect(flags).send(
          'POST',
          '/api/v1/claims',
          {
            labels: flags.label ?? {},
            uses: flags.uses,
            ttlMs: flags.ttl,
            ...(flags.device === undefined ? {} : { deviceIds: flags.device }),
          },
          claimFileSchema,
        );
        try {
          writeSecret(flags.out, claim);
        } catch (cause) {
          throw new FleetError('input-invalid', `cannot write ${flags.out}: ${String(cause)}`, { cause });
        }
        const shown = {
          claimId: claim.claimId,
          region: claim.region,
          brokerUrl: claim.brokerUrl,
          labels: claim.labels,
          uses: claim.uses,
          expiresAtMs: claim.expiresAtMs,
          file: flags.out,
        };
        print({ json: flags.json === true }, shown, () =>
          [
            `claim ${claim.claimId}: ${claim.uses} use(s) until ${when(claim.expiresAtMs)}, written to ${flags.out}`,
            claim.deviceIds === undefined
              ? `next: lepton-agent run --claim ${flags.out} --state DIR --http 127.0.0.1:8500`
              : `next, where the devices are: lepton devices move ID… --to ${claim.region} --claim ${flags.out} --out move.json`,
          ].join('\n'),
        );
      },
    );
}

interface PublisherFlags extends GlobalFlags {
  key: string[];
  threshold: number;
  plan?: string;
  out?: string;
}

/** Where targets is signed offline: its next version in a bundle, for its holders to sign. */
function stagePublisher(namespace: string, flags: PublisherFlags, plan: string): void {
  const { out, key, threshold } = flags;
  if (out === undefined) throw new FleetError('config-invalid', '--plan needs --out FILE for the bundle');
  if (!isNamespace(namespace)) throw new FleetError('input-invalid', `${namespace} cannot be a namespace`);
  const made = makeBundle({
    plan,
    out,
    changes: () => [{ kind: 'set', role: publisherRole(namespace), keys: key.map(keyArgument), threshold }],
  });
  printBundle({ out, ...(flags.json === undefined ? {} : { json: flags.json }) }, made);
}

export function addPublisherCommands(program: Command): void {
  const publishers = program.command('publishers').description('who may sign releases of a namespace');

  connected(publishers.command('add'))
    .description('name the keys of a namespace and how many of them must sign')
    .argument('<namespace>')
    .requiredOption('--key <public-key>', '64 hex digits, or a .pub file (repeatable)', collect)
    .option('--threshold <n>', 'signatures that a release needs', positive, 1)
    .option(
      '--plan <file>',
      'where targets is signed offline: make a bundle from this plan, without a network',
    )
    .option('--out <file>', 'where to write that bundle')
    .addHelpText(
      'after',
      '\nlepton keys ceremony publisher prints all steps where targets is signed offline.',
    )
    .action(async (namespace: string, flags: PublisherFlags) => {
      if (flags.plan !== undefined) {
        stagePublisher(namespace, flags, flags.plan);
        return;
      }
      const done = await connect(flags).send(
        'PUT',
        `/api/v1/publishers/${encodeURIComponent(namespace)}`,
        {
          keys: flags.key.map((key) => Buffer.from(keyArgument(key).publicKey).toString('hex')),
          threshold: flags.threshold,
        },
        publisherSchema,
      );
      print(
        { json: flags.json === true },
        done,
        () => `namespace ${done.namespace}: ${done.threshold} of ${done.keys.length} keys must sign`,
      );
    });

  connected(publishers.command('list'))
    .description('namespaces, their keys and thresholds')
    .action(async (flags: GlobalFlags) => {
      const list = await connect(flags).get('/api/v1/publishers', z.array(publisherSchema));
      print({ json: flags.json === true }, list, () =>
        table(
          ['NAMESPACE', 'THRESHOLD', 'METADATA', 'KEYS'],
          list.map((one) => [
            one.namespace,
            `${one.threshold} of ${one.keys.length}`,
            `v${one.metadataVersion}`,
            one.keys.join(' '),
          ]),
        ),
      );
    });

  publishers
    .command('key')
    .description(
      'show the public key with which this machine signs for a namespace; makes it where there is none',
    )
    .argument('<namespace>')
    .option('--key <file>', 'private key file (PKCS #8, PEM)')
    .option('--json', 'one JSON document on stdout')
    .action((namespace: string, flags: { key?: string; json?: boolean }) => {
      const key = publisherKey(namespace, flags.key, true);
      print(
        { json: flags.json === true },
        { namespace, publicKey: key.publicKeyHex, file: key.file },
        () => key.publicKeyHex,
      );
    });

  addPublisherStepCommands(publishers);
}
