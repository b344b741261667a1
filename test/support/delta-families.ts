// Why: the real models in families, releases of one net together, for the delta codec's tests and benchmark.
// Trusts: the data folder. Must never: copy a model, or name a pair that is not there.

import { readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { dataFolder } from './data.ts';

const folders: Record<string, string[]> = {
  silero: ['silero-vad/silero-v5.onnx', 'silero-vad/silero-v6.onnx'],
  yolox: [
    ...['yolox-nano/yolox_nano-r2.onnx', 'yolox-nano/yolox_nano-r3.onnx'],
    ...['derived-int8/yolox_nano-r2-int8qdq.onnx', 'derived-int8/yolox_nano-r2-int8qdq-BAD-pertensor.onnx'],
  ],
  ultraface: ['ultraface-rfb320/ultraface-rfb320.onnx', 'derived-int8/ultraface-rfb320-int8qdq.onnx'],
  densenet: [
    'densenet121-synth/densenet121_synth_v1.onnx',
    'densenet121-synth/densenet121_synth_v2_headtuned.onnx',
  ],
  mnist: ['mnist/mnist-opset7.onnx', 'mnist/mnist-opset8.onnx'],
  light: ['light/light_densenet121.onnx', 'light/light_resnet50.onnx', 'light/light_squeezenet.onnx'],
  sklearn: [],
  'sklearn-onnx-upstream': [],
};

/** Paths below the folder of models, by family. */
export function families(): Map<string, string[]> {
  return new Map(
    Object.entries(folders).map(([family, paths]) => {
      const all = (): string[] =>
        readdirSync(dataFolder('models', family))
          .filter((name) => name.endsWith('.onnx'))
          .sort()
          .map((name) => `${family}/${name}`);
      return [family, paths.length > 0 ? paths : all()];
    }),
  );
}

export interface Pair {
  name: string;
  base: string;
  target: string;
}

export const pairOf = (base: string, target: string): Pair => ({
  name: `${basename(base, '.onnx')} → ${basename(target, '.onnx')}`,
  base,
  target,
});

/** Every two of a family, in both directions. */
export function familyPairs(paths: readonly string[]): Pair[] {
  return paths.flatMap((base) =>
    paths.filter((target) => target !== base).map((target) => pairOf(base, target)),
  );
}

export function readModelFile(path: string): Uint8Array {
  return readFileSync(dataFolder('models', path));
}
