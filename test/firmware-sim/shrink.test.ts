// Why: a shrunk list must be short, must fail in the same way, and must be the same list each time.
// Trusts: worlds that are functions of a list, and a planted bug. Must never: accept a list that was not run.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { brokenRun } from '../../firmware-sim/explore/runner.ts';
import { maskedViolation, shrink } from '../../firmware-sim/explore/shrink.ts';
import type { FaultId } from '../../firmware-sim/faults.ts';
import { oneDeviceWorld } from './one-device-world.ts';
import { planted } from './planted.ts';

const many: FaultId[] = [
  ...Array.from({ length: 40 }, (_, index) => `disk.full device-${index % 4} ${index}`),
  ...Array.from({ length: 40 }, (_, index) => `link.drop device-${index % 4} ${index}`),
  ...Array.from({ length: 6 }, (_, index) => `step ${index}`),
];

function worldOf(isBad: (list: ReadonlySet<FaultId>) => string | null) {
  const lists: string[] = [];
  const run = async (only: readonly FaultId[]) => {
    lists.push(only.join());
    return { ...brokenRun(7, ''), violation: isBad(new Set(only)), faults: [...only] };
  };
  return { lists, run };
}
const failed = { ...brokenRun(7, 'device-1 lost 17 records'), faults: many };
const needed = ['disk.full device-1 13', 'link.drop device-3 35', 'step 4'];
const needsThree = (list: ReadonlySet<FaultId>) =>
  needed.every((id) => list.has(id)) ? `device-1 lost ${list.size} records` : null;

test('three of 86 are found, in their order, whatever the number of jobs', async () => {
  const results = [];
  for (const jobs of [1, 2, 5]) {
    const { run, lists } = worldOf(needsThree);
    results.push(await shrink(failed, { run, jobs, runsMax: 600 }));
    assert.equal(new Set(lists).size, lists.length, 'a list was run twice');
  }
  assert.deepEqual(results[0]?.only, needed);
  assert.equal(results[0]?.complete, true);
  assert.ok((results[0]?.runs ?? 999) < 80, `${results[0]?.runs} runs`);
  assert.deepEqual(results[1], results[0]);
  assert.deepEqual(results[2], results[0]);
});

test('another violation is not taken for the same', async () => {
  const { run } = worldOf((list) => needsThree(list) ?? (list.size < 50 ? 'device-1 does not boot' : null));
  assert.deepEqual((await shrink(failed, { run, jobs: 1, runsMax: 600 }))?.only, needed);
});

test('the bound on runs holds and is told; what was found until then counts', async () => {
  const { run, lists } = worldOf(needsThree);
  const shrunk = await shrink(failed, { run, jobs: 2, runsMax: 5 });
  assert.equal(shrunk?.complete, false);
  assert.ok(lists.length <= 5);
  assert.notEqual(needsThree(new Set(shrunk?.only)), null);
});

test('a failure without any fault has the empty list', async () => {
  const { run } = worldOf(() => 'device-1 lost 0 records');
  assert.deepEqual((await shrink(failed, { run, jobs: 1, runsMax: 600 }))?.only, []);
});

test('a list that does not replay is null', async () => {
  const { run } = worldOf(() => null);
  assert.equal(await shrink(failed, { run, jobs: 1, runsMax: 600 }), null);
});

test('numbers, ids and what follows the first line do not make another failure', () => {
  const id = 'a3f1'.repeat(16);
  assert.equal(
    maskedViolation(`device-3 lost blobs/${id}\n  at x`),
    maskedViolation(`device-12 lost blobs/${'07be'.repeat(16)}`),
  );
  assert.equal(maskedViolation('the device forgot'), 'the device forgot');
});

test('a planted bug shrinks to one power cut and the steps that lead to it; each is needed', async () => {
  const runSeed = oneDeviceWorld(planted['no fsync before rename']);
  for (let seed = 1; seed < 200; seed += 1) {
    const result = await runSeed({ seed });
    if (result.violation === null) continue;
    const run = (only: readonly FaultId[]) => runSeed({ seed, only });
    const shrunk = await shrink(result, { run, jobs: 1, runsMax: 300 });
    assert.ok(shrunk?.complete);
    const cuts = shrunk.only.filter((id) => !id.startsWith('step '));
    assert.equal(cuts.length, 1, `seed ${seed}: ${shrunk.only}`);
    assert.ok(shrunk.only.length < result.faults.length);
    for (const id of shrunk.only) {
      const { violation } = await run(shrunk.only.filter((one) => one !== id));
      assert.notEqual(maskedViolation(violation ?? ''), maskedViolation(result.violation), id);
    }
    const again = await run(shrunk.only);
    assert.equal(maskedViolation(again.violation ?? ''), maskedViolation(result.violation));
    return;
  }
  assert.fail('the planted bug was not found');
});
