// Why: a model is loaded and run once in a process of its own, under a limit of memory and of time, before anybody
// depends on it. Trusts: nothing the process says beyond its form. Must never: load a model in this process, or leave
// the other one or its folder behind.

import { spawn } from 'node:child_process';
import { copyFileSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Clock, ModelTrial, TrialModel } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import type { TensorSignature } from '../wire/manifest.ts';

export interface TrialOrder {
  modelPath: string;
  inputs: TensorSignature[];
  outputs: string[];
}

export interface TrialReport {
  loaded: boolean;
  /** Why it was not loaded, or what a run on zeros said. */
  detail: string | null;
}

/** Between two looks at the process's memory; a model fills a gigabyte in a quarter of a second. */
const lookMs = 20;
const stderrKeptBytes = 2_048;
const stdoutBytesMax = 64 * 1024;

/** Whether this machine has ONNX Runtime at all. */
export function hasRuntime(): boolean {
  try {
    createRequire(import.meta.url).resolve('onnxruntime-node');
    return true;
  } catch {
    return false;
  }
}

/** Nothing of this process's environment but where libraries are found: it may hold a token. */
function bareEnvironment(): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { MALLOC_ARENA_MAX: '2' };
  for (const name of ['LD_LIBRARY_PATH', 'DYLD_LIBRARY_PATH', 'SystemRoot']) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return environment;
}

/** Resident bytes; null where there is no /proc, or no such process any more. */
function residentBytes(pid: number): number | null {
  try {
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return null;
  }
}

function layOut(folder: string, model: TrialModel): void {
  for (const { path, localPath } of model.files) {
    const to = join(folder, path);
    mkdirSync(dirname(to), { recursive: true });
    try {
      linkSync(localPath, to);
    } catch {
      // Another file system, or one without hard links.
      copyFileSync(localPath, to);
    }
  }
}

interface Ended {
  stdout: string;
  stderr: string;
  how: string;
  stopped: 'memory' | 'time' | null;
  peakBytes: number;
}

function runChild(order: TrialOrder, model: TrialModel, clock: Clock): Promise<Ended> {
  const entry = fileURLToPath(new URL(`./model-trial-child${extname(import.meta.url)}`, import.meta.url));
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--no-expose-wasm', entry], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: bareEnvironment(),
      windowsHide: true,
    });
    const ended: Ended = { stdout: '', stderr: '', how: '', stopped: null, peakBytes: 0 };
    let over = false;
    const finish = (how: string): void => {
      if (over) return;
      over = true;
      resolve({ ...ended, how });
    };
    const stop = (why: 'memory' | 'time'): void => {
      ended.stopped ??= why;
      child.kill('SIGKILL');
    };
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      ended.stdout = (ended.stdout + part).slice(0, stdoutBytesMax);
    });
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      ended.stderr = (ended.stderr + part).slice(-stderrKeptBytes);
    });
    child.once('error', (error) => finish(error.message));
    child.once('close', (code, signal) => finish(signal ?? `exit ${code}`));
    // A process that died before it read its order says so by its end.
    child.stdin.on('error', () => undefined);
    child.stdin.end(JSON.stringify(order));
    const watch = async (): Promise<void> => {
      const endMs = clock.mono() + model.timeoutMs;
      while (!over) {
        await clock.timer(lookMs).done;
        if (over) return;
        const bytes = child.pid === undefined ? null : residentBytes(child.pid);
        ended.peakBytes = Math.max(ended.peakBytes, bytes ?? 0);
        if (bytes !== null && bytes > model.memoryBytesMax) stop('memory');
        else if (clock.mono() >= endMs) stop('time');
      }
    };
    void watch();
  });
}

function parseReport(stdout: string): TrialReport | null {
  try {
    const report = JSON.parse(stdout) as Partial<TrialReport> | null;
    if (typeof report?.loaded !== 'boolean') return null;
    return { loaded: report.loaded, detail: typeof report.detail === 'string' ? report.detail : null };
  } catch {
    return null;
  }
}

const mebibytes = (bytes: number): number => Math.round(bytes / 1_048_576);

function verdict(ended: Ended, model: TrialModel): Result<void> {
  if (ended.stopped === 'memory') {
    const [peak, most] = [mebibytes(ended.peakBytes), mebibytes(model.memoryBytesMax)];
    return refuse('model-memory-exceeded', `it took ${peak} MiB when it was tried; the limit is ${most} MiB`);
  }
  if (ended.stopped === 'time')
    return refuse('model-load-failed', `it was not loaded and run within ${model.timeoutMs} ms`);
  const report = parseReport(ended.stdout);
  if (report === null) {
    const last = ended.stderr.trim().split('\n').at(-1) ?? '';
    return refuse('model-crashed', `its process ended when it was tried (${ended.how}) ${last}`.trim());
  }
  return report.loaded ? ok() : refuse('model-invalid', report.detail ?? 'not loaded');
}

/** One trial after the other: two at once would need the memory of both. */
export function createModelTrial(clock: Clock): ModelTrial {
  let tail: Promise<unknown> = Promise.resolve();
  const one = async (model: TrialModel): Promise<Result<void>> => {
    const folder = mkdtempSync(join(tmpdir(), 'lepton-trial-'));
    try {
      layOut(folder, model);
      const order = {
        modelPath: join(folder, model.modelPath),
        inputs: model.inputs,
        outputs: model.outputs,
      };
      return verdict(await runChild(order, model, clock), model);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };
  return {
    run: (model) => {
      const turn = tail.then(() => one(model));
      tail = turn.catch(() => undefined);
      return turn;
    },
  };
}
