// Why: what a device would fetch of a release, by what it holds, for people who look at a model.
// Trusts: the tables. Must never: promise a size that no device is offered.

import type { ModelView } from '../../shared/wire/http.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';

/** Of each file: bytes of what was made of it, by the digest of its one base, '' for none. */
export type MadeWays = ReadonlyMap<string, ReadonlyMap<string, number>>;

export function madeWaysIn(db: RegistryDb, qb: RegistryQueries): MadeWays {
  const made = new Map<string, Map<string, number>>();
  const rows = db.all(
    qb.selectFrom('encodings').select(['target_sha256', 'bases', 'bytes']).where('outcome', '=', 'made'),
  );
  for (const { target_sha256, bases, bytes } of rows) {
    const [base = '', ...more] = fromColumn<string[]>(bases);
    if (bytes === null || more.length > 0) continue;
    const ways = made.get(target_sha256) ?? new Map<string, number>();
    made.set(target_sha256, ways.set(base, bytes));
  }
  return made;
}

type Version = ModelView['versions'][number];

/** Pure. What is fetched of these files by a device that holds those digests, and whether a base was of use. */
function fetched(files: Version['files'], held: ReadonlySet<string>, made: MadeWays) {
  let bytes = 0;
  let alone = 0;
  for (const file of files) {
    const ways = made.get(file.sha256);
    const compressed = Math.min(file.bytes, ways?.get('') ?? file.bytes);
    alone += compressed;
    if (held.has(file.sha256)) continue;
    let best = compressed;
    for (const [base, size] of ways ?? []) if (held.has(base)) best = Math.min(best, size);
    bytes += best;
  }
  return { bytes, alone };
}

/** The versions of one model with what devices fetch of each, from which other. */
export function withWays(versions: readonly Version[], made: MadeWays): Version[] {
  const heldOf = new Map(versions.map((one) => [one, new Set(one.files.map((file) => file.sha256))]));
  return versions.map((version) => {
    const { files } = version;
    const isCompressed = files.some((file) => made.get(file.sha256)?.has(''));
    const { alone } = fetched(files, new Set(), made);
    const deltas = versions.flatMap((other) => {
      if (other === version) return [];
      const { bytes } = fetched(files, heldOf.get(other) ?? new Set(), made);
      return bytes < alone ? [{ from: other.version, bytes }] : [];
    });
    return { ...version, deltas, compressedBytes: isCompressed ? alone : null };
  });
}
