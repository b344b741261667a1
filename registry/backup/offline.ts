// Why: the data folder of a registry that does not run, as what a backup is taken of.
// Trusts: its caller to hold the folder's lock. Must never: migrate it, or leave it changed.

import { join } from 'node:path';
import { openDisk } from '../../shared/host/disk.ts';
import { openStore, type SqliteStore } from '../../shared/host/sqlite.ts';
import { type MaskingRule, maskingRuleSchema } from '../../shared/wire/masking.ts';
import type { BackupSource } from './write.ts';

export interface OfflineSource extends BackupSource {
  close(): Promise<void>;
}

async function maskingRulesOf(keys: SqliteStore): Promise<MaskingRule[]> {
  const row = await keys.tx((db) => {
    const table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'masking'";
    return db.get(table) === undefined
      ? undefined
      : db.get<{ rules: string }>('SELECT rules FROM masking WHERE id = 1');
  });
  return row === undefined ? [] : maskingRuleSchema.array().parse(JSON.parse(row.rules));
}

async function openKeys(data: string): Promise<{ store: SqliteStore; rules: MaskingRule[] }> {
  const store = await openStore(join(data, 'telemetry-keys.sqlite'), {
    synchronous: 'FULL',
    overwrites: true,
  });
  try {
    return { store, rules: await maskingRulesOf(store) };
  } catch (thrown) {
    await store.close();
    throw thrown;
  }
}

/** Faults: `state-corrupt`, `state-locked`, `disk-io`. */
export async function openOfflineSource(data: string, version: string): Promise<OfflineSource> {
  // Opened for writing: what a registry that was killed left in its log is a part of it.
  const store = await openStore(join(data, 'registry.sqlite'), { synchronous: 'FULL' });
  const keys = await openKeys(data).catch(async (thrown: unknown) => {
    await store.close();
    throw thrown;
  });
  return {
    ...{ version, store, telemetryKeys: keys.store },
    maskingRules: () => keys.rules,
    files: openDisk(data),
    keys: openDisk(join(data, 'keys')),
    blobs: openDisk(join(data, 'blobs')),
    blobPath: (sha256) => join(data, 'blobs', sha256),
    async close() {
      await store.close();
      await keys.store.close();
    },
  };
}
