// Why: counts what a release gets and gives into the bins of its reference profile, as it answers, so that drift can be
// measured without anything that was measured leaving the device. Pure but for the time it is told.
// Trusts: tensors that were checked. Must never: keep a value, copy a tensor, or take more than its share of the time.

import { type Bins, binOf, binsOf } from '../../shared/stats/binning.ts';
import {
  greatest,
  placeOf,
  placesMax,
  placesOf,
  rowsOf,
  type Value,
  valueAt,
  widthOf,
} from '../../shared/stats/measuring.ts';
import type { FeatureMeasure, FeaturesStats } from '../../shared/wire/feature-stats.ts';
import type { Profile, ProfileFeature } from '../../shared/wire/profile.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

export interface Tally {
  /** Of one answered request; `runMs` is what its run took. */
  count(inputs: readonly Tensor[], outputs: readonly Tensor[], runMs: number): void;
  /** Counts of the window that ends now, null where nothing was answered in it. */
  take(windowMs: number): Omit<FeaturesStats, 'model' | 'profileSha256'> | null;
  /** The output whose greatest element the profile counts: the release's confidence; null where it counts none. */
  readonly surest: string | null;
  /** Whether an input lies under or over a feature's bins, or is none of its values. What is missing lies nowhere. */
  isOutside(inputs: readonly Tensor[]): boolean;
}

/** What counting may cost in a window: this share of the runs' time, so much for each request, and the first calls. */
const shareMax = 0.02;
const perRequestMs = 0.008;
const perWindowMs = 5;
/** What one request's counting is taken for before any was measured; how far above the usual a measurement may lie. */
const usualMsAtFirst = 0.05;
const riseMax = 8;

interface Counter {
  /** Without the profile's own counts and chunks, which would stay in memory as long as the release. */
  feature: Pick<ProfileFeature, 'role' | 'tensor' | 'index'> & { of: FeatureMeasure };
  /** Null for a categorical feature. */
  bins: Bins | null;
  counts: Float64Array;
  missing: number;
  other: number;
  /** Of a categorical feature: where each of its values is counted. */
  places: ReadonlyMap<Value, number> | null;
}

function counterOf(feature: ProfileFeature): Counter {
  const { role, tensor, index, of = 'value' } = feature;
  return {
    feature: { role, tensor, index, of },
    bins: feature.kind === 'numeric' ? binsOf(feature.edges) : null,
    counts: new Float64Array(feature.counts.length),
    missing: 0,
    other: 0,
    places: feature.kind === 'categorical' ? placesOf(feature.values) : null,
  };
}

/**
 * `now` is monotonic, milliseconds. `lists`: tensors with one value for each row and no axis of their own, such as the
 * labels that a classifier gives.
 */
export function createTally(
  profile: Profile,
  now: () => number,
  lists: ReadonlySet<string> = new Set(),
): Tally {
  const counters = profile.features.map(counterOf);
  const ofInputs = counters.filter(({ feature }) => feature.role === 'input');
  const surest = counters.find(({ feature }) => feature.role === 'output' && feature.of === 'max');
  let rows = 0;
  let seenRows = 0;
  let spentMs = 0;
  let allowedMs = perWindowMs;
  let usualMs = usualMsAtFirst;

  return {
    surest: surest?.feature.tensor ?? null,

    isOutside: (inputs) =>
      ofInputs.some((counter) => {
        const found = inputs.find(({ name }) => name === counter.feature.tensor);
        return found !== undefined && isTensorOutside(counter, found, lists.has(found.name));
      }),

    count(inputs, outputs, runMs) {
      const seen = rowsOf(inputs[0], lists);
      seenRows += seen;
      allowedMs += perRequestMs + runMs * shareMax;
      if (spentMs > allowedMs) return;
      rows += seen;
      const startedMs = now();
      for (const counter of counters) {
        const { role, tensor } = counter.feature;
        const among = role === 'input' ? inputs : outputs;
        const found = among.find(({ name }) => name === tensor);
        if (found !== undefined) countTensor(counter, found, lists.has(tensor));
      }
      // A busy machine may take the processor away in between, for longer than all counting takes.
      const tookMs = Math.min(now() - startedMs, usualMs * riseMax);
      usualMs += (tookMs - usualMs) / riseMax;
      spentMs += tookMs;
    },

    take(windowMs) {
      if (seenRows === 0) return null;
      const window = {
        kind: 'features' as const,
        windowMs,
        rows,
        seenRows,
        features: [] as FeaturesStats['features'],
      };
      for (const counter of counters) {
        const { feature, counts, missing, other } = counter;
        if (missing > 0 || other > 0 || counts.some((count) => count > 0))
          window.features.push({
            ...{ ...feature, counts: [...counts], missing },
            ...(counter.places === null ? {} : { other }),
          });
        counts.fill(0);
        counter.missing = 0;
        counter.other = 0;
      }
      rows = 0;
      seenRows = 0;
      spentMs = 0;
      allowedMs = perWindowMs;
      return window;
    },
  };
}

function countTensor(counter: Counter, { shape, datatype, data }: Tensor, isList: boolean): void {
  const width = widthOf(shape, isList);
  const { index, of } = counter.feature;
  // A feature that this shape does not have is one that is missing.
  if (index >= width) {
    counter.missing += 1;
    return;
  }
  const places = Math.floor(data.length / width);
  const step = Math.max(1, places / placesMax);
  for (let place = 0; place < places; place += step) {
    const start = Math.floor(place) * width;
    const at = of === 'value' ? start + index : greatest(data, datatype, start, width);
    if (at < 0) {
      counter.missing += 1;
      continue;
    }
    const value = of === 'argmax' ? at - start : valueAt(data, datatype, at);
    if (counter.places === null) countNumber(counter, value);
    else countName(counter, value);
  }
}

/** At the places that are counted. */
function isTensorOutside(counter: Counter, { shape, datatype, data }: Tensor, isList: boolean): boolean {
  const width = widthOf(shape, isList);
  const { index, of } = counter.feature;
  if (index >= width) return false;
  const places = Math.floor(data.length / width);
  const step = Math.max(1, places / placesMax);
  for (let place = 0; place < places; place += step) {
    const start = Math.floor(place) * width;
    const at = of === 'value' ? start + index : greatest(data, datatype, start, width);
    if (at >= 0 && isValueOutside(counter, of === 'argmax' ? at - start : valueAt(data, datatype, at)))
      return true;
  }
  return false;
}

function isValueOutside({ bins, places }: Counter, value: Value): boolean {
  if (typeof value === 'number' && Number.isNaN(value)) return false;
  if (places !== null) return placeOf(places, value) === undefined;
  if (bins === null || typeof value === 'string') return false;
  const place = binOf(bins, Number(value));
  return place === 0 || place === bins.edges.length;
}

/** Under, [e0, e1) … [en-1, en], over. */
function countNumber(counter: Counter, value: Value): void {
  const number = typeof value === 'string' ? Number.NaN : Number(value);
  if (Number.isNaN(number)) {
    counter.missing += 1;
    return;
  }
  const { bins, counts } = counter;
  if (bins === null) return;
  const place = binOf(bins, number);
  counts[place] = (counts[place] as number) + 1;
}

function countName(counter: Counter, value: Value): void {
  if (typeof value === 'number' && Number.isNaN(value)) {
    counter.missing += 1;
    return;
  }
  const place = counter.places === null ? undefined : placeOf(counter.places, value);
  if (place === undefined) counter.other += 1;
  else counter.counts[place] = (counter.counts[place] as number) + 1;
}
