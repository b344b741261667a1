// Why: what a registry does with a pushed model beyond reading it: tried under the operator's bound and the publisher's
// promise, once for the same bytes, and honest where nothing could be tried.
// Trusts: model-trial.test.ts for the trial itself. Must never: need a model from outside for the rules themselves.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { type AdmissionTerms, createTrial } from '../../registry/catalog/admit.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { createModelTrial } from '../../shared/host/model-trial.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { ModelTrial, TrialModel, TrialReport } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { writeModel } from '../../shared/onnx/writer.ts';
import {
  type Bench,
  bench,
  dayMs,
  hexOf,
  identityModel,
  once,
  preparePush,
  publisherKey,
} from './support.ts';

const MiB = 2 ** 20;
const key = publisherKey('acme');

async function acme(
  t: Parameters<typeof bench>[0],
  admission: (folder: string) => AdmissionTerms,
): Promise<Bench> {
  const made = await bench(t, { admission });
  unwrap(await made.repository.delegate('acme', [hexOf(key)], 1));
  return made;
}

let counter = 0;
/** Pushes it as a next release; the code of the refusal and its detail, or nothing. */
async function push(made: Bench, model: Uint8Array, manifest: object = {}): Promise<string[]> {
  counter += 1;
  const { repository, clock, blobs, releases } = made;
  const version = (await repository.publisher('acme'))?.metadataVersion ?? 0;
  unwrap(await blobs.put(sha256Hex(model), once(model)));
  const pushed = await releases.push(
    preparePush({
      releaseId: `acme/m${counter}@1.0.0`,
      model,
      current: await repository.file(`${version}.acme.json`),
      counter: 1,
      signers: [key],
      expiresAtMs: clock.wall() + 365 * dayMs,
      manifest,
    }),
  );
  return pushed.ok ? [] : [pushed.refusal.code, pushed.refusal.detail];
}

/** A trial that says what it is told, and what it was asked. */
function told(says: () => Result<TrialReport>): { trial: ModelTrial; asked: TrialModel[] } {
  const asked: TrialModel[] = [];
  const run: ModelTrial['run'] = async (model) => {
    asked.push(model);
    return says();
  };
  return { trial: { run, stop: () => undefined }, asked };
}
const passed = (): Result<TrialReport> => ok({ untried: null, runFailure: null, peakBytes: null });

test('a push is tried with its own files, under the smaller of promise and bound, and once', async (t) => {
  const { trial, asked } = told(passed);
  const made = await acme(t, (folder) => ({
    trial: createTrial(trial, (sha256) => join(folder, sha256)),
    modelMemoryBytesMax: 1_000 * MiB,
  }));
  const model = identityModel('tried');
  assert.deepEqual(await push(made, model, { requires: { memoryMiB: 100 } }), []);
  const [first] = asked;
  assert.ok(first);
  assert.deepEqual(
    first.files.map(({ localPath }) => localPath),
    [join(made.folder, 'blobs', sha256Hex(model))],
  );
  assert.deepEqual([first.inputs.map(({ name }) => name), first.outputs], [['x'], ['y']]);
  assert.equal(first.memory.bytes, (2 * 100 + 192) * MiB);
  assert.deepEqual(await push(made, model, { requires: { memoryMiB: 100 } }), []);
  assert.equal(asked.length, 1, 'the same bytes with the same promise');
  assert.deepEqual(await push(made, model, { requires: { memoryMiB: 5_000 } }), []);
  assert.deepEqual(asked[1]?.memory, { bytes: 1_000 * MiB, from: '--model-memory-max of the registry' });
  const versions = (await made.releases.list()).flatMap((one) => one.versions);
  assert.deepEqual(
    versions.map(({ admitted, reason }) => [admitted, reason]),
    [1, 2, 3].map(() => [true, null]),
  );
});

test('what the trial refuses is not in the catalogue', async (t) => {
  const { trial } = told(() => refuse('model-trial-crashed', 'SIGABRT'));
  const made = await acme(t, (folder) => ({ trial: createTrial(trial, (sha256) => join(folder, sha256)) }));
  assert.deepEqual(await push(made, identityModel('bad')), ['model-trial-crashed', 'SIGABRT']);
  assert.deepEqual(await made.releases.list(), []);
});

test('without a runtime the catalogue says so, the log too, and the next push tries again', async (t) => {
  let here = false;
  const { trial, asked } = told(() =>
    here ? passed() : ok({ untried: 'no runtime', runFailure: null, peakBytes: null }),
  );
  const made = await acme(t, (folder) => ({ trial: createTrial(trial, (sha256) => join(folder, sha256)) }));
  const model = identityModel('untried');
  assert.deepEqual(await push(made, model), []);
  const untried = made.log.events.filter(({ event }) => event === 'release.untried');
  assert.deepEqual(
    untried.map(({ fields }) => fields['detail']),
    ['no runtime'],
  );
  here = true;
  assert.deepEqual(await push(made, model), []);
  assert.equal(asked.length, 2);
  const versions = (await made.releases.list()).flatMap((one) => one.versions);
  assert.deepEqual(
    versions.map(({ admitted, reason }) => [admitted, reason]),
    [
      [true, 'not tried: no runtime'],
      [true, null],
    ],
  );
});

test('with the real trial: an operator’s bound, a graph that no parser judges, a run that takes too much', async (t) => {
  const made = await acme(t, (folder) => ({
    trial: createTrial(createModelTrial(systemClock, { workFolder: join(folder, 'work') }), (sha256) =>
      join(folder, sha256),
    ),
    modelMemoryBytesMax: 300 * MiB,
  }));
  const generous = { requires: { memoryMiB: 100_000 } };
  const source = (initializers: bigint, shape: string) => ({
    name: 'graph',
    inputs: [{ name: 'n', datatype: 'INT64' as const, shape: [1] }],
    outputs: [{ name: 'y', datatype: 'FP32' as const, shape: ['m'] }],
    initializers: [
      { name: 'size', datatype: 'INT64' as const, shape: [1], data: BigInt64Array.of(initializers) },
    ],
    nodes: [
      { operator: 'Add', inputs: ['n', 'size'], outputs: ['sum'] },
      { operator: 'ConstantOfShape', inputs: [shape], outputs: ['y'] },
    ],
  });
  const floats = 100n * 1_048_576n;
  const [estimate, why] = await push(made, writeModel(source(floats, 'size')), generous);
  assert.equal(estimate, 'model-memory-estimate');
  assert.match(why ?? '', /--model-memory-max of the registry is 300 MiB/);
  const [promise, whose] = await push(made, writeModel(source(floats, 'size')), {
    limits: { memoryMiB: 200 },
  });
  assert.equal(promise, 'model-memory-estimate');
  assert.match(whose ?? '', /limits\.memoryMiB of the manifest is 200 MiB/);
  // Its size comes with the request: nothing to see before it runs.
  const [trial] = await push(made, writeModel(source(floats, 'sum')), generous);
  assert.equal(trial, 'model-trial-memory');
  const unknown = writeModel({
    ...source(1n, 'sum'),
    nodes: [{ operator: 'Frobnicate', inputs: ['n'], outputs: ['y'] }],
  });
  const [code, detail] = await push(made, unknown);
  assert.equal(code, 'model-invalid');
  assert.match(detail ?? '', /Frobnicate/);
  assert.deepEqual(await push(made, identityModel('good')), []);
});
