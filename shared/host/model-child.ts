// Why: what every process has in common in which a model's native code runs: an environment that says nothing, an end
// with its parent, memory that others can read.
// Trusts: the operating system. Must never: hand such a process anything of its parent's environment that it does not
// need to find its libraries: a model could read a token there.

import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Nothing of our environment but where libraries are found. */
export function modelChildEnvironment(): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = {
    MALLOC_ARENA_MAX: '2',
    UV_THREADPOOL_SIZE: '1',
    // Since 1.29 ONNX Runtime reports models by name and digest to its maker and keeps a database for that under the
    // user's home, unless this is set before it starts. A device reports to its registry only. 3 MB less besides.
    ORT_DISABLE_TELEMETRY: '1',
  };
  for (const name of ['LD_LIBRARY_PATH', 'DYLD_LIBRARY_PATH', 'SystemRoot']) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return environment;
}

/** A child that is stuck in a model does not see that its pipe ended: an orderly exit ends it. */
const living = new Set<ChildProcess>();
let exitHooked = false;

/** Kills it when this process exits, unless it ended before. */
export function endWithUs(child: ChildProcess): void {
  living.add(child);
  child.once('close', () => living.delete(child));
  child.once('error', () => living.delete(child));
  if (exitHooked) return;
  exitHooked = true;
  process.once('exit', () => {
    for (const one of living) one.kill('SIGKILL');
  });
}

/** Resident memory of a process and its high-water mark; null where it is gone or the system does not say. */
export function residentMemory(pid: number | 'self'): { rssBytes: number; peakBytes: number } | null {
  let status: string;
  try {
    status = readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch (error) {
    // Gone, or no /proc on this system.
    if (error instanceof Error) return null;
    throw error;
  }
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
  const [rssBytes, peakBytes] = [field('VmRSS'), field('VmHWM')];
  // A process that has just ended has neither.
  return Number.isFinite(rssBytes) && Number.isFinite(peakBytes) ? { rssBytes, peakBytes } : null;
}
