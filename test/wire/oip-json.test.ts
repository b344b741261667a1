// Why: what a client sends is what the model gets: every number exact or refused.
// Trusts: JSON.parse and the typed arrays as the reference for what both can read. Must never: depend
// on the data folder.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Refusal } from '../../shared/kernel/result.ts';
import {
  encodeInferRequest,
  encodeInferResponse,
  parseInferRequest,
  parseInferResponse,
} from '../../shared/wire/oip-json.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { halfToNumber } from '../../shared/wire/tensors.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const request = (datatype: string, shape: string, data: string): Uint8Array =>
  bytes(`{"inputs":[{"name":"x","shape":${shape},"datatype":"${datatype}","data":${data}}]}`);

function first(body: Uint8Array): Tensor {
  const parsed = parseInferRequest(body);
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.refusal.detail);
  const tensor = parsed.value.inputs[0];
  assert.ok(tensor !== undefined);
  return tensor;
}

function refusal(body: Uint8Array): Refusal {
  const parsed = parseInferRequest(body);
  assert.equal(parsed.ok, false);
  return parsed.ok ? { code: 'internal', detail: '' } : parsed.refusal;
}

test('a text of any float reads as the runtime would read it', () => {
  const decimal = fc
    .tuple(
      fc.boolean(),
      fc.bigInt({ min: 0n, max: 10n ** 21n }),
      fc.nat(25),
      fc.option(fc.integer({ min: -60, max: 30 })),
    )
    .map(([minus, digits, point, exponent]) => {
      const text = digits.toString().padStart(point + 1, '0');
      const cut = text.length - point;
      const plain = point === 0 ? text : `${text.slice(0, cut)}.${text.slice(cut)}`;
      return `${minus ? '-' : ''}${plain}${exponent === null ? '' : `e${exponent}`}`;
    });
  fc.assert(
    fc.property(decimal, (text) => {
      const value = Number(text);
      assert.deepEqual(first(request('FP64', '[1]', `[${text}]`)).data, new Float64Array([value]), text);
      if (Number.isFinite(Math.fround(value))) {
        assert.deepEqual(first(request('FP32', '[1]', `[${text}]`)).data, new Float32Array([value]), text);
      }
    }),
    { numRuns: 3_000 },
  );
});

test('32-bit floats printed with 17 digits, as Python prints them, come back bit by bit', () => {
  fc.assert(
    fc.property(fc.array(fc.float({ noNaN: true, noDefaultInfinity: true })), (values) => {
      const tensor = first(request('FP32', `[${values.length}]`, JSON.stringify(values)));
      assert.deepEqual(tensor.data, new Float32Array(JSON.parse(JSON.stringify(values))));
    }),
    { numRuns: 1_000 },
  );
});

test('texts next to the middle of two 32-bit floats round to the right one', () => {
  const pattern = fc.integer({ min: 0x3000_0000, max: 0x4f00_0000 });
  fc.assert(
    fc.property(pattern, fc.integer({ min: -4, max: 4 }), (bits, step) => {
      const [low = 0, high = 0] = new Float32Array(Uint32Array.of(bits, bits + 1).buffer);
      // The middle is exact in a double; a few of the double's own steps to either side of it.
      const middle = new Float64Array([(low + high) / 2]);
      const steps = new BigInt64Array(middle.buffer);
      steps[0] = (steps[0] ?? 0n) + BigInt(step);
      const value = middle[0] ?? 0;
      for (const text of [value.toPrecision(17), value.toPrecision(19), String(value)]) {
        assert.deepEqual(
          first(request('FP32', '[1]', `[${text}]`)).data,
          Float32Array.of(Number(text)),
          text,
        );
      }
    }),
    { numRuns: 3_000 },
  );
});

test('64-bit integers are exact', () => {
  fc.assert(
    fc.property(fc.array(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })), (values) => {
      assert.deepEqual(
        first(request('INT64', `[${values.length}]`, `[${values.join()}]`)).data,
        BigInt64Array.from(values),
      );
    }),
  );
  assert.deepEqual(
    first(request('INT64', '[1]', '[9007199254740993]')).data,
    BigInt64Array.of(9007199254740993n),
  );
  assert.deepEqual(
    first(request('UINT64', '[1]', '[18446744073709551615]')).data,
    BigUint64Array.of(2n ** 64n - 1n),
  );
  assert.equal(refusal(request('INT64', '[1]', '[1e19]')).code, 'infer-invalid');
  assert.equal(refusal(request('INT64', '[1]', '[9007199254740993.5]')).code, 'infer-invalid');
});

test('nested data is read by rows, and only where it nests as the shape says', () => {
  const tensor = first(request('INT32', '[2,3,1]', '[[[1],[2],[3]],[[4],[5],[6]]]'));
  assert.deepEqual(tensor.data, Int32Array.of(1, 2, 3, 4, 5, 6));
  assert.equal(refusal(request('INT32', '[2,3]', '[[1,2],[3,4],[5,6]]')).code, 'infer-invalid');
  assert.equal(refusal(request('INT32', '[2,2]', '[[1,2],3,4]')).code, 'infer-invalid');
  assert.equal(refusal(request('INT32', '[4]', '[[1,2],[3,4]]')).code, 'infer-invalid');
});

test('tensors of every datatype go to JSON and back', () => {
  const tensors: Tensor[] = [
    {
      name: 'f',
      datatype: 'FP32',
      shape: [6],
      data: Float32Array.of(0.1, -0, 3.4e38, 1e-45, Number.NaN, -Infinity),
    },
    { name: 'd', datatype: 'FP64', shape: [2], data: Float64Array.of(0.1, Infinity) },
    { name: 'h', datatype: 'FP16', shape: [3], data: Uint16Array.of(0x3c00, 0x7c00, 0x0001) },
    { name: 'i', datatype: 'INT64', shape: [1], data: BigInt64Array.of(-(2n ** 63n)) },
    { name: 'u', datatype: 'UINT64', shape: [1], data: BigUint64Array.of(2n ** 64n - 1n) },
    { name: 'b', datatype: 'BOOL', shape: [2], data: Uint8Array.of(1, 0) },
    { name: 's', datatype: 'BYTES', shape: [3], data: ['NaN', '"\\\u0001', '😀'] },
    { name: 'scalar', datatype: 'INT16', shape: [], data: Int16Array.of(-5) },
    { name: 'none', datatype: 'INT8', shape: [0, 3], data: new Int8Array(0) },
    { name: 'w', datatype: 'UINT32', shape: [1], data: Uint32Array.of(2 ** 32 - 1) },
  ];
  const asked = parseInferRequest(
    encodeInferRequest({ id: 'a"b', inputs: tensors, outputs: [{ name: 'y' }] }),
  );
  assert.ok(asked.ok);
  assert.deepEqual(asked.value, { id: 'a"b', inputs: tensors, outputs: [{ name: 'y' }] });
  const answer = { modelName: 'm', modelVersion: '1.0.0', id: '7', outputs: tensors };
  const answered = parseInferResponse(encodeInferResponse(answer));
  assert.ok(answered.ok);
  assert.deepEqual(answered.value, answer);
});

test('what is written is JSON of the protocol', () => {
  const outputs: Tensor[] = [
    { name: 'y', datatype: 'FP32', shape: [1, 3], data: Float32Array.of(0.1, 255, Number.NaN) },
    { name: 'n', datatype: 'INT64', shape: [1], data: BigInt64Array.of(9007199254740993n) },
    { name: 'b', datatype: 'BOOL', shape: [1], data: Uint8Array.of(1) },
  ];
  const text = new TextDecoder().decode(
    encodeInferResponse({ modelName: 'm', modelVersion: '2.0.0', outputs }),
  );
  assert.equal(
    text,
    '{"model_name":"m","model_version":"2.0.0","outputs":[' +
      '{"name":"y","shape":[1,3],"datatype":"FP32","data":[0.1,255,"NaN"]},' +
      '{"name":"n","shape":[1],"datatype":"INT64","data":[9007199254740993]},' +
      '{"name":"b","shape":[1],"datatype":"BOOL","data":[true]}]}',
  );
});

test('every 32-bit float that is printed reads back as itself, for our reader and for any other', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 0xffff_ffff }), { minLength: 1, maxLength: 50 }),
      (patterns) => {
        const any = new Float32Array(Uint32Array.from(patterns).buffer);
        // One NaN for all: which of its many patterns comes back is nobody's promise.
        const data = Float32Array.from(
          Array.from(any, (value) => (Number.isNaN(value) ? Number.NaN : value)),
        );
        const body = encodeInferResponse({
          modelName: 'm',
          modelVersion: '1',
          outputs: [{ name: 'y', datatype: 'FP32', shape: [data.length], data }],
        });
        const ours = parseInferResponse(body);
        assert.ok(ours.ok);
        assert.deepEqual(ours.value.outputs[0]?.data, data);
        const others = JSON.parse(new TextDecoder().decode(body)).outputs[0].data.map(Number);
        assert.deepEqual(new Float32Array(others), data);
      },
    ),
    { numRuns: 2_000 },
  );
  // The range with its own way of writing, and its ends.
  fc.assert(
    fc.property(fc.double({ min: 1e-10, max: 2e7, noNaN: true }), (value) => {
      const data = Float32Array.of(value, -value);
      const body = encodeInferRequest({ inputs: [{ name: 'x', datatype: 'FP32', shape: [2], data }] });
      assert.deepEqual(first(body).data, data);
    }),
    { numRuns: 5_000 },
  );
});

test('half precision is given and answered as numbers', () => {
  const tensor = first(request('FP16', '[3]', '[0.5,-2,1e-7]'));
  assert.deepEqual(Array.from(tensor.data as Uint16Array, halfToNumber), [0.5, -2, 2 * 2 ** -24]);
});

test('hostile bodies are refused with a reason and in bounded memory', () => {
  assert.match(refusal(request('FP32', '[100000000000]', '[1]')).detail, /needs 100000000000 elements/);
  assert.match(refusal(bytes(`{"x":${'['.repeat(100_000)}`)).detail, /nested deeper/);
  assert.match(refusal(request('FP32', '[1]', '['.repeat(100_000))).detail, /nested/);
  assert.match(refusal(bytes(`{"${'k'.repeat(5000)}":1}`)).detail, /key longer/);
  assert.match(refusal(bytes('{"inputs":[{"name":"a\nb"}]}')).detail, /control character/);
  assert.match(refusal(bytes('{"inputs":[{"name":"a\\q"}]}')).detail, /wrong escape/);
  assert.match(refusal(bytes('{"inputs":[{"name":"a')).detail, /without end/);
  assert.match(refusal(bytes('{"inputs":[{"name":"a\\')).detail, /without end/);
  assert.match(refusal(request('BYTES', '[1]', '["a\\u0000b"]')).detail, /NUL/);
  assert.match(
    refusal(bytes('{"inputs":[],"__proto__":{"a":1},"parameters":{"p":null}}')).detail,
    /parameter "p"/,
  );
});

test('no mutation of a valid body makes the parser throw', () => {
  const base = encodeInferRequest({
    id: '1',
    parameters: { p: true },
    inputs: [
      { name: 'x', datatype: 'FP32', shape: [2], data: Float32Array.of(1.5, 2) },
      { name: 's', datatype: 'BYTES', shape: [1], data: ['é'] },
    ],
  });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.nat(base.length),
      (edits, end) => {
        const body = base.slice(0, end === 0 ? base.length : end);
        for (const [at, byte] of edits) if (at < body.length) body[at] = byte;
        const parsed = parseInferRequest(body);
        if (parsed.ok) for (const tensor of parsed.value.inputs) assert.ok(tensor.data.length >= 0);
        else assert.ok(['infer-invalid', 'infer-unsupported'].includes(parsed.refusal.code));
      },
    ),
    { numRuns: 3_000 },
  );
});
