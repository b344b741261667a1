// Why: the few statistics by which a column is cleaned. Pure.
// Trusts: that what it is told to be sorted is sorted. Must never: answer with what the graph cannot hold.

const float32Max = 3.4028234663852886e38;

/** Rounded as the ONNX graph holds it; a finite number beyond float32 becomes its largest. NaN stays NaN. */
export function float32(value: number): number {
  const rounded = Math.fround(value) + 0; // Never -0.
  if (Number.isFinite(rounded) || !Number.isFinite(value)) return rounded;
  return Math.sign(value) * float32Max;
}

/** The shortest decimal that is this float32: 99.9, not 99.9000015258789. */
export function shortestFloat32(value: number): string {
  for (let digits = 1; digits < 9; digits += 1) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === value) return String(rounded);
  }
  return String(value);
}

/** Linear between the two nearest (definition 7 of Hyndman & Fan 1996, "Sample quantiles", numpy's default). */
export function quantileOf(sorted: Float64Array, part: number): number {
  const at = (sorted.length - 1) * part;
  const below = sorted[Math.floor(at)] as number;
  const above = sorted[Math.ceil(at)] as number;
  return below + (above - below) * (at - Math.floor(at));
}

export function quartilesOf(sorted: Float64Array): { low: number; median: number; high: number } {
  return {
    low: quantileOf(sorted, 0.25),
    median: quantileOf(sorted, 0.5),
    high: quantileOf(sorted, 0.75),
  };
}

export function meanOf(values: Float64Array): number {
  let mean = 0;
  // Welford's update: no sum that could overflow or swallow small values.
  for (let at = 0; at < values.length; at += 1) mean += ((values[at] as number) - mean) / (at + 1);
  return mean;
}

/** The value that is repeated most often; of equally frequent ones the smallest. */
export function mostFrequentOf(sorted: Float64Array): number {
  let best = sorted[0] as number;
  let bestRun = 0;
  let run = 0;
  for (let at = 0; at < sorted.length; at += 1) {
    run = at > 0 && sorted[at] === sorted[at - 1] ? run + 1 : 1;
    if (run > bestRun) {
      bestRun = run;
      best = sorted[at] as number;
    }
  }
  return best;
}
