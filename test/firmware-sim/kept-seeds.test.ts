// Why: a bug that the explorer once found must not come back. `npm run sim:kept` runs all that were kept; here are those of the
// present world, for the earlier ones are drawn anew since and find their bug only by chance.
// Trusts: kept-seeds.json. Must never: pass because a kept list of faults no longer takes place.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { type KeptSeed, parseKeptSeeds } from '../../firmware-sim/explore/kept-seeds.ts';
import { latestGeneration, type RunSeed } from '../../firmware-sim/explore/seed-run.ts';
import { projectFolder } from '../support/data.ts';
import { runSeed as runSmall } from './one-device-world.ts';

const all = parseKeptSeeds(readFileSync(join(projectFolder, 'firmware-sim', 'kept-seeds.json'), 'utf8'));
const kept = process.env['LEPTON_KEPT'] === 'all' ? all : all.filter(isOfPresentWorld);
const world = join(projectFolder, 'dist', 'firmware-sim', 'fleet-world', 'run-seed.js');

function isOfPresentWorld({ generation }: KeptSeed): boolean {
  return generation === undefined || generation === latestGeneration;
}

/** Null where it holds, and everything that it lists took place or was asked for no more. */
async function replayed(
  { seed, only, generation, cause }: KeptSeed,
  runSeed: RunSeed,
): Promise<string | null> {
  const { violation, faults } = await runSeed({
    seed,
    ...(only === undefined ? {} : { only }),
    ...(generation === undefined ? {} : { generation }),
  });
  if (violation !== null) return `seed ${seed} fails again (${cause}): ${violation}`;
  return only !== undefined && only.length > 0 && faults.length === 0
    ? `seed ${seed}: nothing that it lists takes place any more; keep another list`
    : null;
}

test(`${kept.length} seeds that once failed`, async () => {
  if (kept.length === 0) return;
  const { runSeed } = (await import(pathToFileURL(world).href)) as { runSeed: RunSeed };
  for (const one of kept) assert.equal(await replayed(one, runSeed), null);
});

test('a kept seed whose list takes place no more is told', async () => {
  const words = { found: 'f', cause: 'c', fixed: 'x' };
  assert.equal(await replayed({ seed: 1, ...words }, runSmall), null);
  assert.equal(await replayed({ seed: 1, only: ['step 0'], ...words }, runSmall), null);
  const gone = await replayed({ seed: 1, only: ['step 99'], ...words }, runSmall);
  assert.match(gone ?? '', /nothing that it lists takes place/);
});
