// Why: what a copy of the registry's database says of itself: region, roots, schema, whether it is sound.
// Trusts: nothing of the copy before it was read. Must never: write to it.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { BackupManifest } from '../../shared/wire/backup.ts';

export type CopyFacts = Pick<BackupManifest, 'region' | 'incarnation' | 'schema' | 'roots'>;

/** Runs `work` on a database that is only looked at. */
export async function lookInto<T>(path: string, work: (db: SqlTx) => T): Promise<T> {
  const store = await openStore(path, { synchronous: 'FULL', readOnly: true });
  try {
    return await store.tx(work);
  } finally {
    await store.close();
  }
}

function rootIn(db: SqlTx, role: string): { version: number; bytes: Uint8Array } {
  const row = db.get<{ version: number; bytes: Uint8Array }>(
    `SELECT r.version AS version, f.bytes AS bytes FROM metadata_roles r
     JOIN metadata_files f ON f.name = r.file WHERE r.role = ?`,
    role,
  );
  if (row === undefined) throw new FleetError('backup-damaged', `the database holds no ${role}`);
  return row;
}

/** Fault: `backup-damaged` where it is no registry's, or its region and its root disagree. */
export async function factsOfCopy(path: string): Promise<CopyFacts> {
  return lookInto(path, (db) => {
    const setting = (key: string): string =>
      db.get<{ value: string }>('SELECT value FROM settings WHERE key = ?', key)?.value ?? '';
    const [catalogue, regional] = [rootIn(db, 'root'), rootIn(db, 'region/root')];
    const region = setting('region');
    const parsed = parseRegionRoot(new Uint8Array(regional.bytes));
    if (!parsed.ok || parsed.value.region !== region)
      throw new FleetError('backup-damaged', `the region root is not that of region ${region}`);
    const last = db.get<{ name: string }>('SELECT max(name) AS name FROM migrations');
    return {
      region,
      incarnation: setting('incarnation'),
      schema: last?.name ?? '',
      roots: {
        catalogue: { version: catalogue.version, sha256: sha256Hex(catalogue.bytes) },
        region: { version: regional.version, sha256: sha256Hex(regional.bytes) },
      },
    };
  });
}

/** What SQLite finds wrong with a database; empty where it is sound. */
export function faultsOf(path: string): Promise<string[]> {
  return lookInto(path, (db) => {
    const rows = db.values('PRAGMA integrity_check(20)').map(([words]) => String(words));
    return rows.length === 1 && rows[0] === 'ok' ? [] : rows;
  });
}
