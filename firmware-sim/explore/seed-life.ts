// Why: one seed lived through and told, whatever the world is: what nobody handled and a world that fails by itself are broken
// invariants as well. Trusts: nothing. Must never: let a rejection pass that nobody waited for.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Faults } from '../faults.ts';
import type { Reached } from '../fleet-world/node-log.ts';
import type { World } from '../world.ts';
import type { SeedResult } from './seed-run.ts';

/** Runs `live` to its end; `told` counts what is only seen afterwards. */
export async function liveSeed(parts: {
  seed: number;
  trace: boolean;
  world: World;
  faults: Faults;
  reached: Reached;
  live(): Promise<void>;
  told?(): void;
  devices(): number;
}): Promise<SeedResult> {
  const { seed, trace, world, faults, reached } = parts;
  const onRejection = (thrown: unknown): void => {
    const fault = asFleetError(thrown);
    world.violate(`nobody handled: ${fault.code}: ${fault.stack ?? fault.message}`);
  };
  process.on('unhandledRejection', onRejection);
  try {
    await parts.live();
  } catch (thrown) {
    world.violate(`the world itself failed: ${thrown instanceof Error ? thrown.stack : String(thrown)}`);
  } finally {
    process.off('unhandledRejection', onRejection);
  }
  parts.told?.();
  for (const id of faults.fired())
    reached.count('fault', id.startsWith('step') ? 'step' : (id.split(' ')[0] ?? id));
  return {
    seed,
    violation: world.violation(),
    endedAtMs: world.nowMs(),
    faults: [...faults.fired()],
    operations: world.operations(),
    devices: parts.devices(),
    traceSha256: world.traceSha256(),
    trace: trace ? world.trace() : [],
    marks: trace ? [...world.marks()] : [],
    coverage: reached.coverage(),
  };
}
