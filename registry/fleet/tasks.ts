// Why: work that nobody waits for (a message from the bus, a timer) still fails loudly and ends before a stop.
// Trusts: the log port. Must never: swallow a fault.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Log } from '../../shared/kernel/ports.ts';

export interface Tasks {
  /** Runs the work; a fault is logged as `fleet.task.failed` with the name. */
  run(name: string, work: () => Promise<unknown>): void;
  /** Resolves when nothing is running any more. */
  idle(): Promise<void>;
}

export function createTasks(log: Log): Tasks {
  const running = new Set<Promise<void>>();
  return {
    run(name, work) {
      const task = work().then(
        () => undefined,
        (thrown: unknown) => {
          const error = asFleetError(thrown);
          log.emit('error', 'fleet.task.failed', { task: name, code: error.code, detail: error.message });
        },
      );
      running.add(task);
      void task.then(() => running.delete(task));
    },
    async idle() {
      while (running.size > 0) await Promise.all(running);
    },
  };
}
