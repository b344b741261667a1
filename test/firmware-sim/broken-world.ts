// Why: a world in which something breaks, for tests of what follows then. Trusts: the planted bugs.
// Must never: be loaded outside tests.

import type { RunSeed } from '../../firmware-sim/explore/seed-run.ts';
import { oneDeviceWorld } from './one-device-world.ts';
import { planted } from './planted.ts';

export const runSeed: RunSeed = oneDeviceWorld(planted['no fsync before rename']);
