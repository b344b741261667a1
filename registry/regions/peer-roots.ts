// Why: the region roots of other regions, from the one they joined with on: what their heads, cells and certificates are
// checked with. Trusts: the digest in the signed list; then each root for the next.
// Must never: take a root that its predecessor did not sign.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { parseRegionRoot, type RegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import type { RegionEntry } from '../../shared/wire/regions.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { RegionAsker } from './asking.ts';

export interface PeerRoots {
  /** The newest root known of a region; null of one that was not asked yet. */
  rootIn(db: RegistryDb, region: string): RegionRoot | null;
  /** Every root known of a region, the oldest first: what is kept for years was signed under one of them. */
  rootsIn(db: RegistryDb, region: string): RegionRoot[];
  root(region: string): Promise<RegionRoot | null>;
  /** Takes what the region has beyond that. Refusals: those of `updateRegionRoot` and of the line. */
  refresh(entry: RegionEntry, asker: Pick<RegionAsker, 'regionRoots'>): Promise<Result<void>>;
}

export function createPeerRoots(store: RegistryStore): PeerRoots {
  const { qb } = store;
  const parsed = new Map<string, RegionRoot>();

  function rootIn(db: RegistryDb, region: string): RegionRoot | null {
    const row = db.first(
      qb
        .selectFrom('region_roots')
        .select(['version', 'bytes'])
        .where('region', '=', region)
        .orderBy('version', 'desc')
        .limit(1),
    );
    if (row === undefined) return null;
    const known = parsed.get(region);
    if (known?.version === row.version) return known;
    const root = unwrap(parseRegionRoot(new Uint8Array(row.bytes)));
    parsed.set(region, root);
    return root;
  }
  const rootsIn = (db: RegistryDb, region: string): RegionRoot[] =>
    db
      .all(qb.selectFrom('region_roots').select('bytes').where('region', '=', region).orderBy('version'))
      .map(({ bytes }) => unwrap(parseRegionRoot(new Uint8Array(bytes))));
  const root = (region: string): Promise<RegionRoot | null> => store.tx((db) => rootIn(db, region));

  const save = (region: string, { version, bytes }: RegionRoot): Promise<unknown> =>
    store.tx((db) =>
      db.run(
        qb
          .insertInto('region_roots')
          .values({ region, version, bytes })
          .onConflict((conflict) => conflict.doNothing()),
      ),
    );

  return {
    rootIn,
    rootsIn,
    root,
    async refresh(entry, asker) {
      const { region } = entry;
      let held = await root(region);
      const offered = await asker.regionRoots(held?.version ?? 0);
      if (!offered.ok) return offered;
      for (const bytes of offered.value) {
        if (held === null && sha256Hex(bytes) !== entry.regionRootSha256) continue;
        const next: Result<RegionRoot> =
          held === null ? parseRegionRoot(bytes) : updateRegionRoot(held.bytes, bytes);
        if (!next.ok) return next;
        if (next.value.region !== region)
          return refuse('region-answer-invalid', `${region} offers the root of ${next.value.region}`);
        await save(region, next.value);
        held = next.value;
      }
      return held === null
        ? refuse('region-answer-invalid', `${region} does not offer the root that it joined with`)
        : ok();
    },
  };
}
