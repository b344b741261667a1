// Why: whatever is added and subtracted of what is published, nothing is left that is of fewer than k devices, or nearly of one.
// Trusts: elimination.ts for the adversary. Must never: take the code's word for what a number is made of: each is added up
// again from its atoms first.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type DeviceDay,
  deviceBand,
  type MadeCell,
  makeModelCell,
  makeReleaseCell,
} from '../../shared/stats/cells.ts';
import { coarseLatency } from '../../shared/stats/coarse-latency.ts';
import { chooseCohort, type Members } from '../../shared/stats/cohort.ts';
import { blocksThatStay, type DisclosureTerms, sensitive } from '../../shared/stats/disclosure.ts';
import { type FeatureSum, featureKey } from '../../shared/stats/rollup.ts';
import { leastSums, type Row } from './elimination.ts';

const profile = 'a'.repeat(64);

interface Doings {
  latency?: Record<number, number>;
  failed?: Record<string, number>;
  /** Counts of the one feature, then what is missing; null: it counts no features. */
  bins?: number[] | null;
}

function dayOf({ latency = {}, failed = {}, bins = null }: Doings): DeviceDay {
  const feature: FeatureSum | null =
    bins === null || bins.length === 0
      ? null
      : {
          ...{ role: 'input', tensor: 'x', index: 0, of: 'value', other: 0 },
          counts: bins.slice(0, -1),
          missing: bins.at(-1) ?? 0,
        };
  const rows = Object.values(latency).reduce((sum, one) => sum + one, 0);
  const features = new Map(feature === null ? [] : [[featureKey(feature), feature] as const]);
  return {
    failed: new Map(Object.entries(failed)),
    latency: new Map(Object.entries(latency).map(([at, count]) => [Number(at), count])),
    energy: new Map(),
    features: bins === null ? new Map() : new Map([[profile, { rows, seenRows: rows, features }]]),
  };
}

const days = (doings: Doings[]): Map<string, DeviceDay> =>
  new Map(doings.map((one, at) => [`d${String(at).padStart(2, '0')}`, dayOf(one)]));

/** By atom `device release what`: what is in it. */
type Atoms = Map<string, number>;

function atomsOf(release: string, devices: ReadonlyMap<string, DeviceDay>): Atoms {
  const atoms: Atoms = new Map();
  for (const [device, { latency, failed }] of devices) {
    for (const [at, count] of latency) if (count > 0) atoms.set(`${device} ${release} ms${at}`, count);
    for (const [code, count] of failed) if (count > 0) atoms.set(`${device} ${release} !${code}`, count);
  }
  return atoms;
}

interface Told {
  name: string;
  value: number;
  row: Row;
}

function told(name: string, value: number, atoms: Atoms, holds: (atom: string) => boolean): Told {
  const inside = [...atoms.keys()].filter(holds);
  return { name, value, row: new Map(inside.map((atom) => [atom, 1])) };
}

/** What a release's cell tells, each number by the atoms that it must be made of. */
function toldByRelease(release: string, cell: MadeCell, atoms: Atoms): Told[] {
  const { body, members } = cell;
  if (body === null) return [];
  const mine = (atom: string): boolean => {
    const [device = '', of] = atom.split(' ');
    return of === release && members.has(device);
  };
  const classOf = (atom: string): number => Number(/ms(\d+)$/.exec(atom)?.[1] ?? -1);
  const codeOf = (atom: string): string | undefined => /!(.+)$/.exec(atom)?.[1];
  const numbers: Told[] = [];
  if (body.answered !== null)
    numbers.push(told('answered', body.answered, atoms, (atom) => mine(atom) && classOf(atom) >= 0));
  for (const [index, [at, count]] of (body.latency ?? []).entries()) {
    const below = body.latency?.[index - 1]?.[0] ?? -1;
    const isTop = index === (body.latency?.length ?? 0) - 1;
    const holds = (atom: string): boolean =>
      mine(atom) && classOf(atom) >= 0 && classOf(atom) > below && (isTop || classOf(atom) <= at);
    numbers.push(told(`up to ${at}`, count, atoms, holds));
  }
  if (body.failed !== null)
    numbers.push(told('failed', body.failed, atoms, (atom) => mine(atom) && codeOf(atom) !== undefined));
  const named = new Set(Object.keys(body.errors ?? {}));
  for (const [code, count] of Object.entries(body.errors ?? {})) {
    const holds = (atom: string): boolean => {
      const own = codeOf(atom);
      return mine(atom) && own !== undefined && (own === code || (code === 'other' && !named.has(own)));
    };
    numbers.push(told(code, count, atoms, holds));
  }
  return numbers;
}

function toldByModel(cell: MadeCell, releases: ReadonlyMap<string, MadeCell>, atoms: Atoms): Told[] {
  const { body } = cell;
  if (body === null) return [];
  const counted = (atom: string): boolean => {
    const [device = '', release = ''] = atom.split(' ');
    return releases.get(release)?.members.has(device) === true;
  };
  return (['answered', 'failed'] as const).flatMap((part) => {
    const value = body[part];
    const holds = (atom: string): boolean => counted(atom) && atom.includes(' ms') === (part === 'answered');
    return value === null ? [] : [told(`model ${part}`, value, atoms, holds)];
  });
}

function assertNobodyStandsOut(numbers: readonly Told[], atoms: Atoms, terms: DisclosureTerms): void {
  for (const { name, value, row } of numbers) {
    const sum = [...row.keys()].reduce((all, atom) => all + (atoms.get(atom) ?? 0), 0);
    assert.equal(sum, value, `${name} is made of other things than this test thinks`);
  }
  for (const least of leastSums(numbers.map(({ row }) => row))) {
    const byDevice = new Map<string, number>();
    for (const atom of least) {
      const [device = ''] = atom.split(' ');
      byDevice.set(device, (byDevice.get(device) ?? 0) + (atoms.get(atom) ?? 0));
    }
    assert.equal(sensitive(byDevice.values(), terms), null, `isolated: ${[...least].join(', ')}`);
  }
}

const countArbitrary = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 30 }) },
  { weight: 1, arbitrary: fc.constant(900) },
);
const someOf = <Key extends string | number>(keys: readonly Key[]) =>
  fc
    .array(fc.tuple(fc.constantFrom(...keys), countArbitrary), { maxLength: 3 })
    .map((pairs) => Object.fromEntries(pairs) as Record<Key, number>);
const doingsArbitrary = fc.record({
  latency: someOf([3, 8, 41, 90]),
  failed: someOf(['bad-input', 'timeout', 'other']),
});
const termsArbitrary = fc.record({ devicesMin: fc.integer({ min: 2, max: 4 }), percent: fc.constant(10) });

test('cells: no combination of a day’s numbers is of fewer than k devices, or nearly of one', () => {
  const releases = fc.array(fc.array(fc.option(doingsArbitrary), { minLength: 2, maxLength: 9 }), {
    minLength: 2,
    maxLength: 3,
  });
  let published = 0;
  fc.assert(
    fc.property(releases, termsArbitrary, (table, terms) => {
      const atoms: Atoms = new Map();
      const cells = new Map<string, MadeCell>();
      for (const [at, column] of table.entries()) {
        // A device that runs two releases on one day is in both.
        const devices = new Map([...days(column.map((one) => one ?? {}))].filter((_, row) => column[row]));
        for (const [atom, count] of atomsOf(`r${at}`, devices)) atoms.set(atom, count);
        cells.set(`r${at}`, makeReleaseCell(devices, [], terms));
      }
      const model = makeModelCell([...cells.values()], [], terms);
      const numbers = [
        ...[...cells].flatMap(([release, cell]) => toldByRelease(release, cell, atoms)),
        ...toldByModel(model, cells, atoms),
      ];
      // Answered and failed requests have no atom in common: each is eliminated by itself, which is the same and faster.
      const isAnswer = ({ row }: Told): boolean => [...row.keys()].some((atom) => atom.includes(' ms'));
      published += numbers.length;
      assertNobodyStandsOut(numbers.filter(isAnswer), atoms, terms);
      assertNobodyStandsOut(
        numbers.filter((one) => !isAnswer(one)),
        atoms,
        terms,
      );
    }),
    { numRuns: 200 },
  );
  assert.ok(published > 300, 'almost nothing was published, so that nothing was tested');
});

test('cells: the bins of a feature, its rows and the answered requests together isolate nobody', () => {
  const device = fc.record({
    rows: fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 5, maxLength: 5 }),
    how: fc.constantFrom(...Array<'all'>(16).fill('all'), 'lacks' as const, 'none' as const),
  });
  let published = 0;
  fc.assert(
    fc.property(fc.array(device, { minLength: 3, maxLength: 12 }), termsArbitrary, (devices, terms) => {
      const doings = devices.map(({ rows, how }): Doings => {
        const answered = rows.reduce((sum, one) => sum + one, 0);
        const bins = how === 'all' ? rows : how === 'lacks' ? [] : null;
        return { latency: answered === 0 ? {} : { 8: answered }, bins };
      });
      const present = days(doings);
      const { body } = makeReleaseCell(present, [], terms);
      if (body === null || body.answered === null) return;
      // One answered request is one row: a device's atoms are its bins, or all of it where it counts none.
      const atoms: Atoms = new Map();
      for (const [at, { rows, how }] of devices.entries()) {
        const name = `d${String(at).padStart(2, '0')}`;
        const whole = rows.reduce((sum, one) => sum + one, 0);
        if (how === 'all')
          for (const [bin, count] of rows.entries()) atoms.set(`${name} ${how} b${bin}`, count);
        else atoms.set(`${name} ${how} whole`, whole);
      }
      for (const [atom, count] of atoms) if (count === 0) atoms.delete(atom);
      const numbers = [told('answered', body.answered, atoms, () => true)];
      if (body.features !== null) {
        numbers.push(told('rows', body.features.rows, atoms, (atom) => !atom.includes(' none ')));
        const [feature] = body.features.features;
        if (feature !== undefined) {
          const all = [...feature.counts, feature.missing];
          for (const [bin, count] of all.entries())
            if (count !== null)
              numbers.push(told(`bin ${bin}`, count, atoms, (atom) => atom.endsWith(` b${bin}`)));
          const isPooled = (atom: string): boolean =>
            all.some((count, bin) => count === null && atom.endsWith(` b${bin}`));
          numbers.push(told('pooled', feature.pooled, atoms, isPooled));
        }
      }
      published += numbers.length - 1;
      // An empty sum tells that something is nowhere, of all of them.
      assertNobodyStandsOut(
        numbers.filter(({ row }) => row.size > 0),
        atoms,
        terms,
      );
    }),
    { numRuns: 200 },
  );
  assert.ok(published > 300);
});

test('cells: machines that do the same every day are not the difference of two days', () => {
  const presence = fc.array(fc.uniqueArray(fc.integer({ min: 0, max: 14 }), { maxLength: 15 }), {
    minLength: 2,
    maxLength: 10,
  });
  fc.assert(
    fc.property(presence, termsArbitrary, (present, { devicesMin }) => {
      const published: Members[] = [];
      for (const devices of present) {
        const members = chooseCohort(new Set(devices.map((one) => `d${one}`)), published, devicesMin);
        if (members === null) continue;
        for (const device of members) assert.ok(devices.includes(Number(device.slice(1))));
        for (const before of published) {
          const apart = [...members].filter((one) => !before.has(one)).length;
          const gone = [...before].filter((one) => !members.has(one)).length;
          assert.ok(apart + gone === 0 || apart + gone >= devicesMin);
        }
        published.push(members);
      }
    }),
    { numRuns: 200 },
  );
});

const names = (count: number): Set<string> =>
  new Set(Array.from({ length: count }, (_, at) => `d${String(at).padStart(2, '0')}`));

test('cohorts: one who joins waits, many join, and one who leaves is not seen to', () => {
  const ten = names(10);
  assert.deepEqual(chooseCohort(names(11), [ten], 3), ten);
  assert.deepEqual(chooseCohort(names(13), [ten], 3), names(13));
  const nine = new Set([...ten].filter((one) => one !== 'd04'));
  const chosen = chooseCohort(nine, [ten], 3);
  assert.deepEqual(chosen, new Set(['d00', 'd01', 'd02', 'd03', 'd05', 'd06', 'd07']));
  // And so on: the next day nothing changes.
  assert.deepEqual(chooseCohort(nine, [chosen ?? names(0), ten], 3), chosen);
  assert.equal(chooseCohort(names(1), [names(2)], 3), null);
});

test('rules: enough devices, and none that the second could work out', () => {
  const terms = { devicesMin: 3, percent: 10 };
  assert.equal(sensitive([5, 5], terms), 'cells/k');
  assert.equal(sensitive([5, 5, 0, 0], terms), 'cells/k');
  assert.equal(sensitive([5, 5, 5], terms), null);
  // 100 less 10: whoever has 50 knows that the other has 50 less at most 4.
  assert.equal(sensitive([50, 40, 4], terms), 'cells/dominance');
  assert.equal(sensitive([50, 40, 5], terms), null);
  const blocks = [
    [5, 5, 5],
    [1, 0, 0],
    [2, 2, 2, 2],
  ].map((parts) => new Map(parts.map((part, at) => [`d${at}`, part])));
  // The second would be the whole less the others: the smallest of these goes with it.
  assert.deepEqual(blocksThatStay(blocks, terms), [true, false, false]);
  assert.deepEqual(
    [3, 5, 6, 11, 12, 100].map((devices) => deviceBand(devices, 3)),
    [3, 3, 6, 6, 12, 96],
  );
});

test('latencies: the slowest of a few are counted with the slowest of many', () => {
  const terms = { devicesMin: 3, percent: 10 };
  const steady = ['a', 'b', 'c', 'd'].map(
    (name) =>
      [
        name,
        new Map([
          [100, 50],
          [120, 50],
        ]),
      ] as const,
  );
  const slow = [
    's',
    new Map([
      [100, 40],
      [300, 10],
    ]),
  ] as const;
  assert.deepEqual(coarseLatency(new Map([...steady, slow]), terms), [
    [100, 240],
    [120, 210],
  ]);
  assert.equal(coarseLatency(new Map(steady.slice(0, 2)), terms), null);
});

test('cells: what is withheld is named with its rule, and the total goes where it would give it away', () => {
  const terms = { devicesMin: 3, percent: 10 };
  const many = days(Array.from({ length: 6 }, () => ({ latency: { 8: 10 } })));
  const old = makeReleaseCell(many, [], terms);
  assert.equal(old.body?.answered, 60);
  assert.equal(old.body?.failed, 0);
  const canary = makeReleaseCell(days([{ latency: { 8: 7 } }, { latency: { 8: 7 } }]), [], terms);
  assert.deepEqual(canary.withheld, [{ part: 'cell', rule: 'cells/k' }]);
  const total = makeModelCell([old, canary], [], terms);
  assert.equal(total.body?.answered ?? null, null);
  assert.ok(total.withheld.some(({ rule }) => rule === 'cells/complement'));
  // Two that are withheld hide each other where they are enough together.
  const next = makeReleaseCell(new Map([...many].slice(3, 5)), [], terms);
  assert.equal(makeModelCell([old, canary, next], [], terms).body?.answered, 94);
  const loud = makeReleaseCell(
    days([{ latency: { 8: 900 } }, ...Array(5).fill({ latency: { 8: 1 } })]),
    [],
    terms,
  );
  assert.deepEqual(loud.withheld, [{ part: 'cell', rule: 'cells/dominance' }]);
  const joined = days(Array.from({ length: 3 }, () => ({ latency: { 8: 10 } })));
  assert.deepEqual(makeReleaseCell(joined, [names(5)], terms).withheld, [
    { part: 'cell', rule: 'cells/neighbour' },
  ]);
});
