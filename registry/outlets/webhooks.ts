// Why: tells whoever wants to know of events, in order, at least once, however long they could not be reached: each
// webhook has a place in the list of events and goes on from there. Trusts: the store for events and places.
// Must never: let a webhook that does not answer hold up another, or hand out an event that its place does not know of.

import { hmacSha256 } from '../../shared/crypto/digests.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy, HttpPost, Log, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { FleetEvent } from '../../shared/wire/http.ts';
import { encodeMessage, schemaVersion } from '../../shared/wire/messages.ts';
import type { WebhookCreated, WebhookDelivery, WebhookView } from '../../shared/wire/webhooks.ts';
import { fromColumn, toColumn } from '../fleet/columns.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { RegistryStore } from '../store/open.ts';
import type { WebhooksTable } from '../store/outlet-tables.ts';

export interface Webhooks {
  add(wanted: { url: string; codes: readonly string[]; createdBy: string }): Promise<WebhookCreated>;
  list(): Promise<WebhookView[]>;
  /** Refusal: `not-found`. */
  remove(id: string): Promise<Result<WebhookView>>;
  start(): void;
  /** Breaks off what is under way; it is posted again after a start. Idempotent. */
  stop(): Promise<void>;
}

export const webhookLimits = {
  /** Between two looks for what is new. */
  lookMs: 1_000,
  /** Events in one delivery, and events that are looked through for it. */
  eventsPerDelivery: 50,
  lookedThrough: 1_000,
  answerMs: 15_000,
  /** After a failure, doubled with each up to the longest. */
  retryMsMin: 5_000,
  retryMsMax: 3_600_000,
} as const;

const viewOf = (row: WebhooksTable): WebhookView => ({
  id: row.webhook_id,
  url: row.url,
  codes: fromColumn<string[]>(row.codes),
  createdBy: row.created_by,
  createdAtMs: row.created_at_ms,
  failures: row.failures,
  lastError: row.last_error,
  deliveredAtMs: row.delivered_at_ms,
  nextAtMs: row.failures === 0 ? null : row.next_at_ms,
});

const wants = (codes: readonly string[], { code }: FleetEvent): boolean =>
  codes.length === 0 || codes.some((beginning) => code.startsWith(beginning));

export function createWebhooks(parts: {
  region: string;
  store: RegistryStore;
  events: Pick<FleetEvents, 'after' | 'lastId'>;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  post: HttpPost;
}): Webhooks {
  const { region, store, events, clock, entropy, log, post } = parts;
  const limits = webhookLimits;
  const { qb } = store;
  let timer: Timer | null = null;
  const stopping = new AbortController();
  let looking: Promise<void> = Promise.resolve();
  /** Of each webhook, what is under way. */
  const working = new Map<string, Promise<void>>();

  const all = (): Promise<WebhooksTable[]> =>
    store.tx((db) => db.all(qb.selectFrom('webhooks').selectAll().orderBy('created_at_ms')));

  async function moved(id: string, change: Partial<WebhooksTable>): Promise<void> {
    await store.tx((db) => db.run(qb.updateTable('webhooks').set(change).where('webhook_id', '=', id)));
  }

  /** What comes after its place: what it wants of it, and the place behind what was looked through. */
  async function due(row: WebhooksTable) {
    const codes = fromColumn<string[]>(row.codes);
    const { list, missed } = await events.after(row.last_event_id, limits.lookedThrough);
    const wanted: FleetEvent[] = [];
    let place = row.last_event_id;
    for (const event of list) {
      if (wanted.length === limits.eventsPerDelivery) break;
      place = event.id;
      if (wants(codes, event)) wanted.push(event);
    }
    return { wanted, missed, place };
  }

  /** As Standard Webhooks 1.0 has it. */
  async function send(row: WebhooksTable, delivery: WebhookDelivery, place: number): Promise<Result<number>> {
    const id = `${row.webhook_id}.${place}`;
    const seconds = Math.floor(clock.wall() / 1_000);
    const body = encodeMessage(delivery);
    const signed = Buffer.concat([Buffer.from(`${id}.${seconds}.`), body]);
    const signature = Buffer.from(hmacSha256(new Uint8Array(row.secret), signed)).toString('base64');
    return post(row.url, {
      headers: {
        'content-type': 'application/json',
        'user-agent': 'lepton-registry',
        'webhook-id': id,
        'webhook-timestamp': String(seconds),
        'webhook-signature': `v1,${signature}`,
      },
      body,
      timeoutMs: limits.answerMs,
      signal: stopping.signal,
    });
  }

  async function failed(row: WebhooksTable, why: string): Promise<void> {
    const failures = row.failures + 1;
    const waitMs = Math.min(limits.retryMsMax, limits.retryMsMin * 2 ** Math.min(30, failures - 1));
    log.emit('warn', 'webhook.failed', { webhook: row.webhook_id, failures, detail: why });
    await moved(row.webhook_id, {
      failures,
      next_at_ms: clock.wall() + waitMs,
      last_error: why.slice(0, 500),
    });
  }

  async function deliver(row: WebhooksTable): Promise<void> {
    const { wanted, missed, place } = await due(row);
    if (place === row.last_event_id) return;
    if (wanted.length === 0 && missed === 0) return moved(row.webhook_id, { last_event_id: place });
    const answered = await send(row, { schemaVersion, region, events: wanted, missed }, place);
    // Whether it was taken is not known: its place stays.
    if (stopping.signal.aborted) return;
    if (!answered.ok) return failed(row, answered.refusal.detail);
    const status = answered.value;
    if (status < 200 || status > 299) return failed(row, `it answered ${status}`);
    await moved(row.webhook_id, {
      last_event_id: place,
      failures: 0,
      last_error: null,
      delivered_at_ms: clock.wall(),
    });
  }

  async function look(): Promise<void> {
    const nowMs = clock.wall();
    for (const row of await all()) {
      const id = row.webhook_id;
      if (stopping.signal.aborted || working.has(id) || (row.failures > 0 && row.next_at_ms > nowMs))
        continue;
      const done = deliver(row)
        .catch((thrown: unknown) => {
          const { code, message } = asFleetError(thrown);
          log.emit('error', 'webhook.failed', { webhook: id, code, detail: message });
        })
        .finally(() => working.delete(id));
      working.set(id, done);
    }
  }

  function lookLater(): void {
    if (stopping.signal.aborted) return;
    timer = clock.timer(limits.lookMs);
    void timer.done.then(() => {
      looking = look()
        .catch((thrown: unknown) => {
          const { code, message } = asFleetError(thrown);
          log.emit('error', 'webhook.failed', { code, detail: message });
        })
        .then(lookLater);
    });
  }

  return {
    async add({ url, codes, createdBy }) {
      const secret = entropy.bytes(32);
      const nowMs = clock.wall();
      const row: WebhooksTable = {
        webhook_id: `wh_${Buffer.from(entropy.bytes(9)).toString('hex')}`,
        url,
        codes: toColumn(codes),
        secret,
        created_by: createdBy,
        created_at_ms: nowMs,
        // Of what is to come, not of a year of events.
        last_event_id: await events.lastId(),
        failures: 0,
        next_at_ms: nowMs,
        last_error: null,
        delivered_at_ms: null,
      };
      await store.tx((db) => db.run(qb.insertInto('webhooks').values(row)));
      return { ...viewOf(row), secret: `whsec_${Buffer.from(secret).toString('base64')}` };
    },

    list: async () => (await all()).map(viewOf),

    async remove(id) {
      const row = await store.tx((db) => {
        const found = db.first(qb.selectFrom('webhooks').selectAll().where('webhook_id', '=', id));
        db.run(qb.deleteFrom('webhooks').where('webhook_id', '=', id));
        return found;
      });
      return row === undefined ? refuse('not-found', `no webhook ${id}`) : ok(viewOf(row));
    },

    start: lookLater,

    async stop() {
      stopping.abort();
      timer?.cancel();
      await looking;
      await Promise.all(working.values());
    },
  };
}
