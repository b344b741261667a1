// Why: a world whose process dies at one seed, which never ends at another and throws at a third.
// Trusts: nothing. Must never: be run in the process of a test.

import { brokenRun } from '../../firmware-sim/explore/runner.ts';
import type { RunSeed } from '../../firmware-sim/explore/seed-run.ts';

export const runSeed: RunSeed = async ({ seed }) => {
  if (seed === 3) process.exit(7);
  if (seed === 5) await new Promise(() => undefined);
  if (seed === 6) throw new Error('no such disk');
  return { ...brokenRun(seed, ''), violation: null, operations: seed, devices: 1, faults: ['step 0'] };
};
