// Why: the reference profile of a model that was trained here, from its training part. Pure.
// Trusts: a finished training. Must never: look at the test part: what comes later is compared with this.

import type { TensorSignature } from '../../shared/wire/manifest.ts';
import type { Profile } from '../../shared/wire/profile.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { inputTensors, outputTensors } from './model-tensors.ts';
import { answersOf, examplesAt, type Training } from './pipeline.ts';
import { chooseFeatures, createProfileMaker } from './profile-making.ts';
import { spaced } from './rows.ts';

/** Numbers that are looked at: windows are many numbers each, and distributions are known long before. */
const numbersMax = 2_000_000;
const rowsAtOnce = 1_024;

const signatureOf = ({ name, datatype, shape }: Tensor): TensorSignature => ({
  name,
  datatype,
  shape: [-1, ...shape.slice(1)],
});

export function profileOf({ laid, recipe, model }: Training): Profile {
  const width = (laid.chosen.numeric.length + laid.chosen.categories.length) * (recipe.window ?? 1);
  const rows = spaced(laid.split.train, Math.floor(numbersMax / width));
  const batchOf = (from: number) => {
    const examples = examplesAt(laid, recipe, rows.subarray(from, from + rowsAtOnce));
    return { inputs: inputTensors(examples), outputs: outputTensors(answersOf(model, examples), model.head) };
  };
  const first = batchOf(0);
  const signatures = { inputs: first.inputs.map(signatureOf), outputs: first.outputs.map(signatureOf) };
  const { features } = chooseFeatures(signatures, first);
  const maker = createProfileMaker({ ...signatures, features, rows: rows.length });
  for (let from = 0; from < rows.length; from += rowsAtOnce) {
    const { inputs, outputs } = batchOf(from);
    maker.add(inputs, outputs);
  }
  return maker.finish();
}
