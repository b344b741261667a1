// Why: one training in a process of its own, so that neither side has a warm one. Trusts: its parent for the files.
// Must never: be timed with anything but the training.

import { readFileSync } from 'node:fs';
import { parseRecipe } from '../../registry/learn/recipe.ts';
import { trainNetwork } from '../../registry/learn/training.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';

const [columns = 1, hidden = '', epochs = 1, batch = 1] = process.argv
  .slice(2)
  .map((text, at) => (at === 1 ? text : Number(text)));
const doubles = (file: string): Float64Array => {
  const bytes = readFileSync(file);
  return new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};
const values = doubles('x.f64');
const x = { rows: values.length / Number(columns), columns: Number(columns), values };
const y = Int32Array.from(doubles('y.f64'));
const recipe = unwrap(
  parseRecipe({
    ...{ target: 'y', task: 'classification', patience: null, epochs: Number(epochs), batch: Number(batch) },
    hidden: String(hidden).split(',').map(Number),
  }),
);
const startMs = systemClock.mono();
unwrap(await trainNetwork({ recipe, train: { x, y }, validation: null, classes: 2 }));
process.stdout.write(String((systemClock.mono() - startMs) / 1_000));
