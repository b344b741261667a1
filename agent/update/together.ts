// Why: models of one rollout that switch together: none before all of them can, none is committed before all have
// soaked, and none stays where one went back.
// Trusts: its arguments only; it is pure, as the machine is. Must never: let two wait for each other without an end.

import type { Reason } from '../../shared/wire/messages.ts';
import { type DeviceTime, doorOf } from './doors.ts';
import { hasSoaked, type MachineState } from './machine-state.ts';

/** The other models of the device, by the name under which they are served. */
export type Others = (as: string) => MachineState | null;

/** At work on the same rollout, or done with it. */
const isOf = (state: MachineState, partner: MachineState | null): partner is MachineState =>
  partner !== null && partner.rolloutId !== null && partner.rolloutId === state.rolloutId;

/** It has been probed, and nothing of its own keeps it from switching. */
function isReady(partner: MachineState, time: DeviceTime): boolean {
  if (partner.phase === 'switching' || partner.phase === 'soaking' || partner.phase === 'committed')
    return true;
  return (
    partner.held?.door === 'activate' &&
    doorOf('activate', partner, { ...time, together: null }).reason === null
  );
}

/** One of them was committed when all had soaked, this one too: what another rollout does with a third undoes nothing. */
const isDecided = (state: MachineState, others: Others): boolean =>
  hasSoaked(state) &&
  (state.policy.together ?? []).some((as) => {
    const partner = others(as);
    return isOf(state, partner) && partner.phase === 'committed' && partner.committedFor === state.rolloutId;
  });

/**
 * Why the model may not switch yet, or not be committed yet where it has; null where nothing keeps it. While one waits
 * another is at work under deadlines of its own, or has failed, which `parting` tells.
 */
export function withheld(state: MachineState, others: Others, time: DeviceTime): Reason | null {
  if (isDecided(state, others)) return null;
  const late = (state.policy.together ?? []).filter((as) => {
    const partner = others(as);
    if (!isOf(state, partner)) return true;
    return state.phase === 'soaking' ? !hasSoaked(partner) : !isReady(partner, time);
  });
  if (late.length === 0) return null;
  return { code: 'update-together', detail: `it switches together with ${late.join(', ')}` };
}

/**
 * Why the model cannot be what its rollout wants of it, null where nothing is known against it. `isTold`: the assignment
 * in force was taken since this start, so that a partner of another rollout is none.
 */
export function parting(state: MachineState, others: Others, isTold: boolean): Reason | null {
  for (const as of state.policy.together ?? []) {
    const partner = others(as);
    if (!isOf(state, partner)) {
      // What was switched stays whatever a later rollout does with its partner.
      if (isTold && state.phase !== 'committed' && !isDecided(state, others))
        return { code: 'update-parted', detail: `${as} is not to switch with it any more` };
      continue;
    }
    const { rejected, phase, target } = partner;
    const hasFailed =
      (phase === 'rolling-back' || phase === 'idle') && rejected?.rolloutId === state.rolloutId;
    if (hasFailed && rejected !== null)
      return {
        code: 'update-parted',
        detail: `${as} ${target?.releaseId ?? ''}: ${rejected.reason.code}: ${rejected.reason.detail}`.slice(
          0,
          2_000,
        ),
      };
  }
  return null;
}
