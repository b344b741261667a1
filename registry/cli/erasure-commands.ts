// Why: `lepton telemetry erase`, `erasures` and `verify-erasure`: deleting what a region holds of a device, and the proof of it.
// Trusts: of a certificate nothing before the region's root, pinned by its digest, stands behind it.
// Must never: call proven what no `ack` key of the region signed.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { z } from 'zod';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { speaker } from '../../shared/host/speech.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { checkErasure } from '../../shared/trust/erasure.ts';
import { parseRegionRoot, type RegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import {
  type Erasure,
  type ErasureRegions,
  type ErasureStatement,
  erasureRegionsSchema,
  erasureSchema,
} from '../../shared/wire/erasure.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags, label } from './flags.ts';
import { asTyped, note, print, table, when } from './output.ts';

interface EraseFlags extends GlobalFlags {
  label?: Record<string, string>;
  allRegions?: boolean;
  until?: number;
  reason?: string;
  out?: string;
}

function day(text: string): number {
  const timeMs = Date.parse(text);
  if (!Number.isFinite(timeMs)) throw new InvalidArgumentError('Expected a date such as 2026-11-01.');
  return timeMs;
}

const erasedWords = ({ records, batches, keys, deviceId }: ErasureStatement): string =>
  `deleted ${records} records in ${batches} batches and ${keys.length} key(s) of ${deviceId}`;

function keepCertificates(out: string, document: Erasure | Erasure[]): void {
  try {
    writeFileSync(out, `${JSON.stringify(document, null, 2)}\n`);
  } catch (cause) {
    throw new FleetError('disk-io', `everything is deleted; the certificate cannot be written to ${out}`, {
      cause,
      hint: 'lepton telemetry erasures --json prints it again',
    });
  }
}

async function erase(device: string | undefined, flags: EraseFlags): Promise<void> {
  const { label: labels, out } = flags;
  if ((device === undefined) === (labels === undefined))
    throw new FleetError(
      'config-invalid',
      'give the id of a device, or --label for every device that has it',
    );
  const wanted = {
    ...(flags.until === undefined ? {} : { untilMs: flags.until }),
    ...(flags.reason === undefined ? {} : { reason: flags.reason }),
    ...(flags.allRegions === true ? { allRegions: true } : {}),
  };
  const client = connect(flags);
  const document =
    device === undefined
      ? await client.send('POST', '/api/v1/telemetry/erasures', { ...wanted, labels }, z.array(erasureSchema))
      : await client.send(
          'POST',
          `/api/v1/devices/${encodeURIComponent(device)}/telemetry/erasure`,
          wanted,
          erasureSchema,
        );
  if (out !== undefined) keepCertificates(out, document);
  const done = Array.isArray(document) ? document : [document];
  print({ json: flags.json === true }, document, () =>
    [
      ...(done.length === 0 ? ['no device has these labels; nothing was deleted'] : []),
      ...done.map(({ statement }) => erasedWords(statement)),
      ...(out === undefined ? [] : [`certificate in ${out}`]),
      ...(flags.allRegions === true ? ['other regions were asked: lepton telemetry erasures'] : []),
    ].join('\n'),
  );
}

function regionWords({ regions }: ErasureRegions): string {
  const { say, word } = speaker();
  const said = regions.map(({ region, state, doneAtMs, reason }) => {
    if (state === 'done') return `${region} done ${when(doneAtMs)}`;
    return `${region} ${word(state)}${reason === null ? '' : ` (${say(reason)})`}`;
  });
  return said.join(', ') || 'no other region is known';
}

function regionsOf(across: readonly ErasureRegions[], erasureId: string): string {
  const asked = across.find((one) => one.erasureId === erasureId);
  return asked === undefined ? '-' : regionWords(asked);
}

async function listErasures(flags: GlobalFlags & { regions?: boolean }): Promise<void> {
  const client = connect(flags);
  const across = await client.get('/api/v1/telemetry/erasures/regions', z.array(erasureRegionsSchema));
  if (flags.regions === true) {
    print({ json: flags.json === true }, across, () =>
      table(
        ['ASKED', 'DEVICE', 'OTHER REGIONS'],
        across.map((one) => [when(one.askedAtMs), one.deviceId, regionWords(one)]),
      ),
    );
    return;
  }
  const list = await client.get('/api/v1/telemetry/erasures', z.array(erasureSchema));
  print({ json: flags.json === true }, list, () =>
    table(
      ['DONE', 'DEVICE', 'KEYS', 'RECORDS', 'ASKED FOR BY', 'REASON', 'OTHER REGIONS'],
      list.map(({ statement }) => [
        when(statement.doneAtMs),
        statement.deviceId,
        String(statement.keys.length),
        String(statement.records),
        statement.requestedBy,
        asTyped(statement.reason ?? '-'),
        regionsOf(across, statement.erasureId),
      ]),
    ),
  );
}

interface VerifyFlags extends GlobalFlags {
  regionRootSha256?: string;
  roots?: string;
}

function digest(text: string): string {
  if (!/^[0-9a-f]{64}$/.test(text)) throw new InvalidArgumentError('Expected 64 hexadecimal digits.');
  return text;
}

/** Of the file that `erase --out` wrote, or of one document of `erasures --json`. */
function readErasure(file: string): Erasure {
  let document: unknown;
  try {
    document = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new FleetError('input-invalid', `cannot read ${file}: ${String(cause)}`, { cause });
  }
  const parsed = erasureSchema.safeParse(document);
  if (parsed.success) return parsed.data;
  throw new FleetError(
    'input-invalid',
    `${file} is no certificate of an erasure: ${describeIssues(parsed.error)}`,
  );
}

/** Exact bytes of a region root by its version, null where there is none. */
function rootsFrom(flags: VerifyFlags): (version: number) => Promise<Uint8Array | null> {
  const { roots } = flags;
  if (roots === undefined) {
    const client = connect(flags);
    return (version) => client.bytes(`/api/v1/metadata/region/${version}.root.json`);
  }
  return async (version) => {
    try {
      return new Uint8Array(readFileSync(join(roots, `${version}.root.json`)));
    } catch (cause) {
      if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return null;
      throw new FleetError('input-invalid', `cannot read the roots in ${roots}`, { cause });
    }
  };
}

/** Every root of the region from the first on, each signed by the one before. */
async function regionRoots(flags: VerifyFlags): Promise<RegionRoot[]> {
  const bytesOf = rootsFrom(flags);
  let current = await bytesOf(1);
  if (current === null)
    throw new FleetError('metadata-missing', 'there is no first root of the region (1.root.json)');
  const pinned = sha256Hex(current);
  if (flags.regionRootSha256 === undefined)
    note(`nothing vouches for the first region root ${pinned}: give --region-root-sha256\n`);
  else if (flags.regionRootSha256 !== pinned)
    throw new FleetError('metadata-signature-invalid', `the first region root is ${pinned}`, {
      hint: 'its digest stands in every claim file (regionRootSha256)',
    });
  const roots = [unwrap(parseRegionRoot(current))];
  for (let version = 2; ; version += 1) {
    const next = await bytesOf(version);
    if (next === null) return roots;
    roots.push(unwrap(updateRegionRoot(current, next)));
    current = next;
  }
}

async function verifyErasure(file: string, flags: VerifyFlags): Promise<void> {
  const { certificate } = readErasure(file);
  const roots = await regionRoots(flags);
  // Signed once and kept for years: the keys of that day, which a later root may have replaced.
  const found = roots
    .map((root) => ({ root, checked: checkErasure(certificate, root) }))
    .findLast(({ checked }) => checked.ok);
  const newest = roots.at(-1);
  if (found === undefined || newest === undefined || !found.checked.ok)
    throw new FleetError(
      'erasure-invalid',
      `no root of region ${newest?.region ?? ''} stands behind ${file}`,
    );
  const statement = found.checked.value;
  // What is printed is what was signed, not what stands beside it.
  if (statement.region !== found.root.region)
    throw new FleetError(
      'erasure-invalid',
      `it is of region ${statement.region}, the root of ${found.root.region}`,
    );
  const { version } = found.root;
  print(
    { json: flags.json === true },
    { statement, regionRoot: version, regionRootInForce: newest.version },
    () =>
      [
        `region ${statement.region} signed on ${when(statement.doneAtMs)} that it ${erasedWords(statement)}`,
        `asked for by ${statement.requestedBy}${statement.reason === null ? '' : `: ${statement.reason}`}`,
        `signed under region root ${version}${version === newest.version ? '' : `; ${newest.version} is in force now`}`,
      ].join('\n'),
  );
}

/** Under `telemetry`, where they began, and under `devices`, where people look for them. */
export function addEraseCommands(parent: Command): void {
  connected(parent.command('erase'))
    .description('delete what the region holds of a device, with the keys that open it; not to be undone')
    .argument('[device]', 'its id')
    .option('--label <k=v>', 'instead: every device with it, such as subject=…; repeatable', label)
    .option('--until <date>', 'only what was sealed to keys that were made before this day', day)
    .option('--reason <text>', 'stands in the certificate')
    .option('--all-regions', 'ask every other region as well; each signs for itself')
    .option('--out <file>', 'write the signed certificate there; with --label a list of them')
    .action((device: string | undefined, flags: EraseFlags) => erase(device, flags));

  connected(parent.command('erasures'))
    .description('what was deleted, newest first; with --json the certificates')
    .option('--regions', 'instead: how far those are that were asked of every region')
    .action((flags: GlobalFlags & { regions?: boolean }) => listErasures(flags));
}

export function addErasureCommands(telemetry: Command): void {
  addEraseCommands(telemetry);

  connected(telemetry.command('verify-erasure'))
    .description('check the certificate of an erasure against the region’s roots')
    .argument('<file>', 'what erase --out wrote')
    .option('--region-root-sha256 <digest>', 'of the first region root, as claim files have it', digest)
    .option('--roots <folder>', 'of 1.root.json, 2.root.json, …: ask no registry')
    .action((file: string, flags: VerifyFlags) => verifyErasure(file, flags));
}
