// Why: `npm run bench`: memory, start-up and overheads, each beside its baseline in the same run.
// Trusts: /proc for resident memory. Must never: print an absolute time as if it were a promise.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { arch, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { dataFolder, dataMissing, projectFolder } from '../support/data.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';
import { benchInference } from './inference.ts';
import { benchMetadata } from './metadata.ts';
import { benchTelemetry } from './telemetry.ts';

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

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
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
    return {
      bareNodeMiB: bareNode / mib,
      registryMiB: residentBytes(registry.daemon.child.pid ?? 0) / mib,
      agentMiB: residentBytes(agentPid) / mib,
      agentLimitMiB: 90,
      childMiB: children.map((pid) => residentBytes(pid) / mib),
      childLimitMiB: 80,
      startToServingMs: { p50: median(startToServingMs), max: Math.max(...startToServingMs) },
    };
  } finally {
    await place.close();
  }
}

if (dataMissing !== false) {
  process.stderr.write(`lepton: not-found: ${dataMissing}\n`);
  process.exit(1);
}
const only = process.argv.find((argument) => argument.startsWith('--only='))?.slice('--only='.length);
const benches: Record<string, () => Promise<object>> = {
  processes: benchProcesses,
  inference: benchInference,
  telemetry: benchTelemetry,
  metadata: benchMetadata,
};
if (only !== undefined && benches[only] === undefined) {
  process.stderr.write(`lepton: config-invalid: --only is one of ${Object.keys(benches).join(', ')}\n`);
  process.exit(2);
}
const out = join(projectFolder, 'bench-results.json');
/** With `--only` the other sections stay as they were measured. */
const before = only === undefined ? {} : (JSON.parse(readFileSync(out, 'utf8')) as Record<string, unknown>);
const measured: Record<string, object> = {};
for (const [name, bench] of Object.entries(benches)) {
  if (only !== undefined && name !== only) continue;
  process.stderr.write(`bench: ${name}\n`);
  measured[name] = await bench();
}
const results = {
  ...before,
  machine: {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    arch: arch(),
    memoryGiB: totalmem() / mib / 1024,
    node: process.version,
  },
  ...measured,
};
const rounded = JSON.stringify(
  results,
  (_, value: unknown) => (typeof value === 'number' ? Number(value.toPrecision(4)) : value),
  2,
);
writeFileSync(out, `${rounded}\n`);
process.stdout.write(`${rounded}\nwritten to ${out}\n`);
