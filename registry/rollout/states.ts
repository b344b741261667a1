// Why: every change of state that a rollout, a wave and a device's part in it can make, and when: the table of
// ARCHITECTURE.md is made of it, tests walk random histories and find exactly these, the simulator knows no others.
// Trusts: nothing. Must never: decide anything; that is controller.ts.

import type { RolloutState, WaveState } from '../../shared/wire/rollouts.ts';
import type { MemberStep } from './facts.ts';

export interface Change<State extends string> {
  from: State;
  to: State;
  when: string;
}

const each = <State extends string>(from: readonly State[], to: State, when: string): Change<State>[] =>
  from.map((one) => ({ from: one, to, when }));

/** `draft` is a word of the API that nothing uses yet. */
export const rolloutChanges: readonly Change<RolloutState>[] = [
  { from: 'running', to: 'awaiting-approval', when: 'the next wave waits for people' },
  { from: 'awaiting-approval', to: 'running', when: 'enough people approved' },
  ...each<RolloutState>(['running', 'awaiting-approval'], 'paused', 'somebody paused it'),
  { from: 'running', to: 'paused', when: 'a gate failed and the file says `onGateFailure: pause`' },
  { from: 'paused', to: 'running', when: 'somebody resumed it, and no wave has failed' },
  ...each<RolloutState>(['running', 'awaiting-approval'], 'succeeded', 'every wave has passed'),
  ...each<RolloutState>(
    ['running', 'awaiting-approval'],
    'rolling-back',
    'a gate failed, or no device can run the release',
  ),
  ...each<RolloutState>(['running', 'awaiting-approval', 'paused'], 'rolling-back', 'aborted, going back'),
  ...each<RolloutState>(
    ['running', 'awaiting-approval', 'paused'],
    'aborted',
    'aborted, keeping what is there',
  ),
  ...each<RolloutState>(
    ['running', 'awaiting-approval'],
    'aborted',
    'a later rollout has taken over all of its devices',
  ),
  ...each<RolloutState>(
    ['running', 'awaiting-approval', 'paused'],
    'failed',
    'its publisher took the release back, or a gate failed and nothing was assigned any more',
  ),
  {
    from: 'rolling-back',
    to: 'failed',
    when: 'a gate had failed, and every device that is there has gone back',
  },
  {
    from: 'rolling-back',
    to: 'aborted',
    when: 'it was aborted, and every device that is there has gone back',
  },
];

export const waveChanges: readonly Change<WaveState>[] = [
  { from: 'pending', to: 'running', when: 'the wave before it has passed, and people allowed it' },
  { from: 'pending', to: 'passed', when: 'as above, where it has no device that is counted' },
  { from: 'pending', to: 'failed', when: 'no device can run the release' },
  { from: 'running', to: 'soaking', when: 'all of its devices that are not done soak' },
  { from: 'soaking', to: 'running', when: 'one of them does not any more, or another device came' },
  ...each<WaveState>(['running', 'soaking'], 'passed', 'every device is settled and every gate passes'),
  ...each<WaveState>(
    ['running', 'soaking'],
    'failed',
    'a gate cannot be met any more, or the release was taken back',
  ),
  ...each<WaveState>(['running', 'soaking', 'passed'], 'rolled-back', 'the rollout went back'),
];

/** Of a device's part; `none`: it matches and has no wave. Its state beside that is the update machine's. */
export const partChanges: readonly Change<MemberStep | 'none'>[] = [
  { from: 'none', to: 'waiting', when: 'it has a wave' },
  { from: 'none', to: 'assigned', when: 'as above, and its wave is under way' },
  { from: 'none', to: 'left', when: 'it cannot run the release' },
  { from: 'waiting', to: 'assigned', when: 'its wave is under way, nobody goes first and its site has room' },
  {
    from: 'waiting',
    to: 'left',
    when: 'a later rollout has it, it is revoked, it cannot run the release, or that was taken back',
  },
  { from: 'assigned', to: 'reverted', when: 'the rollout goes back, or the release was taken back' },
  ...each<MemberStep | 'none'>(
    ['none', 'waiting', 'left'],
    'reverted',
    'it was to be assigned in the very step in which the rollout goes back',
  ),
  { from: 'assigned', to: 'left', when: 'a later rollout has it, or it is revoked' },
  { from: 'left', to: 'assigned', when: 'the later rollout went back, or it is out of quarantine' },
  {
    from: 'left',
    to: 'waiting',
    when: 'it can run the release now, or it is out of quarantine before its turn',
  },
];
