// Why: outbox, producers and sender of one agent, as the daemon starts and ends them.
// Trusts: the assignment in force for the key, the region root for the answers.
// Must never: seal for an identity that a new enrolment is about to replace.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { Bus, Clock, Deflate, Entropy, Log, Store, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import type { Masking } from '../../shared/wire/masking.ts';
import type { TelemetryKey } from '../../shared/wire/telemetry.ts';
import type { CapturedSample } from '../inference/sampler.ts';
import { masked } from './masking.ts';
import { openOutbox } from './outbox.ts';
import type { Outbox, OutboxCounters, OutboxLimits } from './outbox-port.ts';
import { type Producers, startProducers } from './producers.ts';
import { parseRecords } from './records.ts';
import { sampleRecord } from './sample-masking.ts';
import { type Sender, startSender } from './sender.ts';

export interface TelemetryParts {
  /** The outbox's own database. */
  store: Store;
  clock: Clock;
  entropy: Entropy;
  deflate: Deflate;
  log: Log;
  onRefused(refusal: Refusal, fingerprint: string): void;
  /**
   * The enrolment whose chain was begun on this device, kept apart from the outbox: one that was lost cannot be
   * gone on with (its sequences were used), and a second one would look like a second device.
   */
  begun: {
    chain(): { deviceId: string; epoch: number } | null;
    mark(deviceId: string, epoch: number): Promise<void>;
  };
  limits?: Partial<OutboxLimits>;
  statsEveryMs?: number;
  batchAgeMs?: number;
  answerMs?: number;
}

export interface NextRegion {
  deviceId: string;
  region: string;
  key: TelemetryKey;
  masking: Masking | null;
}

export interface Telemetry extends Pick<Producers, 'event' | 'request' | 'everyWindow'> {
  /**
   * `POST /telemetry/v1/records`: the number of records, all durable. Refusals: `input-invalid`,
   * `telemetry-not-ready`, `telemetry-too-large`, `telemetry-full`, `disk-full`.
   */
  record(body: Uint8Array): Promise<Result<number>>;
  /** A request that is kept, masked here; returns at once. */
  sample(sample: CapturedSample): void;
  counters(): OutboxCounters;
  /** Why nothing is recorded at present, or null. */
  off(): ErrorCode | null;
  /** The key of the assignment in force, for the identity that is settled. Null changes nothing. */
  useKey(deviceId: string, region: string, key: TelemetryKey | null): Promise<void>;
  /** The rules of the assignment in force, from the next record on; null: none. */
  useMasking(masking: Masking | null): void;
  /** Begins to send, on a line that may come and go. */
  join(line: {
    bus: Bus & { connected(): boolean };
    signer: Signer;
    deviceId: string;
    region: string;
    regionRoot(): RegionRoot;
    /** The region has signed for something, at most every ten seconds. */
    onAcknowledged(): void;
    giveBack(acknowledgement: Uint8Array): void;
  }): void;
  receive(payload: Uint8Array): void;
  connected(): void;
  /**
   * The device is of another region: everything is appended to an outbox in this store, under that region's key and by its
   * rules, from one moment on. What was appended before stays in the outbox that was in use, which is closed when it resolves.
   */
  moveOn(next: NextRegion & { store: Store }): Promise<void>;
  /** Appends the last statistics, ends the sender, packs what is open. */
  stop(): Promise<void>;
}

/** How soon a report says what was acknowledged. */
const acknowledgedGapMs = 10_000;

/** So long after a request the device counts as one that answers requests. */
const busyMs = 2_000;

/** Faults: those of the store. */
export async function startTelemetry(parts: TelemetryParts): Promise<Telemetry> {
  const { clock, log, onRefused } = parts;
  let outbox: Outbox = await openOutbox(parts);
  const producers = startProducers({
    ...parts,
    outbox: {
      ready: () => outbox.ready(),
      append: (className, records) => outbox.append(className, records),
    },
  });
  let sender: Sender | null = null;
  let telling: Timer | null = null;
  let off: ErrorCode | null = null;
  let masking: Masking | null = null;
  let requestAtMs = Number.NEGATIVE_INFINITY;

  /** Whether the chain of this enrolment was begun in an outbox that is gone. */
  async function isLost(deviceId: string, epoch: number): Promise<boolean> {
    const begun = parts.begun.chain();
    if (begun?.deviceId !== deviceId || begun.epoch < epoch) return false;
    const held = await outbox.chain();
    return held?.deviceId !== deviceId || held.epoch < begun.epoch;
  }

  return {
    event: producers.event,
    request: (fact) => {
      requestAtMs = clock.mono();
      producers.request(fact);
    },
    everyWindow: producers.everyWindow,
    record: async (body) => {
      const records = parseRecords(body, Math.max(0, Math.floor(clock.wall())));
      if (!records.ok) return records;
      if (off !== null) return refuse(off, 'nothing is recorded until the device is enrolled again');
      const appended = await outbox.append(
        'app',
        records.value.map((record) => masked(record, 'app', masking)),
      );
      return appended.ok ? ok(records.value.length) : appended;
    },
    sample: (sample) => {
      if (off === null) producers.sample(sampleRecord(sample, masking));
    },
    useMasking: (rules) => {
      masking = rules;
    },
    counters: () => outbox.counters(),
    off: () => off,

    useKey: async (deviceId, region, key) => {
      if (key === null) return;
      if (await isLost(deviceId, key.epoch)) {
        off = 'telemetry-lost';
        const detail = `the outbox of enrolment ${key.epoch} is gone; recording begins anew with the next enrolment`;
        log.emit('error', 'outbox.failed', { while: 'taking a key', code: off, detail });
        onRefused({ code: off, detail }, `telemetry lost ${deviceId} ${key.epoch}`);
        return;
      }
      off = null;
      const used = await outbox.useKey({ deviceId, region, key });
      if (!used.ok) {
        log.emit('error', 'outbox.failed', { while: 'taking a key', ...used.refusal });
        onRefused(used.refusal, `telemetry key ${key.epoch} ${key.keyId}`);
        return;
      }
      await parts.begun.mark(deviceId, key.epoch);
      const { fresh, droppedRecords } = used.value;
      if (!fresh) return;
      log.emit('info', 'outbox.key', { epoch: key.epoch, keyId: key.keyId });
      if (droppedRecords > 0) {
        producers.event('outbox-reset', null, { records: droppedRecords, epoch: key.epoch });
      }
      producers.keyArrived();
      sender?.keyChanged();
    },

    join: (line) => {
      sender = startSender({
        ...parts,
        ...line,
        outbox,
        busy: () => clock.mono() - requestAtMs < busyMs,
        onAcknowledged: () => {
          if (telling !== null) return;
          telling = clock.timer(acknowledgedGapMs);
          void telling.done.then(() => {
            telling = null;
            line.onAcknowledged();
          });
        },
      });
    },
    moveOn: async ({ store, deviceId, region, key, masking: rules }) => {
      const fresh = await openOutbox({ ...parts, store });
      // Before anything is appended to it: there is no moment without a key.
      const used = await fresh.useKey({ deviceId, region, key });
      unwrap(used);
      await parts.begun.mark(deviceId, key.epoch);
      await sender?.stop();
      sender = null;
      // What was masked by the old rules is appended to the old outbox; no record falls between the two.
      for (let given = producers.pending(); ; given = producers.pending()) {
        await given;
        if (producers.pending() === given) break;
      }
      const left = outbox;
      outbox = fresh;
      masking = rules;
      off = null;
      try {
        await left.close();
      } catch (thrown) {
        // Its rows are durable: what could not be packed is sent as it is.
        const fault = asFleetError(thrown);
        log.emit('error', 'outbox.failed', { while: 'closing', code: fault.code, detail: fault.message });
      }
      producers.keyArrived();
    },
    receive: (payload) => sender?.receive(payload),
    connected: () => sender?.connected(),
    stop: async () => {
      await producers.stop();
      await sender?.stop();
      telling?.cancel();
      await outbox.close();
    },
  };
}
