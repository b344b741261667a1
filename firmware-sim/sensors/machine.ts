// Why: a machine that wears out, as its three sensors see it: what the demo's models look at.
// Trusts: nothing. Must never: read a clock or real randomness; one seed is one life.
//
// A shaft in two bearings under a load that wanders. Wear (0 new, 1 broken) grows by friction: the
// temperature rises, the current a little, the shaft's second harmonic grows, and a damaged bearing adds
// short knocks. Load and weather move temperature and current as well, so that their means alone mislead.

import { createNoise } from './noise.ts';

export const channels = ['temperatureC', 'vibrationMmS', 'currentA'] as const;
export type Channel = (typeof channels)[number];
export const regimes = ['healthy', 'worn', 'failing'] as const;
export type Regime = (typeof regimes)[number];

/** Half a second of signal. */
export const windowSamples = 64;
export const sampleRateHz = 128;

const wornFrom = 0.4;
const failingFrom = 0.75;
const shaftHz = 24.5;
const knocksHz = 11;
/** A knock rings this long in the housing. */
const knockDecayMs = 18;
/** Windows in a day of weather: one window a minute. */
const dayWindows = 1_440;
/** The housing takes this part of the way to its final temperature from one window to the next. */
const warming = 0.08;

export interface MachineOptions {
  seed: number;
  /** 0 new to 1 broken. Default 0. */
  wear?: number;
  /** Default 0: the machine stays as it is. A broken machine is repaired and starts anew. */
  wearPerWindow?: number;
}

export interface MachineWindow {
  /** Counts from 0. */
  index: number;
  /** `windowSamples` rows of one value for each channel, row by row. */
  samples: Float32Array;
  wear: number;
  /** The truth that a model is to find. */
  regime: Regime;
}

export interface Machine {
  /** The next window of its life. */
  window(): MachineWindow;
}

export function regimeOf(wear: number): Regime {
  if (wear < wornFrom) return 'healthy';
  return wear < failingFrom ? 'worn' : 'failing';
}

const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

export function createMachine(options: MachineOptions): Machine {
  const noise = createNoise(options.seed);
  const wearPerWindow = options.wearPerWindow ?? 0;
  let wear = clamp(options.wear ?? 0, 0, 1);
  let load = 0.4 + 0.5 * noise.uniform();
  let index = 0;
  const dayOffset = noise.uniform() * dayWindows;
  const warmTo = (): number => {
    const weather = 22 + 6 * Math.sin((2 * Math.PI * (index + dayOffset)) / dayWindows);
    return weather + 16 + 14 * load + 22 * wear ** 1.5;
  };
  let housingC = warmTo();

  const vibration = (): Float64Array => {
    const signal = new Float64Array(windowSamples);
    const phase = 2 * Math.PI * noise.uniform();
    const shaft = 1.2 + 0.5 * load + 0.4 * wear;
    const harmonic = 0.3 + 1.6 * wear;
    const hiss = 0.25 + 0.3 * wear;
    for (let at = 0; at < windowSamples; at += 1) {
      const angle = (2 * Math.PI * shaftHz * at) / sampleRateHz + phase;
      signal[at] = shaft * Math.sin(angle) + harmonic * Math.sin(2 * angle + 0.7) + hiss * noise.normal();
    }
    const knock = 7 * Math.max(0, wear - 0.3) ** 1.2;
    const period = sampleRateHz / knocksHz;
    for (let start = noise.uniform() * period; start < windowSamples; start += period) {
      const strength = knock * (0.7 + 0.6 * noise.uniform());
      for (let at = Math.ceil(start); at < windowSamples; at += 1) {
        const sinceMs = ((at - start) * 1_000) / sampleRateHz;
        if (sinceMs > 5 * knockDecayMs) break;
        signal[at] =
          (signal[at] ?? 0) + strength * Math.exp(-sinceMs / knockDecayMs) * (at % 2 === 0 ? 1 : -1);
      }
    }
    return signal;
  };

  return {
    window: () => {
      // The load wanders around its middle and stays within what the motor can do.
      load = clamp(load + 0.06 * (0.65 - load) + 0.05 * noise.normal(), 0.25, 1);
      housingC += warming * (warmTo() - housingC);
      const samples = new Float32Array(windowSamples * channels.length);
      const shaking = vibration();
      const drawn = 7.5 + 9 * load + 1.2 * wear;
      for (let at = 0; at < windowSamples; at += 1) {
        const ripple = 0.4 * Math.sin((2 * Math.PI * 2 * shaftHz * at) / sampleRateHz);
        samples.set(
          [housingC + 0.25 * noise.normal(), shaking[at] ?? 0, drawn + ripple + 0.15 * noise.normal()],
          at * channels.length,
        );
      }
      const made: MachineWindow = { index, samples, wear, regime: regimeOf(wear) };
      index += 1;
      wear += wearPerWindow;
      if (wear > 1) {
        // The fitter came: new bearings, and the housing has cooled down meanwhile.
        wear = 0;
        housingC = warmTo();
      }
      return made;
    },
  };
}
