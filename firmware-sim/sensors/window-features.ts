// Why: what a window says in a few numbers: level, RMS around it and peak of each channel. The demo's models
// compute the same inside their graphs. Trusts: a window's layout (machine.ts). Must never: change without them.

import { channels } from './machine.ts';

export interface WindowFeatures {
  /** Each by channel, in their order. */
  level: number[];
  rms: number[];
  peak: number[];
}

/** Sums in doubles; a runtime's floats agree to about 1e-5 of the value. */
export function windowFeatures(samples: Float32Array): WindowFeatures {
  const rows = samples.length / channels.length;
  const features: WindowFeatures = { level: [], rms: [], peak: [] };
  for (let channel = 0; channel < channels.length; channel += 1) {
    let sum = 0;
    for (let row = 0; row < rows; row += 1) sum += samples[row * channels.length + channel] ?? 0;
    const level = sum / rows;
    let squares = 0;
    let peak = 0;
    for (let row = 0; row < rows; row += 1) {
      const off = (samples[row * channels.length + channel] ?? 0) - level;
      squares += off * off;
      peak = Math.max(peak, Math.abs(off));
    }
    features.level.push(level);
    features.rms.push(Math.sqrt(squares / rows));
    features.peak.push(peak);
  }
  return features;
}
