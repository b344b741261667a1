// Why: takes sealed batches from the bus, stores what they hold and answers when it is durable (DESIGN 8).
// Trusts: the broker for who published; a batch proves itself by its device's signature and its chain.
// Must never: answer `stored` before the commit, store a record twice, or wait for a device to read.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Deflate, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result } from '../../shared/kernel/result.ts';
import { signAnswer } from '../../shared/trust/telemetry.ts';
import { encodeMessage, schemaVersion } from '../../shared/wire/messages.ts';
import type { BatchAnswer } from '../../shared/wire/telemetry.ts';
import type { RegistryStore } from '../store/open.ts';
import { createBatchStore, isAmong, type Taken } from './batches.ts';
import type { Evidence } from './evidence.ts';
import type { TelemetryKeys } from './keys.ts';
import { telemetryLimits } from './limits.ts';
import { type OpenedBatch, openBatch, readBatch, type SignedBatch } from './open-batch.ts';
import { pauseFor, type Rate, rateAfter } from './pressure.ts';
import { type Arrival, type CarryOutcome, createWaiting } from './waiting.ts';

export interface IngestParts {
  region: string;
  store: RegistryStore;
  keys: TelemetryKeys;
  /** The region's `ack` key. */
  signer: Signer;
  deflate: Deflate;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  /** Puts a message on the device's `telemetry/ack`; a device that does not read must not hold it up. */
  answer(deviceId: string, message: Uint8Array): Promise<void>;
  /** A refusal for the operator; bounded, for anybody may cause one. */
  refused(deviceId: string, refusal: Refusal): Promise<void>;
  /** What records add up to; told of a batch in its transaction, and after the commit. */
  evidence: Pick<Evidence, 'addIn' | 'stored'>;
  /** What may wait to be stored; `telemetryLimits` has the default. */
  waitingBytesMax?: number;
  /** Two devices use this key. */
  cloned(deviceId: string, refusal: Refusal): Promise<void>;
}

export interface IngestCounters {
  batches: number;
  records: number;
  repeated: number;
  refused: number;
  /** Messages for which there was no room; their devices send them again. */
  overflowed: number;
  /** Answers that asked their device to slow down. */
  paused: number;
}

export type { CarryOutcome };

export interface Ingest {
  /** A message on the device's `telemetry` topic. */
  receive(deviceId: string, payload: Uint8Array): void;
  /** The same by way of another region; also of an enrolment that ended with a move. `done` is called once. */
  carry(arrival: {
    deviceId: string;
    payload: Uint8Array;
    epoch: number;
    done(outcome: CarryOutcome): void;
  }): void;
  /** Resolves when nothing waits any more. */
  idle(): Promise<void>;
  /** Ends after what is being stored now; what waits is not answered, so its device sends it again. */
  stop(): Promise<void>;
  counters(): IngestCounters;
}

/** A batch with what became of opening it, null where its place says that it need not be opened. */
interface Judged {
  batch: SignedBatch;
  opened: Result<OpenedBatch> | null;
  carried: Arrival['carried'];
}

export function createIngest(parts: IngestParts): Ingest {
  const { region, store, clock, log } = parts;
  const batches = createBatchStore(store, parts.evidence);
  const waitingBytesMax = parts.waitingBytesMax ?? telemetryLimits.waitingBytesMax;
  const waiting = createWaiting(waitingBytesMax);
  let rate: Rate = null;
  const counters: IngestCounters = {
    batches: 0,
    records: 0,
    repeated: 0,
    refused: 0,
    overflowed: 0,
    paused: 0,
  };
  let working: Promise<void> | null = null;
  let stopped = false;
  let wake: () => void = () => undefined;
  const stopping = new Promise<void>((resolve) => {
    wake = resolve;
  });

  async function refuseBatch(deviceId: string, refusal: Refusal): Promise<void> {
    counters.refused += 1;
    log.emit('warn', 'telemetry.batch.refused', { deviceId, ...refusal });
    if (refusal.code === 'telemetry-cloned') await parts.cloned(deviceId, refusal);
    else await parts.refused(deviceId, refusal);
  }

  /** What can be known of a message alone; null where it was refused. Opening begins at once. */
  async function judge({
    deviceId,
    payload,
    carried,
  }: Arrival): Promise<(Omit<Judged, 'opened'> & { opening: Promise<Judged['opened']> }) | null> {
    const standing = await store.tx((db) => batches.standing(db, deviceId, carried?.epoch));
    const read = standing.ok
      ? readBatch({ payload, devicePublicKey: standing.value.publicKey, deviceId, region })
      : standing;
    if (!standing.ok || !read.ok) {
      // Without a verified head there is nothing to answer to.
      if (!read.ok) {
        await refuseBatch(deviceId, read.refusal);
        carried?.done({ kind: 'unusable', code: read.refusal.code });
      }
      return null;
    }
    const batch = read.value;
    const { epoch, end, lost } = standing.value;
    const last = end?.sequence ?? 0;
    const { head } = batch;
    const maybeNext = head.sequence > last && head.sequence <= last + telemetryLimits.groupBatchesMax;
    const isOpened = head.epoch === epoch && (maybeNext || isAmong(lost, head.sequence));
    const opening = isOpened ? openBatch(batch, parts) : Promise.resolve(null);
    // Awaited with the others of its group; until then a fault must not count as unhandled.
    opening.catch(() => undefined);
    return { batch, opening, carried };
  }

  /** Everything that waits now, up to what one commit and the memory bear. */
  async function gather(): Promise<{ group: Judged[]; bytes: number }> {
    const group: (Omit<Judged, 'opened'> & { opening: Promise<Judged['opened']> })[] = [];
    let plainBytes = 0;
    let bytes = 0;
    while (
      group.length < telemetryLimits.groupBatchesMax &&
      plainBytes < telemetryLimits.groupPlainBytesMax
    ) {
      const arrival = waiting.next();
      if (arrival === null) break;
      bytes += arrival.payload.length;
      const judged = await judge(arrival);
      if (judged === null) continue;
      group.push(judged);
      plainBytes += judged.batch.statement.plainBytes;
    }
    const judged = group.map(async ({ opening, ...one }) => ({ ...one, opened: await opening }));
    return { group: await Promise.all(judged), bytes };
  }

  async function answer({ batch, carried }: Judged, result: BatchAnswer['result']): Promise<void> {
    const { deviceId, head, headSha256 } = batch;
    const { epoch, sequence } = head;
    const pauseMs = pauseFor(waiting.bytes(), waitingBytesMax, rate);
    if (pauseMs !== null) counters.paused += 1;
    const pause = pauseMs === null ? {} : { pauseMs };
    const envelope = signAnswer(
      { schemaVersion, deviceId, region, epoch, sequence, headSha256, ...pause, result },
      parts.signer,
    );
    if (carried !== undefined) return carried.done({ kind: 'answer', envelope });
    const messageId = Buffer.from(parts.entropy.bytes(12)).toString('hex');
    const message = encodeMessage({ schemaVersion, messageId, sentAtMs: clock.wall(), envelope });
    try {
      await parts.answer(deviceId, message);
    } catch (thrown) {
      // The device asks again by sending the batch again.
      const error = asFleetError(thrown);
      log.emit('warn', 'telemetry.ingest.failed', { deviceId, code: error.code, detail: error.message });
    }
  }

  async function settle(
    judged: Judged,
    outcome: { taken: Result<Taken>; expectedSequence: number },
  ): Promise<void> {
    const { batch, carried } = judged;
    const { deviceId, head } = batch;
    const { taken, expectedSequence } = outcome;
    if (!taken.ok) {
      const { code, detail } = taken.refusal;
      // Bytes that were changed on their way are no word about the batch: whoever owns the bus could otherwise
      // make the region tell the device to give it up. Unanswered, the device sends it again.
      if (code !== 'telemetry-body-mismatch') {
        await answer(judged, { status: 'refused', code, detail, expectedSequence });
      } else carried?.done({ kind: 'unusable', code });
      await refuseBatch(deviceId, taken.refusal);
      return;
    }
    const { value } = taken;
    // It comes again, and is opened then.
    if (value.status === 'unopened') return carried?.done({ kind: 'again' });
    if (value.status === 'repeated') counters.repeated += 1;
    else {
      counters.batches += 1;
      counters.records += value.records;
      log.emit('debug', 'telemetry.batch.stored', {
        deviceId,
        epoch: head.epoch,
        sequence: head.sequence,
        class: head.class,
        format: batch.statement.format,
        records: value.records,
      });
    }
    await answer(judged, { status: 'stored', records: value.records });
  }

  /** The key was there when it was opened, and is not any more: nothing of it may be kept. */
  function asItIsNow({ batch, opened }: Judged): Judged['opened'] {
    if (opened?.ok !== true || opened.value.sealed === null) return opened;
    if (!parts.keys.isErased(opened.value.sealed.keyId)) return opened;
    return ok({ records: [], sealed: null, erased: batch.statement.recordCount });
  }

  /** One transaction for all; where it fails, one for each, so that a poisoned batch fails alone. */
  async function storeGroup(group: readonly Judged[]): Promise<void> {
    const nowMs = clock.wall();
    let outcomes: ReturnType<typeof batches.take>[];
    try {
      outcomes = await store.tx((db) =>
        group.map((judged) =>
          batches.take(db, judged.batch, asItIsNow(judged), { nowMs, carriedEpoch: judged.carried?.epoch }),
        ),
      );
    } catch (thrown) {
      if (group.length > 1) {
        for (const one of group) await storeGroup([one]);
        return;
      }
      const error = asFleetError(thrown);
      const deviceId = group[0]?.batch.deviceId;
      log.emit('error', 'telemetry.ingest.failed', { deviceId, code: error.code, detail: error.message });
      group[0]?.carried?.done({ kind: 'again' });
      return;
    }
    for (const [index, outcome] of outcomes.entries()) {
      const judged = group[index];
      if (judged !== undefined) await settle(judged, outcome);
    }
    parts.evidence.stored();
  }

  async function work(): Promise<void> {
    while (!stopped && !waiting.isEmpty()) {
      try {
        const startMs = clock.mono();
        const { group, bytes } = await gather();
        if (group.length > 0) await storeGroup(group);
        if (bytes > 0) rate = rateAfter(rate, { bytes, ms: clock.mono() - startMs });
      } catch (thrown) {
        const error = asFleetError(thrown);
        log.emit('error', 'telemetry.ingest.failed', { code: error.code, detail: error.message });
      }
      if (waiting.isEmpty()) return;
      // Everybody else on this event loop goes first: promises alone would never let them.
      const turn = clock.timer(0);
      await Promise.race([turn.done, stopping]);
      turn.cancel();
    }
  }

  function begin(): void {
    working ??= work().finally(() => {
      working = null;
      if (!stopped && !waiting.isEmpty()) begin();
    });
  }

  return {
    carry({ deviceId, payload, epoch, done }) {
      if (stopped || !waiting.push({ deviceId, payload, carried: { epoch, done } }))
        return done({ kind: 'again' });
      begin();
    },

    receive(deviceId, payload) {
      if (stopped) return;
      if (!waiting.push({ deviceId, payload })) {
        counters.overflowed += 1;
        log.emit('warn', 'telemetry.ingest.overflowed', { deviceId, bytes: payload.length });
        return;
      }
      begin();
    },

    async idle() {
      while (working !== null) await working;
    },

    async stop() {
      stopped = true;
      waiting.clear();
      wake();
      await working;
    },

    counters: () => ({ ...counters }),
  };
}
