// Why: how much of a fleet's life one core simulates in a minute. Trusts: the fleet world's seeds.
// Must never: count a seed that broke an invariant.

import { runSeed } from '../../firmware-sim/fleet-world/run-seed.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { round } from './measure.ts';

/** Compiled code is as fast as it gets after so many. */
const warmUpSeeds = 10;
const seeds = 100;
const minuteMs = 60_000;
const dayMs = 86_400_000;

/** In this process alone, so on one core. */
export async function benchSimulation(): Promise<object> {
  for (let seed = 1; seed <= warmUpSeeds; seed += 1) await runSeed({ seed });
  let deviceMs = 0;
  let operations = 0;
  let broken = 0;
  const start = systemClock.mono();
  for (let seed = warmUpSeeds + 1; seed <= warmUpSeeds + seeds; seed += 1) {
    const result = await runSeed({ seed });
    if (result.violation !== null) broken += 1;
    deviceMs += result.devices * result.endedAtMs;
    operations += result.operations;
  }
  const minutes = (systemClock.mono() - start) / minuteMs;
  return {
    seeds,
    broken,
    seedsPerMinute: round(seeds / minutes),
    deviceDaysPerMinute: round(deviceMs / dayMs / minutes),
    operationsPerSecond: Math.round(operations / minutes / 60),
  };
}
