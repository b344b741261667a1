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
import { roomFor } from './disruption.ts';
import type {
  DesiredRelease,
  DeviceFact,
  Member,
  RolloutDecision,
  RolloutFact,
  RolloutFacts,
  WaveFact,
} from './facts.ts';
import { type Fitness, fitnessFor, goingBack, isUnfit } from './fitness.ts';
import { judgeWave } from './gates.ts';
import { isRestored, type Outcome, outcomeOf, policyOf } from './members.ts';
import { togetherWith } from './together.ts';
import { placeDevices } from './waves.ts';

/** A step under construction: the facts, and what was decided so far. */
interface Draft {
  facts: RolloutFacts;
  rollout: RolloutFact;
  waves: WaveFact[];
  members: Map<string, Member>;
  devices: Map<string, DeviceFact>;
  desired: Map<string, DesiredRelease | null>;
  fitness: Fitness;
  /** What became of each member, by this step's facts, and the member that this was said of. */
  outcomes: Map<string, Outcome>;
  observed: Map<string, Member>;
  wakeAtMs: number | null;
}

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

/**
 * An operator ends it: what is assigned stays, or with `revert` goes back.
 * Returns null where the rollout has ended already.
 */
export function abort(rollout: RolloutFact, by: string, revert: boolean, nowMs: number): RolloutFact | null {
  if (!abortable.has(rollout.state)) return null;
  const reason = `aborted by ${by}`;
  if (revert) return { ...rollout, state: 'rolling-back', endsAs: 'aborted', reason };
  return { ...rollout, state: 'aborted', reason, endedAtMs: nowMs };
}

const abortable: ReadonlySet<RolloutFact['state']> = new Set(['awaiting-approval', 'running', 'paused']);

/** An operator stops it where it is: what is assigned goes on, nothing more is. Null where it does not run. */
export function pause(rollout: RolloutFact, by: string, comment: string | null): RolloutFact | null {
  if (rollout.state !== 'running' && rollout.state !== 'awaiting-approval') return null;
  return { ...rollout, state: 'paused', reason: `paused by ${by}${comment === null ? '' : `: ${comment}`}` };
}

/** Goes on where it was paused. Null where it was not, or where a wave has failed: that cannot be undone. */
export function resume(rollout: RolloutFact, waves: readonly WaveFact[]): RolloutFact | null {
  if (rollout.state !== 'paused' || waves.some(({ state }) => state === 'failed')) return null;
  return { ...rollout, state: 'running', reason: null };
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

function wakeAt(draft: Draft, atMs: number | null): void {
  if (atMs !== null && (draft.wakeAtMs === null || atMs < draft.wakeAtMs)) draft.wakeAtMs = atMs;
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

/** Gives a wave to the devices that match and have none. */
function admitNewcomers(
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

/** Nobody can try the release: its first wave fails instead of passing empty. */
function unfitWhole(draft: Draft): boolean {
  const [first, ...others] = draft.members.values();
  const wave = draft.waves.find(({ state }) => state !== 'passed');
  if (first === undefined || wave === undefined || ![first, ...others].every(isUnfit)) return false;
  const devices = others.length === 0 ? 'the device that matches' : `any of ${others.length + 1} that match`;
  failWave(draft, wave, `release-incompatible: not for ${devices}: ${first.reason?.detail ?? ''}`);
  return true;
}

/** States in which a rollout may still assign something by itself. */
const open: ReadonlySet<RolloutFact['state']> = new Set(['draft', 'awaiting-approval', 'running', 'paused']);

/**
 * Its publisher took the release back: nobody installs it any more. Who runs it keeps it, whoever was told to
 * install it and has not done so goes back.
 */
function withhold(draft: Draft, why: Reason): void {
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

/** The later of two rollouts has a device, unless the earlier has the higher priority and the later has not ended. */
function isTakenOver({ number, priority }: RolloutFact, device: DeviceFact): boolean {
  if (device.desiredNumber <= number) return false;
  return !(device.desiredOpen && priority > device.desiredPriority);
}

function waitingOf(draft: Draft, wave: number): [string, Member, DeviceFact][] {
  const waiting: [string, Member, DeviceFact][] = [];
  for (const [id, member] of draft.members) {
    const device = draft.devices.get(id);
    if (member.step !== 'waiting' || member.wave !== wave || device === undefined || !device.active) continue;
    waiting.push([id, member, device]);
  }
  return waiting;
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
function assignWave(draft: Draft, wave: number): void {
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

/** Assigned in this very step: nothing that was reported before can be about it. */
function outcomeIn(draft: Draft, { id }: DeviceFact): Outcome | undefined {
  return draft.desired.has(id)
    ? { kind: 'working', state: 'pending', reason: null, untilMs: null }
    : draft.outcomes.get(id);
}

function outcomesOf(draft: Draft, wave: number): Outcome[] {
  const outcomes: Outcome[] = [];
  for (const [id, member] of draft.members) {
    const device = draft.devices.get(id);
    if (member.wave !== wave || device === undefined) continue;
    const known = draft.observed.get(id) === member ? draft.outcomes.get(id) : undefined;
    // Assigned in this very step: nothing that was reported before can be about it.
    if (draft.desired.has(id))
      outcomes.push({ kind: 'working', state: 'pending', reason: null, untilMs: null });
    else outcomes.push(known ?? outcomeOf(draft.rollout, device, member, draft.facts.nowMs));
  }
  return outcomes;
}

/** All that is not done yet soaks; where all is done, its gates wait for more evidence. */
function isSoaking(outcomes: readonly Outcome[]): boolean {
  const open = outcomes.filter(
    ({ kind }) => kind === 'working' || kind === 'waiting' || kind === 'unreachable',
  );
  return open.every(({ state }) => state === 'soaking');
}

/** Which rollouts have to end before the wave's devices are free, in words; null where none. */
function behindOf(draft: Draft, wave: number): string | null {
  const devices = draft.facts.devices.filter(({ id, behind }) => {
    const member = draft.members.get(id);
    return behind !== null && member?.wave === wave && member.step === 'waiting';
  });
  const ahead = [...new Set(devices.map(({ behind }) => `${behind?.id} (${behind?.state})`))].sort();
  if (ahead.length === 0) return null;
  const count = devices.length;
  return `${count} ${count === 1 ? 'device waits' : 'devices wait'} for ${ahead.join(', ')} to end`;
}

function waitingFor(outcomes: readonly Outcome[]): string | null {
  const away = outcomes.filter(({ kind }) => kind === 'unreachable').length;
  return away === 0 ? null : `waiting for ${away} unreachable ${away === 1 ? 'device' : 'devices'}`;
}

/** Devices of other waves that are away take up the room of this one's, in words; null where they do not. */
function roomHeld(draft: Draft, wave: number): string | null {
  if (draft.rollout.spec.disruption === undefined) return null;
  const waiting = waitingOf(draft, wave).filter(([, , { behind }]) => behind === null).length;
  const away = [...draft.observed].filter(
    ([id, { step: done }]) => done === 'assigned' && draft.outcomes.get(id)?.kind === 'unreachable',
  ).length;
  if (waiting === 0 || away === 0) return null;
  const those = away === 1 ? 'device, which takes' : 'devices, which take';
  return `waiting for ${away} unreachable ${those} up the room of ${waiting} ${waiting === 1 ? 'other' : 'others'}`;
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

/** Takes back what was assigned and waits until the devices that are there run what they ran before. */
function rollBack(draft: Draft): void {
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

/** A succeeded rollout goes on applying, until another one has given the device something later. */
function applyToLateDevices(draft: Draft): void {
  // Asked before they are placed: one that stays away must not make the share of those that come greater.
  admitNewcomers(draft, 0, (device) => !isTakenOver(draft.rollout, device));
  for (const wave of draft.waves) assignWave(draft, wave.index);
}
