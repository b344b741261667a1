// Why: the frames between agent and child in whatever pieces a socket hands them over, and what breaks them.
// Trusts: nothing. Must never: depend on a seed that is not printed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAnswer } from '../../agent/inference/answers.ts';
import { createFrameReader, createFrameWriter, type Frame, tensorBytes } from '../../agent/inference/pipe.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

const request = { kind: 'run' as const, outputs: ['y'] };
const tensors: Tensor[] = [
  { name: 'a', datatype: 'UINT8', shape: [3], data: Uint8Array.of(1, 2, 3) },
  { name: 'none', datatype: 'FP64', shape: [0], data: new Float64Array(0) },
  { name: 's', datatype: 'BYTES', shape: [2], data: ['žluť', '"\\\n'] },
  { name: 'f', datatype: 'FP32', shape: [2], data: Float32Array.of(1.5, -2) },
];
const large: Tensor = {
  name: 'l',
  datatype: 'INT32',
  shape: [40_000],
  data: Int32Array.from({ length: 40_000 }, (_, index) => index * 7),
};

function told(frame: Frame): unknown {
  const cut = tensorBytes(frame, null).map(({ head, bytes }) => [
    head.name,
    head.strings,
    Buffer.from(bytes),
  ]);
  return [frame.id, frame.message, cut];
}

test('frames come out as they went in, however the socket cuts them', () => {
  const frames = [tensors, [], [large], [...tensors, large], tensors].map((list, id) =>
    Buffer.concat(createFrameWriter().write(id, request, list)),
  );
  const whole = frames.flatMap((bytes) => createFrameReader().push(bytes).map(told));
  assert.deepEqual(
    whole.map((frame) => (frame as [number])[0]),
    [0, 1, 2, 3, 4],
  );
  assert.deepEqual(
    (whole[3] as [number, unknown, unknown[][]])[2].at(-1)?.[2],
    Buffer.from(new Uint8Array((large.data as Int32Array).buffer)),
  );
  const stream = Buffer.concat(frames);
  const seed = Math.floor(Math.random() * 2 ** 31);
  for (const sizeOf of [() => stream.length, () => 1, () => 8, () => 4096, random(seed)]) {
    const reader = createFrameReader();
    const read: unknown[] = [];
    for (let at = 0; at < stream.length; ) {
      const size = Math.max(1, sizeOf());
      // A copy, as a socket gives it; what was handed out of the one before must not depend on it.
      const chunk = Buffer.from(stream.subarray(at, at + size));
      read.push(...reader.push(chunk).map(told));
      chunk.fill(0xaa);
      at += size;
    }
    assert.deepEqual(read, whole, `seed ${seed}`);
  }
});

/** Mostly a few bytes, at times many. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 0x7fffffff;
    return state % 3 === 0 ? state % 100_000 : state % 64;
  };
}

test('large tensors go where they are put; what has no room stays in the frame', () => {
  const put: Uint8Array[] = [];
  const shared = {
    area: 1,
    put: (bytes: Uint8Array) => (put.length === 0 ? put.push(bytes) * 1_000 : null),
  };
  const [frame] = createFrameReader().push(
    Buffer.concat(
      createFrameWriter().write(7, request, [large, { ...large, name: 'm' }, ...tensors], shared),
    ),
  );
  assert.ok(frame !== undefined);
  assert.deepEqual(
    frame.tensors.map(({ at }) => at),
    [1_000, undefined, undefined, undefined, undefined, undefined],
  );
  assert.equal(frame.area, 1);
  const taken: number[][] = [];
  const bytes = tensorBytes(frame, (at, length) => {
    taken.push([at, length]);
    return new Uint8Array(length);
  });
  assert.deepEqual(taken, [[1_000, 160_000]]);
  assert.deepEqual(Buffer.from(bytes[1]?.bytes ?? []), Buffer.from((large.data as Int32Array).buffer));
  assert.throws(() => tensorBytes(frame, null), /not offered/);
});

test('a frame that lies about its lengths is refused before memory is taken', () => {
  const frame = Buffer.concat(createFrameWriter().write(1, request, tensors));
  const withWord = (at: number, value: number): Buffer => {
    const broken = Buffer.from(frame);
    broken.writeUInt32LE(value, at);
    return broken;
  };
  const push = (bytes: Buffer): Frame[] => createFrameReader(1024 * 1024).push(bytes);
  assert.throws(() => push(withWord(0, 0xffffffff)), /a frame of 4294967295 bytes/);
  assert.throws(() => push(withWord(0, 1024 * 1024 + 1)), /a frame of/);
  assert.throws(() => push(withWord(4, 0)), /header length/);
  assert.throws(() => push(withWord(4, 12)), /header length/);
  assert.throws(() => push(withWord(4, 0x7ffffff8)), /header length/);
  const [read] = push(frame);
  assert.ok(read !== undefined);
  const withHead = (index: number, change: object): Frame => ({
    ...read,
    tensors: read.tensors.map((head, at) => (at === index ? { ...head, ...change } : head)),
  });
  assert.throws(() => tensorBytes(withHead(3, { bytes: 1_000 }), null), /beyond its frame/);
  assert.throws(() => tensorBytes(withHead(3, { bytes: 0 }), null), /belong to no tensor/);
  assert.throws(() => tensorBytes(withHead(0, { bytes: -8 }), null), /without a length/);
  assert.throws(() => tensorBytes(withHead(0, { bytes: 1.5 }), null), /without a length/);
});

test('headers that come again are neither written nor read anew, and never taken for others', () => {
  const vector = (name: string, shape: number[], datatype: 'FP32' | 'INT32' = 'FP32'): Tensor => {
    const length = shape.reduce((count, size) => count * size, 1);
    const data = Float32Array.from({ length }, (_, index) => index + shape.length);
    return datatype === 'FP32'
      ? { name, datatype, shape, data }
      : { name, datatype, shape, data: new Int32Array(data) };
  };
  const messages = [
    { kind: 'run' as const, outputs: ['y'] },
    { kind: 'run' as const, outputs: ['y', 'z'] },
    { kind: 'ran' as const, runMs: 1.25 },
    { kind: 'ran' as const, runMs: 0.5 },
    { kind: 'memory' as const },
    { kind: 'refused' as const, code: 'infer-failed', detail: 'x' },
  ];
  const lists: Tensor[][] = [
    [vector('a', [2, 3])],
    [vector('a', [3, 2])],
    [vector('a', [6])],
    [vector('b', [2, 3])],
    [vector('a', [2, 3], 'INT32')],
    [vector('a', [2, 3]), vector('b', [1])],
    [{ name: 'a', datatype: 'BYTES', shape: [1], data: ['x'] }],
    [{ name: 'a', datatype: 'BYTES', shape: [1], data: ['y'] }],
    [large],
    [],
  ];
  const writer = createFrameWriter();
  const reader = createFrameReader();
  const seed = Math.floor(Math.random() * 2 ** 31);
  const next = random(seed);
  let again = 0;
  let before: Frame | null = null;
  for (let id = 0; id < 5_000; id++) {
    const message = messages[next() % messages.length] ?? { kind: 'memory' as const };
    const list = lists[next() % lists.length] ?? [];
    const [frame] = reader.push(Buffer.concat(writer.write(id, message, list)));
    const [anew] = createFrameReader().push(Buffer.concat(createFrameWriter().write(id, message, list)));
    assert.ok(frame !== undefined && anew !== undefined);
    assert.deepEqual(told(frame), told(anew), `seed ${seed}, frame ${id}`);
    assert.equal(frame.runMs, message.kind === 'ran' ? message.runMs : 0);
    if (before !== null && before.tensors === frame.tensors) again += 1;
    before = frame;
  }
  assert.ok(again > 50, `${again} headers were the same`);
});

test('answers with the same header are as many tensors: who changes one changes no other', () => {
  const writer = createFrameWriter();
  const reader = createFrameReader();
  const list: Tensor[] = [
    { name: 's', datatype: 'BYTES', shape: [2], data: ['a', 'b'] },
    { name: 'f', datatype: 'FP32', shape: [1], data: Float32Array.of(2) },
  ];
  const answer = (id: number): Tensor[] => {
    const [frame] = reader.push(Buffer.concat(writer.write(id, { kind: 'ran', runMs: 1 }, list)));
    assert.ok(frame !== undefined);
    return unwrap(readAnswer(frame, null)).tensors;
  };
  for (const tensor of answer(1)) {
    tensor.shape[0] = 7;
    tensor.data[0] = 'x';
  }
  assert.deepEqual(answer(2), list);
});
