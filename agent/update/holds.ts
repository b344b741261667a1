// Why: the part of the update machine that waits: before a window that is closed, or because somebody said "not now".
// Trusts: its arguments only; it is pure, as the machine is. Must never: hold anything but what goes forward.

import type { ActivationPolicy, MachineStateName } from '../../shared/wire/messages.ts';
import {
  type Around,
  cleared,
  type Deferral,
  type DeviceTime,
  type Door,
  deferTimeMs,
  doorOf,
  granted,
  rebased,
  windowOf,
} from './doors.ts';
import type { Change, Effect, Handler } from './machine-events.ts';
import type { MachineState } from './machine-state.ts';

/**
 * It waits before the door, without a deadline. What was staged goes from memory: it may be a week. Its journal writes
 * are counted anew, for whoever came so far is in no reboot loop.
 */
function hold(state: MachineState, door: Door, nowMs: number): Change {
  const { deadlineAtMs } = state;
  const leftMs = deadlineAtMs === null ? null : Math.max(0, deadlineAtMs - nowMs);
  return {
    set: { held: { door, leftMs }, deadlineAtMs: null, journalWrites: 0 },
    effects: door === 'activate' ? ['settle', 'await'] : ['await'],
  };
}

/** Enters the state behind the door, or waits before it. */
export function through(
  state: MachineState,
  door: Door,
  set: Partial<MachineState>,
  nowMs: number,
  around: Around,
): Change {
  if (doorOf(door, state, around).reason === null)
    return { to: door === 'download' ? 'fetching' : 'switching', set };
  const held = hold(state, door, nowMs);
  return { ...held, set: { ...held.set, ...set } };
}

export const opened: Handler<'opened'> = (state, _event, nowMs, time) => {
  const { held } = state;
  if (held === null || doorOf(held.door, state, time).reason !== null) return null;
  if (held.door === 'activate') {
    // Terms that came meanwhile may ask for a comparison that there was not.
    const isCompared = state.policy.shadow === undefined || state.active === null || state.shadow !== null;
    return { to: isCompared ? 'switching' : 'staging' };
  }
  if (state.phase !== 'fetching') return { to: 'fetching' };
  const deadlineAtMs = held.leftMs === null ? null : nowMs + held.leftMs;
  return { set: { held: null, deadlineAtMs }, effects: ['fetch'] };
};

/** Whoever downloads stops where it is. */
export const closed: Handler<'closed'> = (state, _event, nowMs, time) =>
  state.held !== null || windowOf('download', state.policy, time).reason === null
    ? null
    : hold(state, 'download', nowMs);

/** Other windows than before: what waits for one, or keeps to one, looks again. */
export function effectsUnder(state: MachineState, policy: ActivationPolicy): Effect[] {
  if (JSON.stringify(policy.windows) === JSON.stringify(state.policy.windows)) return [];
  if (state.held !== null) return ['await'];
  return state.phase === 'fetching' ? ['fetch'] : [];
}

/** Before the switch there is something to put off; afterwards the release serves already. */
const deferrable: ReadonlySet<MachineStateName> = new Set([
  'offered',
  'fetching',
  'verifying',
  'staging',
  'probing',
  'shadowing',
]);

/** Back to what was proven here before: whoever asks for that has a reason that does not wait. */
export const isWayBack = ({ previous }: MachineState, manifestSha256: string | undefined): boolean =>
  previous !== null && previous.manifestSha256 === manifestSha256;

/** Whether "not now" means anything to this update. */
export const isDeferrable = (state: MachineState): boolean =>
  deferrable.has(state.phase) && !isWayBack(state, state.candidate?.manifestSha256);

/** A person's word is no restart of the update: its journal write is not counted. */
function saidAt(state: MachineState, deferral: Deferral): Change {
  const { journalWrites, held } = state;
  return { set: { deferral, journalWrites: journalWrites - 1 }, effects: held === null ? [] : ['await'] };
}

export function onDeferred(state: MachineState, forMs: number | null, time: DeviceTime): Change | null {
  if (!isDeferrable(state)) return null;
  const nowMs = deferTimeMs(time);
  const { deferral } = state;
  const next =
    forMs !== null
      ? granted(state.policy, deferral, forMs, nowMs)
      : deferral === null
        ? null
        : cleared(deferral, nowMs);
  if (next === null) return null;
  return saidAt(state, next);
}

export function onClockSet(state: MachineState, time: DeviceTime): Change | null {
  const deferral = state.deferral === null ? null : rebased(state.deferral, deferTimeMs(time));
  return deferral === null ? null : saidAt(state, deferral);
}
