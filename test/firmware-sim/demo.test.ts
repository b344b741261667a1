// Why: the demo itself, as `npm run demo` runs it: its summary, what stays up, and that nothing is left behind.
// Trusts: the build. Must never: leave a process or folder behind, whatever fails.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { DemoSummary } from '../../firmware-sim/demo/summary.ts';
import { run, until } from '../support/processes.ts';
import { programs } from '../support/programs.ts';

interface RunningDemo {
  child: ChildProcess;
  /** Where it makes its folder. */
  parent: string;
  stdout(): string;
  stderr(): string;
  ended: Promise<number | null>;
}

async function withDemo(flags: string[], use: (demo: RunningDemo) => Promise<void>): Promise<void> {
  const parent = mkdtempSync(join(tmpdir(), 'lepton-demo-test-'));
  // A registry of the user's own must not be spoken to.
  const env = { ...process.env, TMPDIR: parent, LEPTON_REGISTRY: 'http://127.0.0.1:9', LEPTON_TOKEN: 'x' };
  const child = spawn(process.execPath, [programs.sim, 'demo', ...flags], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  try {
    await use({ child, parent, stdout: () => stdout, stderr: () => stderr, ended });
  } finally {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await ended;
    rmSync(parent, { recursive: true, force: true });
  }
}

/** Process ids of the daemons, as their logs and state folders say. */
function pidsOf(folder: string): number[] {
  return readdirSync(join(folder, 'agents')).map((name) => {
    const where = JSON.parse(readFileSync(join(folder, 'agents', name, 'agent.json'), 'utf8')) as {
      pid: number;
    };
    return where.pid;
  });
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && error.code === 'ESRCH');
    return false;
  }
}

test('the whole demo: its summary is as promised, everything stays up, Ctrl-C leaves nothing', async () => {
  await withDemo(['--json'], async ({ child, parent, stdout, stderr, ended }) => {
    await until('the summary', () => stdout().endsWith('\n') || child.exitCode !== null, 180_000);
    const lines = stdout().trimEnd().split('\n');
    assert.equal(lines.length, 1, `stdout carries the summary alone\n${stderr()}`);
    const summary = JSON.parse(lines[0] ?? '') as DemoSummary;
    assert.deepEqual(summary.problems, [], stderr());
    assert.equal(summary.ok, true);
    assert.ok(summary.durationMs < 180_000);
    assert.equal(summary.agents.enrolled, 3);
    const [first, second, third] = summary.releases;
    assert.deepEqual([first?.state, first?.committed], ['succeeded', 3]);
    assert.deepEqual([second?.state, second?.committed, second?.canaryFirst], ['succeeded', 3, true]);
    assert.deepEqual(
      [third?.state, third?.failedGate, third?.untouched, third?.canaryRefused?.code],
      ['failed', 'probe', 2, 'probe-golden-failed'],
    );
    assert.ok(summary.inference.answered > 100);
    assert.equal(summary.inference.failed, 0);
    for (const { produced, acknowledged, stored } of summary.telemetry.devices) {
      assert.ok(produced > 0);
      assert.deepEqual([acknowledged, stored], [produced, produced]);
    }
    const right = summary.inference.rightOnLiveData;
    assert.ok((right['2.0.0'] ?? 0) > (right['1.0.0'] ?? 1), JSON.stringify(right));

    // What it prints to try next works as it stands there.
    const registry = /LEPTON_REGISTRY=(\S+)/.exec(stderr())?.[1] ?? '';
    const tokenFile = /LEPTON_TOKEN=\$\(cat (\S+)\)/.exec(stderr())?.[1] ?? '';
    const env = { LEPTON_REGISTRY: registry, LEPTON_TOKEN: readFileSync(tokenFile, 'utf8').trim() };
    const tried = [...stderr().matchAll(/^ {2}npx lepton (.+)$/gm)].map(([, args = '']) => args.split(' '));
    assert.ok(tried.length >= 5);
    for (const args of tried) {
      const done = await run('lepton', args, { env });
      assert.equal(done.code, 0, `lepton ${args.join(' ')}\n${done.stderr}`);
      assert.notEqual(done.stdout.trim(), '');
    }
    // Every window that was judged before the summary is stored, each once.
    for (const { device, answered } of summary.inference.devices) {
      const query = ['telemetry', 'query', '--device', device, '--class', 'app', '--json'];
      const { stdout: records } = await run('lepton', query, { env });
      const windows = records
        .trimEnd()
        .split('\n')
        .map((line) => (JSON.parse(line) as { data: { window: number } }).data.window)
        .sort((x, y) => x - y);
      assert.ok(windows.length >= answered, `${windows.length} of ${answered}`);
      assert.deepEqual(
        windows,
        Array.from({ length: windows.length }, (_, at) => at),
      );
    }
    const status = /npx lepton-agent (.+)$/m.exec(stderr())?.[1]?.split(' ') ?? [];
    assert.equal((await run('agent', status)).code, 0);
    const model = /curl (\S+)/.exec(stderr())?.[1] ?? '';
    const metadata = (await (await fetch(model)).json()) as { versions: string[] };
    assert.deepEqual(metadata.versions, ['2.0.0']);

    const [name = ''] = readdirSync(parent);
    const pids = pidsOf(join(parent, name));
    assert.equal(pids.length, 3);
    assert.ok(pids.every(alive));
    child.kill('SIGINT');
    assert.equal(await ended, 0, stderr());
    assert.deepEqual(pids.filter(alive), []);
    assert.deepEqual(readdirSync(parent), []);
    await assert.rejects(fetch(`${registry}/healthz`));
  });
});

test('Ctrl-C in the middle: one line that says so, exit 1, nothing left behind', async () => {
  await withDemo(['--once'], async ({ child, parent, stdout, stderr, ended }) => {
    await until('the agents', () => /press-3 is device/.test(stdout()), 60_000);
    const [name = ''] = readdirSync(parent);
    const pids = pidsOf(join(parent, name));
    child.kill('SIGINT');
    assert.equal(await ended, 1);
    assert.match(stderr(), /^lepton: interrupted: [^\n]+\n$/);
    assert.deepEqual(pids.filter(alive), []);
    assert.deepEqual(readdirSync(parent), []);
  });
});

test('a folder that cannot be made is a clear error', async () => {
  const parent = mkdtempSync(join(tmpdir(), 'lepton-demo-test-'));
  rmSync(parent, { recursive: true });
  assert.equal(existsSync(parent), false);
  const done = await run('sim', ['demo', '--once', '--json'], { env: { TMPDIR: parent } });
  assert.equal(done.code, 1);
  assert.equal((JSON.parse(done.stdout) as { error: { code: string } }).error.code, 'disk-io');
  assert.match(done.stderr, /^lepton: disk-io: [^\n]+\n$/);
});
