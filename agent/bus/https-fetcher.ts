// Why: the Fetcher port over HTTPS: ranges of files, beside the bus, where that carries them better.
// Trusts: nothing in an answer; what arrives is verified by digest where it is used.
// Must never: allocate by a length it read, nor hand out bytes of another range.

import type { HttpsDoor, HttpsHead } from '../../shared/host/https-door.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Entropy, Fetcher, FetchPiece, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { createBackoff } from './backoff.ts';

type RangeResult = Result<{ bytes: Uint8Array; totalBytes: number }>;

const refusals: Record<number, 'fetch-not-found' | 'fetch-denied' | 'fetch-invalid'> = {
  400: 'fetch-invalid',
  403: 'fetch-denied',
  404: 'fetch-not-found',
  416: 'fetch-invalid',
};
const isBusy = (status: number): boolean => status === 429 || status === 503;
/** A registry that names a later time is asked again after this. */
const retryMsMax = 10_000;

export interface HttpsFetcherParts {
  door: HttpsDoor;
  clock: Clock;
  entropy: Entropy;
  timeoutMs?: number;
}

interface Range {
  sha256: string;
  offset: number;
  length: number;
  onPiece: ((piece: FetchPiece) => void) | undefined;
}

type Answer = RangeResult | { busyMs: number };

/** Where the body begins and ends and how long the file is, or null where it is none that was asked for. */
export function spanOf(
  { status, contentRange, contentLength }: Pick<HttpsHead, 'status' | 'contentRange' | 'contentLength'>,
  offset: number,
  length: number,
): { bytes: number; totalBytes: number } | null {
  // The whole file is an answer to a question for its beginning.
  if (status === 200 && offset === 0 && /^\d{1,15}$/.test(contentLength ?? '')) {
    const totalBytes = Number(contentLength);
    return { bytes: Math.min(length, totalBytes), totalBytes };
  }
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(contentRange ?? '');
  if (status !== 206 || match === null) return null;
  const [first, last, totalBytes] = match.slice(1).map(Number) as [number, number, number];
  const bytes = last - first + 1;
  return first === offset && bytes > 0 && bytes <= length && last < totalBytes ? { bytes, totalBytes } : null;
}

export function createHttpsFetcher(parts: HttpsFetcherParts): Fetcher {
  const { door, clock, entropy } = parts;
  const timeoutMs = parts.timeoutMs ?? limits.fetchTimeoutMs;

  async function ask({ sha256, offset, length, onPiece }: Range): Promise<Answer> {
    let head: HttpsHead | null = null;
    let span: { bytes: number; totalBytes: number } | null = null;
    let buffer = new Uint8Array(0);
    let doneBytes = 0;
    let timer: Timer = clock.timer(timeoutMs);
    let late = false;
    const asked = door.get({
      path: `/v1/device/blobs/${sha256}`,
      first: offset,
      last: offset + length - 1,
      onHead: (seen) => {
        head = seen;
        span = spanOf(seen, offset, length);
        if (span !== null) buffer = new Uint8Array(span.bytes);
        watch();
        return span !== null;
      },
      onBody: (chunk) => {
        watch();
        const bytes = chunk.subarray(0, buffer.length - doneBytes);
        buffer.set(bytes, doneBytes);
        const at = offset + doneBytes;
        doneBytes += bytes.length;
        if (bytes.length > 0 && span !== null)
          onPiece?.({
            offset: at,
            bytes: buffer.subarray(at - offset, doneBytes),
            totalBytes: span.totalBytes,
          });
        // A whole file where a part was asked for.
        if (doneBytes === buffer.length && chunk.length > bytes.length) asked.cancel();
      },
    });
    /** Waits anew: something came. */
    function watch(): void {
      timer.cancel();
      const mine = clock.timer(timeoutMs);
      timer = mine;
      void mine.done.then(() => {
        if (timer !== mine) return;
        late = true;
        asked.cancel();
      });
    }
    watch();
    let failure = '';
    let absent = false;
    try {
      await asked.done;
    } catch (error) {
      absent = error instanceof FleetError && error.code === 'not-implemented';
      failure = late ? `no answer in ${timeoutMs} ms` : `HTTPS: ${String(error)}`;
    }
    timer.cancel();
    if (absent) return refuse('not-implemented', failure);
    return answerOf(head, span, buffer.subarray(0, doneBytes), failure);
  }

  async function range(wanted: Range): Promise<RangeResult> {
    const backoff = createBackoff(entropy, 50, 1_000);
    const deadlineMs = clock.mono() + timeoutMs;
    for (;;) {
      const answer = await ask(wanted);
      if (!('busyMs' in answer)) return answer;
      if (clock.mono() >= deadlineMs)
        return refuse('fetch-busy', `blob ${wanted.sha256}: the registry is busy`);
      await clock.timer(Math.max(answer.busyMs, backoff.nextMs())).done;
    }
  }

  return {
    range: (target, offset, length, onPiece) => {
      if (target.kind !== 'blob') throw new TypeError(`${target.kind} is not had over HTTPS`);
      const most = Math.min(length, limits.fetchRangeBytesMax);
      return range({ sha256: target.sha256, offset, length: most, onPiece });
    },
  };
}

function answerOf(
  head: HttpsHead | null,
  span: { totalBytes: number } | null,
  bytes: Uint8Array,
  failure: string,
): Answer {
  // What arrived before it broke is kept; the caller asks for the rest.
  if (span !== null && (bytes.length > 0 || failure === ''))
    return ok({ bytes, totalBytes: span.totalBytes });
  if (head === null || span !== null) return refuse('fetch-timeout', failure);
  const { status, retryAfter } = head;
  if (isBusy(status)) return { busyMs: Math.min(retryMsMax, (Number(retryAfter) || 0) * 1_000) };
  const code = refusals[status];
  return code === undefined
    ? refuse('fetch-timeout', `the registry answered ${status}`)
    : refuse(code, `the registry answered ${status}`);
}
