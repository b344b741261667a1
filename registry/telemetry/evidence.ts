// Why: what stored records add up to, in one place that ingest tells of each batch once.
// Trusts: ingest for the transaction. Must never: make a batch fail for what is in its records.

import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import type { RegistryDb } from '../store/open.ts';
import type { OpenedRecord } from './open-batch.ts';
import type { Rollups } from './rollups.ts';

export interface StoredBatch {
  deviceId: string;
  class: TelemetryClass;
  records: readonly OpenedRecord[];
  nowMs: number;
}

export interface Evidence {
  /** In the transaction that stores the batch. */
  addIn(db: RegistryDb, batch: StoredBatch): void;
  /** After a commit. */
  stored(): void;
}

export function createEvidence(parts: { rollups: Rollups }): Evidence {
  const { rollups } = parts;
  return {
    addIn(db, batch) {
      if (batch.class === 'stats') rollups.addIn(db, batch.deviceId, batch.records);
    },
    stored: () => undefined,
  };
}
