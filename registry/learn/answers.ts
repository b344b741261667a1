// Why: what the outputs of one run say, of a model of ours or of anybody: the class, its probabilities, a number, or how
// far a row is an anomaly. Pure.
// Trusts: tensors that were checked. Must never: take an output for what its form does not show.

import { halfToNumber, type Tensor } from '../../shared/wire/tensors.ts';
import { type Matrix, matrix } from './matrix.ts';

export interface FoundAnswers {
  /** Of each row; whole numbers or texts, as the model gives them. */
  label: number[] | string[] | null;
  /** One column a class. `areShares`: none below 0, and each row sums to 1; else they are scores of another unit. */
  probabilities: (Matrix & { areShares: boolean }) | null;
  value: Float64Array | null;
  /** Of an anomaly model of ours: above 1 an anomaly. */
  score: Float64Array | null;
  /** Which rows it calls one. */
  anomaly: boolean[] | null;
  /** Outputs that fit none of these. */
  others: string[];
}

const isFloat = ({ datatype }: Tensor): boolean =>
  datatype === 'FP16' || datatype === 'FP32' || datatype === 'FP64';

/** Elements that each row has; 0 where the tensor has no part for each row. */
function widthOf({ data, shape }: Tensor, rows: number): number {
  if (rows === 0 || data.length % rows !== 0) return 0;
  const width = data.length / rows;
  // Boxes, images and sequences have more than one axis besides that of the rows.
  if (width !== 1 && width !== shape.at(-1)) return 0;
  // A model that takes rows one by one may give its answer without an axis of rows.
  return shape[0] === rows || rows === 1 ? width : 0;
}

function numbersOf({ datatype, data }: Tensor): Float64Array {
  const numbers = new Float64Array(data.length);
  for (let at = 0; at < data.length; at += 1)
    numbers[at] = datatype === 'FP16' ? halfToNumber(Number(data[at])) : Number(data[at]);
  return numbers;
}

/** Rounding of half precision over some classes. */
const sumTolerance = 5e-3;

function classesOf(tensor: Tensor, rows: number): Matrix & { areShares: boolean } {
  const columns = widthOf(tensor, rows);
  const found = { ...matrix(0, 0), rows, columns, values: numbersOf(tensor) };
  let areShares = true;
  for (let row = 0; row < rows && areShares; row += 1) {
    const own = found.values.subarray(row * columns, (row + 1) * columns);
    const sum = own.reduce((all, one) => all + one, 0);
    areShares = Math.abs(sum - 1) <= sumTolerance && own.every((one) => one >= 0);
  }
  return { ...found, areShares };
}

function labelsOf(tensor: Tensor): number[] | string[] {
  return Array.isArray(tensor.data) ? tensor.data : Array.from(numbersOf(tensor));
}

type Part = 'label' | 'probabilities' | 'value' | 'score' | 'anomaly';

/** Ours by name; of others integers or texts [n] are the label, several floats a row the probabilities, one the value. */
function partOf(tensor: Tensor, width: number): Part | null {
  if (width === 0) return null;
  const single = width === 1;
  if (tensor.name === 'score' && single && isFloat(tensor)) return 'score';
  if (tensor.name === 'anomaly' && single && tensor.datatype !== 'BYTES') return 'anomaly';
  if (!isFloat(tensor)) return single && tensor.datatype !== 'BOOL' ? 'label' : null;
  return single && tensor.name !== 'probabilities' ? 'value' : 'probabilities';
}

/**
 * What the outputs of a run over `rows` rows say. Where two outputs could be the same, the first counts, and the other
 * is among `others`. A `score` alone is a foreign model's number.
 */
export function readAnswers(outputs: readonly Tensor[], rows: number): FoundAnswers {
  const found: FoundAnswers = {
    ...{ label: null, probabilities: null, value: null, score: null, anomaly: null, others: [] },
  };
  const isOurs = outputs.some(({ name }) => name === 'anomaly');
  for (const tensor of outputs) {
    const asked = partOf(tensor, widthOf(tensor, rows));
    const part = asked === 'score' && !isOurs ? 'value' : asked;
    if (part === null || found[part] !== null) found.others.push(tensor.name);
    else if (part === 'label') found.label = labelsOf(tensor);
    else if (part === 'probabilities') found.probabilities = classesOf(tensor, rows);
    else if (part === 'anomaly') found.anomaly = Array.from(numbersOf(tensor), (one) => one !== 0);
    else found[part] = numbersOf(tensor);
  }
  return found;
}

/**
 * Which label each column of the probabilities stands for, from rows whose greatest probability and label are both
 * known; null for a column that was never the greatest. Null where a column stands for two labels: then the model
 * decides otherwise than by the greatest one.
 */
export function labelsOfColumns(
  label: readonly (number | string)[],
  probabilities: Matrix,
): (number | string | null)[] | null {
  const labels = Array<number | string | null>(probabilities.columns).fill(null);
  for (const [row, one] of label.entries()) {
    const own = probabilities.values.subarray(row * probabilities.columns, (row + 1) * probabilities.columns);
    const most = Math.max(...own);
    const best = own.indexOf(most);
    // Of two that are equal either may have been taken.
    if (best < 0 || own.lastIndexOf(most) !== best) continue;
    if (labels[best] !== null && labels[best] !== one) return null;
    labels[best] = one;
  }
  return labels;
}
