// Why: what the registry noticed and what devices reported: refusals, attacks, changes of standing.
// Trusts: its callers for source and subject. Must never: let strangers fill the disk or push out others' events.

import type { Clock } from '../../shared/kernel/ports.ts';
import type { FleetEvent } from '../../shared/wire/http.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import { fleetLimits } from './limits.ts';

export interface NewFleetEvent {
  source: FleetEvent['source'];
  /** Device id, claim id, or null where nobody could be named. */
  subject: string | null;
  code: string;
  detail: string;
  /** Default: now. */
  atMs?: number;
}

export interface FleetEvents {
  /** Inside a transaction, beside the change it is about. */
  recordIn(db: RegistryDb, event: NewFleetEvent): void;
  /** For what anybody on the network can cause: at most so many per code, the rest is counted. */
  recordStranger(event: NewFleetEvent): Promise<void>;
  /** Newest first; `before` is the id to go on from. */
  list(query: {
    subject?: string;
    code?: string;
    before?: number;
    sinceMs?: number;
    limit: number;
  }): Promise<FleetEvent[]>;
  /** Events of strangers that were counted and not stored. */
  dropped(): number;
}

const detailMax = 2_000;

export function createFleetEvents(parts: { store: RegistryStore; clock: Clock }): FleetEvents {
  const { store, clock } = parts;
  const { qb } = store;
  const buckets = new Map<string, { tokens: number; atMs: number }>();
  let dropped = 0;
  let sincePrune = 0;

  /** One token bucket for each code: a flood of one kind does not hide another. */
  function admit(code: string): boolean {
    const now = clock.mono();
    const bucket = buckets.get(code) ?? { tokens: fleetLimits.strangerEventsBurst, atMs: now };
    const refill = ((now - bucket.atMs) / 1_000) * fleetLimits.strangerEventsPerSecond;
    bucket.tokens = Math.min(fleetLimits.strangerEventsBurst, bucket.tokens + refill);
    bucket.atMs = now;
    buckets.set(code, bucket);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  function prune(db: RegistryDb): void {
    sincePrune += 1;
    if (sincePrune < fleetLimits.eventsPruneEvery) return;
    sincePrune = 0;
    const last = db.first(qb.selectFrom('fleet_events').select('id').orderBy('id', 'desc').limit(1));
    if (last !== undefined)
      db.run(qb.deleteFrom('fleet_events').where('id', '<=', last.id - fleetLimits.eventsKept));
  }

  function recordIn(db: RegistryDb, event: NewFleetEvent): void {
    db.run(
      qb.insertInto('fleet_events').values({
        at_ms: event.atMs ?? clock.wall(),
        subject: event.subject,
        source: event.source,
        code: event.code,
        detail: event.detail.slice(0, detailMax),
      }),
    );
    prune(db);
  }

  return {
    recordIn,

    async recordStranger(event) {
      if (!admit(event.code)) {
        dropped += 1;
        return;
      }
      await store.tx((db) => recordIn(db, event));
    },

    async list({ subject, code, before, sinceMs, limit }) {
      let query = qb.selectFrom('fleet_events').selectAll().orderBy('id', 'desc').limit(limit);
      if (subject !== undefined) query = query.where('subject', '=', subject);
      if (code !== undefined) query = query.where('code', '=', code);
      if (before !== undefined) query = query.where('id', '<', before);
      if (sinceMs !== undefined) query = query.where('at_ms', '>=', sinceMs);
      const rows = await store.tx((db) => db.all(query));
      return rows.map((row) => ({
        id: row.id,
        atMs: row.at_ms,
        subject: row.subject,
        source: row.source,
        code: row.code,
        detail: row.detail,
      }));
    },

    dropped: () => dropped,
  };
}
