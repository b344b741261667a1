// Why: one feature of a reference profile beside what devices counted of it: distances, thresholds, a verdict.
// Trusts: profile and counts as validated. Must never: judge by too few counts, or call a dead sensor "too few".

import type { ProfileFeature } from '../wire/profile.ts';
import {
  type Association,
  type BinnedCounts,
  type Distances,
  learnedThresholds,
  verdictOf,
  verdictTerms,
} from './drift.ts';
import type { FeatureSum } from './rollup.ts';

export type DriftMeasure = 'psi' | 'js' | 'ks' | 'missing';
export type FeatureVerdict = 'ok' | 'drift' | 'too-few';

export interface SideCounts {
  /** Values that lie in a bin, the outer ones included. */
  count: number;
  missing: number;
  /** Below the first edge or above the last, or none of the values. */
  outOfRange: number;
  /** Of each bin, as the profile has them; a categorical feature's last is that of the others. */
  shares: number[];
}

export interface FeatureDrift {
  role: 'input' | 'output';
  tensor: string;
  index: number;
  of: FeatureSum['of'];
  kind: 'numeric' | 'categorical';
  verdict: FeatureVerdict;
  /** Null where there are too few counts for a word. */
  distances: Distances | null;
  /** Of a categorical feature. */
  association: Association | null;
  thresholds: { fixed: { psi: number; js: number; ks: number }; learned: Distances | null };
  /** What lies above its threshold. */
  exceeded: DriftMeasure[];
  reference: SideCounts;
  live: SideCounts;
}

/** Rise of the share of values that are missing, above which that alone is a drift. */
export const missingShareMax = 0.1;

const sum = (counts: readonly number[]): number => counts.reduce((all, one) => all + one, 0);

interface Side {
  /** With the others at the end, where the feature is categorical. */
  counts: readonly number[];
  missing: number;
}

function sideOf({ counts, missing }: Side, kind: ProfileFeature['kind']): SideCounts {
  const count = sum(counts);
  const last = counts.at(-1) ?? 0;
  return {
    count,
    missing,
    outOfRange: kind === 'numeric' ? (counts[0] ?? 0) + last : last,
    shares: counts.map((one) => (count === 0 ? 0 : one / count)),
  };
}

const missingShare = ({ count, missing }: SideCounts): number =>
  missing === 0 ? 0 : missing / (count + missing);

/** A profile's chunks do not change, and a profile is asked again each minute. */
const learnedOf = new WeakMap<ProfileFeature, Distances | null>();
function thresholdsOf(feature: ProfileFeature): Distances | null {
  const known = learnedOf.get(feature);
  if (known !== undefined) return known;
  const found = learnedThresholds(feature);
  learnedOf.set(feature, found);
  return found;
}

/** Of a feature of which nothing was counted, or in other bins than the profile's, nothing is known: `too-few`. */
export function featureDrift(feature: ProfileFeature, live: FeatureSum | undefined): FeatureDrift {
  const { role, tensor, index, kind } = feature;
  const numeric = kind === 'numeric';
  const fits = live !== undefined && live.counts.length === feature.counts.length;
  const none = feature.counts.map(() => 0);
  const counted = fits ? live : { counts: none, missing: 0, other: 0 };
  const reference: Side = {
    counts: numeric ? feature.counts : [...feature.counts, feature.other],
    missing: feature.missing,
  };
  const now: Side = {
    counts: numeric ? counted.counts : [...counted.counts, counted.other],
    missing: counted.missing,
  };
  const sides = { reference: sideOf(reference, kind), live: sideOf(now, kind) };
  const learned = thresholdsOf(feature);
  const { psi, js, ks, countMin } = verdictTerms;
  const found = verdictOf(binned(feature, reference), binned(feature, now), learned);
  const exceeded: DriftMeasure[] = [...found.exceeded];
  // Of a sensor that died there are no values to compare; that there are none is the change.
  const isLost = missingShare(sides.live) - missingShare(sides.reference) > missingShareMax;
  if (isLost && sides.live.count + sides.live.missing >= countMin) exceeded.push('missing');
  return {
    ...{ role, tensor, index, of: feature.of ?? 'value', kind, ...sides },
    verdict: exceeded.length > 0 ? 'drift' : found.verdict,
    distances: found.distances,
    association: found.association,
    thresholds: { fixed: { psi, js, ks }, learned },
    exceeded,
  };
}

function binned(feature: ProfileFeature, { counts }: Side): BinnedCounts {
  return feature.kind === 'numeric'
    ? { kind: 'numeric', edges: feature.edges, counts }
    : { kind: 'categorical', counts };
}
