// Why: what is known of a release outlives its processes and its place in memory: its counts, and how often it died.
// Trusts: the host's keys. Must never: grow with every release that was ever here.

import { limits } from '../../shared/kernel/limits.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { type Refusal, refuse } from '../../shared/kernel/result.ts';
import { type CountersWriter, createCounters } from './counters.ts';
import { type CrashHistory, createCrashHistory } from './crash-loop.ts';

export interface ReleaseHistory {
  counters: CountersWriter;
  crashes: CrashHistory;
}

export interface Histories {
  of(key: string): ReleaseHistory;
  /** What a load that failed amounts to: a release that dies again and again there is as bad as one in service. */
  loadFailed(key: string, refusal: Refusal): { ok: false; refusal: Refusal };
}

/** Releases that are remembered, newest last. */
const rememberedMax = 32;

export function createHistories(clock: Clock): Histories {
  const all = new Map<string, ReleaseHistory>();
  const of = (key: string): ReleaseHistory => {
    const known = all.get(key);
    const { crashLoopDeaths: deaths, crashLoopWindowMs: windowMs } = limits;
    const history = known ?? {
      counters: createCounters(),
      crashes: createCrashHistory({ deaths, windowMs }),
    };
    all.delete(key);
    all.set(key, history);
    for (const oldest of all.keys()) {
      if (all.size <= rememberedMax) break;
      all.delete(oldest);
    }
    return history;
  };
  return {
    of,
    loadFailed: (key, refusal) => {
      const { code, detail } = refusal;
      if (code !== 'model-crashed' && code !== 'model-memory-exceeded') return { ok: false, refusal };
      const { crashes } = of(key);
      crashes.died(clock.mono(), 0);
      if (!crashes.looping(clock.mono())) return { ok: false, refusal };
      return refuse('model-crash-loop', `${code}: ${detail}`);
    },
  };
}
