// Why: what the inference host needs and what it does, apart from how: others may stand in for it.
// Trusts: nothing. Must never: hold more than types.

import type { Clock, Disk, Entropy, Log, Power, Runtime } from '../../shared/kernel/ports.ts';
import type { Refusal, Result } from '../../shared/kernel/result.ts';
import type { AssignedSampling } from '../../shared/wire/sample-rules.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import type { RecycleTerms } from './memory-budget.ts';
import type { InputAhead } from './process.ts';
import type { CapturedSample } from './sampler.ts';
import type { InferAnswer, InferCall, RequestCounts, ServedModel } from './served.ts';

export interface InferenceHostOptions {
  clock: Clock;
  log: Log;
  /** The state folder, absolute: children open the files there by path. */
  stateFolder: string;
  /** The same folder as a port; manifests and golden cases are read through it. */
  disk: Disk;
  deadlineMs?: number;
  queueMax?: number;
  /** Told of each request that something serves. Must not block. */
  onRequest?: (fact: { as: string; releaseId: string; code: string | null; latencyMs: number }) => void;
  /** A request that is kept as `useSampling` asked; absent: none is. Must not block. */
  sampling?: { entropy: Entropy; onSample(sample: CapturedSample): void };
  /** Another release serves, or a model no longer does. */
  onServing?: () => void;
  /** Threads of one model where its manifest names none. Default: half of the cores, shared by the models. */
  threads?: number;
  /** Threads of all models that run at once. Default: one for each core. */
  threadsAtOnce?: number;
  /** What all processes of the device may take. Default: its memory, or what its container has. */
  deviceBytes?: number;
  /** Between two looks at the children's memory. */
  memoryLookMs?: number;
  /** Default: the counters of this machine. */
  power?: Power;
  /** When a child that has grown is replaced. */
  recycle?: Partial<RecycleTerms>;
  /**
   * The process of a release that serves died again after a short life (`infer-not-ready`), or keeps dying
   * (`model-crash-loop`). Must not block.
   */
  onTrouble?: (fact: { as: string; manifestSha256: string; refusal: Refusal }) => void;
}

export interface InferenceHost extends Runtime {
  /**
   * Runs a request against what serves `as`. Refusals: `infer-unknown-model` (also for a version that
   * does not serve), `infer-invalid`, `infer-not-ready`, `infer-queue-full`, `infer-deadline`,
   * `infer-failed`, `infer-unsupported`, `model-crashed`, `model-memory-exceeded`, `model-crash-loop`,
   * `interrupted` (the client went away).
   */
  infer(as: string, version: string | null, call: InferCall): Promise<Result<InferAnswer>>;
  /**
   * Takes a large input to the model's process while it still comes: `whole` is the memory that it comes into, and that
   * the one tensor of a call with this `ahead` will be. Null where that gains nothing; the call is the same without.
   * Whoever makes no such call cancels it.
   */
  ahead(as: string, version: string | null, whole: Uint8Array): InputAhead | null;
  /** What serves, sorted by name. */
  models(): ServedModel[];
  /** What serves this name, null where nothing does. */
  model(as: string): ServedModel | null;
  /** Requests since the start, of all models, whatever was switched meanwhile. */
  requests(): RequestCounts;
  /** Of which requests samples are kept, from the next one on. */
  useSampling(rules: readonly AssignedSampling[]): void;
  /** Since the last call, as records of class `stats`: what was counted of inputs and outputs, joules, and samples. */
  takeWindow(): TelemetryRecord[];
  /** Ends every child. */
  close(): Promise<void>;
}
