// Why: how long the event loop is held up, measured by a native timer: what heavy work on it would cost requests.
// Trusts: perf_hooks. Must never: keep the process alive.

import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface LoopDelay {
  /** Seconds beyond the timer's own period, since the start. */
  read(): { quantiles: Record<string, number>; max: number; sum: number; count: number };
  stop(): void;
}

/** Period of the timer: twenty wake-ups a second, which a battery does not notice. */
const resolutionMs = 50;
const quantiles = [0.5, 0.9, 0.99, 0.999];

export function watchLoopDelay(): LoopDelay {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  /** The histogram counts the whole distance between two ticks. */
  const beyond = (nanoseconds: number): number =>
    Math.max(0, Number((nanoseconds / 1e9 - resolutionMs / 1_000).toFixed(6)));
  return {
    read: () => {
      const { count } = histogram;
      return {
        quantiles: Object.fromEntries(
          quantiles.map((quantile) => [
            String(quantile),
            count === 0 ? 0 : beyond(histogram.percentile(quantile * 100)),
          ]),
        ),
        max: count === 0 ? 0 : beyond(histogram.max),
        sum: count === 0 ? 0 : Number((beyond(histogram.mean) * count).toFixed(6)),
        count,
      };
    },
    stop: () => {
      histogram.disable();
    },
  };
}
