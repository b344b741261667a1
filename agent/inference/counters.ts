// Why: what one loaded release did since it was loaded, in counts: the statistics extension, /metrics and the
// status read them. Trusts: the slot's measurements. Must never: keep an input or an output.

import { createHistogram, type Histogram, observe } from '../../shared/stats/histogram.ts';

/** Milliseconds: 50 µs to a minute, finer where models live. */
export const latencyEdgesMs: readonly number[] = [
  0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000,
];

/** The parts of one answered request, in milliseconds. */
export interface AnsweredFact {
  /** From its arrival to the moment its child took it. */
  queueMs: number;
  /** Into the child and into the runtime's tensors. */
  inputMs: number;
  /** Inside the runtime. */
  runMs: number;
  /** Out of the runtime and back to the agent. */
  outputMs: number;
  /** From arrival to answer. */
  totalMs: number;
  /** Rows of this request where its model is batched, else 1. */
  rows: number;
}

export interface ReleaseCounters {
  readonly answered: number;
  readonly failed: number;
  /** Clients that went away before their answer. */
  readonly cancelled: number;
  /** Requests that ended without an answer, by code. */
  readonly failures: ReadonlyMap<string, number>;
  readonly failedMs: number;
  readonly cancelledMs: number;
  /** Rows answered. */
  readonly inferences: number;
  /** Runs of the session; fewer than requests where they are batched. */
  readonly executions: number;
  /** Unix time of the last answer, null before the first. */
  readonly lastInferenceAtMs: number | null;
  readonly queue: Histogram;
  readonly input: Histogram;
  readonly run: Histogram;
  readonly output: Histogram;
  readonly total: Histogram;
  /** Executions by rows in the batch: how many, and their time inside the runtime. */
  readonly batches: ReadonlyMap<number, { executions: number; runMs: number }>;
}

export interface CountersWriter extends ReleaseCounters {
  answer(fact: AnsweredFact, wallMs: number): void;
  fail(code: string, totalMs: number): void;
  cancel(totalMs: number): void;
  execution(rows: number, runMs: number): void;
}

export function createCounters(): CountersWriter {
  const failures = new Map<string, number>();
  const batches = new Map<number, { executions: number; runMs: number }>();
  const counters = {
    answered: 0,
    failed: 0,
    cancelled: 0,
    failures,
    failedMs: 0,
    cancelledMs: 0,
    inferences: 0,
    executions: 0,
    lastInferenceAtMs: null as number | null,
    queue: createHistogram(latencyEdgesMs),
    input: createHistogram(latencyEdgesMs),
    run: createHistogram(latencyEdgesMs),
    output: createHistogram(latencyEdgesMs),
    total: createHistogram(latencyEdgesMs),
    batches,
    answer: (fact: AnsweredFact, wallMs: number): void => {
      counters.answered += 1;
      counters.inferences += fact.rows;
      counters.lastInferenceAtMs = wallMs;
      observe(counters.queue, fact.queueMs);
      observe(counters.input, fact.inputMs);
      observe(counters.run, fact.runMs);
      observe(counters.output, fact.outputMs);
      observe(counters.total, fact.totalMs);
    },
    fail: (code: string, totalMs: number): void => {
      counters.failed += 1;
      counters.failedMs += totalMs;
      failures.set(code, (failures.get(code) ?? 0) + 1);
    },
    cancel: (totalMs: number): void => {
      counters.cancelled += 1;
      counters.cancelledMs += totalMs;
    },
    execution: (rows: number, runMs: number): void => {
      counters.executions += 1;
      const batch = batches.get(rows) ?? { executions: 0, runMs: 0 };
      batch.executions += 1;
      batch.runMs += runMs;
      batches.set(rows, batch);
    },
  };
  return counters;
}
