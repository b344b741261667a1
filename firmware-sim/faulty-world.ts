// Why: a world in which things go wrong as one seed draws them: power, clocks and everything else, for nodes that are added
// to it one by one. Trusts: the seed. Must never: cut a node that nobody added.

import { createFaults, type FaultId, type Faults } from './faults.ts';
import type { MachineClocks } from './machine/clocks.ts';
import { createWorld, type World } from './world.ts';

export interface FaultyWorld {
  world: World;
  faults: Faults;
  /** By node, what runs when its power failed. */
  nodes: Map<string, { afterCut(): void }>;
  /** By node. */
  clocks: Map<string, MachineClocks>;
}

export function createFaultyWorld(options: {
  seed: number;
  originMs?: number;
  operationsMax: number;
  /** One node is not cut more often than this by chance: it would do nothing else. */
  cutsMax: number;
  only?: readonly FaultId[];
  trace: boolean;
}): FaultyWorld {
  const { seed, only, cutsMax } = options;
  const faults = createFaults(seed, only);
  const cutsOf = new Map<string, number>();
  const nodes: FaultyWorld['nodes'] = new Map();
  const clocks: FaultyWorld['clocks'] = new Map();
  const world = createWorld({
    seed,
    ...(options.originMs === undefined ? {} : { originMs: options.originMs }),
    operationsMax: options.operationsMax,
    faults,
    keepTrace: options.trace,
    cutAt: ({ node }) => {
      const before = world.chance('cut.before', node);
      const after = world.chance('cut.after', node);
      if (!before && !after) return null;
      const cuts = (cutsOf.get(node) ?? 0) + 1;
      cutsOf.set(node, cuts);
      if (cuts > cutsMax && only === undefined) return null;
      return before ? 'before' : 'after';
    },
    onCut: (of) => nodes.get(of.node)?.afterCut(),
    clockOf: (of) => {
      const own = clocks.get(of.node);
      if (own === undefined) throw new Error(`no clock for ${of.node}`);
      return own.of(of);
    },
  });
  return { world, faults, nodes, clocks };
}
