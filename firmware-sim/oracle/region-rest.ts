// Why: when the devices and the rollouts of several regions are at rest: each device is of one region that knows it, and a
// rollout across regions is seen alike by the region that coordinates it and by each that takes part.
// Trusts: the stores as committed. Must never: ask a region how it is.

import { ownRolloutId } from '../../registry/regions/own-rollouts.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import type { RolloutProgress } from '../../shared/wire/rollout-orders.ts';
import type { RegionDevice } from '../region-world/devices.ts';
import type { RegionsWorld, SimRegion } from '../region-world/regions.ts';
import { disagreement } from './agreement.ts';
import { registryFile } from './registry-oracle.ts';

/** Why they do not agree yet, in words; null where they do. */
export function devicesDisagree(all: RegionsWorld): string | null {
  const alive = all.regions.filter((one) => !one.lost);
  for (const region of alive) {
    const own = all.devices.filter((one) => one.region() === region.name);
    const why = disagreement(region.node, own, all.publisher);
    if (why !== null) return `${region.name}: ${why}`;
  }
  for (const one of all.devices) {
    const why = ofPlace(alive, one);
    if (why !== null) return `${one.device.node}: ${why}`;
  }
  return null;
}

/** It counts in one region, the one that it says it is of; and no living one still waits for its records. */
function ofPlace(alive: readonly SimRegion[], one: RegionDevice): string | null {
  const here = one.region();
  if (here === null) return 'it is of no region';
  if (!alive.some(({ name }) => name === here)) return null;
  const waiting = one.moves().chains.find(({ region }) => alive.some(({ name }) => name === region));
  if (waiting !== undefined) return `it still holds records for ${waiting.region}`;
  const deviceId = one.oracle.deviceId();
  for (const region of alive) {
    const row = region.place.look(registryFile, (db) =>
      db.get<{ status: string }>('SELECT status FROM devices WHERE device_id = ?', deviceId),
    );
    if (row?.status === 'active' && region.name !== here)
      return `it counts in ${region.name} and is of ${here}`;
    if (row?.status !== 'active' && region.name === here)
      return `it is of ${here}, which says ${row?.status}`;
  }
  return null;
}

interface PartRow {
  id: string;
  state: string;
  region: string;
  revision: number;
  attempt: number;
  leftOut: number;
  progress: string | null;
}

/** Why a rollout across regions is not told alike by all of them, or is open still; null where nothing is. */
export function rolloutsDisagree(all: RegionsWorld): string | null {
  const alive = all.regions.filter((one) => !one.lost);
  for (const coordinator of alive) {
    const parts = coordinator.place.look(registryFile, (db) =>
      db.all<PartRow>(
        `SELECT r.region_rollout_id AS id, r.state, p.region, p.revision, p.attempt, p.left_out AS leftOut, p.progress
         FROM region_rollouts r JOIN region_rollout_parts p ON p.region_rollout_id = r.region_rollout_id`,
      ),
    );
    for (const part of parts ?? []) {
      const region = alive.find(({ name }) => name === part.region);
      if (region === undefined) continue;
      const why = region.place.look(registryFile, (db) => ofPart(db, coordinator.name, part));
      if (why !== null) return `${part.id} of ${coordinator.name} in ${part.region}: ${why}`;
    }
  }
  return null;
}

/** What the region itself has of an order, and what the coordinating region believes. */
function ofPart(db: SqlTx, coordinator: string, part: PartRow): string | null {
  const order = db.get<{ revision: number; acted: number; verdict: string | null }>(
    'SELECT revision, acted, verdict FROM region_orders WHERE coordinator = ? AND order_id = ?',
    coordinator,
    part.id,
  );
  if (order?.revision !== part.revision) return `it has revision ${order?.revision} of ${part.revision}`;
  const rolloutId = ownRolloutId({
    coordinator,
    orderId: part.id,
    region: part.region,
    attempt: part.attempt,
  });
  const own = db.get<{ state: string }>('SELECT state FROM rollouts WHERE rollout_id = ?', rolloutId);
  const told = part.progress === null ? null : (JSON.parse(part.progress) as RolloutProgress);
  const state = own?.state ?? (order.verdict === 'refused' ? 'refused' : 'waiting');
  if (told === null) return `it is ${state}, and nothing was heard`;
  const known = `${told.state} ${told.revision} ${told.acted}`;
  const is = `${state} ${order.revision} ${order.acted}`;
  return known === is ? null : `it is [${is}], what was heard is [${known}]`;
}
