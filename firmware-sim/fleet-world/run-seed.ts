// Why: one seed from its first boot to the fleet at rest: chaos for a while, then everything heals, and the fleet must
// agree in bounded time. Trusts: the oracles. Must never: let a run pass in which the fleet did not come to rest.

import { registryMigrations } from '../../registry/store/open.ts';
import { liveSeed } from '../explore/seed-life.ts';
import { latestGeneration, type RunSeed, type SeedOptions, type SeedResult } from '../explore/seed-run.ts';
import { guarded } from '../guard.ts';
import { accountsOf } from '../oracle/accounts.ts';
import { disagreement } from '../oracle/agreement.ts';
import { registryFile } from '../oracle/registry-oracle.ts';
import { createFleetWorld, type FleetWorld } from './fleet.ts';
import { createOperator } from './operator.ts';
import { drawScenario, sites } from './scenario.ts';
import { drawTerms } from './terms.ts';

/** How often is looked whether the fleet agrees, in its own time. */
const lookEveryMs = 20_000;

export const runSeed: RunSeed = (options) => {
  // Part of the program, read from its folder: before the doors are shut.
  registryMigrations();
  return guarded(() => run(options));
};

async function run({
  seed,
  only,
  trace = false,
  generation = latestGeneration,
}: SeedOptions): Promise<SeedResult> {
  const terms = drawTerms(seed, generation);
  const fleet = createFleetWorld(seed, terms, { trace, ...(only === undefined ? {} : { only }) });
  return liveSeed({
    ...{ seed, trace, world: fleet.world, faults: fleet.faults, reached: fleet.reached },
    live: () => live(fleet),
    told: () => countStored(fleet),
    devices: () => fleet.devices.length,
  });
}

/** What a registry and its devices have written down, and never logged with these words. */
function countStored({ registry, devices, reached }: FleetWorld): void {
  const codes = registry.place.look(registryFile, (db) => [
    ...db.all<{ code: string | null }>('SELECT code FROM fleet_events'),
    ...db.all<{ code: string | null }>(
      `SELECT json_extract(reason, '$.code') AS code FROM rollout_devices WHERE reason IS NOT NULL`,
    ),
  ]);
  const waves = registry.place.look(registryFile, (db) =>
    db.all<{ state: string }>('SELECT state FROM rollout_waves'),
  );
  for (const { state } of waves ?? []) reached.count('wave', state);
  const reasons = devices.flatMap(({ oracle }) =>
    [...oracle.machines().values()].map(({ reason }) => reason),
  );
  for (const one of [...(codes ?? []), ...reasons]) if (one?.code != null) reached.count('code', one.code);
}

async function live(fleet: FleetWorld): Promise<void> {
  const { world, terms, faults } = fleet;
  const operator = createOperator(fleet);
  fleet.registry.boot();
  for (let index = 0; index < terms.devices; index += 1)
    fleet.addDevice({ site: sites[index % sites.length] ?? 'north' });
  for (const step of drawScenario(world.seed, terms)) {
    world.later(step.atMs, () => {
      if (faults.takesPlace(step.number)) operator.take(step);
    });
  }
  await world.run(terms.chaosMs);
  fleet.heal();
  operator.tidyUp();
  const healedAtMs = world.nowMs();
  for (let why: string | null = 'not looked'; why !== null && world.violation() === null; ) {
    await world.run(world.nowMs() + lookEveryMs);
    const expected = fleet.devices.filter(({ revoked }) => !revoked);
    why = disagreement(fleet.registry, expected, fleet.publisher);
    if (why !== null && world.nowMs() - healedAtMs > terms.convergeMs)
      world.violate(
        `the fleet does not agree ${terms.convergeMs / 60_000} minutes after everything healed: ${why}`,
      );
  }
  if (world.violation() !== null) return;
  const account = accountsOf(fleet);
  if (account !== null) world.violate(account);
}
