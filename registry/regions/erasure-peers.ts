// Why: what the lists of erasures must know of other regions: who they are, and every root that stands behind their word.
// Trusts: the rows that members.ts and peer-roots.ts verified before they stored them. Must never: name a region that left.

import type { RegistryStore } from '../store/open.ts';
import type { ErasurePeers } from '../telemetry/erasure-streams.ts';
import { storedList } from './members.ts';
import { createPeerRoots } from './peer-roots.ts';

export function erasurePeers(store: RegistryStore, self: string): ErasurePeers {
  const { qb } = store;
  return {
    peersIn(db) {
      const row = db.first(qb.selectFrom('region_list').select('envelope'));
      if (row === undefined) return [];
      return storedList(row.envelope)
        .regions.map(({ region }) => region)
        .filter((region) => region !== self);
    },
    rootsIn: createPeerRoots(store).rootsIn,
  };
}
