// Why: what the device has to tell its region, kept over crashes and power cuts until the region has signed
// for it (DESIGN 8). Trusts: its own database for sequences, Entropy for keys.
// Must never: let a record be durable in clear, drop one without counting it, or answer before the commit.

import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Deflate, Entropy, Log, Store } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { encodeRows, makeWrap, packRecords, recordLine } from '../../shared/trust/telemetry.ts';
import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import { cutBack, type OpenBatch } from './open-batch.ts';
import type { KeyTaken, NextBatch, Outbox, OutboxLimits } from './outbox-port.ts';
import {
  addHeld,
  addToCounters,
  batchOverheadBytes,
  copySums,
  countDropped,
  readSums,
  restartCounters,
  type Sums,
} from './outbox-sums.ts';
import {
  batchAfter,
  batchOf,
  closedAfter,
  closeOrphans,
  deleteBatch,
  deleteEverything,
  dropReasonOf,
  keepAcknowledgement,
  type OutboxOwner,
  type OutboxState,
  packBatch,
  readAcknowledgement,
  readBytes,
  readState,
  reclaim,
  writeState,
} from './outbox-tables.ts';
import { createPacking } from './packing.ts';
import {
  type Dropped,
  dropHeld,
  lineRowBytes,
  type Placing,
  type Plan,
  placeRows,
  placeWhole,
  planWhole,
  startPlan,
} from './placing.ts';
import { bodyDiskBytes, classShares } from './policy.ts';
import { createRetention, reclaimPagesMax } from './retention.ts';

export interface OutboxParts {
  /** A database of its own, opened with `outboxMigrations`, `synchronous: 'FULL'` and `reclaim`. */
  store: Store;
  clock: Clock;
  entropy: Entropy;
  deflate: Deflate;
  log: Log;
  limits?: Partial<OutboxLimits>;
}

interface Waiting {
  className: TelemetryClass;
  lines: Uint8Array[];
  resolve(result: Result<void>): void;
  reject(error: unknown): void;
}

/** Faults: those of the store. */
export async function openOutbox(parts: OutboxParts): Promise<Outbox> {
  const { store, clock, entropy, deflate, log } = parts;
  const terms: OutboxLimits = {
    ...{ batchRecordsMax: limits.batchRecordsMax, batchRowBytesMax: limits.batchRowBytesMax },
    ...{ outboxBytesMax: limits.outboxBytesMax, retentionMs: limits.outboxRetentionMs, classShares },
    ...parts.limits,
  };
  const { batchRecordsMax, batchRowBytesMax, outboxBytesMax, retentionMs } = terms;
  const placing: Placing = {
    limits: terms,
    clock,
    entropy,
    underWay: () => onTheWay,
  };
  const nearlyFull = 0.75 * outboxBytesMax;
  /** Null until `useKey` in this process: whose records they are must be known first. */
  let state: OutboxState | null = null;
  let sums: Sums = await store.tx((db) => {
    closeOrphans(db);
    return readSums(db);
  });
  let open = new Map<TelemetryClass, OpenBatch>();
  let onTheWay: readonly number[] = [];
  const waiting: Waiting[] = [];
  let storing = false;
  let closed = false;
  let changed: () => void = () => undefined;

  let last: Promise<unknown> = Promise.resolve();
  /** One at a time: what is planned in memory and what the database holds must be the same. */
  function exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work);
    last = turn.catch(() => undefined);
    return turn;
  }

  // --- append ---

  async function storeWaiting(): Promise<void> {
    if (storing) return;
    storing = true;
    try {
      while (waiting.length > 0) {
        await packing.room();
        // What is being packed can be neither dropped nor counted on: near the limit it goes first.
        while (sums.bytes > nearlyFull && (await packing.first())) await last;
        await dropOld();
        const group = nextGroup();
        await exclusive(() => storeGroup(group));
      }
    } finally {
      storing = false;
    }
  }

  /** What fills batches of its own goes alone; everything else that waits shares one transaction. */
  function nextGroup(): Waiting[] {
    const whole = waiting.findIndex(isWhole);
    return waiting.splice(0, whole === -1 ? waiting.length : Math.max(whole, 1));
  }

  function isWhole({ lines }: Waiting): boolean {
    return lines.length >= batchRecordsMax / 2;
  }

  async function storeGroup(group: Waiting[]): Promise<void> {
    if (state === null || closed) {
      for (const one of group) one.resolve(refuse('telemetry-not-ready', 'no telemetry key yet'));
      return;
    }
    const plan = startPlan(state, open, sums);
    let results: Result<void>[];
    try {
      results = await place(plan, group);
    } catch (error) {
      abandon(plan);
      const fault = asFleetError(error);
      for (const one of group) {
        if (fault.code === 'disk-full') one.resolve(refuse('disk-full', fault.message));
        else one.reject(fault);
      }
      return;
    }
    // What was refused has changed nothing.
    if (results.every(({ ok }) => !ok)) {
      for (const [index, one] of group.entries()) one.resolve(results[index] ?? ok());
      return;
    }
    state = plan.state;
    open = plan.open;
    sums = plan.sums;
    for (const batch of plan.full) packing.add(batch);
    tellDropped(plan.dropped);
    for (const [index, one] of group.entries()) one.resolve(results[index] ?? ok());
    changed();
  }

  /** All of the group in one transaction. */
  async function place(plan: Plan, group: readonly Waiting[]): Promise<Result<void>[]> {
    const [first] = group;
    if (first !== undefined && group.length === 1 && isWhole(first)) {
      const { className, lines } = first;
      const batches = planWhole(plan, className, lines, placing);
      const packed = await Promise.all(
        batches.map(async (batch) => ({ batch, body: await packRecords(batch.key, batch.lines, deflate) })),
      );
      const result = await store.tx((db) => {
        const placed = placeWhole(db, plan, className, packed, placing);
        if (placed.ok) writeState(db, plan.state);
        return placed;
      });
      for (const { batch } of packed) batch.key.fill(0);
      return [result];
    }
    return store.tx((db) => {
      const placed = group.map(({ className, lines }) => placeRows(db, plan, className, lines, placing));
      if (plan.opened.length > 0) writeState(db, plan.state);
      return placed;
    });
  }

  /**
   * The transaction failed. Bytes of it may still lie in the database's log, so that no row index that it
   * used may be used again: what was open is closed with what is durable of it.
   */
  function abandon(plan: Plan): void {
    for (const batch of plan.opened) batch.key.fill(0);
    for (const [batch, lines] of plan.durable) {
      if (batch.lines.length === lines) continue;
      cutBack(batch, lines);
      if (open.get(batch.class) === batch) open.delete(batch.class);
      packing.add(batch);
    }
  }

  function tellDropped(dropped: readonly Dropped[]): void {
    for (const { sequence, class: className, recordCount, reason } of dropped) {
      const code = reason === 'age' ? {} : { code: 'telemetry-full' };
      log.emit('warn', 'outbox.dropped', { ...code, reason, sequence, class: className, recordCount });
    }
  }

  const dropOld = createRetention({
    ...{ store, clock, log, retentionMs, exclusive },
    underWay: () => onTheWay,
    sums: () => sums,
    onDropped: (after, dropped) => {
      sums = after;
      tellDropped(dropped);
    },
  });

  // --- closing ---

  const packing = createPacking({
    clock,
    deflate,
    log,
    store: (batch, body) =>
      exclusive(async () => {
        // Dropped with everything else while it was compressed: its sequence may be another batch's now.
        if (packing.find(batch.sequence) !== batch) return;
        const packed = { recordCount: batch.lines.length, plainBytes: batch.plainBytes, body };
        await store.tx((db) => packBatch(db, batch.sequence, packed));
        addHeld(sums, batch.class, 0, bodyDiskBytes(body.length) - batch.rowBytes);
      }),
    onPacked: () => changed(),
  });

  async function closeBatch(sequence: number): Promise<void> {
    await exclusive(async () => {
      for (const [className, batch] of open) {
        if (batch.sequence !== sequence) continue;
        open.delete(className);
        packing.add(batch);
      }
    });
    await packing.done(sequence);
  }

  // --- the sender's ---

  async function next(afterSequence: number): Promise<NextBatch> {
    await dropOld();
    const found = await exclusive(() =>
      store.tx((db): NextBatch | 'packing' => {
        const batch = batchAfter(db, afterSequence);
        if (batch === null) return { kind: 'none' };
        const { sequence, format, headSha256, recordCount, plainBytes } = batch;
        if (format === 'open') {
          const filling = [...open.values()].find((one) => one.sequence === sequence);
          if (filling === undefined) return 'packing';
          const ageMs = clock.mono() - filling.openedAtMs;
          return { kind: 'open', sequence, ageMs, behind: closedAfter(db, sequence) };
        }
        const bytes = readBytes(db, sequence);
        if (bytes === null) return { kind: 'none' };
        return {
          kind: 'closed',
          sequence,
          headSha256,
          statement: { format, recordCount, plainBytes },
          headBytes: bytes.head,
          wrap: bytes.wrap,
          body: format === 'rows' ? encodeRows(bytes.boxes) : (bytes.body ?? new Uint8Array(0)),
        };
      }),
    );
    if (found !== 'packing') return found;
    // Only the disk can hold it up; then `onChange` says when it went on.
    return (await packing.first()) ? next(afterSequence) : { kind: 'none' };
  }

  async function acknowledge(
    sequence: number,
    headSha256: string,
    records: number,
    envelope?: string,
  ): Promise<'deleted' | 'unknown' | 'other'> {
    return exclusive(async () => {
      const after = copySums(sums);
      const outcome = await store.tx((db) => {
        const batch = batchOf(db, sequence);
        if (batch === null) return 'unknown';
        if (batch.headSha256 !== headSha256 || batch.format === 'open') return 'other';
        if (batch.format !== 'tombstone') {
          addToCounters(db, batch.recordCount, 0);
          after.acknowledged += batch.recordCount;
          addHeld(after, batch.class, -batch.recordCount, -batch.heldBytes);
        } else if (records > 0) {
          // The region had stored it before it was dropped here; only the answer was lost.
          addToCounters(db, batch.recordCount, 0);
          after.acknowledged += batch.recordCount;
          const reason = dropReasonOf(db, sequence);
          const back = { class: batch.class, records: -batch.recordCount };
          if (reason !== null) countDropped(db, after, { ...back, reason });
          else {
            addToCounters(db, 0, -batch.recordCount);
            after.dropped -= batch.recordCount;
          }
        }
        after.batches -= 1;
        after.bytes -= batchOverheadBytes;
        deleteBatch(db, sequence);
        if (envelope !== undefined) keepAcknowledgement(db, sequence, envelope);
        reclaim(db, reclaimPagesMax);
        return 'deleted';
      });
      if (outcome === 'deleted') sums = after;
      return outcome;
    });
  }

  async function drop(sequence: number, code: string): Promise<boolean> {
    return exclusive(async () => {
      const after = copySums(sums);
      const batch = await store.tx((db) => {
        const held = batchOf(db, sequence);
        if (held === null || held.format === 'open' || held.format === 'tombstone') return null;
        dropHeld(db, { ...held, reason: 'refused' }, after);
        return held;
      });
      if (batch === null) return false;
      sums = after;
      const { class: className, recordCount } = batch;
      log.emit('error', 'outbox.dropped', {
        code,
        reason: 'refused',
        sequence,
        class: className,
        recordCount,
      });
      return true;
    });
  }

  async function useKey(owner: OutboxOwner): Promise<Result<KeyTaken>> {
    const tried = makeWrap({
      publicKey: owner.key.publicKey,
      batchKey: entropy.bytes(32),
      headSha256: '0'.repeat(64),
      ephemeralSeed: entropy.bytes(32),
    });
    if (!tried.ok) return tried;
    return exclusive(async () => {
      const held = await store.tx(readState);
      const sameDevice = held !== null && held.deviceId === owner.deviceId && held.region === owner.region;
      if (sameDevice && owner.key.epoch < held.key.epoch) {
        return refuse('telemetry-replayed', `telemetry epoch ${owner.key.epoch} after ${held.key.epoch}`);
      }
      if (sameDevice && owner.key.epoch === held.key.epoch) {
        const next = { ...held, key: owner.key };
        if (held.key.keyId !== owner.key.keyId) await store.tx((db) => writeState(db, next));
        const fresh = state === null || held.key.keyId !== owner.key.keyId;
        state = next;
        return ok({ fresh, droppedRecords: 0 });
      }
      const droppedRecords = sums.pending;
      const begun = { ...owner, nextSequence: 1, previousHeadSha256: null };
      sums = await store.tx((db) => {
        deleteEverything(db);
        const restarted = restartCounters(db, sums);
        writeState(db, begun);
        reclaim(db, reclaimPagesMax);
        return restarted;
      });
      open.clear();
      packing.clear();
      onTheWay = [];
      state = begun;
      log.emit(droppedRecords > 0 ? 'warn' : 'info', 'outbox.reset', {
        epoch: owner.key.epoch,
        droppedRecords,
      });
      return ok({ fresh: true, droppedRecords });
    });
  }

  return {
    ready: () => state !== null && !closed,
    useKey: async (owner) => {
      const used = await useKey(owner);
      if (used.ok) changed();
      return used;
    },
    append: async (className, records) => {
      if (records.length === 0) return ok();
      const lines = records.map(recordLine);
      const longest = lines.reduce((bytes, line) => Math.max(bytes, line.length), 0);
      const lineMax = Math.min(limits.recordBytesMax, batchRowBytesMax - lineRowBytes(new Uint8Array(0)));
      if (longest > lineMax) {
        return refuse('telemetry-too-large', `a record of ${longest} bytes, limit ${lineMax}`);
      }
      if (closed) throw new FleetError('interrupted', 'the outbox is closed');
      return new Promise((resolve, reject) => {
        waiting.push({ className, lines, resolve, reject });
        void storeWaiting();
      });
    },
    counters: () => ({
      producedRecords: sums.acknowledged + sums.dropped + sums.pending,
      acknowledgedRecords: sums.acknowledged,
      droppedRecords: sums.dropped,
      pendingBatches: sums.batches,
      bytes: sums.bytes,
      dropped: sums.droppedBy.filter(({ records }) => records > 0).map((one) => ({ ...one })),
    }),
    epoch: () => state?.key.epoch ?? 0,
    onChange: (listener) => {
      changed = listener;
    },
    next,
    closeBatch,
    underWay: (sequences) => {
      onTheWay = sequences;
    },
    acknowledge,
    drop,
    newestAcknowledgement: () => exclusive(() => store.tx(readAcknowledgement)),
    chain: () =>
      exclusive(async () => {
        const held = await store.tx(readState);
        return held === null ? null : { deviceId: held.deviceId, epoch: held.key.epoch };
      }),
    lowest: () => exclusive(() => store.tx((db) => batchAfter(db, 0)?.sequence ?? null)),
    close: async () => {
      if (closed) return;
      await exclusive(async () => {
        closed = true;
        for (const batch of open.values()) packing.add(batch);
        open.clear();
      });
      await packing.close();
      await last;
    },
  };
}
