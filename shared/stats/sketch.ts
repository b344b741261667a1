// Why: latencies of many devices and windows as one small object that can be added up: counts in classes that
// grow by a fixed factor, so that a quantile is off by at most that factor (as in DDSketch, Masson et al. 2019).
// Trusts: its caller for values that are durations. Must never: keep a measured value.

import { z } from 'zod';

/** Width of a class: a quantile is off by at most this factor. */
const growth = 1.05;
const logGrowth = Math.log(growth);
/** Everything below counts as this much. Milliseconds. */
const smallest = 0.01;
/** Class of more than a month; nothing that is measured lies above. */
const classMax = 500;

export interface Sketch {
  /** Count by class: class i holds values in (smallest·growth^(i−1), smallest·growth^i]. */
  readonly counts: Map<number, number>;
  count: number;
  max: number;
}

/** On the wire; `growth` and `smallest` stand in it so that a later version may choose others. */
export const sketchSchema = z.object({
  growth: z.literal(growth),
  smallest: z.literal(smallest),
  max: z.number().nonnegative(),
  /** [class, count], by class. */
  counts: z
    .array(z.tuple([z.number().int().min(0).max(classMax), z.number().int().positive()]))
    .max(classMax + 1),
});
export type SketchJson = z.infer<typeof sketchSchema>;

export function createSketch(): Sketch {
  return { counts: new Map(), count: 0, max: 0 };
}

export function addToSketch(sketch: Sketch, value: number): void {
  const above = Math.max(value, smallest) / smallest;
  const at = Math.min(classMax, Math.max(0, Math.ceil(Math.log(above) / logGrowth)));
  sketch.counts.set(at, (sketch.counts.get(at) ?? 0) + 1);
  sketch.count += 1;
  sketch.max = Math.max(sketch.max, value);
}

export function mergeSketch(into: Sketch, other: Sketch): void {
  for (const [at, count] of other.counts) into.counts.set(at, (into.counts.get(at) ?? 0) + count);
  into.count += other.count;
  into.max = Math.max(into.max, other.max);
}

/** The nearest-rank quantile, from above by at most 5 %; null where nothing was added. */
export function sketchQuantile(sketch: Sketch, fraction: number): number | null {
  if (sketch.count === 0) return null;
  let left = Math.max(1, Math.ceil(sketch.count * fraction));
  for (const [at, count] of [...sketch.counts].sort(([a], [b]) => a - b)) {
    left -= count;
    if (left <= 0) return Math.min(sketch.max, smallest * growth ** at);
  }
  return sketch.max;
}

export function sketchToJson(sketch: Sketch): SketchJson {
  return {
    growth,
    smallest,
    max: sketch.max,
    counts: [...sketch.counts].sort(([a], [b]) => a - b),
  };
}

export function sketchFromJson(json: SketchJson): Sketch {
  const counts = new Map(json.counts);
  return { counts, count: json.counts.reduce((sum, [, count]) => sum + count, 0), max: json.max };
}
