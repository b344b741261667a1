// Why: what is journalled for one model, and what can be read from it.
// Trusts: machine.ts, the one place that makes a next state. Must never: hold what is not durable.

import { isSameJson, type JsonValue } from '../../shared/crypto/canonical-json.ts';
import type { ProbeEvidence, ShadowEvidence } from '../../shared/kernel/ports.ts';
import type {
  ActivationPolicy,
  AssignedRelease,
  MachineStateName,
  Reason,
} from '../../shared/wire/messages.ts';
import type { Deferral, Hold } from './doors.ts';

/** A release by the identity of its bytes: the SHA-256 and size of its manifest. */
export interface ReleaseRef {
  releaseId: string;
  manifestSha256: string;
  manifestBytes: number;
  counter: number;
  /** What it needs, as its publisher signed it and the director repeated. */
  requires: JsonValue;
}

/**
 * What is journalled for one model. Outside `soaking` the active release is the last good one, unless
 * a first install was superseded while it soaked: it then serves on until its successor is judged.
 */
export interface MachineState {
  /** Name under which it is served. */
  as: string;
  phase: MachineStateName;
  /** What serves (while `switching`: what served before). */
  active: ReleaseRef | null;
  /** What is being tried: set from `offered` to `switching`, null otherwise. */
  candidate: ReleaseRef | null;
  /** The last committed release, or the one before it where that one could not be kept alive. Never collected. */
  lastGood: ReleaseRef | null;
  /** The one committed before `lastGood`; kept on disk so that going back needs no network. */
  previous: ReleaseRef | null;
  /** The rollout for which `lastGood` took the place of `previous`; null where that is not known. */
  committedFor: string | null;
  /** What the running or last update was about. Null only where the model was removed. */
  target: ReleaseRef | null;
  rolloutId: string | null;
  policy: ActivationPolicy;
  /** Counts updates; results of an older attempt are not of this one. */
  attempt: number;
  /** Monotonic milliseconds of this incarnation; after a reboot the time that was left counts on. */
  deadlineAtMs: number | null;
  /** Null in `soaking`: it has soaked, and waits for those that are committed together with it. */
  soakUntilMs: number | null;
  asOfMs: number;
  /** Set where the update stands before a closed window or is deferred: then no deadline runs. */
  held: Hold | null;
  /** Of this update. */
  deferral: Deferral | null;
  /** Journal writes of this update so far, since it was last held. */
  journalWrites: number;
  reason: Reason | null;
  probe: ProbeEvidence | null;
  shadow: ShadowEvidence | null;
  /**
   * The update that failed last. The same bytes for the same rollout are not tried again, however often
   * the director re-issues the assignment; another rollout (a retry has an id of its own) may.
   */
  rejected: { manifestSha256: string; rolloutId: string | null; reason: Reason } | null;
}

/** Entry by entry: a number that only the director wrote makes another release of it. */
export function isSameRelease(a: ReleaseRef, b: ReleaseRef): boolean {
  return (
    a.releaseId === b.releaseId &&
    a.manifestSha256 === b.manifestSha256 &&
    a.manifestBytes === b.manifestBytes &&
    a.counter === b.counter &&
    isSameJson(a.requires, b.requires)
  );
}

/** A model that was never assigned. */
export function newMachine(as: string, nowMs: number): MachineState {
  return {
    as,
    phase: 'idle',
    active: null,
    candidate: null,
    lastGood: null,
    previous: null,
    committedFor: null,
    target: null,
    rolloutId: null,
    policy: { deadlinesMs: { fetching: 3_600_000, probing: 300_000, soaking: 3_600_000 }, soakMs: 0 },
    attempt: 0,
    deadlineAtMs: null,
    soakUntilMs: null,
    asOfMs: nowMs,
    held: null,
    deferral: null,
    journalWrites: 0,
    reason: null,
    probe: null,
    shadow: null,
    rejected: null,
  };
}

/** It was watched for as long as its rollout says, and nothing was found. */
export const hasSoaked = ({ phase, soakUntilMs }: MachineState): boolean =>
  phase === 'committed' || (phase === 'soaking' && soakUntilMs === null);

/** What the runtime should serve in this state; null: nothing. */
export function servingTarget(state: MachineState): ReleaseRef | null {
  return state.phase === 'switching' ? state.candidate : state.active;
}

/** The assignment that the running update obeys, as it was signed. Null where there is none. */
export function assignedOf(state: MachineState): AssignedRelease | null {
  if (state.target === null) return null;
  return { as: state.as, ...state.target, rolloutId: state.rolloutId, policy: state.policy };
}
