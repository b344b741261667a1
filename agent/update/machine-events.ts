// Why: what happens to one model's update, and what is asked of the shell in return.
// Trusts: machine.ts, which answers every event in every state. Must never: carry anything that cannot be told in JSON.

import type { ProbeEvidence, ShadowEvidence } from '../../shared/kernel/ports.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import type { AssignedRelease, MachineStateName, Reason } from '../../shared/wire/messages.ts';
import type { Around } from './doors.ts';
import type { DeviceFacts, Health } from './judgement.ts';
import type { MachineState } from './machine-state.ts';

export type MachineEvent =
  | { type: 'booted' }
  /** `deferForMs`: what is left of a deferral that was asked for before there was an update. */
  | { type: 'assigned'; release: AssignedRelease; deferForMs?: number }
  | { type: 'removed' }
  /** Somebody at the device says "not now" for so long; null takes it back. */
  | { type: 'deferred'; forMs: number | null }
  /** The device's clock was set: a deferral that began after now begins now. */
  | { type: 'clock-set' }
  /** Whoever downloads sees that its window closes. */
  | { type: 'closed' }
  /** What held the update is over, and both authorities still name the candidate. */
  | { type: 'opened' }
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
  /** Another model that switches together with it has failed. `fallback`: as for `crash-looped`, where it had switched. */
  | { type: 'parted'; reason: Reason; fallback: string | null }
  /** The release that serves cannot be kept alive. `fallback`: what both authorities still allow in its place. */
  | { type: 'crash-looped'; manifestSha256: string; reason: Reason; fallback: string | null };

/**
 * What the shell does after `next` is durable. Each is idempotent, because a reboot repeats it.
 * `await` waits for the door of a hold. `settle` makes the runtime serve `servingTarget` and ends what is not needed, and reports `served`.
 */
export type Effect =
  | 'settle'
  | 'agree'
  | 'await'
  | 'fetch'
  | 'verify'
  | 'stage'
  | 'probe'
  | 'shadow'
  | 'watch'
  | 'collect'
  | 'forget';

/** A change asked for by a row; `to` enters a state even where it is the present one. */
export interface Change {
  to?: MachineStateName;
  set?: Partial<MachineState>;
  effects?: Effect[];
}
export type EventType = MachineEvent['type'];
export type EventOf<T extends EventType> = Extract<MachineEvent, { type: T }>;
export type Handler<T extends EventType> = (
  state: MachineState,
  event: EventOf<T>,
  nowMs: number,
  around: Around,
) => Change | null;
/** Events that mean the same in every state are answered in `respond`, all others by the state's row. */
export type RowEvent = Exclude<EventType, 'booted' | 'assigned' | 'removed' | 'deferred' | 'clock-set'>;
