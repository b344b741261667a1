// Why: what a region does about an order of another: begin, stop, go on, end, or nothing; and what it says of it.
// Trusts: the facts. Must never: do anything about what people of this region said of its rollout since.

import type { Refusal } from '../../shared/kernel/result.ts';
import type { PartState, RolloutOrder, RolloutProgress } from '../../shared/wire/rollout-orders.ts';
import type { RolloutState } from '../../shared/wire/rollouts.ts';

/** The region's own rollout of one attempt. */
export interface OwnRollout {
  id: string;
  state: RolloutState;
  /** It is paused, and an order paused it. */
  pausedByOrder: boolean;
  waveFailed: boolean;
}

/** Why it does not do it: for good, or until that changes. */
export interface Verdict extends Omit<Refusal, 'rule'> {
  kind: 'refused' | 'waits';
  rule: string | null;
}

export interface OrderFacts {
  order: Pick<RolloutOrder, 'wish' | 'revision'>;
  /** The highest revision that was acted on. */
  acted: number;
  /** Null where there is none of this attempt. */
  own: OwnRollout | null;
  /** Of attempts before, that have not ended. */
  earlier: readonly OwnRollout[];
  verdict: Verdict | null;
}

export type OrderAction =
  /** Nothing is to be done, now or (`settled`) until another revision comes. */
  | { do: 'nothing'; settled: boolean }
  | { do: 'begin' }
  | { do: 'pause' | 'resume'; rollout: string }
  | { do: 'abort'; rollout: string; revert: boolean }
  /** An attempt before goes back still. */
  | { do: 'wait'; rollout: string };

const ended: ReadonlySet<RolloutState> = new Set(['succeeded', 'failed', 'aborted']);
export const isEnded = (state: RolloutState): boolean => ended.has(state);
const nothing: OrderAction = { do: 'nothing', settled: false };

/**
 * The next thing to do. Each revision is acted on once: whoever runs this region may say something else afterwards, and
 * that stands until another revision comes.
 */
export function decide(facts: OrderFacts): OrderAction {
  const { order, acted, own, earlier, verdict } = facts;
  if (acted >= order.revision) {
    const over = own === null ? order.wish !== 'run' || verdict?.kind === 'refused' : isEnded(own.state);
    return { do: 'nothing', settled: over };
  }
  switch (order.wish) {
    case 'wait':
      return nothing;
    case 'run': {
      const open = earlier.find(({ state }) => state !== 'rolling-back');
      if (open !== undefined) return { do: 'abort', rollout: open.id, revert: false };
      const [goingBack] = earlier;
      if (own === null && goingBack !== undefined) return { do: 'wait', rollout: goingBack.id };
      if (own === null) return { do: 'begin' };
      const mayGoOn = own.state === 'paused' && own.pausedByOrder && !own.waveFailed;
      return mayGoOn ? { do: 'resume', rollout: own.id } : nothing;
    }
    case 'pause':
      return own !== null && (own.state === 'running' || own.state === 'awaiting-approval')
        ? { do: 'pause', rollout: own.id }
        : nothing;
    case 'abort':
    case 'abort-revert': {
      const open = [...earlier, ...(own === null ? [] : [own])].find(
        ({ state }) => !isEnded(state) && state !== 'rolling-back',
      );
      return open === undefined
        ? nothing
        : { do: 'abort', rollout: open.id, revert: order.wish === 'abort-revert' };
    }
  }
}

/** What the region says of its rollout, beside counts. */
export interface OwnStatus extends OwnRollout {
  code: string | null;
  waves: RolloutProgress['waves'];
  gates: RolloutProgress['gates'];
}

/**
 * What the coordinating region is told. Reasons are made anew from codes and numbers: those of the rollout itself hold
 * what devices and people of this region said.
 */
export function progressOf(
  { order, acted, verdict }: Pick<OrderFacts, 'acted' | 'verdict'> & { order: RolloutOrder },
  own: OwnStatus | null,
  nowMs: number,
): RolloutProgress {
  const { orderId, revision, attempt, wish } = order;
  const head = { schemaVersion: 1 as const, orderId, revision, acted, attempt, wish, atMs: nowMs };
  if (own === null) {
    const state: PartState = verdict?.kind === 'refused' ? 'refused' : 'waiting';
    return {
      ...{ ...head, state, rollout: null, waves: [], gates: [] },
      ...{ code: verdict?.code ?? null, rule: verdict?.rule ?? null },
      reason: verdict === null ? null : `${verdict.code}: ${verdict.detail}`.slice(0, 1_000),
    };
  }
  const { id, state, code, waves, gates } = own;
  return { ...head, state, rollout: id, code, rule: null, reason: reasonOf(own), waves, gates };
}

function reasonOf({ state, pausedByOrder, code, waves, gates }: OwnStatus): string | null {
  const gate = gates.find(({ verdict }) => verdict === 'fail');
  const failed = waves.find((wave) => wave.state === 'failed');
  if (gate !== undefined)
    return `wave ${gate.wave}: gate ${gate.gate} is ${gate.value === null ? 'not met' : Number(gate.value.toPrecision(4))}, limit ${gate.limit}`;
  if (failed !== undefined) return `wave ${failed.index}${code === null ? '' : `: ${code}`}`;
  if (state === 'paused') return pausedByOrder ? 'paused by the coordinating region' : 'paused there';
  if (state === 'awaiting-approval') return 'it waits for approval there';
  if (state === 'running')
    return waves.every(({ devices }) => (devices['total'] ?? 0) === 0) ? 'no device there matches yet' : null;
  return code;
}
