// Why: what this region says about erasures to others: rows of one list, written in the transaction of what they are about.
// Trusts: its callers for what happened. Must never: be written outside of that transaction.

import type { ErasureItem, ErasureRequestItem } from '../../shared/wire/erasure.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import type { ErasureRequestsTable } from '../store/rights-tables.ts';
import type { ErasuresTable } from '../store/telemetry-tables.ts';

/** To every region where `peer` is absent. */
export function putOutIn(
  db: RegistryDb,
  qb: RegistryQueries,
  item: ErasureItem | ErasureRequestItem,
  peer: string | null = null,
): void {
  const stream = item.kind === 'erase' || item.kind === 'restored' ? 'erasure-requests' : 'erasures';
  db.run(qb.insertInto('erasure_outbox').values({ stream, peer, body: JSON.stringify(item) }));
}

export const requestOf = (row: ErasuresTable): Omit<ErasureRequestsTable, 'region' | 'declined'> => ({
  ...{ erasure_id: row.erasure_id, device_id: row.device_id, until_ms: row.until_ms },
  ...{ requested_by: row.requested_by, reason: row.reason, asked_at_ms: row.begun_at_ms },
});

export function insertRequestIn(
  db: RegistryDb,
  qb: RegistryQueries,
  region: string,
  row: ErasuresTable,
): void {
  db.run(qb.insertInto('erasure_requests').values({ region, ...requestOf(row) }));
  putOutIn(db, qb, {
    ...{ kind: 'erase', erasureId: row.erasure_id, deviceId: row.device_id, untilMs: row.until_ms },
    ...{ requestedBy: row.requested_by, reason: row.reason, askedAtMs: row.begun_at_ms },
  });
}
