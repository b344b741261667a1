// Why: how far two releases agree on one input, by the comparison that the manifest names.
// Trusts: tensors that were checked. Must never: call agreement what was not compared.

import { type Compare, type Comparison, comparisonAliases } from '../wire/manifest.ts';
import { halfToNumber, type Tensor } from '../wire/tensors.ts';
import { decodeDetections, detectionAgreement, imageSizeOf, inferDetections } from './detections.ts';
import { createHistogram, type Histogram, observe } from './histogram.ts';

/** Largest absolute difference of an output in one request: by decades, 1e-7 to 1e4, and 0. */
export const differenceEdges: readonly number[] = [
  0,
  ...Array.from({ length: 12 }, (_, index) => Number(`1e${index - 7}`)),
];

export interface Agreement {
  /** From 0 (no agreement) to 1; null where the outputs cannot be compared. */
  score: number | null;
  /** Why not. */
  fault: string | null;
}

/** Without a comparison in the manifest: what a re-export or another processor may change, and no more. */
const defaultCompare: Compare = { by: 'relative', tolerance: 1e-2 };
const tolerances = { exact: 0, absolute: 1e-3, relative: 1e-2, argmax: 0, 'top-k': 0, iou: 0.5 } as const;

const comparisonOf = ({ by }: Compare): Comparison =>
  by in comparisonAliases ? comparisonAliases[by as keyof typeof comparisonAliases] : (by as Comparison);

const incomparable = (fault: string): Agreement => ({ score: null, fault });

/** The numbers of a tensor as doubles; null for strings. 64-bit integers above 2^53 lose their last bits here. */
function numbersOf({ datatype, data }: Tensor): ArrayLike<number> | null {
  if (Array.isArray(data)) return null;
  if (datatype === 'FP16') return Float64Array.from(data as Uint16Array, halfToNumber);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array)
    return Array.from(data as BigInt64Array, Number);
  return data;
}

function near(a: number, b: number, by: Comparison, tolerance: number): boolean {
  if (a === b || (Number.isNaN(a) && Number.isNaN(b))) return true;
  const bound = by === 'relative' ? tolerance * Math.max(1, Math.abs(a), Math.abs(b)) : tolerance;
  return Math.abs(a - b) <= bound;
}

/** Share of elements that agree. Integers, booleans and strings must be equal. */
function elementwise(a: Tensor, b: Tensor, by: Comparison, tolerance: number): number {
  const count = a.data.length;
  if (count === 0) return 1;
  const floats = a.datatype === 'FP16' || a.datatype === 'FP32' || a.datatype === 'FP64';
  let same = 0;
  if (by === 'exact' || !floats) {
    for (let at = 0; at < count; at++) {
      const equal = a.data[at] === b.data[at];
      if (equal || (Number.isNaN(a.data[at]) && Number.isNaN(b.data[at]))) same++;
    }
    return same / count;
  }
  const [left, right] = [numbersOf(a) ?? [], numbersOf(b) ?? []];
  for (let at = 0; at < count; at++) if (near(left[at] ?? 0, right[at] ?? 0, by, tolerance)) same++;
  return same / count;
}

/** Indexes of the k largest numbers of a row. Equal ones are taken in order. */
function topOf(row: ArrayLike<number>, from: number, width: number, k: number): number[] {
  if (k === 1) {
    // Detectors have thousands of rows: this runs on the agent's event loop, where a sort for each is too long.
    let best = 0;
    for (let index = 1; index < width; index++)
      if ((row[from + index] ?? 0) > (row[from + best] ?? 0)) best = index;
    return [best];
  }
  return Array.from({ length: width }, (_, index) => index)
    .sort((a, b) => (row[from + b] ?? 0) - (row[from + a] ?? 0) || a - b)
    .slice(0, k);
}

/** Mean over rows of the last axis: the share of the k largest that both name. k = 1 is argmax. */
function topAgreement(a: Tensor, b: Tensor, k: number): number | null {
  const [left, right] = [numbersOf(a), numbersOf(b)];
  if (left === null || right === null) return null;
  const width = a.shape.at(-1) ?? 1;
  if (width === 0 || left.length === 0) return 1;
  const rows = left.length / width;
  const kept = Math.min(k, width);
  let sum = 0;
  for (let row = 0; row < rows; row++) {
    const other = new Set(topOf(right, row * width, width, kept));
    sum += topOf(left, row * width, width, kept).filter((index) => other.has(index)).length / kept;
  }
  return sum / rows;
}

function compareOne(a: Tensor, b: Tensor, compare: Compare): number | null {
  const by = comparisonOf(compare);
  const tolerance = compare.tolerance ?? tolerances[by];
  switch (by) {
    case 'argmax':
      return topAgreement(a, b, 1);
    case 'top-k':
      return topAgreement(a, b, compare.k ?? 5);
    default:
      return elementwise(a, b, by, tolerance);
  }
}

/** Outputs that the comparison looks at; all of them where it names none. */
export function comparedOutputs(compare: Compare | undefined, outputs: readonly string[]): string[] {
  if (compare === undefined) return [...outputs];
  const { output, outputs: more = [], detections } = compare;
  const named = [output, ...more, detections?.boxes, detections?.scores].filter((name) => name !== undefined);
  return named.length === 0 ? [...outputs] : [...new Set(named)];
}

/**
 * Agreement of `candidate` with `active` over the outputs that both hold: elements for `exact`, `absolute` and
 * `relative`, rows for `argmax` and `top-k`, boxes for `iou`. The mean over outputs. `inputs` tell the size of the image
 * where the manifest does not say how boxes are laid out.
 */
export function agreementOf(
  active: readonly Tensor[],
  candidate: readonly Tensor[],
  compare: Compare = defaultCompare,
  inputs: readonly Tensor[] = [],
): Agreement {
  if (compare.by === 'iou') {
    const names = new Set(
      comparedOutputs(
        compare,
        active.map(({ name }) => name),
      ),
    );
    const looked = active.filter(({ name }) => names.has(name));
    const detections = compare.detections ?? inferDetections(looked, imageSizeOf(inputs));
    if (detections === null)
      return incomparable('the outputs look like no detections; say compare.detections');
    const [left, right] = [decodeDetections(active, detections), decodeDetections(candidate, detections)];
    if (left === null || right === null)
      return incomparable('the outputs do not have the layout that compare.detections says');
    // `tolerance` is what may be missing of a full overlap.
    const iouMin = 1 - (compare.tolerance ?? tolerances.iou);
    return { score: detectionAgreement(left, right, { iouMin, scoreMin: detections.scoreMin }), fault: null };
  }
  const names = comparedOutputs(
    compare,
    active.map(({ name }) => name),
  );
  let [sum, count] = [0, 0];
  for (const name of names) {
    const a = active.find((tensor) => tensor.name === name);
    const b = candidate.find((tensor) => tensor.name === name);
    if (a === undefined || b === undefined) return incomparable(`${name}: not in both answers`);
    // Another type or shape is another answer, not a missing comparison.
    const alike = a.datatype === b.datatype && a.shape.join() === b.shape.join();
    const score = alike ? compareOne(a, b, compare) : 0;
    if (score === null) return incomparable(`${name}: ${a.datatype} has no order`);
    sum += score;
    count += 1;
  }
  return count === 0 ? incomparable('no output was compared') : { score: sum / count, fault: null };
}

/** Largest absolute difference of each output that both hold as numbers of one shape. */
export function differences(active: readonly Tensor[], candidate: readonly Tensor[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const a of active) {
    const b = candidate.find(({ name }) => name === a.name);
    if (b === undefined || a.shape.join() !== b.shape.join()) continue;
    const [left, right] = [numbersOf(a), numbersOf(b)];
    if (left === null || right === null) continue;
    let largest = 0;
    for (let at = 0; at < left.length; at++) {
      const [x, y] = [left[at] ?? 0, right[at] ?? 0];
      if (x === y || (Number.isNaN(x) && Number.isNaN(y))) continue;
      const difference = Math.abs(x - y);
      largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(largest, difference);
    }
    found.set(a.name, largest);
  }
  return found;
}

/** Adds one request's differences to the histograms of their outputs. */
export function observeDifferences(
  histograms: Map<string, Histogram>,
  found: ReadonlyMap<string, number>,
): void {
  for (const [name, difference] of found) {
    let histogram = histograms.get(name);
    if (histogram === undefined) {
      histogram = createHistogram(differenceEdges);
      histograms.set(name, histogram);
    }
    observe(histogram, difference);
  }
}
