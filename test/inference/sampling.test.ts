// Why: holds which requests are kept, how sure an answer counts as, and what masking leaves of a sample.
// Trusts: nothing. Must never: wait for time to pass, or leave chance to chance.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { confidenceOf } from '../../agent/inference/confidence.ts';
import { type CapturedSample, createSampler } from '../../agent/inference/sampler.ts';
import { oneMore, type RequestFacts, reasonsFor } from '../../agent/inference/sampling.ts';
import { createTally } from '../../agent/inference/tally.ts';
import { sampleRecord } from '../../agent/telemetry/sample-masking.ts';
import { maskingRuleSchema } from '../../shared/wire/masking.ts';
import { profileSchema } from '../../shared/wire/profile.ts';
import { type AssignedSampling, assignedSamplingSchema } from '../../shared/wire/sample-rules.ts';
import { captureRecordSchema, type SampleTensor, samplesStatsSchema } from '../../shared/wire/samples.ts';
import { numberToHalf, type Tensor } from '../../shared/wire/tensors.ts';
import { handClock, settle } from '../agent/hand-clock.ts';

const rules = (more: object): AssignedSampling =>
  assignedSamplingSchema.parse({ model: 'acme/pump', ...more });
const floats = (name: string, shape: number[], ...data: number[]): Tensor => ({
  ...{ name, datatype: 'FP32', shape },
  data: Float32Array.from(data),
});
const facts = (
  more: Partial<{ confidence: number | null; outside: boolean; agreement: number }>,
): RequestFacts => ({
  confidence: () => more.confidence ?? null,
  isOutside: () => more.outside ?? false,
  agreement: more.agreement ?? null,
});

test('each reason, alone and together', () => {
  const low = rules({ lowConfidence: { below: 0.5 } });
  assert.deepEqual(reasonsFor(low, facts({ confidence: 0.4 }), 0), ['low-confidence']);
  assert.deepEqual(reasonsFor(low, facts({ confidence: 0.5 }), 0), []);
  assert.deepEqual(reasonsFor(low, facts({}), 0), [], 'an answer without a confidence is not unsure');
  const other = rules({ disagreement: true });
  assert.deepEqual(reasonsFor(other, facts({ agreement: 0.99 }), 0), ['disagreement']);
  assert.deepEqual(reasonsFor(other, facts({ agreement: 1 }), 0), []);
  assert.deepEqual(reasonsFor(other, facts({}), 0), []);
  assert.deepEqual(reasonsFor(rules({ outOfRange: true }), facts({ outside: true }), 0), ['out-of-range']);
  assert.deepEqual(reasonsFor(rules({ outOfRange: true }), facts({}), 0), []);
  const share = rules({ randomShare: 0.25 });
  assert.deepEqual(
    [0, 0.2499, 0.25, 0.99].map((draw) => reasonsFor(share, facts({}), draw).length),
    [1, 1, 0, 0],
  );
  const all = rules({ lowConfidence: { below: 1 }, disagreement: true, outOfRange: true, randomShare: 1 });
  const found = reasonsFor(all, facts({ confidence: 0.9, outside: true, agreement: 0 }), 0.5);
  assert.deepEqual(found, ['low-confidence', 'disagreement', 'out-of-range', 'random']);
  const never: RequestFacts = {
    confidence: () => assert.fail('nobody asked'),
    isOutside: () => assert.fail('nobody asked'),
    agreement: 0,
  };
  assert.deepEqual(reasonsFor(share, never, 0.5), []);
});

test('the cap is of an hour', () => {
  let count = { hour: -1, kept: 0 };
  const at = (nowMs: number): boolean => {
    const next = oneMore(count, nowMs, 2);
    count = next ?? count;
    return next !== null;
  };
  assert.deepEqual([at(0), at(1), at(3_599_999)], [true, true, false]);
  assert.deepEqual([at(3_600_000), at(3_600_001), at(7_000_000)], [true, true, false]);
  assert.equal(at(72_000_000), true);
});

test('confidence: the profile’s output as it is; else a row of classes; else none', () => {
  const near = (outputs: Tensor[], named: string | null, expected: number): void => {
    const found = confidenceOf(outputs, named)?.value ?? Number.NaN;
    assert.ok(Math.abs(found - expected) < 1e-6, `${found} is not ${expected}`);
  };
  near([floats('p', [1, 3], 0.2, 0.7, 0.1)], null, 0.7);
  near([floats('logits', [3], 0, Math.log(2), 0)], null, 0.5);
  near([floats('p', [2, 2], 0.1, 0.9, 0.4, 0.6)], null, 0.6);
  near([floats('a', [2], 1, 2), floats('score', [1, 2], 0.3, 0.25)], 'score', 0.3);
  near(
    [{ ...floats('p', [2]), datatype: 'FP16', data: Uint16Array.from([0.25, 0.75].map(numberToHalf)) }],
    null,
    0.75,
  );
  near([floats('p', [1, 2], Number.NaN, 1)], null, 0);
  near([floats('p', [1, 2], Number.POSITIVE_INFINITY, 1)], null, 0);
  const label: Tensor = { name: 'label', datatype: 'INT64', shape: [1], data: BigInt64Array.from([3n]) };
  near([label, floats('p', [1, 2], 0.5, 0.5)], null, 0.5);
  assert.equal(confidenceOf([floats('a', [2], 1, 2), floats('b', [2], 1, 2)], null), null);
  assert.equal(confidenceOf([floats('boxes', [1, 2, 2], 1, 2, 3, 4)], null), null);
  assert.equal(confidenceOf([floats('y', [1, 1], 21.5)], null), null, 'a regression');
  assert.equal(confidenceOf([floats('a', [2], 1, 2)], 'score'), null, 'the client did not ask for it');
  assert.equal(confidenceOf([label], null), null);
});

const numeric = (tensor: string, index: number) => ({
  ...{ kind: 'numeric', role: 'input', tensor, index, edges: [0, 1, 2], counts: [0, 0, 0, 0] },
});

test('outside: under or over the bins, or none of the values; what is missing is not outside', () => {
  const tally = createTally(
    profileSchema.parse({
      schemaVersion: 1,
      features: [
        numeric('x', 1),
        {
          kind: 'categorical',
          role: 'input',
          tensor: 'side',
          index: 0,
          values: ['left', 'right'],
          counts: [0, 0],
        },
        { ...numeric('y', 0), role: 'output', of: 'max' },
      ],
    }),
    () => 0,
  );
  assert.equal(tally.surest, 'y');
  const side = (text: string): Tensor => ({ name: 'side', datatype: 'BYTES', shape: [1], data: [text] });
  const isOutside = (...values: number[]): boolean =>
    tally.isOutside([floats('x', [1, values.length], ...values)]);
  assert.deepEqual([isOutside(9, 0), isOutside(9, 2), isOutside(9, 1)], [false, false, false]);
  assert.deepEqual([isOutside(1, -0.1), isOutside(1, 2.1)], [true, true]);
  assert.deepEqual([isOutside(9), isOutside(9, Number.NaN)], [false, false]);
  assert.equal(tally.isOutside([floats('x', [2, 2], 9, 1, 9, 7)]), true, 'in the second row');
  assert.deepEqual([tally.isOutside([side('left')]), tally.isOutside([side('up')])], [false, true]);
  assert.equal(tally.take(1), null, 'nothing was counted');
});

function sampling(given: object, draws: number[] = []) {
  const clock = handClock();
  const samples: CapturedSample[] = [];
  const u32 = (): number => Math.floor((draws.shift() ?? 0) * 2 ** 32);
  const sampler = createSampler({
    clock,
    entropy: { u32, bytes: () => assert.fail('not needed') },
    onSample: (sample) => void samples.push(sample),
  });
  sampler.use([rules(given)]);
  const ask = async (
    inputs: Tensor[],
    more: Partial<Parameters<typeof sampler.answered>[0]> = {},
  ): Promise<void> => {
    const outputs = [floats('p', [1, 2], 0.5, 0.5)];
    const about = { as: 'pump', releaseId: 'acme/pump@1.0.0', requestId: null, tally: null, compared: [] };
    sampler.answered({ ...about, inputs, outputs, ...more });
    await clock.advance(0);
    await settle();
  };
  return { clock, samples, sampler, ask };
}

test('a request is decided after its answer, once, and what is above the cap or too large is counted', async () => {
  const { clock, samples, sampler, ask } = sampling({
    lowConfidence: { below: 0.6 },
    perHourMax: 2,
    bytesMax: 400,
  });
  assert.deepEqual([sampler.wants('acme/pump@2.0.0'), sampler.wants('acme/fan@1.0.0')], [true, false]);
  sampler.answered({
    ...{ as: 'pump', releaseId: 'acme/pump@1.0.0', requestId: 'r1', tally: null, compared: [] },
    ...{ inputs: [floats('x', [1, 2], 0.1, 3)], outputs: [floats('p', [1, 2], 0.5, 0.5)] },
  });
  assert.equal(samples.length, 0, 'not in the turn of the answer');
  await clock.advance(0);
  assert.deepEqual(samples, [
    {
      ...{ timeMs: 1_000, release: 'acme/pump@1.0.0', model: 'pump', requestId: 'r1' },
      ...{ reasons: ['low-confidence'], confidence: { value: 0.5, output: 'p' }, comparison: null },
      // 0.1 in single precision, in as many digits as it has.
      inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [0.1, 3] }],
      outputs: [{ name: 'p', shape: [1, 2], datatype: 'FP32', data: [0.5, 0.5] }],
    },
  ]);
  await ask([floats('x', [1_000], ...Array<number>(1_000).fill(0))]);
  await ask([floats('x', [40], ...Array<number>(40).fill(1 / 3))]);
  assert.equal(samples.length, 1, 'too large, the second one only as text');
  const word: Tensor = {
    name: 'id',
    datatype: 'INT64',
    shape: [2],
    data: BigInt64Array.from([7n, 2n ** 60n]),
  };
  await ask([word]);
  assert.deepEqual(samples[1]?.inputs[0]?.data, [7, '1152921504606846976']);
  await ask([word]);
  await ask([word], { outputs: [floats('p', [2], 0.9, 0.1)] });
  assert.equal(samples.length, 2);
  const [stats, ...more] = sampler.take();
  assert.deepEqual(more, []);
  assert.equal(stats?.release, 'acme/pump@1.0.0');
  const { windowMs, ...counts } = samplesStatsSchema.parse(stats.data);
  assert.deepEqual(counts, {
    ...{ kind: 'samples', model: 'pump', kept: 2, over: 1, tooLarge: 2, reasons: { 'low-confidence': 5 } },
  });
  assert.equal(windowMs, 0);
  assert.deepEqual(sampler.take(), []);
  // Setting the same rules again is no new hour; the next hour is.
  sampler.use([rules({ lowConfidence: { below: 0.6 }, perHourMax: 2 })]);
  await ask([word]);
  assert.equal(samples.length, 2);
  await clock.advance(3_600_000);
  await ask([word]);
  assert.equal(samples.length, 3);
  sampler.use([]);
  assert.equal(sampler.wants('acme/pump@1.0.0'), false);
  await ask([word]);
  assert.equal(samples.length, 3);
});

test('a random share is drawn for each request, and a candidate’s answer is waited for', async () => {
  const share = sampling({ randomShare: 0.5 }, [0.7, 0.3, 0.5, 0.49]);
  for (let request = 0; request < 4; request += 1) await share.ask([floats('x', [1], request)]);
  assert.deepEqual(
    share.samples.map(({ inputs }) => inputs[0]?.data),
    [[1], [3]],
  );

  const { samples, ask, sampler } = sampling({ disagreement: true, outOfRange: true });
  const compared = (agreement: number | null) =>
    Promise.resolve(agreement === null ? null : { candidate: 'acme/pump@2.0.0', agreement });
  await ask([floats('x', [1], 1)], { compared: [compared(1)] });
  await ask([floats('x', [1], 2)], { compared: [compared(null), compared(0.8), compared(0.5)] });
  let answer: (found: null) => void = () => undefined;
  await ask([floats('x', [1], 3)], { compared: [new Promise((resolve) => (answer = resolve))] });
  assert.deepEqual(
    samples.map(({ comparison }) => comparison),
    [{ candidate: 'acme/pump@2.0.0', agreement: 0.5 }],
  );
  sampler.stop();
  answer(null);
  await settle();
  assert.equal(samples.length, 1);
});

const tensor = (name: string, shape: number[], ...data: SampleTensor['data']): SampleTensor => ({
  ...{ name, datatype: 'FP32', shape, data },
});

function left(...given: object[]) {
  const sample: CapturedSample = {
    ...{ timeMs: 1, release: 'acme/pump@1.0.0', model: 'pump', requestId: 'r1', reasons: ['random'] },
    ...{ confidence: { value: 0.5, output: 'p' }, comparison: null },
    inputs: [tensor('x', [2, 3], 1.26, 2, 'NaN', 4, 5, 6), tensor('face.crop', [1], 9)],
    outputs: [tensor('p', [2], 0.5, 0.5)],
  };
  const masking = { key: '0b'.repeat(32), rules: given.map((rule) => maskingRuleSchema.parse(rule)) };
  const { data } = sampleRecord(sample, masking);
  const found = captureRecordSchema.parse(data);
  const all = [...found.inputs, ...found.outputs].map(({ name, data: values }) => [name, values] as const);
  return { ...found, of: Object.fromEntries(all) };
}

test('masking of samples: by names of tensors and places in them', () => {
  const whole = [1.26, 2, 'NaN', 4, 5, 6];
  assert.deepEqual(left().of, { x: whole, 'face.crop': [9], p: [0.5, 0.5] });
  for (const field of ['inputs.face.crop', 'face.crop', ['inputs', 'face.crop']])
    assert.deepEqual(left({ do: 'drop', field }).of, { x: whole, p: [0.5, 0.5] }, String(field));
  for (const field of ['inputs', 'inputs.*']) assert.deepEqual(left({ do: 'drop', field }).inputs, [], field);
  assert.deepEqual(left({ do: 'drop', field: '*' }).of, {});
  for (const field of ['inputs.x.1', 'x.1', 'x.data.1'])
    assert.deepEqual(left({ do: 'drop', field }).of['x'], [1.26, null, 'NaN', 4, null, 6], field);
  for (const field of ['x', 'inputs.x.data', 'x.*'])
    assert.deepEqual(left({ do: 'round', field, to: 0.5 }).of['x'], [1.5, 2, null, 4, 5, 6], field);
  assert.deepEqual(left({ do: 'clip', field: 'x', min: 2, max: 5 }).of['x'], [2, 2, null, 4, 5, 5]);
  assert.match(String(left({ do: 'hash', field: 'x.0' }).of['x']?.[0]), /^h:[0-9a-f]{32}$/);
  // Nothing that is not meant: another class, another model, the other side.
  for (const more of [
    { classes: ['app'] },
    { model: 'acme/fan' },
    { field: 'outputs.x' },
    { field: 'x.shape' },
  ])
    assert.deepEqual(left({ do: 'drop', field: 'x', ...more }).of['x'], whole, JSON.stringify(more));
});

test('masking of samples: a request id, and a confidence that comes of a masked output', () => {
  assert.deepEqual([left().requestId, left().confidence], ['r1', 0.5]);
  for (const field of ['id', 'requestId', '*'])
    assert.equal(left({ do: 'drop', field }).requestId, null, field);
  assert.match(left({ do: 'hash', field: 'id' }).requestId ?? '', /^h:/);
  for (const field of ['p', 'outputs', 'p.1'])
    assert.equal(left({ do: 'drop', field }).confidence, null, field);
  assert.equal(left({ do: 'round', field: 'p', to: 1 }).confidence, null);
  assert.equal(left({ do: 'drop', field: 'inputs' }).confidence, 0.5);
});
