// Why: one way to start a process that runs what may crash, hang or eat memory, as a model's native code does: with no
// core file, a limit of processor time, an environment that says nothing and an end with ours.
// Trusts: the operating system. Must never: start one that outlives us on an orderly exit, or hand it our environment.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { endWithUs, modelChildEnvironment } from './model-child.ts';

/** As the child that serves has them, so that all take alike. */
export const modelProcessFlags = ['--no-opt', '--no-maglev', '--no-expose-wasm', '--max-semi-space-size=1'];
const shell = '/bin/sh';

export interface ProcessLimits {
  /** What a list of processes calls it. */
  name: string;
  /** Of Node. */
  flags: readonly string[];
  /** Of processor time; null: none. */
  cpuSeconds: number | null;
}

/** For a process that is given so much time: twice that, because two threads of it may work, and its start. */
export const cpuSecondsFor = (timeoutMs: number): number => Math.ceil(timeoutMs / 1_000) * 2 + 5;

/**
 * Descriptors: 0 what we write, 2 stderr, 3 what it answers. Through a shell where there is one: the limit of processor
 * time also ends it where nobody is left to watch. Limits of the address space are no use: Node reserves far more than
 * it takes.
 */
export function spawnLimited(entry: string, { name, flags, cpuSeconds }: ProcessLimits): ChildProcess {
  const args = [process.execPath, ...flags, entry];
  const limited = `ulimit -c 0; ${cpuSeconds === null ? '' : `ulimit -t ${cpuSeconds}; `}exec "$@"`;
  const [program = '', ...rest] = existsSync(shell) ? [shell, '-c', limited, name, ...args] : args;
  const child = spawn(program, rest, {
    stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
    env: modelChildEnvironment(),
    // A Ctrl-C in the terminal is not meant for it.
    detached: true,
    windowsHide: true,
  });
  endWithUs(child);
  return child;
}
