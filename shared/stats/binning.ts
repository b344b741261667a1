// Why: which count of a profile's feature a value belongs to: one rule for whoever makes a profile and whoever counts.
// Trusts: its callers for edges that rise. Must never: keep a value, or let a faster way to a bin lead to another one.

export interface Bins {
  readonly edges: Float64Array;
  /** Bins in one unit where all are about equally wide, which is where a value's bin can be guessed; else 0. */
  readonly perUnit: number;
}

export function binsOf(values: readonly number[]): Bins {
  const edges = Float64Array.from(values);
  const first = edges[0] ?? 0;
  const bins = edges.length - 1;
  const perUnit = bins / ((edges[bins] ?? 0) - first);
  const isEven = edges.every((edge, at) => Math.abs((edge - first) * perUnit - at) < 0.01);
  return { edges, perUnit: isEven && Number.isFinite(perUnit) ? perUnit : 0 };
}

/** Place among under, [e0, e1) … [en-1, en], over. NaN has no place: look for it before. */
export function binOf({ edges, perUnit }: Bins, value: number): number {
  const last = edges.length - 1;
  const first = edges[0] as number;
  if (value < first) return 0;
  if (value >= (edges[last] as number)) return value === edges[last] ? last : last + 1;
  if (perUnit === 0) return search(edges, value);
  // Off by one at most, by rounding or an edge that stands a little aside.
  const guess = Math.min(last, Math.trunc((value - first) * perUnit) + 1);
  if (value < (edges[guess - 1] as number)) return guess - 1;
  return value >= (edges[guess] as number) ? guess + 1 : guess;
}

function search(edges: Float64Array, value: number): number {
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((edges[middle] as number) <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}
