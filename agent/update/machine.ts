// Why: the life of one model on the device as one table: what follows what, and what is resumed after
// a reboot. Trusts: its arguments only; it is pure, so the shell may journal before it acts.
// Must never: read a clock, await anything, or let a release become active that was not probed.

import { limits as houseLimits } from '../../shared/kernel/limits.ts';
import type { ProbeEvidence, ShadowEvidence } from '../../shared/kernel/ports.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import type {
  ActivationPolicy,
  AssignedRelease,
  MachineStateName,
  Reason,
} from '../../shared/wire/messages.ts';
import {
  type DeviceFacts,
  type Health,
  judgeHealth,
  judgeProbe,
  judgeRequires,
  judgeShadow,
} from './judgement.ts';
import type { MachineState, ReleaseRef } from './machine-state.ts';

export type { MachineState, ReleaseRef } from './machine-state.ts';
export { assignedOf, newMachine, servingTarget } from './machine-state.ts';

export type MachineEvent =
  | { type: 'booted' }
  | { type: 'assigned'; release: AssignedRelease }
  | { type: 'removed' }
  | { type: 'deadline'; lastProblem: Reason | null }
  /** The effect of the present state cannot succeed. */
  | { type: 'failed'; reason: Reason }
  /** Both authorities name the candidate. */
  | { type: 'agreed' }
  /** The manifest is here; its files are not yet. */
  | { type: 'described'; requires: Manifest['requires']; device: DeviceFacts }
  | { type: 'fetched' }
  | { type: 'verified' }
  /** A file that was held has rotted and was discarded. */
  | { type: 'damaged' }
  | { type: 'staged' }
  | { type: 'probed'; evidence: ProbeEvidence; limits: Manifest['limits'] }
  | { type: 'shadowed'; evidence: ShadowEvidence }
  /** `servingTarget` answers requests; null: nothing serves, as wanted. */
  | { type: 'served'; manifestSha256: string | null }
  | { type: 'serve-failed'; manifestSha256: string; reason: Reason }
  /** `stoodStillMs`: for so long of this start nothing served, which is no soak. */
  | { type: 'health'; answer: Result<Health>; stoodStillMs?: number }
  /** The release that serves cannot be kept alive. `fallback`: what both authorities still allow in its place. */
  | { type: 'crash-looped'; manifestSha256: string; reason: Reason; fallback: string | null };

/**
 * What the shell does after `next` is durable. Each is idempotent, because a reboot repeats it.
 * `settle` makes the runtime serve `servingTarget` and ends what is not needed, and reports `served`.
 */
export type Effect =
  | 'settle'
  | 'agree'
  | 'fetch'
  | 'verify'
  | 'stage'
  | 'probe'
  | 'shadow'
  | 'watch'
  | 'collect'
  | 'forget';

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

/** A change asked for by a row; `to` enters a state even where it is the present one. */
interface Change {
  to?: MachineStateName;
  set?: Partial<MachineState>;
  effects?: Effect[];
}
type EventType = MachineEvent['type'];
type EventOf<T extends EventType> = Extract<MachineEvent, { type: T }>;
type Handler<T extends EventType> = (state: MachineState, event: EventOf<T>, nowMs: number) => Change | null;
/** Events that mean the same in every state are answered in `respond`, all others by the state's row. */
type RowEvent = Exclude<EventType, 'booted' | 'assigned' | 'removed'>;

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
/** Back to the release before the last good one: it was proven here, and unlike this one it can be kept alive. */
const fallBack: Handler<'crash-looped'> = (state, event) => {
  const { active, previous, target, rolloutId, rejected } = state;
  if (active?.manifestSha256 !== event.manifestSha256) return null;
  if (previous === null || previous.manifestSha256 !== event.fallback) return null;
  const { reason } = event;
  const ofTarget = target !== null && target.manifestSha256 === active.manifestSha256;
  return {
    to: 'rolling-back',
    set: {
      active: previous,
      lastGood: previous,
      previous: null,
      reason,
      rejected: ofTarget ? { manifestSha256: target.manifestSha256, rolloutId, reason } : rejected,
    },
  };
};
const failed: Handler<'failed'> = (state, event) => fail(state, event.reason);
const missed: Handler<'deadline'> = (state, event, nowMs) => {
  if (state.deadlineAtMs === null || nowMs < state.deadlineAtMs) return null;
  const last =
    event.lastProblem === null ? '' : `; last: ${event.lastProblem.code}: ${event.lastProblem.detail}`;
  return fail(state, { code: 'deadline-missed', detail: `${state.phase} took too long${last}` });
};
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
    on: { agreed: to('fetching'), failed, deadline: missed },
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
      failed,
      deadline: missed,
    },
  },
  verifying: {
    resume: 'verifying',
    updating: true,
    deadlineMs: () => ownDeadlinesMs.verifying,
    effects: ['verify'],
    on: { verified: to('staging'), damaged: to('fetching'), failed, deadline: missed },
  },
  staging: {
    resume: 'staging',
    updating: true,
    deadlineMs: () => ownDeadlinesMs.staging,
    effects: ['stage'],
    on: { staged: to('probing'), damaged: to('fetching'), failed, deadline: missed },
  },
  probing: {
    resume: 'staging',
    updating: true,
    deadlineMs: (policy) => policy.deadlinesMs.probing,
    effects: ['probe'],
    on: {
      probed: (state, event) => {
        const reason = judgeProbe(event.evidence, event.limits);
        // Without something that serves there are no live inputs to copy.
        const shadowed = state.policy.shadow !== undefined && state.active !== null;
        if (reason === null)
          return { to: shadowed ? 'shadowing' : 'switching', set: { probe: event.evidence } };
        const back = fail(state, reason);
        return { ...back, set: { ...back.set, probe: event.evidence } };
      },
      damaged: to('fetching'),
      failed,
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
      shadowed: (state, event) => {
        const reason = judgeShadow(event.evidence, state.policy.shadow);
        if (reason === null) return { to: 'switching', set: { shadow: event.evidence } };
        const back = fail(state, reason);
        return { ...back, set: { ...back.set, shadow: event.evidence } };
      },
      damaged: to('fetching'),
      failed,
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
      health: (state, event, nowMs) => {
        const reason = judgeHealth(event.answer);
        if (reason !== null) return fail(state, reason);
        if (state.soakUntilMs !== null && nowMs < state.soakUntilMs + (event.stoodStillMs ?? 0)) return null;
        return {
          to: 'committed',
          set: { lastGood: state.active, previous: state.lastGood, rejected: null, reason: null },
        };
      },
      'serve-failed': (state, event) =>
        event.manifestSha256 === state.active?.manifestSha256 ? fail(state, event.reason) : null,
      failed,
      deadline: missed,
    },
  },
  committed: {
    resume: 'committed',
    updating: false,
    deadlineMs: never,
    effects: ['settle', 'collect'],
    on: { 'crash-looped': fallBack },
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
  const effects: Effect[] = ['settle', ...table[phase].effects.filter((effect) => effect !== 'settle')];
  if (phase !== state.phase) return { to: phase, set: kept, effects };
  return { set: kept, effects };
}

/** What is under way ends when it would have, had it begun under these terms. */
function timesUnder(state: MachineState, policy: ActivationPolicy): Partial<MachineState> {
  const { deadlineAtMs, soakUntilMs } = state;
  const { deadlineMs } = table[state.phase];
  const longerMs = (deadlineMs(policy) ?? 0) - (deadlineMs(state.policy) ?? 0);
  return {
    deadlineAtMs: deadlineAtMs === null ? null : deadlineAtMs + longerMs,
    soakUntilMs: soakUntilMs === null ? null : soakUntilMs + policy.soakMs - state.policy.soakMs,
  };
}

function onAssigned(state: MachineState, release: AssignedRelease): Change {
  const { releaseId, manifestSha256, manifestBytes, counter, requires, rolloutId, policy } = release;
  const target: ReleaseRef = { releaseId, manifestSha256, manifestBytes, counter, requires };
  const intent = { target, rolloutId, policy };
  // The running update is already about these bytes: it goes on under the new terms.
  if (table[state.phase].updating && state.target?.manifestSha256 === manifestSha256)
    return { set: { ...intent, ...timesUnder(state, policy) } };
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
      target: null,
      rolloutId: null,
      reason: null,
      probe: null,
      shadow: null,
      rejected: null,
    },
  };
}

function respond(state: MachineState, event: MachineEvent, nowMs: number): Change | null {
  switch (event.type) {
    case 'booted':
      return onBooted(state, nowMs);
    case 'assigned':
      return onAssigned(state, event.release);
    case 'removed':
      return onRemoved();
    default:
      return answerOfRow(event.type, state, event, nowMs);
  }
}

function answerOfRow<T extends RowEvent>(
  type: T,
  state: MachineState,
  event: EventOf<T>,
  nowMs: number,
): Change | null {
  const handler: Handler<T> | undefined = table[state.phase].on[type];
  return handler === undefined ? null : handler(state, event, nowMs);
}

function apply(state: MachineState, change: Change, nowMs: number): MachineState {
  const next: MachineState = { ...state, ...change.set, asOfMs: nowMs };
  if (change.to === undefined) return next;
  const deadlineMs = table[change.to].deadlineMs(next.policy);
  return {
    ...next,
    phase: change.to,
    deadlineAtMs: deadlineMs === null ? null : nowMs + deadlineMs,
    soakUntilMs: change.to === 'soaking' ? next.soakUntilMs : null,
  };
}

/** Whether two states differ in more than the times of this incarnation and the count itself. */
function differs(a: MachineState, b: MachineState): boolean {
  const durable = (state: MachineState) =>
    JSON.stringify({ ...state, deadlineAtMs: 0, soakUntilMs: 0, asOfMs: 0, journalWrites: 0 });
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
  options: { journalWritesMax: number } = houseLimits,
): Outcome {
  const change = respond(state, event, nowMs);
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
