// Why: how good an anomaly detector is, measured by labelled windows: one point found in a window finds it, and a row of
// false points is one false alarm, as a person who is called would count. Pure. Trusts: nothing.
// Must never: count one window twice, or a long anomaly more than a short one.

/** Both ends belong to it. Rows or times. */
export interface LabelledWindow {
  from: number;
  to: number;
}

export interface WindowMetrics {
  windows: number;
  /** Windows in which at least one flagged point lies. */
  found: number;
  /** Runs of flagged points outside every window. */
  falseAlarms: number;
  /** found / (found + false alarms); 0 where nothing was flagged. */
  precision: number;
  /** found / windows; 0 where there are none. */
  recall: number;
  /** 2 · precision · recall / (precision + recall); 0 where both are 0. */
  f1: number;
}

/** The index of the first of sorted values that is at least `bound`. */
function firstAtLeast(sorted: Float64Array, bound: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Windows that overlap or touch as one, in order. */
function covered(windows: readonly LabelledWindow[]): LabelledWindow[] {
  const joined: LabelledWindow[] = [];
  for (const { from, to } of [...windows].sort((a, b) => a.from - b.from)) {
    const last = joined.at(-1);
    if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to);
    else joined.push({ from, to });
  }
  return joined;
}

/**
 * Windows and flagged points in one unit, rows or times, in any order. Flagged points outside every window belong to
 * one false alarm as long as each is closer than `gap` to the one before; with a gap of 0 each different point is one.
 */
export function windowMetrics(
  windows: readonly LabelledWindow[],
  flagged: ArrayLike<number>,
  gap: number,
): WindowMetrics {
  const points = Float64Array.from(flagged).sort();
  const found = windows.filter(({ from, to }) => {
    const point = points[firstAtLeast(points, from)];
    return point !== undefined && point <= to;
  }).length;
  const regions = covered(windows);
  let falseAlarms = 0;
  let before = Number.NaN;
  let region = 0;
  for (const point of points) {
    while (region < regions.length && (regions[region]?.to ?? 0) < point) region += 1;
    if ((regions[region]?.from ?? Number.POSITIVE_INFINITY) <= point) continue;
    if (point !== before && !(point - before < gap)) falseAlarms += 1;
    before = point;
  }
  const precision = found + falseAlarms === 0 ? 0 : found / (found + falseAlarms);
  const recall = windows.length === 0 ? 0 : found / windows.length;
  const f1 = precision + recall === 0 ? 0 : (2 * precision * recall) / (precision + recall);
  return { windows: windows.length, found, falseAlarms, precision, recall, f1 };
}

/** Runs of rows whose label is not 0, as windows of row numbers from 0. */
export function labelRuns(labels: Int32Array): LabelledWindow[] {
  const runs: LabelledWindow[] = [];
  for (let row = 0; row < labels.length; row += 1) {
    if (labels[row] === 0) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.to === row - 1) last.to = row;
    else runs.push({ from: row, to: row });
  }
  return runs;
}
