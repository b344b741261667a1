// Why: the life of one model on the device as one table: what follows what, and what is resumed after
// a reboot. Trusts: its arguments only; it is pure, so the shell may journal before it acts.
// Must never: read a clock, await anything, or let a release become active that was not probed.

import { limits as houseLimits } from '../../shared/kernel/limits.ts';
import type { ActivationPolicy, MachineStateName, Reason } from '../../shared/wire/messages.ts';
import { type Around, deferTimeMs, granted, noTime } from './doors.ts';
import { closed, effectsUnder, isWayBack, onClockSet, onDeferred, opened, through } from './holds.ts';
import { judgeHealth, judgeProbe, judgeRequires, judgeShadow } from './judgement.ts';
import type { Change, Effect, EventOf, Handler, MachineEvent, RowEvent } from './machine-events.ts';
import { hasSoaked, type MachineState, type ReleaseRef } from './machine-state.ts';

export { isDeferrable } from './holds.ts';
export type { Effect, MachineEvent } from './machine-events.ts';
export type { MachineState, ReleaseRef } from './machine-state.ts';
export { assignedOf, newMachine, servingTarget } from './machine-state.ts';

export interface Outcome {
  next: MachineState;
  effects: Effect[];
  /** Whether `next` must be durable before the effects; false where only times moved or nothing changed. */
  journal: boolean;
}

/** Deadlines of the states that the assignment's policy does not set. Milliseconds. */
export const ownDeadlinesMs = {
  /** Agreement is a look into local metadata. */
  offered: 60_000,
  /** 8 GiB digested at 10 MB/s, the slowest card we know of. */
  verifying: 900_000,
  /** A child may take `childStartMs` (60 s) to start, and large graphs as long again to optimise. */
  staging: 300_000,
  /** Beyond the time that the policy gives it. */
  shadowingEnd: 60_000,
  switching: 300_000,
  /** After this the old release is still brought up, but the failure is no longer held back. */
  rollingBack: 300_000,
} as const;

interface Row {
  /** State after a reboot. A child does not survive one, so what needs it begins again at `staging`. */
  resume: MachineStateName;
  /** Whether an update is under way: it may be superseded, and its journal writes are counted. */
  updating: boolean;
  deadlineMs: (policy: ActivationPolicy) => number | null;
  /** Performed on entering the state, and again after a reboot. */
  effects: readonly Effect[];
  /** An event that is not named changes nothing. */
  on: { [T in RowEvent]?: Handler<T> };
}

const to =
  (phase: MachineStateName): (() => Change) =>
  () => ({ to: phase });

const fail = (state: MachineState, reason: Reason): Change => ({
  to: 'rolling-back',
  set: {
    active: state.lastGood,
    candidate: null,
    reason,
    rejected:
      state.target === null
        ? state.rejected
        : { manifestSha256: state.target.manifestSha256, rolloutId: state.rolloutId, reason },
  },
});
const toPrevious = (previous: ReleaseRef, reason: Reason, rejected: MachineState['rejected']): Change => ({
  to: 'rolling-back',
  set: { active: previous, lastGood: previous, previous: null, committedFor: null, reason, rejected },
});
/** Back to the release before the last good one: it was proven here, and unlike this one it can be kept alive. */
const fallBack: Handler<'crash-looped'> = (state, event) => {
  const { active, previous, target, rolloutId, rejected } = state;
  if (active?.manifestSha256 !== event.manifestSha256) return null;
  if (previous === null || previous.manifestSha256 !== event.fallback) return null;
  const { reason } = event;
  const ofTarget = target !== null && target.manifestSha256 === active.manifestSha256;
  return toPrevious(
    previous,
    reason,
    ofTarget ? { manifestSha256: target.manifestSha256, rolloutId, reason } : rejected,
  );
};
/** Back to what it ran before this rollout, because another model of it went back. */
const partedAfter: Handler<'parted'> = (state, { reason, fallback }) => {
  const { previous, target, rolloutId } = state;
  if (state.committedFor === null || state.committedFor !== rolloutId || target === null) return null;
  if (previous === null || previous.manifestSha256 !== fallback) return null;
  return toPrevious(previous, reason, { manifestSha256: target.manifestSha256, rolloutId, reason });
};
const parted: Handler<'parted'> = (state, event) => fail(state, event.reason);
const failed: Handler<'failed'> = (state, event) => fail(state, event.reason);
const missed: Handler<'deadline'> = (state, event, nowMs) => {
  if (state.deadlineAtMs === null || nowMs < state.deadlineAtMs) return null;
  const last =
    event.lastProblem === null ? '' : `; last: ${event.lastProblem.code}: ${event.lastProblem.detail}`;
  return fail(state, { code: 'deadline-missed', detail: `${state.phase} took too long${last}` });
};
const commit = (state: MachineState): Change => ({
  to: 'committed',
  set: {
    lastGood: state.active,
    previous: state.lastGood,
    committedFor: state.rolloutId,
    rejected: null,
    reason: null,
  },
});
/** It has said that it soaked, and others may be committed on its word: what comes now is as after its commit. */
const isBound = (state: MachineState, around: Around): boolean =>
  hasSoaked(state) && (around.together ?? null) === null;
const never = () => null;

export const table: { readonly [S in MachineStateName]: Row } = {
  idle: {
    resume: 'idle',
    updating: false,
    deadlineMs: never,
    effects: ['settle', 'collect'],
    on: {
      served: (state) => (state.target === null ? { effects: ['forget'] } : null),
      'crash-looped': fallBack,
    },
  },
  offered: {
    resume: 'offered',
    updating: true,
    deadlineMs: () => ownDeadlinesMs.offered,
    effects: ['settle', 'agree'],
    on: {
      agreed: (state, _event, nowMs, time) =>
        state.held === null ? through(state, 'download', {}, nowMs, time) : null,
      opened,
      failed,
      parted,
      deadline: missed,
    },
  },
  fetching: {
    resume: 'fetching',
    updating: true,
    deadlineMs: (policy) => policy.deadlinesMs.fetching,
    effects: ['fetch'],
    on: {
      described: (state, event) => {
        const reason = judgeRequires(event.requires, event.device);
        return reason === null ? null : fail(state, reason);
      },
      fetched: to('verifying'),
      closed,
      opened,
      failed,
      parted,
      deadline: missed,
    },
  },
  verifying: {
    resume: 'verifying',
    updating: true,
    deadlineMs: () => ownDeadlinesMs.verifying,
    effects: ['verify'],
    on: { verified: to('staging'), damaged: to('fetching'), failed, parted, deadline: missed },
  },
  staging: {
    resume: 'staging',
    updating: true,
    deadlineMs: () => ownDeadlinesMs.staging,
    effects: ['stage'],
    on: { staged: to('probing'), damaged: to('fetching'), failed, parted, deadline: missed },
  },
  probing: {
    resume: 'staging',
    updating: true,
    deadlineMs: (policy) => policy.deadlinesMs.probing,
    effects: ['probe'],
    on: {
      probed: (state, event, nowMs, time) => {
        const reason = judgeProbe(event.evidence, event.limits);
        // Without something that serves there are no live inputs to copy.
        const shadowed = state.policy.shadow !== undefined && state.active !== null;
        if (reason === null && shadowed) return { to: 'shadowing', set: { probe: event.evidence } };
        if (reason === null) return through(state, 'activate', { probe: event.evidence }, nowMs, time);
        const back = fail(state, reason);
        return { ...back, set: { ...back.set, probe: event.evidence } };
      },
      opened,
      damaged: to('fetching'),
      failed,
      parted,
      deadline: missed,
    },
  },
  shadowing: {
    resume: 'staging',
    updating: true,
    // The runtime ends it by itself in time; the deadline is for one that does not.
    deadlineMs: (policy) => (policy.shadow?.timeoutMs ?? 0) + ownDeadlinesMs.shadowingEnd,
    effects: ['shadow'],
    on: {
      shadowed: (state, event, nowMs, time) => {
        const reason = judgeShadow(event.evidence, state.policy.shadow);
        if (reason === null) return through(state, 'activate', { shadow: event.evidence }, nowMs, time);
        const back = fail(state, reason);
        return { ...back, set: { ...back.set, shadow: event.evidence } };
      },
      opened,
      damaged: to('fetching'),
      failed,
      parted,
      deadline: missed,
    },
  },
  switching: {
    resume: 'staging',
    updating: true,
    deadlineMs: () => ownDeadlinesMs.switching,
    effects: ['settle'],
    on: {
      served: (state, event, nowMs) =>
        state.candidate !== null && event.manifestSha256 === state.candidate.manifestSha256
          ? {
              to: 'soaking',
              set: {
                active: state.candidate,
                candidate: null,
                soakUntilMs: nowMs + state.policy.soakMs,
              },
            }
          : null,
      'serve-failed': (state, event) =>
        event.manifestSha256 === state.candidate?.manifestSha256 ? fail(state, event.reason) : null,
      failed,
      parted,
      deadline: missed,
    },
  },
  soaking: {
    resume: 'soaking',
    updating: true,
    // The soak itself is wanted time; the deadline is for a soak that cannot be judged.
    deadlineMs: (policy) => policy.soakMs + policy.deadlinesMs.soaking,
    effects: ['watch'],
    on: {
      health: (state, event, nowMs, around) => {
        if (isBound(state, around)) return commit(state);
        const reason = judgeHealth(event.answer);
        if (reason !== null) return fail(state, reason);
        if (state.soakUntilMs !== null && nowMs < state.soakUntilMs + (event.stoodStillMs ?? 0)) return null;
        return (around.together ?? null) === null ? commit(state) : { set: { soakUntilMs: null } };
      },
      'serve-failed': (state, event, _nowMs, around) => {
        if (event.manifestSha256 !== state.active?.manifestSha256) return null;
        return isBound(state, around) ? commit(state) : fail(state, event.reason);
      },
      failed: (state, event, nowMs, around) =>
        isBound(state, around) ? commit(state) : failed(state, event, nowMs, around),
      parted,
      deadline: (state, event, nowMs, around) =>
        isBound(state, around) ? commit(state) : missed(state, event, nowMs, around),
    },
  },
  committed: {
    resume: 'committed',
    updating: false,
    deadlineMs: never,
    effects: ['settle', 'collect'],
    on: { 'crash-looped': fallBack, parted: partedAfter },
  },
  'rolling-back': {
    resume: 'rolling-back',
    updating: false,
    deadlineMs: () => ownDeadlinesMs.rollingBack,
    effects: ['settle'],
    on: {
      served: (state, event) =>
        event.manifestSha256 === (state.active?.manifestSha256 ?? null) ? { to: 'idle' } : null,
      // The last good release does not come up in time: go on trying in `idle`, where the reason shows.
      deadline: (state, _event, nowMs) =>
        state.deadlineAtMs === null || nowMs < state.deadlineAtMs ? null : { to: 'idle' },
    },
  },
};

function onBooted(state: MachineState, nowMs: number): Change {
  const phase = table[state.phase].resume;
  const passed = nowMs - state.asOfMs;
  const rebase = (atMs: number | null) => (atMs === null ? null : atMs + passed);
  const kept = {
    deadlineAtMs: rebase(state.deadlineAtMs),
    soakUntilMs: rebase(state.soakUntilMs),
    asOfMs: nowMs,
  };
  // Still before its door: nothing of the state's own begins.
  if (state.held !== null && phase === state.phase)
    return { set: { ...kept, journalWrites: 0 }, effects: ['settle', 'await'] };
  const effects: Effect[] = ['settle', ...table[phase].effects.filter((effect) => effect !== 'settle')];
  if (phase !== state.phase) return { to: phase, set: kept, effects };
  return { set: kept, effects };
}

/** What is under way ends when it would have, had it begun under these terms. */
function timesUnder(state: MachineState, policy: ActivationPolicy): Partial<MachineState> {
  const { deadlineAtMs, soakUntilMs, held } = state;
  const { deadlineMs } = table[state.phase];
  const longerMs = (deadlineMs(policy) ?? 0) - (deadlineMs(state.policy) ?? 0);
  return {
    deadlineAtMs: deadlineAtMs === null ? null : deadlineAtMs + longerMs,
    soakUntilMs: soakUntilMs === null ? null : soakUntilMs + policy.soakMs - state.policy.soakMs,
    held:
      held === null || held.leftMs === null ? held : { ...held, leftMs: Math.max(0, held.leftMs + longerMs) },
  };
}

function onAssigned(
  state: MachineState,
  { release, deferForMs = 0 }: EventOf<'assigned'>,
  time: Around,
): Change {
  const { releaseId, manifestSha256, manifestBytes, counter, requires, rolloutId, policy } = release;
  const target: ReleaseRef = { releaseId, manifestSha256, manifestBytes, counter, requires };
  const intent = { target, rolloutId, policy };
  // The running update is already about these bytes: it goes on under the new terms.
  if (table[state.phase].updating && state.target?.manifestSha256 === manifestSha256)
    return { set: { ...intent, ...timesUnder(state, policy) }, effects: effectsUnder(state, policy) };
  if (state.rejected?.manifestSha256 === manifestSha256 && state.rejected.rolloutId === rolloutId) {
    const resting = state.phase === 'rolling-back' && state.target?.manifestSha256 === manifestSha256;
    if (resting) return { set: intent };
    const { reason } = state.rejected;
    return { to: 'idle', set: { ...intent, active: state.lastGood, candidate: null, reason } };
  }
  // Already the last good one: an operator's way back needs no download and no probe.
  if (state.lastGood?.manifestSha256 === manifestSha256) {
    return { to: 'committed', set: { ...intent, active: state.lastGood, candidate: null, reason: null } };
  }
  return {
    to: 'offered',
    set: {
      ...intent,
      // What soaked is not proven: the last good one takes over while its successor is tried. Where
      // there is none yet, serving something that passed its probe is better than serving nothing.
      active: state.lastGood ?? state.active,
      candidate: target,
      attempt: state.attempt + 1,
      deferral: isWayBack(state, manifestSha256)
        ? null
        : granted(policy, null, deferForMs, deferTimeMs(time)),
      journalWrites: 0,
      reason: null,
      probe: null,
      shadow: null,
    },
  };
}

function onRemoved(): Change {
  return {
    to: 'idle',
    set: {
      active: null,
      candidate: null,
      lastGood: null,
      previous: null,
      committedFor: null,
      target: null,
      rolloutId: null,
      reason: null,
      probe: null,
      shadow: null,
      rejected: null,
    },
  };
}

function respond(state: MachineState, event: MachineEvent, nowMs: number, time: Around): Change | null {
  switch (event.type) {
    case 'booted':
      return onBooted(state, nowMs);
    case 'assigned':
      return onAssigned(state, event, time);
    case 'removed':
      return onRemoved();
    case 'deferred':
      return onDeferred(state, event.forMs, time);
    case 'clock-set':
      return onClockSet(state, time);
    default:
      return answerOfRow(event.type, state, event, nowMs, time);
  }
}

function answerOfRow<T extends RowEvent>(
  type: T,
  state: MachineState,
  event: EventOf<T>,
  nowMs: number,
  time: Around,
): Change | null {
  const handler: Handler<T> | undefined = table[state.phase].on[type];
  return handler === undefined ? null : handler(state, event, nowMs, time);
}

function apply(state: MachineState, change: Change, nowMs: number): MachineState {
  const next: MachineState = { ...state, ...change.set, asOfMs: nowMs };
  if (change.to === undefined) return next;
  const deadlineMs = table[change.to].deadlineMs(next.policy);
  return {
    ...next,
    phase: change.to,
    held: null,
    deadlineAtMs: deadlineMs === null ? null : nowMs + deadlineMs,
    soakUntilMs: change.to === 'soaking' ? next.soakUntilMs : null,
  };
}

/** Whether two states differ in more than the times of this incarnation and the count itself. */
function differs(a: MachineState, b: MachineState): boolean {
  const durable = (state: MachineState) => {
    const soakUntilMs = state.soakUntilMs === null ? null : 0;
    return JSON.stringify({ ...state, deadlineAtMs: 0, soakUntilMs, asOfMs: 0, journalWrites: 0 });
  };
  return durable(a) !== durable(b);
}

/**
 * One step of one model. `nowMs` is monotonic time of this incarnation, so that a wall clock set at
 * boot misses no deadline; time without power does not count. Total: any event is answered in any state.
 */
export function step(
  state: MachineState,
  event: MachineEvent,
  nowMs: number,
  options: { journalWritesMax: number; time?: Around } = houseLimits,
): Outcome {
  const change = respond(state, event, nowMs, options.time ?? noTime);
  if (change === null) return { next: state, effects: [], journal: false };
  let next = apply(state, change, nowMs);
  const changed = differs(state, next);
  let effects = change.effects ?? (change.to !== undefined && changed ? [...table[next.phase].effects] : []);
  const resumesUpdate = event.type === 'booted' && table[next.phase].updating;
  if (!changed && !resumesUpdate) return { next, effects, journal: false };
  next.journalWrites += 1;
  if (table[next.phase].updating && next.journalWrites > options.journalWritesMax) {
    const detail = `${next.journalWrites} journal writes in one update, at ${next.phase}`;
    next = apply(next, fail(next, { code: 'journal-budget-exceeded', detail }), nowMs);
    effects = [...table[next.phase].effects];
  }
  return { next, effects, journal: true };
}
