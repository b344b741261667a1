// Why: every real model and case by the Open Inference Protocol, through HTTP, host and child.
// Trusts: the data folder's expected values. Must never: skip a case silently or loosen a tolerance.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { AgentHttp } from '../../agent/api/http.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { compareGolden } from '../../shared/wire/golden.ts';
import { encodeInferRequest, parseInferResponse } from '../../shared/wire/oip-json.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { type ModelCase, modelCases, suiteCases } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { openStage, post, type Stage, startHttp } from './staging.ts';

describe('real cases over HTTP', { skip: dataMissing }, () => {
  let stage: Stage;
  let http: AgentHttp;
  before(async () => {
    stage = openStage();
    undo.push(stage.close);
    http = await startHttp(stage);
    undo.push(http.close);
  });
  const undo: (() => Promise<void>)[] = [];
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  /** Outputs that cannot be fetched are excluded by name, as a publisher would after the first refusal. */
  const serve = async (one: ModelCase): Promise<void> => {
    for (const excludeOutputs of [[], ['output_probability'], ['probabilities']]) {
      const release = stage.stage('case', one.modelPath, { excludeOutputs });
      const loaded = await stage.host.load(release);
      if (loaded.ok) return unwrap(await stage.host.activate('case', release.manifestSha256));
      if (loaded.refusal.code !== 'model-output-not-tensor' && loaded.refusal.code !== 'model-invalid')
        unwrap(loaded);
    }
    assert.fail(`${one.name}: could not be loaded`);
  };

  const largest = (tensor: Tensor | undefined): number => {
    const data = Array.from((tensor?.data ?? []) as ArrayLike<number>);
    return data.indexOf(Math.max(...data.slice(0, 100_000)));
  };

  const check = async (one: ModelCase): Promise<void> => {
    const body = encodeInferRequest({
      id: one.name,
      inputs: one.inputs,
      outputs: one.fetch.map((name) => ({ name })),
    });
    const { response, bytes } = await post(`${http.url}/v2/models/case/infer`, body);
    assert.equal(response.status, 200, `${one.name}: ${Buffer.from(bytes).toString('utf8').slice(0, 400)}`);
    const answer = unwrap(parseInferResponse(bytes));
    assert.equal(answer.id, one.name);
    assert.match(answer.modelVersion, /^1\.0\.\d+$/);
    assert.deepEqual(
      answer.outputs.map(({ name }) => name),
      one.fetch,
    );
    if (one.approximate) {
      // int8 kernels differ between processors: the decision must be the same, raw values need not.
      for (const want of one.expected) {
        assert.equal(
          largest(answer.outputs.find(({ name }) => name === want.name)),
          largest(want),
          `${one.name} ${want.name}`,
        );
      }
      return;
    }
    const compared = compareGolden(one.expected, answer.outputs, one.rtol, one.atol);
    assert.equal(compared.firstFailure, null, `${one.name}: ${compared.firstFailure}`);
  };

  const cases = modelCases();
  test('there are cases', () =>
    assert.ok(cases.length >= 15 && suiteCases().length >= 25, `${cases.length}`));
  for (const one of cases) {
    test(one.name, async () => {
      await serve(one);
      await check(one);
      await stage.host.deactivate('case');
    });
  }
  test('every case of scikit-learn’s own suite', async () => {
    let modelPath = '';
    for (const one of suiteCases()) {
      if (one.modelPath !== modelPath) {
        await stage.host.deactivate('case');
        await serve(one);
        modelPath = one.modelPath;
      }
      await check(one);
    }
    await stage.host.deactivate('case');
  });
});
