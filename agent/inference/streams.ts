// Why: a stream of samples becomes answers, one a window, and the agent keeps what the model needs from step to step.
// Trusts: the host for one step at a time. Must never: mix two streams, or feed one release's state to another.

import type { Clock } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Datatype } from '../../shared/wire/manifest.ts';
import { elementBytes, type Tensor } from '../../shared/wire/tensors.ts';
import type { InferAnswer, InferenceHost, ServedModel } from './host.ts';
import { type Carried, carry, nothingCarried, type Recipe, stepInputs, stepOutputs } from './recipe.ts';
import { createWindows, type Numbers, type Window, type Windows } from './windows.ts';

export interface StreamStep {
  /** Counts the windows of this stream. */
  index: number;
  /** Index of the window's first sample. */
  start: number;
  releaseId: string;
  version: string;
  /** The release changed before this window: its state begins anew. */
  reset: boolean;
  outputs: Tensor[];
}

export interface InferStream {
  datatype: Exclude<Datatype, 'BYTES'>;
  /** Numbers of one sample. */
  channels: number;
  /**
   * Whole samples, in order; one call after the other. Refusals: `infer-invalid`, and those of `infer` that did not
   * pass by themselves. What was answered before a refusal is lost: the stream is over.
   */
  push(samples: Numbers): Promise<Result<StreamStep[]>>;
}

/** How long a step waits for a model that is loading again, or for a place in its queue. */
const patienceMs = 10_000;
const pauseMs = 25;
const passing: ReadonlySet<string> = new Set(['infer-not-ready', 'infer-queue-full', 'model-crashed']);

/** One step on whatever release serves; the state begins anew where that changes. */
export interface Stepper {
  step(
    given: readonly Tensor[],
    wanted: readonly string[],
  ): Promise<Result<InferAnswer & { reset: boolean }>>;
}

function findServed(inference: InferenceHost, as: string): Result<ServedModel> {
  const served = inference.models().find((model) => model.as === as);
  return served === undefined
    ? refuse('infer-unknown-model', `no model ${JSON.stringify(as)} is served here`)
    : ok(served);
}

export function createStepper(inference: InferenceHost, as: string, clock: Clock): Stepper {
  let carried: Carried = nothingCarried;
  let releaseId: string | null = null;

  const once = async (
    given: readonly Tensor[],
    wanted: readonly string[],
  ): Promise<Result<InferAnswer & { reset: boolean }>> => {
    const served = findServed(inference, as);
    if (!served.ok) return served;
    const { recipe } = served.value;
    const reset = releaseId !== null && releaseId !== served.value.releaseId;
    const before = reset ? { ...carried, state: nothingCarried.state } : carried;
    const inputs = stepInputs(recipe, served.value, given, before);
    if (!inputs.ok) return inputs;
    const outputs = stepOutputs(recipe, served.value, wanted);
    const answer = await inference.infer(as, null, { inputs: inputs.value, outputs });
    if (!answer.ok) return answer;
    // Switched between the look and the run: this answer mixes two releases. Its state is not used.
    if (answer.value.releaseId !== served.value.releaseId)
      return refuse('infer-not-ready', 'the release was switched');
    releaseId = answer.value.releaseId;
    carried = carry(recipe, inputs.value, answer.value.outputs);
    const shown = answer.value.outputs.filter(({ name }) => wanted.includes(name));
    return ok({ ...answer.value, outputs: shown, reset });
  };

  return {
    step: async (given, wanted) => {
      const endMs = clock.mono() + patienceMs;
      for (;;) {
        const answer = await once(given, wanted);
        if (answer.ok || !passing.has(answer.refusal.code) || clock.mono() >= endMs) return answer;
        await clock.timer(pauseMs).done;
      }
    },
  };
}

/** Outputs that a stream gives where nobody says which: all but those that are state. */
export function shownOutputs({ recipe, outputs }: Pick<ServedModel, 'recipe' | 'outputs'>): string[] {
  const state = new Set(recipe.state.map(({ output }) => output));
  return recipe.stream?.outputs ?? outputs.map(({ name }) => name).filter((name) => !state.has(name));
}

interface Shape {
  datatype: Exclude<Datatype, 'BYTES'>;
  channels: number;
  /** Of one window, without context. */
  shape: number[];
}

function shapeOf(model: ServedModel, stream: NonNullable<Recipe['stream']>): Result<Shape> {
  const declared = model.inputs.find(({ name }) => name === stream.input);
  if (declared === undefined)
    return refuse('infer-unsupported', `the manifest streams into ${stream.input}, which the model lacks`);
  const { datatype } = declared;
  const at = declared.shape.length + stream.axis;
  if (datatype === 'BYTES' || at < 0)
    return refuse('infer-unsupported', `${stream.input} cannot take a stream`);
  const shape = declared.shape.map((size) => (size < 0 ? 1 : size));
  if (shape.slice(0, at).some((size) => size !== 1))
    return refuse('infer-unsupported', `${stream.input} takes more than one stream at once`);
  shape[at] = stream.window;
  return ok({ datatype, channels: shape.slice(at + 1).reduce((a, b) => a * b, 1), shape });
}

/** Refusals: `infer-unknown-model`, `infer-unsupported` (its manifest names no stream). */
export function openStream(inference: InferenceHost, as: string, clock: Clock): Result<InferStream> {
  const served = findServed(inference, as);
  if (!served.ok) return served;
  const { stream } = served.value.recipe;
  if (stream === undefined)
    return refuse('infer-unsupported', `the manifest of ${served.value.releaseId} names no stream`);
  const first = shapeOf(served.value, stream);
  if (!first.ok) return first;
  const { datatype, channels } = first.value;
  const stepper = createStepper(inference, as, clock);
  let form = JSON.stringify([stream, first.value]);
  let shape = first.value.shape;
  let windows: Windows = createWindows({ ...stream, channels });
  let index = 0;
  let skipped = 0;

  /** A new release may cut windows otherwise; what waited is too short for either and is let go. */
  const refit = (): Result<ServedModel> => {
    const now = findServed(inference, as);
    if (!now.ok) return now;
    const of = now.value.recipe.stream;
    if (of === undefined) return refuse('infer-unsupported', `${now.value.releaseId} names no stream`);
    const next = shapeOf(now.value, of);
    if (!next.ok) return next;
    if (next.value.datatype !== datatype || next.value.channels !== channels)
      return refuse('infer-unsupported', `${now.value.releaseId} takes other samples`);
    const nextForm = JSON.stringify([of, next.value]);
    if (nextForm !== form) {
      skipped += windows.waiting();
      form = nextForm;
      shape = next.value.shape;
      windows = createWindows({ ...of, channels });
    }
    return now;
  };

  const run = async ({ start, data }: Window): Promise<Result<StreamStep>> => {
    const now = findServed(inference, as);
    if (!now.ok) return now;
    const answer = await stepper.step(
      [{ name: stream.input, datatype, shape, data }],
      shownOutputs(now.value),
    );
    if (!answer.ok) return answer;
    const { releaseId, version, reset, outputs } = answer.value;
    return ok({ index: index++, start: start + skipped, releaseId, version, reset, outputs });
  };

  return ok({
    datatype,
    channels,
    push: async (samples) => {
      const fits = refit();
      if (!fits.ok) return fits;
      const steps: StreamStep[] = [];
      for (const window of windows.push(samples)) {
        const step = await run(window);
        if (!step.ok) return step;
        steps.push(step.value);
      }
      return ok(steps);
    },
  });
}

/** Bytes of one sample. */
export const sampleBytes = ({ datatype, channels }: InferStream): number => elementBytes(datatype) * channels;
