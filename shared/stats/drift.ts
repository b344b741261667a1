// Why: how far what is counted now lies from what was counted where a release was made, from counts in equal bins.
// Trusts: its callers for counts of one feature and for edges that rise. Must never: need a measured value, or give a
// number that is not finite.

import type { ProfileFeature } from '../wire/profile.ts';

/** Numeric: under, one count for each bin between two edges, over. Categorical: one for each value, then the others. */
export type BinnedCounts =
  | { kind: 'numeric'; edges: readonly number[]; counts: readonly number[] }
  | { kind: 'categorical'; counts: readonly number[] };

export interface Distances {
  /** Population stability index, smoothed by half a count in each bin. */
  psi: number;
  /** Jensen-Shannon divergence in bits, 0 to 1. */
  js: number;
  /** Kolmogorov-Smirnov: the greatest difference of the cumulative shares at the edges, 0 to 1; categorical: in the values' order. */
  ks: number;
  /** Between the first and the last edge, in the feature's unit; null where it has none. */
  wasserstein: number | null;
}

const total = (counts: readonly number[]): number => counts.reduce((sum, one) => sum + one, 0);

/** Half a count in each bin (Jeffreys): an empty bin says "rare", not "impossible", which would be infinitely far. */
const smoothing = 0.5;

function psiOf(reference: readonly number[], live: readonly number[]): number {
  const bins = reference.length;
  const sums = [total(reference), total(live)].map((sum) => sum + smoothing * bins);
  return reference.reduce((psi, count, at) => {
    const p = (count + smoothing) / (sums[0] as number);
    const q = ((live[at] ?? 0) + smoothing) / (sums[1] as number);
    return psi + (q - p) * Math.log(q / p);
  }, 0);
}

function sharesOf(counts: readonly number[]): number[] {
  const sum = total(counts);
  return counts.map((count) => (sum === 0 ? 0 : count / sum));
}

function jsOf(p: readonly number[], q: readonly number[]): number {
  let js = 0;
  for (const [at, one] of p.entries()) {
    const other = q[at] ?? 0;
    const middle = (one + other) / 2;
    if (one > 0) js += (one / 2) * Math.log2(one / middle);
    if (other > 0) js += (other / 2) * Math.log2(other / middle);
  }
  return Math.min(1, Math.max(0, js));
}

/** Area under the amount of a line that goes from one height to another. */
function areaUnder(from: number, to: number, width: number): number {
  const [a, b] = [Math.abs(from), Math.abs(to)];
  if (from * to >= 0) return ((a + b) / 2) * width;
  return ((a * a + b * b) / (2 * (a + b))) * width;
}

/**
 * Inside a bin values count as spread evenly, so that what is given for `wasserstein` differs from the measured
 * values' own by at most the widths of the bins that they lie in. Of sides without a count all distances but psi are
 * those of nothing: ask for a minimum before.
 */
export function distances(reference: BinnedCounts, live: BinnedCounts): Distances {
  const [p, q] = [sharesOf(reference.counts), sharesOf(live.counts)];
  const edges = reference.kind === 'numeric' ? reference.edges : [];
  let ks = 0;
  let wasserstein = 0;
  let below = 0;
  for (const [at, share] of p.entries()) {
    const before = below;
    below += (q[at] ?? 0) - share;
    ks = Math.max(ks, Math.abs(below));
    // Counts begin with what is under the first edge: count n stands between the edges n - 1 and n.
    const [left, right] = [edges[at - 1], edges[at]];
    if (left !== undefined && right !== undefined) wasserstein += areaUnder(before, below, right - left);
  }
  return {
    psi: psiOf(reference.counts, live.counts),
    js: jsOf(p, q),
    ks: Math.min(1, ks),
    wasserstein: reference.kind === 'numeric' ? wasserstein : null,
  };
}

export interface Association {
  /** Pearson's statistic, uncorrected, over the values that either side has. */
  chiSquare: number;
  degreesOfFreedom: number;
  /** Effect size, 0 to 1: unlike the statistic it does not grow with the number of rows. */
  cramersV: number;
}

/** Two rows of counts as a contingency table; null where it has no two rows and two columns. */
export function association(reference: readonly number[], live: readonly number[]): Association | null {
  const columns = reference
    .map((count, at) => [count, live[at] ?? 0] as const)
    .filter(([one, other]) => one + other > 0);
  const [a, b] = [total(reference), total(live)];
  if (a === 0 || b === 0 || columns.length < 2) return null;
  const all = a + b;
  let chiSquare = 0;
  for (const [one, other] of columns) {
    const expected = [((one + other) * a) / all, ((one + other) * b) / all] as const;
    chiSquare += (one - expected[0]) ** 2 / expected[0] + (other - expected[1]) ** 2 / expected[1];
  }
  // Two rows: the smaller side of the table less one is one.
  return {
    chiSquare,
    degreesOfFreedom: columns.length - 1,
    cramersV: Math.min(1, Math.sqrt(chiSquare / all)),
  };
}

/** Fewer parts of a reference do not tell how much it varies by itself. */
const chunksMin = 8;

/**
 * Mean and three standard deviations of the distance of each of the reference's chunks from the rest of them: what
 * lies above it is more than the reference did by itself. Null below eight chunks with a count.
 */
export function learnedThresholds(feature: ProfileFeature): Distances | null {
  const bins = feature.counts.length + (feature.kind === 'numeric' ? 0 : 1);
  const chunks = feature.chunks.filter((chunk) => total(chunk) > 0);
  if (chunks.length < chunksMin) return null;
  const binned = (counts: number[]): BinnedCounts =>
    feature.kind === 'numeric'
      ? { kind: 'numeric', edges: feature.edges, counts }
      : { kind: 'categorical', counts };
  const at = (chunk: readonly number[]): number[] =>
    Array.from({ length: bins }, (_, bin) => chunk[bin] ?? 0);
  const whole = Array<number>(bins).fill(0);
  for (const chunk of chunks)
    for (const [bin, count] of chunk.entries()) whole[bin] = (whole[bin] ?? 0) + count;
  const found = chunks.map((chunk) => {
    const own = at(chunk);
    return distances(binned(whole.map((count, bin) => count - (own[bin] ?? 0))), binned(own));
  });
  return {
    psi: boundOf(found.map(({ psi }) => psi)),
    js: boundOf(found.map(({ js }) => js)),
    ks: boundOf(found.map(({ ks }) => ks)),
    wasserstein:
      feature.kind === 'numeric' ? boundOf(found.map(({ wasserstein }) => wasserstein ?? 0)) : null,
  };
}

function boundOf(values: readonly number[]): number {
  const mean = total(values) / values.length;
  const variance = total(values.map((one) => (one - mean) ** 2)) / (values.length - 1);
  return mean + 3 * Math.sqrt(variance);
}

/** Fixed thresholds, and how many values either side must have before they mean anything. */
export interface VerdictTerms {
  countMin: number;
  psi: number;
  js: number;
  ks: number;
}

export const verdictTerms: VerdictTerms = {
  /** With fewer, samples of one distribution lie as far apart as the thresholds. */
  countMin: 100,
  /** By convention: above 0.1 a moderate change of a population, above 0.25 a large one (Siddiqi 2006). */
  psi: 0.25,
  js: 0.1,
  ks: 0.2,
};

export interface Verdict {
  verdict: 'ok' | 'drift' | 'too-few';
  /** Null where there are too few counts for a word. */
  distances: Distances | null;
  /** Of a categorical feature. */
  association: Association | null;
  exceeded: ('psi' | 'js' | 'ks')[];
}

/**
 * A distance tells of a change where it is above its fixed threshold, which small effects do not reach however many
 * rows show them, and above what the reference does by itself.
 */
export function verdictOf(
  reference: BinnedCounts,
  live: BinnedCounts,
  learned: Distances | null,
  terms: VerdictTerms = verdictTerms,
): Verdict {
  if (total(reference.counts) < terms.countMin || total(live.counts) < terms.countMin)
    return { verdict: 'too-few', distances: null, association: null, exceeded: [] };
  const found = distances(reference, live);
  const exceeded = (['psi', 'js', 'ks'] as const).filter(
    (measure) => found[measure] > Math.max(terms[measure], learned?.[measure] ?? 0),
  );
  return {
    verdict: exceeded.length > 0 ? 'drift' : 'ok',
    distances: found,
    association: reference.kind === 'categorical' ? association(reference.counts, live.counts) : null,
    exceeded,
  };
}
