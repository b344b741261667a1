// Why: what serving costs: a request through HTTP and child against raw `session.run` in the same run,
// and the child's memory beside a bare node's. Trusts: the data folder's cases. Must never: compare
// numbers of two different runs.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { startAgentHttp } from '../../agent/api/http.ts';
import { openSession } from '../../agent/inference/session.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { encodeInferRequest } from '../../shared/wire/oip-json.ts';
import { tensorToBytes } from '../../shared/wire/tensors.ts';
import { emptyStatus, openStage } from '../inference/staging.ts';
import { modelCase } from '../support/cases.ts';

interface Percentiles {
  p50Ms: number;
  p95Ms: number;
}

interface ModelBench {
  rawSession: Percentiles;
  throughHost: Percentiles;
  throughHttp: Percentiles;
  /** Medians: what host and child add to the runtime, and what HTTP and JSON add on top. */
  hostOverheadMs: number;
  httpOverheadMs: number;
  requestBytes: number;
  childRssMiB: number | null;
  childPeakMiB: number | null;
  loadToServingMs: number;
}

const round = (value: number): number => Math.round(value * 1_000) / 1_000;

/** Interleaved, so that a slower minute of the machine hits all of them. */
async function measure(rounds: number, tasks: (() => Promise<unknown>)[]): Promise<Percentiles[]> {
  const times = tasks.map((): number[] => []);
  for (let index = 0; index < rounds + 5; index++) {
    for (const [which, task] of tasks.entries()) {
      const start = systemClock.mono();
      await task();
      if (index >= 5) times[which]?.push(systemClock.mono() - start);
    }
  }
  return times.map((list) => {
    const sorted = list.sort((a, b) => a - b);
    const at = (fraction: number): number =>
      round(sorted[Math.floor(sorted.length * fraction)] ?? Number.NaN);
    return { p50Ms: at(0.5), p95Ms: at(0.95) };
  });
}

/** MiB of one field of a process, null where there is no /proc. */
function memoryMiB(pid: number | null | undefined, field: 'VmRSS' | 'VmHWM'): number | null {
  if (pid === null || pid === undefined || process.platform !== 'linux') return null;
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return match === null ? null : round(Number(match[1]) / 1024);
}

/** A client as lean as can be, with one kept connection: the client's own cost is not the agent's. */
function createClient(url: string): (body: Uint8Array) => Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  return (body) =>
    new Promise((resolve, reject) => {
      const sent = request(
        url,
        { method: 'POST', agent, headers: { 'content-length': body.length } },
        (response) => {
          response.on('data', () => undefined);
          response.on('end', () =>
            response.statusCode === 200 ? resolve() : reject(new Error(`${response.statusCode}`)),
          );
        },
      );
      sent.on('error', reject);
      sent.end(body);
    });
}

async function benchModel(name: string, rounds: number): Promise<ModelBench> {
  const { modelPath, inputs, fetch } = modelCase(name);
  const stage = openStage({ threads: 1 });
  const http = await startAgentHttp({
    host: '127.0.0.1',
    port: 0,
    inference: stage.host,
    status: async () => emptyStatus,
    clock: systemClock,
    log: { emit: () => undefined },
  });
  try {
    const start = systemClock.mono();
    await stage.serve('bench', modelPath);
    const loadToServingMs = round(systemClock.mono() - start);
    const session = await openSession(modelPath, { threads: 1, providers: ['cpu'], clock: systemClock });
    const heads = inputs.map((tensor) => ({
      head: { name: tensor.name, datatype: tensor.datatype, shape: tensor.shape },
      bytes: tensorToBytes(tensor),
    }));
    const body = encodeInferRequest({ inputs });
    const send = createClient(`${http.url}/v2/models/bench/infer`);
    const [rawSession, throughHost, throughHttp] = await measure(rounds, [
      () => session.run(heads, fetch),
      async () => unwrap(await stage.host.infer('bench', null, { inputs })),
      () => send(body),
    ]);
    if (!rawSession || !throughHost || !throughHttp) throw new Error('nothing was measured');
    const pid = stage.host.models()[0]?.pid;
    return {
      rawSession,
      throughHost,
      throughHttp,
      hostOverheadMs: round(throughHost.p50Ms - rawSession.p50Ms),
      httpOverheadMs: round(throughHttp.p50Ms - throughHost.p50Ms),
      requestBytes: body.length,
      childRssMiB: memoryMiB(pid, 'VmRSS'),
      childPeakMiB: memoryMiB(pid, 'VmHWM'),
      loadToServingMs,
    };
  } finally {
    await http.close();
    await stage.close();
  }
}

/** The child with mnist loaded and before any request: its memory at rest. */
async function childAtRestMiB(): Promise<number | null> {
  const stage = openStage({ threads: 1 });
  try {
    await stage.serve('rest', modelCase('mnist/digit4-opset8').modelPath);
    return memoryMiB(stage.host.models()[0]?.pid, 'VmRSS');
  } finally {
    await stage.close();
  }
}

/** Needs the data folder. */
export async function benchInference(): Promise<object> {
  const bareNodeMiB = Number(
    execFileSync(process.execPath, ['-e', 'console.log(process.memoryUsage.rss() / 1048576)'], {
      encoding: 'utf8',
    }),
  );
  return {
    bareNodeMiB: round(bareNodeMiB),
    childAtRestMiB: await childAtRestMiB(),
    mnist: await benchModel('mnist/digit4-opset8', 300),
    silero: await benchModel('silero-vad/one-step-v5', 300),
    yolox: await benchModel('yolox-nano/coco139-r2', 40),
  };
}
