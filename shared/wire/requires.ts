// Why: whether a device has the processor and the agent that a release needs, judged alike wherever it is asked.
// Trusts: `requires` as its publisher signed it, the device's own report. Must never: judge a fact it was not given.

import type { Manifest } from './manifest.ts';

export interface ReportedDevice {
  /** As Node names it: `x64`, `arm64`; empty where it never reported. */
  arch: string;
  /** Version of the agent, `MAJOR.MINOR.PATCH`. */
  agentVersion: string;
  /** Absent where it never told. */
  memoryMiB?: number | undefined;
}

/** `MAJOR.MINOR.PATCH`, also behind `>=`; null for anything else. */
function numbersOf(version: string): number[] | null {
  const match = /^(?:>=\s*)?(\d+)\.(\d+)\.(\d+)/.exec(version);
  return match === null ? null : match.slice(1).map(Number);
}

/** What cannot be compared is taken for too old: a release that needs something is not given on a guess. */
export function isOlder(version: string, wanted: string): boolean {
  const [have, want] = [numbersOf(version), numbersOf(wanted)];
  if (have === null || want === null) return true;
  for (const [index, part] of want.entries()) {
    const own = have[index] ?? 0;
    if (own !== part) return own < part;
  }
  return false;
}

/** What the device lacks, in words; null where it has what the release needs. `requires.agent` is the lowest version. */
export function lacking(
  requires: Pick<Manifest['requires'], 'agent' | 'arch' | 'memoryMiB'>,
  device: ReportedDevice,
): string | null {
  if (requires.arch !== undefined && !requires.arch.includes(device.arch))
    return `needs ${requires.arch.join(' or ')}, this is ${device.arch}`;
  if (requires.agent !== undefined && isOlder(device.agentVersion, requires.agent))
    return `needs agent ${requires.agent}, this is ${device.agentVersion}`;
  const { memoryMiB } = device;
  if (requires.memoryMiB !== undefined && memoryMiB !== undefined && requires.memoryMiB > memoryMiB)
    return `needs ${requires.memoryMiB} MiB of memory, there are ${memoryMiB}`;
  return null;
}
