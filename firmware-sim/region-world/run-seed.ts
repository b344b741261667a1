// Why: one seed of several regions from the first boot to rest: chaos for a while, then everything heals, and all regions
// must have the home's catalogue, their devices and their rollouts at rest, and each record once, in bounded time. Trusts: the oracles.
// Must never: let a run pass in which the regions did not come to rest.

import { loadMoving } from '../../agent/moving.ts';
import { registryMigrations } from '../../registry/store/open.ts';
import { liveSeed } from '../explore/seed-life.ts';
import type { RunSeed, SeedOptions, SeedResult } from '../explore/seed-run.ts';
import { guarded } from '../guard.ts';
import { regionAccounts } from '../oracle/region-accounts.ts';
import { regionDisagreement } from '../oracle/region-agreement.ts';
import { devicesDisagree, rolloutsDisagree } from '../oracle/region-rest.ts';
import { createRegionOperator, type RegionOperator } from './operator.ts';
import { createRegionsWorld, type RegionsWorld } from './regions.ts';
import { drawRegionScenario, drawRegionTerms, type RegionTerms } from './scenario.ts';

const lookEveryMs = 20_000;

export const runSeed: RunSeed = async (options) => {
  // Parts of the program, read from its folder: before the doors are shut.
  registryMigrations();
  await loadMoving();
  return guarded(() => run(options));
};

async function run({ seed, only, trace = false }: SeedOptions): Promise<SeedResult> {
  const terms = drawRegionTerms(seed);
  const all = createRegionsWorld(seed, { trace, ...(only === undefined ? {} : { only }) });
  return liveSeed({
    ...{ seed, trace, world: all.world, faults: all.faults, reached: all.reached },
    live: () => live(all, terms),
    devices: () => all.devices.length,
  });
}

function disagreement(all: RegionsWorld, terms: RegionTerms, operator: RegionOperator): string | null {
  const catalogue = regionDisagreement(all, terms.regions);
  if (catalogue !== null) return catalogue;
  return operator.open() ?? rolloutsDisagree(all) ?? devicesDisagree(all);
}

async function live(all: RegionsWorld, terms: RegionTerms): Promise<void> {
  const { world, faults } = all;
  const operator = createRegionOperator(all, terms);
  operator.begin();
  for (const step of drawRegionScenario(world.seed, terms)) {
    world.later(step.atMs, () => {
      if (faults.takesPlace(step.number)) operator.take(step);
    });
  }
  await world.run(terms.chaosMs);
  all.heal();
  operator.tidyUp();
  const healedAtMs = world.nowMs();
  for (let why: string | null = 'not looked'; why !== null && world.violation() === null; ) {
    await world.run(world.nowMs() + lookEveryMs);
    operator.lookAgain();
    why = disagreement(all, terms, operator);
    if (why !== null && world.nowMs() - healedAtMs > terms.convergeMs)
      world.violate(
        `the regions do not agree ${terms.convergeMs / 60_000} minutes after everything healed: ${why}`,
      );
  }
  if (world.violation() !== null) return;
  const account = regionAccounts(all);
  if (account !== null) world.violate(account);
}
