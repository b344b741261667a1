// Why: a step of a rollout while it is decided: its facts, what was decided so far, and what is asked of both.
// Trusts: the facts. Must never: decide anything.

import type { DesiredRelease, DeviceFact, Member, RolloutFact, RolloutFacts, WaveFact } from './facts.ts';
import type { Fitness } from './fitness.ts';
import { type Outcome, outcomeOf } from './members.ts';

/** A step under construction: the facts, and what was decided so far. */
export interface Draft {
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

export function wakeAt(draft: Draft, atMs: number | null): void {
  if (atMs !== null && (draft.wakeAtMs === null || atMs < draft.wakeAtMs)) draft.wakeAtMs = atMs;
}

export function waitingOf(draft: Draft, wave: number): [string, Member, DeviceFact][] {
  const waiting: [string, Member, DeviceFact][] = [];
  for (const [id, member] of draft.members) {
    const device = draft.devices.get(id);
    if (member.step !== 'waiting' || member.wave !== wave || device === undefined || !device.active) continue;
    waiting.push([id, member, device]);
  }
  return waiting;
}

/** Assigned in this very step: nothing that was reported before can be about it. */
export function outcomeIn(draft: Draft, { id }: DeviceFact): Outcome | undefined {
  return draft.desired.has(id)
    ? { kind: 'working', state: 'pending', reason: null, untilMs: null }
    : draft.outcomes.get(id);
}

export function outcomesOf(draft: Draft, wave: number): Outcome[] {
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
