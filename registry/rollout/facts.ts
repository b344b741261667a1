// Why: all that a rollout's next step depends on, as plain values: what was decided and what devices reported.
// Trusts: records.ts, which reads them in one transaction. Must never: hold anything that is not stored.

import type { ActivationPolicy, MachineStateName, Reason } from '../../shared/wire/messages.ts';
import type { RolloutSpec, Wave } from '../../shared/wire/rollout-file.ts';
import type {
  RolloutDeviceState,
  RolloutState,
  RolloutStatus,
  WaveState,
} from '../../shared/wire/rollouts.ts';
import type { WaveEvidence } from './evidence-gates.ts';

/** A release as the director assigns it. */
export interface DesiredRelease {
  releaseId: string;
  manifestSha256: string;
  manifestBytes: number;
  counter: number;
  /** What it needs as its publisher signed it, JSON; null where it names nothing. */
  requires: string | null;
  rolloutId: string | null;
  policy: ActivationPolicy;
}

/** Another release of a rollout of several. */
export interface Companion {
  as: string;
  release: Omit<DesiredRelease, 'rolloutId' | 'policy'>;
}

export interface RolloutFact {
  id: string;
  /** Grows with every rollout: the later of two wins. */
  number: number;
  name: string;
  /** Name under which the devices serve it. */
  as: string;
  release: Omit<DesiredRelease, 'rolloutId' | 'policy'>;
  /** The other releases that switch together with it; absent where it goes out alone. */
  companions?: readonly Companion[];
  spec: RolloutSpec;
  /** Who started it. */
  createdBy: string;
  /** Higher goes first. */
  priority: number;
  /** `spec.waves`, or the one wave of everything where the file has none. */
  waves: readonly Wave[];
  state: RolloutState;
  reason: string | null;
  /** How it ends once everything is taken back; null unless rolling back. */
  endsAs: 'failed' | 'aborted' | null;
  endedAtMs: number | null;
}

export type GateView = RolloutStatus['gates'][number];

export interface WaveFact {
  index: number;
  state: WaveState;
  reason: string | null;
  /** As last judged; what a wave ended on stays, whatever its devices do afterwards. */
  gates: GateView[];
  startedAtMs: number | null;
  endedAtMs: number | null;
}

/** What the registry has done for a device in this rollout; `left`: no longer counted. */
export type MemberStep = 'waiting' | 'assigned' | 'reverted' | 'left';

export interface Member {
  wave: number;
  state: RolloutDeviceState;
  reason: Reason | null;
  step: MemberStep;
  /** Epoch of the assignment that carried the last step: a report of an older one says nothing about it. */
  epoch: number;
  stepAtMs: number;
  /** What to go back to, null where the device had nothing proven under this name. */
  previous: DesiredRelease | null;
}

/** What the device reported under the rollout's name. */
export interface ModelFact {
  state: MachineStateName;
  active: string | null;
  candidate: string | null;
  lastGood: string | null;
  target: string | null;
  rolloutId: string | null;
  reason: Reason | null;
}

/** A companion's name on a device. */
export interface CompanionFact {
  model: ModelFact | null;
  desired: Pick<DesiredRelease, 'releaseId' | 'rolloutId'> | null;
}

export interface DeviceFact {
  id: string;
  active: boolean;
  online: boolean;
  presenceAtMs: number;
  reportedEpoch: number;
  /** As it last reported; empty words where the release needs nothing and nobody new is looked for. */
  agent: { version: string; arch: string; memoryMiB?: number };
  model: ModelFact | null;
  /** What it reported under the companions' names, in their order; absent where there are none. */
  companions?: readonly (ModelFact | null)[];
  /**
   * What it should run under this name now, and the number of the rollout that said so (0: none). Of a rollout of
   * several: under a name that another rollout has where there is one, the latest's first.
   */
  desired: Pick<DesiredRelease, 'releaseId' | 'rolloutId'> | null;
  desiredNumber: number;
  /** What that rollout's priority is, and whether it has not ended. */
  desiredPriority: number;
  desiredOpen: boolean;
  /** A rollout that goes first under this name and has not ended, null where none does. */
  behind: RolloutAhead | null;
  /** Where it stands, by the file's `disruption`; empty where it has no such label or the file has none. */
  site: string;
  /** A rollout of another name is at work on it. Only told where the file has a `disruption`. */
  busyElsewhere: boolean;
  /**
   * What it should go back to if this rollout took over now: the last release proven on it. Null also where this rollout
   * has assigned it something: what to go back to is its member's then.
   */
  proven: DesiredRelease | null;
  /** Null for a device that matches the selector and has no wave yet. */
  member: Member | null;
}

/** A rollout that others wait for. */
export interface RolloutAhead {
  id: string;
  state: RolloutState;
}

/** One person’s word that a wave may begin. */
export interface ApprovalFact {
  wave: number;
  by: string;
  expiresAtMs: number;
}

/** What a companion's devices measured, and the gates that ask for it. */
export interface BesideEvidence {
  as: string;
  spec: RolloutSpec;
  evidence: WaveEvidence;
}

export interface RolloutFacts {
  rollout: RolloutFact;
  waves: readonly WaveFact[];
  devices: readonly DeviceFact[];
  approvals: readonly ApprovalFact[];
  /** Of waves under way, where the file asks for any. */
  evidence: Readonly<Record<number, WaveEvidence>>;
  /** Likewise of the companions; absent where there are none. */
  beside?: Readonly<Record<number, readonly BesideEvidence[]>>;
  /** Releases spoken of here that their publisher lets nobody install any more, by id. */
  barred: Readonly<Record<string, Reason>>;
  nowMs: number;
  /** Assignments that one step may change: signing many at once would hold everybody up. */
  changesMax: number;
}

/** What a step decided. Members, waves and rollout are whole; the shell stores what differs. */
export interface RolloutDecision {
  rollout: RolloutFact;
  waves: WaveFact[];
  members: Map<string, Member>;
  /** Devices whose desired release under the rollout's name changes (step again then); null removes it. */
  desired: Map<string, DesiredRelease | null>;
  /** When time alone changes something again. */
  wakeAtMs: number | null;
}
