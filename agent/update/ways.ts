// Why: which smaller file is fetched in the place of a file: what the registry offers, what of it can be used here, what
// failed before. Trusts: nothing of an offer; what comes of it is digested. Must never: stand in the way of a download:
// a registry that offers nothing, or nonsense, is one without ways.

import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Fetcher, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result } from '../../shared/kernel/result.ts';
import { parseMessage } from '../../shared/wire/messages.ts';
import { type Way, waysBytesMax, waysHeldMax, waysSchema } from '../../shared/wire/ways.ts';
import type { BlobRef } from './fetch.ts';

/** An answer is used again for so long: after a cut the question would cost more than it brings. */
const answerMs = 10 * 60_000;
/** Offers may grow while one waits, but nobody waits for ever. */
const asksMax = 20;

export interface WayTerms {
  waysBytesMin?: number;
  waysWaitBytesMin?: number;
  waysWaitMsMax?: number;
}

export interface Ways {
  /** Whether it is worth asking for this file. */
  worth(ref: BlobRef): boolean;
  /**
   * What can be used with these bases, none of which failed before. Refusals, where the registry could not be asked for
   * a reason that passes: `bus-offline`, and `fetch-timeout` until it was silent too often.
   */
  offered(ref: BlobRef, bases: readonly BlobRef[], wanted: () => boolean): Promise<Result<Way[]>>;
  failed(ref: BlobRef, way: Way): void;
}

/** A registry that does not answer the question so often is taken for one that does not know it. */
const silencesMax = 3;

export function createWays(parts: { fetcher: Fetcher; clock: Clock; log: Log; terms: WayTerms }): Ways {
  const { fetcher, clock } = parts;
  const { waysBytesMin, waysWaitBytesMin, waysWaitMsMax } = { ...limits, ...parts.terms };
  const failures = new Set<string>();
  let silences = 0;
  let last: { key: string; ways: Way[]; atMs: number } | null = null;
  const pair = (ref: BlobRef, way: Way): string => `${ref.sha256} ${way.sha256}`;

  async function ask(
    ref: BlobRef,
    held: string[],
  ): Promise<Result<{ ways: Way[]; retryAfterMs: number | null } | null>> {
    const answer = await fetcher.range({ kind: 'ways', sha256: ref.sha256, held }, 0, waysBytesMax);
    if (!answer.ok) {
      if (answer.refusal.code === 'fetch-timeout') silences += 1;
      const passes = answer.refusal.code === 'bus-offline' || answer.refusal.code === 'fetch-timeout';
      // Plain bytes would begin anew what is half here by a smaller way; a registry that knows no ways stays silent.
      return passes && silences < silencesMax ? answer : ok(null);
    }
    silences = 0;
    const { bytes, totalBytes } = answer.value;
    const parsed: Result<{ sha256: string; bytes: number; ways: Way[]; retryAfterMs: number | null }> | null =
      bytes.length === totalBytes ? parseMessage(waysSchema, bytes) : null;
    if (parsed === null || !parsed.ok) return ok(null);
    const { value } = parsed;
    if (value.sha256 !== ref.sha256 || value.bytes !== ref.bytes) return ok(null);
    const usable = value.ways.filter(
      (way) => way.bytes < ref.bytes && way.bases.every((base) => held.includes(base)),
    );
    return ok({ ways: usable, retryAfterMs: value.retryAfterMs });
  }

  async function asked(ref: BlobRef, held: string[], wanted: () => boolean): Promise<Result<Way[]>> {
    const untilMs = clock.mono() + (ref.bytes > waysWaitBytesMin ? waysWaitMsMax : 0);
    for (let asks = 1; ; asks += 1) {
      const answer = await ask(ref, held);
      if (!answer.ok) return answer;
      if (answer.value === null) return ok([]);
      const { ways, retryAfterMs } = answer.value;
      if (retryAfterMs === null) {
        last = { key: [ref.sha256, ...held].join(), ways, atMs: clock.mono() };
        return ok(ways);
      }
      if (asks === asksMax || clock.mono() + retryAfterMs > untilMs || !wanted()) return ok(ways);
      await clock.timer(retryAfterMs).done;
      if (!wanted()) return ok(ways);
    }
  }

  return {
    worth: ({ bytes }) => bytes > waysBytesMin,
    offered: async (ref, bases, wanted) => {
      const held = bases.slice(0, waysHeldMax).map(({ sha256 }) => sha256);
      const isLast =
        last?.key === [ref.sha256, ...held].join() && clock.mono() - last.atMs < answerMs ? last : null;
      const ways = isLast === null ? await asked(ref, held, wanted) : ok(isLast.ways);
      return ways.ok ? ok(ways.value.filter((way) => !failures.has(pair(ref, way)))) : ways;
    },
    failed: (ref, way) => {
      failures.add(pair(ref, way));
      last = null;
    },
  };
}
