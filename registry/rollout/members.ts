// Why: what one device's reports mean for a rollout: done, failed, under way, out of reach.
// Trusts: facts that were stored. Must never: take a report about an older assignment for news.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { longestWaitMs } from '../../shared/kernel/windows.ts';
import type { ActivationPolicy, Reason } from '../../shared/wire/messages.ts';
import type { RolloutSpec, Wave } from '../../shared/wire/rollout-file.ts';
import { deferMaxMsDefault, type WindowPolicy } from '../../shared/wire/windows.ts';
import type { DeviceFact, Member, ModelFact, RolloutFact } from './facts.ts';
import { isRemoval, isRemoved } from './removal.ts';

/**
 * `ignored` and `left` are not counted; `unreachable` is waited for. `until`: when time alone will
 * change the outcome, null where it will not.
 */
export interface Outcome {
  kind: 'waiting' | 'working' | 'committed' | 'failed' | 'unreachable' | 'ignored' | 'left';
  state: Member['state'];
  reason: Reason | null;
  untilMs: number | null;
}

/**
 * A device keeps its own deadlines and reports when it misses one; those of the states that no file
 * sets (agreeing, verifying, staging, switching, rolling back) are 31 minutes together. Only one that
 * is there and says nothing for longer than all of them is given up here.
 */
const overdueGraceMs = 2_000_000;

/** Deadlines and soak of the wave, as the device keeps them. */
export function policyOf(spec: RolloutSpec, wave: Wave | undefined): ActivationPolicy {
  const { fetching, probing, soaking } = spec.deadlines;
  const { shadow, gates } = spec;
  const windows = windowsOf(spec);
  return {
    deadlinesMs: { fetching, probing, soaking },
    soakMs: wave?.soak ?? 0,
    ...(shadow === undefined
      ? {}
      : {
          shadow: {
            requests: shadow.requests,
            cpuPercent: shadow.cpuPercent,
            timeoutMs: Math.min(shadow.timeout, spec.deadlines.shadowing),
            agreementMin: gates.agreement ?? null,
          },
        }),
    ...(windows === null ? {} : { windows }),
  };
}

function windowsOf({ windows }: RolloutSpec): WindowPolicy | null {
  if (windows === undefined) return null;
  const { download, activate, deferMax } = windows;
  return {
    ...(download === undefined ? {} : { download }),
    ...(activate === undefined ? {} : { activate }),
    deferMaxMs: deferMax,
  };
}

/** What daylight saving may take from one window, or put before it. */
const clockChangeMs = 3_600_000;

/** Computed once for all devices of a step: a file's windows may be many. */
const waitsOf = new WeakMap<RolloutSpec, number>();

/**
 * The longest that a device may stand before closed windows and defer, beside its deadlines, which do not run
 * meanwhile. Only the windows' own distances count, so that nobody's clock and zone has to be believed.
 */
function windowWaitMs(spec: RolloutSpec): number {
  const { windows } = spec;
  if (windows === undefined) return 0;
  const known = waitsOf.get(spec);
  if (known !== undefined) return known;
  const { download, activate, deferMax } = windows;
  const before = (list: typeof download, openMs: number): number =>
    list === undefined ? 0 : longestWaitMs(list, openMs + deferMax + clockChangeMs) + clockChangeMs;
  const waitMs = before(download, spec.deadlines.fetching) + before(activate, 0) + deferMax;
  waitsOf.set(spec, waitMs);
  return waitMs;
}

/** Where the file has no windows, a device may defer all the same, and says so. */
function patienceMs(spec: RolloutSpec, reported: Outcome): number {
  if (spec.windows !== undefined) return windowWaitMs(spec);
  return reported.reason?.code === 'update-deferred' ? deferMaxMsDefault : 0;
}

/** The way back is held by no window, so it has the deadlines alone. */
function allowedMs(rollout: RolloutFact, member: Member): number {
  const { deadlinesMs, soakMs, shadow } = policyOf(rollout.spec, rollout.waves[member.wave]);
  const { fetching, probing, soaking } = deadlinesMs;
  return fetching + probing + (shadow?.timeoutMs ?? 0) + soaking + soakMs + overdueGraceMs;
}

const reason = (code: ErrorCode, detail: string): Reason => ({ code, detail });

/** What became of a member so far. Depends on nothing but the facts and the time. */
export function outcomeOf(rollout: RolloutFact, device: DeviceFact, member: Member, nowMs: number): Outcome {
  const settled = (kind: Outcome['kind'], state: Member['state'], why: Reason | null): Outcome => ({
    kind,
    state,
    reason: why,
    untilMs: null,
  });
  if (member.step === 'reverted')
    return settled(member.reason === null ? 'left' : 'failed', member.state, member.reason);
  if (!device.active)
    return settled('left', member.state, reason('device-revoked', 'the device was revoked or quarantined'));
  if (member.step === 'left') return settled('left', member.state, member.reason);
  if (member.step === 'waiting') return settled('waiting', 'pending', null);
  if (device.desired?.rolloutId !== rollout.id) {
    return settled(
      'left',
      member.state,
      reason('update-superseded', 'another rollout took this device over'),
    );
  }
  const reported = reportedOutcome(rollout, device, member);
  if (reported.kind !== 'working') return reported;
  return device.online
    ? overdue(rollout, device, member, reported, nowMs)
    : away(rollout, device, member, reported, nowMs);
}

/**
 * What the device's last report says, if it is about this assignment. Of several releases: failed as soon as one is, by
 * its own reason; done when all are; else where the first stands that is not done.
 */
function reportedOutcome(rollout: RolloutFact, device: DeviceFact, member: Member): Outcome {
  const own = partOutcome({ ...rollout, model: device.model }, device, member);
  const { companions = [] } = rollout;
  if (companions.length === 0) return own;
  const all = [
    own,
    ...companions.map(({ release }, at) =>
      partOutcome({ id: rollout.id, release, model: device.companions?.[at] ?? null }, device, member),
    ),
  ];
  const failed = all.filter(({ kind }) => kind === 'failed');
  return (
    failed.find((one) => one.reason?.code !== 'update-parted') ??
    failed[0] ??
    all.find(({ kind }) => kind !== 'committed') ??
    own
  );
}

interface Part extends Pick<RolloutFact, 'id' | 'release'> {
  model: ModelFact | null;
}

function partOutcome(rollout: Part, device: DeviceFact, member: Member): Outcome {
  const { model } = rollout;
  const outcome = (kind: Outcome['kind'], state: Member['state'], why: Reason | null): Outcome => ({
    kind,
    state,
    reason: why,
    untilMs: null,
  });
  if (device.reportedEpoch < member.epoch) return outcome('working', 'pending', null);
  if (isRemoval(rollout.release)) {
    if (isRemoved(model)) return outcome('committed', 'committed', null);
    return outcome('working', model?.state ?? 'pending', model?.reason ?? null);
  }
  if (model === null) return outcome('working', 'pending', null);
  const { releaseId } = rollout.release;
  const resting = model.state === 'idle' || model.state === 'committed';
  // Also a device that ran it before, for another rollout, is where this one wants it.
  if (resting && model.active === releaseId && model.lastGood === releaseId && model.candidate === null) {
    return outcome('committed', 'committed', null);
  }
  const aboutThis = model.target === releaseId && model.rolloutId === rollout.id;
  if (!aboutThis) return outcome('working', 'pending', null);
  if (model.state === 'idle' && model.reason !== null) {
    const state = model.reason.code === 'release-incompatible' ? 'incompatible' : 'idle';
    return outcome('failed', state, model.reason);
  }
  return outcome('working', model.state, model.reason);
}

/** A device that is away longer than the file allows. */
function away(
  rollout: RolloutFact,
  device: DeviceFact,
  member: Member,
  reported: Outcome,
  nowMs: number,
): Outcome {
  const { unreachable } = rollout.spec.deadlines;
  if (unreachable === undefined) return reported;
  const untilMs = Math.max(device.presenceAtMs, member.stepAtMs) + unreachable.after;
  if (nowMs < untilMs) return { ...reported, untilMs };
  const why = reason('bus-offline', `away for more than ${unreachable.after / 1_000} s`);
  const kind = ({ wait: 'unreachable', ignore: 'ignored', fail: 'failed' } as const)[unreachable.counts];
  return { kind, state: 'unreachable', reason: why, untilMs: null };
}

/** A device that is there and should have ended long ago, by its own deadlines. */
function overdue(
  rollout: RolloutFact,
  device: DeviceFact,
  member: Member,
  reported: Outcome,
  nowMs: number,
): Outcome {
  const allowed = allowedMs(rollout, member) + patienceMs(rollout.spec, reported);
  const untilMs = Math.max(device.presenceAtMs, member.stepAtMs) + allowed;
  if (nowMs < untilMs) return { ...reported, untilMs };
  const why = reason('deadline-missed', `online and still ${reported.state} after all its deadlines`);
  return { kind: 'failed', state: reported.state, reason: why, untilMs: null };
}

/** Whether a device whose assignment was taken back runs what it ran before, or need not be waited for. */
export function isRestored(
  rollout: RolloutFact,
  device: DeviceFact,
  member: Member,
  nowMs: number,
): { restored: boolean; untilMs: number | null } {
  if (!device.active || !device.online) return { restored: true, untilMs: null }; // its topic holds the assignment
  if (device.desired !== null && device.desired.rolloutId !== (member.previous?.rolloutId ?? null)) {
    return { restored: true, untilMs: null }; // a later rollout has it
  }
  const { model } = device;
  const atRest = (one: ModelFact | null): boolean =>
    one === null || one.state === 'idle' || one.state === 'committed';
  const resting = atRest(model) && (device.companions ?? []).every(atRest);
  const { previous } = member;
  const before = previous === null || isRemoval(previous) ? null : previous.releaseId;
  const back = (model?.active ?? null) === before;
  if (device.reportedEpoch >= member.epoch && resting && back) return { restored: true, untilMs: null };
  const untilMs = Math.max(device.presenceAtMs, member.stepAtMs) + allowedMs(rollout, member);
  return { restored: nowMs >= untilMs, untilMs };
}

const beforeProbing: ReadonlySet<string> = new Set([
  'pending',
  'idle',
  'offered',
  'fetching',
  'verifying',
  'staging',
  'probing',
]);

/** What the device's probe showed: `probe` and `model` codes say no; whoever came past probing says yes. */
export function probeVerdict(outcome: Outcome): 'pass' | 'fail' | null {
  if (outcome.kind === 'committed') return 'pass';
  if (outcome.kind === 'failed') {
    const code = outcome.reason?.code ?? '';
    if (code.startsWith('probe-') || code.startsWith('model-')) return 'fail';
    return code === 'soak-errors' || code.startsWith('shadow-') ? 'pass' : null;
  }
  if (outcome.kind !== 'working' || outcome.reason !== null) return null;
  return beforeProbing.has(outcome.state) || outcome.state === 'rolling-back' ? null : 'pass';
}
