// Why: code inside the simulated world must not reach the real one by a side door.
// Trusts: Node's own parts not to use the globals it replaces. Must never: stay on after the run.

import { FleetError } from '../shared/kernel/errors.ts';

const doors = [
  { holder: globalThis, name: 'setTimeout' },
  { holder: globalThis, name: 'setInterval' },
  { holder: globalThis, name: 'fetch' },
  { holder: Reflect.get(globalThis, 'Date') as object, name: 'now' },
  { holder: Reflect.get(globalThis, 'performance') as object, name: 'now' },
  { holder: Math, name: 'random' },
];

/** Runs `work` with real time, chance and network shut: using them throws `internal`. */
export async function guarded<T>(work: () => Promise<T>): Promise<T> {
  const before = doors.map(({ holder, name }) => Object.getOwnPropertyDescriptor(holder, name));
  for (const { holder, name } of doors) {
    const shut = () => {
      throw new FleetError('internal', `${name} was used inside the simulated world`);
    };
    Object.defineProperty(holder, name, { value: shut, configurable: true, writable: true });
  }
  try {
    return await work();
  } finally {
    for (const [index, { holder, name }] of doors.entries()) {
      const descriptor = before[index];
      if (descriptor === undefined) Reflect.deleteProperty(holder, name);
      else Object.defineProperty(holder, name, descriptor);
    }
  }
}
