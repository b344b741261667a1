// Why: bytes and time of a patch beside what any system has at hand: zstd's, xdelta's and bsdiff's patches of the same
// pair in the same run. Trusts: the tools' own sizes. Must never: count a patch that was not applied and compared.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../shared/host/clock.ts';
import { systemZstd as zstd } from '../../shared/host/zstd.ts';
import { applyDelta } from '../../shared/onnx/delta/apply.ts';
import { encodeDelta } from '../../shared/onnx/delta/encode.ts';
import { tensorsOf } from '../../shared/onnx/delta/tensors.ts';
import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { dataFolder } from '../support/data.ts';
import { percentiles, round } from './measure.ts';

/** Rounds of one encoding or decoding: short ones more often. */
const roundsFor = (bytes: number): number => (bytes > 10_000_000 ? 3 : 7);
const secondsMax = 600;

const read = (path: string): Uint8Array => new Uint8Array(readFileSync(dataFolder('models', path)));

/** Numbers from a seed, the same in each run, in [-1, 1). */
function noise(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Every weight a little different, as after one more epoch of training. */
function nudged(model: Uint8Array, share: number): Uint8Array {
  const bytes = model.slice();
  const file = { path: 'model', bytes };
  const draw = noise(7);
  const view = new DataView(bytes.buffer);
  for (const { offset, length, kind } of tensorsOf([file], [file]).apart) {
    if (kind !== 'float32') continue;
    for (let at = offset; at + 4 <= offset + length; at += 4)
      view.setFloat32(at, view.getFloat32(at, true) * (1 + share * draw()), true);
  }
  return bytes;
}

/** The same model with a layer more: protobuf appends a second part of the graph to the first. */
function withLayer(model: Uint8Array): Uint8Array {
  const draw = noise(9);
  const weights = new Float32Array(25_000).map(() => draw() * 0.05);
  const tensor = new ProtobufWriter()
    .int(1, weights.length)
    .int(2, 1)
    .string(8, 'added.weight')
    .bytes(9, new Uint8Array(weights.buffer));
  const node = new ProtobufWriter().string(1, 'added.weight').string(2, 'added.out').string(4, 'Identity');
  const more = new ProtobufWriter().message(7, new ProtobufWriter().message(1, node).message(5, tensor));
  return new Uint8Array(Buffer.concat([model, more.finish()]));
}

/** All weights as int8 with one scale each, symmetrical (ONNX QuantizeLinear): what a converter's file holds of them. */
function quantised(model: Uint8Array): Uint8Array {
  const file = { path: 'model', bytes: model };
  const graph = new ProtobufWriter();
  for (const { name, kind, dims, bytes } of tensorsOf([file], [file]).apart) {
    if (kind !== 'float32') continue;
    const values = new Float32Array(bytes.slice().buffer);
    const scale = Math.fround(values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12) / 127);
    const whole = Int8Array.from(values, (value) => Math.max(-128, Math.min(127, Math.round(value / scale))));
    const quantisedName = `${name}_quantized`;
    const tensor = new ProtobufWriter();
    for (const size of dims) tensor.int(1, size);
    tensor.int(2, 3).string(8, quantisedName).bytes(9, new Uint8Array(whole.buffer));
    const scaleBytes = new Uint8Array(new Float32Array([scale]).buffer);
    const scales = new ProtobufWriter().int(2, 1).string(8, `${name}_scale`).bytes(9, scaleBytes);
    const node = new ProtobufWriter()
      .string(1, quantisedName)
      .string(1, `${name}_scale`)
      .string(2, `${name}_dequantized`)
      .string(4, 'DequantizeLinear');
    graph.message(1, node).message(5, tensor).message(5, scales);
  }
  return new ProtobufWriter().int(1, 8).message(7, graph).finish();
}

interface Pair {
  name: string;
  base: Uint8Array;
  target: Uint8Array;
  /** Of zstd's patch, at most. */
  ratioMax?: number;
}

function pairs(): Pair[] {
  const densenet = read('densenet121-synth/densenet121_synth_v1.onnx');
  const yolox = read('yolox-nano/yolox_nano-r2.onnx');
  const yolox3 = read('yolox-nano/yolox_nano-r3.onnx');
  const [silero5, silero6] = [read('silero-vad/silero-v5.onnx'), read('silero-vad/silero-v6.onnx')];
  const ultraface = read('ultraface-rfb320/ultraface-rfb320.onnx');
  const headTuned = read('densenet121-synth/densenet121_synth_v2_headtuned.onnx');
  const [mnist7, mnist8] = [read('mnist/mnist-opset7.onnx'), read('mnist/mnist-opset8.onnx')];
  const int8 = read('derived-int8/yolox_nano-r2-int8qdq.onnx');
  return [
    { name: 'silero v5 to v6, retrained', base: silero5, target: silero6, ratioMax: 0.91 },
    { name: 'silero v6 to v5', base: silero6, target: silero5 },
    { name: 'yolox r2 to r3, exported again', base: yolox, target: yolox3, ratioMax: 0.42 },
    { name: 'yolox r3 to r2', base: yolox3, target: yolox },
    { name: 'densenet v1 to v2, last tensors', base: densenet, target: headTuned, ratioMax: 0.72 },
    {
      name: 'densenet, every weight nudged by a thousandth',
      base: densenet,
      target: nudged(densenet, 1e-3),
      ratioMax: 0.72,
    },
    {
      name: 'yolox, every weight nudged by a thousandth',
      base: yolox,
      target: nudged(yolox, 1e-3),
      ratioMax: 0.72,
    },
    { name: 'yolox fp32 to int8', base: yolox, target: int8, ratioMax: 0.05 },
    { name: 'yolox int8 to fp32', base: int8, target: yolox },
    {
      name: 'ultraface fp32 to int8',
      base: ultraface,
      target: read('derived-int8/ultraface-rfb320-int8qdq.onnx'),
      ratioMax: 0.05,
    },
    { name: 'yolox, quantised here', base: yolox, target: quantised(yolox), ratioMax: 0.05 },
    { name: 'yolox, a layer more', base: yolox, target: withLayer(yolox) },
    { name: 'mnist opset 7 to 8 (26 KB)', base: mnist7, target: mnist8 },
    { name: 'mnist opset 8 to 7 (26 KB)', base: mnist8, target: mnist7 },
  ];
}

/** Size of the patch that a program makes, and how long it took; null where the program is not there. */
function tool(
  command: string,
  args: string[],
  out: string,
): { bytes: number; tookMs: number } | { error: string } | null {
  if (spawnSync('which', [command]).status !== 0) return null;
  const startMs = systemClock.mono();
  const done = spawnSync(command, args, { timeout: secondsMax * 1_000, stdio: 'ignore' });
  const tookMs = round(systemClock.mono() - startMs);
  if (done.status !== 0 || !existsSync(out)) return { error: `ended with ${done.status ?? done.signal}` };
  return { bytes: statSync(out).size, tookMs };
}

function others(folder: string, base: string, target: string): Record<string, ReturnType<typeof tool>> {
  const out = (name: string): string => join(folder, `patch.${name}`);
  return {
    zstd: tool(
      'zstd',
      ['-q', '-f', '-19', '--ultra', '--long=27', `--patch-from=${base}`, target, '-o', out('zst')],
      out('zst'),
    ),
    xdelta3: tool('xdelta3', ['-f', '-e', '-9', '-s', base, target, out('xd3')], out('xd3')),
    bsdiff: tool('bsdiff', [base, target, out('bs')], out('bs')),
  };
}

function measurePair(folder: string, { name, base, target, ratioMax }: Pair): object {
  const [basePath, targetPath, patchPath] = ['base', 'target', 'patch'].map((part) => join(folder, part)) as [
    string,
    string,
    string,
  ];
  writeFileSync(basePath, base);
  writeFileSync(targetPath, target);
  const rounds = roundsFor(target.length);
  const encodeMs: number[] = [];
  let patch: Uint8Array = new Uint8Array(0);
  for (let at = 0; at < rounds; at += 1) {
    const startMs = systemClock.mono();
    patch = encodeDelta({
      base: [{ path: 'base', bytes: base }],
      target: { path: 'target', bytes: target },
      zstd,
    });
    encodeMs.push(systemClock.mono() - startMs);
  }
  const made = applyDelta({ patch, bases: [base], zstd });
  if (!made.ok || Buffer.compare(made.value, target) !== 0) throw new Error(`${name} does not come back`);
  writeFileSync(patchPath, patch);
  const child = fileURLToPath(new URL('./delta-child.js', import.meta.url));
  const flags = ['--max-semi-space-size=1', '--no-expose-wasm'];
  const said = execFileSync(process.execPath, [...flags, child, patchPath, basePath, String(rounds)]);
  const { timesMs, peakMB } = JSON.parse(said.toString('utf8')) as {
    timesMs: number[];
    peakMB: number | null;
  };
  const beside = others(folder, basePath, targetPath);
  const zstdBytes = beside['zstd'] && 'bytes' in beside['zstd'] ? beside['zstd'].bytes : null;
  const perSecond = (tookMs: number): number => round(target.length / 1e6 / (tookMs / 1_000));
  const [encode, decode] = [percentiles(encodeMs), percentiles(timesMs)];
  return {
    name,
    targetBytes: target.length,
    bytes: patch.length,
    ...beside,
    ofZstd: zstdBytes === null ? null : round(patch.length / zstdBytes),
    ...(ratioMax === undefined ? {} : { ofZstdMax: ratioMax }),
    aboveZstdBytes: zstdBytes === null ? null : patch.length - zstdBytes,
    encodeMBPerSecond: { p50: perSecond(encode.p50Ms), slowest: perSecond(encode.p99Ms) },
    decodeMBPerSecond: { p50: perSecond(decode.p50Ms), slowest: perSecond(decode.p99Ms) },
    rebuildPeakMB: peakMB,
  };
}

export async function benchDelta(): Promise<object> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-delta-'));
  try {
    return { rebuildLimitMB: 180, pairs: pairs().map((pair) => measurePair(folder, pair)) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
