// Why: what the registry noticed and what devices reported: refusals, attacks, changes of standing.
// Trusts: its callers for source and subject. Must never: let strangers fill the disk or push out others' events.

import { isErrorCode } from '../../shared/kernel/codes.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { isAttack } from '../../shared/trust/attacks.ts';
import type { FleetEvent } from '../../shared/wire/http.ts';
import type { FleetEventRow } from '../store/fleet-tables.ts';
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
  /** Default: what shared/trust/attacks.ts says of the code. */
  attack?: boolean;
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
    /** Those alone that mean that somebody tried something. */
    attacks?: boolean;
    before?: number;
    sinceMs?: number;
    limit: number;
  }): Promise<FleetEvent[]>;
  /** Events behind that one, the oldest first, and how many of them were removed already. */
  after(id: number, limit: number): Promise<{ list: FleetEvent[]; missed: number }>;
  /** Of the newest one; 0 where there is none. */
  lastId(): Promise<number>;
  /** Events of strangers that were counted and not stored. */
  dropped(): number;
  /** Attacks since the start by code, also those that were counted and not stored. */
  attacks(): ReadonlyMap<string, number>;
}

const detailMax = 2_000;

const viewOf = (row: FleetEventRow): FleetEvent => ({
  id: row.id,
  atMs: row.at_ms,
  subject: row.subject,
  source: row.source,
  code: row.code,
  detail: row.detail,
  attack: row.attack === 1,
});

export function createFleetEvents(parts: { store: RegistryStore; clock: Clock }): FleetEvents {
  const { store, clock } = parts;
  const { qb } = store;
  const buckets = new Map<string, { tokens: number; atMs: number }>();
  const attacks = new Map<string, number>();
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

  // What a publisher says against its own release is news here; at a device, somebody offered it all the same.
  const isPublishersWord = ({ source, code }: NewFleetEvent): boolean =>
    source === 'registry' && (code === 'release-withdrawn' || code === 'release-below-floor');
  const isAttackEvent = (event: NewFleetEvent): boolean =>
    event.attack ?? (isAttack(event.code) && !isPublishersWord(event));

  function countAttack({ code }: NewFleetEvent): void {
    // A device may write any code into its report; what is counted by name is ours.
    const name = isErrorCode(code) ? code : 'other';
    attacks.set(name, (attacks.get(name) ?? 0) + 1);
  }

  function recordIn(db: RegistryDb, event: NewFleetEvent): void {
    const attack = isAttackEvent(event);
    if (attack) {
      countAttack(event);
      db.run(
        qb
          .updateTable('devices')
          .set((eb) => ({ attacks: eb('attacks', '+', 1) }))
          .where('device_id', '=', event.subject),
      );
    }
    db.run(
      qb.insertInto('fleet_events').values({
        at_ms: event.atMs ?? clock.wall(),
        subject: event.subject,
        source: event.source,
        code: event.code,
        detail: event.detail.slice(0, detailMax),
        attack: attack ? 1 : 0,
      }),
    );
    prune(db);
  }

  return {
    recordIn,

    async recordStranger(event) {
      if (!admit(event.code)) {
        dropped += 1;
        if (isAttackEvent(event)) countAttack(event);
        return;
      }
      await store.tx((db) => recordIn(db, event));
    },

    async list({ subject, code, attacks: only, before, sinceMs, limit }) {
      let query = qb.selectFrom('fleet_events').selectAll().orderBy('id', 'desc').limit(limit);
      if (subject !== undefined) query = query.where('subject', '=', subject);
      if (code !== undefined) query = query.where('code', '=', code);
      if (only === true) query = query.where('attack', '=', 1);
      if (before !== undefined) query = query.where('id', '<', before);
      if (sinceMs !== undefined) query = query.where('at_ms', '>=', sinceMs);
      const rows = await store.tx((db) => db.all(query));
      return rows.map(viewOf);
    },

    async after(id, limit) {
      const query = qb.selectFrom('fleet_events').selectAll().where('id', '>', id).orderBy('id').limit(limit);
      const list = (await store.tx((db) => db.all(query))).map(viewOf);
      // Ids are given out one by one, and the oldest events go first.
      return { list, missed: Math.max(0, (list[0]?.id ?? id + 1) - id - 1) };
    },

    async lastId() {
      const last = qb.selectFrom('fleet_events').select('id').orderBy('id', 'desc').limit(1);
      return (await store.tx((db) => db.first(last)))?.id ?? 0;
    },

    dropped: () => dropped,
    attacks: () => attacks,
  };
}
