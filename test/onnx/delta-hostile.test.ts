// Why: a patch comes from outside: whatever stands in it, applying it ends with the file or a code, within the memory
// that its header tells. Trusts: a seed for every mutation; LEPTON_FUZZ_SEED repeats a run, LEPTON_DELTA_PATCHES
// makes a longer one. Must never: measure this machine.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemZstd } from '../../shared/host/zstd.ts';
import type { Zstd } from '../../shared/kernel/ports.ts';
import { applyDelta, streamDelta } from '../../shared/onnx/delta/apply.ts';
import { ByteReader, ByteWriter, crc32 } from '../../shared/onnx/delta/bytes.ts';
import { packFrame, unpackFrame } from '../../shared/onnx/delta/frames.ts';
import { type OpenPatch, openPatch, readDeltaHeader, writePatch } from '../../shared/onnx/delta/header.ts';
import { chance } from '../support/chance.ts';
import { float32, modelBytes, rawOf, roundTrip, type Tensor, weights } from './delta-models.ts';

const seed = Number(process.env['LEPTON_FUZZ_SEED'] ?? 7);
const patchesOfEach = Number(process.env['LEPTON_DELTA_PATCHES'] ?? 250);
const memoryBytesMax = 64 * 1024 * 1024;
const limits = { targetBytesMax: 1024 * 1024, memoryBytesMax };
const codes = new Set([
  ...[
    'delta-malformed',
    'delta-unsupported',
    'delta-too-large',
    'delta-base-mismatch',
    'delta-result-mismatch',
  ],
]);

const dims = [40, 100];
const old = weights(1, 4_000);
const bytesOf = (values: Float32Array): number[] => Array.from(values, (value) => Math.round(value * 1e3));
const base = modelBytes([
  float32('a', dims, old),
  float32('b', dims, weights(2, 4_000)),
  float32('t', dims, weights(3, 4_000)),
  float32('q', dims, weights(4, 4_000)),
  float32('c', dims, weights(5, 4_000)),
  { name: 'g', dataType: 7, dims: [500], bytes: rawOf(weights(6, 1_000)) },
]);
const scale = Math.fround(Math.max(...weights(4, 4_000).map(Math.abs)) / 127);
const weights3 = weights(3, 4_000);
const turned = Float32Array.from(
  { length: 4_000 },
  (_, at) => weights3[(at % 40) * 100 + Math.floor(at / 40)] as number,
);
const tensors: Tensor[] = [
  float32(
    'a',
    dims,
    old.map((value) => value * 1.001),
  ),
  float32(
    'b',
    dims,
    weights(2, 4_000).map((value, at) => (at % 1_000 < 70 ? value * 1.01 : value)),
  ),
  float32('t', [100, 40], turned),
  float32('q_scale', [1], Float32Array.of(scale)),
  {
    name: 'q_quantized',
    dataType: 3,
    dims,
    bytes: rawOf(Int8Array.from(weights(4, 4_000), (value) => Math.round(value / scale))),
  },
  float32('new', [50, 60], weights(8, 3_000)),
  { name: 'few', dataType: 3, dims: [2_000], bytes: rawOf(Int8Array.from(bytesOf(weights(9, 2_000)))) },
  {
    name: 'g',
    dataType: 7,
    dims: [525],
    bytes: rawOf(Float32Array.of(...weights(11, 50), ...weights(6, 1_000))),
  },
];
const target = modelBytes(tensors, [
  { operator: 'DequantizeLinear', inputs: ['q_quantized', 'q_scale'], outputs: ['q'] },
]);

/** Refuses to give memory beyond what the limits allow: what a frame declares must have been checked before. */
const boundedZstd: Zstd = {
  compress: systemZstd.compress,
  decompress(frame, into, dictionary) {
    assert.ok(into.length <= memoryBytesMax, `a frame is given ${into.length} bytes`);
    return systemZstd.decompress(frame, into, dictionary);
  },
};

function judge(patch: Uint8Array, wanted: Uint8Array): string {
  let written = 0;
  const done = streamDelta({
    ...{ patch, bases: [base], zstd: boundedZstd, limits },
    sink: (chunk) => (written += chunk.length),
  });
  assert.ok(written <= limits.targetBytesMax, 'nothing is written beyond the file');
  if (!done.ok) {
    assert.ok(codes.has(done.refusal.code), done.refusal.code);
    assert.ok(done.refusal.detail.length < 200);
    if (done.refusal.code === 'delta-base-mismatch') assert.equal(written, 0);
    return done.refusal.code;
  }
  const whole = applyDelta({ patch, bases: [base], zstd: boundedZstd, limits });
  assert.ok(whole.ok);
  // Who forges a digest may make any file; here nobody does.
  assert.equal(Buffer.compare(whole.value, wanted), 0, 'what is called right is right');
  return 'ok';
}

/** One to three changes: a bit, a byte, a cut, a piece repeated, a number made huge. */
function mutated(bytes: Uint8Array, next: () => number): Uint8Array {
  let out = Buffer.from(bytes);
  const changes = 1 + Math.floor(next() * 3);
  for (let change = 0; change < changes && out.length > 0; change++) {
    const at = Math.floor(next() * out.length);
    const to = Math.min(out.length, at + Math.ceil(next() * 12));
    const kind = Math.floor(next() * 6);
    if (kind === 0) out[at] = (out[at] as number) ^ (1 << Math.floor(next() * 8));
    else if (kind === 1) out[at] = Math.floor(next() * 256);
    else if (kind === 2) out = Buffer.concat([out.subarray(0, at), out.subarray(to)]);
    else if (kind === 3) out = Buffer.concat([out.subarray(0, to), out.subarray(at)]);
    else if (kind === 4) out = out.subarray(0, at);
    else
      out = Buffer.concat([out.subarray(0, at), Uint8Array.of(255, 255, 255, 255, 15), out.subarray(at + 1)]);
  }
  return out;
}

function opened(patch: Uint8Array): OpenPatch {
  const open = openPatch(patch);
  assert.ok(open.ok);
  return open.value;
}

const patch = roundTrip(base, target);
const open = opened(patch);
assert.equal(open.form, 'tensors');

/** The patch with one section changed and all checksums right. */
function withSection(index: number, bytes: Uint8Array, plainBytes?: number): Uint8Array {
  const sections = open.sections.map((section, at) =>
    at === index ? { bytes, plainBytes: plainBytes ?? section.plainBytes } : section,
  );
  return writePatch(open.header, open.form, sections);
}

function run(name: string, make: (next: () => number) => Uint8Array, wanted = target): void {
  test(name, () => {
    const seen = new Map<string, number>();
    for (let round = 0; round < patchesOfEach; round++) {
      const made = make(chance(seed * 100_003 + round));
      try {
        const code = judge(made, wanted);
        seen.set(code, (seen.get(code) ?? 0) + 1);
      } catch (error) {
        throw new Error(`LEPTON_FUZZ_SEED=${seed}, round ${round}`, { cause: error });
      }
    }
    assert.ok((seen.get('ok') ?? 0) < patchesOfEach, 'mutations are noticed');
  });
}

run('any bytes of a patch', (next) => mutated(patch, next));

run('the plan, with checksums that fit', (next) => {
  const [section] = open.sections;
  assert.ok(section);
  const plan = new Uint8Array(section.plainBytes);
  unpackFrame(systemZstd, section.bytes, plan);
  const changed = mutated(plan, next);
  return changed.length === 0 ? patch : withSection(0, packFrame(systemZstd, changed, 3), changed.length);
});

run('numbers of one column of the plan', (next) => {
  const [section] = open.sections;
  assert.ok(section);
  const plan = new Uint8Array(section.plainBytes);
  unpackFrame(systemZstd, section.bytes, plan);
  const reader = new ByteReader(plan);
  const columns: Uint8Array[] = [];
  while (reader.left > 0) columns.push(reader.bytes(reader.varint()));
  const chosen = Math.floor(next() * columns.length);
  const out = new ByteWriter();
  for (const [at, column] of columns.entries()) {
    const bytes = at === chosen ? mutated(column, next) : column;
    out.varint(bytes.length).bytes(bytes);
  }
  return withSection(0, packFrame(systemZstd, out.view(), 3), out.length);
});

run('the skeleton, with checksums that fit', (next) =>
  withSection(1, mutated(open.sections[1]?.bytes ?? patch, next)),
);

run('a group, with checksums that fit', (next) =>
  withSection(2, mutated(open.sections[2]?.bytes ?? patch, next)),
);

run('the directory, with checksums that fit', (next) => {
  const sections = open.sections.map(({ bytes, plainBytes }) => ({
    bytes,
    plainBytes: next() < 0.5 ? plainBytes : Math.floor(plainBytes * next() * 3),
  }));
  const order = next() < 0.3 ? sections.reverse() : sections;
  const huge = next() < 0.2 ? 2 ** 50 : open.header.target.bytes - Math.floor(next() * 3);
  return writePatch({ ...open.header, target: { ...open.header.target, bytes: huge } }, open.form, order);
});

const text = Buffer.from('no model at all, '.repeat(300));
const single = roundTrip(base, text);

run(
  'a file in one piece, with a checksum that fits',
  (next) => {
    const changed = Buffer.from(mutated(single.subarray(0, single.length - 4), next));
    return Buffer.concat([changed, new ByteWriter().uint32(crc32(changed)).view()]);
  },
  text,
);

test('the header of any bytes is read or refused', () => {
  for (let round = 0; round < patchesOfEach * 4; round++) {
    const next = chance(seed * 7 + round);
    const header = readDeltaHeader(mutated(round % 2 === 0 ? patch : single, next));
    if (!header.ok) assert.ok(codes.has(header.refusal.code));
  }
  for (let length = 0; length < 200; length++) {
    const cut = readDeltaHeader(patch.subarray(0, length));
    assert.equal(cut.ok ? '' : cut.refusal.code, 'delta-malformed');
  }
});

test('a later version is told from damage', () => {
  const later = patch.slice();
  later[3] = 2;
  const header = readDeltaHeader(later);
  assert.equal(header.ok ? '' : header.refusal.code, 'delta-unsupported');
});
