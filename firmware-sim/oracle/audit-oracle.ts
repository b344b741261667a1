// Why: what must hold of the audit record of each region at every commit: the chain is whole and only grows, signed heads fit it,
// and so does every head that a neighbour holds. Trusts: the stores as committed.
// Must never: take a fork that a restore made for a lie, or a lie for a fork.

import { entryOf } from '../../registry/audit/record.ts';
import type { AuditEntriesTable } from '../../registry/store/audit-tables.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { auditEntrySha256, noEntrySha256 } from '../../shared/trust/audit.ts';
import type { World } from '../world.ts';

export interface AuditOracle {
  committed(region: string, db: SqlTx): void;
  restored(region: string): void;
}

interface Head {
  sequence: number;
  entries: number;
  sha256: string;
}

interface Seen {
  entries: number;
  lastSha256: string;
  head: Head | null;
  peers: number;
}

const unseen = (): Seen => ({ entries: 0, lastSha256: noEntrySha256, head: null, peers: 0 });

export function createAuditOracle(world: World): AuditOracle {
  const seen = new Map<string, Seen>();
  /** By region, `number digest` of every entry that was ever committed there. */
  const chains = new Map<string, Set<string>>();
  const forked = new Set<string>();

  const of = <T>(map: Map<string, T>, region: string, make: () => T): T => {
    const known = map.get(region) ?? make();
    map.set(region, known);
    return known;
  };

  function checkChain(region: string, db: SqlTx, now: Seen): void {
    const last = db.get<{ id: number | null }>('SELECT max(id) AS id FROM audit_entries')?.id ?? 0;
    if (last < now.entries)
      world.violate(`${region}: its audit record has ${last} of ${now.entries} entries`);
    if (last === now.entries) return;
    const chain = of(chains, region, () => new Set());
    const rows = db.all<AuditEntriesTable>(
      'SELECT * FROM audit_entries WHERE id > ? ORDER BY id',
      now.entries,
    );
    for (const row of rows) {
      if (row.previous_sha256 !== now.lastSha256 || row.id !== now.entries + 1)
        world.violate(`${region}: audit entry ${row.id} does not follow entry ${now.entries}`);
      if (auditEntrySha256(entryOf(row)) !== row.entry_sha256)
        world.violate(`${region}: audit entry ${row.id} has another digest than it says`);
      now.entries = row.id;
      now.lastSha256 = row.entry_sha256;
      chain.add(`${row.id} ${row.entry_sha256}`);
    }
  }

  function checkHead(region: string, db: SqlTx, now: Seen): void {
    const head = db.get<Head>(
      'SELECT sequence, entries, head_sha256 AS sha256 FROM audit_heads ORDER BY sequence DESC LIMIT 1',
    );
    if (head === undefined || head.sequence === now.head?.sequence) return;
    if (now.head !== null && (head.sequence < now.head.sequence || head.entries <= now.head.entries))
      world.violate(
        `${region}: head ${head.sequence} of ${head.entries} entries came after ${now.head.sequence} of ${now.head.entries}`,
      );
    if (!of(chains, region, () => new Set()).has(`${head.entries} ${head.sha256}`))
      world.violate(`${region}: head ${head.sequence} is not of its own chain`);
    now.head = head;
  }

  /** What a neighbour holds was true once; and where it contradicts itself, that is noted. */
  function checkPeers(region: string, db: SqlTx, now: Seen): void {
    const count = db.get<{ n: number }>('SELECT count(*) AS n FROM peer_audit_heads')?.n ?? 0;
    if (count === now.peers) return;
    now.peers = count;
    const rows = db.all<Head & { peer: string; conflict: string | null }>(
      `SELECT region AS peer, sequence, entries, head_sha256 AS sha256, conflict FROM peer_audit_heads
       ORDER BY region, sequence, entries`,
    );
    let sound: (typeof rows)[number] | null = null;
    for (const row of rows) {
      const { peer, sequence, entries, sha256, conflict } = row;
      if (!of(chains, peer, () => new Set()).has(`${entries} ${sha256}`))
        world.violate(`${region} holds head ${sequence} of ${peer}, which never had such a chain`);
      if (conflict !== null && !forked.has(peer))
        world.violate(`${region} says ${conflict} of ${peer}, which was never set back`);
      if (conflict !== null) continue;
      if (sound?.peer === peer) {
        const isOther = sound.entries === entries && sound.sha256 !== sha256;
        if (isOther || entries < sound.entries || (sound.sequence === sequence && sound.entries !== entries))
          world.violate(
            `${region} holds heads ${sound.sequence} and ${sequence} of ${peer}, and noted nothing`,
          );
      }
      sound = row;
    }
  }

  return {
    committed(region, db) {
      const now = of(seen, region, unseen);
      checkChain(region, db, now);
      checkHead(region, db, now);
      checkPeers(region, db, now);
    },
    restored(region) {
      seen.set(region, unseen());
      forked.add(region);
    },
  };
}
