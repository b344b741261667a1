// Why: who may say how much memory a model takes, in one form for the estimate, the trial and the words of a refusal.
// Trusts: manifests that were parsed. Must never: load the reader of ONNX files; the agent's own process needs none.

import { FleetError } from '../kernel/errors.ts';

export interface MemoryBound {
  bytes: number;
  /** `requires.memoryMiB of the manifest`, … */
  from: string;
}

const bytesPerMiB = 1024 * 1024;
/** What a model may take that says nothing: devices are small, and what is larger should say so. */
const memoryMiBDefault = 512;

/** Whole mebibytes, rounded up. */
export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / bytesPerMiB)} MiB`;

/** What the manifest promises that the model needs at most. */
export function promisedMemory(manifest: {
  requires?: { memoryMiB?: number | undefined } | undefined;
  limits?: { memoryMiB?: number | undefined } | undefined;
}): MemoryBound {
  const [requiresMiB, limitMiB] = [manifest.requires?.memoryMiB, manifest.limits?.memoryMiB];
  if (requiresMiB !== undefined)
    return { bytes: requiresMiB * bytesPerMiB, from: 'requires.memoryMiB of the manifest' };
  if (limitMiB !== undefined)
    return { bytes: limitMiB * bytesPerMiB, from: 'limits.memoryMiB of the manifest' };
  return { bytes: memoryMiBDefault * bytesPerMiB, from: 'the default of requires.memoryMiB in the manifest' };
}

/** The smallest of them. */
export function smallestBound(first: MemoryBound, ...others: MemoryBound[]): MemoryBound {
  return others.reduce((least, bound) => (bound.bytes < least.bytes ? bound : least), first);
}

/** A number of mebibytes that was typed, as bytes. Fault: `config-invalid`. */
export function parseMemory(text: string, flag: string): number {
  const allowedMiB = /^\d{1,7}$/.test(text) ? Number(text) : 0;
  if (allowedMiB < 1)
    throw new FleetError('config-invalid', `${flag} ${text}: expected mebibytes, such as 512`);
  return allowedMiB * bytesPerMiB;
}
