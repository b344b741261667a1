// Why: whether a tensor is a base tensor times one number, or times one for each channel, as when a normalisation is
// folded into weights anew. Trusts: nothing; what it finds is judged. Must never: find numbers for tensors so short
// that the numbers cost more.

import { countOf, type FileTensor, numbersOf } from './tensors.ts';

/** A number for fewer elements than this saves nothing. */
const elementsPerScaleMin = 16;

export interface Scaling {
  inner: number;
  scales: Float32Array;
}

/** One scale for all, and one for each channel of the first axis. */
export function scalingsOf(base: FileTensor, target: FileTensor): Scaling[] {
  const from = numbersOf(base);
  const to = numbersOf(target);
  const count = countOf(target);
  if (from === null || to === null || from.length !== count) return [];
  const [channels = 1] = target.dims;
  const found: Scaling[] = [];
  for (const rows of channels === 1 ? [1] : [1, channels]) {
    const inner = Math.floor(count / rows);
    if (inner < elementsPerScaleMin || inner * rows !== count) continue;
    const scales = Float32Array.from({ length: rows }, (_, row) => quotient(from, to, row * inner, inner));
    if (scales.every((scale) => Number.isFinite(scale))) found.push({ inner, scales });
  }
  return found;
}

/** Of the greatest element, whose quotient has the least error. */
function quotient(from: Float64Array, to: Float64Array, start: number, count: number): number {
  let greatest = start;
  for (let at = start; at < start + count; at++)
    if (Math.abs(from[at] as number) > Math.abs(from[greatest] as number)) greatest = at;
  return from[greatest] === 0 ? 1 : (to[greatest] as number) / (from[greatest] as number);
}
