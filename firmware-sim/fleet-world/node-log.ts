// Why: what a node logs is part of the trace, and a log line that says "bug" is a broken invariant.
// Trusts: nothing. Must never: let an `internal` fault pass as one of the world's own.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Log } from '../../shared/kernel/ports.ts';
import type { Coverage } from '../explore/seed-run.ts';
import type { World } from '../world.ts';

/** Counts what was reached, by `area name`. */
export interface Reached {
  count(area: string, name: string): void;
  coverage(): Coverage;
}

export function createReached(): Reached {
  const counts = new Map<string, number>();
  return {
    count: (area, name) => {
      const key = `${area} ${name}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    },
    coverage: () => Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1))),
  };
}

/** Work of a registry that nobody waits for, and what the world itself may do to it. */
const failed: ReadonlySet<string> = new Set(['rollout.step.failed', 'fleet.task.failed', 'registry.failed']);
const passing: ReadonlySet<string> = new Set(['disk-full', 'disk-io', 'bus-offline', 'interrupted']);

/** Every code that stands anywhere in what is logged. */
function codesIn(value: unknown, found: string[] = []): string[] {
  if (Array.isArray(value)) for (const one of value) codesIn(one, found);
  else if (value !== null && typeof value === 'object') {
    for (const [name, one] of Object.entries(value)) {
      if ((name === 'code' || name === 'barredBy') && typeof one === 'string') found.push(one);
      else codesIn(one, found);
    }
  }
  return found;
}

export function nodeLog(
  world: World,
  node: string,
  reached: Reached,
  onEvent?: (event: string, fields: Readonly<Record<string, unknown>>) => void,
): Log {
  return {
    emit: (level, event, fields = {}) => {
      world.note(`${node} ${level} ${event} ${JSON.stringify(fields)}`);
      if (failed.has(event) && !passing.has(String(fields['code'])))
        world.violate(`${node}: ${event} ${JSON.stringify(fields)}`);
      onEvent?.(event, fields);
      if (event === 'rollout.transition') reached.count('rollout', String(fields['to']));
      for (const code of codesIn(fields)) {
        reached.count('code', code);
        if (code === 'internal') world.violate(`${node}: a fault inside: ${event} ${JSON.stringify(fields)}`);
      }
    },
  };
}

/** As a supervisor ends a program: everything that it opened, the last first; what fails on the way holds up nothing. */
export async function endedProperly(
  world: World,
  node: string,
  ends: (() => Promise<void>)[],
): Promise<void> {
  for (let end = ends.pop(); end !== undefined; end = ends.pop()) {
    await end().catch((thrown: unknown) => world.note(`${node} stopping: ${asFleetError(thrown).message}`));
  }
  world.note(`${node} ended properly`);
}
