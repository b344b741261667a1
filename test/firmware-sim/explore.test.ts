// Why: seeds run in children come back in order and complete, and what happens to a child is told of its seed.
// Trusts: small worlds made for it. Must never: depend on how long a seed takes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type ExploreParts,
  type ExplorePlan,
  explore,
  summaryLines,
} from '../../firmware-sim/explore/explore.ts';
import { brokenRun, inThisProcess, type Runner } from '../../firmware-sim/explore/runner.ts';
import type { SeedResult } from '../../firmware-sim/explore/seed-run.ts';
import type { Shrunk } from '../../firmware-sim/explore/shrink.ts';
import { createPool } from '../../firmware-sim/explore/workers.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { runSeed } from './one-device-world.ts';

const worldOf = (name: string) => new URL(`./${name}.js`, import.meta.url).href;
const troubled = (seedLimitMs: number) =>
  createPool({ world: worldOf('troubled-world'), jobs: 2, seedLimitMs, clock: systemClock });
const plan: ExplorePlan = {
  from: 1,
  seeds: 4,
  jobs: 2,
  json: true,
  shrink: false,
  shrinkRunsMax: 100,
  untilFailure: false,
};

function partsOf(runner: Runner) {
  const lines: string[] = [];
  const kept: Shrunk[] = [];
  const drawn: SeedResult[] = [];
  const parts: ExploreParts = {
    runner,
    write: (line) => lines.push(line),
    tell: () => undefined,
    advance: () => undefined,
    monoMs: () => 0,
    keep: (shrunk) => {
      kept.push(shrunk);
      return `seed-${shrunk.seed}.only.json`;
    },
    draw: (result) => drawn.push(result),
  };
  return { lines, kept, drawn, parts };
}

test('seeds in children: the same results as here, in order', async (t) => {
  const pool = createPool({
    world: worldOf('one-device-world'),
    jobs: 2,
    seedLimitMs: 120_000,
    clock: systemClock,
  });
  t.after(() => pool.close());
  const here = partsOf(inThisProcess(runSeed));
  const there = partsOf(pool);
  assert.equal(await explore({ ...plan, jobs: 1 }, here.parts), true);
  assert.equal(await explore(plan, there.parts), true);
  assert.deepEqual(there.lines, here.lines);
  assert.deepEqual(
    there.lines.map((line) => JSON.parse(line).seed),
    [1, 2, 3, 4],
  );
});

test('a child that dies names its seed and how; the seeds after it run', async (t) => {
  const pool = troubled(120_000);
  t.after(() => pool.close());
  const { lines, parts } = partsOf(pool);
  assert.equal(await explore(plan, parts), false);
  const told = lines.map((line) => JSON.parse(line));
  assert.deepEqual(
    told.map(({ seed, violation }) => [seed, violation]),
    [
      [1, null],
      [2, null],
      [3, 'its process ended: code 7'],
      [4, null],
    ],
  );
});

test('a seed that does not end is reported, one that throws as well', async (t) => {
  const pool = troubled(1_500);
  t.after(() => pool.close());
  assert.match((await pool.run({ seed: 5 })).violation ?? '', /took longer than 2 s of real time/);
  assert.match((await pool.run({ seed: 6 })).violation ?? '', /^the run itself failed: Error: no such disk/);
  assert.equal((await pool.run({ seed: 7 })).violation, null);
});

test('a world that cannot be loaded fails every seed with the reason', async (t) => {
  const pool = createPool({ world: worldOf('no-such'), jobs: 1, seedLimitMs: 120_000, clock: systemClock });
  t.after(() => pool.close());
  assert.match((await pool.run({ seed: 1 })).violation ?? '', /cannot be loaded: .*no-such/);
});

test('after a stop: what was done is told, and it is no success', async () => {
  const { lines, parts } = partsOf(
    inThisProcess(async ({ seed }) => {
      if (seed === 2) parts.runner.close();
      return seed < 2 ? runSeed({ seed }) : new Promise(() => undefined);
    }),
  );
  assert.equal(await explore({ ...plan, jobs: 1, json: false }, parts), false);
  assert.match(lines.at(-1) ?? '', /^stopped after 1 of 4: 1 seed/);
});

test('children are replaced after a while, and none of their seeds is lost', async (t) => {
  const pool = troubled(120_000);
  t.after(() => pool.close());
  const seeds = Array.from({ length: 700 }, (_, index) => index + 10);
  const results = await Promise.all(seeds.map((seed) => pool.run({ seed })));
  assert.deepEqual(
    results.map(({ seed, violation }) => [seed, violation]),
    seeds.map((seed) => [seed, null]),
  );
});

test('a pool that is closed gives up its seeds', async () => {
  const pool = troubled(120_000);
  const under = pool.run({ seed: 5 });
  pool.close();
  await assert.rejects(under, { code: 'interrupted' });
  await assert.rejects(pool.run({ seed: 1 }), { code: 'interrupted' });
});

/** Fails with seed 2 as long as two of its faults happen. */
const fails = inThisProcess(async ({ seed, only, trace }) => {
  const faults = only ?? ['step 0', 'disk.full device-1 3', 'link.drop device-2 4', 'step 1'];
  const isBad = seed === 2 && faults.includes('disk.full device-1 3') && faults.includes('step 1');
  const violation = isBad ? 'lost a file' : null;
  return { ...brokenRun(seed, ''), violation, faults: [...faults], trace: trace ? ['0 boot'] : [] };
});

test('a seed that breaks an invariant: false, its shrunk list, its trace and how to see it again', async () => {
  const { lines, kept, drawn, parts } = partsOf(fails);
  assert.equal(await explore({ ...plan, seeds: 2, jobs: 1, json: false, shrink: true }, parts), false);
  assert.equal(lines[0], 'seed 2: lost a file');
  assert.ok(lines.includes('  0 boot'));
  assert.ok(lines.includes('again: lepton-sim explore --seed 2'));
  assert.ok(lines.includes('again: lepton-sim explore --only seed-2.only.json'));
  assert.deepEqual(
    kept.map(({ only }) => only),
    [['disk.full device-1 3', 'step 1']],
  );
  assert.deepEqual(
    drawn.map(({ seed, faults }) => [seed, faults.length]),
    [[2, 2]],
  );
  assert.match(lines.at(-1) ?? '', /^2 seeds, .* 1 broke an invariant$/);
  assert.ok(lines.includes('faults: disk.full 2, link.drop 2'));
});

test('until the first failure: no seed after it', async () => {
  const { lines, parts } = partsOf(fails);
  await explore({ ...plan, seeds: 9, jobs: 1, untilFailure: true }, parts);
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).seed),
    [1, 2],
  );
});

test('a failure that is another when repeated is told as that', async () => {
  let runs = 0;
  const { lines, parts } = partsOf(
    inThisProcess(async ({ seed }) => {
      runs += 1;
      return { ...brokenRun(seed, 'lost a file'), traceSha256: String(runs) };
    }),
  );
  await explore({ ...plan, seeds: 2, jobs: 1 }, parts);
  assert.match(
    JSON.parse(lines[0] ?? '').violation,
    /^not the same in two runs: lost a file; then: lost a file/,
  );
});

test('the summary counts devices times days and seeds a minute', () => {
  const tally = { seeds: 120, failed: 0, operations: 7, deviceDays: 4.25, faults: new Map([['step', 3]]) };
  assert.deepEqual(summaryLines(tally, 60_000, 120), [
    'faults: none',
    '120 seeds (120 a minute), 4.3 devices × virtual days, 7 operations, 3 steps: every invariant held',
  ]);
});
