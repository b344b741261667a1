// Why: the resident memory of every child, looked at by one timer. Trusts: /proc where there is one; elsewhere the
// child is asked. Must never: hold up the event loop, or keep looking at a process that is gone.

import { totalmem } from 'node:os';
import { residentMemory } from '../../shared/host/model-child.ts';
import type { Clock, Timer } from '../../shared/kernel/ports.ts';
import type { ModelProcess } from './process.ts';

export interface MemoryWatch {
  /** Tells the resident bytes of this process again and again, until the returned function is called. */
  add(child: ModelProcess, look: (rssBytes: number) => void): () => void;
}

/** Null where the process is gone, or there is no /proc. One read of a file that is not on a disk: 20 µs. */
export function residentBytes(pid: number): number | null {
  return residentMemory(pid)?.rssBytes ?? null;
}

/** What the processes of this device may take together: a container may have less than the machine. */
export function deviceMemoryBytes(): number {
  const machine = totalmem();
  const constrained = process.constrainedMemory?.() ?? 0;
  return constrained > 0 && constrained < machine ? constrained : machine;
}

export function createMemoryWatch(clock: Clock, options: { everyMs: number; askMs: number }): MemoryWatch {
  const watched = new Map<ModelProcess, (rssBytes: number) => void>();
  const asked = new Set<ModelProcess>();
  let timer: Timer | null = null;

  const tell = (child: ModelProcess, rssBytes: number | null): void => {
    if (rssBytes !== null) watched.get(child)?.(rssBytes);
  };
  const lookAt = async (child: ModelProcess): Promise<void> => {
    if (process.platform === 'linux')
      return tell(child, child.pid === null ? null : residentBytes(child.pid));
    if (asked.has(child)) return;
    asked.add(child);
    const answer = await child.ask({ kind: 'memory' }, [], options.askMs);
    asked.delete(child);
    tell(child, answer.ok ? answer.value.reply.rssBytes : null);
  };
  const arm = (): void => {
    if (timer !== null || watched.size === 0) return;
    timer = clock.timer(options.everyMs);
    void timer.done.then(() => {
      timer = null;
      for (const child of [...watched.keys()]) void lookAt(child);
      arm();
    });
  };
  return {
    add: (child, look) => {
      watched.set(child, look);
      arm();
      return () => {
        watched.delete(child);
        if (watched.size > 0) return;
        timer?.cancel();
        timer = null;
      };
    },
  };
}
