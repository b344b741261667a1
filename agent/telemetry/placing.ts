// Why: where new records go: into which batch, and what has to leave for them, planned on copies until the
// transaction that holds them is durable. Trusts: the outbox to apply a plan only after its commit.
// Must never: touch what the outbox holds in memory, except the batches that `durable` can cut back.

import { secretBoxOverheadBytes } from '../../shared/crypto/secretbox.ts';
import { invariant } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy, SqlTx } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { rowBytes } from '../../shared/trust/telemetry.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import { addLine, type OpenBatch, openBatch } from './open-batch.ts';
import type { OutboxLimits } from './outbox-port.ts';
import { addHeld, batchOverheadBytes, copySums, countDropped, type Sums } from './outbox-sums.ts';
import {
  countBatch,
  dropBatch,
  droppableBytes,
  firstToDrop,
  type HeldBatch,
  insertBatch,
  insertRow,
  type OutboxState,
  packBatch,
  type Ranks,
} from './outbox-tables.ts';
import { bodyDiskBytes, classRanks, type DropReason } from './policy.ts';

export interface Placing {
  limits: OutboxLimits;
  clock: Clock;
  entropy: Entropy;
  /** Sequences that must not be dropped. */
  underWay(): readonly number[];
}

export type Dropped = Pick<HeldBatch, 'sequence' | 'class' | 'recordCount' | 'heldBytes'> & {
  reason: DropReason;
};

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
    sums: copySums(sums),
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
    addHeld(plan.sums, className, 1, rowBytes(box.length));
  }
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
  const needed = packed.reduce(
    (bytes, { body }) => bytes + bodyDiskBytes(body.length) + batchOverheadBytes,
    0,
  );
  const room = makeRoom(db, plan, className, needed, placing);
  if (!room.ok) return room;
  for (const { batch, body } of packed) {
    const recordCount = batch.lines.length;
    insertBatch(db, batch);
    packBatch(db, batch.sequence, { recordCount, plainBytes: batch.plainBytes, body });
    addHeld(plan.sums, className, recordCount, bodyDiskBytes(body.length));
  }
  plan.sums.batches += packed.length;
  plan.sums.bytes += packed.length * batchOverheadBytes;
  return ok();
}

/** The rest of the file is SQLite's: half-filled pages, its tables' own, and what is freed and not given back yet. */
const recordsShare = 15 / 16;

/** Drops by the policy until so many bytes of the class fit, into its share and into the whole. */
function makeRoom(
  db: SqlTx,
  plan: Plan,
  className: TelemetryClass,
  neededBytes: number,
  placing: Placing,
): Result<void> {
  const { outboxBytesMax, classShares } = placing.limits;
  const rank = classRanks[className];
  const shareBytesMax = Math.floor(outboxBytesMax * classShares[className]);
  const overShare = (): number => plan.sums.held[className].bytes + neededBytes - shareBytesMax;
  const wholeBytesMax = Math.floor(outboxBytesMax * recordsShare);
  const overWhole = (): number => plan.sums.bytes + neededBytes - wholeBytesMax;
  const own = { min: rank, max: rank };
  const upToOwn = { min: 0, max: rank };
  // Asked first, so that nothing is dropped for records that find no room after all.
  if (overShare() > 0 && droppable(db, plan, own, placing) < overShare()) {
    return refuse(
      'telemetry-full',
      `${plan.sums.held[className].bytes} bytes of ${className} wait, limit ${shareBytesMax}`,
    );
  }
  if (overWhole() > 0 && droppable(db, plan, upToOwn, placing) < overWhole()) {
    return refuse('telemetry-full', `${plan.sums.bytes} bytes wait, limit ${wholeBytesMax}`);
  }
  while (overShare() > 0) dropOne(db, plan, own, 'share', placing);
  while (overWhole() > 0) dropOne(db, plan, upToOwn, 'space', placing);
  return ok();
}

function droppable(db: SqlTx, plan: Plan, ranks: Ranks, placing: Placing): number {
  return [...plan.open.values()]
    .filter(({ rank }) => rank >= ranks.min && rank <= ranks.max)
    .reduce((bytes, batch) => bytes + batch.rowBytes, droppableBytes(db, ranks, placing.underWay()));
}

function dropOne(db: SqlTx, plan: Plan, ranks: Ranks, reason: DropReason, placing: Placing): void {
  const victim = firstToDrop(db, ranks, placing.underWay());
  // An open batch goes first where it is worth less than every closed one.
  const filling = lowestOpen(plan, { ...ranks, max: victim === null ? ranks.max : victim.rank - 1 });
  if (filling !== null) dropOpen(db, plan, filling, reason);
  else if (victim !== null) {
    const dropped = { ...victim, reason };
    dropHeld(db, dropped, plan.sums);
    plan.dropped.push(dropped);
  } else invariant(false, 'there was something to drop');
}

function lowestOpen(plan: Plan, ranks: Ranks): OpenBatch | null {
  const worthLess = [...plan.open.values()].filter(({ rank }) => rank >= ranks.min && rank <= ranks.max);
  return worthLess.sort((a, b) => a.rank - b.rank || a.sequence - b.sequence)[0] ?? null;
}

function dropOpen(db: SqlTx, plan: Plan, batch: OpenBatch, reason: DropReason): void {
  const { sequence, class: className } = batch;
  const recordCount = batch.lines.length;
  countBatch(db, sequence, recordCount);
  plan.open.delete(className);
  const held = { sequence, class: className, recordCount, heldBytes: batch.rowBytes, reason };
  dropHeld(db, held, plan.sums);
  plan.dropped.push(held);
}

/** Makes a batch a tombstone and counts what was in it. */
export function dropHeld(db: SqlTx, batch: Dropped, into: Sums): void {
  const { sequence, class: className, recordCount, heldBytes, reason } = batch;
  dropBatch(db, sequence, reason);
  addHeld(into, className, -recordCount, -heldBytes);
  countDropped(db, into, { class: className, reason, records: recordCount });
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
