// Why: where the demo runs: a folder of its own and the real programs as processes, as a user starts them.
// Trusts: the build beside it. Must never: touch the user's own configuration, leave a process or the folder
// behind, or end a process that it did not start.

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';

const built = fileURLToPath(new URL('../../', import.meta.url));
const programs = {
  lepton: join(built, 'programs/lepton.js'),
  'lepton-agent': join(built, 'programs/lepton-agent.js'),
} as const;
export type Program = keyof typeof programs;

const readyMs = 60_000;
/** Longer than the programs themselves take to drain. */
const stopMs = 20_000;

export interface Daemon {
  name: string;
  pid: number;
  /** Its ready line. */
  ready: Record<string, string>;
  /** False once it has ended, for whatever reason. */
  running(): boolean;
  stop(): Promise<void>;
}

export interface Place {
  folder: string;
  path(...parts: string[]): string;
  read(path: string): string;
  write(path: string, content: Uint8Array | string): void;
  /** Runs a program to its end; its stdout. Fault `demo-failed` with what it printed where it fails. */
  run(program: Program, args: string[], env?: Record<string, string>): Promise<string>;
  /** Starts a daemon; resolves at its ready line. Its log goes to `logs/NAME.log`. */
  start(name: string, program: Program, args: string[], readyEvent: string): Promise<Daemon>;
  /** The last lines of a daemon's log. */
  logTail(name: string, lines: number): string[];
  /** Ends everything, last started first, and removes the folder. Idempotent. */
  close(): Promise<void>;
}

/** The user's environment without settings of ours: the demo must not speak to another registry. */
function environment(folder: string): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('LEPTON_'));
  return { ...Object.fromEntries(kept), XDG_CONFIG_HOME: join(folder, 'config') };
}

function makeFolder(): string {
  try {
    return mkdtempSync(join(tmpdir(), 'lepton-demo-'));
  } catch (cause) {
    throw new FleetError('disk-io', `no folder can be made in ${tmpdir()}`, {
      cause,
      hint: 'set TMPDIR to a folder that can be written',
    });
  }
}

/** Fault: `disk-io`. */
export function openPlace(clock: Clock): Place {
  const folder = makeFolder();
  const env = environment(folder);
  const children = new Set<ChildProcess>();
  const daemons: Daemon[] = [];
  const killAll = (): void => {
    for (const child of children) child.kill('SIGKILL');
  };
  const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  // The last resort, where this process ends without having closed the place.
  const onExit = (): void => {
    killAll();
    remove();
  };
  process.on('exit', onExit);
  let closed: Promise<void> | null = null;
  const path = (...parts: string[]): string => join(folder, ...parts);

  const adopt = (child: ChildProcess): Promise<number | null> => {
    children.add(child);
    return new Promise((resolve) => {
      child.on('error', () => resolve(null));
      child.on('close', resolve);
    }).then((code) => {
      children.delete(child);
      return typeof code === 'number' ? code : null;
    });
  };

  const stopChild = async (child: ChildProcess, ended: Promise<unknown>): Promise<void> => {
    if (!children.has(child)) return;
    child.kill('SIGTERM');
    const timer = clock.timer(stopMs);
    void timer.done.then(() => child.kill('SIGKILL'));
    await ended;
    timer.cancel();
  };

  const logTail = (name: string, lines: number): string[] =>
    readFileSync(path('logs', `${name}.log`), 'utf8')
      .trimEnd()
      .split('\n')
      .slice(-lines);

  const start: Place['start'] = async (name, program, args, readyEvent) => {
    mkdirSync(path('logs'), { recursive: true });
    const log = openSync(path('logs', `${name}.log`), 'a');
    // A process group of its own: Ctrl-C reaches this process alone, which ends the others in order.
    const child = spawn(process.execPath, ['--enable-source-maps', programs[program], ...args], {
      env,
      stdio: ['ignore', 'pipe', log],
      detached: true,
    });
    closeSync(log);
    const ended = adopt(child);
    const timer = clock.timer(readyMs);
    try {
      const ready = await new Promise<Record<string, string>>((resolve, reject) => {
        const fail = (why: string): void =>
          reject(new FleetError('demo-failed', `${name} ${why}: ${logTail(name, 3).join(' ')}`));
        let stdout = '';
        child.stdout?.setEncoding('utf8').on('data', (text: string) => {
          stdout += text;
          const ready = readyLine(stdout, readyEvent);
          if (ready !== null) resolve(ready);
        });
        void ended.then((code) => fail(`ended with ${code} before it was ready`));
        void timer.done.then(() => fail(`was not ready within ${readyMs / 1_000} s`));
      });
      const daemon: Daemon = {
        name,
        pid: child.pid ?? 0,
        ready,
        running: () => children.has(child),
        stop: () => stopChild(child, ended),
      };
      daemons.push(daemon);
      return daemon;
    } catch (error) {
      await stopChild(child, ended);
      throw error;
    } finally {
      timer.cancel();
    }
  };

  const run: Place['run'] = async (program, args, extra = {}) => {
    const child = spawn(process.execPath, [programs[program], ...args], {
      cwd: folder,
      env: { ...env, ...extra },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const code = await adopt(child);
    if (code !== 0) {
      const said = stderr.trim() || stdout.trim();
      throw new FleetError('demo-failed', `${program} ${args.join(' ')} ended with ${code}: ${said}`);
    }
    return stdout;
  };

  const close = async (): Promise<void> => {
    for (const daemon of [...daemons].reverse()) await daemon.stop();
    killAll();
    remove();
    process.off('exit', onExit);
  };

  return {
    folder,
    path,
    read: (name) => readFileSync(name, 'utf8'),
    write: (name, content) => {
      mkdirSync(dirname(name), { recursive: true });
      writeFileSync(name, content);
    },
    run,
    start,
    logTail,
    close: () => {
      closed ??= close();
      return closed;
    },
  };
}

/** The complete line of stdout that announces readiness, or null as long as there is none. */
function readyLine(stdout: string, event: string): Record<string, string> | null {
  for (const line of stdout.split('\n').slice(0, -1)) {
    if (!line.startsWith('{')) continue;
    const parsed = JSON.parse(line) as Record<string, string>;
    if (parsed['event'] === event) return parsed;
  }
  return null;
}
