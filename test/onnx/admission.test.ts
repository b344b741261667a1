// Why: what cannot be served is refused before it is loaded, each kind with its own code; what can be
// served is admitted.
// Trusts: the real models of the data folder as examples of both. Must never: load a model here; the
// inference host's tests do that.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { modelCases, suiteCases } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { graph, type ModelSpec, modelFile } from './models.ts';

interface Given {
  excludeOutputs?: string[];
  externalFiles?: Record<string, number>;
}

function judge(bytes: Uint8Array, given: Given = {}): string {
  const result = admitModel(bytes, {
    excludeOutputs: given.excludeOutputs ?? [],
    externalFiles: new Map(Object.entries(given.externalFiles ?? {})),
    opsetMax: opsetMaxDefault,
    memoryBounds: [],
  });
  return result.ok ? 'accepted' : result.refusal.code;
}
const judgeMade = (spec: ModelSpec, given: Given = {}): string => judge(modelFile(spec), given);
const negative = (name: string): Uint8Array => new Uint8Array(readFileSync(dataFolder('negative', name)));

test('a plain model is admitted with its signature', () => {
  const result = admitModel(
    modelFile({
      inputs: [{ name: 'x', elemType: 10, shape: [1, 'n'] }],
      outputs: [{ name: 'y', elemType: 8 }],
    }),
    { excludeOutputs: [], externalFiles: new Map(), opsetMax: opsetMaxDefault, memoryBounds: [] },
  );
  assert.ok(result.ok);
  assert.deepEqual(result.value.inputs, [{ name: 'x', datatype: 'FP16', shape: [1, -1] }]);
  assert.deepEqual(result.value.outputs, [{ name: 'y', datatype: 'BYTES', shape: [] }]);
  assert.equal(result.value.opset, 17);
});

test('4-bit and 2-bit outputs are refused, excluded or not', () => {
  for (const elemType of [21, 22, 23, 25, 26]) {
    const outputs = [
      { name: 'y', elemType: 1, shape: [1] },
      { name: 'packed', elemType, shape: [1] },
    ];
    assert.equal(judgeMade({ outputs }), 'model-int4-output');
    assert.equal(judgeMade({ outputs }, { excludeOutputs: ['packed'] }), 'model-int4-output');
  }
});

test('outputs that are no tensors must be excluded', () => {
  const outputs = [
    { name: 'label', elemType: 7, shape: [1] },
    { name: 'probabilities', kindField: 4 },
  ];
  assert.equal(judgeMade({ outputs }), 'model-output-not-tensor');
  assert.equal(judgeMade({ outputs }, { excludeOutputs: ['probabilities'] }), 'accepted');
  assert.equal(judgeMade({ outputs }, { excludeOutputs: ['probabilities', 'typo'] }), 'model-invalid');
  assert.equal(judgeMade({ outputs }, { excludeOutputs: ['label', 'probabilities'] }), 'model-invalid');
  assert.equal(judgeMade({ outputs: [{ name: 'untyped' }] }), 'model-output-not-tensor');
});

test('types that the protocol has no name for are refused', () => {
  for (const elemType of [0, 14, 15, 16, 17, 24, 99]) {
    assert.equal(judgeMade({ inputs: [{ name: 'x', elemType, shape: [1] }] }), 'model-type-unsupported');
    assert.equal(judgeMade({ outputs: [{ name: 'y', elemType, shape: [1] }] }), 'model-type-unsupported');
  }
  assert.equal(judgeMade({ inputs: [{ name: 'x', kindField: 4 }] }), 'model-type-unsupported');
});

test('operators of other domains are refused wherever they hide', () => {
  const custom = { opType: 'Magic', domain: 'com.example' };
  const opsets: [string, number][] = [
    ['', 17],
    ['com.example', 1],
  ];
  assert.equal(judgeMade({ opsets, nodes: [custom] }), 'model-custom-operator');
  assert.equal(
    judgeMade({ opsets, nodes: [{ opType: 'If', graphs: [graph({ nodes: [custom] })] }] }),
    'model-custom-operator',
  );
  assert.equal(judgeMade({ opsets, nodes: [] }), 'accepted', 'an import alone does no harm');
  const functions = [{ name: 'Magic', domain: 'com.example', nodes: [{ opType: 'Relu' }] }];
  assert.equal(
    judgeMade({ opsets, nodes: [custom], functions }),
    'accepted',
    'a function of the model itself',
  );
  const nested = [
    { name: 'Magic', domain: 'com.example', nodes: [{ opType: 'Other', domain: 'com.example' }] },
  ];
  assert.equal(judgeMade({ opsets, nodes: [custom], functions: nested }), 'model-custom-operator');
  for (const domain of ['ai.onnx', 'ai.onnx.ml', 'com.microsoft']) {
    assert.equal(judgeMade({ nodes: [{ opType: 'X', domain }] }), 'accepted', domain);
  }
});

test('opsets and IR versions beyond the runtime are refused', () => {
  assert.equal(judgeMade({ opsets: [['', opsetMaxDefault]] }), 'accepted');
  assert.equal(judgeMade({ opsets: [['', opsetMaxDefault + 1]] }), 'model-opset-too-new');
  assert.equal(judgeMade({ opsets: [['ai.onnx', 99]] }), 'model-opset-too-new');
  assert.equal(
    judgeMade({
      opsets: [
        ['', 17],
        ['ai.onnx.ml', 6],
      ],
    }),
    'model-opset-too-new',
  );
  assert.equal(judgeMade({ irVersion: 14 }), 'model-opset-too-new');
  assert.equal(judgeMade({ opsets: [['', 0]] }), 'model-invalid');
});

test('external data must be in the release', () => {
  const initializers = [{ name: 'w', dataType: 1, dims: [1], external: { location: 'weights/w.bin' } }];
  assert.equal(judgeMade({ initializers }), 'model-external-data-missing');
  assert.equal(judgeMade({ initializers }, { externalFiles: { 'w.bin': 4 } }), 'model-external-data-missing');
  assert.equal(judgeMade({ initializers }, { externalFiles: { 'weights/w.bin': 4 } }), 'accepted');
});

test('two outputs of one name are refused', () => {
  const output = { name: 'y', elemType: 1, shape: [1] };
  assert.equal(judgeMade({ outputs: [output, output] }), 'model-invalid');
});

test('the negative models of the data folder', { skip: dataMissing }, () => {
  assert.equal(judge(negative('aborts-process_test_cast_FLOAT_to_INT4.onnx')), 'model-int4-output');
  assert.equal(judge(negative('lfs-pointer_openwakeword.onnx')), 'model-not-onnx');
  assert.equal(
    judge(negative('missing-external-data_silero_op18_ifless.onnx')),
    'model-external-data-missing',
  );
  assert.equal(judge(negative('zipmap-output_rf_iris.onnx')), 'model-output-not-tensor');
  const blowup = admitModel(negative('ram-blowup_light_vgg19.onnx'), {
    excludeOutputs: [],
    externalFiles: new Map(),
    opsetMax: opsetMaxDefault,
    memoryBounds: [],
  });
  assert.ok(blowup.ok);
  // It takes 963 MiB; 548 of them are its tensors.
  const estimateMiB = blowup.value.memoryBytesEstimate / 2 ** 20;
  assert.ok(estimateMiB > 545 && estimateMiB < 560, `${estimateMiB} MiB`);
});

test('every model with a case is admitted once what it does not fetch is excluded', {
  skip: dataMissing,
}, () => {
  const cases = [...modelCases(), ...suiteCases()];
  assert.ok(new Set(cases.map(({ modelPath }) => modelPath)).size > 40);
  const seen = new Set<string>();
  for (const { name, modelPath, inputs, fetch } of cases) {
    if (seen.has(modelPath)) continue;
    seen.add(modelPath);
    const bytes = new Uint8Array(readFileSync(modelPath));
    const bare = admitModel(bytes, {
      excludeOutputs: [],
      externalFiles: new Map(),
      opsetMax: opsetMaxDefault,
      memoryBounds: [],
    });
    let admitted = bare;
    if (!bare.ok) {
      assert.equal(bare.refusal.code, 'model-output-not-tensor', name);
      const excluded = /the output (\S+) is/.exec(bare.refusal.detail)?.[1] ?? '';
      assert.ok(!fetch.includes(excluded), name);
      admitted = admitModel(bytes, {
        excludeOutputs: [excluded],
        externalFiles: new Map(),
        opsetMax: opsetMaxDefault,
        memoryBounds: [],
      });
    }
    assert.ok(admitted.ok, name);
    assert.deepEqual(
      admitted.value.inputs.map((input) => [input.name, input.datatype]),
      inputs.map((input) => [input.name, input.datatype]),
      name,
    );
  }
});

test('ONNX’s own backend tests: all but the sequences are admitted', { skip: dataMissing }, () => {
  const folder = dataFolder('conformance', 'subset');
  const outcomes = new Map<string, string>();
  for (const name of readdirSync(folder)) {
    outcomes.set(name, judge(new Uint8Array(readFileSync(join(folder, name, 'model.onnx')))));
  }
  const refused = [...outcomes].filter(([, outcome]) => outcome !== 'accepted');
  assert.equal(outcomes.size, 36);
  assert.deepEqual(refused.sort(), [
    ['test_identity_sequence', 'model-output-not-tensor'],
    ['test_sequence_insert_at_back', 'model-output-not-tensor'],
  ]);
});
