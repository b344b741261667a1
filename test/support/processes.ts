// Why: end-to-end tests run the real programs as people do: the built CLI, registry and agent.
// Trusts: the build in dist/. Must never: leave a process or folder behind, or end one it did not start.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isLoadedBusy, runLoaded } from './loaded-lepton.ts';
import { programs } from './programs.ts';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A private folder that `close` removes together with everything started through it. */
export interface Workplace {
  folder: string;
  path(...parts: string[]): string;
  env: Record<string, string>;
  onClose(close: () => Promise<void>): void;
  close(): Promise<void>;
}

export function workplace(name: string): Workplace {
  const folder = mkdtempSync(join(tmpdir(), `lepton-${name}-`));
  const closers: (() => Promise<void>)[] = [];
  return {
    folder,
    path: (...parts) => join(folder, ...parts),
    env: { XDG_CONFIG_HOME: join(folder, 'config') },
    onClose: (close) => closers.push(close),
    async close() {
      for (const close of closers.reverse()) await close();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end; after `timeoutMs` it is killed and its code is null. */
export function run(
  program: keyof typeof programs,
  args: string[],
  options: { env?: Record<string, string>; input?: string; timeoutMs?: number } = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [programs[program], ...args], {
      // Whatever the language of who runs the tests.
      env: { ...process.env, LEPTON_LANG: 'en', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: 'SIGKILL' }),
    });
    running.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      running.delete(child);
      resolve({ code, stdout, stderr });
    });
    child.stdin.end(options.input ?? '');
  });
}

export interface Daemon {
  child: ChildProcess;
  /** The JSON line with which it said that it is ready. */
  ready: Record<string, string>;
  stderr(): string;
  /** Events of its log, as parsed JSON lines. */
  events(): Record<string, unknown>[];
  /** Sends the signal and waits for its end; the exit code, null after a signal. */
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<number | null>;
}

/** Starts a daemon and resolves at its ready line; rejects with its stderr where it ends before. */
export function startDaemon(
  program: keyof typeof programs,
  args: string[],
  options: { env?: Record<string, string>; readyEvent: string; timeoutMs?: number },
): Promise<Daemon> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--enable-source-maps', programs[program], ...args], {
      env: { ...process.env, LEPTON_LANG: 'en', ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    let stdout = '';
    let stderr = '';
    const closed = new Promise<number | null>((done) => {
      child.on('close', (code) => {
        running.delete(child);
        done(code);
      });
    });
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${program} ${args.join(' ')} was not ready in time\n${stdout}\n${stderr}`));
    }, options.timeoutMs ?? 60_000);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      for (const line of stdout.split('\n').slice(0, -1)) {
        const ready = JSON.parse(line) as Record<string, string>;
        if (ready['event'] !== options.readyEvent) continue;
        clearTimeout(timer);
        resolve({
          child,
          ready,
          stderr: () => stderr,
          events: () =>
            stderr
              .split('\n')
              .filter((text_) => text_.startsWith('{'))
              .map((text_) => JSON.parse(text_) as Record<string, unknown>),
          stop: async (signal = 'SIGTERM') => {
            if (child.exitCode === null && child.signalCode === null) child.kill(signal);
            return closed;
          },
        });
        return;
      }
    });
    child.on('error', reject);
    void closed.then((code) => {
      clearTimeout(timer);
      reject(new Error(`${program} ended with ${code} before it was ready\n${stdout}\n${stderr}`));
    });
  });
}

/** Runs `lepton` against a registry; `json` parses its document; fails the test on another exit code. */
export type LeptonRunner = (
  args: string[],
  expectedExit?: number,
) => Promise<Finished & { json: () => unknown }>;

/** `loaded`: in a process that loads the program once; while that one is busy, and else always, in one of its own. */
export function leptonRunner(
  place: Workplace,
  address: { http: string; token: string },
  loaded = false,
): LeptonRunner {
  return async (args, expectedExit = 0) => {
    const env = { ...place.env, LEPTON_REGISTRY: address.http, LEPTON_TOKEN: address.token };
    const done = await (loaded && !isLoadedBusy() ? runLoaded(args, env) : run('lepton', args, { env }));
    assert.equal(done.code, expectedExit, `lepton ${args.join(' ')}\n${done.stdout}\n${done.stderr}`);
    return { ...done, json: () => JSON.parse(done.stdout) as unknown };
  };
}

export interface TestRegistry {
  daemon: Daemon;
  http: string;
  mqtt: string;
  token: string;
  lepton: LeptonRunner;
  /** Starts it again on the same folder and ports. */
  restart(): Promise<void>;
}

/** A daemon; `lepton` speaks to it, `loaded` as in leptonRunner. */
export async function startTestRegistry(
  place: Workplace,
  name = 'registry',
  extra: string[] = [],
  loaded = true,
): Promise<TestRegistry> {
  const data = place.path(name);
  const start = (): Promise<Daemon> =>
    startDaemon(
      'lepton',
      [
        'serve',
        '--data',
        data,
        '--region',
        'eu-west',
        '--http',
        '127.0.0.1:0',
        '--mqtt',
        '127.0.0.1:0',
        ...extra,
      ],
      { env: place.env, readyEvent: 'registry.ready' },
    );
  const registry: TestRegistry = {
    daemon: await start(),
    http: '',
    mqtt: '',
    token: '',
    lepton: (args, expectedExit) => leptonRunner(place, registry, loaded)(args, expectedExit),
    async restart() {
      registry.daemon = await start();
    },
  };
  registry.http = registry.daemon.ready['http'] ?? '';
  registry.mqtt = registry.daemon.ready['mqtt'] ?? '';
  registry.token = readFileSync(join(data, 'admin.token'), 'utf8').trim();
  place.onClose(async () => {
    await registry.daemon.stop();
  });
  return registry;
}

export interface TestAgent {
  daemon: Daemon;
  id: string;
  http: string;
  state: string;
  restart(): Promise<void>;
}

/** Runs an agent daemon; it enrols with the claim, or is enrolled already (null). */
export async function startTestAgent(
  place: Workplace,
  claimFile: string | null,
  name = 'agent',
  extra: string[] = [],
): Promise<TestAgent> {
  const state = place.path(name);
  const start = (args: string[]): Promise<Daemon> =>
    startDaemon('agent', ['run', '--state', state, '--http', '127.0.0.1:0', ...args, ...extra], {
      env: place.env,
      readyEvent: 'agent.ready',
    });
  const daemon = await start(claimFile === null ? [] : ['--claim', claimFile]);
  const agent: TestAgent = {
    daemon,
    id: daemon.ready['device'] ?? '',
    http: daemon.ready['http'] ?? '',
    state,
    async restart() {
      agent.daemon = await start([]);
      agent.http = agent.daemon.ready['http'] ?? '';
    },
  };
  place.onClose(async () => {
    await agent.daemon.stop();
  });
  return agent;
}

/**
 * Waits until `check` gives a value; fails with what it last saw. Between two looks it pauses at least as long as the
 * look took, so that a wait does not keep busy what it waits for.
 */
export async function until<T>(
  what: string,
  check: () => Promise<T | null | undefined | false> | T | null | undefined | false,
  timeoutMs = 30_000,
  everyMs = 20,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const from = performance.now();
    const value = await check();
    if (value !== null && value !== undefined && value !== false) return value;
    const now = performance.now();
    if (now > end) throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, Math.max(everyMs, now - from)));
  }
}
