// Why: at rest every record that an application was told is durable is stored exactly once, or was counted as dropped;
// and nothing that an attacker made is stored anywhere. Trusts: the registry's database and what was answered.
// Must never: excuse a loss that nobody counted.

import type { SqlTx } from '../../shared/kernel/ports.ts';
import { forgedName } from '../fleet-world/adversary.ts';
import type { FleetWorld } from '../fleet-world/fleet.ts';
import { registryFile } from './registry-oracle.ts';

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

function ofDevice(db: SqlTx, fleet: FleetWorld, node: string, deviceId: string): string | null {
  const rows = db.all<{ id: string; n: number }>(
    `SELECT json_extract(r.data, '$.id') AS id, count(*) AS n FROM telemetry_records AS r
     JOIN telemetry_batches AS b ON b.batch_id = r.batch_id
     WHERE b.device_id = ? AND b.class = 'app' GROUP BY 1`,
    deviceId,
  );
  const twice = rows.find(({ n }) => n > 1);
  if (twice !== undefined) return `record ${twice.id} is stored ${twice.n} times`;
  const stored = new Set(rows.map(({ id }) => id));
  const foreign = rows.find(({ id }) => !id.startsWith(`${node}-`));
  if (foreign !== undefined) return `a record of somebody else, ${foreign.id}, is stored in its name`;
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
