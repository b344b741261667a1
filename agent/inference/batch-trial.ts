// Why: whether joined requests get the answers they would get alone is the model's doing, and no signature says it:
// one that quantises or normalises over its whole input gives each row the company's answer. So the first batches are
// tried: their requests run alone too, and get those answers. Trusts: the answers of the lone runs.
// Must never: let an answer out of a batch before batches were proven.

import { compareGolden } from '../../shared/wire/golden.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { sameInputs } from './batching.ts';

export interface BatchTrial {
  /** `trying`: a batch's answers are only compared; `proven`: they are given; `off`: no batches. */
  state(): 'trying' | 'proven' | 'off';
  /** The answer of a lone run beside the same request's part of a batch. */
  compare(alone: readonly Tensor[], inBatch: readonly Tensor[]): void;
  /** A batch of these requests was compared. */
  tried(requests: readonly (readonly Tensor[])[]): void;
  refuse(reason: string): void;
}

/** Batches of differing requests that must agree. */
const trialsWanted = 2;
/** Sums in another order differ in the last digits; a scale taken from other rows differs in the first. */
const tolerance = { rtol: 1e-3, atol: 1e-5 };

export function createBatchTrial(batched: boolean, onOff: (reason: string) => void): BatchTrial {
  let state: 'trying' | 'proven' | 'off' = batched ? 'trying' : 'off';
  let agreed = 0;
  const refuse = (reason: string): void => {
    if (state === 'off') return;
    state = 'off';
    onOff(reason);
  };
  return {
    state: () => state,
    refuse,
    compare: (alone, inBatch) => {
      const { firstFailure } = compareGolden(alone, inBatch, tolerance.rtol, tolerance.atol);
      if (firstFailure !== null) refuse(`a request's answer depends on those it ran with: ${firstFailure}`);
    },
    tried: (requests) => {
      const [first, ...others] = requests;
      // Equal rows have equal scales: they prove nothing.
      if (first === undefined || others.every((other) => sameInputs(first, other))) return;
      agreed += 1;
      if (state === 'trying' && agreed >= trialsWanted) state = 'proven';
    },
  };
}
