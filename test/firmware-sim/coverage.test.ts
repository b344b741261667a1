// Why: the list of what a world should reach must be the truth about the tables, and its explanations must not rot.
// Trusts: the real machine, walked here. Must never: leave a transition out that the machine can make.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { type MachineEvent, type MachineState, newMachine, step } from '../../agent/update/machine.ts';
import { addCoverage, coverageLines, judgeCoverage } from '../../firmware-sim/explore/coverage.ts';
import { expected, transitions } from '../../firmware-sim/explore/expected.ts';
import { explained, seldom } from '../../firmware-sim/explore/explained.ts';
import { parseKeptSeeds } from '../../firmware-sim/explore/kept-seeds.ts';
import {
  betweenMarkers,
  foundBugsTable,
  plantedBugsTable,
} from '../../firmware-sim/explore/readme-tables.ts';
import type { AssignedRelease } from '../../shared/wire/messages.ts';
import { projectFolder } from '../support/data.ts';
import { runSeed } from './one-device-world.ts';

const digest = (name: string) => name.repeat(64);
const shadow = { requests: 1, cpuPercent: 25, timeoutMs: 1_000, agreementMin: 0.9 };
const assigned = (name: string, isShadowed: boolean): AssignedRelease => ({
  as: 'm',
  releaseId: 'acme/m@1.0.0',
  manifestSha256: digest(name),
  manifestBytes: 1,
  counter: 1,
  requires: null,
  rolloutId: 'r',
  policy: {
    deadlinesMs: { fetching: 1, probing: 1, soaking: 1 },
    soakMs: 0,
    ...(isShadowed ? { shadow } : {}),
  },
});
const reason = { code: 'model-invalid', detail: '' } as const;
const names = ['a', 'b'];
const evidence = {
  goldenCases: 1,
  goldenPassed: 1,
  firstFailure: null,
  latencyP50Ms: 1,
  latencyP95Ms: 1,
  memoryBytesPeak: 1,
};
const compared = {
  ...{ requests: 1, compared: 1, skipped: 0, failed: 0, agreement: 1, firstFailure: null },
  ...{ latencyP95Ms: 1, activeLatencyP95Ms: 1, differences: [] },
};
const events: MachineEvent[] = [
  { type: 'booted' },
  { type: 'removed' },
  ...(['agreed', 'fetched', 'verified', 'damaged', 'staged'] as const).map((type) => ({ type })),
  { type: 'failed', reason },
  { type: 'probed', evidence, limits: {} },
  { type: 'shadowed', evidence: compared },
  { type: 'health', answer: { ok: true, value: { requests: 0, errors: 0, latencyP95Ms: null } } },
  { type: 'deadline', lastProblem: null },
  { type: 'served', manifestSha256: null },
  ...names.flatMap((name): MachineEvent[] => [
    { type: 'assigned', release: assigned(name, name === 'b') },
    { type: 'served', manifestSha256: digest(name) },
    ...names
      .filter((other) => other !== name)
      .map((other): MachineEvent => {
        const [manifestSha256, fallback] = [digest(name), digest(other)];
        return { type: 'crash-looped', manifestSha256, reason, fallback };
      }),
  ]),
];
/** Long after every deadline: what is due is due at once. */
const laterMs = 1e9;

test('every transition of the real machine is expected, and no other', () => {
  const keyOf = (state: MachineState) =>
    JSON.stringify({ ...state, attempt: 0, journalWrites: 0, asOfMs: 0, deadlineAtMs: 0, soakUntilMs: 0 });
  const seen = new Set<string>();
  const found = new Set<string>();
  const queue = [newMachine('m', 0)];
  for (let state = queue.pop(); state !== undefined; state = queue.pop()) {
    for (const event of events) {
      const { next } = step(state, event, laterMs, { journalWritesMax: 1e9 });
      if (next.phase !== state.phase) found.add(`${state.phase} ${next.phase}`);
      const calm = { ...next, attempt: 0, journalWrites: 0, asOfMs: 0 };
      if (calm.deadlineAtMs !== null) calm.deadlineAtMs = 0;
      if (calm.soakUntilMs !== null) calm.soakUntilMs = 0;
      const key = keyOf(calm);
      if (seen.has(key)) continue;
      seen.add(key);
      queue.push(calm);
    }
  }
  assert.deepEqual([...found].sort(), transitions.map((pair) => pair.join(' ')).sort());
});

test('every name is expected once, and only what is expected is explained', () => {
  assert.equal(new Set(expected).size, expected.length);
  assert.deepEqual(
    [...explained.keys(), ...seldom].filter((name) => !expected.includes(name)),
    [],
  );
  assert.deepEqual(
    [...seldom].filter((name) => explained.has(name)),
    [],
  );
});

test('never reached, wrongly explained, explained and seldom are four lists', () => {
  const report = judgeCoverage({ 'state a': 3, 'code x': 1, 'code z': 1 }, 5, {
    expected: ['state a', 'state b', 'code x', 'code y', 'code z', 'code zz'],
    seldom: new Set(['code z', 'code zz']),
    explained: new Map([
      ['code x', 'flags'],
      ['code y', 'flags'],
    ]),
  });
  assert.deepEqual(report.missed, ['state b']);
  assert.deepEqual(report.stale, ['code x']);
  assert.deepEqual(report.explained, [{ name: 'code y', why: 'flags' }]);
  assert.deepEqual(report.seldom, ['code zz']);
});

test('the small world reaches most of the machine, and says what it does not', async () => {
  const counts = {};
  for (let seed = 1; seed <= 20; seed += 1) addCoverage(counts, (await runSeed({ seed })).coverage);
  const report = judgeCoverage(counts, 20);
  assert.ok(!report.missed.includes('state device committed'));
  assert.ok(report.missed.includes('fault broker.forget'));
  const lines = coverageLines(report);
  assert.ok(lines.includes('never reached: fault broker.forget'));
  assert.match(lines.at(-1) ?? '', /^20 seeds: \d+ never reached, 0 wrongly explained$/);
});

test('kept seeds have a form', () => {
  const entry = { seed: 7, only: ['disk.full device-1 3', 'step 0'], found: 'f', cause: 'c', fixed: 'x' };
  assert.deepEqual(parseKeptSeeds(JSON.stringify([entry])), [entry]);
  for (const wrong of ['{}', '[{}]', '[{"seed":1,"found":"f","cause":"c"}]', '[1', '[{"seed":"1"}]']) {
    assert.throws(() => parseKeptSeeds(wrong), { code: 'input-invalid' }, wrong);
  }
  const strange = JSON.stringify([{ ...entry, only: ['step'] }]);
  assert.throws(() => parseKeptSeeds(strange), { code: 'input-invalid' });
});

test('the tables of firmware-sim/README.md are those of the measured files', () => {
  const read = (file: string) => readFileSync(join(projectFolder, 'firmware-sim', file), 'utf8');
  const text = read('README.md');
  const kept = foundBugsTable(parseKeptSeeds(read('kept-seeds.json')));
  const planted = plantedBugsTable(JSON.parse(read('planted-results.json')));
  assert.equal(betweenMarkers(betweenMarkers(text, 'found-bugs', kept), 'planted-bugs', planted), text);
  assert.throws(() => betweenMarkers(text, 'nothing', ''), { code: 'input-invalid' });
});

test('what was found of a planted bug is told of the world in which it is looked for', () => {
  const read = (file: string) => readFileSync(join(projectFolder, 'firmware-sim', file), 'utf8');
  interface Told {
    name: string;
    world?: string;
  }
  const keyOf = ({ name, world = 'fleet' }: Told) => `${world}: ${name}`;
  const bugs = (JSON.parse(read('planted-bugs.json')) as Told[]).map(keyOf);
  const results = (JSON.parse(read('planted-results.json')) as Told[]).map(keyOf);
  // In their order; one that is new may not have been looked for yet.
  assert.deepEqual(
    results,
    bugs.filter((key) => results.includes(key)),
  );
  const { status } = spawnSync(process.execPath, ['scripts/planted-bugs.mjs', '--check', '--of', 'regions'], {
    cwd: projectFolder,
  });
  assert.equal(status, 0);
  assert.ok(bugs.filter((key) => key.startsWith('regions: ')).length >= 15);
});

test('every planted bug is still a change of the compiled code, and they have names of their own', async () => {
  interface Edit {
    find: string;
    replace: string;
  }
  const hook = pathToFileURL(join(projectFolder, 'scripts', 'planted-hook.mjs')).href;
  const { withEdits } = (await import(hook)) as { withEdits: (text: string, edits: Edit[]) => string };
  const file = readFileSync(join(projectFolder, 'firmware-sim', 'planted-bugs.json'), 'utf8');
  type Bug = Edit & { name: string; world?: string; file: string; and?: Edit[]; reach?: string };
  const bugs = JSON.parse(file) as Bug[];
  assert.ok(bugs.length >= 24);
  assert.equal(new Set(bugs.map(({ name }) => name)).size, bugs.length);
  for (const { name, file: source, find, replace, and = [], reach } of bugs) {
    const text = readFileSync(join(projectFolder, 'dist', source.replace(/\.ts$/, '.js')), 'utf8');
    assert.notEqual(withEdits(text, [{ find, replace }, ...and]), text, name);
    if (reach === undefined) continue;
    assert.match(reach, /REACHED\(\)/, name);
    assert.notEqual(withEdits(text, [{ find, replace: reach }]), text, name);
  }
});
