// Why: what was sealed for a region that the device left goes there through the present one, as it was sealed and chained,
// from an outbox of its own, until that region has signed for all of it. Loaded only where there is some.
// Trusts: the old region's root, as it was when the device left, and its successors for what may be deleted, and once the device
// is back there the one in force; nothing else.
// Must never: take the present region's word for the old one's, or seal anything more for a region that was left.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, Clock, Deflate, Entropy, Log, Place, Store } from '../../shared/kernel/ports.ts';
import type { Refusal, Result } from '../../shared/kernel/result.ts';
import { checkNotice } from '../../shared/trust/carried.ts';
import { parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import { checkAnswer } from '../../shared/trust/telemetry.ts';
import { encodeCarried } from '../../shared/wire/carried.ts';
import {
  type Envelope,
  parseMessage,
  payloadTypes,
  type SignedMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import { batchAnswerSchema, resendBatchesMax } from '../../shared/wire/telemetry.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { type LeftChain, type Moves, outboxFileOf } from '../trust/moves.ts';
import { walkRegionRoots } from '../trust/region-walk.ts';
import { withOutboxStore } from './open.ts';
import { openOutbox } from './outbox.ts';
import type { Outbox, OutboxLimits } from './outbox-port.ts';
import { readState } from './outbox-tables.ts';
import { type Sender, startSender } from './sender.ts';

export interface CarriedParts {
  place: Place;
  moves(): Moves;
  /** Durable when it resolves. */
  save(change: (present: Moves) => Moves): Promise<void>;
  onRefused(refusal: Refusal, fingerprint: string): void;
  limits?: Partial<OutboxLimits>;
  batchAgeMs?: number;
  /** A batch without an answer for so long is sent again: two regions may need a while to hear of each other. */
  answerMs?: number;
  clock: Clock;
  entropy: Entropy;
  deflate: Deflate;
  log: Log;
}

export interface CarriedLine {
  bus: Bus & { connected(): boolean };
  signer: Signer;
  deviceId: string;
  /** The present region, and its root in force. */
  region: string;
  regionRoot(): RegionRoot;
  /** A metadata file of the present region. Refusals: `metadata-missing`, `metadata-too-large`, the Fetcher's. */
  fetch(name: string, bytesMax: number): Promise<Result<Uint8Array>>;
}

export interface CarriedState {
  region: string;
  pendingBatches: number;
  pendingRecords: number;
  bytes: number;
}

export interface Carried {
  /** Opens what earlier moves left. Idempotent; to be called again after a move. */
  open(): Promise<void>;
  /** Begins to send, on a line that may come and go. */
  join(line: CarriedLine): Promise<void>;
  /** Ends sending: the line is about to be another one. */
  leave(): Promise<void>;
  connected(): void;
  state(): CarriedState[];
  stop(): Promise<void>;
}

const answerMsDefault = 10 * 60_000;
/** A flood of badly signed answers must not become a flood of requests for a newer root. */
const rootGapMs = 10_000;
/** Answers take the way over two regions: more is on its way at one time than on a line. */
const windowBatches = resendBatchesMax - 4;

interface Open {
  chain: LeftChain;
  root: RegionRoot;
  /** Monotonic: when its successors were asked for last. */
  rootAskedMs: number;
  store: Store;
  outbox: Outbox;
  sender: Sender | null;
}

export function createCarried(parts: CarriedParts): Carried {
  const { place, clock, entropy, deflate, log } = parts;
  const open = new Map<number, Open>();
  let line: CarriedLine | null = null;
  let stopped = false;
  let last: Promise<unknown> = Promise.resolve();

  /** One at a time: a chain that ends must not be opened again by another call. */
  function exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work, work);
    last = turn.catch(() => undefined);
    return turn;
  }

  /** All of it was signed for: the file goes, after the device has forgotten that there was one. */
  async function end(chain: LeftChain): Promise<void> {
    const one = open.get(chain.outbox);
    open.delete(chain.outbox);
    await one?.sender?.stop();
    await one?.outbox.close();
    await one?.store.close();
    await parts.save((present) => ({
      ...present,
      chains: present.chains.filter(({ outbox }) => outbox !== chain.outbox),
    }));
    const disk = place.disk('.');
    for (const companion of ['', '-wal', '-shm']) await disk.unlink(outboxFileOf(chain.outbox) + companion);
    log.emit('info', 'telemetry.carried', { region: chain.region, done: true });
  }

  async function isEmpty({ outbox }: Open): Promise<boolean> {
    return (await outbox.lowest()) === null;
  }

  async function openChain(chain: LeftChain): Promise<void> {
    const root = parseRegionRoot(new Uint8Array(Buffer.from(chain.regionRoot, 'base64')));
    if (!root.ok) {
      const detail = `the root of ${chain.region} that was kept cannot be read: ${root.refusal.detail}`;
      parts.onRefused({ code: 'telemetry-lost', detail }, `carried ${chain.outbox}`);
      return;
    }
    const opened = await withOutboxStore(place, chain.outbox, parts, async (store): Promise<Open> => {
      const outbox = await openOutbox({
        ...{ store, clock, entropy, deflate, log },
        ...(parts.limits === undefined ? {} : { limits: parts.limits }),
      });
      const state = await store.tx(readState);
      if (state !== null) await outbox.useKey(state);
      return { chain, root: root.value, rootAskedMs: Number.NEGATIVE_INFINITY, store, outbox, sender: null };
    });
    open.set(chain.outbox, opened);
    if (await isEmpty(opened)) await end(chain);
    else if (line !== null) send(opened, line);
  }

  function send(one: Open, { bus, signer, deviceId, region, regionRoot }: CarriedLine): void {
    const to = deviceTopic(region, deviceId, 'carried');
    one.sender = startSender({
      outbox: one.outbox,
      bus: {
        connected: () => bus.connected(),
        publish: (_topic, batch, options) =>
          bus.publish(to, encodeCarried({ region: one.chain.region, batch }), options),
        subscribe: (filter, handler) => bus.subscribe(filter, handler),
      },
      signer,
      deviceId,
      region: one.chain.region,
      // Back in that very region: it may have changed its keys since the device left.
      regionRoot: () => (region === one.chain.region ? regionRoot() : one.root),
      onRefused: parts.onRefused,
      onAcknowledged: () => {
        void exclusive(async () => {
          if (!stopped && open.get(one.chain.outbox) === one && (await isEmpty(one))) await end(one.chain);
        }).catch(failed);
      },
      clock,
      entropy,
      log,
      window: windowBatches,
      // Nothing is added to it any more: what was open is closed.
      batchAgeMs: 0,
      answerMs: parts.answerMs ?? answerMsDefault,
    });
  }

  function failed(thrown: unknown): void {
    const fault = asFleetError(thrown);
    log.emit('error', 'outbox.failed', { while: 'carrying', code: fault.code, detail: fault.message });
  }

  // --- answers ---

  /** The present region knows the roots of the others; each proves itself by the one before. */
  async function followRoots(one: Open, { fetch }: CarriedLine): Promise<void> {
    const { region, outbox } = one.chain;
    one.rootAskedMs = clock.mono();
    const walked = await walkRegionRoots(
      one.root,
      fetch,
      async (next) => {
        const regionRoot = Buffer.from(next.bytes).toString('base64');
        await parts.save((present) => ({
          ...present,
          chains: present.chains.map((chain) => (chain.outbox === outbox ? { ...chain, regionRoot } : chain)),
        }));
        one.root = next;
        log.emit('info', 'telemetry.carried', { region, rootVersion: next.version });
      },
      `regions/${region}`,
    );
    if (!walked.ok)
      log.emit('info', 'telemetry.carried', { region, while: 'asking for its roots', ...walked.refusal });
  }

  /** An answer of that region, which may have changed its keys since the device left. */
  async function judge(one: Open, envelope: Envelope, payload: Uint8Array): Promise<void> {
    const on = line;
    const { region } = one.chain;
    if (on !== null && on.region !== region && clock.mono() - one.rootAskedMs >= rootGapMs) {
      const { deviceId } = on;
      if (!checkAnswer({ envelope, regionRoot: one.root, deviceId, region }).ok) await followRoots(one, on);
    }
    one.sender?.receive(payload);
  }

  function forged(detail: string): void {
    log.emit('warn', 'telemetry.refused', { code: 'telemetry-answer-invalid', detail });
    parts.onRefused({ code: 'telemetry-answer-invalid', detail }, `carried ${detail}`);
  }

  /** What it says of itself decides only which sender is to check it. */
  function receive(payload: Uint8Array): void {
    const message = parseMessage(signedMessageSchema, payload);
    if (message.ok && message.value.envelope.payloadType === payloadTypes.carriedNotice) {
      notice(message.value);
      return;
    }
    const claimed = message.ok
      ? parseMessage(batchAnswerSchema, new Uint8Array(Buffer.from(message.value.envelope.payload, 'base64')))
      : message;
    if (!claimed.ok) {
      forged(claimed.refusal.detail);
      return;
    }
    const { region, epoch } = claimed.value;
    const meant = [...open.values()].find(
      ({ chain, outbox }) => chain.region === region && outbox.epoch() === epoch,
    );
    // Of what was acknowledged before: it came twice.
    if (meant === undefined || !message.ok) return;
    judge(meant, message.value.envelope, payload).catch(failed);
  }

  function notice({ envelope }: SignedMessage): void {
    if (line === null) return;
    const { deviceId, regionRoot } = line;
    const checked = checkNotice({ envelope, regionRoot: regionRoot(), deviceId });
    if (!checked.ok) {
      forged(checked.refusal.detail);
      return;
    }
    const { forRegion, epoch, code, detail, pauseMs } = checked.value;
    log.emit('info', 'telemetry.carried', { region: forRegion, epoch, code, detail, pauseMs });
    for (const { chain, outbox, sender } of open.values())
      if (chain.region === forRegion && outbox.epoch() === epoch)
        sender?.holdOff(Math.min(pauseMs, limits.telemetryPauseMsMax));
  }

  async function leave(): Promise<void> {
    line = null;
    for (const one of open.values()) {
      await one.sender?.stop();
      one.sender = null;
    }
  }

  return {
    open: () =>
      exclusive(async () => {
        for (const chain of parts.moves().chains) if (!open.has(chain.outbox)) await openChain(chain);
      }),
    join: (on) =>
      exclusive(async () => {
        line = on;
        if (open.size === 0) return;
        const acks = deviceTopic(on.region, on.deviceId, 'carried/ack');
        await on.bus.subscribe(acks, ({ payload }) => receive(payload));
        for (const one of open.values()) if (one.sender === null) send(one, on);
      }),
    leave: () => exclusive(leave),
    connected: () => {
      for (const { sender } of open.values()) sender?.connected();
    },
    state: () =>
      [...open.values()].map(({ chain, outbox }) => {
        const { producedRecords, acknowledgedRecords, droppedRecords, pendingBatches, bytes } =
          outbox.counters();
        const pendingRecords = producedRecords - acknowledgedRecords - droppedRecords;
        return { region: chain.region, pendingBatches, pendingRecords, bytes };
      }),
    stop: () =>
      exclusive(async () => {
        stopped = true;
        await leave();
        for (const { outbox, store } of open.values()) {
          await outbox.close();
          await store.close();
        }
        open.clear();
      }),
  };
}
