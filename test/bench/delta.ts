// Why: what an update costs in bytes and time as our patch and as general tools' patches, over real releases and made
// ones, and what a rebuild takes of a device's memory. Trusts: nobody's patch before it was applied.
// Must never: compare numbers of two different runs.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../shared/host/clock.ts';
import { systemZstd } from '../../shared/host/zstd.ts';
import { invariant, unwrap } from '../../shared/kernel/errors.ts';
import { applyDelta } from '../../shared/onnx/delta/apply.ts';
import { encodeDelta } from '../../shared/onnx/delta/encode.ts';
import { dataFolder } from '../support/data.ts';
import { families, familyPairs, pairOf } from '../support/delta-families.ts';
import { everyWeightNudged, lastLayerOnly, oneLayerAdded, quantised } from './delta-made.ts';
import { runTool, type ToolName, type ToolResult, toolNames } from './delta-tools.ts';
import { round } from './measure.ts';

/** The promise: bytes as a share of zstd's patch. */
const encodeMBPerSecondMin = 15;
const decodeMBPerSecondMin = 60;
const promised: Record<string, number> = {
  'silero-v5 → silero-v6': 0.91,
  'yolox_nano-r2 → yolox_nano-r3': 0.42,
  'densenet121_synth_v1 → densenet121_synth_v2_headtuned': 0.72,
  'densenet121_synth_v1 → every weight nudged': 0.72,
  'yolox_nano-r2 → yolox_nano-r2-int8qdq': 0.05,
  'ultraface-rfb320 → ultraface-rfb320-int8qdq': 0.05,
};
const smallBytesMax = 64 * 1024;
const headtunedPair = 'densenet121_synth_v1 → densenet121_synth_v2_headtuned';
const largeBytes = 8_000_000;
const rounds = { large: 3, other: 9 };

interface Files {
  name: string;
  base: string;
  target: string;
}

interface Speed {
  p50: number;
  /** The slowest of all rounds, of which there are too few for a percentile. */
  slowest: number;
}

interface Row {
  bytes: number;
  targetBytes: number;
  zstd: ToolResult | null;
  xdelta3: ToolResult | null;
  bsdiff: ToolResult | null;
  ofZstd: number | null;
  promised: number | null;
  encodeMBPerSecond: Speed;
  decodeMBPerSecond: Speed;
}

/** Megabytes a second. */
function speed(bytes: number, times: number, work: () => unknown): Speed {
  const tookMs: number[] = [];
  for (let left = times; left >= 0; left--) {
    const startMs = systemClock.mono();
    work();
    tookMs.push(systemClock.mono() - startMs);
  }
  // The first one compiles.
  const sorted = tookMs.slice(1).sort((a, b) => a - b);
  const at = (index: number): number => round(bytes / 1e3 / (sorted[index] ?? Number.NaN));
  return { p50: at(Math.floor(sorted.length / 2)), slowest: at(sorted.length - 1) };
}

function benchPair({ name, base, target }: Files, folder: string): Row {
  process.stderr.write(`${name}\n`);
  const [from, to] = [readFileSync(base), readFileSync(target)];
  const source = { base: [{ path: 'model.onnx', bytes: from }], target: { path: 'model.onnx', bytes: to } };
  const encode = (): Uint8Array => encodeDelta({ ...source, zstd: systemZstd });
  const patch = encode();
  const apply = (): Uint8Array => unwrap(applyDelta({ patch, bases: [from], zstd: systemZstd }));
  invariant(Buffer.compare(apply(), to) === 0, `${name} is not rebuilt`);
  writeFileSync(join(folder, 'lepton.patch'), patch);
  const run = (tool: ToolName): ToolResult | null => runTool(tool, folder, base, target);
  const zstd = run('zstd');
  const times = to.length > largeBytes ? rounds.large : rounds.other;
  return {
    ...{ bytes: patch.length, targetBytes: to.length, zstd, xdelta3: run('xdelta3'), bsdiff: run('bsdiff') },
    ofZstd: zstd === null ? null : round(patch.length / zstd.bytes),
    promised: promised[name] ?? null,
    // An encoder reads both, a decoder writes one.
    encodeMBPerSecond: speed(from.length + to.length, times, encode),
    decodeMBPerSecond: speed(to.length, times, apply),
  };
}

/** Many short files in one row: bytes of all, and the worst beside zstd. */
function benchSmall(pairs: readonly Files[], folder: string): object {
  const sum = { pairs: 0, bytes: 0, zstd: 0, xdelta3: 0, bsdiff: 0 };
  let worst = { pair: '', bytesAboveZstd: Number.NEGATIVE_INFINITY };
  for (const { name, base, target } of pairs) {
    const [from, to] = [readFileSync(base), readFileSync(target)];
    const patch = encodeDelta({
      base: [{ path: 'model.onnx', bytes: from }],
      target: { path: 'model.onnx', bytes: to },
      zstd: systemZstd,
    });
    sum.pairs += 1;
    sum.bytes += patch.length;
    for (const tool of toolNames) {
      const made = runTool(tool, folder, base, target);
      sum[tool] += made?.bytes ?? Number.NaN;
      const above = patch.length - (made?.bytes ?? Number.NaN);
      if (tool === 'zstd' && above > worst.bytesAboveZstd) worst = { pair: name, bytesAboveZstd: above };
    }
  }
  return { ...sum, worst: { ...worst, promisedMax: 64 } };
}

/** Three runs of a process that only rebuilds; the peak is the greatest. */
function benchRebuild(pair: Files, folder: string): object {
  const source = (path: string): { path: string; bytes: Uint8Array } => ({
    path: 'model.onnx',
    bytes: readFileSync(path),
  });
  const patch = join(folder, 'rebuild.patch');
  writeFileSync(
    patch,
    encodeDelta({ base: [source(pair.base)], target: source(pair.target), zstd: systemZstd }),
  );
  const child = fileURLToPath(new URL('./delta-child.js', import.meta.url));
  const runs = [1, 2, 3].map(
    () =>
      JSON.parse(
        execFileSync(process.execPath, [child, patch, join(folder, 'rebuilt'), pair.base], {
          encoding: 'utf8',
        }),
      ) as { tookMs: number; peakMB: number | null },
  );
  invariant(
    Buffer.compare(readFileSync(join(folder, 'rebuilt')), readFileSync(pair.target)) === 0,
    'not rebuilt',
  );
  return {
    pair: pair.name,
    targetBytes: readFileSync(pair.target).length,
    peakMB: Math.max(...runs.map(({ peakMB }) => peakMB ?? Number.NaN)),
    promisedMaxMB: 180,
    tookMs: runs.map(({ tookMs }) => tookMs),
  };
}

function madePairs(folder: string): Files[] {
  const densenet = 'densenet121-synth/densenet121_synth_v1.onnx';
  const yolox = 'yolox-nano/yolox_nano-r2.onnx';
  const silero = 'silero-vad/silero-v5.onnx';
  const made: [string, string, (model: Uint8Array) => Uint8Array][] = [
    [densenet, 'every weight nudged', everyWeightNudged],
    [densenet, 'quantised', quantised],
    [densenet, 'one layer added', oneLayerAdded],
    [yolox, 'every weight nudged', everyWeightNudged],
    [yolox, 'last layer only', lastLayerOnly],
    [yolox, 'one layer added', oneLayerAdded],
    [silero, 'every weight nudged', everyWeightNudged],
  ];
  return made.map(([base, what, make], index) => {
    const target = join(folder, `made-${index}.onnx`);
    const path = dataFolder('models', base);
    writeFileSync(target, make(readFileSync(path)));
    return { name: pairOf(base, what).name, base: path, target };
  });
}

/**
 * Every pair of real models of one family, in both directions, then the made ones. Some ten minutes, most of them
 * bsdiff's on the large pairs, with seventeen times the file in memory.
 */
export async function benchDelta(): Promise<object> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-delta-'));
  try {
    const real = [...families().values()].flatMap(familyPairs).map(({ name, base, target }) => ({
      ...{ name, base: dataFolder('models', base), target: dataFolder('models', target) },
    }));
    const isSmall = ({ target }: Files): boolean => readFileSync(target).length <= smallBytesMax;
    const made = madePairs(folder);
    const [nudged] = made;
    const headtuned = real.find(({ name }) => name === headtunedPair);
    invariant(nudged !== undefined && headtuned !== undefined, 'the large pairs are there');
    const rows = [...real.filter((pair) => !isSmall(pair)), ...made].map((pair): [string, Row] => [
      pair.name,
      benchPair(pair, folder),
    ]);
    return {
      pairs: Object.fromEntries(rows),
      smallFiles: benchSmall(real.filter(isSmall), folder),
      rebuild: [headtuned, nudged].map((pair) => benchRebuild(pair, folder)),
      missed: rows
        .filter(
          ([, row]) =>
            (row.promised !== null && (row.ofZstd ?? 0) > row.promised) ||
            row.encodeMBPerSecond.p50 < encodeMBPerSecondMin ||
            row.decodeMBPerSecond.p50 < decodeMBPerSecondMin,
        )
        .map(([name]) => name),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
