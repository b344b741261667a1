// Why: at rest every record that an application was told is durable is stored exactly once, or was counted as dropped;
// and nothing that an attacker made is stored anywhere. Trusts: the registry's database and what was answered.
// Must never: excuse a loss that nobody counted.

import { aboutOf, recordsIn, storageKey } from '../../registry/telemetry/sealed-records.ts';
import { openStored } from '../../shared/crypto/stored-seal.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { forgedName } from '../fleet-world/adversary.ts';
import type { FleetWorld } from '../fleet-world/fleet.ts';
import { inflated } from '../machine/deflate.ts';
import type { SimPlace } from '../machine/place.ts';
import { registryFile } from './registry-oracle.ts';

const telemetryKeysFile = 'telemetry-keys.sqlite';

/** What does not add up, in words; null where everything does. */
export function accountsOf(fleet: FleetWorld): string | null {
  return fleet.registry.place.look(registryFile, (db) => {
    const forged = db.get<{ n: number }>(
      'SELECT count(*) AS n FROM device_models WHERE name = ?',
      forgedName,
    );
    if ((forged?.n ?? 0) > 0) return 'the registry believes a report that no device signed';
    for (const one of fleet.devices) {
      const deviceId = one.oracle.deviceId();
      if (deviceId === null || one.revoked || one.unaccounted) continue;
      const why = ofDevice(db, fleet, one.device.node, deviceId);
      if (why !== null) return `${one.device.node}: ${why}`;
    }
    return null;
  });
}

/** Of every record of the application: opened as a query opens them. */
export function storedIds(db: SqlTx, place: SimPlace, deviceId: string): string[] {
  const batches = db.all<{ epoch: number; sequence: number; key_id: string; sealed: Uint8Array }>(
    `SELECT b.epoch, b.sequence, s.key_id, s.sealed FROM telemetry_batches AS b
     JOIN telemetry_sealed AS s ON s.batch_id = b.batch_id WHERE b.device_id = ? AND b.class = 'app'`,
    deviceId,
  );
  const secrets = place.look(telemetryKeysFile, (keys) =>
    keys.all<{ key_id: string; secret_key: Uint8Array }>('SELECT key_id, secret_key FROM telemetry_keys'),
  );
  const keyOf = new Map(secrets?.map((row) => [row.key_id, storageKey(new Uint8Array(row.secret_key))]));
  return batches.flatMap(({ epoch, sequence, key_id, sealed }) => {
    const key = keyOf.get(key_id);
    const packed =
      key === undefined
        ? null
        : openStored(key, new Uint8Array(sealed), aboutOf({ deviceId, epoch, sequence }));
    if (packed === null) return [`sealed for nobody: batch ${epoch} ${sequence}`];
    return recordsIn(inflated(packed)).map(({ data }) => String((JSON.parse(data) as { id: unknown }).id));
  });
}

function ofDevice(db: SqlTx, fleet: FleetWorld, node: string, deviceId: string): string | null {
  const ids = storedIds(db, fleet.registry.place, deviceId);
  const stored = new Set<string>();
  for (const id of ids) {
    if (stored.has(id)) return `record ${id} is stored more than once`;
    if (!id.startsWith(`${node}-`)) return `a record of somebody else, ${id}, is stored in its name`;
    stored.add(id);
  }
  const missing = fleet.truth.answeredBy(node).filter((id) => !stored.has(id));
  if (missing.length === 0 || fleet.truth.isForked()) return null;
  const outbox = db.get<{ outbox: string | null }>(
    'SELECT outbox FROM devices WHERE device_id = ?',
    deviceId,
  );
  const { droppedRecords } = JSON.parse(outbox?.outbox ?? '{"droppedRecords":0}') as {
    droppedRecords: number;
  };
  if (missing.length <= droppedRecords) return null;
  return `${missing.length} answered records are nowhere (${missing.slice(0, 3).join()}), ${droppedRecords} were counted as dropped`;
}
