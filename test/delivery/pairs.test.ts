// Why: holds what is encoded against what. Trusts: nothing. Must never: pair files of other roles.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nameOf, pairOf, pairsOf } from '../../registry/delivery/pairs.ts';
import type { FileRole, ReleaseFile } from '../../shared/kernel/releases.ts';

const file = (sha256: string, path: string, role: FileRole): ReleaseFile => ({
  sha256,
  path,
  role,
  bytes: 9_000,
});

test('external data goes with the models that tell what lies in it', () => {
  const before = [file('m1', 'model.onnx', 'model'), file('d1', 'w.bin', 'external-data')];
  const after = [file('m2', 'model.onnx', 'model'), file('d2', 'w.bin', 'external-data')];
  const [model, data] = after;
  assert.ok(model !== undefined && data !== undefined);
  assert.deepEqual(pairOf(data, after, before), {
    target: data,
    bases: [before[1], before[0]],
    beside: [model],
  });
  assert.deepEqual(pairOf(model, after, before), { target: model, bases: [before[0]], beside: [] });
  assert.equal(pairOf(data, after, [file('m1', 'model.onnx', 'model')]), null);
  const names = pairsOf(after, [before, before], () => true).map(nameOf);
  assert.deepEqual(names, ['m2', 'd2', 'm2 m1', 'd2 d1 m1']);
});

test('a file that stayed, or that the device has under another name, is not made', () => {
  const before = [file('m1', 'model.onnx', 'model'), file('g1', 'golden.json', 'golden')];
  const after = [file('m1', 'renamed.onnx', 'model'), file('g2', 'golden.json', 'golden')];
  assert.deepEqual(pairsOf(after, [before], () => true).map(nameOf), ['m1', 'g2', 'g2 g1']);
});
