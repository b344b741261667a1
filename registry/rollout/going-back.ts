// Why: the way back: of a rollout that failed or was ended, and of a release that nobody may install any more.
// Trusts: the facts. Must never: send a device to what it may not install.

import type { Reason } from '../../shared/wire/messages.ts';
import { type Draft, wakeAt } from './draft.ts';
import type { DeviceFact, Member, RolloutFact } from './facts.ts';
import { goingBack } from './fitness.ts';
import { isRestored, outcomeOf } from './members.ts';

/** States in which a rollout may still assign something by itself. */
const open: ReadonlySet<RolloutFact['state']> = new Set(['draft', 'awaiting-approval', 'running', 'paused']);

/**
 * Its publisher took the release back: nobody installs it any more. Who runs it keeps it, whoever was told to
 * install it and has not done so goes back.
 */
export function withhold(draft: Draft, why: Reason): void {
  const { facts, rollout } = draft;
  const words = `${why.code}: ${why.detail}; devices that run it keep it`;
  if (open.has(rollout.state)) {
    for (const wave of draft.waves) {
      if (wave.state !== 'running' && wave.state !== 'soaking') continue;
      Object.assign(wave, { state: 'failed', reason: words, endedAtMs: facts.nowMs });
    }
    Object.assign(rollout, { state: 'failed', reason: words, endedAtMs: facts.nowMs });
  } else if (rollout.state === 'succeeded') rollout.reason = words;
  for (const [id, member] of draft.members) {
    const device = draft.devices.get(id);
    if (device === undefined) continue;
    if (member.step === 'waiting') draft.members.set(id, { ...member, step: 'left', reason: why });
    if (member.step !== 'assigned' || device.desired?.rolloutId !== rollout.id) continue;
    if (device.model?.active === rollout.release.releaseId) continue;
    if (draft.desired.size >= facts.changesMax) return;
    const back = goingBack(facts.barred, device, member.previous);
    draft.desired.set(id, back.release);
    draft.members.set(id, {
      ...member,
      step: 'reverted',
      state: 'idle',
      reason: back.reason ?? why,
      stepAtMs: facts.nowMs,
      previous: back.release,
    });
  }
}

/** Takes back what was assigned and waits until the devices that are there run what they ran before. */
export function rollBack(draft: Draft): void {
  const { facts, rollout } = draft;
  let open = 0;
  for (const [id, member] of draft.members) {
    const device = draft.devices.get(id);
    if (device === undefined) continue;
    if (member.step === 'assigned') {
      if (draft.desired.size >= facts.changesMax) {
        return;
      }
      const back = goingBack(facts.barred, device, member.previous);
      draft.desired.set(id, back.release);
      const reverted = { ...revertedMember(draft, device, member), previous: back.release };
      draft.members.set(
        id,
        back.reason === null ? reverted : { ...reverted, reason: back.reason, state: 'idle' },
      );
      open += 1;
    } else if (member.step === 'reverted') {
      const { restored, untilMs } = isRestored(rollout, device, member, facts.nowMs);
      if (restored) continue;
      open += 1;
      wakeAt(draft, untilMs);
    }
  }
  if (open > 0) return;
  for (const wave of draft.waves) {
    if (wave.state === 'pending' || wave.state === 'failed') continue;
    wave.state = 'rolled-back';
    wave.endedAtMs = facts.nowMs;
  }
  rollout.state = rollout.endsAs ?? 'failed';
  rollout.endsAs = null;
  rollout.endedAtMs = facts.nowMs;
}

function revertedMember(draft: Draft, device: DeviceFact, member: Member): Member {
  const outcome = outcomeOf(draft.rollout, device, member, draft.facts.nowMs);
  const failed = outcome.kind === 'failed';
  return {
    ...member,
    step: 'reverted',
    stepAtMs: draft.facts.nowMs,
    state: failed ? outcome.state : 'rolling-back',
    reason: failed ? outcome.reason : null,
  };
}
