// Why: the region signs from time to time how far its audit chain went; who holds such a head can tell later whether the chain
// is still the same. Trusts: the keyring for the `ack` key in force. Must never: sign two heads of one count, or go back in time.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { signAuditHead } from '../../shared/trust/audit.ts';
import type { AuditHead } from '../../shared/wire/audit.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import type { AuditHeadsTable } from '../store/audit-tables.ts';
import type { RegistryStore } from '../store/open.ts';
import { lastEntryIn } from './record.ts';

export interface SignedAuditHead {
  head: AuditHead;
  envelope: Envelope;
}

export interface AuditHeads {
  /** Signs where entries were added since the last head; the newest one, whichever. */
  sign(): Promise<SignedAuditHead>;
  /** The newest one; null before the first. */
  newest(): Promise<SignedAuditHead | null>;
}

export function createAuditHeads(parts: {
  store: RegistryStore;
  region: string;
  signer: Signer;
  clock: Clock;
}): AuditHeads {
  const { store, region, signer, clock } = parts;
  const { qb } = store;
  const newestQuery = qb.selectFrom('audit_heads').selectAll().orderBy('sequence', 'desc').limit(1);

  const headOf = (row: AuditHeadsTable): AuditHead => ({
    schemaVersion: 1,
    region,
    entries: row.entries,
    headSha256: row.head_sha256,
    atMs: row.at_ms,
    sequence: row.sequence,
  });
  const signedOf = (row: AuditHeadsTable): SignedAuditHead => ({
    head: headOf(row),
    envelope: JSON.parse(row.envelope),
  });

  return {
    sign: () =>
      store.tx((db) => {
        const before = db.first(newestQuery);
        const last = lastEntryIn(db, qb);
        if (last === undefined) throw new FleetError('state-corrupt', 'the audit record has no first entry');
        if (before !== undefined && last.id === before.entries) return signedOf(before);
        const row: AuditHeadsTable = {
          sequence: (before?.sequence ?? 0) + 1,
          entries: last.id,
          head_sha256: last.entry_sha256,
          // A clock that was set back must not look like a region that goes back.
          at_ms: Math.max(clock.wall(), before?.at_ms ?? 0),
          envelope: '',
        };
        const signed = { ...row, envelope: JSON.stringify(signAuditHead(headOf(row), signer)) };
        db.run(qb.insertInto('audit_heads').values(signed));
        return signedOf(signed);
      }),

    async newest() {
      const row = await store.tx((db) => db.first(newestQuery));
      return row === undefined ? null : signedOf(row);
    },
  };
}
