// Why: holds that an export shows every edit of itself, and that a region which rewrote its whole record is found by what its
// neighbours hold. Trusts: fast-check for edits nobody thought of. Must never: accept a check that finds nothing at all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { auditEntrySha256, signAuditClosing, signAuditHead } from '../../shared/trust/audit.ts';
import {
  type AuditReport,
  createAuditVerification,
  type NeighbourHead,
} from '../../shared/trust/audit-export.ts';
import type { AuditEntry, AuditLine } from '../../shared/wire/audit.ts';
import { type AuditedRegion, auditedRegion, pull, rechained, rewrite } from './region.ts';

function check(
  lines: readonly string[],
  { root = null, neighbours = [] }: { root?: Uint8Array | null; neighbours?: readonly NeighbourHead[] } = {},
): AuditReport {
  const verification = createAuditVerification({ root, neighbours });
  for (const line of lines) verification.line(Buffer.from(line));
  return verification.end();
}

const kinds = (report: AuditReport): string[] => [...new Set(report.findings.map(({ kind }) => kind))];
const parsed = (lines: readonly string[]): AuditLine[] => lines.map((line) => JSON.parse(line));
const entriesOf = (lines: readonly string[]): AuditEntry[] =>
  parsed(lines).flatMap((line) => ('entry' in line ? [line.entry] : []));

/** What another export holds of a region. */
const headsOf = (region: string, lines: readonly string[]): NeighbourHead[] =>
  parsed(lines).flatMap((line) =>
    'peerHead' in line && line.peerHead.region === region
      ? [{ from: 'neighbour', envelope: line.peerHead.envelope }]
      : [],
  );

/** A region with two heads and a neighbour that holds them; both hold heads of each other. */
async function neighbours(t: Parameters<typeof auditedRegion>[0]): Promise<{
  region: AuditedRegion;
  other: AuditedRegion;
  lines: string[];
}> {
  const region = await auditedRegion(t, 'eu-west');
  const other = await auditedRegion(t, 'us-east');
  await region.work(6);
  await region.audit.heads.sign();
  await region.work(5);
  await region.audit.heads.sign();
  await other.work(2);
  await other.audit.heads.sign();
  await pull(region, other);
  await pull(other, region);
  return { region, other, lines: await region.exported() };
}

test('an export holds, with and without a root that vouches for it', async (t) => {
  const { region, other, lines } = await neighbours(t);
  const report = check(lines);
  assert.deepEqual(report.findings, []);
  assert.deepEqual([report.region, report.entries, report.rootsVouchedFor], ['eu-west', 12, false]);
  assert.equal(report.head?.entries, 12);
  const heads = headsOf('eu-west', await other.exported());
  assert.equal(heads.length, 2);
  const vouched = check(lines, { root: region.root.bytes, neighbours: heads });
  assert.deepEqual([vouched.findings, vouched.rootsVouchedFor], [[], true]);
  assert.deepEqual(vouched.neighbours, [{ from: 'neighbour', fit: 2, newer: 0 }]);
  assert.deepEqual(kinds(check(lines, { root: other.root.bytes })), ['root']);
  // An older export says less than a neighbour knows by now; that is no fault of it.
  await region.work(3);
  await region.audit.heads.sign();
  await pull(region, other);
  const later = check(lines, { neighbours: headsOf('eu-west', await other.exported()) });
  assert.deepEqual([later.findings, later.neighbours], [[], [{ from: 'neighbour', fit: 2, newer: 1 }]]);
});

test('edits, removals, reorderings and insertions are named by the entry', async (t) => {
  const { lines } = await neighbours(t);
  const at = (id: number): number => lines.findIndex((line) => line.startsWith(`{"entry":{"id":${id},`));
  const first = (changed: readonly string[]) => {
    const [finding] = check(changed).findings;
    return [finding?.kind, finding?.entry];
  };
  const edited = lines.with(at(5), (lines[at(5)] ?? '').replace('device-4', 'device-9'));
  assert.deepEqual(first(edited), ['edited', 5]);
  const [own] = entriesOf(lines).slice(4, 5);
  assert.ok(own);
  // With its digest made anew, the next one does not follow it any more.
  const redone = { ...own, subject: 'device-9' };
  const whole = { ...redone, entrySha256: auditEntrySha256(redone) };
  assert.deepEqual(first(lines.with(at(5), JSON.stringify({ entry: whole }))), ['replaced', 6]);
  const removed = check(lines.toSpliced(at(5), 2));
  assert.deepEqual(
    removed.findings.filter(({ kind }) => kind === 'removed').map(({ words }) => words),
    ['entries 5 to 6 are missing'],
  );
  const swapped = lines.with(at(5), lines[at(6)] ?? '').with(at(6), lines[at(5)] ?? '');
  assert.deepEqual(first(swapped), ['reordered', 5]);
  assert.deepEqual(first(lines.toSpliced(at(7), 0, lines[at(5)] ?? '')), ['inserted', 5]);
  const cut = check(lines.slice(0, at(9)));
  assert.deepEqual(cut.findings.at(-1)?.kind, 'truncated');
  assert.deepEqual(first(lines.toSpliced(at(12), 1)), ['truncated', 11]);
  assert.deepEqual(kinds(check([])), ['malformed']);
  assert.ok(check([...lines, lines.at(-1) ?? '']).findings.length > 0);
  assert.ok(check([...lines, ...lines]).findings.length > 0);
});

/** Every place in a JSON value where something other than an object stands. */
function leaves(value: unknown, path: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [path];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]));
}

function other(value: unknown, chance: number): unknown {
  if (typeof value === 'number') return value + 1 + chance;
  if (typeof value === 'boolean') return !value;
  if (typeof value !== 'string') return 'put there';
  if (value === '') return 'x';
  const at = chance % value.length;
  const letter = value[at] === 'a' ? 'b' : 'a';
  return value.slice(0, at) + letter + value.slice(at + 1);
}

function edit(value: unknown, path: readonly string[], chance: number): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return other(value, chance);
  if (Array.isArray(value))
    return value.map((one, at) => (String(at) === key ? edit(one, rest, chance) : one));
  const fields = value as Record<string, unknown>;
  return { ...fields, [key]: edit(fields[key], rest, chance) };
}

test('any edit of any field, removal, move, insertion or cut is found', async (t) => {
  const { lines } = await neighbours(t);
  const line = fc.nat(lines.length - 1);
  const finds = (changed: readonly string[]): boolean => check(changed).findings.length > 0;
  const places = lines.flatMap((text, at) => leaves(JSON.parse(text)).map((path) => ({ at, path })));
  // Each field once for certain, then with other letters.
  for (const { at, path } of places) {
    const changed = lines.with(at, JSON.stringify(edit(JSON.parse(lines[at] ?? ''), path, 0)));
    assert.ok(finds(changed), `line ${at + 1}, ${path.join('.')}`);
  }
  fc.assert(
    fc.property(fc.nat(places.length - 1), fc.nat(1_000), (which, chance) => {
      const { at, path } = places[which] ?? { at: 0, path: [] };
      return finds(lines.with(at, JSON.stringify(edit(JSON.parse(lines[at] ?? ''), path, chance))));
    }),
    { numRuns: 150 },
  );
  fc.assert(
    fc.property(line, fc.integer({ min: 1, max: lines.length }), (from, count) =>
      finds(lines.toSpliced(from, count)),
    ),
    { numRuns: 60 },
  );
  fc.assert(
    fc.property(line, line, (from, to) => {
      fc.pre(from !== to);
      return finds(lines.toSpliced(from, 1).toSpliced(to, 0, lines[from] ?? ''));
    }),
    { numRuns: 60 },
  );
  fc.assert(
    fc.property(line, line, (from, to) => finds(lines.toSpliced(to, 0, lines[from] ?? ''))),
    { numRuns: 60 },
  );
  const whole = `${lines.join('\n')}\n`;
  fc.assert(
    fc.property(fc.nat(whole.length - 2), (length) =>
      finds(whole.slice(0, length).split('\n').filter(Boolean)),
    ),
    { numRuns: 60 },
  );
});

test('who has no key of the region cannot make the record fit again', async (t) => {
  const { other, lines } = await neighbours(t);
  const entries = rechained(entriesOf(lines).filter(({ id }) => id !== 5));
  const rest = parsed(lines).filter((one) => !('entry' in one));
  const forge = (signer: AuditedRegion['signer']): string[] => {
    const head = signAuditHead(
      {
        ...{ schemaVersion: 1, region: 'eu-west', entries: entries.length },
        ...{ headSha256: entries.at(-1)?.entrySha256 ?? '', atMs: 0, sequence: 1 },
      },
      signer,
    );
    const body = [...rest.slice(0, 1), ...entries.map((one) => ({ entry: one })), { head }].map((one) =>
      JSON.stringify(one),
    );
    const linesSha256 = sha256Hex(Buffer.from(body.map((one) => `${one}\n`).join('')));
    const closing = {
      schemaVersion: 1,
      region: 'eu-west',
      lines: body.length,
      linesSha256,
      atMs: 0,
    } as const;
    return [...body, JSON.stringify({ closing: signAuditClosing(closing, signer) })];
  };
  assert.deepEqual(kinds(check(forge(other.signer))), ['head', 'changed']);
});

test('a region that rewrites its whole record is found by a neighbour’s heads', async (t) => {
  const { region, other, lines } = await neighbours(t);
  const before = headsOf('eu-west', await other.exported());
  const rewritten = entriesOf(lines).map((one) => (one.id === 4 ? { ...one, actor: 'user:nobody' } : one));
  await rewrite(region, rechained(rewritten));
  const forged = await region.exported();
  // Its chain, its head and its signature are as good as any.
  assert.deepEqual(check(forged, { root: region.root.bytes }).findings, []);
  const found = check(forged, { neighbours: before });
  assert.deepEqual(
    found.findings.map(({ kind, entry }) => [kind, entry]),
    [
      ['neighbour', 7],
      ['neighbour', 12],
    ],
  );
  // An entry after everything that the neighbour saw is nobody's to vouch for yet.
  await rewrite(region, entriesOf(lines));
  await region.work(1);
  assert.deepEqual(check(await region.exported(), { neighbours: before }).findings, []);

  // Cut off, and grown again to the same length.
  await rewrite(region, rechained(entriesOf(lines).slice(0, 9)));
  const short = check(await region.exported(), { neighbours: before });
  // The head that it signs now is later than the one that the neighbour holds, over fewer entries.
  assert.deepEqual(
    short.findings.map(({ kind, words }) => [kind, /entries were cut off since/.test(words)]),
    [['neighbour', true]],
  );
  await region.work(3);
  const grown = check(await region.exported(), { neighbours: before });
  assert.deepEqual(
    grown.findings.map(({ kind, entry }) => [kind, entry]),
    [['neighbour', 12]],
  );
});

test('heads that the region’s roots did not sign are no evidence, and are said', async (t) => {
  const { other, lines } = await neighbours(t);
  const head = { schemaVersion: 1, region: 'eu-west', entries: 3, headSha256: 'a'.repeat(64) } as const;
  const envelope = signAuditHead({ ...head, atMs: 0, sequence: 9 }, other.signer);
  const report = check(lines, { neighbours: [{ from: 'x', envelope }] });
  assert.deepEqual(kinds(report), ['neighbour']);
  assert.match(report.findings[0]?.words ?? '', /not signed under these roots/);
});
