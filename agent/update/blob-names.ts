// Why: the names of files in the blob folder, so that a sweep knows of each what it belongs to. Pure.
// Trusts: nothing; a name that is none of these is somebody else's. Must never: give two files one name.

import { sha256Pattern } from '../../shared/kernel/releases.ts';

/** Folder of all blobs, relative to the state disk. */
export const blobFolder = 'blobs';
const unverifiedSuffix = '.unverified';
const sumsSuffix = '.sums';
const encodedSuffix = '.encoded';
const rebuiltSuffix = '.rebuilt';

/** Path of a blob on the state disk. */
export function blobPath(sha256: string): string {
  return `${blobFolder}/${sha256}`;
}

/** An encoded file from which a blob is made; whole and digested. */
export const encodedPath = (target: string, encoded: string): string =>
  `${blobPath(target)}.${encoded}${encodedSuffix}`;

/** What was made of an encoded file, before it is digested. */
export const rebuiltPath = (target: string): string => blobPath(target) + rebuiltSuffix;

/** A file on its way here, and the digests of its parts. */
export const unverifiedPath = (path: string): string => path + unverifiedSuffix;
export const sumsPath = (path: string): string => path + sumsSuffix;

/** The blob that a name in the folder belongs to, and whether it is only on the way to it; null: none of ours. */
export function ownerOf(name: string): { sha256: string; onTheWay: boolean } | null {
  const [sha256 = '', ...rest] = name.split('.');
  if (!sha256Pattern.test(sha256)) return null;
  if (rest.length === 0) return { sha256, onTheWay: false };
  const tail = `.${rest.join('.')}`;
  const known =
    tail === rebuiltSuffix ||
    new RegExp(
      `^(\\.[0-9a-f]{64}\\${encodedSuffix})?(\\${unverifiedSuffix}|\\${sumsSuffix})$|^\\.[0-9a-f]{64}\\${encodedSuffix}$`,
    ).test(tail);
  return known ? { sha256, onTheWay: true } : null;
}
