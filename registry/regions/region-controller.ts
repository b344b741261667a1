// Why: one step of a rollout across regions: from what each region was told and what each said, what each is told next.
// Trusts: the facts. Must never: touch a clock, a database or a line; or begin a stage before all of the one before it
// had succeeded.
//
//   running ⇄ paused → succeeded | rolling-back → aborted
//
// A region that fails pauses the others, and somebody says how it goes on. A region that is cut off goes on with what it
// was told last: it is the authority for its devices.

import type { Wish } from '../../shared/wire/rollout-orders.ts';
import {
  failedParts,
  hasBegun,
  hasEnded,
  type PartFact,
  type RegionRolloutFact,
  type RegionRolloutNext,
  saidOf,
  standingOf,
} from './region-facts.ts';

export interface RegionRolloutDecision extends RegionRolloutNext {
  /** When time alone changes something again; null: never. */
  wakeAtMs: number | null;
}

interface Draft extends RegionRolloutNext {
  parts: PartFact[];
  wakeAtMs: number | null;
}

/** The next step. Stepping again without new facts changes nothing. */
export function step(facts: RegionRolloutFact): RegionRolloutDecision {
  const { state, reason, endedAtMs, nowMs } = facts;
  const draft: Draft = {
    ...{ state, reason, endedAtMs, wakeAtMs: null },
    parts: facts.parts.map((part) => ({ ...part, succeededAtMs: succeededAt(part, nowMs) })),
  };
  remember(draft, nowMs);
  if (draft.state === 'running') run(facts, draft);
  // Not `else`: what failed in this step pauses the others in the same step.
  if (draft.state === 'paused') pauseAll(draft, nowMs);
  if (draft.state === 'rolling-back') goBack(draft, nowMs);
  return draft;
}

const succeededAt = (part: PartFact, nowMs: number): number | null =>
  standingOf(part) === 'succeeded' ? (part.succeededAtMs ?? nowMs) : null;

/** Tells a region something else; the same again is no news. */
export function wish(
  part: PartFact,
  next: Wish,
  { by, reason, nowMs }: { by: string | null; reason: string | null; nowMs: number },
): PartFact {
  if (part.wish === next) return part;
  return { ...part, wish: next, by, reason, wishedAtMs: nowMs, revision: part.revision + 1 };
}

/** The region was told something that this registry does not know of. */
function isAhead({ progress, revision, attempt, wish: told }: PartFact): boolean {
  if (progress === null) return false;
  if (progress.revision !== revision) return progress.revision > revision || progress.attempt > attempt;
  return progress.wish !== told || progress.attempt !== attempt;
}

/**
 * A region that knows another word than this registry ever said: this one came back from a backup. What was said in between
 * is not known any more, so that nothing goes on before somebody has looked.
 */
function remember(draft: Draft, nowMs: number): void {
  const ahead = draft.parts.filter(isAhead);
  if (ahead.length === 0) return;
  const names = ahead.map(({ region }) => region).join(', ');
  const lost = `this registry came back without what it had told ${names}: look, then resume or abort`;
  draft.parts = draft.parts.map((part) => {
    if (!ahead.includes(part) || part.progress === null) return part;
    const revision = Math.max(part.revision, part.progress.revision) + 1;
    const attempt = Math.max(part.attempt, part.progress.attempt);
    return { ...part, revision, attempt, wishedAtMs: nowMs };
  });
  if (draft.state !== 'running') return;
  draft.state = 'paused';
  draft.reason = lost;
}

/** Goes through the stages in order, as far as their regions let it. */
function run(facts: RegionRolloutFact, draft: Draft): void {
  const { nowMs, skipAfterMs, soaksMs } = facts;
  const [failed] = failedParts(draft.parts);
  if (failed !== undefined) {
    draft.state = 'paused';
    draft.reason = failureOf(failed);
    return;
  }
  draft.reason = null;
  const last = Math.max(...draft.parts.map(({ stage }) => stage));
  for (let stage = 0; stage <= last; stage += 1) {
    draft.parts = draft.parts.map((part) =>
      part.stage === stage && part.wish === 'wait' && !part.leftOut
        ? wish(part, 'run', { by: null, reason: null, nowMs })
        : part,
    );
    const waitedFor = draft.parts.filter(
      (part) =>
        part.stage === stage &&
        standingOf(part) !== 'succeeded' &&
        standingOf(part) !== 'left-out' &&
        !isSkipped(draft, part, skipAfterMs, nowMs),
    );
    if (waitedFor.length > 0) {
      draft.reason = waitedFor.map(waitingWords).join('; ');
      return;
    }
    const soakMs = soaksMs[stage] ?? 0;
    const doneAtMs = Math.max(
      0,
      ...draft.parts.flatMap((part) => (part.stage === stage ? (part.succeededAtMs ?? []) : [])),
    );
    if (stage < last && doneAtMs > 0 && doneAtMs + soakMs > nowMs) {
      wakeAt(draft, doneAtMs + soakMs);
      draft.reason = `stage ${stage} soaks`;
      return;
    }
  }
  const away = draft.parts.filter((part) => !part.leftOut && standingOf(part) !== 'succeeded');
  if (away.length > 0) {
    // Skipped is not done: later stages went on, and the whole ends when it has succeeded there too.
    draft.reason = away.map(waitingWords).join('; ');
    return;
  }
  const without = draft.parts.filter(({ leftOut }) => leftOut).map(({ region }) => region);
  draft.state = 'succeeded';
  draft.reason = without.length === 0 ? null : `without ${without.join(', ')}`;
  draft.endedAtMs = nowMs;
}

function isSkipped(draft: Draft, part: PartFact, skipAfterMs: number | null, nowMs: number): boolean {
  if (skipAfterMs === null || part.unreachableSinceMs === null) return false;
  const atMs = part.unreachableSinceMs + skipAfterMs;
  if (atMs > nowMs) wakeAt(draft, atMs);
  return atMs <= nowMs;
}

function wakeAt(draft: Draft, atMs: number): void {
  if (draft.wakeAtMs === null || atMs < draft.wakeAtMs) draft.wakeAtMs = atMs;
}

/** Whatever may be assigning devices there is told to stop; what has not begun stays as it is. */
function pauseAll(draft: Draft, nowMs: number): void {
  // What a region measured is told to the coordinating region, not to all the others.
  const failed = failedParts(draft.parts).map(({ region }) => region);
  const reason = failed.length === 0 ? draft.reason : `${failed.join(', ')} failed`;
  draft.parts = draft.parts.map((part) => {
    const standing = standingOf(part);
    if (standing === 'succeeded' || standing === 'left-out') return part;
    const mayRun = part.wish === 'run' || (part.wish === 'wait' && hasBegun(part));
    return mayRun ? wish(part, 'pause', { by: null, reason, nowMs }) : part;
  });
}

function goBack(draft: Draft, nowMs: number): void {
  const open = draft.parts.filter((part) => !isBack(part));
  if (open.length > 0) {
    draft.reason = `going back: ${open.map(({ region }) => region).join(', ')}`;
    return;
  }
  draft.state = 'aborted';
  draft.reason = 'every region has gone back';
  draft.endedAtMs = nowMs;
}

/** The region has acted on the last word, and whatever it had begun is over. */
function isBack(part: PartFact): boolean {
  if (part.leftOut) return true;
  const said = saidOf(part);
  if (said === null) return false;
  return said.acted >= part.revision && (said.rollout === null || hasEnded(part));
}

/** What failed where, by numbers and codes. */
export function failureOf(part: PartFact): string {
  const said = saidOf(part);
  return `${part.region} ${said?.state === 'refused' ? 'refuses' : 'failed'}: ${said?.reason ?? 'no reason given'}`;
}

/** What a part that is not done is waited with, in words. */
export function waitingWords(part: PartFact): string {
  const { region, unreachableSinceMs } = part;
  const said = saidOf(part);
  if (unreachableSinceMs !== null)
    return `${region} is unreachable since ${new Date(unreachableSinceMs).toISOString()}`;
  if (said === null) return `${region} has not answered yet`;
  return said.reason === null ? `${region} is ${said.state}` : `${region} is ${said.state}: ${said.reason}`;
}
