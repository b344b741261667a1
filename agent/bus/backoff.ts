// Why: one schedule for everything that is tried again: full jitter, so that a fleet does not come back
// in step. Trusts: Entropy. Must never: give up; a device is left alone for years.

import { limits } from '../../shared/kernel/limits.ts';
import type { Entropy } from '../../shared/kernel/ports.ts';

export interface Backoff {
  /** Delay before the next attempt, milliseconds: uniform up to the doubled base, up to the maximum. */
  nextMs(): number;
  reset(): void;
}

export function createBackoff(
  entropy: Entropy,
  baseMs: number = limits.reconnectBaseMs,
  maxMs: number = limits.reconnectMaxMs,
): Backoff {
  let attempt = 0;
  return {
    nextMs: () => {
      const ceilingMs = Math.min(maxMs, baseMs * 2 ** Math.min(attempt, 30));
      attempt += 1;
      return jitterMs(entropy, ceilingMs);
    },
    reset: () => {
      attempt = 0;
    },
  };
}

/** Uniform in `[0, ceilingMs]`. */
export function jitterMs(entropy: Entropy, ceilingMs: number): number {
  return Math.round((entropy.u32() / 0xffffffff) * ceilingMs);
}
