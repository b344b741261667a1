// Why: what a device does with an order to another region, as one pure step over one table: each row names what may happen in
// a phase and what is done again after a power cut.
// Trusts: its caller to have checked an order before `ordered`. Must never: let the device be of no region: it stays where it
// is until the new region has let it in as one of its own.

import { invariant } from '../../shared/kernel/errors.ts';
import type { MoveOrder } from '../../shared/wire/device-move.ts';
import type { Reason } from '../../shared/wire/messages.ts';
import type { Joined, Moves, MoveUnderWay } from '../trust/moves.ts';

export type MovePhase = MoveUnderWay['phase'];

export type MoveEvent =
  | { type: 'booted' }
  /** A checked order that is newer than every one before. */
  | { type: 'ordered'; order: MoveOrder; envelope: string }
  /** Nothing is in the middle of an update; or something is, and that is why it waits. */
  | { type: 'quiet' }
  | { type: 'busy'; reason: Reason }
  | { type: 'joined'; joined: Joined }
  /** The new region let it in as a device, and its first assignment verified (JSON of its envelope). */
  | { type: 'rehearsed'; assignment: string }
  /** Something failed that another attempt may cure. */
  | { type: 'failed'; reason: Reason }
  /** It can never come to anything: expired, or an order that no longer holds. */
  | { type: 'over'; reason: Reason };

/** `look`: is it quiet? `enrol`, `rehearse`: try it, after a pause where the last attempt failed. */
export type MoveEffect = 'look' | 'enrol' | 'rehearse' | 'none';

export interface MoveStep {
  next: Moves;
  effect: MoveEffect;
  /** The phase is left for good without a move. */
  ended: Reason | null;
}

interface Row {
  /** What is done in this phase, and done again after a power cut: all of it may be repeated. */
  effect: MoveEffect;
  on: Partial<Record<MoveEvent['type'], MovePhase | 'stay' | 'end'>>;
}

/**
 * An order that comes meanwhile replaces the one under way. `rehearsed` is in no row: it is the commit that ends the move,
 * which changes the identity as well (mover.ts, `keeper.moved`).
 */
export const moveTable: Readonly<Record<MovePhase, Row>> = {
  waiting: {
    effect: 'look',
    on: { booted: 'stay', quiet: 'enrolling', busy: 'stay', over: 'end' },
  },
  enrolling: {
    effect: 'enrol',
    on: { booted: 'stay', joined: 'rehearsing', failed: 'stay', over: 'end' },
  },
  rehearsing: {
    effect: 'rehearse',
    // Busy: an update began meanwhile, and the switch waits for it. The certificate is good for another time.
    on: { booted: 'stay', failed: 'stay', busy: 'waiting', over: 'end' },
  },
};

/** The state after an event, and what to do then. An event that its row does not name changes nothing. */
export function stepMove(moves: Moves, event: MoveEvent): MoveStep {
  if (event.type === 'ordered') {
    const { order, envelope } = event;
    const under: MoveUnderWay = {
      phase: 'waiting',
      envelope,
      moveId: order.moveId,
      to: order.to.region,
      expiresAtMs: order.expiresAtMs,
      joined: null,
      reason: null,
    };
    const next = {
      ...moves,
      under,
      lastMoveId: order.moveId,
      lastIssuedAtMs: order.issuedAtMs,
      lastEnded: null,
    };
    return { next, effect: moveTable.waiting.effect, ended: null };
  }
  const { under } = moves;
  const to = under === null ? undefined : moveTable[under.phase].on[event.type];
  if (under === null || to === undefined) return { next: moves, effect: 'none', ended: null };
  const reason = 'reason' in event ? event.reason : event.type === 'booted' ? under.reason : null;
  if (to === 'end')
    return { next: { ...moves, under: null, lastEnded: reason }, effect: 'none', ended: reason };
  const phase = to === 'stay' ? under.phase : to;
  const joined = event.type === 'joined' ? event.joined : under.joined;
  return {
    next: { ...moves, under: { ...under, phase, joined, reason } },
    effect: moveTable[phase].effect,
    ended: null,
  };
}

/** Regions that were left and remembered with an epoch; more are never met in practice, and an old one makes room. */
const epochsMax = 32;

/** What is remembered once the device is of the new region; only after `rehearsing`. */
export function afterMove(
  moves: Moves,
  left: { region: string; regionRoot: string; epoch: number; nowMs: number },
  assignment: string,
): Moves {
  invariant(moves.under?.phase === 'rehearsing', 'the new region has let the device in');
  const { region, regionRoot, epoch, nowMs } = left;
  // The newest last, so that the oldest goes first.
  const others = Object.entries(moves.epochs).filter(([name]) => name !== region);
  return {
    ...moves,
    under: null,
    lastEnded: null,
    movedFrom: region,
    // Never a number that was used: its file may still be there.
    outbox: Math.max(moves.outbox, ...moves.chains.map((chain) => chain.outbox)) + 1,
    chains: [...moves.chains, { outbox: moves.outbox, region, regionRoot, leftAtMs: nowMs }],
    arrival: assignment,
    epochs: Object.fromEntries([...others.slice(1 - epochsMax), [region, epoch]]),
  };
}
