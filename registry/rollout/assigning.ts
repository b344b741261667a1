// Why: who gets the release: newcomers find their wave, and the waiting devices of a wave their turn and room.
// Trusts: the facts. Must never: assign what a later or earlier rollout has a right to.

import type { Reason } from '../../shared/wire/messages.ts';
import { roomFor } from './disruption.ts';
import { type Draft, outcomeIn, waitingOf } from './draft.ts';
import type { DeviceFact, Member, RolloutFact } from './facts.ts';
import { isUnfit } from './fitness.ts';
import { policyOf } from './members.ts';
import { togetherWith } from './together.ts';
import { placeDevices } from './waves.ts';

/** Gives a wave to the devices that match and have none. */
export function admitNewcomers(
  draft: Draft,
  from: number,
  takes: (device: DeviceFact) => boolean = () => true,
): void {
  const arrived = draft.facts.devices.filter(
    (device) => device.member === null && device.active && takes(device),
  );
  if (arrived.length === 0) return;
  const { name, waves } = draft.rollout;
  const newcomers: string[] = [];
  for (const device of arrived) {
    const reason = draft.fitness(device);
    if (reason === null) newcomers.push(device.id);
    // Shown with the last wave and counted in none: a canary that cannot run the release would prove nothing.
    else draft.members.set(device.id, unfitMember(waves.length - 1, reason, draft.facts.nowMs));
  }
  const fit = [...draft.members].filter(([, member]) => !isUnfit(member));
  const members = new Map(fit.map(([id, member]) => [id, member.wave]));
  for (const [id, wave] of placeDevices({ name, waves, from, members, newcomers })) {
    draft.members.set(id, {
      wave,
      state: 'pending',
      reason: null,
      step: 'waiting',
      epoch: 0,
      stepAtMs: draft.facts.nowMs,
      previous: null,
    });
  }
}

function unfitMember(wave: number, reason: Reason, nowMs: number): Member {
  return { wave, state: 'incompatible', reason, step: 'left', epoch: 0, stepAtMs: nowMs, previous: null };
}

/** The later of two rollouts has a device, unless the earlier has the higher priority and the later has not ended. */
export function isTakenOver({ number, priority }: RolloutFact, device: DeviceFact): boolean {
  if (device.desiredNumber <= number) return false;
  return !(device.desiredOpen && priority > device.desiredPriority);
}

/** Those that are there first: one that is away takes up room and cannot use it. */
function inTurn(draft: Draft, wave: number): [string, Member, DeviceFact][] {
  const waiting = waitingOf(draft, wave);
  if (draft.rollout.spec.disruption === undefined) return waiting;
  return [...waiting.filter(([, , { online }]) => online), ...waiting.filter(([, , { online }]) => !online)];
}

/** Waiting devices that the release is not for any more: they hold no place in their site. */
function dropWaiting(draft: Draft, wave: number): void {
  for (const [id, member, device] of waitingOf(draft, wave)) {
    if (isTakenOver(draft.rollout, device)) {
      const reason = { code: 'update-superseded', detail: 'a later rollout took this device over' };
      draft.members.set(id, { ...member, step: 'left', reason });
      continue;
    }
    const unfit = draft.fitness(device);
    if (unfit !== null) {
      draft.members.set(id, { ...member, step: 'left', state: 'incompatible', reason: unfit });
    }
  }
}

/** Assigns the release to the waiting devices of one wave, within the step's bound and the file's. */
export function assignWave(draft: Draft, wave: number): void {
  const { facts, rollout } = draft;
  dropWaiting(draft, wave);
  const room = roomFor(rollout.spec.disruption, wave, partsOf(draft));
  for (const [id, member, device] of inTurn(draft, wave)) {
    if (device.behind !== null) continue;
    if (draft.desired.size >= facts.changesMax) {
      return;
    }
    if (!room.take(device)) continue;
    draft.desired.set(id, {
      ...rollout.release,
      rolloutId: rollout.id,
      policy: togetherWith(rollout, rollout.as, policyOf(rollout.spec, rollout.waves[wave])),
    });
    draft.members.set(id, { ...member, step: 'assigned', stepAtMs: facts.nowMs, previous: device.proven });
  }
}

function* partsOf(draft: Draft) {
  for (const device of draft.facts.devices)
    yield { device, member: draft.members.get(device.id), outcome: outcomeIn(draft, device) };
}
