// Why: everything that a run of the world should reach, by the name under which a world counts it.
// Trusts: the tables of the real code. Must never: name a thing by hand that a table could give.

import { table } from '../../agent/update/machine.ts';
import { codes } from '../../shared/kernel/codes.ts';
import type { MachineStateName } from '../../shared/wire/messages.ts';
import { rolloutStates, waveStates } from '../../shared/wire/rollouts.ts';
import { faultKinds } from '../faults.ts';

export const deviceStates = Object.keys(table) as MachineStateName[];
const updating = deviceStates.filter((state) => table[state].updating);

/** What follows what within one update; a test walks the real machine and finds exactly `transitions`. */
const ways: readonly (readonly [MachineStateName, MachineStateName])[] = [
  ['offered', 'fetching'],
  ['fetching', 'verifying'],
  ['verifying', 'staging'],
  ['staging', 'probing'],
  ['probing', 'shadowing'],
  ['probing', 'switching'],
  ['shadowing', 'switching'],
  ['switching', 'soaking'],
  ['soaking', 'committed'],
  ['rolling-back', 'idle'],
  // A file that was held has rotted.
  ['verifying', 'fetching'],
  ['staging', 'fetching'],
  ['probing', 'fetching'],
  ['shadowing', 'fetching'],
  // A child does not survive a reboot.
  ['probing', 'staging'],
  ['shadowing', 'staging'],
  ['switching', 'staging'],
  // What serves cannot be kept alive.
  ['idle', 'rolling-back'],
  ['committed', 'rolling-back'],
];

const from = (states: readonly MachineStateName[], to: MachineStateName) =>
  states.filter((state) => state !== to).map((state) => [state, to] as const);

/** Every change of state that the machine can make, as `[from, to]`. */
export const transitions: readonly (readonly [MachineStateName, MachineStateName])[] = [
  ...ways,
  ...from(updating, 'rolling-back'),
  // A new assignment, of something new; of what was refused before; of what is the last good one.
  ...from(deviceStates, 'offered'),
  ...from(
    deviceStates.filter((state) => state !== 'rolling-back'),
    'idle',
  ),
  ...from(
    deviceStates.filter((state) => state !== 'soaking'),
    'committed',
  ),
];

export const expected: readonly string[] = [
  ...faultKinds.map((kind) => `fault ${kind}`),
  ...deviceStates.map((state) => `state device ${state}`),
  ...transitions.map(([before, after]) => `transition ${before} ${after}`),
  ...rolloutStates.map((state) => `rollout ${state}`),
  ...waveStates.map((state) => `wave ${state}`),
  ...Object.keys(codes).map((code) => `code ${code}`),
];
