// Why: which file of an earlier release a file is likely to differ little from: what is encoded against what.
// Trusts: manifests. Must never: pair files of two models.

import type { ReleaseFile } from '../../shared/kernel/releases.ts';

export interface Pair {
  target: ReleaseFile;
  /** Null: by itself. */
  base: ReleaseFile | null;
}

/** The file in the same place, else the only one that plays the same part. Null also where it is the same file. */
export function baseOf(
  file: ReleaseFile,
  files: readonly ReleaseFile[],
  earlier: readonly ReleaseFile[],
): ReleaseFile | null {
  const alike = earlier.filter((one) => one.role === file.role);
  const alone = files.filter((one) => one.role === file.role).length === 1 && alike.length === 1;
  const base = alike.find((one) => one.path === file.path) ?? (alone ? alike[0] : undefined);
  return base === undefined || base.sha256 === file.sha256 ? null : base;
}

/**
 * What to encode for a new release, most useful first: each file by itself, so that what comes after can be measured
 * against that, then against those before it, the newest first. A digest once.
 */
export function pairsOf(
  files: readonly ReleaseFile[],
  earlier: readonly (readonly ReleaseFile[])[],
  isWorth: (file: ReleaseFile) => boolean,
): Pair[] {
  const pairs = new Map<string, Pair>();
  const add = (target: ReleaseFile, base: ReleaseFile | null): void => {
    const key = `${target.sha256} ${base?.sha256 ?? ''}`;
    if (!pairs.has(key)) pairs.set(key, { target, base });
  };
  const targets = files.filter(isWorth);
  for (const target of targets) add(target, null);
  for (const before of earlier) {
    for (const target of targets) {
      const base = baseOf(target, files, before);
      // What the device holds already it does not fetch.
      if (base !== null && isWorth(base) && !before.some((one) => one.sha256 === target.sha256))
        add(target, base);
    }
  }
  return [...pairs.values()];
}
