// Why: whether joined requests get the answers they would get alone is the model's doing, and no signature says it:
// one that quantises or normalises over its whole input gives each row the company's answer. So the first batches are
// tried: their requests run alone too, and get those answers. Trusts: the answers of the lone runs.
// Must never: let an answer out of a batch before batches were proven.

import { compareGolden } from '../../shared/wire/golden.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { allSame } from './batching.ts';

export interface BatchTrial {
  /** Whether requests are joined at all. */
  on(): boolean;
  /** Whether the answers of this batch are given; else they are only compared. */
  trusts(requests: readonly (readonly Tensor[])[]): boolean;
  /** The answer of a lone run beside the same request's part of a batch. */
  compare(alone: readonly Tensor[], inBatch: readonly Tensor[]): void;
  /** A batch of these requests was compared. */
  tried(requests: readonly (readonly Tensor[])[]): void;
  refuse(reason: string): void;
}

/** Batches that must agree before others like them are believed. */
const trialsWanted = 2;
/** Sums in another order differ in the last digits; a scale taken from other rows differs in the first. */
const tolerance = { rtol: 1e-3, atol: 1e-5 };

export function createBatchTrial(batched: boolean, onOff: (reason: string) => void): BatchTrial {
  let on = batched;
  /** Batches that agreed: of requests that differ, and of equal ones, which say nothing about those. */
  const agreed = { differing: 0, equal: 0 };
  const refuse = (reason: string): void => {
    if (!on) return;
    on = false;
    onOff(reason);
  };
  return {
    on: () => on,
    trusts: (requests) => {
      if (!on) return false;
      if (agreed.differing >= trialsWanted) return true;
      return agreed.equal >= trialsWanted && allSame(requests);
    },
    refuse,
    compare: (alone, inBatch) => {
      const { firstFailure } = compareGolden(alone, inBatch, tolerance.rtol, tolerance.atol);
      if (firstFailure !== null) refuse(`a request's answer depends on those it ran with: ${firstFailure}`);
    },
    tried: (requests) => {
      agreed[allSame(requests) ? 'equal' : 'differing'] += 1;
    },
  };
}
