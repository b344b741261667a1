// Why: joules of each release that answered in a window: measured where the processor counts them, else by the model
// that the manifest names, else unknown. Trusts: the kernel's counters for what they count.
// Must never: give a number without its method.

import type { Clock, Power } from '../../shared/kernel/ports.ts';
import {
  type EnergyMethod,
  type EnergyModel,
  type EnergyStats,
  energySources,
} from '../../shared/wire/energy.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';

export interface EnergyMeter {
  answered(as: string, releaseId: string, model: EnergyModel | undefined): void;
  /** The CPU time of a process of the release is looked at now, and at the end of every window until it is let go. */
  follow(as: string, releaseId: string, pid: number): { look(): void; end(): void };
  /** Of the window that ends now; a release that answered nothing has no record. */
  take(): TelemetryRecord[];
}

interface Followed {
  pid: number;
  key: string;
  lastMs: number | null;
}

interface Answering {
  as: string;
  releaseId: string;
  model: EnergyModel | undefined;
  requests: number;
}

/** What was used between two windows: counters only ever grow. */
interface Machine {
  joules: number | null;
  busyMs: number | null;
}

const difference = (now: number | null, before: number | null): number | null =>
  now === null || before === null ? null : Math.max(0, now - before);

/** Joules of a release and how they were found. Pure. */
export function energyOf(facts: {
  used: Machine;
  cpuMs: number | null;
  model: EnergyModel | undefined;
  requests: number;
}): { method: EnergyMethod; joules: number | null } {
  const { used, cpuMs, model, requests } = facts;
  if (used.joules !== null && used.busyMs !== null && cpuMs !== null) {
    // The counters are read one after the other: a share of a little more than all of it is all of it.
    const share = used.busyMs === 0 ? 0 : Math.min(1, cpuMs / used.busyMs);
    return { method: 'rapl', joules: used.joules * share };
  }
  if (model?.model === 'cpu-time' && cpuMs !== null)
    return { method: 'cpu-time', joules: (model.wattsPerCore * cpuMs) / 1_000 };
  if (model?.model === 'per-request') return { method: 'per-request', joules: model.joules * requests };
  return { method: 'none', joules: null };
}

const rounded = (value: number | null): number | null =>
  value === null ? null : Math.round(value * 1e6) / 1e6;

export function createEnergyMeter(parts: { clock: Clock; power: Power }): EnergyMeter {
  const { clock, power } = parts;
  const followed = new Set<Followed>();
  const answering = new Map<string, Answering>();
  /** Of the window so far, by release; also of processes that have ended in it. */
  const cpuMs = new Map<string, number>();
  const keyOf = (as: string, releaseId: string): string => `${as} ${releaseId}`;
  const machine = (): Machine => ({ joules: power.joules(), busyMs: power.busyMs() });
  let sinceMs = clock.mono();
  let before = machine();

  function look(one: Followed): void {
    const nowMs = power.cpuMs(one.pid);
    const moreMs = difference(nowMs, one.lastMs);
    if (moreMs !== null) cpuMs.set(one.key, (cpuMs.get(one.key) ?? 0) + moreMs);
    if (nowMs !== null) one.lastMs = nowMs;
  }

  return {
    answered(as, releaseId, model) {
      const key = keyOf(as, releaseId);
      const present = answering.get(key);
      if (present === undefined) answering.set(key, { as, releaseId, model, requests: 1 });
      else present.requests += 1;
    },

    follow(as, releaseId, pid) {
      const one: Followed = { pid, key: keyOf(as, releaseId), lastMs: power.cpuMs(pid) };
      followed.add(one);
      return {
        look: () => look(one),
        end: () => {
          if (followed.delete(one)) look(one);
        },
      };
    },

    take() {
      for (const one of followed) look(one);
      const nowMs = clock.mono();
      const windowMs = Math.round(nowMs - sinceMs);
      const timeMs = Math.max(0, Math.floor(clock.wall()));
      const now = machine();
      const used: Machine = {
        joules: difference(now.joules, before.joules),
        busyMs: difference(now.busyMs, before.busyMs),
      };
      const records = [...answering].map(([key, { as, releaseId, model, requests }]) => {
        const ofRelease = cpuMs.get(key) ?? null;
        const { method, joules } = energyOf({ used, cpuMs: ofRelease, model, requests });
        const data: EnergyStats = {
          kind: 'energy',
          model: as,
          windowMs,
          requests,
          source: energySources[method],
          method,
          joules: rounded(joules),
          cpuMs: ofRelease,
        };
        return { timeMs, release: releaseId, data };
      });
      answering.clear();
      cpuMs.clear();
      sinceMs = nowMs;
      before = now;
      return records;
    },
  };
}
