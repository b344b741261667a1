// Why: what stored records add up to, in one place that ingest tells of each batch once.
// Trusts: ingest for the transaction. Must never: make a batch fail for what is in its records.

import type { TelemetryClass } from '../../shared/wire/telemetry.ts';
import { createLateness } from '../cells/lateness.ts';
import type { RegistryCore } from '../core.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { Tasks } from '../fleet/tasks.ts';
import type { RegistryDb } from '../store/open.ts';
import { createDriftWatch, type DriftWatch } from './drift-watch.ts';
import type { OpenedRecord } from './open-batch.ts';
import { createProfiles, type Profiles } from './profiles.ts';
import { createPredictionPlaces } from './quality.ts';
import { createRollups, type Rollups } from './rollups.ts';
import { createSamplePlaces } from './samples.ts';

export interface StoredBatch {
  deviceId: string;
  batchId: number;
  class: TelemetryClass;
  records: readonly OpenedRecord[];
  nowMs: number;
}

export interface Evidence {
  rollups: Rollups;
  profiles: Profiles;
  watch: DriftWatch;
  /** In the transaction that stores the batch. */
  addIn(db: RegistryDb, batch: StoredBatch): void;
  /**
   * Sums of the device's hours before `untilMs`, all of them where that is now; those of the fleet stay. After its sealed
   * records were deleted.
   */
  eraseIn(db: RegistryDb, erased: { deviceId: string; untilMs: number }): void;
  /** After a commit. */
  stored(): void;
}

export function createEvidence(
  core: Pick<RegistryCore, 'store' | 'releases' | 'blobs' | 'clock' | 'log'>,
  parts: { events: FleetEvents; tasks: Tasks },
): Evidence {
  const rollups = createRollups(core.store);
  const profiles = createProfiles(core);
  const places = createPredictionPlaces(core.store);
  const samples = createSamplePlaces(core.store);
  const lateness = createLateness(core.store);
  const watch = createDriftWatch({ ...core, ...parts, profiles });
  return {
    rollups,
    profiles,
    watch,
    addIn(db, { deviceId, batchId, class: kind, records, nowMs }) {
      if (kind === 'app' || kind === 'sample') places.addIn(db, deviceId, batchId, records);
      if (kind === 'sample') samples.addIn(db, deviceId, batchId, records);
      if (kind === 'stats') lateness.addIn(db, records);
      if (kind === 'stats') watch.addIn(db, deviceId, rollups.addIn(db, deviceId, records), nowMs);
    },
    eraseIn(db, { deviceId, untilMs }) {
      // Hours are the device's own: one whose clock is ahead has hours that are not here yet.
      const endMs = untilMs >= core.clock.wall() ? Number.MAX_SAFE_INTEGER : untilMs;
      rollups.eraseIn(db, deviceId, endMs);
      places.eraseIn(db, deviceId, endMs);
      samples.eraseIn(db, deviceId);
      watch.eraseIn(db, deviceId);
    },
    stored: () => watch.look(),
  };
}
