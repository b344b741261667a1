// Why: latencies of many devices in classes that are wide enough for nobody to stand out: no class of few devices, no
// slowest request of one.
// Trusts: its caller for counts in the classes of sketch.ts. Must never: end a class where only a few devices tell it to.

import { addBlock, type DisclosureTerms, sensitive, sumOf } from './disclosure.ts';

/** Classes of a sketch that make one here: a quantile is off by at most 22 %. */
const classesInOne = 4;

const coarse = (at: number): number => Math.ceil(at / classesInOne) * classesInOne;

/**
 * [class, count]: each holds what lies above the class before. Classes are joined upwards until what is in them may be told;
 * what then is left above the last is counted in it (top coding), so that the slowest of a few are not seen. Null where no
 * class may be told.
 */
export function coarseLatency(
  byDevice: ReadonlyMap<string, ReadonlyMap<number, number>>,
  terms: DisclosureTerms,
): [at: number, count: number][] | null {
  const classes = new Map<number, Map<string, number>>();
  for (const [device, counts] of byDevice)
    for (const [at, count] of counts) {
      const block = classes.get(coarse(at)) ?? new Map<string, number>();
      classes.set(coarse(at), block);
      addBlock(block, new Map([[device, count]]));
    }
  const runs: { at: number; block: Map<string, number> }[] = [];
  let open = new Map<string, number>();
  for (const [at, block] of [...classes].sort(([a], [b]) => a - b)) {
    addBlock(open, block);
    if (sensitive(open.values(), terms) !== null) continue;
    runs.push({ at, block: open });
    open = new Map();
  }
  const last = runs.at(-1);
  if (last === undefined) return null;
  addBlock(last.block, open);
  // What came on top may have made one device too much of the last.
  while (runs.length > 1 && sensitive(last.block.values(), terms) !== null) {
    const [below] = runs.splice(-2, 1);
    if (below !== undefined) addBlock(last.block, below.block);
  }
  return runs.map(({ at, block }) => [at, sumOf(block)]);
}
