// Why: a golden case passes only where the answers are the same within the tolerance it names.
// Trusts: arithmetic. Must never: let a comparison pass because something was missing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  compareGolden,
  type DataFile,
  type GoldenCase,
  goldenDataFiles,
  parseGolden,
  writeGolden,
} from '../../shared/wire/golden.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

const floats = (...values: number[]): Tensor => ({
  name: 'y',
  datatype: 'FP32',
  shape: [values.length],
  data: Float32Array.from(values),
});
const passes = (expected: Tensor, actual: Tensor, rtol = 1e-3, atol = 1e-3): boolean =>
  compareGolden([expected], [actual], rtol, atol).passed;

test('|a−b| ≤ atol + rtol·|b|, with b expected', () => {
  assert.equal(passes(floats(100), floats(100.1), 1e-3, 1e-2), true);
  assert.equal(passes(floats(100), floats(100.2), 1e-3, 1e-2), false);
  assert.equal(passes(floats(0), floats(0.0009)), true);
  assert.equal(passes(floats(0), floats(0.0011)), false);
  // The bound is relative to what is expected, not to what came.
  assert.equal(passes(floats(1), floats(2), 0.5, 0), false);
  assert.equal(passes(floats(2), floats(1), 0.5, 0), true);
});

test('NaN equals NaN only, an infinity equals itself only', () => {
  assert.equal(passes(floats(Number.NaN), floats(Number.NaN)), true);
  assert.equal(passes(floats(Number.NaN), floats(0)), false);
  assert.equal(passes(floats(0), floats(Number.NaN)), false);
  assert.equal(passes(floats(Infinity), floats(Infinity)), true);
  assert.equal(passes(floats(Infinity), floats(-Infinity)), false);
  assert.equal(passes(floats(Infinity), floats(3.4e38)), false);
  assert.equal(passes(floats(1), floats(Infinity)), false);
});

test('integers and strings are exact, whatever the tolerance', () => {
  const longs = (value: bigint): Tensor => ({
    name: 'y',
    datatype: 'INT64',
    shape: [1],
    data: BigInt64Array.of(value),
  });
  assert.equal(passes(longs(2n ** 53n), longs(2n ** 53n + 1n), 1, 1), false);
  assert.equal(passes(longs(5n), longs(5n)), true);
  const text = (value: string): Tensor => ({ name: 'y', datatype: 'BYTES', shape: [1], data: [value] });
  assert.equal(passes(text('tv'), text('banana')), false);
  assert.equal(passes(text('tv'), text('tv')), true);
  const half = (bits: number): Tensor => ({
    name: 'y',
    datatype: 'FP16',
    shape: [1],
    data: Uint16Array.of(bits),
  });
  assert.equal(passes(half(0x3c00), half(0x3c01)), true);
  assert.equal(passes(half(0x3c00), half(0x3d00)), false);
});

test('missing outputs, other shapes and other datatypes fail; further outputs are ignored', () => {
  assert.match(compareGolden([floats(1)], [], 1, 1).firstFailure ?? '', /no such output/);
  assert.match(compareGolden([floats(1)], [floats(1, 1)], 1, 1).firstFailure ?? '', /shape/);
  assert.match(
    compareGolden([floats(1)], [{ ...floats(1), datatype: 'FP64', data: Float64Array.of(1) }], 1, 1)
      .firstFailure ?? '',
    /FP64/,
  );
  assert.equal(compareGolden([floats(1)], [{ ...floats(9), name: 'z' }, floats(1)], 0, 0).passed, true);
  assert.equal(
    compareGolden([floats(1, 2, 3)], [floats(1, 2, 4)], 0, 0).firstFailure,
    'y[2]: is 4, expected 3 (rtol 0, atol 0)',
  );
});

test('cases are written and read back, inline and with data files', () => {
  const cases: GoldenCase[] = [
    {
      inputs: [floats(1, Number.NaN, -Infinity)],
      expected: [{ ...floats(0.1), name: 'a' }],
      rtol: 0,
      atol: 0.5,
      sequence: 's',
    },
    {
      inputs: [{ name: 'sr', datatype: 'INT64', shape: [], data: BigInt64Array.of(16_000n) }],
      expected: [{ name: 'label', datatype: 'BYTES', shape: [2], data: ['a', 'NaN'] }],
      rtol: 1e-3,
      atol: 1e-3,
      sequence: null,
    },
  ];
  const inline = parseGolden(writeGolden(cases), () => null);
  assert.deepEqual(inline, { ok: true, value: cases });
  const dataFiles: DataFile[] = [];
  const bytes = writeGolden(cases, { dataFiles, inlineBytesMax: 8 });
  assert.deepEqual(
    dataFiles.map(({ file }) => file),
    ['golden-0-in-0.bin', 'golden-1-out-0.bin'],
  );
  assert.deepEqual(goldenDataFiles(bytes), { ok: true, value: dataFiles.map(({ file }) => file) });
  const asked: string[] = [];
  const back = parseGolden(bytes, (name) => {
    asked.push(name);
    return dataFiles.find(({ file }) => file === name)?.bytes ?? null;
  });
  assert.deepEqual(back, { ok: true, value: cases });
  assert.equal(asked.length, 2);
});

test('tolerances have defaults, and a file outside the release is never asked for', () => {
  const text =
    '[{"request":{"inputs":[]},"response":{"outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[1]}]}}]';
  const parsed = parseGolden(new TextEncoder().encode(text), () => null);
  assert.ok(parsed.ok);
  assert.deepEqual(
    [parsed.value[0]?.rtol, parsed.value[0]?.atol, parsed.value[0]?.sequence],
    [1e-3, 1e-3, null],
  );
  for (const file of ['../secret', '/etc/passwd', 'a/../../b', '', 'a\\b']) {
    const hostile = text.replace('"data":[1]', `"parameters":{"binary_data_file":${JSON.stringify(file)}}`);
    const refused = parseGolden(new TextEncoder().encode(hostile), () => assert.fail(`asked for ${file}`));
    assert.equal(refused.ok ? 'accepted' : refused.refusal.code, 'golden-malformed');
  }
});

test('a comparison of a tensor with itself passes at no tolerance', () => {
  fc.assert(
    fc.property(fc.array(fc.float()), (values) => {
      assert.equal(passes(floats(...values), floats(...values), 0, 0), true);
    }),
  );
});
