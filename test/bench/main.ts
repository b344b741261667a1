// Why: `npm run bench`: memory, start-up and overheads, each beside its baseline in the same run.
// Trusts: /proc for resident memory. Must never: print an absolute time as if it were a promise.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { arch, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { encodeInferRequest } from '../../shared/wire/oip-json.ts';
import { modelCase } from '../support/cases.ts';
import { dataFolder, dataMissing, projectFolder } from '../support/data.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';
import { benchDelta } from './delta.ts';
import { benchEvidence } from './evidence.ts';
import { benchChildAtRest, benchModel } from './inference.ts';
import { benchBatching, benchThroughput } from './inference-load.ts';
import { benchLearn } from './learn.ts';
import { startLoad } from './load.ts';
import { median, memoryMB } from './measure.ts';
import { benchMetadata } from './metadata.ts';
import { benchMirror } from './mirror.ts';
import { benchDrain, benchMonth } from './offline.ts';
import { benchRollouts } from './rollouts.ts';
import { benchSimulation } from './simulation.ts';
import { benchStats } from './stats.ts';
import { benchTelemetry } from './telemetry.ts';
import { benchTransfer } from './transfer.ts';
import { benchWireBytes } from './wire-bytes.ts';

const mib = 1024 * 1024;

function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1] ?? 0) * 1024;
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(/\s+/)
    .filter(Boolean)
    .map(Number);
}

/** Memory of agent and child after some ten thousand requests. */
async function useAgent(http: string, agentPid: number, children: number[]): Promise<object> {
  const load = startLoad();
  try {
    const bodyBase64 = Buffer.from(
      encodeInferRequest({ inputs: modelCase('mnist/digit4-opset8').inputs }),
    ).toString('base64');
    const url = `${http}/v2/models/mnist/infer`;
    const used = await load.load({ url, bodyBase64, connections: 16, warmUpMs: 0, durationMs: 5_000 });
    const underLoadMB = memoryMB(agentPid);
    // What a burst left behind is given back once it is quiet (shared/host/idle-collection.ts).
    await new Promise((resolve) => setTimeout(resolve, 8_000));
    return {
      requests: Math.round(used.requestsPerSecond * 5),
      agentUnderLoadMB: underLoadMB,
      agentMB: memoryMB(agentPid),
      agentLimitMB: 90,
      childMB: children.map((pid) => memoryMB(pid)),
      childLimitMB: 80,
    };
  } finally {
    await load.close();
  }
}

/** Resident memory of registry, agent and inference child at rest with mnist loaded, and start-to-serving time. */
async function benchProcesses(): Promise<object> {
  const place = workplace('bench');
  try {
    const bareNode = median(
      Array.from({ length: 3 }, () =>
        Number(
          execFileSync(
            process.execPath,
            ['-e', 'setTimeout(()=>console.log(process.memoryUsage.rss()),300)'],
            { encoding: 'utf8' },
          ),
        ),
      ),
    );
    const registry = await startTestRegistry(place);
    const claim = place.path('claim.json');
    await registry.lepton(['claims', 'create', '--out', claim]);
    const agent = await startTestAgent(place, claim);
    await registry.lepton([
      'models',
      'push',
      dataFolder('models/mnist/mnist-opset8.onnx'),
      '--name',
      'acme/mnist',
      '--version',
      '1.0.0',
    ]);
    const file = place.path('rollout.json');
    writeFileSync(
      file,
      JSON.stringify({
        apiVersion: 'lepton/v1',
        kind: 'Rollout',
        metadata: { name: 'mnist' },
        spec: { release: 'acme/mnist@1.0.0', waves: [{ percent: 100 }] },
      }),
    );
    await registry.lepton(['rollout', 'start', '-f', file, '--watch']);

    const serving = async (): Promise<true | null> => {
      try {
        const answer = await fetch(`${agent.http}/v2/models/mnist/ready`);
        await answer.arrayBuffer();
        return answer.ok ? true : null;
      } catch (error) {
        // Not listening yet.
        return error instanceof TypeError ? null : Promise.reject(error);
      }
    };
    await until('mnist serves', serving);
    const startToServingMs: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      await agent.daemon.stop();
      const before = performance.now();
      await agent.restart();
      await until('mnist serves', serving);
      startToServingMs.push(performance.now() - before);
    }
    // At rest: after the start's garbage was collected and the connection is up.
    await new Promise((resolve) => setTimeout(resolve, 15_000));
    const agentPid = agent.daemon.child.pid ?? 0;
    const children = childrenOf(agentPid);
    const atRest = {
      bareNodeMiB: bareNode / mib,
      registryMiB: residentBytes(registry.daemon.child.pid ?? 0) / mib,
      agentMiB: residentBytes(agentPid) / mib,
      agentLimitMiB: 90,
      childMiB: children.map((pid) => residentBytes(pid) / mib),
      childLimitMiB: 80,
      startToServingMs: { p50: median(startToServingMs), max: Math.max(...startToServingMs) },
    };
    return { ...atRest, afterUse: await useAgent(agent.http, agentPid, children) };
  } finally {
    await place.close();
  }
}

/** Of small models: enough that the compilers are done with most of it, as in an agent that runs for days. */
const smallRounds = 2_000;

/**
 * By the path at which each stands in the results. `--only inference` or `--only inference.yolox` take a part, and so
 * does the bare name.
 */
const sections: Record<string, () => Promise<object>> = {
  processes: benchProcesses,
  'inference.childAtRest': benchChildAtRest,
  'inference.mnist': () => benchModel('mnist/digit4-opset8', smallRounds),
  'inference.silero': () => benchModel('silero-vad/one-step-v5', smallRounds),
  'inference.yolox': () => benchModel('yolox-nano/coco139-r2', 100),
  'inference.throughput': benchThroughput,
  'inference.batching': () => benchBatching(1_024),
  'inference.batchingWide': () => benchBatching(2_048),
  telemetry: benchTelemetry,
  wire: benchWireBytes,
  'offline.month': benchMonth,
  'offline.drain': benchDrain,
  rollouts: benchRollouts,
  stats: benchStats,
  evidence: benchEvidence,
  metadata: benchMetadata,
  mirror: benchMirror,
  delta: benchDelta,
  learn: benchLearn,
  simulation: benchSimulation,
  transfer: benchTransfer,
};

type Results = { [name: string]: unknown };

function isResults(value: unknown): value is Results {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function put(results: Results, path: string, value: object): void {
  const [first = '', ...rest] = path.split('.');
  if (rest.length === 0) {
    results[first] = value;
    return;
  }
  const inner = results[first];
  const into: Results = isResults(inner) ? inner : {};
  results[first] = into;
  put(into, rest.join('.'), value);
}

function fail(what: string): never {
  process.stderr.write(`lepton: ${what}\n`);
  process.exit(1);
}

if (dataMissing !== false) fail(`not-found: ${dataMissing}`);
const { values, positionals } = parseArgs({ options: { only: { type: 'string' } }, allowPositionals: true });
const only = values.only ?? positionals[0];
const wanted = Object.entries(sections).filter(
  ([path]) => only === undefined || path === only || path.startsWith(`${only}.`),
);
if (wanted.length === 0)
  fail(`input-invalid: no section ${only}; there are ${Object.keys(sections).join(', ')}`);

const out = join(projectFolder, 'bench-results.json');
// With --only the rest stays as an earlier run left it: ratios are taken within a section, never across.
const before: unknown = existsSync(out) ? JSON.parse(readFileSync(out, 'utf8')) : {};
const kept: Results = isResults(before) ? before : {};
// `npm run soak` writes beside it.
const { soak } = kept;
const results: Results = only !== undefined ? kept : soak === undefined ? {} : { soak };
results['machine'] = {
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  arch: arch(),
  memoryGiB: totalmem() / mib / 1024,
  node: process.version,
};
for (const [path, bench] of wanted) put(results, path, await bench());
const text = (value: unknown): string =>
  JSON.stringify(value, (_, one: unknown) => (typeof one === 'number' ? Number(one.toPrecision(4)) : one), 2);
writeFileSync(out, `${text(results)}\n`);
process.stdout.write(`${text(results)}\nwritten to ${out}\n`);
