// Why: rollouts across regions as rows of the registry's tables, read with what is known of the lines, and written.
// Trusts: the tables of 024-region-orders.sql. Must never: decide anything.

import type { RegionList } from '../../shared/wire/regions.ts';
import type { RolloutOrder, RolloutProgress } from '../../shared/wire/rollout-orders.ts';
import { fromColumn, fromNullableColumn, toColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import type { RegionRolloutPartsTable, RegionRolloutRow } from '../store/order-tables.ts';
import type { PartFact, RegionRolloutFact, RegionRolloutNext } from './region-facts.ts';

export interface RegionRolloutRecord extends RegionRolloutFact {
  row: RegionRolloutRow;
  releases: string[];
  /** By region, when it was last heard from; null: never. */
  lastHeardMs: ReadonlyMap<string, number | null>;
}

export interface LookOptions {
  /** Of this registry. */
  region: string;
  listIn(db: RegistryDb): RegionList | null;
  nowMs: number;
  orderTakenWithinMs: number;
}

const rowOf = (db: RegistryDb, qb: RegistryQueries, id: string): RegionRolloutRow | undefined =>
  db.first(qb.selectFrom('region_rollouts').selectAll().where('region_rollout_id', '=', id));

const partRows = (db: RegistryDb, qb: RegistryQueries, id: string): RegionRolloutPartsTable[] =>
  db.all(
    qb
      .selectFrom('region_rollout_parts')
      .selectAll()
      .where('region_rollout_id', '=', id)
      .orderBy('stage')
      .orderBy('region'),
  );

/** Since when a region is cut off, as far as this one can know: nobody answers, or it does not take what it is told. */
function cutOffSince(
  part: RegionRolloutPartsTable,
  progress: RolloutProgress | null,
  link: { state: string; last_contact_ms: number | null } | undefined,
  options: LookOptions & { isMember: boolean; createdAtMs: number },
): number | null {
  if (part.region === options.region) return null;
  const isDown = link === undefined || link.state === 'unreachable' || !options.isMember;
  if (isDown) return link?.last_contact_ms ?? options.createdAtMs;
  const isTaken = (progress?.revision ?? 0) >= part.revision;
  return !isTaken && options.nowMs - part.wished_at_ms >= options.orderTakenWithinMs
    ? part.wished_at_ms
    : null;
}

export function readRegionRollout(
  db: RegistryDb,
  qb: RegistryQueries,
  id: string,
  options: LookOptions,
): RegionRolloutRecord | undefined {
  const row = rowOf(db, qb, id);
  if (row === undefined) return undefined;
  const members = new Set(options.listIn(db)?.regions.map(({ region }) => region));
  const links = new Map(
    db
      .all(qb.selectFrom('region_links').select(['region', 'state', 'last_contact_ms']))
      .map((link) => [link.region, link]),
  );
  const lastHeardMs = new Map<string, number | null>();
  const parts = partRows(db, qb, id).map((part): PartFact => {
    const progress = fromNullableColumn<RolloutProgress>(part.progress);
    const link = links.get(part.region);
    const heard = Math.max(link?.last_contact_ms ?? 0, part.heard_at_ms ?? 0);
    lastHeardMs.set(part.region, part.region === options.region ? options.nowMs : heard === 0 ? null : heard);
    return {
      ...{ region: part.region, stage: part.stage, wish: part.wish, progress },
      ...{ by: part.wished_by, reason: part.wish_reason, wishedAtMs: part.wished_at_ms },
      ...{ revision: part.revision, attempt: part.attempt, leftOut: part.left_out === 1 },
      succeededAtMs: part.succeeded_at_ms,
      unreachableSinceMs: cutOffSince(part, progress, link, {
        ...options,
        isMember: members.has(part.region),
        createdAtMs: row.created_at_ms,
      }),
    };
  });
  return {
    ...{ id, row, lastHeardMs, parts, nowMs: options.nowMs },
    ...{ state: row.state, reason: row.reason, endedAtMs: row.ended_at_ms },
    releases: fromColumn<string[]>(row.releases),
    soaksMs: fromColumn<number[]>(row.soaks),
    skipAfterMs: row.skip_after_ms,
  };
}

/** The order that a part stands for. */
export function orderOf(row: RegionRolloutRow, part: Omit<PartFact, 'unreachableSinceMs'>): RolloutOrder {
  const { revision, attempt, wish, by, reason } = part;
  return {
    schemaVersion: 1,
    orderId: row.region_rollout_id,
    ...{ revision, attempt, wish, by, reason: reason === null ? null : reason.slice(0, 1_000) },
    name: row.name,
    releases: fromColumn<string[]>(row.releases),
    file: row.file,
    startedBy: row.created_by,
  };
}

const nextNumber = (db: RegistryDb, qb: RegistryQueries): number =>
  (db.first(qb.selectFrom('region_rollout_parts').select((eb) => eb.fn.max('order_number').as('number')))
    ?.number ?? 0) + 1;

/** A part that was told something else stands at the end of the list of orders. */
export function writePart(db: RegistryDb, qb: RegistryQueries, id: string, part: PartFact): void {
  const columns = {
    ...{ stage: part.stage, wish: part.wish, wished_by: part.by, wish_reason: part.reason },
    ...{ wished_at_ms: part.wishedAtMs, revision: part.revision, attempt: part.attempt },
    ...{ left_out: part.leftOut ? 1 : 0, succeeded_at_ms: part.succeededAtMs },
  };
  const before = db.first(
    qb
      .selectFrom('region_rollout_parts')
      .select(['revision', 'order_number'])
      .where('region_rollout_id', '=', id)
      .where('region', '=', part.region),
  );
  const order_number = before?.revision === part.revision ? before.order_number : nextNumber(db, qb);
  db.run(
    qb
      .insertInto('region_rollout_parts')
      .values({
        ...{ region_rollout_id: id, region: part.region, progress: null, heard_at_ms: null },
        ...columns,
        order_number,
      })
      .onConflict((conflict) =>
        conflict.columns(['region_rollout_id', 'region']).doUpdateSet({ ...columns, order_number }),
      ),
  );
}

/** Stores what differs. Returns the parts that were told something else. */
export function writeNext(
  db: RegistryDb,
  qb: RegistryQueries,
  before: RegionRolloutFact,
  next: RegionRolloutNext,
): PartFact[] {
  const { state, reason, endedAtMs } = next;
  if (state !== before.state || reason !== before.reason || endedAtMs !== before.endedAtMs)
    db.run(
      qb
        .updateTable('region_rollouts')
        .set({ state, reason, ended_at_ms: endedAtMs })
        .where('region_rollout_id', '=', before.id),
    );
  const told: PartFact[] = [];
  for (const part of next.parts) {
    const old = before.parts.find(({ region }) => region === part.region);
    const isTold = old?.revision !== part.revision;
    if (!isTold && old.succeededAtMs === part.succeededAtMs && old.leftOut === part.leftOut) continue;
    writePart(db, qb, before.id, part);
    if (isTold) told.push(part);
  }
  return told;
}

/** What a region said. Returns whether there is such a part, and it did not speak of an attempt before the last one. */
export function writeProgress(
  db: RegistryDb,
  qb: RegistryQueries,
  region: string,
  progress: RolloutProgress,
  nowMs: number,
): boolean {
  const part = db.first(
    qb
      .selectFrom('region_rollout_parts')
      .select('progress')
      .where('region_rollout_id', '=', progress.orderId)
      .where('region', '=', region),
  );
  if (part === undefined) return false;
  const before = fromNullableColumn<RolloutProgress>(part.progress);
  if (before !== null && before.attempt > progress.attempt) return false;
  db.run(
    qb
      .updateTable('region_rollout_parts')
      .set({ progress: toColumn(progress), heard_at_ms: nowMs })
      .where('region_rollout_id', '=', progress.orderId)
      .where('region', '=', region),
  );
  return true;
}

export function writeRegionHistory(
  db: RegistryDb,
  qb: RegistryQueries,
  id: string,
  entry: { what: string; by: string | null; reason: string | null; atMs: number },
): void {
  const { what, by, reason, atMs } = entry;
  db.run(
    qb
      .insertInto('region_rollout_history')
      .values({ region_rollout_id: id, at_ms: atMs, what, user: by, reason }),
  );
}

export const readRegionHistory = (db: RegistryDb, qb: RegistryQueries, id: string) =>
  db.all(
    qb
      .selectFrom('region_rollout_history')
      .select(['what', 'user as by', 'reason', 'at_ms as atMs'])
      .where('region_rollout_id', '=', id)
      .orderBy('history_id'),
  );
