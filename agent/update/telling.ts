// Why: what is told of one model: its part of the report, and each step to log and telemetry.
// Trusts: states that are durable. Must never: decide anything.

import type { Log } from '../../shared/kernel/ports.ts';
import type { Reason, ReportedModel } from '../../shared/wire/messages.ts';
import type { Lane } from './lane.ts';
import type { MachineState } from './machine.ts';

/** One step of a model's update, as telemetry tells it. */
export interface Transition {
  as: string;
  from: MachineState['phase'];
  to: MachineState['phase'];
  releaseId: string | null;
  rolloutId: string | null;
  reason: Reason | null;
}

export interface Listeners {
  log: Log;
  /** Called when an update was refused and goes back; `update` names the attempt. Must not block. */
  onRefused?: (refusal: Reason, update: string) => void;
  /** Called at each transition that was journalled. Must not block. */
  onTransition?: (transition: Transition) => void;
}

/** Tells the log, telemetry and whoever records refusals of a step that is durable. */
export function tell(
  { log, onTransition, onRefused }: Listeners,
  before: MachineState,
  next: MachineState,
): void {
  if (before.phase === next.phase && before.attempt === next.attempt) return;
  const fields = { model: next.as, release: next.target?.releaseId ?? null, rolloutId: next.rolloutId };
  log.emit('info', 'update.transition', { ...fields, from: before.phase, to: next.phase });
  onTransition?.({
    as: next.as,
    from: before.phase,
    to: next.phase,
    releaseId: next.target?.releaseId ?? null,
    rolloutId: next.rolloutId,
    reason: next.reason,
  });
  if (next.phase === 'rolling-back') {
    log.emit('warn', 'update.refused', { ...fields, ...next.reason });
    if (next.reason !== null) onRefused?.(next.reason, `${next.as} ${fields.release} ${next.rolloutId}`);
  }
  if (next.phase === 'committed') log.emit('info', 'update.committed', fields);
  if (before.phase === 'rolling-back' && next.phase === 'idle') {
    const active = next.active?.releaseId ?? null;
    log.emit('warn', 'update.rolled-back', { ...fields, active, ...next.reason });
  }
}

export function reported(lane: Lane): ReportedModel {
  const { state } = lane;
  return {
    name: state.as,
    state: state.phase,
    active: state.active?.releaseId ?? null,
    activeSha256: state.active?.manifestSha256 ?? null,
    candidate: state.candidate?.releaseId ?? null,
    lastGood: state.lastGood?.releaseId ?? null,
    target: state.target?.releaseId ?? null,
    rolloutId: state.rolloutId,
    reason: state.reason ?? lane.problem ?? lane.serving.problem(),
    progress: lane.progress,
    probe: state.probe,
    ...(state.shadow === null ? {} : { shadow: state.shadow }),
  };
}
