// Why: class `stats`: what each served release did in one window of time, in numbers that can be added up.
// Trusts: what the inference host measured. Must never: keep an input or an output.

import type { Clock } from '../../shared/kernel/ports.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';

/** One request that was answered or refused. */
export interface RequestFact {
  as: string;
  releaseId: string;
  /** Null where it was answered. */
  code: string | null;
  /** From its arrival at the host to its answer, queue included. */
  latencyMs: number;
}

export interface Stats {
  add(fact: RequestFact): void;
  /** The records of the window that ends now; a release without a request has none. */
  take(): TelemetryRecord[];
}

/** Width of a latency class: a quantile is off by at most this. */
const growth = 1.05;
const smallestMs = 0.01;

interface Window {
  as: string;
  releaseId: string;
  requests: number;
  errors: Map<string, number>;
  /** Answered requests by latency class. */
  latencies: Map<number, number>;
  maxMs: number;
}

export function createStats(clock: Clock): Stats {
  const windows = new Map<string, Window>();
  let sinceMs = clock.mono();

  return {
    add: ({ as, releaseId, code, latencyMs }) => {
      const name = `${as} ${releaseId}`;
      let window = windows.get(name);
      if (window === undefined) {
        window = { as, releaseId, requests: 0, errors: new Map(), latencies: new Map(), maxMs: 0 };
        windows.set(name, window);
      }
      window.requests += 1;
      if (code !== null) {
        window.errors.set(code, (window.errors.get(code) ?? 0) + 1);
        return;
      }
      const at = Math.ceil(Math.log(Math.max(latencyMs, smallestMs) / smallestMs) / Math.log(growth));
      window.latencies.set(at, (window.latencies.get(at) ?? 0) + 1);
      window.maxMs = Math.max(window.maxMs, latencyMs);
    },

    take: () => {
      const nowMs = clock.mono();
      const windowMs = Math.round(nowMs - sinceMs);
      const timeMs = Math.max(0, Math.floor(clock.wall()));
      sinceMs = nowMs;
      const records = [...windows.values()].map((window) => ({
        timeMs,
        release: window.releaseId,
        data: {
          kind: 'requests',
          model: window.as,
          windowMs,
          requests: window.requests,
          errors: Object.fromEntries(window.errors),
          latencyMs:
            window.latencies.size === 0
              ? null
              : {
                  p50: quantile(window, 0.5),
                  p95: quantile(window, 0.95),
                  max: rounded(window.maxMs),
                },
        },
      }));
      windows.clear();
      return records;
    },
  };
}

function quantile(window: Window, fraction: number): number {
  const classes = [...window.latencies].sort(([a], [b]) => a - b);
  const total = classes.reduce((sum, [, count]) => sum + count, 0);
  let left = Math.ceil(total * fraction);
  for (const [at, count] of classes) {
    left -= count;
    if (left <= 0) return rounded(Math.min(window.maxMs, smallestMs * growth ** at));
  }
  return rounded(window.maxMs);
}

function rounded(ms: number): number {
  return Math.round(ms * 1_000) / 1_000;
}
