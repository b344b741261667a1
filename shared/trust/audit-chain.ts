// Why: what an auditor sees in the entries of an export alone, one after the other: which was edited, is missing, or stands where
// it does not belong. Trusts: nothing in them. Must never: keep more than the numbers of what is missing.

import type { AuditEntry } from '../wire/audit.ts';
import { auditBegin, auditEntrySha256, noEntrySha256 } from './audit.ts';

export const auditFindings = [
  'malformed',
  'root',
  'edited',
  'replaced',
  'removed',
  'reordered',
  'inserted',
  'truncated',
  'head',
  'changed',
  'neighbour',
] as const;
export type AuditFindingKind = (typeof auditFindings)[number];

/** What is checked about the chain of entries, line after line. */
export class Chain {
  count = 0;
  last: AuditEntry | null = null;
  /** Ids that were passed over so far. */
  readonly #missing = new Set<number>();
  #highest = 0;
  #missingBeyond: { from: number; to: number } | null = null;
  readonly #find: (kind: AuditFindingKind, entry: number | null, words: string) => void;

  constructor(find: (kind: AuditFindingKind, entry: number | null, words: string) => void) {
    this.#find = find;
  }

  take(entry: AuditEntry, region: string | null, rootSha256: string | null): void {
    this.count += 1;
    const { id } = entry;
    const own = auditEntrySha256(entry);
    if (own !== entry.entrySha256) this.#find('edited', id, `entry ${id} was edited: its digest is ${own}`);
    if (region !== null && entry.region !== region)
      this.#find('inserted', id, `entry ${id} is of region ${entry.region}`);
    if (id === 1) this.#first(entry, rootSha256);
    const expected = this.#highest + 1;
    if (id === expected) this.#link(entry);
    else if (id > expected) this.#gap(expected, id - 1);
    else if (this.#missing.delete(id))
      this.#find('reordered', id, `entry ${id} stands behind entry ${this.#highest}, out of its place`);
    else this.#find('inserted', id, `entry ${id} stands in the file a second time`);
    if (id >= expected) {
      this.#highest = id;
      this.last = entry;
    }
  }

  #first(entry: AuditEntry, rootSha256: string | null): void {
    if (entry.previousSha256 !== noEntrySha256)
      this.#find('removed', 1, 'entry 1 names an entry before it: the beginning was cut off');
    if (entry.action !== auditBegin.action)
      this.#find(
        'replaced',
        1,
        `entry 1 is ${entry.action}: the record does not begin with ${auditBegin.action}`,
      );
    else if (rootSha256 !== null && entry.detail[auditBegin.rootSha256] !== rootSha256)
      this.#find('root', 1, 'entry 1 names another first root of the region than this file');
  }

  #link(entry: AuditEntry): void {
    const { last } = this;
    if (last === null || entry.previousSha256 === last.entrySha256) return;
    this.#find(
      'replaced',
      entry.id,
      `entry ${entry.id} does not follow entry ${last.id} as it stands here: one of the two was put in the place of another`,
    );
  }

  #gap(from: number, to: number): void {
    // A number that somebody made up must not take all memory.
    const kept = Math.min(to, from + 100_000 - this.#missing.size);
    for (let id = from; id <= kept; id += 1) this.#missing.add(id);
    if (kept < to) this.#missingBeyond = { from: Math.max(from, kept + 1), to };
  }

  end(): void {
    const ranges: { from: number; to: number }[] = [];
    for (const id of [...this.#missing].sort((a, b) => a - b)) {
      const range = ranges.at(-1);
      if (range?.to === id - 1) range.to = id;
      else ranges.push({ from: id, to: id });
    }
    if (this.#missingBeyond !== null) ranges.push(this.#missingBeyond);
    for (const { from, to } of ranges)
      this.#find(
        'removed',
        from,
        from === to ? `entry ${from} is missing` : `entries ${from} to ${to} are missing`,
      );
  }
}
