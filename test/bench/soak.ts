// Why: `npm run soak`: releases are switched under fifty connections, two hundred times, and under a hundred thousand
// requests; nothing may fail, nothing may grow. Exits 1 on a miss. Trusts: swap-load.ts for what an answer must be.
// Must never: call a number good that was measured while something failed.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { residentBytes } from '../../agent/inference/memory-watch.ts';
import { forceBadRelease } from '../inference/forced.ts';
import { noTrap } from '../inference/made.ts';
import { askOver, type LoadOutcome, question, type Sample, startSwapLoad } from '../inference/swap-load.ts';
import { modelCase } from '../support/cases.ts';
import { dataMissing, projectFolder } from '../support/data.ts';
import type { Command, Facts, Told } from './soak-server.ts';

type Unnumbered<T> = T extends unknown ? Omit<T, 'id'> : never;
interface Row {
  what: string;
  measured: number;
  limit: number;
  unit: string;
}

const rows: Row[] = [];
const note = (what: string, measured: number, limit: number, unit: string): void => {
  rows.push({ what, measured, limit, unit });
  const verdict = measured <= limit ? 'ok  ' : 'MISS';
  process.stdout.write(`${verdict} ${what}: ${Number(measured.toPrecision(4))} ${unit} (at most ${limit})\n`);
};
const MiB = 1024 * 1024;
const scale = Number(process.env['LEPTON_SOAK_SCALE'] ?? 1);

async function startServer() {
  const child = fork(fileURLToPath(new URL('./soak-server.js', import.meta.url)), { execArgv: [] });
  const waiting = new Map<number, (told: Extract<Told, { id: number }>) => void>();
  const exited = once(child, 'exit');
  const [hello] = (await once(child, 'message')) as [{ url: string }];
  child.on('message', (message) => {
    const told = message as Extract<Told, { id: number }>;
    waiting.get(told.id)?.(told);
    waiting.delete(told.id);
  });
  let nextId = 1;
  const tell = (command: Unnumbered<Command>): Promise<Extract<Told, { id: number }>> =>
    new Promise((resolve, reject) => {
      const id = nextId++;
      waiting.set(id, resolve);
      void exited.then(([code]) => reject(new Error(`the server ended: ${code}`)));
      child.send({ ...command, id });
    });
  const facts = async (): Promise<Facts> =>
    (await tell({ do: 'facts' })).facts ?? { requests: { answered: 0, failed: 0 }, childPids: [] };
  return {
    url: hello.url,
    tell,
    facts,
    /** Agent and children, the median of a second. */
    totalBytes: async (): Promise<number> => {
      const { childPids } = await facts();
      const seen: number[] = [];
      for (let look = 0; look < 10; look++) {
        await pause(100);
        seen.push([child.pid ?? 0, ...childPids].reduce((sum, pid) => sum + (residentBytes(pid) ?? 0), 0));
      }
      return seen.sort((a, b) => a - b)[5] ?? Number.NaN;
    },
    close: async () => {
      child.disconnect();
      await exited;
    },
  };
}
type Server = Awaited<ReturnType<typeof startServer>>;

/** Serves both cases under one name and takes each one's own answer. Ends with the second serving, the first unloaded. */
async function prepare(server: Server, as: string, cases: [string, string], threads: number) {
  const [first, second] = cases.map(modelCase);
  if (first === undefined || second === undefined) throw new Error('two cases');
  const asked = question(`${server.url}/v2/models/${as}/infer`, first.inputs);
  const own = new Map<string, Buffer>();
  const agent = new Agent({ keepAlive: true });
  const manifest = { session: { threads } };
  const load = (one: { modelPath: string }) =>
    server.tell({ do: 'load', as, modelPath: one.modelPath, manifest });
  for (const one of [first, second]) {
    const { release = 0, releaseId = '' } = await load(one);
    await server.tell({ do: 'activate', as, release });
    const { body, release: label } = await askOver(agent, asked);
    if (label !== releaseId) throw new Error(`${label} answered for ${releaseId}`);
    own.set(label, body);
  }
  agent.destroy();
  const turns = [first, second];
  let active = 1;
  /** Loads the other one, moves the traffic, ends this one. */
  const swap = async (): Promise<void> => {
    const [from, to] = [turns[active], turns[1 - active]];
    if (from === undefined || to === undefined) throw new Error('two cases');
    const before = await load(from);
    const next = await load(to);
    await server.tell({ do: 'activate', as, release: next.release ?? 0 });
    await server.tell({ do: 'unload', as, release: before.release ?? 0 });
    active = 1 - active;
  };
  const { release = 0 } = await load(first);
  await server.tell({ do: 'unload', as, release });
  return { asked, own, swap };
}

const p99 = (samples: readonly Sample[]): number => {
  const sorted = samples.map(({ startMs, endMs }) => endMs - startMs).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN;
};

function judge(what: string, outcome: LoadOutcome): void {
  for (const problem of outcome.problems.slice(0, 5)) process.stdout.write(`  ${problem}\n`);
  note(`${what}: requests that failed or were answered wrongly`, outcome.problems.length, 0, 'requests');
}

/** Fifty connections for a minute, ten swaps spread over it. */
async function swapsUnderLoad(as: string, cases: [string, string]): Promise<object> {
  const server = await startServer();
  try {
    const { asked, own, swap } = await prepare(server, as, cases, 1);
    const load = startSwapLoad(asked, own, 50);
    await pause(3_000 * scale);
    const windows: Sample[] = [];
    for (let swaps = 0; swaps < 10; swaps++) {
      const startMs = performance.now();
      await swap();
      windows.push({ startMs, endMs: performance.now() });
      await pause(Math.max(0, 5_700 * scale - (performance.now() - startMs)));
    }
    const outcome = await load.stop();
    judge(`${as}, ten swaps under 50 connections`, outcome);
    const touches = (one: Sample) => windows.some((w) => one.startMs < w.endMs && one.endMs > w.startMs);
    const during = outcome.samples.filter(touches);
    const steady = outcome.samples.filter((one) => !touches(one));
    const [swapP99Ms, steadyP99Ms] = [p99(during), p99(steady)];
    note(`${as}: p99 during a swap ÷ steady p99`, swapP99Ms / steadyP99Ms, 5, '×');
    const swapMs = windows.map(({ startMs, endMs }) => endMs - startMs);
    const answeredBy = Object.fromEntries(outcome.byRelease);
    return {
      requests: outcome.samples.length,
      answeredBy,
      failed: outcome.problems.length,
      steadyP99Ms,
      swapP99Ms,
      swapMsMax: Math.max(...swapMs),
    };
  } finally {
    await server.close();
  }
}

async function memoryOverSwaps(): Promise<object> {
  const server = await startServer();
  try {
    const { asked, own, swap } = await prepare(
      server,
      'vad',
      ['silero-vad/one-step-v5', 'silero-vad/one-step-v6'],
      1,
    );
    const load = startSwapLoad(asked, own, 4);
    const measured: Record<string, number> = {};
    for (let swaps = 1; swaps <= 200 * scale; swaps++) {
      await swap();
      if (swaps === 10 || swaps === Math.floor(200 * scale)) measured[swaps] = await server.totalBytes();
    }
    judge('vad, 200 swaps', await load.stop());
    const [after10 = Number.NaN, after200 = Number.NaN] = Object.values(measured);
    note('resident after 200 swaps ÷ after 10', after200 / after10, 1.3, '×');
    return { after10MiB: after10 / MiB, after200MiB: after200 / MiB };
  } finally {
    await server.close();
  }
}

async function leak(): Promise<object> {
  const server = await startServer();
  try {
    const { asked, own } = await prepare(server, 'mnist', ['mnist/digit4-opset7', 'mnist/digit4-opset8'], 1);
    const load = startSwapLoad(asked, own, 50);
    const startMs = performance.now();
    const at: Record<number, number> = {};
    const marks = [10_000, 25_000, 50_000, 75_000, 100_000].map((requests) => Math.floor(requests * scale));
    for (const mark of marks) {
      while (load.answered() < mark) await pause(20);
      at[mark] = (await server.totalBytes()) / MiB;
    }
    const seconds = (performance.now() - startMs) / 1_000;
    const outcome = await load.stop();
    judge('mnist, 100,000 requests', outcome);
    const values = Object.values(at);
    note('resident after 100,000 requests ÷ after 10,000', (values.at(-1) ?? 0) / (values[0] ?? 0), 1.1, '×');
    const { requests } = await server.facts();
    return {
      requests: outcome.samples.length,
      counted: requests,
      requestsPerSecond: outcome.samples.length / seconds,
      residentMiB: at,
    };
  } finally {
    await server.close();
  }
}

/** A committed release that dies of its clients' inputs: the one before it answers again. */
async function forced(): Promise<object> {
  if (noTrap !== false) return { skipped: noTrap };
  const outagesMs: number[] = [];
  for (let times = 0; times < 5; times++) outagesMs.push((await forceBadRelease()).outageMs);
  note(
    'a committed release that keeps dying: until the one before answers',
    Math.max(...outagesMs),
    2_000,
    'ms',
  );
  return { outagesMs };
}

if (dataMissing !== false) {
  process.stderr.write(`lepton: not-found: ${dataMissing}\n`);
  process.exit(1);
}
const soak = {
  cores: cpus().length,
  vad: await swapsUnderLoad('vad', ['silero-vad/one-step-v5', 'silero-vad/one-step-v6']),
  yolox: await swapsUnderLoad('yolox', ['yolox-nano/coco139-r2', 'yolox-nano/coco139-r3']),
  swaps: await memoryOverSwaps(),
  leak: await leak(),
  forced: await forced(),
};
const out = join(projectFolder, 'bench-results.json');
const before: object = existsSync(out) ? (JSON.parse(readFileSync(out, 'utf8')) as object) : {};
const rounded = JSON.stringify(
  { ...before, soak: { ...soak, verdicts: rows } },
  (_, value: unknown) => (typeof value === 'number' ? Number(value.toPrecision(4)) : value),
  2,
);
if (scale === 1) writeFileSync(out, `${rounded}\n`);
const width = Math.max(...rows.map(({ what }) => what.length));
for (const { what, measured, limit, unit } of rows) {
  const verdict = measured <= limit ? 'ok' : 'MISS';
  process.stdout.write(
    `${what.padEnd(width)}  ${Number(measured.toPrecision(4))} ${unit}, at most ${limit}  ${verdict}\n`,
  );
}
process.exit(rows.every(({ measured, limit }) => measured <= limit) ? 0 : 1);
