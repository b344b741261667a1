// Why: the clocks of one simulated machine: a wall clock that drifts, jumps, and without a battery starts in 1970, and
// a monotonic one that never goes back within a boot. Trusts: the seed.
// Must never: let the monotonic clock show a jump of the wall clock.

import { draw, drawInt } from '../chance.ts';
import type { ClockModel, Incarnation, World } from '../world.ts';

const dayMs = 86_400_000;

export interface MachineClocks {
  of(incarnation: Incarnation): ClockModel;
  /** Somebody, or a wrong time server, sets the wall clock by this much. */
  jump(ms: number): void;
  /** A time server was reached: right again. */
  sync(): void;
}

/** `drifts`: parts per million at most; `battery`: whether the wall clock survives a power cut. */
export function createClocks(
  world: World,
  options: { node: string; driftPpmMax: number; faults: boolean },
): MachineClocks {
  const { node, driftPpmMax, faults } = options;
  const ppm = (draw(world.seed, 'drift', node) * 2 - 1) * driftPpmMax;
  let offsetMs = 0;
  let syncedAtMs = 0;
  const drifted = (nowMs: number): number => Math.round(((nowMs - syncedAtMs) * ppm) / 1e6);

  return {
    of: (incarnation) => {
      const { bootedAtMs, number } = incarnation;
      if (faults && number > 1 && world.fault('clock.reset', node)) {
        // No battery: it starts again in 1970 and runs on from there.
        offsetMs = -(world.originMs + bootedAtMs);
        syncedAtMs = bootedAtMs;
      } else if (faults && world.fault('clock.jump', node)) {
        const days = drawInt(-400, 400, world.seed, 'jump', node, number);
        offsetMs += draw(world.seed, 'jump-far', node, number) < 0.3 ? days * dayMs : days * 9_000;
      }
      const monoOrigin = drawInt(0, 10_000_000, world.seed, 'mono', node, number) - bootedAtMs;
      return {
        // As `Date.now` has it: whole milliseconds.
        wallMs: (nowMs) => Math.floor(world.originMs + nowMs + offsetMs + drifted(nowMs)),
        monoMs: (nowMs) => nowMs + monoOrigin,
      };
    },
    jump: (ms) => {
      offsetMs += ms;
    },
    sync: () => {
      offsetMs = 0;
      syncedAtMs = world.nowMs();
    },
  };
}
