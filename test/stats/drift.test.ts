// Why: distances from counts are what scipy says of the values themselves, as far as bins allow; thresholds and verdicts.
// Trusts: scipy-values.json, made by the command that stands in it. Must never: loosen a bound that bins prove.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { unwrap } from '../../shared/kernel/errors.ts';
import { binOf, binsOf } from '../../shared/stats/binning.ts';
import {
  association,
  type BinnedCounts,
  distances,
  learnedThresholds,
  verdictOf,
  verdictTerms,
} from '../../shared/stats/drift.ts';
import { type ProfileFeature, parseProfile } from '../../shared/wire/profile.ts';
import { chance } from '../support/chance.ts';
import { dataFolder, projectFolder, readJson } from '../support/data.ts';

interface NumericCase {
  name: string;
  edges: number[];
  ks: number;
  wasserstein: number;
  js: number;
}
interface MadeCase extends NumericCase {
  reference: number[];
  live: number[];
}
interface RealCase extends NumericCase {
  path: string;
  livePath: string;
  column: string;
  delimiter: string;
  size: number;
}
interface TableCase {
  name: string;
  table?: [number[], number[]];
  by?: string;
  values?: string[];
  chiSquare: number;
  degreesOfFreedom: number;
  cramersV: number;
  js: number;
}
const scipy = readJson<{ made: MadeCase[]; real: RealCase[]; tables: TableCase[] }>(
  join(projectFolder, 'test', 'stats', 'scipy-values.json'),
);

type Numeric = BinnedCounts & { kind: 'numeric' };

function binned(edges: number[], values: readonly number[]): Numeric {
  const counts = Array<number>(edges.length + 1).fill(0);
  const bins = binsOf(edges);
  for (const value of values) {
    const at = binOf(bins, value);
    counts[at] = (counts[at] ?? 0) + 1;
  }
  return { kind: 'numeric', edges, counts };
}

const datasets = dataFolder('datasets');
const dataMissing = existsSync(datasets) ? false : 'the folder with recordings is absent; set LEPTON_DATA';

/** None of the files that are read here has a quoted field. */
function column(path: string, name: string, delimiter: string): string[] {
  const text = readFileSync(join(datasets, path), 'utf8').replace(/^\uFEFF/, '');
  const [head = '', ...lines] = text.trim().split(/\r?\n/);
  const at = head.split(delimiter).indexOf(name);
  assert.ok(at >= 0, `${path} has no column ${name}`);
  return lines.map((line) => line.split(delimiter)[at] ?? '');
}

/** What binning can hide: the values of one bin in KS, and the way inside their bin for each value in Wasserstein. */
function slack(reference: Numeric, live: Numeric): { ks: number; wasserstein: number } {
  const sums = [reference, live].map(({ counts }) => counts.reduce((sum, one) => sum + one, 0));
  let [ks, wasserstein] = [0, 0];
  for (let at = 1; at < reference.edges.length; at++) {
    const [p, q] = [reference, live].map(({ counts }, side) => (counts[at] ?? 0) / (sums[side] ?? 1));
    const width = (reference.edges[at] ?? 0) - (reference.edges[at - 1] ?? 0);
    ks = Math.max(ks, p ?? 0, q ?? 0);
    wasserstein += ((p ?? 0) + (q ?? 0)) * width;
  }
  return { ks, wasserstein };
}

function compare(expected: NumericCase, reference: number[], live: number[]): void {
  const [one, other] = [binned(expected.edges, reference), binned(expected.edges, live)];
  for (const { counts } of [one, other])
    assert.deepEqual([counts[0], counts.at(-1)], [0, 0], 'edges hold all');
  const found = distances(one, other);
  const may = slack(one, other);
  const rounding = 1e-9;
  assert.ok(found.ks <= expected.ks + rounding, `ks ${found.ks} is above ${expected.ks}`);
  assert.ok(found.ks >= expected.ks - may.ks - rounding, `ks ${found.ks} is below ${expected.ks}`);
  const off = Math.abs((found.wasserstein ?? Number.NaN) - expected.wasserstein);
  assert.ok(
    off <= may.wasserstein + rounding,
    `wasserstein ${found.wasserstein}, not ${expected.wasserstein}`,
  );
  // What bins may hide and what they do hide are two things: these have many, and values spread inside of them.
  assert.ok(
    off <= 0.06 * expected.wasserstein,
    `wasserstein ${found.wasserstein}, not ${expected.wasserstein}`,
  );
  assert.ok(Math.abs(found.js - expected.js) < rounding, `js ${found.js}, not ${expected.js}`);
  const back = distances(other, one);
  assert.ok(Math.abs(back.ks - found.ks) < rounding && Math.abs(back.psi - found.psi) < rounding);
}

for (const made of scipy.made)
  test(`as scipy: ${made.name}`, () => {
    compare(made, made.reference, made.live);
    if (!made.name.startsWith('whole numbers')) return;
    // Where an edge stands at each value, nothing is hidden from KS.
    const found = distances(binned(made.edges, made.reference), binned(made.edges, made.live));
    assert.ok(Math.abs(found.ks - made.ks) < 1e-12);
  });

for (const real of scipy.real)
  test(`as scipy: ${real.name}`, { skip: dataMissing }, () => {
    const of = (path: string): number[] => column(path, real.column, real.delimiter).map(Number);
    compare(real, of(real.path).slice(0, real.size), of(real.livePath).slice(-real.size));
  });

for (const expected of scipy.tables)
  test(`chi-square as scipy: ${expected.name}`, {
    skip: expected.by === undefined ? false : dataMissing,
  }, () => {
    const [reference, live] = expected.table ?? tableOf(expected);
    const found = association(reference, live);
    assert.ok(found !== null);
    assert.ok(Math.abs(found.chiSquare - expected.chiSquare) < 1e-9 * expected.chiSquare);
    assert.equal(found.degreesOfFreedom, expected.degreesOfFreedom);
    assert.ok(Math.abs(found.cramersV - expected.cramersV) < 1e-9);
    const { js, wasserstein } = distances(
      { kind: 'categorical', counts: reference },
      { kind: 'categorical', counts: live },
    );
    assert.ok(Math.abs(js - expected.js) < 1e-9);
    assert.equal(wasserstein, null);
  });

function tableOf({ by = '', values = [] }: TableCase): [number[], number[]] {
  const path = 'industrial/ai4i2020_9col.csv';
  const kinds = column(path, 'Type', ',');
  const flags = column(path, by, ',').map((text) => Number(text) >= (by === 'Machine failure' ? 1 : 100));
  const side = (flag: boolean): number[] =>
    values.map((value) => kinds.filter((kind, at) => kind === value && flags[at] === flag).length);
  return [side(false), side(true)];
}

test('psi: by hand, with half a count in each bin', () => {
  const found = distances(
    { kind: 'numeric', edges: [0, 1], counts: [0, 9, 1] },
    { kind: 'numeric', edges: [0, 1], counts: [1, 4, 5] },
  );
  const [p, q] = [
    [0.5, 9.5, 1.5],
    [1.5, 4.5, 5.5],
  ] as const;
  const psi = p.reduce((sum, one, at) => {
    const other = q[at] as number;
    return sum + (other / 11.5 - one / 11.5) * Math.log(other / one);
  }, 0);
  assert.ok(Math.abs(found.psi - psi) < 1e-12);
  // Cumulative differences 0.1 at the first edge, -0.4 at the last: a line between them crosses zero.
  assert.ok(Math.abs(found.ks - 0.4) < 1e-12);
  assert.ok(Math.abs((found.wasserstein ?? 0) - (0.01 + 0.16) / (2 * 0.5)) < 1e-12);
});

test('whatever the counts are, distances are finite, zero between equal sides, and inside their bounds', () => {
  const counts = fc.array(fc.nat({ max: 100_000 }), { minLength: 6, maxLength: 6 });
  const edges = [-1, 0, 1, 5, 5.5];
  fc.assert(
    fc.property(counts, counts, (one, other) => {
      const of = (side: number[]): BinnedCounts => ({ kind: 'numeric', edges, counts: side });
      const found = distances(of(one), of(other));
      assert.ok(Object.values(found).every((value) => value === null || Number.isFinite(value)));
      assert.ok(found.psi >= 0 && found.js >= 0 && found.js <= 1 && found.ks >= 0 && found.ks <= 1);
      const same = distances(of(one), of(one));
      assert.deepEqual(same, { psi: 0, js: 0, ks: 0, wasserstein: 0 });
    }),
  );
});

test('bins: the number of edges that are not above a value, but the last edge belongs to the last bin', () => {
  const even = fc
    .tuple(
      fc.double({ min: -1e6, max: 1e6, noNaN: true }),
      fc.double({ min: 1e-3, max: 1e3, noNaN: true }),
      fc.nat(60),
    )
    .map(([from, width, bins]) => Array.from({ length: bins + 2 }, (_, at) => from + at * width));
  const uneven = fc
    .uniqueArray(fc.double({ min: -1e9, max: 1e9, noNaN: true }), { minLength: 2, maxLength: 60 })
    .map((edges) => edges.map((edge) => edge + 0).sort((a, b) => a - b));
  const rising = fc
    .oneof(even, uneven)
    .filter((all) => all.every((edge, at) => at === 0 || edge > (all[at - 1] ?? 0)));
  const check = (all: number[], value: number): void => {
    const below = all.filter((edge) => edge <= value).length;
    assert.equal(binOf(binsOf(all), value), value === all.at(-1) ? below - 1 : below, `${value} in ${all}`);
  };
  fc.assert(
    fc.property(
      rising,
      fc.double({ noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (all, any, share) => {
        const [first = 0, last = 0] = [all[0], all.at(-1)];
        for (const value of [any, first + (last - first) * share, ...all]) check(all, value);
      },
    ),
  );
  assert.ok(binsOf([0, 0.1, 0.2, 0.30000000000000004]).perUnit > 0);
  assert.equal(binsOf([0, 1, 10]).perUnit, 0);
});

const edges = Array.from({ length: 21 }, (_, at) => at / 20);

function feature(chunks: number[][]): ProfileFeature {
  const counts = Array.from({ length: 22 }, (_, at) =>
    chunks.reduce((sum, chunk) => sum + (chunk[at] ?? 0), 0),
  );
  const text = JSON.stringify({
    schemaVersion: 1,
    features: [{ role: 'input', tensor: 'x', index: 0, kind: 'numeric', edges, counts, chunks }],
  });
  const [found] = unwrap(parseProfile(Buffer.from(text))).features;
  assert.ok(found !== undefined);
  return found;
}

/** `moves`: how far each chunk lies from the others. */
function chunksOf(moves: number[], seed: number): number[][] {
  const next = chance(seed);
  const sample = (move: number) => (next() + next() + next()) / 4 + move;
  return moves.map((move) => [
    ...binned(
      edges,
      Array.from({ length: 500 }, () => sample(move)),
    ).counts,
  ]);
}

test('learned thresholds: what the reference does by itself is no drift, more than that is', () => {
  const calm = feature(chunksOf(Array(12).fill(0), 1));
  // Days of two kinds, a quarter of the range apart.
  const restless = feature(
    chunksOf(
      Array.from({ length: 12 }, (_, day) => (day % 2) * 0.25),
      2,
    ),
  );
  const live: BinnedCounts = { kind: 'numeric', edges, counts: chunksOf([0.25], 3)[0] ?? [] };
  const judged = [calm, restless].map((one) => {
    const reference: BinnedCounts = { kind: 'numeric', edges, counts: one.counts };
    return verdictOf(reference, live, learnedThresholds(one));
  });
  assert.equal(judged[0]?.verdict, 'drift');
  assert.deepEqual(judged[0]?.exceeded, ['psi', 'js', 'ks']);
  assert.equal(judged[1]?.verdict, 'ok');
  assert.ok((judged[1]?.distances?.ks ?? 0) > verdictTerms.ks, 'the fixed threshold alone would have cried');
  const [learned, fewer] = [learnedThresholds(calm), learnedThresholds(feature(calm.chunks.slice(0, 7)))];
  assert.ok(learned !== null && learned.ks > 0 && learned.ks < 0.2);
  assert.equal(fewer, null);
});

test('learned thresholds are mean and three deviations of each chunk beside the rest', () => {
  const chunks = Array.from({ length: 8 }, (_, at) => [0, 50 + at, 50 - at, 0]);
  const text = JSON.stringify({
    schemaVersion: 1,
    features: [
      {
        role: 'input',
        tensor: 'x',
        index: 0,
        kind: 'numeric',
        edges: [0, 1, 2],
        counts: [0, 428, 372, 0],
        chunks,
      },
    ],
  });
  const [one] = unwrap(parseProfile(Buffer.from(text))).features;
  assert.ok(one !== undefined);
  // Chunk k has a share of (50 + k)/100 in the first bin, the others together (428 - 50 - k)/700.
  const all = chunks.map((_, k) => Math.abs((50 + k) / 100 - (378 - k) / 700));
  const mean = all.reduce((sum, value) => sum + value, 0) / 8;
  const deviation = Math.sqrt(all.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 7);
  assert.ok(Math.abs((learnedThresholds(one)?.ks ?? 0) - (mean + 3 * deviation)) < 1e-12);
});

test('too few counts get no verdict; many rows of a small effect are no drift', () => {
  const side = (counts: number[]): BinnedCounts => ({ kind: 'categorical', counts });
  assert.equal(verdictOf(side([500, 500, 0]), side([99, 0, 0]), null).verdict, 'too-few');
  assert.equal(verdictOf(side([99, 0, 0]), side([500, 500, 0]), null).verdict, 'too-few');
  const found = verdictOf(side([500_000, 500_000, 0]), side([510_000, 490_000, 0]), null);
  assert.equal(found.verdict, 'ok');
  // A test alone would call it certain (the limit at one in a thousand is 10.8).
  assert.ok((found.association?.chiSquare ?? 0) > 100 && (found.association?.cramersV ?? 1) < 0.02);
  assert.equal(verdictOf(side([500, 500, 0]), side([100, 0, 0]), null).verdict, 'drift');
  assert.equal(association([5, 0], [3, 0]), null);
});
