// Why: what the host takes from a client and says of a model, apart from how it does it.
// Trusts: nothing. Must never: hold more than types.

import type { Refusal } from '../../shared/kernel/result.ts';
import type { TensorSignature } from '../../shared/wire/manifest.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import type { ReleaseCounters } from './counters.ts';
import type { Restarts } from './keeper.ts';
import type { InputAhead } from './process.ts';
import type { Recipe } from './recipe.ts';

export interface ServedModel {
  /** Name under which it is served. */
  as: string;
  releaseId: string;
  version: string;
  ready: boolean;
  /** Why it is not ready. */
  reason: Refusal | null;
  pid: number | null;
  inputs: TensorSignature[];
  outputs: TensorSignature[];
  /** What its manifest says about streams and sequences. */
  recipe: Recipe;
  counters: ReleaseCounters;
  /** Requests that wait now. */
  waiting: number;
  /** How often its process was started again, by cause. */
  restarts: Restarts;
  /** Resident memory of its process when last looked at, and what it may take; null: not known, no limit. */
  memory: { rssBytes: number | null; limitBytes: number | null };
  /** The execution provider that runs it. */
  provider: string;
}

/** As much of an AbortSignal as is used. Each listener is called once. */
export interface Cancellation {
  readonly aborted: boolean;
  addEventListener(type: 'abort', act: () => void): void;
  removeEventListener(type: 'abort', act: () => void): void;
}

export interface InferCall {
  inputs: Tensor[];
  /** Names of the outputs wanted; absent: all. */
  outputs?: string[] | undefined;
  /** Shorter than the host's own deadline, from the client. */
  deadlineMs?: number | undefined;
  /** Aborted when the client went away: a request that still waits is dropped. Outlives the call: one for many. */
  signal?: Cancellation | undefined;
  /** What `InferenceHost.ahead` gave for its one large input. */
  ahead?: InputAhead | undefined;
  /** The client's name for it, if it has one. */
  requestId?: string | undefined;
}

export interface InferAnswer {
  releaseId: string;
  version: string;
  outputs: Tensor[];
  runMs: number;
}

export interface RequestCounts {
  answered: number;
  /** Refused or failed, for whatever reason. */
  failed: number;
}
