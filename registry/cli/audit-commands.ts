// Why: `lepton audit`: who did what in a region, the whole record in a file, and whether such a file holds.
// Trusts: of a file nothing; a region root that the auditor gives. Must never: ask a registry while it verifies, or end with 0
// where anything does not hold.

import { once } from 'node:events';
import { createReadStream, createWriteStream, readFileSync, renameSync, rmSync } from 'node:fs';
import type { Command } from 'commander';
import { parseStrictJson } from '../../shared/crypto/canonical-json.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  type AuditReport,
  createAuditVerification,
  type NeighbourHead,
} from '../../shared/trust/audit-export.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { type AuditEntry, auditLineSchema, auditPageSchema } from '../../shared/wire/audit.ts';
import { connect } from './client.ts';
import { collect, connected, type GlobalFlags, positive } from './flags.ts';
import { asTyped, type Cell, print, table, when } from './output.ts';

const lineBytesMax = 16 * 1024 * 1024;

/** Lines of a file without their line feeds; bytes, since what is checked is what was written. */
async function* linesOf(file: string): AsyncGenerator<Uint8Array> {
  let rest = Buffer.alloc(0);
  try {
    for await (const chunk of createReadStream(file)) {
      rest = Buffer.concat([rest, chunk as Buffer]);
      let from = 0;
      for (let at = rest.indexOf(0x0a); at >= 0; at = rest.indexOf(0x0a, from)) {
        yield new Uint8Array(rest.subarray(from, at));
        from = at + 1;
      }
      rest = rest.subarray(from);
      if (rest.length > lineBytesMax)
        throw new FleetError('input-invalid', `${file} is no export of an audit record: a line has no end`);
    }
  } catch (cause) {
    if (cause instanceof FleetError) throw cause;
    throw new FleetError('input-invalid', `cannot read ${file}: ${String(cause)}`, { cause });
  }
  if (rest.length > 0) yield new Uint8Array(rest);
}

interface ListFlags extends GlobalFlags {
  after?: number;
  limit?: number;
  actor?: string;
  action?: string;
  subject?: string;
}

/** Reasons that the registry gives; all others are what a person typed. */
const ownReasons = /^(devices\.quarantine|rollouts\.order\..*)$/;

const rowOf = (entry: AuditEntry): Cell[] => [
  String(entry.id),
  when(entry.atMs),
  entry.actor,
  entry.action,
  entry.subject ?? '-',
  entry.code === null ? entry.outcome : `${entry.outcome} (${entry.code})`,
  entry.address ?? '-',
  ownReasons.test(entry.action) ? (entry.reason ?? '-') : asTyped(entry.reason ?? '-'),
];

async function list(flags: ListFlags): Promise<void> {
  const query = new URLSearchParams();
  for (const name of ['after', 'limit', 'actor', 'action', 'subject'] as const) {
    const value = flags[name];
    if (value !== undefined) query.set(name, String(value));
  }
  const page = await connect(flags).get(`/api/v1/audit?${query}`, auditPageSchema);
  print({ json: flags.json === true }, page, () =>
    [
      table(
        ['ID', 'TIME', 'WHO', 'ACTION', 'SUBJECT', 'OUTCOME', 'ADDRESS', 'REASON'],
        page.entries.map(rowOf),
      ),
      ...(page.after === null ? [] : [`more: --after ${page.after}`]),
    ].join('\n'),
  );
}

async function exportTo(flags: GlobalFlags & { out: string }): Promise<void> {
  const { out } = flags;
  const fresh = `${out}.new`;
  const file = createWriteStream(fresh, { flags: 'w', mode: 0o600 });
  let entries = 0;
  try {
    await once(file, 'open');
    const failed = once(file, 'error').then(([error]: unknown[]) => Promise.reject(error));
    failed.catch(() => undefined);
    for await (const bytes of connect(flags).stream('/api/v1/audit/export')) {
      if (!file.write(bytes)) await Promise.race([once(file, 'drain'), failed]);
    }
    file.end();
    await Promise.race([once(file, 'close'), failed]);
    for await (const line of linesOf(fresh))
      if (Buffer.from(line.subarray(0, 9)).toString() === '{"entry":') entries += 1;
    renameSync(fresh, out);
  } catch (cause) {
    file.destroy();
    rmSync(fresh, { force: true });
    if (cause instanceof FleetError) throw cause;
    throw new FleetError('disk-io', `cannot write ${out}: ${String(cause)}`, { cause });
  }
  print({ json: flags.json === true }, { out, entries }, () => `${entries} entries in ${out}`);
}

interface VerifyFlags {
  against: string[];
  root?: string;
  json?: boolean;
}

/** The region that an export is of. */
async function regionOf(file: string): Promise<string> {
  for await (const bytes of linesOf(file)) {
    const json = parseStrictJson(bytes);
    const line = auditLineSchema.safeParse(json.ok ? json.value : null);
    if (line.success && 'header' in line.data) return line.data.header.region;
    break;
  }
  throw new FleetError(
    'input-invalid',
    `${file} does not begin like an export: lepton audit export --out FILE`,
  );
}

/** The heads of a region that another region's export holds. */
async function headsIn(file: string, region: string): Promise<NeighbourHead[]> {
  const heads: NeighbourHead[] = [];
  for await (const bytes of linesOf(file)) {
    const json = parseStrictJson(bytes);
    const line = auditLineSchema.safeParse(json.ok ? json.value : null);
    if (!line.success || !('peerHead' in line.data)) continue;
    const { peerHead } = line.data;
    if (peerHead.region === region) heads.push({ from: file, envelope: peerHead.envelope });
  }
  return heads;
}

function readRoot(file: string | undefined): Uint8Array | null {
  if (file === undefined) return null;
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(readFileSync(file));
  } catch (cause) {
    throw new FleetError('input-invalid', `cannot read ${file}: ${String(cause)}`, { cause });
  }
  unwrap(parseRegionRoot(bytes));
  return bytes;
}

/** What is worth knowing and proves nothing. */
function notesOf(report: AuditReport, against: readonly string[]): string[] {
  const notes: string[] = [];
  if (!report.rootsVouchedFor)
    notes.push(
      `the region’s roots were taken from the file on trust (first root ${report.rootSha256 ?? 'unknown'}): give --root`,
    );
  if (against.length === 0)
    notes.push('no other region was asked: a region that rewrote its whole record is found with --against');
  for (const file of against) {
    const found = report.neighbours.find(({ from }) => from === file);
    if (found === undefined || found.fit + found.newer === 0) notes.push(`${file} vouches for nothing here`);
    else if (found.newer > 0)
      notes.push(
        `${file} holds ${found.newer} heads that were signed after this file, which ends at ${when(report.head?.atMs ?? null)}: take a newer export to check them`,
      );
  }
  if (report.peerConflicts > 0)
    notes.push(`this region holds ${report.peerConflicts} heads of others that contradict each other`);
  return notes;
}

function wordsOf(report: AuditReport, notes: readonly string[], file: string): string {
  const { region, entries, head, neighbours, findings, more } = report;
  const holds = findings.length === 0;
  const lines = holds
    ? [
        `${file} holds: ${entries} entries of region ${region}, signed ${when(head?.atMs ?? null)} (head ${head?.sequence})`,
        ...neighbours.map(({ from, fit }) => `${from}: ${fit} heads that this region signed before fit`),
      ]
    : [
        `${file} does not hold: ${findings.length + more} findings`,
        ...findings.map(
          ({ kind, line, words }) => `  ${kind}${line === null ? '' : ` (line ${line})`}: ${words}`,
        ),
        ...(more > 0 ? [`  and ${more} more`] : []),
      ];
  return [...lines, ...notes.map((note) => `note: ${note}`)].join('\n');
}

async function verify(file: string, flags: VerifyFlags): Promise<void> {
  const { against } = flags;
  const root = readRoot(flags.root);
  const neighbours: NeighbourHead[] = [];
  if (against.length > 0) {
    const region = await regionOf(file);
    for (const other of against) {
      await regionOf(other);
      neighbours.push(...(await headsIn(other, region)));
    }
  }
  const verification = createAuditVerification({ root, neighbours });
  for await (const line of linesOf(file)) verification.line(line);
  const report = verification.end();
  const notes = notesOf(report, against);
  const holds = report.findings.length === 0;
  print({ json: flags.json === true }, { holds, ...report, notes }, () => wordsOf(report, notes, file));
  if (!holds) process.exitCode = 1;
}

export function addAuditCommands(program: Command): void {
  const audit = program
    .command('audit')
    .description('who did what in a region, and whether the record holds');

  connected(audit.command('list'))
    .description('entries, oldest first')
    .option('--after <id>', 'behind this entry', positive)
    .option('--limit <n>', 'at most so many', positive)
    .option('--actor <name>', 'user:NAME, region:NAME, device:ID, …')
    .option('--action <verb>', 'such as devices.revoke')
    .option('--subject <id>', 'a device, release, rollout, …')
    .action((flags: ListFlags) => list(flags));

  connected(audit.command('export'))
    .description('the whole record with signed heads in a file, for lepton audit verify')
    .requiredOption('--out <file>', 'where to write it')
    .action((flags: GlobalFlags & { out: string }) => exportTo(flags));

  audit
    .command('verify')
    .description(
      'check an export without any registry: every entry, the signed head, and what neighbours saw',
    )
    .argument('<file>', 'what export --out wrote')
    .option(
      '--against <file>',
      'export of another region, which holds heads of this one; repeatable',
      collect,
      [],
    )
    .option('--root <file>', 'a root of the region (N.root.json) that you trust')
    .option('--json', 'one JSON document on stdout')
    .action((file: string, flags: VerifyFlags) => verify(file, flags));
}
