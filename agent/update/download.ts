// Why: the bytes of one file, several ranges ahead, written in order. What was lost on the way is asked for again, what
// arrived is kept. Trusts: nothing that arrives; the caller digests the whole.
// Must never: hold more than a few ranges in memory, nor return while the disk is being written.

import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Fetcher, FetchTarget } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Pace } from './pace.ts';
import { type Partial, type Partials, partBytesMax } from './partial.ts';

/**
 * What is not on the disk when the power fails was sent for nothing. One range is at most so much of a large file, and no
 * more than `rangesAtOnceMax` of them are on the wire or in memory beside the one that is asked for: three hundredths.
 */
const lostShare = 128;
const lostBytesMin = 64 * 1024;

/** Below the registry's own bound for each device. */
export const rangesAtOnceMax = limits.fetchesPerDeviceMax - 1;

export interface RateLimits {
  fetchRangeBytesMax: number;
  fetchBytesPerSecondMin?: number;
  fetchRateWindowMs?: number;
}

export interface DownloadParts {
  fetcher: Fetcher;
  clock: Clock;
  pace: Pace;
  partials: Partials;
  limits: RateLimits;
}

export interface DownloadOptions {
  /** False once nobody wants the file any more: the call then refuses with `update-superseded`. */
  wanted: () => boolean;
  /** Bytes of this file that are written, after each part. */
  onProgress: (doneBytes: number) => void;
  /** Bytes that came over the network. */
  onArrived: (bytes: number) => void;
}

/** One range that was asked for: what of it has arrived ends at `at`. */
interface Asked {
  at: number;
  until: number;
  /** When it was asked for; null once some of it has arrived. */
  askedAtMs: number | null;
}

/** Ends a download: nothing more is asked for, what is under way is waited for. */
type Outcome = { refusal: Refusal } | { thrown: unknown };

/**
 * Goes on with the file until it is whole. Refusals: those of the Fetcher (call again to go on), `fetch-too-slow`,
 * `blob-size-mismatch`, `update-superseded`. Faults: `disk-full`, `disk-io`.
 */
export async function download(
  parts: DownloadParts,
  target: FetchTarget,
  file: Partial,
  options: DownloadOptions,
): Promise<Result<void>> {
  const { fetcher, clock, pace, partials } = parts;
  const { totalBytes, early } = file;
  const asked = new Set<Asked>();
  const rate = rateWindow(parts);
  const state: { outcome: Outcome | null } = { outcome: null };
  let closed = false;
  let wake: () => void = () => undefined;

  const end = (how: Outcome): void => {
    state.outcome ??= how;
  };
  const refused = (code: Refusal['code'], detail: string): void => end(refuse(code, detail));

  function take(range: Asked, bytes: Uint8Array, ofBytes: number): void {
    if (closed) return;
    if (ofBytes !== totalBytes) {
      refused('blob-size-mismatch', `${ofBytes} bytes offered, ${totalBytes} were signed`);
      return;
    }
    const piece = bytes.subarray(0, range.until - range.at);
    if (piece.length === 0) return;
    early.set(range.at, piece);
    range.at += piece.length;
    const nowMs = clock.mono();
    pace.arrived(piece.length, nowMs, range.askedAtMs === null ? null : nowMs - range.askedAtMs);
    range.askedAtMs = null;
    options.onArrived(piece.length);
    if (rate.isTooSlow(piece.length)) {
      fetcher.tooSlow?.();
      refused('fetch-too-slow', `below ${rate.leastPerSecond} bytes a second`);
    }
  }

  const lostBytesMax = Math.max(lostBytesMin, Math.floor(file.totalBytes / lostShare));
  const rangeBytesMax = Math.min(parts.limits.fetchRangeBytesMax, lostBytesMax);

  function ask(from: number, until: number): void {
    const range: Asked = { at: from, until, askedAtMs: clock.mono() };
    if (asked.size === 0) pace.begins();
    asked.add(range);
    fetcher
      .range(target, from, until - from, (piece) => {
        if (piece.offset === range.at) take(range, piece.bytes, piece.totalBytes);
        wake();
      })
      .then((answer) => {
        if (!answer.ok) end(answer);
        else {
          take(range, answer.value.bytes.subarray(range.at - from), answer.value.totalBytes);
          // A range that ends early left a hole, which is asked for again; nothing at all is no progress.
          if (range.at === from) refused('fetch-timeout', 'an empty answer');
        }
      })
      .catch((thrown: unknown) => end({ thrown }))
      .finally(() => {
        asked.delete(range);
        wake();
      });
  }

  /** The first bytes that neither are here nor were asked for. */
  function gap(): { from: number; until: number } | null {
    const taken = [
      ...[...early].map(([from, bytes]) => ({ from, until: from + bytes.length })),
      ...[...asked].map(({ at, until }) => ({ from: at, until })),
    ].sort((a, b) => a.from - b.from);
    let from = file.bytes;
    for (const one of taken) {
      if (one.from > from) return { from, until: one.from };
      from = Math.max(from, one.until);
    }
    return from < totalBytes ? { from, until: totalBytes } : null;
  }

  function askAhead(): void {
    for (;;) {
      let bytes = 0;
      for (const { at, until } of asked) bytes += until - at;
      if (!pace.wantsMore({ ranges: asked.size, bytes })) return;
      const next = gap();
      if (next === null) return;
      // Behind a hole or before a slow disk no more than this waits: it is lost with the process, like what is on the wire.
      const waiting = next.from - file.bytes;
      if (next.from > file.bytes && waiting > rangesAtOnceMax * rangeBytesMax) return;
      ask(next.from, Math.min(next.until, next.from + Math.min(pace.rangeBytes(), rangeBytesMax)));
    }
  }

  /** What stands next in the file and has arrived, or null. */
  function nextPart(): Uint8Array | null {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for (;;) {
      const piece = early.get(file.bytes + bytes);
      if (piece === undefined || bytes === partBytesMax) break;
      early.delete(file.bytes + bytes);
      const fits = piece.subarray(0, partBytesMax - bytes);
      if (fits.length < piece.length)
        early.set(file.bytes + bytes + fits.length, piece.subarray(fits.length));
      pieces.push(fits);
      bytes += fits.length;
    }
    if (pieces.length < 2) return pieces[0] ?? null;
    const part = new Uint8Array(bytes);
    let at = 0;
    for (const piece of pieces) {
      part.set(piece, at);
      at += piece.length;
    }
    return part;
  }

  try {
    options.onProgress(file.bytes);
    while (file.bytes < totalBytes) {
      if (!options.wanted()) return refuse('update-superseded', 'another assignment came');
      // The link is kept busy while the disk is.
      if (state.outcome === null) askAhead();
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const part = nextPart();
      if (part !== null) {
        await partials.append(file, part);
        options.onProgress(file.bytes);
        continue;
      }
      const { outcome } = state;
      if (outcome !== null && (asked.size === 0 || 'thrown' in outcome)) return ended(outcome);
      await woken;
    }
    return ok();
  } finally {
    closed = true;
    const { outcome } = state;
    pace.ended(outcome !== null && 'refusal' in outcome && isOfTheLink(outcome.refusal));
  }
}

function ended(outcome: Outcome): Result<never> {
  if ('thrown' in outcome) throw outcome.thrown;
  return { ok: false, refusal: outcome.refusal };
}

const isOfTheLink = ({ code }: Refusal): boolean => code === 'fetch-timeout' || code === 'fetch-too-slow';

/** Whether the bytes come too slowly, looked at whenever some come and a window is over. */
function rateWindow({ clock, limits: of }: DownloadParts): {
  leastPerSecond: number;
  isTooSlow: (bytes: number) => boolean;
} {
  const leastPerSecond = of.fetchBytesPerSecondMin ?? limits.fetchBytesPerSecondMin;
  const windowMs = of.fetchRateWindowMs ?? limits.fetchRateWindowMs;
  let fromMs = clock.mono();
  let arrived = 0;
  return {
    leastPerSecond,
    isTooSlow: (bytes) => {
      arrived += bytes;
      const ms = clock.mono() - fromMs;
      if (ms < windowMs) return false;
      const slow = arrived < (leastPerSecond * ms) / 1_000;
      fromMs += ms;
      arrived = 0;
      return slow;
    },
  };
}
