// Why: where new records go: into which batch, and what has to leave for them, planned on copies until the
// transaction that holds them is durable. Trusts: the outbox to apply a plan only after its commit.
// Must never: touch what the outbox holds in memory, except the batches that `durable` can cut back.

import { secretBoxOverheadBytes } from '../../shared/crypto/secretbox.ts';
import { invariant } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy, SqlTx } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { rowBytes } from '../../shared/trust/telemetry.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import { addLine, classRanks, type OpenBatch, openBatch } from './open-batch.ts';
import type { OutboxLimits } from './outbox-port.ts';
import {
  addToCounters,
  batchOverheadBytes,
  countBatch,
  dropBatch,
  droppableBytes,
  firstToDrop,
  type HeldBatch,
  insertBatch,
  insertRow,
  type OutboxState,
  packBatch,
  type Sums,
} from './outbox-tables.ts';

export interface Placing {
  limits: OutboxLimits;
  clock: Clock;
  entropy: Entropy;
  /** Sequences that must not be dropped. */
  underWay(): readonly number[];
}

export type Dropped = Pick<HeldBatch, 'sequence' | 'class' | 'recordCount' | 'heldBytes'>;

/** What becomes of the outbox when the transaction is durable. */
export interface Plan {
  state: OutboxState;
  open: Map<TelemetryClass, OpenBatch>;
  sums: Sums;
  opened: OpenBatch[];
  full: OpenBatch[];
  dropped: Dropped[];
  /** Lines that were durable before, of each batch that lines may be added to. */
  durable: Map<OpenBatch, number>;
}

export function startPlan(
  state: OutboxState,
  open: ReadonlyMap<TelemetryClass, OpenBatch>,
  sums: Sums,
): Plan {
  return {
    state,
    open: new Map(open),
    sums: { ...sums },
    opened: [],
    full: [],
    dropped: [],
    durable: new Map([...open.values()].map((batch) => [batch, batch.lines.length])),
  };
}

/** What a line takes as a sealed row. */
export function lineRowBytes(line: Uint8Array): number {
  return rowBytes(line.length + secretBoxOverheadBytes);
}

/** Puts lines into open batches, row by row. Refusal: `telemetry-full`. */
export function placeRows(
  db: SqlTx,
  plan: Plan,
  className: TelemetryClass,
  lines: readonly Uint8Array[],
  placing: Placing,
): Result<void> {
  const { batchRecordsMax, batchRowBytesMax } = placing.limits;
  const needed = lines.reduce((bytes, line) => bytes + lineRowBytes(line), 0);
  const batches = 1 + Math.ceil(lines.length / batchRecordsMax) + Math.ceil(needed / batchRowBytesMax);
  const room = makeRoom(db, plan, className, needed + batches * batchOverheadBytes, placing);
  if (!room.ok) return room;
  for (const line of lines) {
    const batch = batchFor(db, plan, className, lineRowBytes(line), placing);
    const { index, box } = addLine(batch, line);
    insertRow(db, batch.sequence, index, box);
    plan.sums.bytes += rowBytes(box.length);
  }
  plan.sums.pending += lines.length;
  return ok();
}

/** Takes the next sequences for batches that are complete from the start, behind what is open of their class. */
export function planWhole(
  plan: Plan,
  className: TelemetryClass,
  lines: readonly Uint8Array[],
  placing: Placing,
): OpenBatch[] {
  const present = plan.open.get(className);
  if (present !== undefined) plan.full.push(present);
  plan.open.delete(className);
  const { batchRecordsMax, batchRowBytesMax } = placing.limits;
  const batches: OpenBatch[] = [];
  let batch: OpenBatch | null = null;
  for (const line of lines) {
    const bytes = lineRowBytes(line);
    const fits =
      batch !== null && batch.lines.length < batchRecordsMax && batch.rowBytes + bytes <= batchRowBytesMax;
    if (batch === null || !fits) {
      const next = openBatch(plan.state, className, placing.clock, placing.entropy);
      plan.state = next.state;
      batch = next.batch;
      plan.opened.push(batch);
      batches.push(batch);
    }
    batch.lines.push(line);
    batch.plainBytes += line.length + 1;
    batch.rowBytes += bytes;
  }
  return batches;
}

/** Stores batches that `planWhole` gave, with their packed bodies. Refusal: `telemetry-full`. */
export function placeWhole(
  db: SqlTx,
  plan: Plan,
  className: TelemetryClass,
  packed: readonly { batch: OpenBatch; body: Uint8Array }[],
  placing: Placing,
): Result<void> {
  const needed = packed.reduce((bytes, { body }) => bytes + body.length + batchOverheadBytes, 0);
  const room = makeRoom(db, plan, className, needed, placing);
  if (!room.ok) return room;
  for (const { batch, body } of packed) {
    const recordCount = batch.lines.length;
    insertBatch(db, batch);
    packBatch(db, batch.sequence, { recordCount, plainBytes: batch.plainBytes, body });
    plan.sums.pending += recordCount;
  }
  plan.sums.batches += packed.length;
  plan.sums.bytes += needed;
  return ok();
}

function makeRoom(
  db: SqlTx,
  plan: Plan,
  className: TelemetryClass,
  neededBytes: number,
  placing: Placing,
): Result<void> {
  const { outboxBytesMax } = placing.limits;
  const rankMax = classRanks[className];
  const excess = plan.sums.bytes + neededBytes - outboxBytesMax;
  if (excess <= 0) return ok();
  // Asked first, so that nothing is dropped for records that find no room after all.
  const filling = [...plan.open.values()].filter(({ rank }) => rank <= rankMax);
  const droppable = filling.reduce(
    (bytes, batch) => bytes + batch.rowBytes,
    droppableBytes(db, rankMax, placing.underWay()),
  );
  if (droppable < excess) {
    return refuse('telemetry-full', `${plan.sums.bytes} bytes wait, limit ${outboxBytesMax}`);
  }
  while (plan.sums.bytes + neededBytes > outboxBytesMax) {
    const victim = firstToDrop(db, rankMax, placing.underWay());
    // An open batch goes first where it is worth less than every closed one.
    const filling = lowestOpen(plan, victim === null ? rankMax : victim.rank - 1);
    if (filling !== null) dropOpen(db, plan, filling);
    else if (victim !== null) {
      dropHeld(db, victim, plan.sums);
      plan.dropped.push(victim);
    } else invariant(false, 'there was something to drop');
  }
  return ok();
}

function lowestOpen(plan: Plan, rankMax: number): OpenBatch | null {
  const worthLess = [...plan.open.values()].filter(({ rank }) => rank <= rankMax);
  return worthLess.sort((a, b) => a.rank - b.rank || a.sequence - b.sequence)[0] ?? null;
}

function dropOpen(db: SqlTx, plan: Plan, batch: OpenBatch): void {
  const { sequence, class: className } = batch;
  const recordCount = batch.lines.length;
  countBatch(db, sequence, recordCount);
  plan.open.delete(className);
  const held = { sequence, class: className, recordCount, heldBytes: batch.rowBytes };
  dropHeld(db, held, plan.sums);
  plan.dropped.push(held);
}

/** Makes a batch a tombstone and counts what was in it. */
export function dropHeld(db: SqlTx, batch: Dropped, into: Sums): void {
  dropBatch(db, batch.sequence);
  addToCounters(db, 0, batch.recordCount);
  into.dropped += batch.recordCount;
  into.pending -= batch.recordCount;
  into.bytes -= batch.heldBytes;
}

function batchFor(
  db: SqlTx,
  plan: Plan,
  className: TelemetryClass,
  bytes: number,
  placing: Placing,
): OpenBatch {
  const { batchRecordsMax, batchRowBytesMax } = placing.limits;
  const present = plan.open.get(className);
  if (present !== undefined) {
    if (present.lines.length < batchRecordsMax && present.rowBytes + bytes <= batchRowBytesMax)
      return present;
    plan.full.push(present);
  }
  const next = openBatch(plan.state, className, placing.clock, placing.entropy);
  plan.state = next.state;
  plan.open.set(className, next.batch);
  plan.opened.push(next.batch);
  insertBatch(db, next.batch);
  plan.sums.batches += 1;
  plan.sums.bytes += batchOverheadBytes;
  return next.batch;
}
