// Why: windows out of a stream of samples: so many at a time, so many further on each time, and what is left over
// waits for more. Trusts: its caller for whole samples. Must never: hold more than a window and what was just given.

import type { TensorData } from '../../shared/wire/tensors.ts';

export type Numbers = Exclude<TensorData, string[]>;

export interface Window {
  /** Index of its first sample in the stream. */
  start: number;
  data: Numbers;
}

export interface Windows {
  /** Whole samples of `channels` numbers each, in order. */
  push(samples: Numbers): Window[];
  /** Samples that wait for a window to become full. */
  waiting(): number;
}

/** An array of the same class: a window of floats is floats. */
export function emptyLike(array: Numbers, length: number): Numbers {
  return new (array.constructor as new (length: number) => Numbers)(length);
}

/** `to[at…]` becomes `from`; both are of one class. */
export function copyInto(to: Numbers, from: Numbers, at: number): void {
  (to as Float64Array).set(from as Float64Array, at);
}

export function createWindows(options: { window: number; hop: number; channels: number }): Windows {
  const { channels } = options;
  const windowLength = options.window * channels;
  const hopLength = options.hop * channels;
  let held: Numbers | null = null;
  /** Numbers to throw away first: a hop may be longer than a window. */
  let skip = 0;
  let start = 0;

  return {
    waiting: () => (held?.length ?? 0) / channels,
    push: (samples) => {
      const cut = Math.min(skip, samples.length);
      skip -= cut;
      const fresh = samples.subarray(cut) as Numbers;
      const before: Numbers = held ?? emptyLike(samples, 0);
      const all = emptyLike(samples, before.length + fresh.length);
      copyInto(all, before, 0);
      copyInto(all, fresh, before.length);
      const windows: Window[] = [];
      let at = 0;
      while (at + windowLength <= all.length) {
        windows.push({ start, data: all.slice(at, at + windowLength) as Numbers });
        at += hopLength;
        start += options.hop;
      }
      if (at > all.length) {
        skip = at - all.length;
        at = all.length;
      }
      held = all.slice(at) as Numbers;
      return windows;
    },
  };
}
