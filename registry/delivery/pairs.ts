// Why: which file of an earlier release a file is likely to differ little from: what is encoded against what.
// Trusts: manifests. Must never: pair files of two models.

import type { ReleaseFile } from '../../shared/kernel/releases.ts';

export interface Pair {
  target: ReleaseFile;
  /** What it is made from; none: by itself. */
  bases: readonly ReleaseFile[];
  /** Files of its own release that tell what lies in it: of external data, its model. */
  beside: readonly ReleaseFile[];
}

/** The file in the same place, else the only one that plays the same part. Null also where it is the same file. */
function baseOf(
  file: ReleaseFile,
  files: readonly ReleaseFile[],
  earlier: readonly ReleaseFile[],
): ReleaseFile | null {
  const alike = earlier.filter((one) => one.role === file.role);
  const alone = files.filter((one) => one.role === file.role).length === 1 && alike.length === 1;
  const base = alike.find((one) => one.path === file.path) ?? (alone ? alike[0] : undefined);
  return base === undefined || base.sha256 === file.sha256 ? null : base;
}

const modelIn = (files: readonly ReleaseFile[]): ReleaseFile[] =>
  files.filter(({ role }) => role === 'model');

export function aloneOf(target: ReleaseFile, files: readonly ReleaseFile[]): Pair {
  return { target, bases: [], beside: target.role === 'external-data' ? modelIn(files) : [] };
}

/** The file from its like in the earlier release; what lies in external data only the model beside it tells. */
export function pairOf(
  target: ReleaseFile,
  files: readonly ReleaseFile[],
  earlier: readonly ReleaseFile[],
): Pair | null {
  const base = baseOf(target, files, earlier);
  if (base === null) return null;
  const alone = aloneOf(target, files);
  return { ...alone, bases: alone.beside.length === 0 ? [base] : [base, ...modelIn(earlier)] };
}

export const nameOf = ({ target, bases }: Pair): string =>
  [target, ...bases].map(({ sha256 }) => sha256).join(' ');

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
  const add = (pair: Pair): void => {
    const name = nameOf(pair);
    if (!pairs.has(name)) pairs.set(name, pair);
  };
  const targets = files.filter(isWorth);
  for (const target of targets) add(aloneOf(target, files));
  for (const before of earlier) {
    for (const target of targets) {
      const pair = pairOf(target, files, before);
      const [base] = pair?.bases ?? [];
      // What the device holds already it does not fetch.
      const isHeld = before.some((one) => one.sha256 === target.sha256);
      if (pair !== null && base !== undefined && isWorth(base) && !isHeld) add(pair);
    }
  }
  return [...pairs.values()];
}
