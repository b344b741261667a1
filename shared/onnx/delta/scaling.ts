// Why: whether a tensor is a base tensor times one number, or times one for each channel, as when a normalisation is
// folded into weights anew. Trusts: nothing; what it finds is judged. Must never: find numbers for tensors so short
// that the numbers cost more.

import { countOf, type FileTensor, numbersOf } from './tensors.ts';

/** A number for fewer elements than this saves nothing. */
const elementsPerScaleMin = 16;

const placesLookedAt = 24;
const quotientTolerance = 1e-3;

export interface Scaling {
  inner: number;
  scales: Float32Array;
}

/** One scale for all, and one for each channel of the first axis. */
export function scalingsOf(base: FileTensor, target: FileTensor): Scaling[] {
  if (!looksScaled(base, target)) return [];
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

/** At some places neighbours have nearly the same quotient. Spares a pass over tensors that have not. */
function looksScaled(base: FileTensor, target: FileTensor): boolean {
  const count = countOf(target);
  const width = target.length / count;
  let same = 0;
  let seen = 0;
  for (let place = 0; place < placesLookedAt; place++) {
    const from = Math.floor((place / placesLookedAt) * (count - 1));
    const pair = [base, target].map((tensor) => {
      const bytes = tensor.bytes.subarray(from * width, (from + 2) * width);
      return numbersOf({ ...tensor, bytes, length: bytes.length });
    });
    const [[a = 0, b = 0] = [], [c = 0, d = 0] = []] = pair.map((numbers) => numbers ?? []);
    if (a === 0 || b === 0) continue;
    seen += 1;
    if (Math.abs(c / a - d / b) <= Math.abs(c / a) * quotientTolerance) same += 1;
  }
  return same * 2 >= seen;
}

/** Of the greatest element, whose quotient has the least error. */
function quotient(from: Float64Array, to: Float64Array, start: number, count: number): number {
  let greatest = start;
  for (let at = start; at < start + count; at++)
    if (Math.abs(from[at] as number) > Math.abs(from[greatest] as number)) greatest = at;
  return from[greatest] === 0 ? 1 : (to[greatest] as number) / (from[greatest] as number);
}
