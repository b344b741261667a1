// Why: what counting inputs and outputs into a reference profile costs: CPU of agent and child for a thousand requests
// over HTTP, with a profile and without, in turns. Trusts: the kernel's accounts of processes.
// Must never: compare two runs of which one was warmer.

import { readFileSync } from 'node:fs';
import { encodeInferRequest } from '../../shared/wire/oip-json.ts';
import { openStage, startHttp } from '../inference/staging.ts';
import { modelCase } from '../support/cases.ts';
import { startLoad } from './load.ts';
import { round } from './measure.ts';

const roundMs = 1_500;
const rounds = 12;
/** Linux counts in these. */
const ticksPerSecond = 100;

/** User and system time of a process, milliseconds. */
function cpuMsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1_000;
}

/** A column of the picture, the class, and how sure it is: what a profile of an image classifier has. */
const profile = {
  schemaVersion: 1,
  features: [
    ...[7, 14, 21].map((index) => ({
      ...{ kind: 'numeric', role: 'input', tensor: 'Input3', index },
      ...{ edges: Array.from({ length: 21 }, (_, at) => at / 20), counts: Array(22).fill(1) },
    })),
    {
      ...{ kind: 'categorical', role: 'output', tensor: 'Plus214_Output_0', index: 0, of: 'argmax' },
      ...{ values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], counts: Array(10).fill(1) },
    },
    {
      ...{ kind: 'numeric', role: 'output', tensor: 'Plus214_Output_0', index: 0, of: 'max' },
      ...{ edges: Array.from({ length: 41 }, (_, at) => at - 20), counts: Array(42).fill(1) },
    },
  ],
};

export async function benchStats(): Promise<object> {
  const { modelPath, inputs } = modelCase('mnist/digit4-opset8');
  const stage = openStage({ threads: 1 });
  const http = await startHttp(stage);
  const client = startLoad();
  try {
    const model = { path: 'model.onnx', role: 'model' as const, bytes: readFileSync(modelPath) };
    await stage.serve('off', [model]);
    await stage.serve('on', [
      model,
      { path: 'profile.json', role: 'profile', bytes: Buffer.from(JSON.stringify(profile)) },
    ]);
    const bodyBase64 = Buffer.from(encodeInferRequest({ inputs })).toString('base64');
    let total = 0;
    const cpuMs = { off: [] as number[], on: [] as number[] };
    const run = async (as: 'off' | 'on'): Promise<number> => {
      const pid = stage.host.models().find((one) => one.as === as)?.pid ?? 0;
      const [agent, child] = [process.cpuUsage(), cpuMsOf(pid)];
      const before = stage.host.requests().answered;
      await client.load({
        ...{ url: `${http.url}/v2/models/${as}/infer`, bodyBase64 },
        ...{ connections: 1, warmUpMs: 0, durationMs: roundMs },
      });
      const { user, system } = process.cpuUsage(agent);
      const requests = stage.host.requests().answered - before;
      total += requests;
      return (((user + system) / 1_000 + cpuMsOf(pid) - child) / requests) * 1_000;
    };
    // The first of each compiles.
    for (const as of ['off', 'on'] as const) await run(as);
    stage.host.takeWindow();
    for (let at = 0; at < rounds; at += 1)
      for (const as of at % 2 === 0 ? (['off', 'on'] as const) : (['on', 'off'] as const))
        cpuMs[as].push(await run(as));
    const [counted] = stage.host.takeWindow();
    const middle = (values: number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
    const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
    return {
      requests: total,
      features: profile.features.length,
      countedRows: counted?.data['rows'],
      seenRows: counted?.data['seenRows'],
      cpuMsPer1000: { off: round(middle(cpuMs.off)), on: round(middle(cpuMs.on)) },
      ratio: round(sum(cpuMs.on) / sum(cpuMs.off)),
      ratioOfMedians: round(middle(cpuMs.on) / middle(cpuMs.off)),
      ratioPromisedMax: 1.03,
    };
  } finally {
    await client.close();
    await http.close();
    await stage.close();
  }
}
