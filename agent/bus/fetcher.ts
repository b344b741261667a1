// Why: the Fetcher port over MQTT: one request on `fetch`, answered by frames on `bytes`.
// Trusts: nothing in a frame; what arrives is verified by digest or signature where it is used.
// Must never: allocate by a length it read, nor hand out bytes of another request or with a gap in them.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type {
  Bus,
  BusMessage,
  Clock,
  Entropy,
  Fetcher,
  FetchPiece,
  FetchTarget,
  Log,
  Timer,
} from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type BulkFrame, decodeFrame, type FrameStatus } from '../../shared/wire/frames.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { createBackoff } from './backoff.ts';
import { messageHead } from './message.ts';

type RangeResult = Result<{ bytes: Uint8Array; totalBytes: number }>;

/** What the registry answered where it sent no data. `busy` is not among them: it is asked again. */
const refusalCodes = {
  'not-found': 'fetch-not-found',
  denied: 'fetch-denied',
  invalid: 'fetch-invalid',
  failed: 'fetch-timeout',
} as const satisfies Record<Exclude<FrameStatus, 'data' | 'busy'>, string>;

/** Below the registry's own bound per device, so that an answer given up here does not block the next. */
const requestsAtOnceMax = limits.fetchesPerDeviceMax - 1;

interface Pending {
  requestId: number;
  offset: number;
  length: number;
  /** Made when the first frame says how much there is; never larger than `length`. */
  buffer: Uint8Array | null;
  doneBytes: number;
  totalBytes: number;
  timer: Timer;
  onPiece: ((piece: FetchPiece) => void) | undefined;
  settle(result: RangeResult | 'busy'): void;
}

export interface BusFetcher extends Fetcher {
  /** Handler of the device's `bytes` topic. */
  receive(message: BusMessage): void;
  /** The connection was lost: what waits ends with what it has. */
  offline(): void;
}

export interface FetcherParts {
  bus: Bus & { connected(): boolean };
  region: string;
  deviceId: string;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  timeoutMs?: number;
}

function describe(target: FetchTarget): string {
  if (target.kind === 'refresh') return 'metadata';
  if (target.kind === 'metadata') return target.name;
  return `${target.kind === 'ways' ? 'ways to ' : ''}blob ${target.sha256}`;
}

export function createFetcher(parts: FetcherParts): BusFetcher {
  const { bus, region, deviceId, clock, entropy, log } = parts;
  const timeoutMs = parts.timeoutMs ?? limits.fetchTimeoutMs;
  const topic = deviceTopic(region, deviceId, 'fetch');
  const pending = new Map<number, Pending>();
  const turns: (() => void)[] = [];
  let running = 0;
  let lastRequestId = entropy.u32();

  /** A result of what arrived without a gap; the caller asks for the rest. Else the refusal. */
  function finish(request: Pending, otherwise: RangeResult | 'busy'): void {
    if (!pending.delete(request.requestId)) return;
    request.timer.cancel();
    if (request.buffer === null || request.doneBytes === 0) request.settle(otherwise);
    else
      request.settle(
        ok({ bytes: request.buffer.subarray(0, request.doneBytes), totalBytes: request.totalBytes }),
      );
  }

  function watch(request: Pending): void {
    const { timer } = request;
    void timer.done.then(() => {
      if (request.timer === timer) finish(request, refuse('fetch-timeout', `no answer in ${timeoutMs} ms`));
    });
  }

  /** What this frame makes of the request: its end, or null where more is to come. */
  function take(request: Pending, frame: BulkFrame): RangeResult | 'busy' | null {
    if (frame.status === 'busy') return 'busy';
    if (frame.status !== 'data') {
      return refuse(refusalCodes[frame.status], `the registry answered ${frame.status}`);
    }
    if (request.buffer === null) {
      request.totalBytes = frame.totalBytes;
      const wanted = Math.max(0, Math.min(request.length, frame.totalBytes - request.offset));
      request.buffer = new Uint8Array(wanted);
    }
    const contiguous =
      frame.totalBytes === request.totalBytes &&
      frame.offset === request.offset + request.doneBytes &&
      request.doneBytes + frame.payload.length <= request.buffer.length;
    // A lost QoS 0 frame leaves a gap: what came before it is kept, the rest is asked again.
    if (!contiguous) return refuse('fetch-timeout', 'a frame was lost');
    request.buffer.set(frame.payload, request.doneBytes);
    const bytes = request.buffer.subarray(request.doneBytes, request.doneBytes + frame.payload.length);
    request.doneBytes += bytes.length;
    request.onPiece?.({ offset: frame.offset, bytes, totalBytes: request.totalBytes });
    if (request.doneBytes < request.buffer.length) return null;
    return ok({ bytes: request.buffer, totalBytes: request.totalBytes });
  }

  function ask(
    target: FetchTarget,
    offset: number,
    length: number,
    onPiece: Pending['onPiece'],
  ): Promise<RangeResult | 'busy'> {
    return new Promise((resolve) => {
      lastRequestId = (lastRequestId + 1) >>> 0;
      const request: Pending = {
        requestId: lastRequestId,
        offset,
        length,
        buffer: null,
        doneBytes: 0,
        totalBytes: 0,
        timer: clock.timer(timeoutMs),
        onPiece,
        settle: resolve,
      };
      pending.set(request.requestId, request);
      watch(request);
      const { requestId } = request;
      const body = encodeMessage({ ...messageHead(clock, entropy), requestId, target, offset, length });
      bus.publish(topic, body, { qos: 1, retain: false }).catch((error: unknown) => {
        const fault = asFleetError(error);
        finish(request, refuse('bus-offline', fault.message));
      });
    });
  }

  async function range(
    target: FetchTarget,
    offset: number,
    length: number,
    onPiece: Pending['onPiece'],
  ): Promise<RangeResult> {
    const backoff = createBackoff(entropy, 50, 1_000);
    const deadlineMs = clock.mono() + timeoutMs;
    for (;;) {
      if (!bus.connected()) return refuse('bus-offline', `${describe(target)}: no connection to the broker`);
      const answer = await ask(target, offset, Math.min(length, limits.fetchRangeBytesMax), onPiece);
      if (answer !== 'busy') {
        return answer.ok
          ? answer
          : refuse(answer.refusal.code, `${describe(target)}: ${answer.refusal.detail}`);
      }
      if (clock.mono() >= deadlineMs)
        return refuse('fetch-busy', `${describe(target)}: the registry is busy`);
      await clock.timer(backoff.nextMs()).done;
    }
  }

  return {
    range: async (target, offset, length, onPiece) => {
      if (running >= requestsAtOnceMax) await new Promise<void>((resolve) => turns.push(resolve));
      else running += 1;
      try {
        return await range(target, offset, length, onPiece);
      } finally {
        const next = turns.shift();
        if (next) next();
        else running -= 1;
      }
    },

    receive: (message) => {
      const frame = decodeFrame(message.payload);
      if (!frame.ok) {
        log.emit('warn', 'bus.message.refused', { topic: message.topic, ...frame.refusal });
        return;
      }
      // Frames of a request given up are late, not wrong.
      const request = pending.get(frame.value.requestId);
      if (!request) return;
      const end = take(request, frame.value);
      if (end !== null) {
        finish(request, end);
        return;
      }
      // A thin link carries one range after the other: those behind it wait, they are not lost.
      for (const one of pending.values()) {
        one.timer.cancel();
        one.timer = clock.timer(timeoutMs);
        watch(one);
      }
    },

    offline: () => {
      for (const request of [...pending.values()])
        finish(request, refuse('bus-offline', 'the connection was lost'));
    },
  };
}

/** A whole file, at most `bytesMax`. Refusals: `metadata-missing`, `metadata-too-large`, and the Fetcher's. */
export async function fetchWhole(
  fetcher: Fetcher,
  target: FetchTarget,
  bytesMax: number,
): Promise<Result<Uint8Array>> {
  const what = describe(target);
  let collected: Uint8Array | null = null;
  let doneBytes = 0;
  for (;;) {
    const piece = await fetcher.range(target, doneBytes, limits.fetchRangeBytesMax);
    if (!piece.ok) {
      return piece.refusal.code === 'fetch-not-found'
        ? refuse('metadata-missing', `${what} is not there`)
        : piece;
    }
    const { bytes, totalBytes } = piece.value;
    if (totalBytes > bytesMax)
      return refuse('metadata-too-large', `${what} has ${totalBytes} bytes, limit ${bytesMax}`);
    collected ??= new Uint8Array(totalBytes);
    if (collected.length !== totalBytes) {
      // `timestamp.json` was replaced between two ranges.
      return refuse('fetch-timeout', `${what} changed while it was fetched`);
    }
    collected.set(bytes, doneBytes);
    doneBytes += bytes.length;
    if (doneBytes === totalBytes) return ok(collected);
    if (bytes.length === 0) return refuse('fetch-timeout', `${what}: no progress`);
  }
}
