// Why: what this machine's processors used, and what of it a process had, for the energy of a release.
// Trusts: the kernel's counters under /sys and /proc. Must never: guess where one cannot be read.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Power } from '../kernel/ports.ts';

/** Of /proc/stat and /proc/PID/stat: USER_HZ is 100 on every architecture that Node runs on. */
const msPerTick = 10;

function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    // Not there, not ours to read (newer kernels give RAPL to root alone), or the process is gone.
    if (error instanceof Error) return null;
    throw error;
  }
}

function numberOf(path: string): number | null {
  const text = textOf(path)?.trim() ?? '';
  return /^\d+$/.test(text) ? Number(text) : null;
}

/** Packages alone: what is inside one (`intel-rapl:0:1`) is in its sum, and `psys` has them all once more. */
function packagesOf(powercap: string): string[] {
  try {
    return readdirSync(powercap)
      .filter((name) => /^intel-rapl:\d+$/.test(name))
      .map((name) => join(powercap, name))
      .filter((folder) => textOf(join(folder, 'name'))?.startsWith('package') === true);
  } catch (error) {
    if (error instanceof Error) return [];
    throw error;
  }
}

/** `root` is / but in tests. AMD's processors are under the name of Intel's too. */
export function systemPower(root = '/'): Power {
  const packages = packagesOf(join(root, 'sys/class/powercap')).map((folder) => ({
    counter: join(folder, 'energy_uj'),
    rangeUj: numberOf(join(folder, 'max_energy_range_uj')),
    lastUj: null as number | null,
  }));
  let totalUj = 0;

  return {
    joules() {
      if (packages.length === 0) return null;
      for (const one of packages) {
        const nowUj = numberOf(one.counter);
        if (nowUj === null) return null;
        if (one.lastUj !== null)
          // A counter starts again at its range: some minutes of a busy server, an hour of a small one.
          totalUj += nowUj >= one.lastUj ? nowUj - one.lastUj : nowUj + (one.rangeUj ?? 0) - one.lastUj;
        one.lastUj = nowUj;
      }
      return totalUj / 1e6;
    },

    busyMs() {
      const fields = /^cpu +(.+)$/m
        .exec(textOf(join(root, 'proc/stat')) ?? '')?.[1]
        ?.split(' ')
        .map(Number);
      if (fields === undefined || fields.length < 8) return null;
      const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields;
      return (user + nice + system + irq + softirq + steal) * msPerTick;
    },

    cpuMs(pid) {
      // The command's name stands in brackets and may hold anything; the numbers follow the last one.
      const text = textOf(join(root, `proc/${pid}/stat`));
      const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ');
      const ticks = Number(fields?.[11]) + Number(fields?.[12]);
      return Number.isFinite(ticks) ? ticks * msPerTick : null;
    },
  };
}
