// Why: which smaller file is fetched in the place of a file: what the registry offers, what of it can be used here, what
// failed before. Trusts: nothing of an offer; what comes of it is digested. Must never: stand in the way of a download:
// a registry that offers nothing, or nonsense, is one without ways.

import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Fetcher } from '../../shared/kernel/ports.ts';
import { ok, type Result } from '../../shared/kernel/result.ts';
import { parseMessage } from '../../shared/wire/messages.ts';
import { type Way, waysBytesMax, waysHeldMax, waysSchema } from '../../shared/wire/ways.ts';
import type { BlobRef } from './fetch.ts';

/** An answer is used again for so long: after a cut the question would cost more than it brings. */
const answerMs = 10 * 60_000;
/** Questions about one file that may stay without an answer before it is fetched as it is: a link may be that bad. */
const unansweredMax = 2;
/** Offers may grow while one waits, but nobody waits for ever. */
const asksMax = 20;

export interface WayTerms {
  waysBytesMin?: number;
  waysWaitBytesMin?: number;
  waysWaitMsMax?: number;
}

export interface Ways {
  /** Whether it is worth asking where so many bytes are to come. */
  worth(leftBytes: number): boolean;
  /**
   * What can be used with these bases and did not fail before; `leftBytes` are to come without a way. Refusals, where
   * the registry could not be asked for a reason that passes: `bus-offline`, `fetch-busy`, `fetch-timeout`.
   */
  offered(
    ref: BlobRef,
    leftBytes: number,
    bases: readonly BlobRef[],
    wanted: () => boolean,
  ): Promise<Result<Way[]>>;
  failed(ref: BlobRef, way: Way): void;
}

export function createWays(parts: { fetcher: Fetcher; clock: Clock; terms: WayTerms }): Ways {
  const { fetcher, clock } = parts;
  const { waysBytesMin, waysWaitBytesMin, waysWaitMsMax } = { ...limits, ...parts.terms };
  const failures = new Set<string>();
  let unanswered = 0;
  let last: { key: string; ways: Way[]; atMs: number } | null = null;
  const pair = (ref: BlobRef, way: Way): string => `${ref.sha256} ${way.sha256}`;

  interface Offer {
    ways: Way[];
    retryAfterMs: number | null;
  }
  const none: Result<Offer> = ok({ ways: [], retryAfterMs: null });

  async function ask(ref: BlobRef, held: string[]): Promise<Result<Offer>> {
    const answer = await fetcher.range({ kind: 'ways', sha256: ref.sha256, held }, 0, waysBytesMax);
    if (!answer.ok) {
      const { code } = answer.refusal;
      if (code === 'fetch-timeout') {
        unanswered += 1;
        return unanswered <= unansweredMax ? answer : none;
      }
      return code === 'bus-offline' || code === 'fetch-busy' ? answer : none;
    }
    unanswered = 0;
    const { bytes, totalBytes } = answer.value;
    const parsed = bytes.length === totalBytes ? parseMessage(waysSchema, bytes) : null;
    if (parsed === null || !parsed.ok) return none;
    const { value } = parsed;
    if (value.sha256 !== ref.sha256 || value.bytes !== ref.bytes) return none;
    const usable = value.ways.filter(
      (way) => way.bytes < ref.bytes && way.bases.every((base) => held.includes(base)),
    );
    return ok({ ways: usable, retryAfterMs: value.retryAfterMs });
  }

  async function asked(
    ref: BlobRef,
    leftBytes: number,
    held: string[],
    wanted: () => boolean,
  ): Promise<Result<Way[]>> {
    const untilMs = clock.mono() + (leftBytes > waysWaitBytesMin ? waysWaitMsMax : 0);
    for (let asks = 1; ; asks += 1) {
      const answer = await ask(ref, held);
      if (!answer.ok) return answer;
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
    worth: (leftBytes) => leftBytes > waysBytesMin,
    offered: async (ref, leftBytes, bases, wanted) => {
      const held = bases.slice(0, waysHeldMax).map(({ sha256 }) => sha256);
      const isLast =
        last?.key === [ref.sha256, ...held].join() && clock.mono() - last.atMs < answerMs ? last : null;
      const ways = isLast === null ? await asked(ref, leftBytes, held, wanted) : ok(isLast.ways);
      return ways.ok ? ok(ways.value.filter((way) => !failures.has(pair(ref, way)))) : ways;
    },
    failed: (ref, way) => {
      failures.add(pair(ref, way));
      last = null;
    },
  };
}
