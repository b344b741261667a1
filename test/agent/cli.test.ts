// Why: `lepton-agent` as people run it: real processes, exit codes, one line on stdout, kill -9.
// Trusts: the build in dist/. Must never: leave a process behind, or end one it did not start.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { agentStatusSchema } from '../../agent/status.ts';
import { programs } from '../support/programs.ts';
import { type StandIn, standIn } from './registry-stand-in.ts';
import { tinyRelease } from './tiny-model.ts';

/** At rest, without the inference child (the bound). */
const residentMiBMax = 90;

interface Process {
  child: ChildProcess;
  stdout(): string;
  stderr(): string;
  /** Resolves when the text stands in its log. */
  logged(text: string): Promise<void>;
  /** The line that says it is ready. */
  ready(): Promise<{ device: string; http: string }>;
  ended: Promise<number | null>;
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + 30_000;
  while (!(await holds())) {
    if (performance.now() > endMs) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function scene(t: TestContext): {
  folder: string;
  agent(args: string[], env?: Record<string, string>): Process;
} {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-agent-cli-'));
  const children: ChildProcess[] = [];
  t.after(() => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  const agent = (args: string[], env: Record<string, string> = {}): Process => {
    const child = spawn(process.execPath, [programs.agent, ...args], { env: { ...process.env, ...env } });
    children.push(child);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString('utf8');
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString('utf8');
    });
    const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
    return {
      child,
      stdout: () => stdout,
      stderr: () => stderr,
      logged: (text) => until(`the agent logs ${text}`, () => stderr.includes(text)),
      ready: async () => {
        await until(
          `the agent is ready; it said ${stderr}`,
          () => stdout.includes('\n') || child.exitCode !== null,
        );
        assert.equal(child.exitCode, null, stderr);
        const line = JSON.parse(stdout) as { event: string; device: string; http: string };
        assert.deepEqual(Object.keys(line), ['event', 'device', 'http']);
        assert.equal(line.event, 'agent.ready');
        return line;
      },
      ended,
    };
  };
  return { folder, agent };
}

async function finished(process: Process): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const code = await process.ended;
  return { code, stdout: process.stdout(), stderr: process.stderr() };
}

async function registryFor(t: TestContext): Promise<StandIn> {
  const registry = await standIn({ emit: () => undefined });
  t.after(() => registry.stop());
  return registry;
}

test('run and status: ready line, small at rest, clean stop, kill -9, start without a network', async (t) => {
  const { folder, agent } = scene(t);
  const registry = await registryFor(t);
  const claim = join(folder, 'claim.json');
  const state = join(folder, 'state');
  writeFileSync(claim, JSON.stringify(await registry.claim()));
  const run = ['run', '--state', state, '--http', '127.0.0.1:0', '--claim', claim, '--label', 'line=x'];

  const first = agent(run);
  const { device, http } = await first.ready();
  const release = registry.release('acme/tiny@1.0.0', tinyRelease(2));
  await registry.publishDesired(device, registry.sign(registry.assign(device, [release])));
  await until('it is committed', () => registry.reports.at(-1)?.models[0]?.state === 'committed');

  const shown = await finished(agent(['status', '--state', state, '--json']));
  assert.equal(shown.code, 0, shown.stderr);
  const status = JSON.parse(shown.stdout) as { running: boolean; http: string };
  assert.equal(status.running, true);
  assert.equal(status.http, http);
  assert.equal(agentStatusSchema.parse(status).models[0]?.active, 'acme/tiny@1.0.0');
  const prose = await finished(agent(['status'], { LEPTON_STATE: state }));
  assert.match(prose.stdout, /model {5}tiny: acme\/tiny@1\.0\.0 serves, committed/);

  const second = await finished(agent(run));
  assert.equal(second.code, 1);
  assert.match(second.stderr, /^lepton: state-locked: /m);

  first.child.kill('SIGTERM');
  assert.equal(await first.ended, 0);
  assert.equal(first.stdout().trim().split('\n').length, 1, 'one line on stdout');
  assert.equal(existsSync(join(state, 'agent.json')), false);
  for (const line of first.stderr().trim().split('\n')) assert.equal(typeof JSON.parse(line).event, 'string');
  const stopped = JSON.parse((await finished(agent(['status', '--state', state, '--json']))).stdout) as {
    running: boolean;
  };
  assert.equal(stopped.running, false);
  assert.equal(agentStatusSchema.parse(stopped).device, device);

  // The claim is gone although the flag still names it, and so is the registry.
  rmSync(claim);
  await registry.stop();
  const third = agent(run);
  assert.equal((await third.ready()).device, device);
  if (process.platform === 'linux') {
    const resident = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${third.child.pid}/status`, 'utf8'));
    const residentMiB = Number(resident?.[1]) / 1024;
    console.log(`resident ${residentMiB.toFixed(1)} MiB`);
    assert.ok(residentMiB <= residentMiBMax, `${residentMiB.toFixed(1)} MiB at rest`);
  }
  third.child.kill('SIGKILL');
  await third.ended;
  const fourth = agent(run);
  const again = await fourth.ready();
  const index = (await (await fetch(`${again.http}/v2/repository/index`)).json()) as { name: string }[];
  assert.deepEqual(
    index.map((model) => model.name),
    ['tiny'],
  );
});

test('defer: not now is said, kept over kill -9, shown, reported and taken back', async (t) => {
  const { folder, agent } = scene(t);
  const registry = await registryFor(t);
  const claim = join(folder, 'claim.json');
  const state = join(folder, 'state');
  writeFileSync(claim, JSON.stringify(await registry.claim()));
  const run = ['run', '--state', state, '--http', '127.0.0.1:0', '--claim', claim];
  const zone = ['--timezone', 'Pacific/Auckland'];
  const first = agent([...run, ...zone]);
  const { device, http } = await first.ready();
  const said = await finished(agent(['defer', '--state', state, '--for', '2h']));
  assert.equal(said.code, 0, said.stderr);
  assert.match(said.stdout, /^deferred {2}until \d{4}-/);

  const release = registry.release('acme/tiny@1.0.0', tinyRelease(2));
  const windows = { activate: [{ from: '00:00', to: '00:00' }], deferMaxMs: 3_600_000 };
  const assigned = { ...release, policy: { ...release.policy, windows } };
  await registry.publishDesired(device, registry.sign(registry.assign(device, [assigned])));
  const reported = () => registry.reports.at(-1)?.models[0];
  await until('it says that it waits', () => reported()?.reason?.code === 'update-deferred');
  assert.equal(reported()?.state, 'offered');
  assert.equal(registry.reports.at(-1)?.timezone, 'Pacific/Auckland');
  const untilMs = reported()?.reason?.untilMs ?? 0;
  const shown = async () =>
    agentStatusSchema.parse(
      JSON.parse((await finished(agent(['status', '--state', state, '--json']))).stdout),
    );
  const { deferral, timezone } = await shown();
  assert.equal(timezone, 'Pacific/Auckland');
  const leftMs = (deferral?.untilMs ?? 0) - untilMs;
  assert.ok(leftMs > 0 && leftMs <= 3_600_000, 'the rollout allows one hour of the two');

  const form = await fetch(new URL('/updates/v1/deferral', http), { method: 'POST', body: '{"forMs":1}' });
  assert.deepEqual([form.status, form.headers.get('x-lepton-code')], [400, 'input-invalid']);
  const spent = await finished(agent(['defer', '--state', state, '--for', '6d']));
  assert.equal(spent.code, 0, 'it begins anew with what is left of the hour');

  first.child.kill('SIGKILL');
  await first.ended;
  const off = await finished(agent(['defer', '--state', state, '--for', '1h']));
  assert.match(off.stderr, /^lepton: agent-not-running: /);
  assert.equal((await shown()).deferral !== null, true, 'also read from the folder');
  const again = agent([...run, ...zone]);
  await again.ready();
  await until(
    'it goes on waiting',
    async () => (await shown()).models[0]?.reason?.code === 'update-deferred',
  );
  assert.equal((await shown()).models[0]?.state, 'offered');
  const cleared = await finished(agent(['defer', '--state', state, '--clear', '--json']));
  assert.equal((JSON.parse(cleared.stdout) as { deferral: unknown }).deferral, null);
  await until('it is committed', () => reported()?.state === 'committed');
});

test('kill -9 at each step of an enrolment: one key, one claim use', async (t) => {
  const { folder, agent } = scene(t);
  const registry = await registryFor(t);
  const claim = join(folder, 'claim.json');
  writeFileSync(claim, JSON.stringify(await registry.claim({ uses: 1 })));
  const run = [
    'run',
    '--state',
    join(folder, 'state'),
    '--http',
    '127.0.0.1:0',
    '--claim',
    claim,
    '--re-enroll',
  ];
  // Whoever kills is slow at times. Until it is to be enrolled the device is, at the registry, and never hears of it:
  // an enrolment that was done before its kill would leave nothing for the next step to wait for.
  registry.tamper.enrolReply = () => null;
  for (const step of [
    '"agent.starting"',
    '"enrolling":true',
    '"bus.connected"',
    '"agent.enrolled"',
    '"agent.ready"',
  ]) {
    if (step === '"agent.enrolled"') registry.tamper = {};
    const cut = agent(run);
    await cut.logged(step);
    cut.child.kill('SIGKILL');
    await cut.ended;
  }
  const last = agent(['run', '--state', join(folder, 'state'), '--http', '127.0.0.1:0']);
  const { device } = await last.ready();
  assert.ok(registry.enrolRequests.length > 0);
  assert.equal(new Set(registry.enrolRequests).size, 1);
  await until('it is online', () => registry.connected().includes(device));
});

test('bad input: one line, its code, exit 1 or 2, with --json also on stdout', async (t) => {
  const { folder, agent } = scene(t);
  const state = join(folder, 'state');
  const notJson = join(folder, 'not.json');
  const wrong = join(folder, 'wrong.json');
  writeFileSync(notJson, 'hello');
  writeFileSync(wrong, '{"schemaVersion":1}');
  const at = ['--state', state, '--http', '127.0.0.1:0'];
  const cases: [string[], string, number][] = [
    [[], 'config-invalid', 2],
    [['frobnicate'], 'config-invalid', 2],
    [['run', '--bogus'], 'config-invalid', 2],
    [['run'], 'config-invalid', 2],
    [['run', '--state', state, '--http', 'nowhere'], 'config-invalid', 2],
    [['run', ...at, '--label', 'novalue'], 'config-invalid', 2],
    [['run', ...at, '--log-level', 'loud'], 'config-invalid', 2],
    [['run', ...at], 'enrolment-required', 2],
    [['run', ...at, '--claim', join(folder, 'absent.json')], 'claim-malformed', 2],
    [['run', ...at, '--claim', notJson], 'claim-malformed', 2],
    [['run', ...at, '--claim', wrong], 'claim-malformed', 2],
    [['run', '--state', state, '--http', '0.0.0.0:0'], 'enrolment-required', 2],
    [['status', '--state', join(folder, 'nothing')], 'not-found', 1],
    [['status'], 'config-invalid', 2],
    [['run', ...at, '--timezone', 'Mars/Olympus'], 'config-invalid', 2],
    [['defer', '--state', state], 'config-invalid', 2],
    [['defer', '--state', state, '--for', '2 hours'], 'config-invalid', 2],
    [['defer', '--state', state, '--for', '8d'], 'config-invalid', 2],
    [['defer', '--state', state, '--for', '2h', '--clear'], 'config-invalid', 2],
    [['defer', '--state', state, '--for', '2h'], 'agent-not-running', 1],
  ];
  await Promise.all(
    cases.map(async ([args, code, exit], index) => {
      const own = args.map((arg) => (arg === state ? `${state}-${index}` : arg));
      const got = await finished(
        agent([...own, '--json'], { LEPTON_LOG_LEVEL: args.includes('loud') ? '' : 'silent' }),
      );
      const name = `lepton-agent ${args.join(' ')}: ${got.stderr}`;
      // Without a command, --json itself is the first thing that is not understood.
      assert.equal(got.code, exit, name);
      assert.match(got.stderr, new RegExp(`^lepton: ${code}: [^\\n]+\\n$`), name);
      assert.equal((JSON.parse(got.stdout) as { error: { code: string } }).error.code, code, name);
    }),
  );
});
