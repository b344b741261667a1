// Why: what a model's process may take of the device's memory, and when it is replaced or ended for it.
// Trusts: measured numbers. Must never: replace a process again and again because it simply needs what it needs.

import { limits } from '../../shared/kernel/limits.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';

const bytesPerMiB = 1024 * 1024;

export interface MemoryLimits {
  /** Over this its process is ended while it serves. */
  servingBytes: number;
  /** And while it loads and is probed: what it takes there is evidence, and judged with all the rest. */
  tryingBytes: number;
}

/** The manifest's limit, else a multiple of what it requires, else a share of the device. */
export function memoryLimits(
  manifest: Pick<Manifest, 'limits' | 'requires'>,
  deviceBytes: number,
): MemoryLimits {
  const tryingBytes = deviceBytes * limits.childMemoryShare;
  const limitMiB = manifest.limits.memoryMiB;
  if (limitMiB !== undefined) return { servingBytes: limitMiB * bytesPerMiB, tryingBytes };
  const { memoryMiB } = manifest.requires;
  if (memoryMiB === undefined) return { servingBytes: tryingBytes, tryingBytes };
  const servingBytes = Math.min(tryingBytes, memoryMiB * bytesPerMiB * limits.childMemoryRequiredFactor);
  return { servingBytes, tryingBytes };
}

export interface RecycleTerms {
  /** Resident bytes over which the process is replaced; null: by its own first size. */
  softBytes: number | null;
  /** Requests after which it is replaced; null: never for that. */
  requests: number | null;
  /** Between two replacements, at least. */
  everyMs: number;
}

export interface Look {
  rssBytes: number;
  /** Over this it is ended. */
  limitBytes: number;
  /** Requests this process has answered. */
  answered: number;
  nowMs: number;
}

export interface MemoryJudge {
  /** A new process serves. */
  renewed(nowMs: number): void;
  look(seen: Look): 'fine' | 'recycle' | 'kill';
}

/** Requests before a process is as large as its work makes it. */
const warmRequests = 50;
/** This near to the limit, a process that has grown is replaced before the limit ends it under somebody's request. */
const nearLimit = 0.9;
const nearGrowth = 1.1;
const nearEvery = 0.1;
const doublingsMax = 6;

/**
 * Judges the processes of one release, one after the other. Each replacement for growth doubles the time to the
 * next: a leak is still met before the limit, and a model that needs its memory is left alone.
 */
export function createMemoryJudge(terms: RecycleTerms): MemoryJudge {
  let sinceMs = 0;
  let replaced = 0;
  let baselineBytes: number | null = null;

  const softBytes = (): number => {
    if (terms.softBytes !== null) return terms.softBytes;
    if (baselineBytes === null) return Number.POSITIVE_INFINITY;
    return Math.max(baselineBytes * limits.recycleGrowth, baselineBytes + limits.recycleGrowthBytesMin);
  };

  return {
    renewed: (nowMs) => {
      sinceMs = nowMs;
      baselineBytes = null;
    },
    look: ({ rssBytes, limitBytes, answered, nowMs }) => {
      if (rssBytes > limitBytes) return 'kill';
      if (baselineBytes === null && answered >= warmRequests) baselineBytes = rssBytes;
      const livedMs = nowMs - sinceMs;
      const hasGrown = baselineBytes !== null && rssBytes > baselineBytes * nearGrowth;
      if (hasGrown && rssBytes > limitBytes * nearLimit && livedMs >= terms.everyMs * nearEvery)
        return 'recycle';
      if (livedMs < terms.everyMs) return 'fine';
      if (terms.requests !== null && answered >= terms.requests) return 'recycle';
      if (rssBytes <= softBytes()) return 'fine';
      if (livedMs < terms.everyMs * 2 ** Math.min(replaced, doublingsMax)) return 'fine';
      replaced += 1;
      return 'recycle';
    },
  };
}
