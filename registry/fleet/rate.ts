// Why: what one device may ask of the registry, counted for each device alone: a token bucket.
// Trusts: the clock port. Must never: grow with the number of names that strangers think of.

import type { Clock } from '../../shared/kernel/ports.ts';

export interface Rate {
  /** Whether one more is within bounds; counts it where it is. */
  admit(key: string): boolean;
}

export function createRate(
  clock: Clock,
  bounds: { burst: number; perSecond: number; keysMax: number },
): Rate {
  const { burst, perSecond, keysMax } = bounds;
  /** The longest silent first. */
  const buckets = new Map<string, { tokens: number; atMs: number }>();
  return {
    admit(key) {
      const now = clock.mono();
      const known = buckets.get(key) ?? { tokens: burst, atMs: now };
      const tokens = Math.min(burst, known.tokens + ((now - known.atMs) / 1_000) * perSecond);
      buckets.delete(key);
      buckets.set(key, { tokens: tokens < 1 ? tokens : tokens - 1, atMs: now });
      const oldest = buckets.keys().next();
      if (buckets.size > keysMax && oldest.done !== true) buckets.delete(oldest.value);
      return tokens >= 1;
    },
  };
}
