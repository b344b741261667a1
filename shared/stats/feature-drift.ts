// Why: one feature of a reference profile beside what devices counted of it: distances, thresholds, a verdict.
// Trusts: profile and counts as validated. Must never: judge by too few counts, or call a dead sensor "too few".

import type { ProfileFeature } from '../wire/profile.ts';
import { type BinnedCounts, type Distances, distances, learnedThresholds } from './drift.ts';
import { type FeatureSum, featureKey } from './rollup.ts';

export type DriftMeasure = 'psi' | 'js' | 'ks' | 'wasserstein' | 'missing';
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
  thresholds: { fixed: { psi: number; js: number; ks: number }; learned: Distances | null };
  /** What lies above its threshold. */
  exceeded: DriftMeasure[];
  reference: SideCounts;
  live: SideCounts;
}

export const driftTerms = {
  /** Values of each side that a verdict needs. With fewer the distances of equal distributions reach the thresholds. */
  countMin: 100,
  /** By convention: 0.1 to 0.25 is a moderate change of the population, above it a large one (Siddiqi 2006). */
  psi: 0.25,
  /** Bits. What two normal distributions are apart whose means differ by three quarters of their deviation. */
  js: 0.1,
  ks: 0.2,
  /** Rise of the share of values that are missing. */
  missingShare: 0.1,
} as const;

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
const learned = new WeakMap<ProfileFeature, Distances | null>();
function thresholdsOf(feature: ProfileFeature): Distances | null {
  const known = learned.get(feature);
  if (known !== undefined) return known;
  const found = learnedThresholds(feature);
  learned.set(feature, found);
  return found;
}

/** Above the fixed threshold and above what the reference itself does: either alone tells of no change. */
function exceededBy(found: Distances, own: Distances | null): DriftMeasure[] {
  const exceeded: DriftMeasure[] = [];
  for (const measure of ['psi', 'js', 'ks'] as const)
    if (found[measure] > Math.max(driftTerms[measure], own?.[measure] ?? 0)) exceeded.push(measure);
  return exceeded;
}

/** Null where nothing was counted of the feature, or in other bins than the profile's. */
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
  const own = thresholdsOf(feature);
  const { psi, js, ks, countMin } = driftTerms;
  const head = { role, tensor, index, of: measureOf(feature), kind, ...sides };
  const thresholds = { fixed: { psi, js, ks }, learned: own };
  const isLost = missingShare(sides.live) - missingShare(sides.reference) > driftTerms.missingShare;
  const enough = sides.live.count >= countMin && sides.reference.count >= countMin;
  const found = enough ? distances(binned(feature, reference), binned(feature, now)) : null;
  const exceeded = found === null ? [] : exceededBy(found, own);
  // Of a sensor that died there are no values to compare; that there are none is the change.
  if (isLost && sides.live.count + sides.live.missing >= countMin) exceeded.push('missing');
  const verdict = exceeded.length > 0 ? 'drift' : found === null ? 'too-few' : 'ok';
  return { ...head, verdict, distances: found, thresholds, exceeded };
}

function binned(feature: ProfileFeature, { counts }: Side): BinnedCounts {
  return feature.kind === 'numeric'
    ? { kind: 'numeric', edges: feature.edges, counts }
    : { kind: 'categorical', counts };
}

function measureOf(feature: ProfileFeature): FeatureSum['of'] {
  return 'of' in feature && (feature.of === 'argmax' || feature.of === 'max') ? feature.of : 'value';
}

export function profileKey(feature: ProfileFeature): string {
  return featureKey({ ...feature, of: measureOf(feature) });
}
