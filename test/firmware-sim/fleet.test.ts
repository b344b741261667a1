// Why: the promise of the deterministic world: every seed of a whole fleet holds, and one seed is one trace.
// Trusts: firmware-sim. Must never: hide a failing seed, or pass with worlds in which nothing happened.

import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { after, test } from 'node:test';
import { createPool } from '../../firmware-sim/explore/workers.ts';
import { runSeed } from '../../firmware-sim/fleet-world/run-seed.ts';
import { systemClock } from '../../shared/host/clock.ts';

const seeds = Number(process.env['LEPTON_FLEET_SEEDS'] ?? 300);
const world = new URL('../../firmware-sim/fleet-world/run-seed.js', import.meta.url).href;
const pool = createPool({
  world,
  jobs: Math.min(seeds, availableParallelism()),
  seedLimitMs: 300_000,
  clock: systemClock,
});
after(() => pool.close());

test(`${seeds} seeds of a whole fleet: every invariant holds, and it agrees once everything healed`, async () => {
  const results = await Promise.all(
    Array.from({ length: seeds }, (_, index) => pool.run({ seed: index + 1 })),
  );
  const failed = results.filter(({ violation }) => violation !== null);
  const words = failed.map(({ seed, violation }) => `lepton-sim explore --seed ${seed}: ${violation}`);
  assert.deepEqual(words, []);
  const reached = new Set(results.flatMap(({ coverage }) => Object.keys(coverage)));
  for (const name of [
    'fault cut.before',
    'fault link.drop',
    'state device committed',
    'transition rolling-back idle',
  ])
    assert.ok(reached.has(name), `no seed reached: ${name}`);
});

test('one seed is one trace, in this process and in another', async () => {
  for (const seed of [3, 6]) {
    const [here, again, there] = [await runSeed({ seed }), await runSeed({ seed }), await pool.run({ seed })];
    assert.equal(again.traceSha256, here.traceSha256);
    assert.equal(there.traceSha256, here.traceSha256);
  }
  const [one, other] = [await runSeed({ seed: 3 }), await runSeed({ seed: 4 })];
  assert.notEqual(one.traceSha256, other.traceSha256);
});
