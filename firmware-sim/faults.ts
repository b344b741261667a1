// Why: which faults happen in one world: each seed turns on a random part of all kinds at random rates, and each
// fault has a name of its own, so that any one can be taken out while the rest stays.
// Trusts: the seed. Must never: keep state between two decisions, nor let one decision move another.

import { draw } from './chance.ts';

/**
 * Everything that can go wrong by chance, with the rate at which it does where a seed turns it on at most: per
 * question, and a question is one operation of that kind at one node.
 */
export const faultRates = {
  /** Power fails before an operation takes effect, or after it and before the caller learns of it. */
  'cut.before': 0.01,
  'cut.after': 0.01,
  /** A message is lost on the way; at QoS 1 the connection goes with it, as TCP has it. */
  'link.drop': 0.05,
  /** A message arrives much later than others: between sessions, or behind a broker, order is not kept. */
  'link.delay': 0.1,
  'link.duplicate': 0.05,
  'link.reorder': 0.05,
  /** The connection ends for no reason. */
  'link.break': 0.01,
  /** An attempt to connect fails. */
  'link.unreachable': 0.2,
  /** The broker forgets what was retained, and everybody's connection ends. */
  'broker.forget': 0.002,
  'disk.full': 0.02,
  'disk.read-error': 0.01,
  'disk.write-error': 0.01,
  /** A bit of a stored file is not what it was. */
  'disk.rot': 0.005,
  'store.full': 0.01,
  'store.error': 0.005,
  /** After a power cut the database file is torn. */
  'store.torn': 0.05,
  'clock.jump': 0.02,
  'clock.reset': 0.05,
  'model.hang': 0.03,
  'model.crash': 0.03,
  'model.slow': 0.05,
  'model.wrong': 0.03,
  'model.memory': 0.02,
  /** Nobody asks the model while its successor is tried on what it is asked. */
  'model.idle': 0.5,
  /** An operation takes a hundred times as long. */
  'device.slow': 0.01,
} as const;
export type FaultKind = keyof typeof faultRates;
export const faultKinds = Object.keys(faultRates) as FaultKind[];

/** `kind node number`, for instance `disk.full device-1 17`; scenario steps are `step 3`. */
export type FaultId = string;

export interface Faults {
  happens(kind: FaultKind, node: string, nowMs: number): boolean;
  /** A step of the scenario: not by chance, but as easily taken out. */
  takesPlace(step: number): boolean;
  /** What happened so far, in order. */
  fired(): readonly FaultId[];
  /** From here on nothing goes wrong. */
  end(): void;
}

/** The rate of each kind for one seed: half of all are off, the others anywhere up to their greatest. */
export function drawRates(seed: number): ReadonlyMap<FaultKind, number> {
  const calm = draw(seed, 'calm') < 0.05;
  return new Map(
    faultKinds.map((kind) => {
      const on = !calm && draw(seed, 'on', kind) < 0.5;
      // Mostly well below the greatest: a world in which everything fails at once reaches nothing.
      return [kind, on ? faultRates[kind] * draw(seed, 'rate', kind) ** 2 : 0];
    }),
  );
}

/** `only`: exactly these happen, where they are asked for. */
export function createFaults(seed: number, only?: readonly FaultId[]): Faults {
  const rates = drawRates(seed);
  const chosen = only === undefined ? null : new Set(only);
  const numbers = new Map<string, number>();
  const fired: FaultId[] = [];
  let ended = false;
  const decide = (id: FaultId, byChance: () => boolean): boolean => {
    const happens = chosen === null ? byChance() : chosen.has(id);
    if (happens) fired.push(id);
    return happens;
  };
  return {
    happens(kind, node) {
      const key = `${kind} ${node}`;
      const number = numbers.get(key) ?? 0;
      numbers.set(key, number + 1);
      if (ended) return false;
      return decide(
        `${key} ${number}`,
        () => draw(seed, 'fault', kind, node, number) < (rates.get(kind) ?? 0),
      );
    },
    takesPlace: (step) => decide(`step ${step}`, () => true),
    fired: () => fired,
    end() {
      ended = true;
    },
  };
}
