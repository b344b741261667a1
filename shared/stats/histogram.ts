// Why: counts on fixed edges: what many devices measured adds up, which percentiles do not.
// Trusts: its caller for edges that rise. Must never: keep a measured value.

export interface Histogram {
  /** Upper bounds, rising; bucket i holds values ≤ edges[i] and above the edge before it. */
  readonly edges: readonly number[];
  /** One more than edges: the last counts what is above all of them, and NaN. */
  readonly counts: number[];
  count: number;
  sum: number;
}

export function createHistogram(edges: readonly number[]): Histogram {
  return { edges, counts: Array<number>(edges.length + 1).fill(0), count: 0, sum: 0 };
}

export function observe(histogram: Histogram, value: number): void {
  const { edges, counts } = histogram;
  let low = 0;
  let high = edges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (value <= (edges[middle] as number)) high = middle;
    else low = middle + 1;
  }
  counts[low] = (counts[low] as number) + 1;
  histogram.count += 1;
  if (Number.isFinite(value)) histogram.sum += value;
}

/** Adds `other`, which must have the same edges, into `into`. */
export function mergeHistogram(into: Histogram, other: Histogram): void {
  for (const [index, count] of other.counts.entries())
    into.counts[index] = (into.counts[index] as number) + count;
  into.count += other.count;
  into.sum += other.sum;
}

/** Upper bound of the bucket in which the quantile lies; null where nothing was observed, Infinity above all edges. */
export function quantileBound(histogram: Histogram, fraction: number): number | null {
  if (histogram.count === 0) return null;
  let left = Math.max(1, Math.ceil(histogram.count * fraction));
  for (const [index, count] of histogram.counts.entries()) {
    left -= count;
    if (left <= 0) return histogram.edges[index] ?? Number.POSITIVE_INFINITY;
  }
  return Number.POSITIVE_INFINITY;
}
