// Why: `lepton devices move`, `sign-move` and `moves`: devices to another region, by an order that root key holders sign.
// Trusts: move-file.ts for what an order is, the registries for what they refuse. Must never: sign without saying what.

import type { Command } from 'commander';
import { z } from 'zod';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type ClaimFile, claimFileSchema } from '../../shared/wire/claim.ts';
import { type MoveView, moveApplySchema, moveSchema } from '../../shared/wire/device-move.ts';
import { deviceSchema, keysStatusSchema } from '../../shared/wire/http.ts';
import { parseMessage } from '../../shared/wire/messages.ts';
import { connect, type RegistryClient } from './client.ts';
import { connected, duration, type GlobalFlags } from './flags.ts';
import { openPrivateKey, readBytes, writeDocument } from './key-files.ts';
import {
  envelopeOf,
  makeMoveFile,
  moveWords,
  type OpenMoveFile,
  openMoveFile,
  readMoveFile,
  signMoveFile,
  withSignatures,
} from './move-file.ts';
import { print, spoken, table, when } from './output.ts';

interface MoveFlags extends GlobalFlags {
  to?: string;
  toRegistry?: string;
  toToken?: string;
  claim?: string;
  out?: string;
  ttl: number;
  sign?: boolean;
  apply?: string;
}

function readClaim(path: string): ClaimFile {
  const claim = parseMessage(claimFileSchema, readBytes(path));
  if (!claim.ok) throw new FleetError('claim-malformed', `${path}: ${claim.refusal.detail}`);
  return claim.value;
}

/** The region that all of them are in. Fault: `move-other-region`. */
async function regionOf(client: RegistryClient, ids: readonly string[]): Promise<string> {
  const regions = new Set<string>();
  for (const id of ids) {
    const { region } = await client.get(`/api/v1/devices/${encodeURIComponent(id)}`, deviceSchema);
    regions.add(region);
  }
  const [region, other] = regions;
  if (region === undefined || other !== undefined)
    throw new FleetError('move-other-region', 'the devices are not of one region');
  return region;
}

async function claimFor(flags: MoveFlags, ids: readonly string[]): Promise<ClaimFile> {
  if (flags.claim !== undefined) return readClaim(flags.claim);
  if (flags.toRegistry === undefined)
    throw new FleetError('config-invalid', 'the target region must make a claim for these devices', {
      hint: `give --to-registry URL --to-token T, or --claim FILE (there: lepton claims create --device ID … --out FILE)`,
    });
  const there = connect({
    registry: flags.toRegistry,
    ...(flags.toToken === undefined ? {} : { token: flags.toToken }),
  });
  return there.send('POST', '/api/v1/claims', { deviceIds: ids, ttlMs: flags.ttl }, claimFileSchema);
}

const viewOf = (file: string, { order, rootSha256, signedBy, needed }: OpenMoveFile) => ({
  file,
  moveId: order.moveId,
  devices: order.deviceIds,
  from: order.from,
  to: order.to.region,
  expiresAtMs: order.expiresAtMs,
  catalogueRootSha256: rootSha256,
  signedBy,
  needed,
});

function nextStep({ signedBy, needed }: OpenMoveFile, file: string): string {
  return signedBy.length < needed
    ? `next: lepton devices sign-move ${file} --key FILE (a key of the catalogue’s root)`
    : `next: lepton devices move --apply ${file}`;
}

async function prepare(ids: string[], flags: MoveFlags): Promise<void> {
  const { to, out } = flags;
  if (ids.length === 0 || to === undefined || out === undefined)
    throw new FleetError('config-invalid', 'name the devices, --to REGION and --out FILE, or --apply FILE');
  const here = connect(flags);
  const from = await regionOf(here, ids);
  const claim = await claimFor(flags, ids);
  if (claim.region !== to)
    throw new FleetError('move-other-region', `the claim is of region ${claim.region}, not of ${to}`);
  const catalogueRoot = await currentRoot(here);
  const nowMs = Date.now();
  let file = makeMoveFile({
    deviceIds: ids,
    from,
    to: claim,
    catalogueRoot,
    nowMs,
    expiresAtMs: nowMs + flags.ttl,
  });
  if (flags.sign === true) {
    const body = { order: file.order };
    const signed = await here.send('POST', '/api/v1/moves/sign', body, moveApplySchema);
    file = withSignatures(file, signed.envelope.signatures);
  }
  writeDocument(out, file);
  const opened = openMoveFile(file);
  print({ json: flags.json === true }, viewOf(out, opened), () =>
    [...moveWords(opened), `written to ${out}`, nextStep(opened, out)].join('\n'),
  );
}

/** The root in force, as a device that is up to date holds it. */
async function currentRoot(client: RegistryClient): Promise<Uint8Array> {
  const { roles } = await client.get('/api/v1/keys', keysStatusSchema);
  const version = roles.find(({ role }) => role === 'root')?.version;
  const bytes = await client.bytes(`/api/v1/metadata/${version}.root.json`);
  if (bytes === null) throw new FleetError('metadata-missing', `the registry has no root ${version}`);
  return bytes;
}

async function apply(path: string, flags: MoveFlags): Promise<void> {
  const opened = openMoveFile(readMoveFile(path));
  if (opened.signedBy.length === 0)
    throw new FleetError('move-signature-invalid', `nobody has signed ${path} yet`);
  const envelope = envelopeOf(opened.file);
  const move = await connect(flags).send('POST', '/api/v1/moves', { envelope }, moveSchema);
  print({ json: flags.json === true }, move, () =>
    [moveText([move]), 'next: lepton devices moves'].join('\n'),
  );
}

function moveText(moves: readonly MoveView[]): string {
  return table(
    ['MOVE', 'FROM', 'TO', 'UNTIL', 'DEVICE', 'STATE', 'SINCE', 'REASON'],
    moves.flatMap(({ moveId, from, to, expiresAtMs, devices }) =>
      devices.map(({ id, state, atMs, reason }) => [
        ...[moveId, from, to, when(expiresAtMs), id, state, when(atMs)],
        reason === null ? '-' : `${reason.code}: ${reason.detail}`,
      ]),
    ),
  );
}

/** Below `lepton devices`. */
export function addMoveCommands(devices: Command): void {
  connected(devices.command('move'))
    .description('move devices to another region for good, by an order that catalogue root keys sign')
    .argument('[ids...]')
    .option('--to <region>', 'the region that they are to join')
    .option('--to-registry <url>', 'its registry, which makes the claim for them')
    .option('--to-token <token>', 'a token of that registry')
    .option('--claim <file>', 'a claim for these devices that was made there (claims create --device)')
    .option('--ttl <duration>', 'how long devices may take to follow', duration, 7 * 86_400_000)
    .option('--out <file>', 'where to write the order')
    .option('--sign', 'have this registry sign with its development root keys')
    .option('--apply <file>', 'hand a signed order to the devices’ present region')
    .action((ids: string[], flags: MoveFlags) =>
      flags.apply === undefined ? prepare(ids, flags) : apply(flags.apply, flags),
    );

  devices
    .command('sign-move')
    .description(
      'read what an order would do, and sign it with a key of the catalogue’s root; works without a network',
    )
    .argument('<file>')
    .requiredOption('--key <file>', 'private key: one of `keys create`, or PKCS #8 in PEM')
    .option('--out <file>', 'where to write it (default: in place)')
    .option('--json', 'one JSON document on stdout')
    .action((path: string, flags: { key: string; out?: string; json?: boolean }) => {
      const before = openMoveFile(readMoveFile(path));
      // Before the passphrase: who reads something unexpected does not type it.
      if (flags.json !== true) process.stdout.write(`${spoken(moveWords(before).slice(0, -1).join('\n'))}\n`);
      const after = openMoveFile(signMoveFile(before, openPrivateKey(flags.key)));
      const out = flags.out ?? path;
      writeDocument(out, after.file);
      print({ json: flags.json === true }, viewOf(out, after), () =>
        [`signed by ${after.signedBy.length} of ${after.needed}`, nextStep(after, out)].join('\n'),
      );
    });

  connected(devices.command('moves'))
    .description('orders that move devices of this region to others, and how far each device is')
    .action(async (flags: GlobalFlags) => {
      const moves = await connect(flags).get('/api/v1/moves', z.array(moveSchema));
      print({ json: flags.json === true }, moves, () => moveText(moves));
    });
}
