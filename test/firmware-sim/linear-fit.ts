// Why: the cheapest thing that learns, to see that a scenario's data can be learned from at all.
// Trusts: its tests. Must never: be taken for what `lepton train` does.

/** Least squares with a little ridge: weights and, last, the bias. Rows × features. */
export function linearFit(inputs: number[][], targets: number[]): (input: number[]) => number {
  const width = (inputs[0]?.length ?? 0) + 1;
  const sums = Array.from({ length: width }, () => new Float64Array(width + 1));
  for (const [row, input] of inputs.entries()) {
    const full = [...input, 1];
    for (const [i, left] of full.entries()) {
      const sum = sums[i] as Float64Array;
      for (const [j, right] of full.entries()) sum[j] = (sum[j] ?? 0) + left * right;
      sum[width] = (sum[width] ?? 0) + left * (targets[row] ?? 0);
    }
  }
  for (const [i, sum] of sums.entries()) sum[i] = (sum[i] ?? 0) * (1 + 1e-8) + 1e-6;
  const weights = solve(sums, width);
  return (input) =>
    input.reduce((total, value, at) => total + value * (weights[at] ?? 0), weights[width - 1] ?? 0);
}

/** Gauss and Jordan, on a symmetric positive system: no row has to be changed for another. */
function solve(rows: Float64Array[], width: number): number[] {
  for (let pivot = 0; pivot < width; pivot += 1) {
    const row = rows[pivot] as Float64Array;
    const scale = row[pivot] ?? 1;
    for (let at = pivot; at <= width; at += 1) row[at] = (row[at] ?? 0) / scale;
    for (const [other, target] of rows.entries()) {
      const factor = target[pivot] ?? 0;
      if (other === pivot || factor === 0) continue;
      for (let at = pivot; at <= width; at += 1) target[at] = (target[at] ?? 0) - factor * (row[at] ?? 0);
    }
  }
  return rows.map((row) => row[width] ?? 0);
}

/** How often a positive has the higher score, ties half: the area under the ROC curve (Mann and Whitney's U). */
export function rankArea(scores: number[], positive: boolean[]): number {
  const order = scores.map((score, at) => ({ score, positive: positive[at] === true }));
  order.sort((one, other) => one.score - other.score);
  let [below, area, positives] = [0, 0, 0];
  for (let at = 0; at < order.length; ) {
    let end = at;
    let [tiedPositive, tiedNegative] = [0, 0];
    for (; end < order.length && order[end]?.score === order[at]?.score; end += 1) {
      if (order[end]?.positive === true) tiedPositive += 1;
      else tiedNegative += 1;
    }
    area += tiedPositive * (below + tiedNegative / 2);
    below += tiedNegative;
    positives += tiedPositive;
    at = end;
  }
  return area / (below * positives);
}

export function meanAbsoluteError(predicted: number[], truth: number[]): number {
  return predicted.reduce((sum, value, at) => sum + Math.abs(value - (truth[at] ?? 0)), 0) / predicted.length;
}
