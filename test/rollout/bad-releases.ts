// Why: real bad releases on five real agents that are asked all the time: each stops at the canary by the gate that is made
// for it, nobody else is touched, and the good ones go through by themselves. `npm run rollouts:bad` prints the table.
// Trusts: the real CLI, registry, agents and ONNX Runtime. Must never: call it stopped where another device ran it.

import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { writeModel } from '../../shared/onnx/writer.ts';
import { encodeInferRequest } from '../../shared/wire/oip-json.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { dies, grows, loops, noTrap, times, whole } from '../inference/made.ts';
import { modelCase } from '../support/cases.ts';
import { dataFolder } from '../support/data.ts';
import { makeClaim, startRollout } from '../support/fleet.ts';
import {
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  type Workplace,
  workplace,
} from '../support/processes.ts';

const agentsCount = 5;
const canaryFirst = [{ count: 1, soak: '10s' }, { percent: 100 }];

interface Bad {
  what: string;
  /** `NS/NAME`, the served name. */
  model: string;
  good: string;
  bad: string;
  manifest?: object;
  /** More flags of the push of the bad one. */
  push?: string[];
  live: Tensor[][];
  spec: object;
  /** How the rollout ends; for a bad one the gate of wave 0 that failed. */
  ends: { state: 'succeeded' } | { state: 'failed'; gate: string; words: RegExp };
}

interface Stage {
  place: Workplace;
  registry: TestRegistry;
  agents: TestAgent[];
}

/** As fast as it answers, with a breath between, until it is stopped. */
function ask(
  agent: TestAgent,
  name: string,
  live: Tensor[][],
): { stop(): Promise<{ answered: number; failed: number }> } {
  let going = true;
  const counts = { answered: 0, failed: 0 };
  const bodies = live.map((inputs) => encodeInferRequest({ inputs }));
  const run = async (): Promise<void> => {
    for (let at = 0; going; at += 1) {
      const response = await fetch(`${agent.http}/v2/models/${name}/infer`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: bodies[at % bodies.length] ?? '',
      }).catch(() => null);
      await response?.arrayBuffer();
      if (response?.ok === true) counts.answered += 1;
      else counts.failed += 1;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  const running = run();
  return {
    async stop() {
      going = false;
      await running;
      return counts;
    },
  };
}

async function push({ registry }: Stage, file: string, release: string, extra: string[]): Promise<void> {
  const [name = '', version = ''] = release.split('@');
  await registry.lepton(['models', 'push', file, '--name', name, '--version', version, ...extra]);
}

const statusOf = async ({ registry }: Stage, id: string): Promise<RolloutStatus> =>
  (await registry.lepton(['rollout', 'status', id, '--json'])).json() as RolloutStatus;

/** Waits for its end, whichever; where there is none, what it waits for is the failure. */
async function ended(stage: Stage, id: string): Promise<void> {
  const final = new Set(['succeeded', 'failed', 'aborted', 'paused']);
  for (let left = 300; left > 0; left -= 1) {
    if (final.has((await statusOf(stage, id)).state)) return;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  const { stdout } = await stage.registry.lepton(['rollout', 'status', id]);
  assert.fail(stdout);
}

/** Rolls the good one out everywhere, then the other one over it while everybody is asked. */
async function tryBad(stage: Stage, bad: Bad): Promise<string[]> {
  const { place, registry, agents } = stage;
  const name = bad.model.slice(bad.model.indexOf('/') + 1);
  const startedMs = performance.now();
  const manifest = place.path(`${name}.manifest.json`);
  writeFileSync(manifest, JSON.stringify(bad.manifest ?? {}));
  await push(stage, bad.good, `${bad.model}@1.0.0`, ['--manifest', manifest]);
  const first = await startRollout(place, registry, `${bad.model}@1.0.0`);
  await registry.lepton(['rollout', 'watch', first]);
  const asking = agents.map((agent) => ask(agent, name, bad.live));
  try {
    await push(stage, bad.bad, `${bad.model}@2.0.0`, ['--manifest', manifest, ...(bad.push ?? [])]);
    const id = await startRollout(place, registry, `${bad.model}@2.0.0`, { waves: canaryFirst, ...bad.spec });
    await ended(stage, id);
    const status = await statusOf(stage, id);
    assert.equal(status.state, bad.ends.state, `${bad.what}: ${status.reason}`);
    const runs = status.devices.map(({ release }) => release);
    if (bad.ends.state === 'succeeded') {
      assert.deepEqual(
        runs,
        agents.map(() => `${bad.model}@2.0.0`),
      );
    } else {
      assert.match(status.reason ?? '', bad.ends.words, bad.what);
      const failed = status.gates.filter(({ wave, verdict }) => wave === 0 && verdict === 'fail');
      assert.ok(
        failed.some(({ gate }) => bad.ends.state === 'failed' && gate === bad.ends.gate),
        `${bad.what}: ${status.reason}`,
      );
      // The canary is back where it was, and the others never left it.
      assert.deepEqual(
        runs.filter((release) => release !== `${bad.model}@1.0.0`),
        [],
        bad.what,
      );
      assert.equal(status.waves[1]?.state, 'pending', bad.what);
    }
    const gate = bad.ends.state === 'succeeded' ? '-' : bad.ends.gate;
    const seconds = Math.round((performance.now() - startedMs) / 1_000);
    return [bad.what, status.state, gate, `${seconds} s`, status.reason ?? '-'];
  } catch (error) {
    const { stdout } = await registry.lepton(['events']);
    process.stderr.write(`${stdout.split('\n').slice(0, 40).join('\n')}\n`);
    throw error;
  } finally {
    const counts = await Promise.all(asking.map((one) => one.stop()));
    const sum = (key: 'answered' | 'failed'): number => counts.reduce((all, one) => all + one[key], 0);
    process.stderr.write(`${bad.what}: ${sum('answered')} answers, ${sum('failed')} failed\n`);
  }
}

/** The number as it came, whatever it is: what the others do with it takes time, memory or the process. */
function calm(): Uint8Array {
  return writeModel({
    name: 'calm',
    inputs: [{ name: 'n', datatype: 'INT64', shape: [1] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [1] }],
    nodes: [{ operator: 'Cast', inputs: ['n'], outputs: ['y'], attributes: { to: { int: 1 } } }],
    initializers: [],
  });
}

function cases(place: Workplace): Bad[] {
  const file = (name: string, bytes: Uint8Array | undefined): string => {
    assert.ok(bytes);
    const path = place.path(`${name}.onnx`);
    writeFileSync(path, bytes);
    return path;
  };
  const calmFile = file('calm', calm());
  const yolox = dataFolder('models', 'yolox-nano/yolox_nano-r2.onnx');
  const int8 = (name: string): string =>
    dataFolder('models', `derived-int8/yolox_nano-r2-int8qdq${name}.onnx`);
  const frames = ['coco139-r2', 'coco785-r2'].map((name) => modelCase(`yolox-nano/${name}`).inputs);
  const detector = {
    good: yolox,
    manifest: { compare: { output: 'output', by: 'iou' } },
    live: frames,
    // The good int8 release misses some of what fp32 finds: it agrees on half of these frames and more.
    spec: { shadow: { requests: 12, cpuPercent: 100 }, gates: { agreement: 0.4 } },
  };
  const wrong = place.path('wrong.golden.json');
  writeFileSync(
    wrong,
    JSON.stringify([
      {
        request: { inputs: [{ name: 'n', datatype: 'INT64', shape: [1], data: [7] }] },
        response: { outputs: [{ name: 'y', datatype: 'FP32', shape: [1], data: [8] }] },
      },
    ]),
  );
  const profile = place.path('profile.json');
  writeFileSync(
    profile,
    JSON.stringify({
      schemaVersion: 1,
      features: [
        {
          kind: 'numeric',
          role: 'input',
          tensor: 'n',
          index: 0,
          edges: [0, 10, 20, 30],
          counts: [0, 300, 300, 300, 0],
        },
      ],
    }),
  );
  return [
    {
      ...{
        what: 'silently wrong int8 detector',
        model: 'acme/wrong-int8',
        ...detector,
        bad: int8('-BAD-pertensor'),
      },
      ends: { state: 'failed', gate: 'agreement', words: /^gate agreement of wave 0/ },
    },
    {
      ...{ what: 'good: r2 to r3', model: 'acme/r3', ...detector },
      bad: dataFolder('models', 'yolox-nano/yolox_nano-r3.onnx'),
      ends: { state: 'succeeded' },
    },
    {
      ...{ what: 'good: r2 to int8', model: 'acme/int8', ...detector, bad: int8('') },
      ends: { state: 'succeeded' },
    },
    {
      ...{
        what: 'slower than its limit',
        model: 'acme/slow',
        good: calmFile,
        bad: file('loops', loops()[0]?.bytes),
      },
      live: [times(300_000)],
      spec: { gates: { latencyP95Ms: 15, minRequests: 50 } },
      ends: { state: 'failed', gate: 'latencyP95Ms', words: /^gate latencyP95Ms of wave 0: p95/ },
    },
    {
      ...{
        what: 'grows in memory',
        model: 'acme/grows',
        good: calmFile,
        bad: file('grows', grows()[0]?.bytes),
      },
      manifest: { limits: { memoryMiB: 150 } },
      live: [times(60_000_000)],
      spec: { gates: { success: 1 } },
      ends: { state: 'failed', gate: 'success', words: /^gate success of wave 0.*MiB/ },
    },
    {
      ...{
        what: 'its golden cases fail',
        model: 'acme/golden',
        good: calmFile,
        bad: calmFile,
        push: ['--golden', wrong],
      },
      ...{ live: [times(3)], spec: {} },
      ends: { state: 'failed', gate: 'probe', words: /^gate probe of wave 0.*probe-golden-failed/ },
    },
    {
      ...{ what: 'fed what it was not made for', model: 'acme/drifts', good: calmFile, bad: calmFile },
      push: ['--profile', profile],
      ...{ live: [times(3), times(1_000)], spec: { gates: { driftPsi: 0.25 } } },
      ends: { state: 'failed', gate: 'driftPsi', words: /^gate driftPsi of wave 0: PSI .* of input n\[0\]/ },
    },
    ...(noTrap === false
      ? [
          {
            ...{ what: 'aborts its process', model: 'acme/dies', good: file('divides', dies(100)[0]?.bytes) },
            ...{ bad: file('dies', dies()[0]?.bytes), live: [whole(-1)], spec: { gates: { success: 1 } } },
            ends: {
              state: 'failed' as const,
              gate: 'success',
              words: /^gate success of wave 0.*(process ended|crash)/,
            },
          },
        ]
      : []),
  ];
}

/** A file that was cut on its way: nobody is bothered with it. */
async function brokenUpstream(stage: Stage): Promise<string[]> {
  const path = stage.place.path('broken.onnx');
  writeFileSync(path, calm());
  truncateSync(path, calm().length - 20);
  const args = ['models', 'push', path, '--name', 'acme/broken', '--version', '1.0.0'];
  const refused = await stage.registry.lepton(args, 1);
  const code = /lepton: ([a-z-]+):/.exec(refused.stderr)?.[1] ?? '';
  assert.match(code, /^model-/, refused.stderr);
  return ['broken upstream file', 'refused at the push', code, '-', '-'];
}

async function main(): Promise<void> {
  const place = workplace('bad-releases');
  const only = process.argv[2];
  try {
    const registry = await startTestRegistry(place);
    const claim = await makeClaim(place, registry, 'claim', ['--uses', String(agentsCount)]);
    const agents: TestAgent[] = [];
    for (let at = 0; at < agentsCount; at += 1)
      agents.push(await startTestAgent(place, claim, `agent-${at}`));
    const stage: Stage = { place, registry, agents };
    const rows: string[][] = [];
    for (const bad of cases(place)) {
      if (only !== undefined && !bad.what.includes(only)) continue;
      rows.push(await tryBad(stage, bad));
    }
    if (only === undefined) rows.push(await brokenUpstream(stage));
    const text = [['RELEASE', 'ENDED', 'GATE', 'TOOK', 'REASON'], ...rows]
      .map((row) => row.join(' | '))
      .join('\n');
    process.stdout.write(
      `${text}\n${agentsCount} agents, ${rows.length} releases: each ended as it should\n`,
    );
  } finally {
    await place.close();
  }
}

await main();
