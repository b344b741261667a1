// Why: an honest audit record of a region in a file, and what an auditor has beside it: the ground of attacks on it.
// Trusts: shared/trust for making it. Must never: be made when the module loads; a mutant may not let it.

import assert from 'node:assert/strict';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import {
  auditBegin,
  auditEntrySha256,
  noEntrySha256,
  signAuditClosing,
  signAuditHead,
} from '../../shared/trust/audit.ts';
import type { AuditFindingKind } from '../../shared/trust/audit-chain.ts';
import {
  type AuditReport,
  createAuditVerification,
  type NeighbourHead,
} from '../../shared/trust/audit-export.ts';
import { makeRegionRoot } from '../../shared/trust/region.ts';
import type { AuditClosing, AuditEntry, AuditHead, AuditPeerHead } from '../../shared/wire/audit.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { dayMs, nowMs, signerNamed } from './hostile-repository.ts';

export const region = 'eu-west';
export const otherRegion = 'us-east';
export const mallory = signerNamed('mallory');
/** The region changed its `ack` key: the newest head is older than that, the export is not. */
export const [firstAck, ack] = [signerNamed('ack'), signerNamed('ack-2')];

const madeRoots = new Map<string, Uint8Array>();
export function root(version: 1 | 2, of = region, signer = 'region-root'): Uint8Array {
  const name = `${of} ${version} ${signer}`;
  const own = signerNamed(signer);
  const spec = (one: Signer) => ({ keys: [one.publicKey], threshold: 1 });
  const rest = { director: spec(own), time: spec(own), command: spec(own) };
  const made =
    madeRoots.get(name) ??
    makeRegionRoot({
      ...{ region: of, version, expiresAtMs: nowMs + 300 * dayMs, signers: [own] },
      roles: { ...rest, root: spec(own), ack: spec(version === 1 ? firstAck : ack) },
    });
  madeRoots.set(name, made);
  return made;
}

export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const rootSha256 = (): string => sha256Hex(root(1));

/** Every digest made anew from `from` on, as whoever changed something would do. */
export function rechained(
  entries: readonly AuditEntry[],
  before: string = noEntrySha256,
  from = 1,
): AuditEntry[] {
  let previousSha256 = before;
  return entries.map(({ entrySha256: _, ...body }, at) => {
    const next = { ...body, id: from + at, previousSha256 };
    previousSha256 = auditEntrySha256(next);
    return { ...next, entrySha256: previousSha256 };
  });
}

/** Of what an honest file has six. */
export const entryOf = (id: number): AuditEntry => ({
  ...{ id, atMs: nowMs + id, region, actor: 'user:ann', via: 'api', action: 'devices.revoke' },
  ...{ subject: `device-${id}`, reason: null, outcome: 'done', code: null, rule: null, address: null },
  ...{ detail: { status: 200 }, previousSha256: noEntrySha256, entrySha256: noEntrySha256 },
  ...(id === 1
    ? { action: auditBegin.action, subject: null, detail: { [auditBegin.rootSha256]: rootSha256() } }
    : {}),
});
export const entries = (): AuditEntry[] => rechained([1, 2, 3, 4, 5, 6].map(entryOf));

export const headOf = (record: readonly AuditEntry[], changes: Partial<AuditHead> = {}): AuditHead => ({
  ...{ schemaVersion: 1, region, entries: record.length, atMs: nowMs + 9, sequence: 2 },
  headSha256: record.at(-1)?.entrySha256 ?? noEntrySha256,
  ...changes,
});

const peerHead = (conflict: string | null, sequence: number): AuditPeerHead => ({
  ...{ region: otherRegion, receivedAtMs: nowMs, conflict },
  envelope: signAuditHead(headOf([], { region: otherRegion, entries: 3, sequence }), mallory),
});

export interface File {
  header: { schemaVersion: 1; region: string; rootSha256: string; roots: string[] };
  entries: AuditEntry[];
  head: Envelope;
  peerHeads: AuditPeerHead[];
}

export const file = (record: AuditEntry[] = entries()): File => ({
  header: { schemaVersion: 1, region, rootSha256: rootSha256(), roots: [root(1), root(2)].map(base64) },
  entries: record,
  head: signAuditHead(headOf(record), firstAck),
  peerHeads: [peerHead(null, 1), peerHead('audit-head-rollback', 2)],
});

export const linesOf = ({ header, entries: record, head, peerHeads }: File): string[] =>
  [
    { header },
    ...record.map((entry) => ({ entry })),
    { head },
    ...peerHeads.map((one) => ({ peerHead: one })),
  ].map((line) => JSON.stringify(line));

/** With the last line, by whoever has a key of the region. */
export function closed(
  lines: readonly string[],
  changes: Partial<AuditClosing> = {},
  signer = ack,
): string[] {
  const linesSha256 = sha256Hex(Buffer.from(lines.map((line) => `${line}\n`).join('')));
  const closing = { region, lines: lines.length, linesSha256, atMs: nowMs, ...changes };
  return [...lines, JSON.stringify({ closing: signAuditClosing({ schemaVersion: 1, ...closing }, signer) })];
}

/** What only the region itself can make: good in itself, whatever it says. */
export const resigned = (record: AuditEntry[], changes: Partial<File> = {}): string[] =>
  closed(linesOf({ ...file(record), ...changes }));

interface Given {
  root?: Uint8Array;
  neighbours?: NeighbourHead[];
}

export function verify(lines: readonly string[], given: Given = {}): AuditReport {
  const verification = createAuditVerification({
    root: given.root ?? null,
    neighbours: given.neighbours ?? [],
  });
  for (const line of lines) verification.line(Buffer.from(line));
  return verification.end();
}

export const kept = (head: Partial<AuditHead>, signer = firstAck): Given => ({
  neighbours: [{ from: otherRegion, envelope: signAuditHead(headOf(entries(), head), signer) }],
});

/** The honest file with all that an auditor may give; nothing may be found in it. */
function assertHonestHolds(lines: string[]): void {
  const { findings, ...report } = verify(lines, { root: root(1), ...kept({ sequence: 1 }) });
  assert.deepEqual([findings, report.rootsVouchedFor, report.peerConflicts], [[], true, 1]);
  assert.deepEqual([report.entries, report.head?.entries], [6, 6]);
  assert.deepEqual(report.neighbours, [{ from: otherRegion, fit: 1, newer: 0 }]);
}

let honest: string[] | null = null;
function honestLines(): string[] {
  honest ??= resigned(entries());
  return [...honest];
}

/**
 * A row on a file. `finds`: all that must be found, each with the id of its entry where it is about one; the first is
 * what the attack is called.
 */
export function audited(
  id: string,
  attack: string,
  finds: [`${AuditFindingKind}` | `${AuditFindingKind} ${number}`, ...string[]],
  spoil: (lines: string[]) => string[],
  given: Given | (() => Given) = {},
): AttackCase {
  const code = finds[0].split(' ')[0] as AuditFindingKind;
  return {
    ...{ id: `audit-${id}`, group: 'audit', attack, code, where: 'direct' },
    run: async () => {
      assertHonestHolds(honestLines());
      const lines = spoil(honestLines());
      const { findings } = verify(lines, typeof given === 'function' ? given() : given);
      const found = findings.map(({ kind, entry }) => (entry === null ? kind : `${kind} ${entry}`));
      assert.deepEqual([...new Set(found)].sort(), [...finds].sort());
      return code;
    },
  };
}

/** Place of an entry in a file: the header is before the first. */
export const at = (id: number): number => id;
export const json = (entry: AuditEntry): string => JSON.stringify({ entry });
export const changed = (id: number, changes: Partial<AuditEntry>): AuditEntry[] =>
  entries().map((one) => (one.id === id ? { ...one, ...changes } : one));
export const [headLine, closingLine] = [7, 10];
