// Why: whether the canary really went first and the others were really left alone, from every state of a
// rollout that was seen on its way. Trusts: the registry's statuses, in order. Must never: conclude from the
// end alone what only the way there can show.

import type { RolloutStatus } from '../../shared/wire/rollouts.ts';

export interface Testimony {
  /** The device of the first wave, where there are more waves than one and it holds one device. */
  canary: string | null;
  /**
   * True where the canary was seen at work while all others still waited, and no other was ever seen to
   * move before its wave had passed. Null without a canary.
   */
  canaryFirst: boolean | null;
  /** Devices of later waves that were never seen with anything of this rollout. */
  untouched: string[];
}

export interface Witness {
  see(status: RolloutStatus): void;
  testify(): Testimony;
}

/** States in which a device has nothing of the rollout. */
const waiting: ReadonlySet<string> = new Set(['pending', 'unreachable']);

export function createWitness(): Witness {
  let canary: string | null = null;
  let others: string[] = [];
  let aloneSeen = false;
  let earlySeen = false;
  const touched = new Set<string>();
  return {
    see: (status) => {
      if (status.waves.length < 2) return;
      const first = status.devices.filter(({ wave }) => wave === 0);
      const rest = status.devices.filter(({ wave }) => wave > 0);
      canary = first.length === 1 ? (first[0]?.id ?? null) : null;
      others = rest.map(({ id }) => id);
      const moved = rest.filter(({ state, release }) => !waiting.has(state) || release === status.release);
      for (const { id } of moved) touched.add(id);
      if (status.waves[0]?.state === 'passed') return;
      if (moved.length > 0) earlySeen = true;
      else if (first.some(({ state }) => !waiting.has(state))) aloneSeen = true;
    },
    testify: () => ({
      canary,
      canaryFirst: canary === null ? null : aloneSeen && !earlySeen,
      untouched: others.filter((id) => !touched.has(id)),
    }),
  };
}
