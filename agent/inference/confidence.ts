// Why: how sure an answer is, in one number. Pure.
// Trusts: tensors that were checked. Must never: call something a confidence that nobody said is one, but for the one
// shape that classifiers have.

import { halfToNumber, type Tensor } from '../../shared/wire/tensors.ts';

export interface Confidence {
  /** 0 … 1. */
  value: number;
  /** The output that it comes from. */
  output: string;
}

/** Rows of a batch that are looked at, and classes of one row. */
const rowsMax = 64;
const widthMax = 100_000;
/** How far from 1 the sum of what counts as a distribution may lie: single precision, half precision's worst. */
const sumOff = 0.01;

/**
 * The greatest element of the output of which the profile counts `max` (`named`). Without one: of the only float output,
 * where it is a row of classes or a batch of them; of a row that is no distribution its softmax. Of a batch the least
 * sure row. A row with NaN is not sure at all.
 */
export function confidenceOf(outputs: readonly Tensor[], named: string | null): Confidence | null {
  const output = named === null ? onlyRows(outputs) : outputs.find(({ name }) => name === named);
  if (output === undefined || output === null || Array.isArray(output.data)) return null;
  const width = output.shape.at(-1) ?? 1;
  if (width < 1 || width > widthMax || output.data.length < width) return null;
  const rows = Math.min(rowsMax, Math.floor(output.data.length / width));
  let least = 1;
  for (let row = 0; row < rows; row += 1)
    least = Math.min(least, ofRow(output, row * width, width, named !== null));
  return { value: least, output: output.name };
}

function onlyRows(outputs: readonly Tensor[]): Tensor | null {
  const floats = outputs.filter(({ datatype }) => /^FP/.test(datatype));
  const [only] = floats;
  if (only === undefined || floats.length > 1) return null;
  const { shape } = only;
  return (shape.length === 1 || shape.length === 2) && (shape.at(-1) ?? 1) > 1 ? only : null;
}

function ofRow(tensor: Tensor, start: number, width: number, asItIs: boolean): number {
  let [most, sum] = [Number.NEGATIVE_INFINITY, 0];
  let isShare = true;
  for (let at = start; at < start + width; at += 1) {
    const value = valueAt(tensor, at);
    if (Number.isNaN(value)) return 0;
    if (value > most) most = value;
    if (value < 0) isShare = false;
    sum += value;
  }
  if (asItIs || (isShare && Math.abs(sum - 1) < sumOff)) return Math.min(1, Math.max(0, most));
  let over = 0;
  for (let at = start; at < start + width; at += 1) over += Math.exp(valueAt(tensor, at) - most);
  return Number.isNaN(over) ? 0 : 1 / over;
}

function valueAt({ datatype, data }: Tensor, at: number): number {
  const value = Number(data[at]);
  return datatype === 'FP16' ? halfToNumber(value) : value;
}
