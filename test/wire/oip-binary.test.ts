// Why: the same tensors must come out of both forms of a message, whatever is mixed, and no byte may be left over.
// Trusts: fast-check's generators. Must never: depend on the data folder.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import {
  type BinaryMessage,
  binaryHead,
  binaryOutputs,
  encodeBinaryRequest,
  encodeBinaryResponse,
  parseBinaryRequest,
  parseBinaryResponse,
  parseRawInput,
  readJsonLength,
  repeatedRequest,
} from '../../shared/wire/oip-binary.ts';
import {
  encodeInferRequest,
  encodeInferResponse,
  type InferRequest,
  parseInferRequest,
  parseInferResponse,
} from '../../shared/wire/oip-json.ts';
import { type Tensor, tensorFromBytes } from '../../shared/wire/tensors.ts';
import { anyTensor, withoutNanBits } from '../support/tensors.ts';

const datatypes: Datatype[] = [
  ...(['BOOL', 'INT8', 'INT16', 'INT32', 'INT64', 'UINT8', 'UINT16', 'UINT32', 'UINT64'] as const),
  ...(['FP16', 'FP32', 'FP64', 'BYTES'] as const),
];

const shapes = fc.array(fc.nat(4), { maxLength: 4 });

const tensors = fc
  .array(fc.tuple(fc.constantFrom(...datatypes), shapes), { minLength: 1, maxLength: 5 })
  .chain((kinds) =>
    fc.tuple(...kinds.map(([datatype, shape], index) => anyTensor(`t${index}`, datatype, shape))),
  );

const joined = ({ pieces }: BinaryMessage): Buffer => Buffer.concat(pieces);

test('random tensors of every type are the same after JSON, binary and any mixture of both', () => {
  fc.assert(
    fc.property(tensors, fc.nat(31), fc.nat(7), (given, mask, shift) => {
      const isBinary = (name: string): boolean => ((mask >> Number(name.slice(1))) & 1) === 1;
      const request = { id: 'i', inputs: given, outputs: [{ name: 'o', parameters: { binary_data: true } }] };
      const message = encodeBinaryRequest(request, isBinary);
      assert.equal(joined(message).length, message.bytes);
      // At any alignment, as a body lies in a larger buffer.
      const body = Buffer.concat([Buffer.alloc(shift), ...message.pieces]).subarray(shift);
      const read = unwrap(parseBinaryRequest(body, message.jsonBytes));
      assert.deepEqual(read.outputs, request.outputs);
      assert.equal(read.id, 'i');
      for (const [index, tensor] of read.inputs.entries()) {
        const want = given[index];
        assert.ok(want !== undefined);
        if (isBinary(tensor.name)) assert.deepEqual(tensor, want);
        else assert.deepEqual(tensor, withoutNanBits(want));
      }
      const text = unwrap(parseInferRequest(encodeInferRequest(request)));
      assert.deepEqual(text.inputs, given.map(withoutNanBits));

      const response = { modelName: 'm', modelVersion: '1', parameters: { a: true }, outputs: given };
      const answer = encodeBinaryResponse(response, isBinary);
      const back = unwrap(parseBinaryResponse(joined(answer), answer.jsonBytes));
      assert.deepEqual(back.outputs.map(withoutNanBits), given.map(withoutNanBits));
      assert.deepEqual(back.parameters, { a: true });
      const plain = unwrap(parseInferResponse(encodeInferResponse(response)));
      assert.deepEqual(plain.outputs, given.map(withoutNanBits));
    }),
    { numRuns: 300 },
  );
});

test('a request whose JSON is known is read as if it were not, whatever else differs', () => {
  const parameters = fc.constantFrom<Partial<InferRequest>>({}, { parameters: { binary_data_output: true } });
  const outputs = fc.constantFrom<Partial<InferRequest>>(
    {},
    { outputs: [{ name: 'o', parameters: { binary_data: true } }] },
  );
  const edit = fc.record({ at: fc.nat(2_000), byte: fc.nat(255) });
  const change = fc.record({
    edits: fc.array(edit, { maxLength: 2 }),
    cut: fc.integer({ min: -3, max: 3 }),
    split: fc.constantFrom(0, 0, 0, -1, 1),
    shift: fc.nat(7),
  });
  let known = 0;
  let repeated = 0;
  fc.assert(
    fc.property(tensors, parameters, outputs, fc.nat(31), change, (given, one, other, mask, changed) => {
      const message = encodeBinaryRequest(
        { ...one, ...other, inputs: given },
        (name) => mask < 24 || ((mask >> Number(name.slice(1))) & 1) === 1,
      );
      const first = joined(message);
      const head = binaryHead(first, message.jsonBytes, unwrap(parseBinaryRequest(first, message.jsonBytes)));
      if (head === null) return;
      known += 1;
      const body = Buffer.concat([Buffer.alloc(changed.shift), first, Buffer.alloc(3)]).subarray(
        changed.shift,
        changed.shift + first.length + changed.cut * Number(changed.edits.length > 0),
      );
      for (const { at, byte } of changed.edits) if (body.length > 0) body[at % body.length] = byte;
      const jsonBytes = message.jsonBytes + changed.split;
      const again = repeatedRequest(head, body, jsonBytes);
      if (again === null) return;
      repeated += 1;
      assert.deepEqual(again, unwrap(parseBinaryRequest(body, jsonBytes)));
    }),
    { numRuns: 2_000 },
  );
  assert.ok(known > 300 && repeated > 100, `${known} known, ${repeated} read again`);
});

test('what is kept of a request holds none of its numbers, and nothing of it is handed out twice', () => {
  const data = Float32Array.of(1, 2);
  const message = encodeBinaryRequest({ inputs: [{ name: 'x', datatype: 'FP32', shape: [2], data }] });
  const body = joined(message);
  const request = unwrap(parseBinaryRequest(body, message.jsonBytes));
  const head = binaryHead(body, message.jsonBytes, request);
  assert.ok(head !== null);
  const later = Buffer.from(body);
  body.fill(0);
  assert.ok(!JSON.stringify(head).includes('"data":{'));
  const [one, other] = [0, 1].map(() => repeatedRequest(head, later, message.jsonBytes)?.inputs[0]);
  assert.ok(one !== undefined && other !== undefined);
  one.shape.push(7);
  assert.deepEqual(other.shape, [2]);
  assert.deepEqual(repeatedRequest(head, later, message.jsonBytes)?.inputs[0]?.shape, [2]);
});

test('a request is not kept where it holds strings, numbers in its JSON, or a long text', () => {
  const kept = (tensor: Tensor, isBinary: boolean): boolean => {
    const message = encodeBinaryRequest({ inputs: [tensor] }, () => isBinary);
    const request = unwrap(parseBinaryRequest(joined(message), message.jsonBytes));
    return binaryHead(joined(message), message.jsonBytes, request) !== null;
  };
  const floats: Tensor = { name: 'x', datatype: 'FP32', shape: [2], data: Float32Array.of(1, 2) };
  assert.equal(kept(floats, true), true);
  assert.equal(kept(floats, false), false);
  assert.equal(kept({ name: 'x', datatype: 'BYTES', shape: [1], data: ['a'] }, true), false);
  const many = Array.from({ length: 40 }, (_, index): Tensor => ({ ...floats, name: `input ${index}` }));
  const message = encodeBinaryRequest({ inputs: many });
  const request = unwrap(parseBinaryRequest(joined(message), message.jsonBytes));
  assert.equal(binaryHead(joined(message), message.jsonBytes, request), null);
});

test('binary numbers keep every bit: a NaN with a payload, negative zero, half floats', () => {
  const raw = new Uint8Array([1, 0, 0xc0, 0x7f, 0, 0, 0, 0x80]);
  const tensor = unwrap(tensorFromBytes('x', 'FP32', [2], raw));
  const message = encodeBinaryRequest({ inputs: [tensor] });
  const read = unwrap(parseBinaryRequest(joined(message), message.jsonBytes)).inputs[0];
  const data = read?.data as Float32Array;
  assert.deepEqual(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), raw);
  assert.deepEqual(Buffer.from(message.pieces[1] ?? []), Buffer.from(raw));
});

test('numbers are views of the body where it is aligned', () => {
  const message = encodeBinaryRequest({
    inputs: [{ name: 'x', datatype: 'FP32', shape: [4], data: Float32Array.of(1, 2, 3, 4) }],
  });
  const gap = (8 - (message.jsonBytes % 8)) % 8;
  const memory = new Uint8Array(gap + message.bytes);
  const body = memory.subarray(gap);
  body.set(joined(message));
  const read = unwrap(parseBinaryRequest(body, message.jsonBytes)).inputs[0];
  assert.ok(read !== undefined && !Array.isArray(read.data));
  assert.equal(read.data.buffer, memory.buffer);
});

const refusalOf = (result: Result<unknown>): string => (result.ok ? 'accepted' : result.refusal.detail);

test('lengths that do not add up are refused', () => {
  const parse = (tensor: string, tail: number, more = '', jsonBytes?: number): string => {
    const json = Buffer.from(`{"inputs":[${tensor}]${more}}`);
    const body = Buffer.concat([json, Buffer.alloc(tail)]);
    return refusalOf(parseBinaryRequest(body, jsonBytes ?? json.length));
  };
  const x = (parameters: string, shape = '[2]', datatype = 'FP32') =>
    `{"name":"x","shape":${shape},"datatype":"${datatype}","parameters":${parameters}}`;
  assert.equal(parse(x('{"binary_data_size":8}'), 8), 'accepted');
  assert.match(parse(x('{"binary_data_size":8}'), 7), /fewer than 8 bytes/);
  assert.match(parse(x('{"binary_data_size":8}'), 9), /1 bytes behind the JSON/);
  assert.match(parse(x('{"binary_data_size":4}'), 4), /needs 8 bytes, not 4/);
  assert.match(parse(x('{"binary_data_size":-8}'), 8), /whole number/);
  assert.match(parse(x('{"binary_data_size":8.5}'), 8), /whole number/);
  assert.match(parse(x('{"binary_data_size":1e300}'), 8), /whole number/);
  assert.match(parse(x('{"binary_data_size":9007199254740991}'), 8), /fewer than/);
  assert.match(parse(x('{"binary_data_size":"8"}'), 8), /whole number/);
  assert.match(parse(x('{"binary_data_size":true}'), 8), /whole number/);
  assert.match(parse(x('{"binary_data_size":8,"binary_data_size":8}'), 8), /stands twice/);
  assert.match(parse(x('{"binary_data_size":8},"data":[1,2]'), 8), /in the JSON and outside/);
  assert.match(parse(x('{"binary_data_size":8}', '[4294967296,4294967296]'), 8), /overflows/);
  assert.match(parse(x('{}'), 8), /data is missing/);
  assert.match(parse(x('{"binary_data_size":2}', '[2]', 'BOOL'), 2), /accepted/);
  const tensor = x('{"binary_data_size":8}');
  assert.match(parse(tensor, 8, '', 5), /not JSON/);
  assert.match(parse(tensor, 8, '', 1_000_000), /longer than the body/);
  assert.match(parse(tensor, 8, '', Number.MAX_SAFE_INTEGER), /longer than the body/);
  assert.match(refusalOf(parseInferRequest(Buffer.from(`{"inputs":[${tensor}]}`))), /without the header/);
});

test('a BOOL of 2 and strings with wrong lengths, NUL or no UTF-8 are refused', () => {
  const parse = (datatype: string, shape: number[], data: number[]): string => {
    const json = Buffer.from(
      `{"inputs":[{"name":"x","shape":[${shape}],"datatype":"${datatype}","parameters":{"binary_data_size":${data.length}}}]}`,
    );
    return refusalOf(parseBinaryRequest(Buffer.concat([json, Buffer.from(data)]), json.length));
  };
  assert.equal(parse('BOOL', [2], [0, 1]), 'accepted');
  assert.match(parse('BOOL', [2], [0, 2]), /neither 0 nor 1/);
  assert.equal(parse('BYTES', [2], [1, 0, 0, 0, 0x61, 0, 0, 0, 0]), 'accepted');
  assert.match(parse('BYTES', [2], [1, 0, 0, 0, 0x61]), /2 strings/);
  assert.match(parse('BYTES', [1], [2, 0, 0, 0, 0x61]), /1 strings/);
  assert.match(parse('BYTES', [1], [1, 0, 0]), /1 strings/);
  assert.match(parse('BYTES', [1], [0xff, 0xff, 0xff, 0xff, 0x61]), /1 strings/);
  assert.match(parse('BYTES', [1], [1, 0, 0, 0, 0x61, 0x62]), /1 strings/);
  assert.match(parse('BYTES', [1], [1, 0, 0, 0, 0xff]), /1 strings/);
  assert.match(parse('BYTES', [1], [1, 0, 0, 0, 0]), /NUL/);
});

test('a raw body takes its shape from the metadata', () => {
  const signature = (datatype: Datatype, shape: number[]): TensorSignature[] => [
    { name: 'x', datatype, shape },
  ];
  const shapeOf = (result: Result<Tensor>): number[] | string =>
    result.ok ? result.value.shape : result.refusal.detail;
  const raw = (inputs: TensorSignature[], bytes: number) =>
    shapeOf(parseRawInput(new Uint8Array(bytes), inputs));
  assert.deepEqual(raw(signature('FP32', [1, 3]), 12), [1, 3]);
  assert.match(String(raw(signature('FP32', [1, 3]), 8)), /needs 12 bytes/);
  assert.deepEqual(raw(signature('FP32', [-1, 3]), 24), [2, 3]);
  assert.deepEqual(raw(signature('INT64', [-1]), 0), [0]);
  assert.match(String(raw(signature('FP32', [-1, 3]), 25)), /do not fill/);
  assert.match(String(raw(signature('FP32', [-1, 0]), 0)), /do not fill/);
  assert.match(String(raw(signature('FP32', [-1, -1]), 24)), /2 free dimensions/);
  assert.match(String(raw([], 24)), /one input/);
  assert.match(String(raw([...signature('FP32', [1]), ...signature('FP32', [1])], 4)), /one input/);
  const text = parseRawInput(Buffer.from('grün'), signature('BYTES', [-1]));
  assert.deepEqual(unwrap(text), { name: 'x', datatype: 'BYTES', shape: [1], data: ['grün'] });
  assert.match(String(raw(signature('BYTES', [2]), 4)), /more than one string/);
});

test('which outputs come in binary form, and what the header may say', () => {
  const wants = (parameters: object, outputs?: { name: string; parameters?: Record<string, boolean> }[]) => {
    const isBinary = binaryOutputs({
      inputs: [],
      parameters: { ...parameters },
      ...(outputs === undefined ? {} : { outputs }),
    });
    return ['a', 'b'].filter(isBinary);
  };
  assert.deepEqual(wants({}), []);
  assert.deepEqual(wants({ binary_data_output: true }), ['a', 'b']);
  assert.deepEqual(wants({ binary_data_output: true }, [{ name: 'a', parameters: { binary_data: false } }]), [
    'b',
  ]);
  assert.deepEqual(wants({}, [{ name: 'a', parameters: { binary_data: true } }, { name: 'b' }]), ['a']);
  assert.equal(unwrap(readJsonLength(undefined)), null);
  assert.equal(unwrap(readJsonLength('0')), 0);
  assert.equal(unwrap(readJsonLength('17')), 17);
  for (const bad of ['', '-1', '1.5', '1e3', 'x', '0x10', '1, 1', ' 1', '+1', '9'.repeat(40), ['1', '1']])
    assert.equal(readJsonLength(bad).ok, false, String(bad));
});
