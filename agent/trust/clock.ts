// Why: what time it is, as far as this device can know: its own clock may say 1970 or 2099 (DESIGN 3 "Time").
// Trusts: time that its region signed for a question of its own, in this start; what was verified before as a
// floor. Must never: let the floor fall, but where the key that vouched for it is no longer the region's.

import { openEnvelope } from '../../shared/crypto/dsse.ts';
import type { Migration } from '../../shared/host/sqlite.ts';
import type { Clock, SqlTx } from '../../shared/kernel/ports.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import type { Envelope } from '../../shared/wire/messages.ts';

export const clockMigrations: readonly Migration[] = [
  {
    name: 'agent-clock-001',
    sql: `
      CREATE TABLE clock_floors (
        role TEXT NOT NULL,
        -- JSON array of the public keys (hex, sorted) that vouched for it; '[]' where an older version did not say.
        keys TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (role, keys)
      ) STRICT, WITHOUT ROWID;
      INSERT INTO clock_floors (role, keys, at_ms)
        SELECT 'director', '[]', verified_ms FROM trust_time WHERE verified_ms > 0;
    `,
  },
];

/** Whose word it is: signed answers of `time`, and the dates of accepted assignments of the `director`. */
export type Voucher = 'time' | 'director';

/** "It is at least this late", and the keys (hex, sorted) that said so. */
export interface ClockFloor {
  role: Voucher;
  keys: string[];
  atMs: number;
}

export interface TrustedClock {
  /** Signed time of this start, moved on; else the wall clock; never below the floor. Unix milliseconds. */
  nowMs(): number;
  /** Highest time verified, 0 where none. */
  floorMs(): number;
  source(): 'signed' | 'wall';
  /** The time of the last signed answer of this start, moved on, with its age; the floor plays no part in it. */
  signed(): { nowMs: number; ageMs: number } | null;
  /**
   * A signed answer to a question asked at `askedMonoMs`. Its time lies between question and answer, so the middle
   * is taken; for the floor only what was signed counts. Durable when it resolves.
   */
  answered(answer: { timeMs: number; askedMonoMs: number; keys: string[] }): Promise<void>;
  /** Something verified was signed at this time, or later. Durable when it resolves. */
  proven(floor: ClockFloor): Promise<void>;
  /** Another region root is in force: the word of keys that it does not name counts no longer. */
  follow(root: RegionRoot): Promise<void>;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** The keys of a role (hex, sorted) that signed this envelope. */
export function vouchersOf(envelope: Envelope, root: RegionRoot, role: Voucher): string[] {
  return root.roles[role].keys
    .filter(({ publicKey }) => openEnvelope(envelope, envelope.payloadType, [publicKey], 1).ok)
    .map(({ publicKey }) => hex(publicKey))
    .sort();
}

/** Whether enough of the keys that vouched are still the role's. */
function stands({ role, keys }: ClockFloor, root: RegionRoot): boolean {
  const named = new Set(root.roles[role].keys.map(({ publicKey }) => hex(publicKey)));
  return keys.filter((key) => named.has(key)).length >= root.roles[role].threshold;
}

export function readFloors(db: SqlTx): ClockFloor[] {
  return db
    .all<{ role: string; keys: string; at_ms: number }>(
      'SELECT role, keys, at_ms FROM clock_floors ORDER BY role, keys',
    )
    .flatMap(({ role, keys, at_ms }) =>
      role === 'time' || role === 'director' ? [{ role, keys: readKeys(keys), atMs: at_ms }] : [],
    );
}

function readKeys(text: string): string[] {
  const found: unknown = JSON.parse(text);
  return Array.isArray(found) ? found.filter((one) => typeof one === 'string') : [];
}

/** Replaces all floors: inside the transaction of whoever decided which still stand. */
export function writeFloors(db: SqlTx, floors: readonly ClockFloor[]): void {
  db.run('DELETE FROM clock_floors');
  for (const { role, keys, atMs } of floors) {
    db.run(
      'INSERT INTO clock_floors (role, keys, at_ms) VALUES (?, ?, ?)',
      role,
      JSON.stringify(keys),
      Math.floor(atMs),
    );
  }
}

/** Both, the higher where the same keys vouched. */
export function mergeFloors(...lists: (readonly ClockFloor[])[]): ClockFloor[] {
  const highest = new Map<string, ClockFloor>();
  for (const floor of lists.flat()) {
    const name = `${floor.role} ${floor.keys.join(' ')}`;
    const known = highest.get(name);
    if (known === undefined || floor.atMs > known.atMs) highest.set(name, floor);
  }
  return [...highest.values()];
}

export function openTrustedClock(parts: {
  clock: Clock;
  /** As they were stored. */
  floors: readonly ClockFloor[];
  root: RegionRoot;
  /** Makes them durable. */
  save(floors: readonly ClockFloor[]): Promise<void>;
}): TrustedClock {
  const { clock, save } = parts;
  let root = parts.root;
  /** A version that did not keep who vouched had it from the director of the root that is held. */
  const adopt = (floor: ClockFloor): ClockFloor =>
    floor.keys.length > 0
      ? floor
      : { ...floor, keys: root.roles[floor.role].keys.map(({ publicKey }) => hex(publicKey)).sort() };
  // A root that was stored just before a power cut has not been followed yet.
  let floors = mergeFloors(parts.floors.map(adopt)).filter((floor) => stands(floor, root));
  let anchor: { timeMs: number; atMonoMs: number; keys: string[] } | null = null;

  const floorMs = (): number => floors.reduce((most, { atMs }) => Math.max(most, atMs), 0);
  const signedMs = (): number | null =>
    anchor === null ? null : anchor.timeMs + (clock.mono() - anchor.atMonoMs);

  async function raise(floor: ClockFloor): Promise<void> {
    if (!stands(floor, root)) return;
    const raised = mergeFloors(floors, [floor]);
    // In force at once: what was verified does not become less true where the disk is full.
    floors = raised;
    await save(raised);
  }

  return {
    nowMs: () => Math.max(signedMs() ?? clock.wall(), floorMs()),
    floorMs,
    source: () => (anchor === null ? 'wall' : 'signed'),
    signed: () => {
      const nowMs = signedMs();
      return nowMs === null || anchor === null ? null : { nowMs, ageMs: clock.mono() - anchor.atMonoMs };
    },
    answered: async ({ timeMs, askedMonoMs, keys }) => {
      const atMonoMs = clock.mono();
      anchor = { timeMs: timeMs + (atMonoMs - askedMonoMs) / 2, atMonoMs, keys };
      await raise({ role: 'time', keys, atMs: timeMs });
    },
    proven: raise,
    follow: async (next) => {
      root = next;
      const left = floors.filter((floor) => stands(floor, root));
      if (anchor !== null && !stands({ role: 'time', keys: anchor.keys, atMs: 0 }, root)) anchor = null;
      if (left.length === floors.length) return;
      floors = left;
      await save(left);
    },
  };
}
