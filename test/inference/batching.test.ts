// Why: requests that ran together have the answers they would have had alone, whatever the model makes of its rows.
// Trusts: made.ts, and the data folder where there is one. Must never: time anything.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { compareGolden } from '../../shared/wire/golden.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { type ModelCase, modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { dies, inCompany, noTrap, oneForAll, reads, row, rowByRow, texts, whole } from './made.ts';
import { openStage, type Stage } from './staging.ts';

/** Held together by a long delay: they run as one when they are as many as it takes. */
const together = (maxBatch: number) => ({ session: { maxBatch, maxDelayMs: 5_000 } });
const stageFor = (): Stage => {
  const stage = openStage();
  after(() => stage.close());
  return stage;
};
const off = (stage: Stage) => stage.events.filter(({ event }) => event === 'inference.batching.off');

/** Proves batching of `as` with requests of one row. */
async function prove(stage: Stage, as: string, requests: readonly Tensor[][]): Promise<void> {
  for (let times = 0; times < 2; times++)
    for (const answer of await Promise.all(requests.map((inputs) => stage.host.infer(as, null, { inputs }))))
      unwrap(answer);
}

describe('dynamic batching', () => {
  test('requests that come together run as one; each gets its rows, and of the outputs what it asked for', async () => {
    const stage = stageFor();
    await stage.serve('rows', rowByRow(), together(4));
    const four = [row(1, 3), row(5, 7), row(-2, 2), row(0, 10)];
    await prove(stage, 'rows', four);
    const { counters } = stage.host.model('rows') ?? assert.fail();
    const before = { executions: counters.executions, inferences: counters.inferences };
    const two: Tensor[] = [{ name: 'x', datatype: 'FP32', shape: [2, 2], data: Float32Array.of(1, 2, 3, 5) }];
    const [one, more, last] = await Promise.all([
      stage.host.infer('rows', null, { inputs: row(1, 3), outputs: ['z'] }),
      stage.host.infer('rows', null, { inputs: two }),
      stage.host.infer('rows', null, { inputs: row(8, 4), outputs: ['z', 'y'] }),
    ]);
    const flat = (outputs: Tensor[]) => outputs.map(({ name, shape, data }) => [name, shape, [...data]]);
    assert.deepEqual(flat(unwrap(one).outputs), [['z', [1, 2], [-1, 1]]]);
    assert.deepEqual(flat(unwrap(more).outputs), [
      ['y', [2, 2], [1, 2, 3, 5]],
      ['z', [2, 2], [-0.5, 0.5, -1, 1]],
    ]);
    assert.deepEqual(flat(unwrap(last).outputs), [
      ['z', [1, 2], [2, -2]],
      ['y', [1, 2], [8, 4]],
    ]);
    assert.deepEqual(
      [counters.executions - before.executions, counters.inferences - before.inferences],
      [1, 4],
    );
    assert.ok((counters.batches.get(4)?.executions ?? 0) >= 1);
    assert.equal(counters.answered, 11);
    assert.deepEqual(off(stage), []);
  });

  test('equal requests are believed among themselves, and prove nothing about those that differ', async () => {
    const stage = stageFor();
    await stage.serve('rows', rowByRow(), together(4));
    const runsOf = async (requests: Tensor[][]): Promise<number> => {
      const before = stage.host.model('rows')?.counters.executions ?? 0;
      for (const answer of await Promise.all(
        requests.map((inputs) => stage.host.infer('rows', null, { inputs, outputs: ['z'] })),
      ))
        unwrap(answer);
      return (stage.host.model('rows')?.counters.executions ?? 0) - before;
    };
    const equal = Array.from({ length: 4 }, () => row(1, 3));
    assert.deepEqual([await runsOf(equal), await runsOf(equal), await runsOf(equal)], [5, 5, 1]);
    const differing = [row(1, 3), row(1, 3), row(1, 3), row(1, 4)];
    assert.deepEqual([await runsOf(differing), await runsOf(differing), await runsOf(differing)], [5, 5, 1]);
  });

  test('a lone request does not wait longer than the manifest says, nor one of another shape', async () => {
    const stage = stageFor();
    await stage.serve('rows', rowByRow(), { session: { maxBatch: 64, maxDelayMs: 1 } });
    unwrap(await stage.host.infer('rows', null, { inputs: row(1, 3) }));
    assert.equal(stage.host.model('rows')?.counters.executions, 1);
  });

  for (const [what, model, pattern] of [
    ['quantises or normalises over its whole input', inCompany, /depends on those it ran with/],
    ['gives one row for all', oneForAll, /row for each row/],
  ] as const) {
    test(`a model that ${what} is served request by request, and says so once`, async () => {
      const stage = stageFor();
      await stage.serve('mixed', model(), together(2));
      for (let times = 0; times < 3; times++) {
        const [a, b] = [row(1, 3), row(11, 33)];
        const both = await Promise.all([a, b].map((inputs) => stage.host.infer('mixed', null, { inputs })));
        const means = model === inCompany ? [2, 22] : null;
        for (const [index, answer] of both.entries()) {
          const { outputs } = unwrap(answer);
          const input = [a, b][index]?.[0]?.data as Float32Array;
          const z = outputs.find(({ name }) => name === 'z');
          const expected = means === null ? [0, 0] : [...input].map((value) => value - (means[index] ?? 0));
          assert.deepEqual([...(z?.data ?? [])], expected);
        }
      }
      assert.equal(off(stage).length, 1);
      assert.match(String(off(stage)[0]?.fields['reason']), pattern);
    });
  }

  test('a bad request fails alone: those it ran with are answered', async () => {
    const stage = stageFor();
    await stage.serve('reads', reads(), together(3));
    await prove(stage, 'reads', [texts('1'), texts('2'), texts('3.5')]);
    const answers = await Promise.all(
      [texts('7'), texts('seven'), texts('-7')].map((inputs) => stage.host.infer('reads', null, { inputs })),
    );
    const [seven, bad, minus] = answers;
    assert.deepEqual([...(seven?.ok ? (seven.value.outputs[0]?.data ?? []) : [])], [7]);
    assert.equal(bad?.ok === false && bad.refusal.code, 'infer-failed');
    assert.deepEqual([...(minus?.ok ? (minus.value.outputs[0]?.data ?? []) : [])], [-7]);
    const counters = stage.host.model('reads')?.counters;
    assert.deepEqual([counters?.answered, counters?.failed], [8, 1]);
  });

  test('a request that kills the process dies of it alone', { skip: noTrap }, async () => {
    const stage = stageFor();
    await stage.serve('dies', dies(), together(3));
    await prove(stage, 'dies', [whole(4), whole(1), whole(2)]);
    const [a, bad, b] = await Promise.all(
      [whole(4), whole(-1), whole(8)].map((inputs) => stage.host.infer('dies', null, { inputs })),
    );
    assert.deepEqual([...(a?.ok ? (a.value.outputs[0]?.data ?? []) : [])], [-(2 ** 29)]);
    assert.deepEqual([...(b?.ok ? (b.value.outputs[0]?.data ?? []) : [])], [-(2 ** 28)]);
    assert.equal(bad?.ok === false && bad.refusal.code, 'model-crashed');
    assert.equal(stage.host.model('dies')?.restarts.crashed, 2);
  });
});

/** Single rows of a case whose first dimensions are free, with their expected rows. */
function rowsOf(of: ModelCase): { inputs: Tensor[]; expected: Tensor[] }[] {
  const rows = of.inputs[0]?.shape[0] ?? 0;
  const cut = (tensor: Tensor, index: number): Tensor => {
    const per = tensor.data.length / rows;
    const data = tensor.data.slice(index * per, (index + 1) * per);
    return { ...tensor, shape: [1, ...tensor.shape.slice(1)], data };
  };
  return Array.from({ length: Math.min(rows, 32) }, (_, index) => ({
    inputs: of.inputs.map((tensor) => cut(tensor, index)),
    expected: of.expected.map((tensor) => cut(tensor, index)),
  }));
}

describe('dynamic batching of real models', { skip: dataMissing }, () => {
  for (const [name, ...excludeOutputs] of [
    ['sklearn/logreg_iris-150', 'output_probability'],
    ['sklearn/rf_iris-150', 'output_probability'],
    ['sklearn/titanic-nozipmap'],
    ['sklearn/pipeline_lightgbm', 'output_probability'],
    ['sklearn/pipeline_xgboost', 'output_probability'],
  ] as [string, ...string[]][]) {
    test(`${name}: 32 connections get what each would get alone`, async () => {
      const stage = stageFor();
      const of = modelCase(name);
      const all = rowsOf(of);
      const outputs = of.fetch;
      await stage.serve('batched', of.modelPath, {
        excludeOutputs,
        session: { maxBatch: 16, maxDelayMs: 2 },
      });
      await stage.serve('alone', of.modelPath, { excludeOutputs });
      const alone = [];
      for (const { inputs } of all)
        alone.push(unwrap(await stage.host.infer('alone', null, { inputs, outputs })));
      for (let round = 0; round < 4; round++) {
        const answers = await Promise.all(
          all.map(({ inputs }) => stage.host.infer('batched', null, { inputs, outputs })),
        );
        for (const [index, answer] of answers.entries()) {
          const given = unwrap(answer).outputs;
          const { firstFailure } = compareGolden(alone[index]?.outputs ?? [], given, 1e-5, 1e-6);
          assert.equal(firstFailure, null, `row ${index}`);
          const right = compareGolden(all[index]?.expected ?? [], given, of.rtol, of.atol);
          assert.equal(right.firstFailure, null, `row ${index} beside upstream`);
        }
      }
      const counters = stage.host.model('batched')?.counters ?? assert.fail();
      assert.equal(counters.inferences, 4 * all.length);
      if (all.length >= 16)
        assert.ok(
          [...counters.batches.keys()].some((rows) => rows >= 8),
          'they did run together',
        );
      assert.deepEqual(off(stage), []);
    });
  }
});
