// Why: the edges of a numeric feature's bins, chosen from the values it had where a model was made. Pure.
// Trusts: nothing of the values; what is not finite has no say. Must never: give edges that do not rise, or put two
// values into one bin that both are common.

const singleMax = 3.402_823_466_385_288_6e38;

/** Of a column that never changed: its bin reaches so far to either side, as a share of the value. */
const constantShare = 1e-3;

/** The places at which a run of equal values ends and another begins; `sorted` rises. */
function runEnds(sorted: Float64Array): number[] {
  const ends: number[] = [];
  for (let at = 1; at < sorted.length; at += 1)
    if ((sorted[at] as number) > (sorted[at - 1] as number)) ends.push(at);
  return ends;
}

function nearest(ends: readonly number[], wanted: number): number {
  let low = 0;
  let high = ends.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ends[middle] as number) < wanted) low = middle + 1;
    else high = middle;
  }
  const [above, below] = [ends[low] as number, ends[low - 1]];
  return below !== undefined && wanted - below <= above - wanted ? below : above;
}

/** Above `lower`, at most `upper`, exact in single precision where the values are. */
function between(lower: number, upper: number, single: boolean): number {
  const middle = lower / 2 + upper / 2;
  const rounded = single ? Math.fround(middle) : middle;
  return rounded > lower && rounded < upper ? rounded : upper;
}

function aroundConstant(value: number, single: boolean): number[] {
  const round = (edge: number): number =>
    single ? Math.fround(Math.min(singleMax, Math.max(-singleMax, edge))) : edge;
  const most = single ? singleMax : Number.MAX_VALUE;
  for (const width of [Math.abs(value) * constantShare, constantShare]) {
    const low = Math.max(-most, round(value - width));
    const high = Math.min(most, round(value + width));
    if (low < value && high > value) return [low, high];
  }
  return value > 0 ? [value / 2, value] : [value, value / 2];
}

/**
 * Edges of at most `bins` bins with about equal counts, which is where PSI tells most: a bin of few counts says little
 * about a change, one of many hides it. The first and the last edge are the least and the greatest value, inner ones
 * stand between two values, so that no rounding moves a value over an edge; up to `bins` different values get a bin
 * each. `single`: the values are of single (or half) precision, and so are the edges then. A column that never changed
 * has one bin a thousandth to either side; one without a finite value [0, 1].
 */
export function binEdges(values: Float64Array, bins: number, single: boolean): number[] {
  const sorted = values.filter(Number.isFinite).sort();
  const [first, last] = [sorted[0], sorted.at(-1)];
  if (first === undefined || last === undefined) return [0, 1];
  const ends = runEnds(sorted);
  if (ends.length === 0) return aroundConstant(first, single);
  const cuts = new Set<number>(ends.length < bins ? ends : []);
  for (let bin = 1; cuts.size < bins - 1 && bin < bins; bin += 1)
    cuts.add(nearest(ends, (bin * sorted.length) / bins));
  const edges = [first];
  for (const cut of [...cuts].sort((a, b) => a - b)) {
    const edge = between(sorted[cut - 1] as number, sorted[cut] as number, single);
    if (edge > (edges.at(-1) as number)) edges.push(edge);
  }
  if (last > (edges.at(-1) as number)) edges.push(last);
  return edges;
}
