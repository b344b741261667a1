// Why: which elements of a tensor a feature of a profile is about, and what is counted there: one rule for whoever makes
// a profile and whoever counts into its bins. Pure.
// Trusts: tensors that were checked. Must never: copy a tensor, or call one NaN a class.

import { halfToNumber, numberToHalf, type Tensor, type TensorData } from '../wire/tensors.ts';

export type Value = string | number | boolean;

/** Places of one tensor that are looked at for one feature of one request; of more, some that are spread over all. */
export const placesMax = 64;

/** Elements on the last axis. `isList`: a tensor with one value for each row and no axis of its own, as labels are. */
export const widthOf = (shape: readonly number[], isList: boolean): number =>
  isList ? 1 : (shape.at(-1) ?? 1);

/** Of a batch each row is one; what has a single axis that is no list, or none, is one. */
export function rowsOf(
  first: Pick<Tensor, 'name' | 'shape'> | undefined,
  lists: ReadonlySet<string>,
): number {
  if (first === undefined) return 1;
  return first.shape.length < 2 && !lists.has(first.name) ? 1 : (first.shape[0] ?? 1);
}

/** Names of the lists among inputs and outputs: one free dimension and no other. */
export function listsOf(signatures: readonly { name: string; shape: readonly number[] }[]): Set<string> {
  const lists = signatures.filter(({ shape }) => shape.length === 1 && shape[0] === -1);
  return new Set(lists.map(({ name }) => name));
}

export function valueAt(data: TensorData, datatype: Tensor['datatype'], at: number): Value {
  const value = data[at];
  if (typeof value === 'bigint') return Number(value);
  if (typeof value !== 'number') return value ?? Number.NaN;
  if (datatype === 'FP16') return halfToNumber(value);
  return datatype === 'BOOL' ? value !== 0 : value;
}

/** The first greatest element's place in the data; -1 where all of them are NaN: no class is not the first one. */
export function greatest(
  data: TensorData,
  datatype: Tensor['datatype'],
  start: number,
  width: number,
): number {
  let best = -1;
  let most = Number.NEGATIVE_INFINITY;
  for (let at = start; at < start + width; at += 1) {
    const value = Number(valueAt(data, datatype, at));
    if (value > most || (best < 0 && value === most)) {
      most = value;
      best = at;
    }
  }
  return best;
}

/** A value as the profile has it, and as tensors of single or half precision hold it. */
export function placesOf(values: readonly Value[]): Map<Value, number> {
  const places = new Map(values.map((value, place) => [value, place]));
  for (const [place, value] of values.entries()) {
    if (typeof value !== 'number') continue;
    for (const stored of [Math.fround(value), halfToNumber(numberToHalf(value))])
      if (!places.has(stored)) places.set(stored, place);
  }
  return places;
}

/** A profile may spell a boolean as 0 or 1. */
export function placeOf(places: ReadonlyMap<Value, number>, value: Value): number | undefined {
  return places.get(value) ?? (value === true || value === false ? places.get(Number(value)) : undefined);
}
