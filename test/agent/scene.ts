// Why: one agent, one stand-in registry and one folder per test, all gone afterwards.
// Trusts: the test to await `until`. Must never: wait without a limit.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type RunningAgent, type StartAgentOptions, startAgent } from '../../agent/daemon.ts';
import { type AgentStatus, agentStatusSchema } from '../../agent/status.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { LogEvent } from '../../shared/kernel/events.ts';
import type { Log } from '../../shared/kernel/ports.ts';
import { type StandIn, type StandInOptions, standIn } from './registry-stand-in.ts';
import { tinyRelease } from './tiny-model.ts';

export interface Line {
  event: LogEvent;
  fields: Record<string, unknown>;
}

export interface Scene {
  registry: StandIn;
  folder: string;
  lines: Line[];
  log: Log;
  start(options?: Partial<StartAgentOptions>): Promise<RunningAgent>;
}

/** Waits for a condition; the limit is for a broken build, not part of any expectation. */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  limitMs = 30_000,
): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function scene(t: TestContext, options: StandInOptions = {}): Promise<Scene> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-agent-test-'));
  const lines: Line[] = [];
  const verbose = process.env['LEPTON_TEST_LOG'] !== undefined;
  const log: Log = {
    emit: (level, event, fields = {}) => {
      lines.push({ event, fields });
      if (verbose) process.stderr.write(`${level} ${event} ${JSON.stringify(fields)}\n`);
    },
  };
  const registry = await standIn(verbose ? log : { emit: () => undefined }, options);
  const agents: RunningAgent[] = [];
  t.after(async () => {
    for (const agent of agents) await agent.stop();
    await registry.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const start = async (options: Partial<StartAgentOptions> = {}): Promise<RunningAgent> => {
    const agent = await startAgent({
      stateFolder: join(folder, 'state'),
      http: { host: '127.0.0.1', port: 0 },
      labels: { line: 'x' },
      reEnroll: false,
      clock: systemClock,
      entropy: systemEntropy,
      log,
      version: '0.0.0',
      ...options,
    });
    agents.push(agent);
    return agent;
  };
  return { registry, folder, lines, log, start };
}

export async function refusalOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof FleetError) return error.code;
    throw error;
  }
  return 'nothing was refused';
}

export async function answerTo(
  agent: RunningAgent,
  name = 'tiny',
): Promise<{ status: number; data: unknown; version: unknown }> {
  const response = await fetch(`${agent.httpUrl}/v2/models/${name}/infer`, {
    method: 'POST',
    body: JSON.stringify({ inputs: [{ name: 'x', shape: [2], datatype: 'FP32', data: [3, 4] }] }),
  });
  const body = (await response.json()) as { outputs?: { data: unknown }[]; model_version?: unknown };
  return { status: response.status, data: body.outputs?.[0]?.data, version: body.model_version };
}

export async function statusOf(agent: RunningAgent): Promise<AgentStatus> {
  const response = await fetch(`${agent.httpUrl}/status`);
  return agentStatusSchema.parse(await response.json());
}

export async function deploy(
  registry: StandIn,
  agent: RunningAgent,
  id: string,
  factor: number,
): Promise<void> {
  const assigned = registry.release(id, tinyRelease(factor));
  await registry.publishDesired(agent.deviceId, registry.sign(registry.assign(agent.deviceId, [assigned])));
  await until(`${id} is committed`, () =>
    registry.reports.some(
      (report) => report.models[0]?.lastGood === id && report.models[0].state === 'committed',
    ),
  );
}
