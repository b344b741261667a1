// Why: regions keep each other's signed audit heads: one that rewrites its record afterwards, however consistently, cannot
// rewrite what its neighbours hold. Trusts: of a head nothing before a key of its region's root stands behind it.
// Must never: forget a head that contradicts another, or raise one contradiction twice.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import { checkAuditHead } from '../../shared/trust/audit.ts';
import type { RoleKeys } from '../../shared/trust/tuf/metadata.ts';
import type { AuditHead, AuditPeerHead } from '../../shared/wire/audit.ts';
import { describeIssues, type Envelope, envelopeSchema } from '../../shared/wire/messages.ts';
import type { FleetEvents } from '../fleet/events.ts';
import { createRate } from '../fleet/rate.ts';
import type { IncomingStream, OutgoingStream } from '../regions/streams.ts';
import type { PeerAuditHeadsTable } from '../store/audit-tables.ts';
import { type RegistryDb, type RegistryStore, sql } from '../store/open.ts';
import type { Audit } from './audit.ts';
import { auditLimits } from './limits.ts';

/** The `ack` roles of that region's roots, also of earlier ones; null where none is known. Asked inside a transaction. */
export type RegionKeyOf = (region: string, db: RegistryDb) => readonly RoleKeys[] | null;

type Conflict = 'audit-head-equivocation' | 'audit-head-rollback' | 'audit-head-time-backwards';

const streamName = 'audit-heads';
const thinEvery = 256;
const dayMs = 86_400_000;

/** Own signed heads, for every peer that the policy lets have them. */
export function outgoingAuditHeads(store: RegistryStore): OutgoingStream {
  const { qb } = store;
  return {
    name: streamName,
    flow: 'audit-heads',
    readIn(db, _peer, after, limit) {
      const page = qb
        .selectFrom('audit_heads')
        .select(['sequence', 'envelope'])
        .where('sequence', '>', after)
        .orderBy('sequence')
        .limit(limit);
      return db.all(page).map(({ sequence, envelope }) => ({ id: sequence, body: JSON.parse(envelope) }));
    },
  };
}

/** What is held of others, for exports. */
export interface HeldPeerHeads {
  pages(): AsyncGenerator<AuditPeerHead[]>;
}

export function heldPeerHeads(store: RegistryStore): HeldPeerHeads {
  const { qb } = store;
  return {
    async *pages() {
      let last: { region: string; statement_sha256: string } | null = null;
      for (;;) {
        let page = qb
          .selectFrom('peer_audit_heads')
          .selectAll()
          .orderBy('region')
          .orderBy('statement_sha256')
          .limit(auditLimits.exportEntries);
        if (last !== null) {
          const { region, statement_sha256: sha256 } = last;
          page = page.where((eb) =>
            eb.or([
              eb('region', '>', region),
              eb.and([eb('region', '=', region), eb('statement_sha256', '>', sha256)]),
            ]),
          );
        }
        const rows: PeerAuditHeadsTable[] = await store.tx((db) => db.all(page));
        last = rows.at(-1) ?? null;
        if (last === null) return;
        yield rows.map((row) => ({
          region: row.region,
          receivedAtMs: row.received_at_ms,
          conflict: row.conflict,
          envelope: JSON.parse(row.envelope),
        }));
      }
    },
  };
}

type Place = Pick<PeerAuditHeadsTable, 'sequence' | 'entries' | 'head_sha256' | 'at_ms'>;

const wordsOf = (place: Place): string =>
  `head ${place.sequence} (${place.entries} entries, ${place.head_sha256.slice(0, 16)}…)`;

/** How two heads of one region contradict each other; null where both can be true. */
function conflictBetween(one: Place, other: Place): Conflict | null {
  const [before, after] = one.sequence <= other.sequence ? [one, other] : [other, one];
  const same = before.entries === after.entries;
  if (same && before.head_sha256 !== after.head_sha256) return 'audit-head-equivocation';
  if (before.sequence === after.sequence) return same ? null : 'audit-head-equivocation';
  if (after.entries < before.entries) return 'audit-head-rollback';
  return after.at_ms < before.at_ms ? 'audit-head-time-backwards' : null;
}

export function incomingAuditHeads(parts: {
  store: RegistryStore;
  audit: Pick<Audit, 'appendIn'>;
  events: Pick<FleetEvents, 'recordIn'>;
  regionKeyOf: RegionKeyOf;
  clock: Clock;
}): IncomingStream {
  const { store, audit, events, regionKeyOf, clock } = parts;
  const { qb } = store;
  const faults = createRate(clock, auditLimits.peerFaults);
  const sinceThin = new Map<string, number>();

  function noteIn(db: RegistryDb, peer: string, code: Conflict | 'audit-head-invalid', detail: string): void {
    // A region that goes wrong for good fills neither the record nor the list of events.
    if (!faults.admit(peer)) return;
    events.recordIn(db, { source: 'registry', subject: peer, code, detail, attack: true });
    audit.appendIn(db, {
      actor: `region:${peer}`,
      via: 'region',
      action: 'audit.head.take',
      subject: peer,
      reason: null,
      outcome: 'refused',
      code,
      rule: null,
      address: null,
      detail: { what: detail },
    });
  }

  /** The heads that a new one must go together with: those beside it in the order, and those of its own count. */
  function besideIn(db: RegistryDb, region: string, head: AuditHead): Place[] {
    const of = qb
      .selectFrom('peer_audit_heads')
      .select(['sequence', 'entries', 'head_sha256', 'at_ms'])
      .where('region', '=', region);
    // What contradicted the others already is no measure of what follows.
    const sound = of.where('conflict', 'is', null).limit(1);
    return [
      ...db.all(of.where('entries', '=', head.entries).limit(8)),
      ...db.all(of.where('sequence', '=', head.sequence).limit(8)),
      ...db.all(sound.where('sequence', '<', head.sequence).orderBy('sequence', 'desc')),
      ...db.all(sound.where('sequence', '>', head.sequence).orderBy('sequence')),
    ];
  }

  /** All for some weeks, then the last of each day; what contradicts stays. */
  function thinIn(db: RegistryDb, region: string): void {
    const taken = sinceThin.get(region) ?? thinEvery;
    sinceThin.set(region, taken >= thinEvery ? 1 : taken + 1);
    if (taken < thinEvery) return;
    const oldMs = clock.wall() - auditLimits.peerHeadsAllMs;
    // Written into the query: as a parameter it would be no whole number, nor the quotient.
    const day = sql<number>`at_ms / ${sql.lit(dayMs)}`;
    const lastOfDays = qb
      .selectFrom('peer_audit_heads')
      .select((eb) => eb.fn.max('sequence').as('sequence'))
      .where('region', '=', region)
      .groupBy(day);
    const sound = qb
      .deleteFrom('peer_audit_heads')
      .where('region', '=', region)
      .where('conflict', 'is', null);
    db.run(sound.where('received_at_ms', '<', oldMs).where('sequence', 'not in', lastOfDays));
    const beyond = db.first(
      qb
        .selectFrom('peer_audit_heads')
        .select('sequence')
        .where('region', '=', region)
        .orderBy('sequence', 'desc')
        .limit(1)
        .offset(auditLimits.peerHeadsMax),
    );
    if (beyond !== undefined)
      db.run(
        qb
          .deleteFrom('peer_audit_heads')
          .where('region', '=', region)
          .where('sequence', '<=', beyond.sequence),
      );
  }

  function storeIn(db: RegistryDb, peer: string, head: AuditHead, envelope: Envelope): void {
    const statementSha256 = sha256Hex(Buffer.from(envelope.payload, 'base64'));
    const known = qb
      .selectFrom('peer_audit_heads')
      .select('sequence')
      .where('region', '=', peer)
      .where('statement_sha256', '=', statementSha256);
    if (db.first(known) !== undefined) return;
    const place = {
      sequence: head.sequence,
      entries: head.entries,
      head_sha256: head.headSha256,
      at_ms: head.atMs,
    };
    const found = besideIn(db, peer, head)
      .map((other) => ({ other, code: conflictBetween(place, other) }))
      .find(({ code }) => code !== null);
    const conflict = found?.code ?? null;
    db.run(
      qb.insertInto('peer_audit_heads').values({
        region: peer,
        statement_sha256: statementSha256,
        ...place,
        envelope: JSON.stringify(envelope),
        received_at_ms: clock.wall(),
        conflict,
      }),
    );
    if (found !== undefined && conflict !== null)
      noteIn(
        db,
        peer,
        conflict,
        `${wordsOf(place)} and ${wordsOf(found.other)} of ${peer} cannot both be true`,
      );
    thinIn(db, peer);
  }

  return {
    name: streamName,
    takeIn(db, peer, items) {
      if (items.length === 0) return;
      const keys = regionKeyOf(peer, db);
      // Its root comes another way; until then its heads wait at their source.
      if (keys === null)
        throw new FleetError('audit-head-unverified', `no root of region ${peer} is known here`);
      for (const { id, body } of items) {
        const envelope = envelopeSchema.safeParse(body);
        if (!envelope.success) {
          const issues = describeIssues(envelope.error);
          noteIn(db, peer, 'audit-head-invalid', `item ${id} of ${peer} is no envelope: ${issues}`);
          continue;
        }
        const head = checkAuditHead(envelope.data, peer, keys);
        if (head.ok) storeIn(db, peer, head.value, envelope.data);
        else noteIn(db, peer, 'audit-head-invalid', `item ${id} of ${peer}: ${head.refusal.detail}`);
      }
    },
  };
}
