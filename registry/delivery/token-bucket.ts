// Why: so many bytes a second and no more, with a little at once: what a line is promised to others.
// Trusts: its caller for the time. Must never: read a clock, or let a large piece starve behind small ones.

export interface TokenBucket {
  /**
   * Takes the bytes and tells after how many milliseconds they may go. What is taken beyond what is there is a debt
   * that those behind wait for, so that the order of taking is the order of going.
   */
  take(bytes: number, nowMs: number): number;
}

/** `burstBytes`: what may go at once after a pause. Null where there is no limit (0). */
export function tokenBucket(bytesPerSecond: number, burstBytes: number): TokenBucket | null {
  if (bytesPerSecond <= 0) return null;
  let tokens = burstBytes;
  let atMs: number | null = null;
  return {
    take(bytes, nowMs) {
      const passedMs = atMs === null ? 0 : Math.max(0, nowMs - atMs);
      tokens = Math.min(burstBytes, tokens + (passedMs * bytesPerSecond) / 1_000) - bytes;
      atMs = nowMs;
      return tokens >= 0 ? 0 : Math.ceil((-tokens * 1_000) / bytesPerSecond);
    },
  };
}
