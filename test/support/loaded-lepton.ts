// Why: `lepton` for tests that run it many times, in a process that loads it once. Trusts: loaded-lepton-child.ts;
// test/cli/loaded.test.ts compares it with the program. Must never: outlive the test's process.

import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { LoadedEnd, LoadedRun } from './loaded-lepton-child.ts';
import type { Finished } from './processes.ts';

const childFile = fileURLToPath(new URL('./loaded-lepton-child.js', import.meta.url));

interface Loaded {
  child: ChildProcess;
  waiting: Map<number, { resolve(done: Finished): void }>;
}

/** What hangs is ended and has no exit code. */
const timeoutMs = 120_000;

let loaded: Loaded | null = null;
let runs = 0;

function start(): Loaded {
  const child = fork(childFile, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const waiting: Loaded['waiting'] = new Map();
  child.on('message', ({ number, ...done }: LoadedEnd) => {
    waiting.get(number)?.resolve(done);
    waiting.delete(number);
    if (waiting.size === 0) child.channel?.unref();
  });
  child.on('exit', (code, signal) => {
    loaded = null;
    for (const { resolve } of waiting.values())
      resolve({ code: null, stdout: '', stderr: `the process that runs lepton ended: ${signal ?? code}` });
  });
  child.unref();
  return { child, waiting };
}

/** Whether it runs one now: the next would wait for its end. */
export const isLoadedBusy = (): boolean => (loaded?.waiting.size ?? 0) > 0;

/** As `run('lepton', …)`, one after the other; without stdin, and its start is not what is tested. */
export function runLoaded(args: string[], env: Record<string, string> = {}): Promise<Finished> {
  loaded ??= start();
  const { child, waiting } = loaded;
  runs += 1;
  const all = Object.entries({ ...process.env, LEPTON_LANG: 'en', ...env });
  const asked: LoadedRun = {
    number: runs,
    args,
    env: Object.fromEntries(all.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))),
  };
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    waiting.set(asked.number, {
      resolve(done) {
        clearTimeout(timer);
        resolve(done);
      },
    });
    child.channel?.ref();
    child.send(asked);
  });
}
