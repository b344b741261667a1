// Why: orders that other regions (and this one) gave this region: kept, acted on through the same functions as people's
// words, and told back as progress. Trusts: order-decision.ts for what is to be done.
// Must never: begin a rollout that the policy does not let in, or the same one twice.

import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  type RolloutOrder,
  type RolloutProgress,
  rolloutOrderSchema,
} from '../../shared/wire/rollout-orders.ts';
import type { Audit } from '../audit/audit.ts';
import type { Releases } from '../catalog/releases.ts';
import { fromColumn, fromNullableColumn, toColumn } from '../fleet/columns.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { Decision } from '../policy/flows.ts';
import { parseRolloutFile } from '../rollout/file.ts';
import type { Rollouts } from '../rollout/rollouts.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { RegionOrdersTable } from '../store/order-tables.ts';
import { barredInCatalogue } from './mirror-barred.ts';
import {
  decide,
  type OrderAction,
  type OrderFacts,
  type OwnStatus,
  progressOf,
  type Verdict,
} from './order-decision.ts';
import { ordererOf, ownRolloutId, readEarlier, readOwn } from './own-rollouts.ts';
import type { IncomingStream, OutgoingStream } from './streams.ts';

/** Whether that region may order a rollout of a release here. */
export type MayOrder = (from: string, release: string) => Promise<Decision>;

export interface TakenOrders {
  incoming: IncomingStream;
  outgoing: OutgoingStream;
  /** An order of this region to itself, in the transaction in which it is given. */
  takeIn(db: RegistryDb, from: string, order: RolloutOrder): void;
  /** Does what is to be done, and writes what is to be told. Returns whether anything is under way still. */
  work(): Promise<boolean>;
}

export interface TakenOrdersParts {
  region: string;
  store: RegistryStore;
  releases: Pick<Releases, 'find'>;
  rollouts: Pick<Rollouts, 'begin' | 'pause' | 'resume' | 'abort'>;
  events: Pick<FleetEvents, 'recordIn'>;
  mayOrder: MayOrder;
  audit: Pick<Audit, 'appendIn'>;
  clock: Clock;
  log: Log;
  /** Progress of an order that this region gave itself. */
  heardIn(db: RegistryDb, progress: RolloutProgress): void;
  /** Orders of another region were taken. */
  taken(): void;
}

/** Orders of one region that are under way at one time: the others are not taken. */
const openMax = 1_000;
/** Things done about one order in one round: a word of people here may come between any two. */
const actionsMax = 8;

interface Key {
  coordinator: string;
  orderId: string;
}

export function createTakenOrders(parts: TakenOrdersParts): TakenOrders {
  const { region, store, releases, rollouts, clock, log } = parts;
  const { qb } = store;

  const rowIn = (db: RegistryDb, { coordinator, orderId }: Key): RegionOrdersTable | undefined =>
    db.first(
      qb
        .selectFrom('region_orders')
        .selectAll()
        .where('coordinator', '=', coordinator)
        .where('order_id', '=', orderId),
    );

  function changeIn(db: RegistryDb, key: Key, change: Partial<RegionOrdersTable>): void {
    db.run(
      qb
        .updateTable('region_orders')
        .set(change)
        .where('coordinator', '=', key.coordinator)
        .where('order_id', '=', key.orderId),
    );
  }

  const openOf = (db: RegistryDb, coordinator: string): number =>
    db.all(
      qb
        .selectFrom('region_orders')
        .select('order_id')
        .where('coordinator', '=', coordinator)
        .where('settled', '=', 0),
    ).length;

  /** Keeps the newest revision. */
  function takeIn(db: RegistryDb, coordinator: string, order: RolloutOrder): void {
    const { orderId, revision, attempt } = order;
    const before = rowIn(db, { coordinator, orderId });
    if (before !== undefined && before.revision >= revision) return;
    if (before === undefined && openOf(db, coordinator) >= openMax) {
      passOver(coordinator, `more than ${openMax} orders of it are under way`);
      return;
    }
    const isOther = before !== undefined && before.attempt !== attempt;
    const columns = {
      ...{ revision, attempt, body: toColumn(order), taken_at_ms: clock.wall(), settled: 0 },
      ...(isOther ? { verdict: null, code: null, rule: null, detail: null } : {}),
    };
    db.run(
      qb
        .insertInto('region_orders')
        .values({
          ...{ coordinator, order_id: orderId, acted: 0, progress: null, progress_number: null },
          ...{ verdict: null, code: null, rule: null, detail: null },
          ...columns,
        })
        .onConflict((conflict) => conflict.columns(['coordinator', 'order_id']).doUpdateSet(columns)),
    );
    const { wish } = order;
    log.emit('info', 'regions.order.taken', { from: coordinator, orderId, revision, attempt, wish });
  }

  function passOver(from: string, detail: string): void {
    log.emit('warn', 'regions.order.refused', { from, code: 'order-invalid', detail });
  }

  const orderOf = (row: Pick<RegionOrdersTable, 'body'>): RolloutOrder => fromColumn<RolloutOrder>(row.body);

  function verdictOf({ verdict, code, rule, detail }: RegionOrdersTable): Verdict | null {
    // Written below, from a refusal.
    return verdict === null
      ? null
      : { kind: verdict, code: code as Refusal['code'], rule, detail: detail ?? '' };
  }

  function factsIn(
    db: RegistryDb,
    key: Key,
  ): (OrderFacts & { order: RolloutOrder; own: OwnStatus | null }) | null {
    const row = rowIn(db, key);
    if (row === undefined) return null;
    const at = { ...key, region, attempt: row.attempt };
    return {
      order: orderOf(row),
      acted: row.acted,
      own: readOwn(db, qb, ownRolloutId(at)),
      earlier: readEarlier(db, qb, at),
      verdict: verdictOf(row),
    };
  }

  /** Null: it may begin, or go on. */
  async function objection(coordinator: string, order: RolloutOrder): Promise<Verdict | null> {
    for (const release of order.releases) {
      const { allowed, rule, reason } = await parts.mayOrder(coordinator, release);
      if (!allowed) return { kind: 'refused', code: 'policy-denied', rule, detail: reason };
    }
    for (const release of order.releases) {
      const found = release.includes('@') ? await releases.find(release) : null;
      if (found !== null || !release.includes('@')) continue;
      const { wanted, barred } = await store.tx((db) => ({
        wanted: db.first(
          qb
            .selectFrom('mirror_releases')
            .select(['state', 'code', 'detail'])
            .where('release_id', '=', release),
        ),
        barred: barredInCatalogue(db, qb, release),
      }));
      // It never comes: to wait for it would be for good.
      if (barred !== null) return { kind: 'refused', rule: null, ...barred };
      if (wanted?.state === 'refused')
        return {
          ...{ kind: 'refused', rule: null, detail: `${release}: ${wanted.detail ?? ''}` },
          code: (wanted.code ?? 'policy-denied') as Refusal['code'],
        };
      return {
        kind: 'waits',
        code: 'mirror-incomplete',
        rule: null,
        detail: `${release} is not all here yet`,
      };
    }
    return null;
  }

  async function begin(key: Key, order: RolloutOrder): Promise<Verdict | null> {
    const against = await objection(key.coordinator, order);
    if (against !== null) return against;
    const file = parseRolloutFile(order.file);
    const id = ownRolloutId({ ...key, region, attempt: order.attempt });
    const begun = file.ok
      ? await rollouts.begin(file.value, ordererOf(key.coordinator, order.startedBy), id)
      : file;
    return begun.ok ? null : { kind: 'refused', rule: null, ...begun.refusal };
  }

  function note(db: RegistryDb, key: Key, order: RolloutOrder, verdict: Verdict | null): void {
    const { wish, revision, attempt } = order;
    const refused = verdict?.kind === 'refused' ? verdict : null;
    const fields = { from: key.coordinator, orderId: key.orderId, revision, attempt, wish };
    if (refused === null) log.emit('info', 'regions.order.acted', fields);
    else {
      const { code, detail, rule } = refused;
      log.emit('warn', 'regions.order.refused', { ...fields, code, detail, rule });
      parts.events.recordIn(db, {
        source: 'registry',
        subject: null,
        code,
        detail: `order ${key.orderId} of region ${key.coordinator} (${order.name}${rule === null ? '' : `, rule ${rule}`}): ${detail}`,
      });
    }
    parts.audit.appendIn(db, {
      actor: ordererOf(key.coordinator, order.by ?? order.startedBy),
      via: 'region',
      action: `rollouts.order.${wish}`,
      subject: ownRolloutId({ ...key, region, attempt }),
      reason: order.reason,
      outcome: refused === null ? 'done' : 'refused',
      code: refused?.code ?? null,
      rule: refused?.rule ?? null,
      address: null,
      detail: { orderId: key.orderId, revision, attempt },
    });
  }

  /** The revision was acted on, or (`waits`) is looked at again. */
  async function settle(key: Key, order: RolloutOrder, verdict: Verdict | null): Promise<void> {
    const acted = verdict?.kind === 'waits' ? {} : { acted: order.revision };
    const columns = {
      verdict: verdict?.kind ?? null,
      code: verdict?.code ?? null,
      rule: verdict?.rule ?? null,
      detail: verdict?.detail ?? null,
    };
    await store.tx((db) => {
      // Another attempt may have come meanwhile: what was found is not about that one.
      if (rowIn(db, key)?.attempt !== order.attempt) return;
      changeIn(db, key, { ...columns, ...acted });
      if (verdict?.kind === 'waits' || order.wish === 'wait') return;
      // A refusal that stands is told once, with the word that it refused.
      note(db, key, order, order.wish === 'run' ? verdict : null);
    });
  }

  async function doIt(key: Key, order: RolloutOrder, action: OrderAction): Promise<Verdict | null> {
    const by = ordererOf(key.coordinator, order.by);
    const said = async (work: Promise<Result<unknown>>): Promise<null> => {
      const done = await work;
      // Somebody here was faster: the next look says what is left to do.
      if (!done.ok && done.refusal.code !== 'rollout-state')
        log.emit('warn', 'regions.order.refused', { orderId: key.orderId, ...done.refusal });
      return null;
    };
    switch (action.do) {
      case 'nothing':
        return null;
      case 'begin':
        return begin(key, order);
      case 'wait':
        return {
          kind: 'waits',
          rule: null,
          ...refuse('rollout-state', 'the attempt before goes back').refusal,
        };
      case 'pause':
        return said(rollouts.pause(action.rollout, by, order.reason));
      case 'resume': {
        const against = await objection(key.coordinator, order);
        return against ?? said(rollouts.resume(action.rollout, by, order.reason));
      }
      case 'abort':
        return said(rollouts.abort(action.rollout, by, action.revert));
    }
  }

  async function act(key: Key): Promise<void> {
    for (let count = 0; count < actionsMax; count += 1) {
      const facts = await store.tx((db) => factsIn(db, key));
      if (facts === null) return;
      const { order, acted, own, verdict } = facts;
      const action = decide(facts);
      if (action.do === 'nothing') {
        // What was refused stays so until another attempt, whatever is said about it.
        const kept = own === null && verdict?.kind === 'refused' ? verdict : null;
        if (acted < order.revision) await settle(key, order, kept);
        return;
      }
      const against = await doIt(key, order, action);
      if (against === null) continue;
      await settle(key, order, against);
      return;
    }
  }

  /** Writes what the coordinating region is told, where it differs from what it was told before. */
  function tellIn(db: RegistryDb, key: Key): boolean {
    const row = rowIn(db, key);
    const facts = factsIn(db, key);
    if (row === undefined || facts === null) return false;
    const progress = progressOf(facts, facts.own, clock.wall());
    const before = fromNullableColumn<RolloutProgress>(row.progress);
    const action = decide(facts);
    const settled = action.do === 'nothing' && action.settled;
    if (before !== null && toColumn({ ...before, atMs: 0 }) === toColumn({ ...progress, atMs: 0 })) {
      if (settled) changeIn(db, key, { settled: 1 });
      return !settled;
    }
    const last = db.first(
      qb.selectFrom('region_orders').select((eb) => eb.fn.max('progress_number').as('number')),
    );
    changeIn(db, key, {
      progress: toColumn(progress),
      progress_number: (last?.number ?? 0) + 1,
      ...(settled ? { settled: 1 } : {}),
    });
    if (key.coordinator === region) parts.heardIn(db, progress);
    return !settled;
  }

  return {
    takeIn,

    incoming: {
      name: 'rollout-orders',
      takeIn(db, peer, items) {
        for (const { body } of items) {
          const parsed = rolloutOrderSchema.safeParse(body);
          if (parsed.success) takeIn(db, peer, parsed.data);
          else passOver(peer, 'an order that does not parse');
        }
      },
      taken: () => parts.taken(),
    },

    outgoing: {
      name: 'rollout-progress',
      flow: 'rollout-progress',
      readIn: (db, peer, after, limit) =>
        db
          .all(
            qb
              .selectFrom('region_orders')
              .select(['progress_number', 'progress'])
              .where('coordinator', '=', peer)
              .where('progress_number', '>', after)
              .orderBy('progress_number')
              .limit(limit),
          )
          .map((row) => ({ id: row.progress_number ?? 0, body: fromNullableColumn(row.progress) })),
    },

    async work() {
      const open = await store.tx((db) =>
        db.all(
          qb
            .selectFrom('region_orders')
            .select(['coordinator', 'order_id as orderId', 'revision', 'acted'])
            .where('settled', '=', 0)
            .orderBy('taken_at_ms')
            .orderBy('order_id'),
        ),
      );
      let isOpen = false;
      for (const { revision, acted, ...key } of open) {
        if (acted < revision) await act(key);
        isOpen = (await store.tx((db) => tellIn(db, key))) || isOpen;
      }
      return isOpen;
    },
  };
}
