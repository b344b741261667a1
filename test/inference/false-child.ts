// Why: a program in the place of the inference child that does what a model's native code could make the child do:
// lie about offsets and lengths, die in mid-write, hang. What it does stands in the request's first output name.
// Trusts: the test at descriptor 3. Must never: be reachable from the product.

import { ftruncateSync, readSync, writeSync } from 'node:fs';
import {
  type ChildRequest,
  createFrameReader,
  createFrameWriter,
  type Frame,
  type PartNotice,
  prefixBytes,
  tensorBytes,
} from '../../agent/inference/pipe.ts';
import { openArea, outputsStart, partBytes, windowBytes } from '../../agent/inference/shared-file.ts';
import { type Tensor, tensorFromBytes } from '../../shared/wire/tensors.ts';

const pipe = 3;
const file = 4;

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function write(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(pipe, bytes, at);
}

/** A frame whose header says anything. */
function writeRaw({
  id,
  runMs = 0,
  ...header
}: {
  id: number;
  runMs?: number;
  message: object;
  tensors: object[];
}): void {
  const json = Buffer.from(JSON.stringify(header));
  const headerBytes = Math.ceil(json.length / 8) * 8;
  const frame = Buffer.alloc(prefixBytes + headerBytes, 0x20);
  frame.writeUInt32LE(headerBytes, 0);
  frame.writeUInt32LE(headerBytes, 4);
  frame.writeUInt32LE(id, 8);
  frame.writeUInt32LE(0, 12);
  frame.writeDoubleLE(runMs, 16);
  json.copy(frame, prefixBytes);
  write(frame);
}

const writer = createFrameWriter();

const count = 64 * 1024;
/** Where the outputs of a request's area begin. */
const outputsAt = (frame: Frame): number => outputsStart(frame.area ?? 0);
const head = (at: number, bytes = count): object => ({
  name: 'y',
  datatype: 'UINT8',
  shape: [bytes],
  bytes,
  at,
});
const ran = { kind: 'ran' };

function echo(frame: Frame): void {
  const area = openArea(file, frame.area, (_offset, bytes) => Buffer.allocUnsafeSlow(bytes));
  const tensors = tensorBytes(frame, area?.inputs.take ?? null).map(
    ({ head: { name, datatype, shape }, bytes }): Tensor => {
      const tensor = tensorFromBytes(name, datatype, shape, bytes);
      if (!tensor.ok) throw new Error(tensor.refusal.detail);
      return tensor.value;
    },
  );
  const outputs = area?.outputs;
  const tell = (part: PartNotice): void => writer.write(frame.id, part, []).forEach(write);
  const put = (bytes: Uint8Array): number | null => outputs?.put(bytes, tell) ?? null;
  writer.write(frame.id, { kind: 'ran', runMs: 1 }, tensors, { put }).forEach(write);
}

/** Tells that `ready` bytes of a tensor are there, after it has written them or not. */
function tellPart(frame: Frame, offset: number, bytes: number, ready: number, tensors: object[] = []): void {
  writeRaw({
    id: frame.id,
    message: { kind: 'part', at: outputsAt(frame) + offset, bytes, ready },
    tensors,
  });
}

function writePart(frame: Frame, offset: number, bytes: number): void {
  writeSync(file, Buffer.alloc(partBytes), 0, partBytes, outputsAt(frame) + offset);
  tellPart(frame, offset, bytes, partBytes);
}

const deeds: Record<string, (frame: Frame) => void> = {
  echo,
  slow: (frame) => {
    sleep(200);
    echo(frame);
  },
  hang: () => sleep(600_000),
  die: () => process.kill(process.pid, 'SIGKILL'),
  'die in mid-write': (frame) => {
    writeSync(file, Buffer.alloc(count / 2), 0, count / 2, outputsAt(frame));
    write(Buffer.from([0, 1, 0]));
    process.kill(process.pid, 'SIGKILL');
  },
  'beyond the window': (frame) => {
    const at = outputsAt(frame) + windowBytes - 8;
    writeSync(file, Buffer.alloc(count), 0, count, at);
    writeRaw({ id: frame.id, message: ran, tensors: [head(at)] });
  },
  'another window': (frame) =>
    writeRaw({ id: frame.id, message: ran, tensors: [head(outputsAt(frame) - windowBytes)] }),
  'beyond the file': (frame) => {
    ftruncateSync(file, outputsAt(frame) + count / 2);
    writeRaw({ id: frame.id, message: ran, tensors: [head(outputsAt(frame))] });
  },
  'the same bytes twice': (frame) => {
    writeSync(file, Buffer.alloc(count), 0, count, outputsAt(frame));
    writeRaw({ id: frame.id, message: ran, tensors: [head(outputsAt(frame)), head(outputsAt(frame))] });
  },
  'a part beyond the window': (frame) =>
    tellPart(frame, windowBytes - 8 * partBytes, 8 * partBytes + 1, partBytes),
  'a part of another window': (frame) => tellPart(frame, -windowBytes, 2 * partBytes, partBytes),
  'a part beyond the file': (frame) => {
    ftruncateSync(file, outputsAt(frame));
    tellPart(frame, 0, 2 * partBytes, partBytes);
  },
  'a part of a part': (frame) => tellPart(frame, 0, 2 * partBytes, 8),
  'a part that is more than the whole': (frame) => tellPart(frame, 0, partBytes, 2 * partBytes),
  'the same part twice': (frame) => {
    writePart(frame, 0, 3 * partBytes);
    tellPart(frame, 0, 3 * partBytes, partBytes);
  },
  'parts of tensors that overlap': (frame) => {
    writePart(frame, 0, windowBytes);
    writePart(frame, 8, windowBytes - 8);
  },
  'a part with tensors': (frame) => tellPart(frame, 0, 2 * partBytes, partBytes, [head(outputsAt(frame))]),
  'a negative offset': (frame) => writeRaw({ id: frame.id, message: ran, tensors: [head(-8)] }),
  'half an offset': (frame) =>
    writeRaw({ id: frame.id, message: ran, tensors: [head(outputsAt(frame) + 0.5)] }),
  'an endless length': (frame) =>
    writeRaw({ id: frame.id, message: ran, tensors: [head(outputsAt(frame), Number.MAX_SAFE_INTEGER)] }),
  'bytes that are not there': (frame) => {
    const { name, datatype, shape, bytes } = { name: 'y', datatype: 'UINT8', shape: [8], bytes: 8 };
    writeRaw({ id: frame.id, message: ran, tensors: [{ name, datatype, shape, bytes }] });
  },
  'another id': (frame) => writeRaw({ id: frame.id + 1, message: ran, tensors: [] }),
  'no time': (frame) => writeRaw({ id: frame.id, runMs: Number.NaN, message: ran, tensors: [] }),
  'a negative time': (frame) => writeRaw({ id: frame.id, runMs: -1, message: ran, tensors: [] }),
  'an unknown kind': (frame) => writeRaw({ id: frame.id, message: { kind: 'well' }, tensors: [] }),
  'an unknown datatype': (frame) =>
    writeRaw({
      id: frame.id,
      message: ran,
      tensors: [{ name: 'y', datatype: 'INT4', shape: [0], bytes: 0 }],
    }),
  'a rank of 17': (frame) =>
    writeRaw({
      id: frame.id,
      message: ran,
      tensors: [{ name: 'y', datatype: 'INT8', shape: Array(17).fill(0), bytes: 0 }],
    }),
  'numbers for strings': (frame) =>
    writeRaw({
      id: frame.id,
      message: ran,
      tensors: [{ name: 'y', datatype: 'BYTES', shape: [1], strings: [1] }],
    }),
  'no JSON': () => {
    const frame = Buffer.alloc(prefixBytes + 8, ' ');
    frame.writeUInt32LE(8, 0);
    frame.writeUInt32LE(8, 4);
    frame.write('{]', prefixBytes);
    write(frame);
  },
  'an endless frame': () => write(Buffer.alloc(prefixBytes, 0xff)),
};

const reader = createFrameReader();
const chunk = Buffer.allocUnsafeSlow(64 * 1024);
for (let read = readSync(pipe, chunk); read > 0; read = readSync(pipe, chunk)) {
  for (const frame of reader.push(chunk.subarray(0, read))) {
    const request = frame.message as ChildRequest | PartNotice;
    // It reads the whole at once, when all of it is there.
    if (request.kind === 'part') continue;
    const deed = request.kind === 'run' ? deeds[request.outputs[0] ?? ''] : undefined;
    if (deed === undefined) throw new Error('an unknown deed');
    deed(frame);
  }
}
