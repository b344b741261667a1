// Why: which files a device may have: those of the releases that it is assigned, or runs and was assigned before.
// Trusts: the director's tables. Must never: open anything on a device's word alone.

import type { RegistryCore } from '../core.ts';
import { fixed } from '../store/open.ts';

export interface Rights {
  /** Releases whose files it may have. */
  releasesOf(deviceId: string): Promise<string[]>;
  /** Digests of the release's files and its manifest; empty where there is no such release. */
  digestsOf(releaseId: string): Promise<ReadonlySet<string>>;
  mayHave(deviceId: string, sha256: string): Promise<boolean>;
}

/** Of a device that may have them: what it is assigned, and what it runs and was assigned once. */
const releasesQuery = fixed((qb, deviceId: string) => {
  const active = qb.selectFrom('devices').select('device_id').where('status', '=', 'active');
  const assigned = qb
    .selectFrom('desired')
    .select('release_id')
    .where('device_id', '=', deviceId)
    .where('device_id', 'in', active);
  // What it says it runs may have to be mended, where it was assigned it once: its word alone opens nothing.
  const running = qb
    .selectFrom('rollout_devices as m')
    .innerJoin('rollout_parts as o', 'o.rollout_id', 'm.rollout_id')
    .innerJoin('device_models as r', (join) =>
      join.onRef('r.device_id', '=', 'm.device_id').onRef('r.name', '=', 'o.as_name'),
    )
    .select('o.release_id')
    .where('m.device_id', '=', deviceId)
    .where('m.device_id', 'in', active)
    .where('m.epoch', '>', 0)
    .where((where) =>
      where.or([
        where('r.active', '=', where.ref('o.release_id')),
        where('r.last_good', '=', where.ref('o.release_id')),
      ]),
    );
  return assigned.union(running);
});

export function createRights(core: Pick<RegistryCore, 'store' | 'releases' | 'limits'>): Rights {
  const { store, releases, limits } = core;
  const { qb } = store;
  /** By release id: a release never changes. Oldest first. */
  const known = new Map<string, ReadonlySet<string>>();

  async function digestsOf(releaseId: string): Promise<ReadonlySet<string>> {
    const found = known.get(releaseId);
    if (found !== undefined) return found;
    const release = await releases.find(releaseId);
    if (release === null) return new Set();
    const digests = new Set([release.manifestSha256, ...release.manifest.files.map((file) => file.sha256)]);
    known.set(releaseId, digests);
    for (const oldest of known.keys()) {
      if (known.size <= limits.releasesRemembered) break;
      known.delete(oldest);
    }
    return digests;
  }

  async function releasesOf(deviceId: string): Promise<string[]> {
    const rows = await store.tx((db) => db.all(releasesQuery(qb, deviceId)));
    return rows.map((row) => row.release_id);
  }

  return {
    releasesOf,
    digestsOf,
    async mayHave(deviceId, sha256) {
      for (const releaseId of await releasesOf(deviceId))
        if ((await digestsOf(releaseId)).has(sha256)) return true;
      return false;
    },
  };
}
