// Why: erasures between regions: each tells the others what it erased, keeps what they say and gives it back to one that was
// restored, and erases for another what it holds of that one's devices.
// Trusts: a peer's certificates only behind that peer's own roots. Must never: erase its own devices' records because another
// region says so.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { Log } from '../../shared/kernel/ports.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import {
  type Erasure,
  type ErasureItem,
  type ErasureRegions,
  type ErasureRequestItem,
  erasureItemSchema,
  erasureRequestItemSchema,
} from '../../shared/wire/erasure.ts';
import type { Audit, NewAuditEntry } from '../audit/audit.ts';
import type { IncomingStream, OutgoingStream } from '../regions/streams.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { ErasuresTable } from '../store/telemetry-tables.ts';
import { putOutIn, requestOf } from './erasure-outbox.ts';
import { type ErasureReplay, provenErasure } from './erasure-replay.ts';
import type { Withholding } from './withholding.ts';

/** What the rooms of regions know. */
export interface ErasurePeers {
  /** Regions that this one pulls from. */
  peersIn(db: RegistryDb): string[];
  /** Every root of a peer that was ever verified here. */
  rootsIn(db: RegistryDb, peer: string): RegionRoot[];
}

export interface ErasureExchange {
  outgoing: OutgoingStream[];
  incoming: IncomingStream[];
  /** Of those that were asked of every region, newest first. */
  acrossRegions(): Promise<ErasureRegions[]>;
}

const declinedReason = 'the device is enrolled in this region: an admin of it decides';

export function createErasureExchange(parts: {
  region: string;
  store: RegistryStore;
  clock: { wall(): number };
  log: Log;
  audit: Pick<Audit, 'appendIn'>;
  withholding: Withholding;
  peers: ErasurePeers;
  replay: ErasureReplay;
  resume(): Promise<void>;
  /** Runs it beside everything else; a failure is logged and a start tries again. */
  background(what: string, work: () => Promise<void>): void;
}): ErasureExchange {
  const { region, store, clock, log, peers, replay } = parts;
  const { qb } = store;

  const outgoing = (name: 'erasures' | 'erasure-requests'): OutgoingStream => ({
    name,
    flow: 'erasures',
    readIn: (db, peer, after, limit) =>
      db
        .all(
          qb
            .selectFrom('erasure_outbox')
            .select(['number', 'body'])
            .where('stream', '=', name)
            .where('number', '>', after)
            .where((eb) => eb.or([eb('peer', 'is', null), eb('peer', '=', peer)]))
            .orderBy('number')
            .limit(limit),
        )
        .map(({ number, body }) => ({ id: number, body: JSON.parse(body) as unknown })),
  });

  function auditIn(
    db: RegistryDb,
    entry: Pick<NewAuditEntry, 'actor' | 'action' | 'outcome' | 'detail'>,
    subject: string,
    code: string | null,
  ): void {
    const rest = { reason: null, rule: null, address: null, via: 'region' as const };
    parts.audit.appendIn(db, { ...entry, ...rest, subject, code });
  }

  /** A certificate of a peer is kept, and offered to it should it ever need it. */
  function keepIn(db: RegistryDb, peer: string, erasure: Erasure): void {
    const roots = peers.rootsIn(db, peer);
    // The place in its list stays, so that nothing is passed over that may be proven in a minute.
    if (roots.length === 0)
      throw new FleetError('metadata-missing', `no root of region ${peer} is known yet`);
    const proven = provenErasure(erasure, peer, roots);
    if (!proven.ok) {
      log.emit('error', 'erasure.unproven', { peer, detail: proven.refusal.detail });
      return;
    }
    const { erasureId, deviceId, untilMs, doneAtMs } = proven.value;
    const kept = { statement: proven.value, certificate: erasure.certificate };
    const { changes } = db.run(
      qb
        .insertInto('peer_erasures')
        .values({
          ...{ region: peer, erasure_id: erasureId, device_id: deviceId, until_ms: untilMs },
          ...{ done_at_ms: doneAtMs, certificate: JSON.stringify(kept), received_at_ms: clock.wall() },
        })
        .onConflict((conflict) => conflict.doNothing()),
    );
    if (changes > 0) putOutIn(db, qb, { kind: 'returned', erasure: kept }, peer);
  }

  function declinedIn(db: RegistryDb, peer: string, erasureId: string, reason: string): void {
    const asked = qb
      .selectFrom('erasure_requests')
      .select('declined')
      .where('region', '=', region)
      .where('erasure_id', '=', erasureId);
    const row = db.first(asked);
    if (row === undefined) return;
    const declined = JSON.stringify({ ...(JSON.parse(row.declined) as object), [peer]: reason });
    db.run(
      qb
        .updateTable('erasure_requests')
        .set({ declined })
        .where('region', '=', region)
        .where('erasure_id', '=', erasureId),
    );
  }

  function returnedIn(db: RegistryDb, peer: string, erasure: Erasure): void {
    const replayed = replay.replayIn(db, erasure, 'peer');
    if (!replayed.ok) log.emit('error', 'erasure.unproven', { peer, detail: replayed.refusal.detail });
  }

  function allReturnedIn(db: RegistryDb, peer: string, incarnation: string): void {
    const setting = qb.selectFrom('settings').select('value').where('key', '=', 'incarnation');
    // Of a life before this one it says nothing about what this one lacks.
    if (db.first(setting)?.value !== incarnation) return;
    parts.withholding.heardIn(db, peer, peers.peersIn(db));
  }

  function takeErasureIn(db: RegistryDb, peer: string, item: ErasureItem): void {
    if (item.kind === 'erased') keepIn(db, peer, item.erasure);
    else if (item.kind === 'returned') returnedIn(db, peer, item.erasure);
    else if (item.kind === 'all-returned') allReturnedIn(db, peer, item.incarnation);
    else declinedIn(db, peer, item.erasureId, item.reason);
  }

  function takeRequestIn(db: RegistryDb, peer: string, item: ErasureRequestItem): void {
    if (item.kind === 'restored') {
      putOutIn(db, qb, { kind: 'all-returned', incarnation: item.incarnation }, peer);
      return;
    }
    const { erasureId, deviceId, untilMs, requestedBy, reason, askedAtMs } = item;
    const row: ErasuresTable = {
      ...{ erasure_id: erasureId, device_id: deviceId, until_ms: Math.min(untilMs, clock.wall() + 1) },
      ...{ requested_by: `region:${peer}/${requestedBy}`.slice(0, 128), reason },
      ...{ begun_at_ms: askedAtMs, certificate: null },
    };
    const { changes } = db.run(
      qb
        .insertInto('erasure_requests')
        .values({ region: peer, ...requestOf(row) })
        .onConflict((conflict) => conflict.doNothing()),
    );
    if (changes === 0) return;
    const device = qb.selectFrom('devices').select('moved_to').where('device_id', '=', deviceId);
    const about = { actor: `region:${peer}`, detail: { erasureId, requestedBy } };
    // A stolen region commands its own devices only, and deletes no others' records either. One that moved there is its own.
    const here = db.first(device);
    if (here !== undefined && here.moved_to !== peer) {
      putOutIn(db, qb, { kind: 'declined', erasureId, reason: declinedReason }, peer);
      auditIn(
        db,
        { ...about, action: 'telemetry.erasure.request', outcome: 'refused' },
        deviceId,
        'erasure-declined',
      );
      log.emit('warn', 'erasure.declined', { peer, deviceId, erasureId });
      return;
    }
    // Where one of ours has this id, by chance or by intent, that one stays what it is.
    db.run(
      qb
        .insertInto('erasures')
        .values(row)
        .onConflict((conflict) => conflict.doNothing()),
    );
    auditIn(db, { ...about, action: 'telemetry.erasure.request', outcome: 'done' }, deviceId, null);
  }

  return {
    outgoing: [outgoing('erasures'), outgoing('erasure-requests')],
    incoming: [
      {
        name: 'erasures',
        takeIn(db, peer, items) {
          for (const { body } of items) {
            const item = erasureItemSchema.safeParse(body);
            if (item.success) takeErasureIn(db, peer, item.data);
            else log.emit('error', 'erasure.unproven', { peer, detail: 'an item follows no schema' });
          }
        },
        taken: () =>
          parts.background('erasures of peers', async () => {
            await parts.withholding.reload();
            await replay.keysGone();
          }),
      },
      {
        name: 'erasure-requests',
        takeIn(db, peer, items) {
          for (const { body } of items) {
            const item = erasureRequestItemSchema.safeParse(body);
            if (item.success) takeRequestIn(db, peer, item.data);
            else log.emit('error', 'erasure.unproven', { peer, detail: 'a request follows no schema' });
          }
        },
        taken: () => parts.background('erasures for peers', parts.resume),
      },
    ],

    acrossRegions: () =>
      store.tx((db) => {
        const asked = db.all(
          qb
            .selectFrom('erasure_requests')
            .selectAll()
            .where('region', '=', region)
            .orderBy('asked_at_ms', 'desc'),
        );
        return asked.map((row): ErasureRegions => {
          const declined = JSON.parse(row.declined) as Record<string, string>;
          const done = db.all(
            qb
              .selectFrom('peer_erasures')
              .select(['region', 'done_at_ms as doneAtMs'])
              .where('device_id', '=', row.device_id)
              // Its own decision since then counts as much as ours.
              .where((eb) =>
                eb.or([eb('erasure_id', '=', row.erasure_id), eb('until_ms', '>=', row.until_ms)]),
              ),
          );
          const doneAt = new Map(done.map((one) => [one.region, one.doneAtMs]));
          const names = new Set([...peers.peersIn(db), ...doneAt.keys(), ...Object.keys(declined)]);
          return {
            ...{ erasureId: row.erasure_id, deviceId: row.device_id, untilMs: row.until_ms },
            ...{ requestedBy: row.requested_by, askedAtMs: row.asked_at_ms },
            regions: [...names].sort().map((name) => {
              const doneAtMs = doneAt.get(name) ?? null;
              const reason = declined[name] ?? null;
              const waits = reason === null ? 'asked' : 'declined';
              return { region: name, state: doneAtMs === null ? waits : 'done', doneAtMs, reason };
            }),
          };
        });
      }),
  };
}
