// Why: what a device remembers of orders that moved it, or will: the newest one that it took, how far it is with it, and what
// of earlier regions is still on it. One value, in the main store and in the second copy.
// Trusts: callers to have verified what they give. Must never: forget an order that was taken; it could be repeated.

import { z } from 'zod';
import type { Migration } from '../../shared/host/sqlite.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { reasonSchema } from '../../shared/wire/messages.ts';

const number = z.number().int().nonnegative();

/** What the new region gave, kept until the device is one of its own. */
export const joinedSchema = z.object({
  certificate: z.string(),
  /** Exact bytes, base64. */
  regionRoot: z.base64(),
  labels: z.record(z.string(), z.string()),
  telemetryEpoch: number,
});
export type Joined = z.infer<typeof joinedSchema>;

export const moveUnderWaySchema = z.object({
  phase: z.enum(['waiting', 'enrolling', 'rehearsing']),
  /** JSON of the envelope: checked again whenever it is acted on, so that a root that changed since counts. */
  envelope: z.string(),
  moveId: z.string(),
  to: z.string(),
  expiresAtMs: number,
  /** Null before `rehearsing`. */
  joined: joinedSchema.nullable(),
  reason: reasonSchema.nullable(),
});
export type MoveUnderWay = z.infer<typeof moveUnderWaySchema>;

/** Telemetry of a region that the device left, in an outbox of its own until that region has signed for all of it. */
const chainSchema = z.object({
  /** Of the outbox: `outboxFileOf`. */
  outbox: number,
  region: z.string(),
  /** That region's root when the device left, base64: what its answers are checked with. */
  regionRoot: z.base64(),
  leftAtMs: number,
});
export type LeftChain = z.infer<typeof chainSchema>;

export const movesSchema = z.object({
  lastMoveId: z.string().nullable(),
  lastIssuedAtMs: number,
  /** What the last order came to where it did not move the device. */
  lastEnded: reasonSchema.nullable(),
  under: moveUnderWaySchema.nullable(),
  movedFrom: z.string().nullable(),
  /** Which outbox is in use. */
  outbox: number,
  chains: z.array(chainSchema),
  /** JSON of the first assignment of the present region, until one is in force: its keys and rules for telemetry. */
  arrival: z.string().nullable(),
  /** By region that was left, the highest epoch seen there: at a return an older assignment is a repeated one. */
  epochs: z.record(z.string(), number),
});
export type Moves = z.infer<typeof movesSchema>;

export const neverMoved: Moves = {
  lastMoveId: null,
  lastIssuedAtMs: 0,
  lastEnded: null,
  under: null,
  movedFrom: null,
  outbox: 0,
  chains: [],
  arrival: null,
  epochs: {},
};

/** The first one has the name that it always had. */
export const outboxFileOf = (outbox: number): string =>
  outbox === 0 ? 'outbox.sqlite' : `outbox-${outbox}.sqlite`;

export const movesMigrations: readonly Migration[] = [
  {
    name: 'agent-moves-001',
    sql: `
      CREATE TABLE moves (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        -- JSON (agent/trust/moves.ts).
        moves TEXT NOT NULL
      ) STRICT;
    `,
  },
];

/** Fault: what JSON and schema throw, as a broken store. */
export function readMoves(db: SqlTx): Moves {
  // `lepton-agent status` opens a store that no daemon of this version has migrated yet.
  if (db.get("SELECT 1 FROM sqlite_master WHERE name = 'moves'") === undefined) return neverMoved;
  const row = db.get<{ moves: string }>('SELECT moves FROM moves WHERE id = 1');
  return row === undefined ? neverMoved : movesSchema.parse(JSON.parse(row.moves));
}

export function writeMoves(db: SqlTx, moves: Moves): void {
  db.run(
    'INSERT INTO moves (id, moves) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET moves = excluded.moves',
    JSON.stringify(moves),
  );
}
