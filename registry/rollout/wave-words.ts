// Why: what a wave waits for, in words. Trusts: the draft. Must never: change it.

import { type Draft, waitingOf } from './draft.ts';
import type { Outcome } from './members.ts';

/** Which rollouts have to end before the wave's devices are free, in words; null where none. */
export function behindOf(draft: Draft, wave: number): string | null {
  const devices = draft.facts.devices.filter(({ id, behind }) => {
    const member = draft.members.get(id);
    return behind !== null && member?.wave === wave && member.step === 'waiting';
  });
  const ahead = [...new Set(devices.map(({ behind }) => `${behind?.id} (${behind?.state})`))].sort();
  if (ahead.length === 0) return null;
  const count = devices.length;
  return `${count} ${count === 1 ? 'device waits' : 'devices wait'} for ${ahead.join(', ')} to end`;
}

export function waitingFor(outcomes: readonly Outcome[]): string | null {
  const away = outcomes.filter(({ kind }) => kind === 'unreachable').length;
  return away === 0 ? null : `waiting for ${away} unreachable ${away === 1 ? 'device' : 'devices'}`;
}

/** Devices of other waves that are away take up the room of this one's, in words; null where they do not. */
export function roomHeld(draft: Draft, wave: number): string | null {
  if (draft.rollout.spec.disruption === undefined) return null;
  const waiting = waitingOf(draft, wave).filter(([, , { behind }]) => behind === null).length;
  const away = [...draft.observed].filter(
    ([id, { step: done }]) => done === 'assigned' && draft.outcomes.get(id)?.kind === 'unreachable',
  ).length;
  if (waiting === 0 || away === 0) return null;
  const those = away === 1 ? 'device, which takes' : 'devices, which take';
  return `waiting for ${away} unreachable ${those} up the room of ${waiting} ${waiting === 1 ? 'other' : 'others'}`;
}
