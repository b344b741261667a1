// Why: which symbols share a stream: few routes save tables, many save symbols.
// Trusts: its caller for lengths. Must never: decide anything that a decoder would have to repeat; the map is written.

/** 256 for differences and 256 for elements in full. */
export const routesMax = 512;
const halfRoutes = 256;
/** What a stream costs besides its symbols: its lengths and headers, and code lengths for each symbol that occurs. */
const streamBits = 90;
const codeLengthBits = 5;
/** zstd codes a symbol with a whole number of bits, so that a stream of one symbol is free and others are not. */
const symbolBitsMin = 1;

export interface Routes {
  streamOf: Uint16Array;
  /** Symbols of each stream. */
  counts: number[];
}

interface Candidate {
  first: number;
  last: number;
  histogram: Uint32Array;
  count: number;
  bits: number;
}

/** Joins neighbouring routes as long as that makes the whole smaller. */
export function mergeRoutes(symbols: Uint8Array, routes: Uint16Array, count: number): Routes {
  const histograms: (Uint32Array | undefined)[] = new Array(routesMax).fill(undefined);
  for (let at = 0; at < count; at++) {
    const route = routes[at] as number;
    let histogram = histograms[route];
    if (histogram === undefined) {
      histogram = new Uint32Array(256);
      histograms[route] = histogram;
    }
    const symbol = symbols[at] as number;
    histogram[symbol] = (histogram[symbol] as number) + 1;
  }
  const streamOf = new Uint16Array(routesMax);
  const counts: number[] = [];
  for (const start of [0, halfRoutes]) {
    for (const { first, last, count: total } of joined(candidates(histograms, start))) {
      streamOf.fill(counts.length, first, last + 1);
      counts.push(total);
    }
  }
  // Routes that do not occur lead where their neighbour does: longer runs in the map.
  for (let route = 1; route < routesMax; route++)
    if (histograms[route] === undefined && route !== halfRoutes)
      streamOf[route] = streamOf[route - 1] as number;
  return { streamOf, counts };
}

function candidates(histograms: (Uint32Array | undefined)[], start: number): Candidate[] {
  return histograms.slice(start, start + halfRoutes).flatMap((histogram, index) => {
    if (histogram === undefined) return [];
    const route = start + index;
    return [{ first: route, last: route, histogram, ...costOf(histogram) }];
  });
}

function costOf(histogram: Uint32Array): { count: number; bits: number } {
  let count = 0;
  let distinct = 0;
  let logs = 0;
  for (let symbol = 0; symbol < histogram.length; symbol++) {
    const times = histogram[symbol] as number;
    if (times === 0) continue;
    count += times;
    distinct += 1;
    logs += times * Math.log2(times);
  }
  const entropy = count === 0 ? 0 : Math.log2(count) - logs / count;
  const symbolBits = distinct === 1 ? 0 : count * Math.max(entropy, symbolBitsMin);
  return { count, bits: streamBits + distinct * codeLengthBits + symbolBits };
}

function joined(list: Candidate[]): Candidate[] {
  const merges = list.slice(0, -1).map((one, at) => merge(one, list[at + 1] as Candidate));
  while (merges.length > 0) {
    let best = -1;
    let gain = 0;
    for (let at = 0; at < merges.length; at++) {
      const merged = merges[at] as Candidate;
      const saved = (list[at] as Candidate).bits + (list[at + 1] as Candidate).bits - merged.bits;
      if (saved > gain) [best, gain] = [at, saved];
    }
    if (best < 0) break;
    list.splice(best, 2, merges[best] as Candidate);
    merges.splice(best, 1);
    for (const at of [best - 1, best]) {
      const [left, right] = [list[at], list[at + 1]];
      if (left !== undefined && right !== undefined) merges[at] = merge(left, right);
    }
  }
  return list;
}

function merge(left: Candidate, right: Candidate): Candidate {
  const histogram = left.histogram.slice();
  for (let symbol = 0; symbol < histogram.length; symbol++)
    histogram[symbol] = (histogram[symbol] as number) + (right.histogram[symbol] as number);
  return { first: left.first, last: right.last, histogram, ...costOf(histogram) };
}
