// Why: what a device says it runs models with is what was tried on it. Trusts: the real runtime, and processes made to
// order for what drivers do. Must never: ask for hardware that a test machine may not have.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ModelProcess, startModelProcess } from '../../agent/inference/process.ts';
import { surveyProviders } from '../../agent/inference/providers.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';

test('what runs models here is tried in a process of its own: more than the build’s word', async () => {
  const child = startModelProcess(systemClock);
  const offered = await child.ask({ kind: 'providers' }, [], 30_000);
  const run = await child.ask({ kind: 'provider', name: 'cpu' }, [], 30_000);
  const made = await child.ask({ kind: 'provider', name: 'of-the-future' }, [], 30_000);
  child.kill();
  assert.ok(offered.ok && run.ok && made.ok);
  const { names } = offered.value.reply;
  assert.ok(names.includes('cpu'), names.join());
  assert.deepEqual([run.value.reply.usable, made.value.reply.usable], [true, false]);

  const usable = await surveyProviders(systemClock).done;
  assert.ok(usable !== null);
  assert.equal(usable[0], 'cpu');
  assert.ok(
    usable.every((name) => names.includes(name)),
    usable.join(),
  );
});

interface Script {
  names: string[] | null;
  /** By provider: whether it runs; absent: the process ends. */
  runs: Record<string, boolean>;
}

/** Processes of which each ends with the first provider that takes it along. */
function scripted({ names, runs }: Script) {
  const said: string[] = [];
  let started = 0;
  const start = (): ModelProcess => {
    started += 1;
    const number = started;
    let gone = false;
    const ask = async (request: { kind: string; name?: string }) => {
      const died = refuse('model-crashed', 'SIGSEGV');
      if (gone) return died;
      if (request.kind === 'providers')
        return names === null ? died : ok({ reply: { kind: 'providers', names }, tensors: [], waitedMs: 0 });
      const usable = runs[request.name ?? ''];
      said.push(`${number} ${request.name}`);
      if (usable !== undefined) return ok({ reply: { kind: 'provider', usable }, tensors: [], waitedMs: 0 });
      gone = true;
      return died;
    };
    return {
      pid: null,
      ahead: () => null,
      ask: ask as ModelProcess['ask'],
      kill: () => {
        gone = true;
        said.push(`${number} killed`);
      },
      exited: Promise.resolve({ reason: '', livedMs: 0, timedOut: false }),
    };
  };
  return { said, start };
}

test('a provider whose driver takes the process with it does not run here, and the next has a new one', async () => {
  const { said, start } = scripted({
    names: ['webgpu', 'cpu', 'cuda', 'tensorrt'],
    runs: { cuda: true, tensorrt: false },
  });
  assert.deepEqual(await surveyProviders(systemClock, start).done, ['cpu', 'cuda']);
  assert.deepEqual(said, ['1 webgpu', '1 killed', '2 cuda', '2 tensorrt', '2 killed']);
});

test('no survey: nothing is said, and its process is gone; so where it is stopped', async () => {
  const none = scripted({ names: null, runs: {} });
  assert.equal(await surveyProviders(systemClock, none.start).done, null);
  assert.deepEqual(none.said, ['1 killed']);

  const full = new FleetError('disk-full', 'no room for what a process shares');
  const unstarted = surveyProviders(systemClock, () => {
    throw full;
  });
  assert.equal(await unstarted.done, null);

  const some = scripted({ names: ['webgpu', 'cuda'], runs: { webgpu: true, cuda: true } });
  const survey = surveyProviders(systemClock, some.start);
  survey.stop();
  assert.equal(await survey.done, null);
  assert.deepEqual(
    some.said.filter((line) => line.endsWith('killed')),
    ['1 killed'],
  );
});
