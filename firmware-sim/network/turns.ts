// Why: calls of one node on one connection take effect in the order in which they were made, each at its own moment.
// Trusts: the world. Must never: let one overtake another.

import { type Incarnation, latencyMs, type World } from '../world.ts';

/** Makes a call through the bus: a place to cut the power, before its effect and after it. */
export type Turns = <T>(kind: string, detail: string, effect: () => T) => Promise<T>;

export function takeTurns(world: World, of: Incarnation, key: string): Turns {
  let calls = 0;
  let lastAtMs = -1;
  return (kind, detail, effect) => {
    calls += 1;
    const atMs = Math.max(world.nowMs() + latencyMs(world, 0, 2, 'turn', of.node, key, calls), lastAtMs + 1);
    lastAtMs = atMs;
    return world.call(of, kind, detail, atMs - world.nowMs(), effect);
  };
}
