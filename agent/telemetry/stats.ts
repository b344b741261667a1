// Why: class `stats`: what each served release did in one window of time, in numbers that can be added up.
// Trusts: what the inference host measured. Must never: keep an input or an output.

import type { Clock } from '../../shared/kernel/ports.ts';
import {
  addToSketch,
  createSketch,
  type Sketch,
  sketchQuantile,
  sketchToJson,
} from '../../shared/stats/sketch.ts';
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

interface Window {
  as: string;
  releaseId: string;
  requests: number;
  errors: Map<string, number>;
  /** Of answered requests, milliseconds. */
  latency: Sketch;
}

export function createStats(clock: Clock): Stats {
  const windows = new Map<string, Window>();
  let sinceMs = clock.mono();

  return {
    add: ({ as, releaseId, code, latencyMs }) => {
      const name = `${as} ${releaseId}`;
      let window = windows.get(name);
      if (window === undefined) {
        window = { as, releaseId, requests: 0, errors: new Map(), latency: createSketch() };
        windows.set(name, window);
      }
      window.requests += 1;
      if (code !== null) {
        window.errors.set(code, (window.errors.get(code) ?? 0) + 1);
        return;
      }
      addToSketch(window.latency, latencyMs);
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
          latencyMs: summary(window.latency),
          /** Adds up over windows and devices, which percentiles do not. */
          latencySketch: window.latency.count === 0 ? null : sketchToJson(window.latency),
        },
      }));
      windows.clear();
      return records;
    },
  };
}

function summary(latency: Sketch): { p50: number; p95: number; max: number } | null {
  const p50 = sketchQuantile(latency, 0.5);
  const p95 = sketchQuantile(latency, 0.95);
  if (p50 === null || p95 === null) return null;
  return { p50: rounded(p50), p95: rounded(p95), max: rounded(latency.max) };
}

function rounded(ms: number): number {
  return Math.round(ms * 1_000) / 1_000;
}
