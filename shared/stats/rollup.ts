// Why: what many devices and windows counted adds up to one thing of the same shape, in any order and grouping.
// Trusts: its callers to have validated what comes from devices. Must never: keep a measured value, or change what it was given.

import type { FeaturesStats } from '../wire/feature-stats.ts';
import type { RequestsStats } from '../wire/request-stats.ts';
import { mergeSketch, type SketchJson, sketchFromJson, sketchToJson } from './sketch.ts';

export interface RequestsSum {
  windows: number;
  windowMs: number;
  requests: number;
  errors: Record<string, number>;
  latency: SketchJson | null;
}

export interface FeatureSum {
  role: 'input' | 'output';
  tensor: string;
  index: number;
  of: 'value' | 'argmax' | 'max';
  counts: number[];
  missing: number;
  other: number;
}

export interface FeaturesSum {
  windows: number;
  windowMs: number;
  rows: number;
  seenRows: number;
  /** By `featureKey`. */
  features: ReadonlyMap<string, FeatureSum>;
}

/** A profile may describe so many; a sum of honest devices never holds more. */
const featuresMax = 10_000;

export function featureKey(feature: {
  role: string;
  tensor: string;
  index: number;
  of?: string | undefined;
}): string {
  return `${feature.role} ${feature.index} ${feature.of ?? 'value'} ${feature.tensor}`;
}

function addErrors(one: Record<string, number>, other: Record<string, number>): Record<string, number> {
  const sum = new Map(Object.entries(one));
  for (const [code, count] of Object.entries(other)) sum.set(code, (sum.get(code) ?? 0) + count);
  return Object.fromEntries([...sum].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function addSketches(one: SketchJson | null, other: SketchJson | null): SketchJson | null {
  if (one === null || other === null) return one ?? other;
  const sum = sketchFromJson(one);
  mergeSketch(sum, sketchFromJson(other));
  return sketchToJson(sum);
}

export const noRequests: RequestsSum = { windows: 0, windowMs: 0, requests: 0, errors: {}, latency: null };

export function requestsOf({ windowMs, requests, errors, latencySketch }: RequestsStats): RequestsSum {
  return { windows: 1, windowMs, requests, errors, latency: latencySketch };
}

export function addRequests(one: RequestsSum, other: RequestsSum): RequestsSum {
  return {
    windows: one.windows + other.windows,
    windowMs: one.windowMs + other.windowMs,
    requests: one.requests + other.requests,
    errors: addErrors(one.errors, other.errors),
    latency: addSketches(one.latency, other.latency),
  };
}

export const noFeatures: FeaturesSum = { windows: 0, windowMs: 0, rows: 0, seenRows: 0, features: new Map() };

export function featuresOf({ windowMs, rows, seenRows, features }: FeaturesStats): FeaturesSum {
  const sums = new Map<string, FeatureSum>();
  for (const one of features) {
    // A feature that stands twice in one record is no honest count; the first is taken.
    if (!sums.has(featureKey(one))) sums.set(featureKey(one), { ...one, other: one.other ?? 0 });
  }
  return { windows: 1, windowMs, rows, seenRows, features: sums };
}

function addFeature(one: FeatureSum, other: FeatureSum): FeatureSum {
  // Other bins than before cannot be counts in the same profile: they add to nothing.
  if (one.counts.length !== other.counts.length) return one;
  return {
    ...one,
    counts: one.counts.map((count, at) => count + (other.counts[at] as number)),
    missing: one.missing + other.missing,
    other: one.other + other.other,
  };
}

export function addFeatures(one: FeaturesSum, other: FeaturesSum): FeaturesSum {
  const features = new Map(one.features);
  for (const [key, feature] of other.features) {
    const present = features.get(key);
    if (present !== undefined) features.set(key, addFeature(present, feature));
    else if (features.size < featuresMax) features.set(key, feature);
  }
  return {
    windows: one.windows + other.windows,
    windowMs: one.windowMs + other.windowMs,
    rows: one.rows + other.rows,
    seenRows: one.seenRows + other.seenRows,
    features,
  };
}

/** Adds many: as `addFeatures` one after the other, without a copy for each. */
export function createFeaturesSummer(): { add(sum: FeaturesSum): void; sum(): FeaturesSum } {
  const totals = { windows: 0, windowMs: 0, rows: 0, seenRows: 0 };
  const features = new Map<string, FeatureSum>();
  return {
    add(sum) {
      totals.windows += sum.windows;
      totals.windowMs += sum.windowMs;
      totals.rows += sum.rows;
      totals.seenRows += sum.seenRows;
      for (const [key, feature] of sum.features) {
        const present = features.get(key);
        if (present === undefined) {
          if (features.size < featuresMax) features.set(key, { ...feature, counts: [...feature.counts] });
          continue;
        }
        const { counts } = present;
        if (counts.length !== feature.counts.length) continue;
        for (let at = 0; at < counts.length; at += 1)
          counts[at] = (counts[at] as number) + (feature.counts[at] as number);
        present.missing += feature.missing;
        present.other += feature.other;
      }
    },
    sum: () => ({ ...totals, features }),
  };
}

type FeatureRow = [
  role: 'i' | 'o',
  tensor: string,
  index: number,
  of: FeatureSum['of'],
  missing: number,
  other: number,
  ...counts: number[],
];

/** Text of a column: rows without names, which would be most of it. */
export function featuresToText(features: FeaturesSum['features']): string {
  const rows = [...features.values()].map(
    ({ role, tensor, index, of, missing, other, counts }): FeatureRow => [
      role === 'input' ? 'i' : 'o',
      tensor,
      index,
      of,
      missing,
      other,
      ...counts,
    ],
  );
  return JSON.stringify(rows);
}

/** Of text that `featuresToText` wrote. */
export function featuresFromText(text: string): FeaturesSum['features'] {
  const rows: FeatureRow[] = JSON.parse(text);
  return new Map(
    rows.map(([letter, tensor, index, of, missing, other, ...counts]) => {
      const role = letter === 'i' ? 'input' : 'output';
      const feature: FeatureSum = { role, tensor, index, of, counts, missing, other };
      return [featureKey(feature), feature];
    }),
  );
}
