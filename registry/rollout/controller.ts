// Why: one step of a rollout: from stored facts to the next state, who gets the release and who goes back.
// Trusts: the facts. Must never: touch a clock, a database or the bus; a restarted registry steps on from
// the same facts to the same end.
//
//   awaiting-approval ⇄ running ⇄ paused → succeeded | rolling-back → failed | aborted
//
// A rollout that has ended is still observed: devices that come late report into it, and a succeeded one
// goes on applying to devices that match later.

import type { Reason } from '../../shared/wire/messages.ts';
import { approvalsMissing } from './approvals.ts';
import { admitNewcomers, assignWave, isTakenOver } from './assigning.ts';
import { type Draft, outcomesOf, wakeAt } from './draft.ts';
import type { DeviceFact, Member, RolloutDecision, RolloutFacts, WaveFact } from './facts.ts';
import { fitnessFor, isUnfit } from './fitness.ts';
import { judgeWave } from './gates.ts';
import { rollBack, withhold } from './going-back.ts';
import { isRestored, type Outcome, outcomeOf } from './members.ts';
import { behindOf, roomHeld, waitingFor } from './wave-words.ts';

/** Why nobody may install one of its releases any more: together means all of them. */
function barredOf({ rollout, barred }: RolloutFacts): Reason | undefined {
  const { release, companions = [] } = rollout;
  return [release, ...companions.map((one) => one.release)]
    .map(({ releaseId }) => barred[releaseId])
    .find((reason) => reason !== undefined);
}

/** The next step of a rollout. Stepping again without new facts changes nothing. */
export function step(facts: RolloutFacts): RolloutDecision {
  const draft: Draft = {
    facts,
    rollout: { ...facts.rollout },
    waves: facts.waves.map((wave) => ({ ...wave })),
    members: new Map(
      // Not copied: a member that changes becomes another one.
      facts.devices.flatMap(({ id, member }) => (member === null ? [] : [[id, member]])),
    ),
    devices: new Map(facts.devices.map((device) => [device.id, device])),
    desired: new Map(),
    fitness: fitnessFor(facts.rollout),
    outcomes: new Map(),
    observed: new Map(),
    wakeAtMs: null,
  };
  observe(draft);
  const barred = barredOf(facts);
  if (barred !== undefined && draft.rollout.state !== 'rolling-back') withhold(draft, barred);
  else if (draft.rollout.state === 'running' || draft.rollout.state === 'awaiting-approval') run(draft);
  else if (draft.rollout.state === 'succeeded') applyToLateDevices(draft);
  // Not `else`: a gate that fails in this step starts the way back in the same step.
  if (draft.rollout.state === 'rolling-back') rollBack(draft);
  const { rollout, waves, members, desired, wakeAtMs } = draft;
  return { rollout, waves, members, desired, wakeAtMs };
}

/** Brings every member's state in line with what its device reported. */
function observe(draft: Draft): void {
  for (const [id, member] of draft.members) {
    const device = draft.devices.get(id);
    if (device === undefined) continue;
    const present = returned(draft, device, member);
    if (present.step === 'reverted') {
      draft.members.set(id, observeReverted(draft, device, present));
      continue;
    }
    const outcome = outcomeOf(draft.rollout, device, present, draft.facts.nowMs);
    draft.outcomes.set(id, outcome);
    wakeAt(draft, outcome.untilMs);
    const { state, reason } = outcome;
    const memberStep = outcome.kind === 'left' ? 'left' : present.step;
    const isSame = present.state === state && present.reason === reason && present.step === memberStep;
    const next: Member = isSame ? present : { ...present, state, reason, step: memberStep };
    draft.members.set(id, next);
    draft.observed.set(id, next);
  }
}

/** One that had left is counted again when it is back: taken back from a later rollout, or out of quarantine. */
function returned(draft: Draft, device: DeviceFact, member: Member): Member {
  if (member.step !== 'left' || !device.active) return member;
  if (device.desired?.rolloutId === draft.rollout.id) return { ...member, step: 'assigned', reason: null };
  const applies = draft.rollout.state === 'running' || draft.rollout.state === 'succeeded';
  // A newer agent, for instance: it reports again what it is.
  if (applies && isUnfit(member) && draft.fitness(device) === null)
    return { ...member, step: 'waiting', state: 'pending', reason: null };
  const neverAssigned = member.epoch === 0 && member.reason?.code === 'device-revoked';
  return neverAssigned ? { ...member, step: 'waiting', reason: null } : member;
}

/** A device that failed keeps what it failed on; another shows how it goes back. */
function observeReverted(draft: Draft, device: DeviceFact, member: Member): Member {
  if (member.reason !== null) return member;
  const { restored } = isRestored(draft.rollout, device, member, draft.facts.nowMs);
  return { ...member, state: restored ? 'idle' : 'rolling-back' };
}

/** Goes through the waves in order, as far as they let it. */
function run(draft: Draft): void {
  const { facts, rollout } = draft;
  const current = draft.waves.findIndex((wave) => wave.state !== 'passed');
  admitNewcomers(draft, Math.max(current, 0));
  if (draft.members.size === 0) {
    rollout.reason = 'waiting for a device that the selector matches';
    return;
  }
  rollout.reason = null;
  rollout.state = 'running';
  if (supersededWhole(draft) || unfitWhole(draft)) return;
  for (const wave of draft.waves) {
    if (wave.state === 'passed') {
      assignWave(draft, wave.index);
      continue;
    }
    if (wave.state === 'pending') {
      if (awaitsApproval(draft, wave.index)) return;
      wave.state = 'running';
      wave.startedAtMs = facts.nowMs;
    }
    assignWave(draft, wave.index);
    // Devices that came with this step may all be a later rollout's: nobody is left who could prove the release.
    if (supersededWhole(draft)) return;
    const outcomes = outcomesOf(draft, wave.index);
    const evidence = facts.evidence[wave.index] ?? null;
    const beside = facts.beside?.[wave.index];
    const judgement = judgeWave(rollout.spec, wave.index, outcomes, evidence, beside);
    wave.gates = judgement.gates;
    wave.reason =
      judgement.reason ?? behindOf(draft, wave.index) ?? waitingFor(outcomes) ?? roomHeld(draft, wave.index);
    if (judgement.verdict === 'fail') {
      failWave(draft, wave, judgement.reason ?? 'a gate failed');
      return;
    }
    if (judgement.verdict === 'waiting') {
      wave.state = isSoaking(outcomes) ? 'soaking' : 'running';
      rollout.reason = wave.reason;
      return;
    }
    wave.state = 'passed';
    wave.reason = null;
    wave.endedAtMs = facts.nowMs;
  }
  rollout.state = 'succeeded';
  rollout.endedAtMs = facts.nowMs;
}

/** Waves begin one after the other, so those behind it wait as well. */
function awaitsApproval(draft: Draft, wave: number): boolean {
  const { rollout, facts } = draft;
  const missing = approvalsMissing(rollout.spec, wave, facts.approvals, facts.nowMs);
  if (missing === 0) return false;
  rollout.state = 'awaiting-approval';
  rollout.reason = `wave ${wave} waits for ${missing} more ${missing === 1 ? 'approval' : 'approvals'}`;
  return true;
}

/** Nobody can try the release: its first wave fails instead of passing empty. */
function unfitWhole(draft: Draft): boolean {
  const [first, ...others] = draft.members.values();
  const wave = draft.waves.find(({ state }) => state !== 'passed');
  if (first === undefined || wave === undefined || ![first, ...others].every(isUnfit)) return false;
  const devices = others.length === 0 ? 'the device that matches' : `any of ${others.length + 1} that match`;
  failWave(draft, wave, `release-incompatible: not for ${devices}: ${first.reason?.detail ?? ''}`);
  return true;
}

/** Ends a rollout all of whose devices a later one has taken. */
function supersededWhole(draft: Draft): boolean {
  const superseded = [...draft.members.values()].every(
    ({ step: done, reason }) => done === 'left' && reason?.code === 'update-superseded',
  );
  if (!superseded) return false;
  draft.rollout.state = 'aborted';
  draft.rollout.reason = 'a later rollout took over all of its devices';
  draft.rollout.endedAtMs = draft.facts.nowMs;
  return true;
}

/** All that is not done yet soaks; where all is done, its gates wait for more evidence. */
function isSoaking(outcomes: readonly Outcome[]): boolean {
  const open = outcomes.filter(
    ({ kind }) => kind === 'working' || kind === 'waiting' || kind === 'unreachable',
  );
  return open.every(({ state }) => state === 'soaking');
}

function failWave(draft: Draft, wave: WaveFact, reason: string): void {
  const { rollout, facts } = draft;
  wave.state = 'failed';
  wave.reason = reason;
  wave.endedAtMs = facts.nowMs;
  rollout.reason = reason;
  if (rollout.spec.onGateFailure === 'pause') {
    rollout.state = 'paused';
    return;
  }
  rollout.state = 'rolling-back';
  rollout.endsAs = 'failed';
}

/** A succeeded rollout goes on applying, until another one has given the device something later. */
function applyToLateDevices(draft: Draft): void {
  // Asked before they are placed: one that stays away must not make the share of those that come greater.
  admitNewcomers(draft, 0, (device) => !isTakenOver(draft.rollout, device));
  for (const wave of draft.waves) assignWave(draft, wave.index);
}
