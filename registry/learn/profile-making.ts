// Why: the reference profile of a model, counted from the rows it was made with and its answers to them, by the rules
// by which devices count. Pure.
// Trusts: tensors that were checked. Must never: count otherwise than a device does, or keep a text that is rare.

import { type Bins, binOf, binsOf } from '../../shared/stats/binning.ts';
import { watchTerms } from '../../shared/stats/drift-watch.ts';
import {
  greatest,
  listsOf,
  placeOf,
  placesMax,
  placesOf,
  rowsOf,
  type Value,
  valueAt,
  widthOf,
} from '../../shared/stats/measuring.ts';
import type { FeatureMeasure } from '../../shared/wire/feature-stats.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import type { Profile, ProfileFeature } from '../../shared/wire/profile.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { binEdges } from './bin-edges.ts';

export interface FeatureChoice {
  role: 'input' | 'output';
  tensor: string;
  /** On the tensor's last axis; 0 where `of` is not `value`. */
  index: number;
  of: FeatureMeasure;
  kind: 'numeric' | 'categorical';
}

export interface ProfileParts {
  /** Of the model: which tensors are lists (one value a row). */
  inputs: readonly TensorSignature[];
  outputs: readonly TensorSignature[];
  features: readonly FeatureChoice[];
  /** All rows that will be added, so that a row's part is known when it comes. */
  rows: number;
  /** Consecutive parts of the rows; `chunksFor` where absent. */
  chunks?: number;
  /** 10 where absent, as usual for PSI. */
  bins?: number;
}

export interface ProfileMaker {
  /** A batch in the rows' order: what the model was given and what it answered. */
  add(inputs: readonly Tensor[], outputs: readonly Tensor[]): void;
  finish(): Profile;
}

const binsDefault = 10;
/** Thresholds are learned of no fewer parts (shared/stats/drift.ts); more tell nothing new and make the file large. */
const chunksMin = 8;
const chunksMax = 128;
/** A device reads no profile above 4 MiB: so many counts in chunks have about 2 MiB of text. */
const chunkCountsMax = 400_000;
/** The different texts of one feature that are named, the most frequent ones; all the rest are the others. */
const valuesMax = 256;
/** The schema's bound for one text. */
const textCharsMax = 512;

/** Parts about as long as the window that a registry judges: then they vary as windows do. */
export function chunksFor(rows: number): number {
  return Math.min(chunksMax, Math.max(chunksMin, Math.floor(rows / watchTerms.windowRowsMin)));
}

const singles: ReadonlySet<Datatype> = new Set(['FP16', 'FP32']);

class Growing {
  #numbers = new Float64Array(1_024);
  #length = 0;

  push(value: number): void {
    if (this.#length === this.#numbers.length) {
      const larger = new Float64Array(this.#length * 2);
      larger.set(this.#numbers);
      this.#numbers = larger;
    }
    this.#numbers[this.#length] = value;
    this.#length += 1;
  }

  all(): Float64Array {
    return this.#numbers.subarray(0, this.#length);
  }
}

/** What was seen of one feature, in the rows' order. */
interface Seen {
  choice: FeatureChoice;
  isList: boolean;
  single: boolean;
  /** Of a categorical feature codes of its values. */
  values: Growing;
  codes: Map<Value, number>;
  /** How many of `values` had been seen when each part ended. */
  ends: Float64Array;
  missing: number;
}

/** One batch of `rows` rows: each counts as a request of its own, as a device mostly gets them. */
function see(
  seen: Seen,
  { shape, datatype, data }: Tensor,
  rows: number,
  chunkOf: (row: number) => number,
): void {
  const { choice, isList, values, ends } = seen;
  const width = widthOf(shape, isList);
  seen.single = singles.has(datatype);
  if (choice.index >= width) {
    seen.missing += rows;
    return;
  }
  const places = Math.floor(data.length / width);
  // A tensor that has no part of its own for each row belongs to the first one.
  const parts = places % rows === 0 ? rows : 1;
  const placesEach = places / parts;
  const step = Math.max(1, placesEach / placesMax);
  for (let row = 0; row < parts; row += 1) {
    for (let place = 0; place < placesEach; place += step) {
      const start = (row * placesEach + Math.floor(place)) * width;
      const at = choice.of === 'value' ? start + choice.index : greatest(data, datatype, start, width);
      if (at < 0) seen.missing += 1;
      else keep(seen, choice.of === 'argmax' ? at - start : valueAt(data, datatype, at));
    }
    ends[chunkOf(row)] = values.all().length;
  }
}

function keep(seen: Seen, value: Value): void {
  const { choice, codes, values } = seen;
  if (typeof value === 'number' && Number.isNaN(value)) {
    seen.missing += 1;
    return;
  }
  if (choice.kind === 'numeric') {
    // As a device counts it: a text is no number.
    if (typeof value === 'string') seen.missing += 1;
    else values.push(Number(value));
    return;
  }
  const code = codes.get(value) ?? codes.size;
  if (code === codes.size) codes.set(value, code);
  values.push(code);
}

/** Counts of all and of each part. `placeOf` gives a value's place among `length`. */
function countBy(
  seen: Seen,
  length: number,
  placed: (value: number) => number,
): { all: number[]; chunks: number[][] } {
  const all = Array<number>(length).fill(0);
  const values = seen.values.all();
  const chunks: number[][] = [];
  let at = 0;
  for (const end of seen.ends) {
    const chunk = Array<number>(length).fill(0);
    for (; at < end; at += 1) {
      const place = placed(values[at] as number);
      chunk[place] = (chunk[place] as number) + 1;
      all[place] = (all[place] as number) + 1;
    }
    chunks.push(chunk);
  }
  return { all, chunks };
}

function numericOf(seen: Seen, binCount: number): ProfileFeature {
  const edges = binEdges(seen.values.all(), binCount, seen.single);
  const bins: Bins = binsOf(edges);
  const { all, chunks } = countBy(seen, edges.length + 1, (value) => binOf(bins, value));
  return { ...headOf(seen), kind: 'numeric', edges, counts: all, chunks };
}

/** The most frequent values; of equally frequent ones the first seen. */
function namedValues(seen: Seen): Value[] {
  const counts = new Float64Array(seen.codes.size);
  for (const code of seen.values.all()) counts[code] = (counts[code] as number) + 1;
  const nameable = [...seen.codes].filter(([value]) =>
    typeof value === 'string' ? value.length <= textCharsMax : Number.isFinite(Number(value)),
  );
  return nameable
    .sort(([, a], [, b]) => (counts[b] as number) - (counts[a] as number) || a - b)
    .slice(0, valuesMax)
    .map(([value]) => value);
}

function categoricalOf(seen: Seen): ProfileFeature {
  const found = namedValues(seen);
  // Of a feature that was always missing no value is known, and the schema wants one.
  const values = found.length > 0 ? found : [''];
  const places = placesOf(values);
  const ofCode = [...seen.codes.keys()].map((value) => placeOf(places, value) ?? values.length);
  const { all, chunks } = countBy(seen, values.length + 1, (code) => ofCode[code] as number);
  return {
    ...{ ...headOf(seen), kind: 'categorical', values, counts: all.slice(0, values.length) },
    ...{ other: all[values.length] ?? 0, chunks },
  };
}

function headOf({
  choice,
  missing,
}: Seen): Pick<ProfileFeature, 'role' | 'tensor' | 'index' | 'of' | 'missing'> {
  const { role, tensor, index, of } = choice;
  return { role, tensor, index, missing, ...(of === 'value' ? {} : { of }) };
}

/**
 * Collects the values of each feature (12 MB for a million) and counts them in `finish`, because edges are chosen from
 * all of them. A row is counted as a request of its own: of a window every position, or 64 spread over more. The
 * result is one that `parseProfile` takes, for up to 10,000 features.
 */
export function createProfileMaker(parts: ProfileParts): ProfileMaker {
  const { features, rows, bins = binsDefault } = parts;
  const fitting = Math.floor(chunkCountsMax / Math.max(1, features.length * (bins + 2)));
  const chunks = Math.max(chunksMin, Math.min(parts.chunks ?? chunksFor(rows), fitting));
  const lists = listsOf([...parts.inputs, ...parts.outputs]);
  const all = features.map(
    (choice): Seen => ({
      ...{ choice, isList: lists.has(choice.tensor), single: false, missing: 0 },
      ...{ values: new Growing(), codes: new Map<Value, number>(), ends: new Float64Array(chunks) },
    }),
  );
  let before = 0;
  return {
    add(inputs, outputs) {
      const count = rowsOf(inputs[0], lists);
      const chunkOf = (row: number): number =>
        Math.min(chunks - 1, Math.floor(((before + row) * chunks) / Math.max(1, rows)));
      for (const seen of all) {
        const among = seen.choice.role === 'input' ? inputs : outputs;
        const found = among.find(({ name }) => name === seen.choice.tensor);
        if (found !== undefined) see(seen, found, count, chunkOf);
      }
      before += count;
    },
    finish() {
      // A part that had no row ends where the one before it ended.
      for (const { ends } of all)
        for (let at = 1; at < ends.length; at += 1)
          ends[at] = Math.max(ends[at] as number, ends[at - 1] as number);
      return {
        schemaVersion: 1,
        features: all.map((seen) =>
          seen.choice.kind === 'numeric' ? numericOf(seen, bins) : categoricalOf(seen),
        ),
      };
    },
  };
}

/** A profile of more counts is not counted on a device (65,536); of an image the columns of pixels tell little. */
const featuresMax = 2_048;

/**
 * What of a model is worth counting, as its first batch shows: of inputs every element of the last axis, of outputs the
 * labels, of several numbers a row the place of the greatest (where no label says it) and that number itself, of one
 * number itself. `leftOut`: features beyond 2,048.
 */
export function chooseFeatures(
  signatures: { inputs: readonly TensorSignature[]; outputs: readonly TensorSignature[] },
  batch: { inputs: readonly Tensor[]; outputs: readonly Tensor[] },
): { features: FeatureChoice[]; leftOut: number } {
  const lists = listsOf([...signatures.inputs, ...signatures.outputs]);
  const isLabel = ({ name, datatype, shape }: Tensor): boolean =>
    !isFloat(datatype) && widthOf(shape, lists.has(name)) === 1;
  const hasLabel = batch.outputs.some(isLabel);
  // Outputs first: they are few, and must not fall behind the bound.
  const features = batch.outputs.flatMap((tensor): FeatureChoice[] => {
    const about = { role: 'output' as const, tensor: tensor.name, index: 0 };
    if (isLabel(tensor)) return [{ ...about, of: 'value', kind: 'categorical' }];
    if (widthOf(tensor.shape, lists.has(tensor.name)) === 1)
      return [{ ...about, of: 'value', kind: 'numeric' }];
    if (!isFloat(tensor.datatype)) return [];
    const surest: FeatureChoice = { ...about, of: 'max', kind: 'numeric' };
    return hasLabel ? [surest] : [{ ...about, of: 'argmax', kind: 'categorical' }, surest];
  });
  let leftOut = 0;
  for (const { name, datatype, shape } of batch.inputs) {
    const kind = datatype === 'BYTES' || datatype === 'BOOL' ? 'categorical' : 'numeric';
    for (let index = 0; index < widthOf(shape, lists.has(name)); index += 1) {
      if (features.length < featuresMax)
        features.push({ role: 'input', tensor: name, index, of: 'value', kind });
      else leftOut += 1;
    }
  }
  return { features, leftOut };
}

function isFloat(datatype: Datatype): boolean {
  return datatype === 'FP16' || datatype === 'FP32' || datatype === 'FP64';
}
