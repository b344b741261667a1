// Why: requests that name a sequence share its state, which the agent keeps: a client need not carry it.
// Trusts: the manifest for what is state. Must never: grow without bound, or run two steps of a sequence at once.

import { limits } from '../../shared/kernel/limits.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { type Result, refuse } from '../../shared/kernel/result.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import type { InferAnswer, InferenceHost, ServedModel } from './host.ts';
import { createStepper, type Stepper, shownOutputs } from './streams.ts';

export interface SequenceCall {
  id: string;
  start: boolean;
  end: boolean;
  inputs: readonly Tensor[];
  /** Absent: all outputs but the state. */
  outputs?: readonly string[] | undefined;
}

export interface Sequences {
  /**
   * One step of a sequence of a model with state. Refusals: `infer-invalid` (it was not begun, or has ended),
   * `infer-queue-full` (too many at once), and those of `infer`.
   */
  run(model: ServedModel, call: SequenceCall): Promise<Result<InferAnswer & { reset: boolean }>>;
}

interface Sequence {
  stepper: Stepper;
  tail: Promise<unknown>;
  usedAtMs: number;
}

export function createSequences(
  inference: InferenceHost,
  clock: Clock,
  bounds: { sequencesMax: number; sequenceIdleMs: number } = limits,
): Sequences {
  const sequences = new Map<string, Sequence>();

  const dropIdle = (): void => {
    const before = clock.mono() - bounds.sequenceIdleMs;
    for (const [key, { usedAtMs }] of sequences) if (usedAtMs < before) sequences.delete(key);
  };

  return {
    run: async (model, { id, start, end, inputs, outputs }) => {
      const key = `${model.as} ${id}`;
      let sequence = sequences.get(key);
      if (start) {
        dropIdle();
        if (sequence === undefined && sequences.size >= bounds.sequencesMax)
          return refuse('infer-queue-full', `${sequences.size} sequences are open`);
        sequence = {
          stepper: createStepper(inference, model.as, clock),
          tail: sequence?.tail ?? Promise.resolve(),
          usedAtMs: clock.mono(),
        };
        sequences.set(key, sequence);
      }
      if (sequence === undefined)
        return refuse('infer-invalid', `sequence ${id} was not begun with sequence_start, or has ended`);
      const current = sequence;
      current.usedAtMs = clock.mono();
      const turn = current.tail.then(() => current.stepper.step(inputs, outputs ?? shownOutputs(model)));
      current.tail = turn.catch(() => undefined);
      const answer = await turn;
      current.usedAtMs = clock.mono();
      if (end && sequences.get(key) === current) sequences.delete(key);
      return answer;
    },
  };
}
