// Why: what a device would fetch of a release, by what it holds, for people who look at a model.
// Trusts: the tables. Must never: promise a size that no device is offered.

import type { ModelView } from '../../shared/wire/http.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';

/** Of each file, by its digest: what was made of it, of which bases. */
export type MadeWays = ReadonlyMap<string, readonly { bases: readonly string[]; bytes: number }[]>;

export function madeWaysIn(db: RegistryDb, qb: RegistryQueries): MadeWays {
  const made = new Map<string, { bases: readonly string[]; bytes: number }[]>();
  const rows = db.all(
    qb.selectFrom('encodings').select(['target_sha256', 'bases', 'bytes']).where('outcome', '=', 'made'),
  );
  for (const { target_sha256, bases, bytes } of rows) {
    if (bytes === null) continue;
    const ways = made.get(target_sha256) ?? [];
    made.set(target_sha256, [...ways, { bases: fromColumn<string[]>(bases), bytes }]);
  }
  return made;
}

type Version = ModelView['versions'][number];

/** Pure. What is fetched of these files by a device that holds those digests, and whether a base was of use. */
function fetched(files: Version['files'], held: ReadonlySet<string>, made: MadeWays) {
  let bytes = 0;
  let alone = 0;
  for (const file of files) {
    const ways = made.get(file.sha256) ?? [];
    const least = (of: ReadonlySet<string>): number =>
      Math.min(
        file.bytes,
        ...ways.filter(({ bases }) => bases.every((base) => of.has(base))).map((way) => way.bytes),
      );
    alone += least(new Set());
    if (!held.has(file.sha256)) bytes += least(held);
  }
  return { bytes, alone };
}

/** The versions of one model with what devices fetch of each, from which other. */
export function withWays(versions: readonly Version[], made: MadeWays): Version[] {
  const heldOf = new Map(versions.map((one) => [one, new Set(one.files.map((file) => file.sha256))]));
  return versions.map((version) => {
    const { files } = version;
    const isCompressed = files.some((file) => made.get(file.sha256)?.some(({ bases }) => bases.length === 0));
    const { alone } = fetched(files, new Set(), made);
    const deltas = versions.flatMap((other) => {
      if (other === version) return [];
      const { bytes } = fetched(files, heldOf.get(other) ?? new Set(), made);
      return bytes < alone ? [{ from: other.version, bytes }] : [];
    });
    return { ...version, deltas, compressedBytes: isCompressed ? alone : null };
  });
}
