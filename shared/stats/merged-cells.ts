// Why: cells of many regions and days as one view of a release: sums, percentiles of merged classes, drift of merged counts.
// Trusts: its caller for cells whose signatures were checked. Must never: guess what a cell does not tell.

import type { CellFeature, CellStatement, MergedCells, MergedFeature } from '../wire/cells.ts';
import { type EnergyMethod, energySources } from '../wire/energy.ts';
import type { Profile, ProfileFeature } from '../wire/profile.ts';
import { type BinnedCounts, distances, verdictTerms } from './drift.ts';
import { missingShareMax } from './feature-drift.ts';
import { featureKey } from './rollup.ts';
import { createSketch, mergeSketch, type Sketch, sketchQuantile } from './sketch.ts';

export interface ProfileOf {
  sha256: string;
  profile: Pick<Profile, 'features'>;
}

/** Counts of one feature over cells: by itself each bin that every cell tells by itself, the others as one. */
interface MergedCounts {
  /** Null: in the pool. */
  bins: (number | null)[];
  missing: number | null;
  pooled: number;
}

/** With the others at the end, as the drift of a categorical feature has them. */
function binsOf(feature: CellFeature, kind: ProfileFeature['kind']): MergedCounts {
  const bins = kind === 'numeric' ? feature.counts : [...feature.counts, feature.other];
  return { bins, missing: feature.missing, pooled: feature.pooled };
}

function mergeCounts(one: MergedCounts, other: MergedCounts): MergedCounts {
  let pooled = one.pooled + other.pooled;
  const both = (a: number | null, b: number | null): number | null => {
    if (a !== null && b !== null) return a + b;
    pooled += (a ?? 0) + (b ?? 0);
    return null;
  };
  const bins = one.bins.map((count, at) => both(count, other.bins[at] ?? null));
  const missing = both(one.missing, other.missing);
  return { bins, missing, pooled };
}

/**
 * Pooling the same bins on both sides hides differences and makes none, so that a drift that is said is one. A pool may hold
 * missing values: then the reference's are pooled as well.
 */
function pooledCounts(
  feature: ProfileFeature,
  merged: MergedCounts,
): { reference: BinnedCounts; live: BinnedCounts } {
  const all = feature.kind === 'numeric' ? feature.counts : [...feature.counts, feature.other];
  const told = merged.bins.flatMap((count, at) => (count === null ? [] : [[all[at] ?? 0, count] as const]));
  const hidden = merged.bins.some((count) => count === null) || merged.missing === null;
  const rest = merged.bins.reduce<number>((sum, count, at) => sum + (count === null ? (all[at] ?? 0) : 0), 0);
  const restReference = rest + (merged.missing === null ? feature.missing : 0);
  const side = (which: 0 | 1, pool: number): BinnedCounts => ({
    kind: 'categorical',
    counts: [...told.map((pair) => pair[which]), ...(hidden ? [pool] : [])],
  });
  return { reference: side(0, restReference), live: side(1, merged.pooled) };
}

const rounded = (value: number): number => Math.round(value * 10_000) / 10_000;
const total = (counts: readonly number[]): number => counts.reduce((sum, one) => sum + one, 0);

function mergedFeature(feature: ProfileFeature, cells: readonly CellFeature[]): MergedFeature {
  const { role, tensor, index, kind } = feature;
  const bins = feature.counts.length;
  const fitting = cells.filter(({ counts }) => counts.length === bins).map((one) => binsOf(one, kind));
  const [first, ...others] = fitting;
  const binsAll = bins + (kind === 'numeric' ? 0 : 1);
  const threshold = verdictTerms.psi;
  const about = { role, tensor, index, of: feature.of ?? ('value' as const), threshold, binsAll };
  const none = { verdict: 'too-few' as const, psi: null, js: null, count: 0, missing: 0, bins: 0 };
  if (first === undefined) return { ...about, ...none };
  const merged = others.reduce(mergeCounts, first);
  const { reference, live } = pooledCounts(feature, merged);
  const count = total(live.counts);
  const known = {
    ...about,
    count,
    missing: merged.missing,
    bins: merged.bins.filter((one) => one !== null).length,
  };
  // Of a sensor that died there are no values to compare; that there are none is the change.
  const lost = isLost(feature, merged);
  const { countMin } = verdictTerms;
  if (count < countMin || total(reference.counts) < countMin)
    return { ...known, psi: null, js: null, verdict: lost ? 'drift' : 'too-few' };
  const { psi, js } = distances(reference, live);
  const drifts = lost || psi > verdictTerms.psi || js > verdictTerms.js;
  return { ...known, psi: rounded(psi), js: rounded(js), verdict: drifts ? 'drift' : 'ok' };
}

function isLost(feature: ProfileFeature, { bins, missing, pooled }: MergedCounts): boolean {
  if (missing === null) return false;
  const values = pooled + total(bins.map((count) => count ?? 0));
  const reference = total(feature.counts) + (feature.kind === 'numeric' ? 0 : feature.other);
  const share = (lost: number, all: number): number => (lost === 0 ? 0 : lost / (lost + all));
  return (
    values + missing >= verdictTerms.countMin &&
    share(missing, values) - share(feature.missing, reference) > missingShareMax
  );
}

function latencyOf(cells: readonly CellStatement[]): MergedCells['latencyMs'] {
  const sketch = createSketch();
  for (const { latency } of cells) {
    if (latency === null) continue;
    const counts = new Map(latency);
    const one: Sketch = { counts, count: total([...counts.values()]), max: Number.POSITIVE_INFINITY };
    mergeSketch(sketch, one);
  }
  if (sketch.count === 0) return null;
  const quantile = (fraction: number): number =>
    Number((sketchQuantile(sketch, fraction) ?? 0).toPrecision(3));
  return { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99) };
}

function energyOf(cells: readonly CellStatement[]): MergedCells['energy'] {
  const sums = new Map<EnergyMethod, { joules: number; weight: number }>();
  for (const { answered, energy } of cells)
    for (const { method, joulesPer1000 } of energy) {
      const sum = sums.get(method) ?? { joules: 0, weight: 0 };
      const weight = answered ?? 0;
      sums.set(method, { joules: sum.joules + joulesPer1000 * weight, weight: sum.weight + weight });
    }
  return [...sums]
    .filter(([, { weight }]) => weight > 0)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([method, { joules, weight }]) => ({
      ...{ method, source: energySources[method] },
      joulesPer1000: Number((joules / weight).toPrecision(3)),
    }));
}

/** Over regions the most devices that one of its days tells: a device is in one region, and in many days. */
function devicesOf(cells: readonly CellStatement[]): number {
  const most = new Map<string, number>();
  for (const { region, devicesAtLeast } of cells)
    most.set(region, Math.max(most.get(region) ?? 0, devicesAtLeast));
  return total([...most.values()]);
}

/** Of cells of one subject. Null where there is none. `profile`: of the release; null where it has none. */
export function mergeCells(cells: readonly CellStatement[], profile: ProfileOf | null): MergedCells | null {
  const [first] = cells;
  if (first === undefined) return null;
  const { kind, subject } = first;
  const days = cells.map(({ day }) => day);
  const errors = new Map<string, number>();
  for (const cell of cells)
    for (const [code, count] of Object.entries(cell.errors ?? {}))
      errors.set(code, (errors.get(code) ?? 0) + count);
  const counted = cells.filter(
    ({ features }) => features !== null && features.profileSha256 === profile?.sha256,
  );
  const byKey = new Map<string, CellFeature[]>();
  for (const { features } of counted)
    for (const feature of features?.features ?? [])
      byKey.set(featureKey(feature), [...(byKey.get(featureKey(feature)) ?? []), feature]);
  const features =
    profile === null || counted.length === 0
      ? null
      : profile.profile.features.map((one) => mergedFeature(one, byKey.get(featureKey(one)) ?? []));
  return {
    ...{ kind, subject },
    regions: [...new Set(cells.map(({ region }) => region))].sort(),
    fromDay: Math.min(...days),
    untilDay: Math.max(...days),
    cells: cells.length,
    devicesAtLeast: devicesOf(cells),
    answered: total(cells.map(({ answered }) => answered ?? 0)),
    failed: total(cells.map(({ failed }) => failed ?? 0)),
    answeredUntold: cells.filter(({ answered }) => answered === null).length,
    failedUntold: cells.filter(({ failed }) => failed === null).length,
    errors: Object.fromEntries([...errors].sort(([a], [b]) => (a < b ? -1 : 1))),
    latencyMs: latencyOf(cells),
    energy: energyOf(cells),
    features,
    verdict: verdictOf(features),
  };
}

function verdictOf(features: MergedCells['features']): MergedCells['verdict'] {
  if (features === null) return 'no-counts';
  if (features.some(({ verdict }) => verdict === 'drift')) return 'drift';
  return features.some(({ verdict }) => verdict === 'ok') ? 'ok' : 'too-few';
}
