// Why: what a device that came from elsewhere still has for its old region goes through here: kept as the device signed it
// until the old region took it, and answered with what that region signed.
// Trusts: the device's signature for whose bytes they are, the old region's root for what it answered.
// Must never: open a batch, answer for the region that it is for, or keep more than its bounds.
//
// Where the bytes lie: in `carried_batches` alone, by device; `eraseIn` removes them. They cannot be read here or exported:
// the keys are in the other region. They leave towards that region only, by the list `carried`, which the policy meters.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { RegistryBus } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { signNotice } from '../../shared/trust/carried.ts';
import { checkAnswer, checkBytes } from '../../shared/trust/telemetry.ts';
import { type CarriedAnswer, carriedAnswerSchema, decodeCarried } from '../../shared/wire/carried.ts';
import { type Envelope, encodeMessage, schemaVersion } from '../../shared/wire/messages.ts';
import { resendBatchesMax } from '../../shared/wire/telemetry.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import { toColumn } from '../fleet/columns.ts';
import type { FleetEvents } from '../fleet/events.ts';
import { messageId } from '../fleet/message-id.ts';
import type { Tasks } from '../fleet/tasks.ts';
import { createPeerRoots } from '../regions/peer-roots.ts';
import type { IncomingStream, OutgoingStream } from '../regions/streams.ts';
import type { RegistryDb } from '../store/open.ts';
import type { Ingest } from '../telemetry/ingest.ts';
import { readBatch, type SignedBatch } from '../telemetry/open-batch.ts';

export interface Carrier {
  /** A message on the device's `carried` topic. */
  receive(deviceId: string, payload: Uint8Array): void;
  /** The device is there: it is told what was answered while it was not. */
  deliver(deviceId: string): Promise<void>;
  start(bus: RegistryBus): void;
  stop(): void;
  /** What of the device was stored before then. */
  eraseIn(db: RegistryDb, erased: { deviceId: string; untilMs: number }): void;
  outgoing: OutgoingStream;
  incoming: IncomingStream;
}

/** An answer that was not fetched for so long is of a device that is gone; one that returns sends the batch again. */
const answeredKeptMs = 7 * 86_400_000;
const pauseMs = 30_000;

export function createCarrier(
  core: RegistryCore,
  parts: { events: FleetEvents; tasks: Tasks; ingest: Pick<Ingest, 'carry'> },
): Carrier {
  const { store, keyring, clock, entropy, log, region, limits } = core;
  const { qb } = store;
  const { events, tasks } = parts;
  const roots = createPeerRoots(store);
  let bus: RegistryBus | null = null;
  let waitingBytes = 0;
  let last: Promise<unknown> = Promise.resolve();
  let answered: string[] = [];

  async function send(deviceId: string, envelope: Envelope): Promise<void> {
    const message = { schemaVersion, messageId: messageId(entropy), sentAtMs: clock.wall(), envelope };
    const topic = deviceTopic(region, deviceId, 'carried/ack');
    await bus?.publish(topic, encodeMessage(message), { qos: 1, retain: false });
  }

  function notice(batch: SignedBatch, forRegion: string, refusal: Refusal): Promise<void> {
    const { deviceId, head, headSha256 } = batch;
    const { epoch, sequence } = head;
    log.emit('info', 'carried.refused', { deviceId, forRegion, epoch, sequence, ...refusal });
    return send(
      deviceId,
      signNotice(
        { schemaVersion: 1, deviceId, epoch, sequence, headSha256, region, forRegion, pauseMs, ...refusal },
        keyring.signer('ack'),
      ),
    );
  }

  function room(db: RegistryDb, deviceId: string, bytes: number): Result<void> {
    const held = (of: string | null): { batches: number; bytes: number } => {
      let query = qb
        .selectFrom('carried_batches')
        .select((eb) => [
          eb.fn.countAll<number>().as('batches'),
          eb.fn.sum<number | null>('size').as('bytes'),
        ])
        .where('bytes', 'is not', null);
      if (of !== null) query = query.where('device_id', '=', of);
      const row = db.first(query);
      return { batches: Number(row?.batches ?? 0), bytes: Number(row?.bytes ?? 0) };
    };
    const own = held(deviceId);
    if (own.batches >= limits.carriedBatchesPerDeviceMax)
      return refuse('carried-full', `${own.batches} batches of this device wait already`);
    const all = held(null);
    if (all.bytes + bytes > limits.carriedBytesMax)
      return refuse('carried-full', `${all.bytes} bytes of all devices wait already`);
    return ok();
  }

  /** What was answered before, `null` where it is stored now or was. Refusals: `carried-*`, `telemetry-cloned`. */
  function keepIn(
    db: RegistryDb,
    batch: SignedBatch,
    forRegion: string,
    bytes: Uint8Array,
  ): Result<string | null> {
    const { deviceId, head, headSha256 } = batch;
    const root = roots.rootIn(db, forRegion);
    if (root === null) return refuse('carried-region-unknown', `this region has not heard of ${forRegion}`);
    const known = db.first(
      qb
        .selectFrom('carried_batches')
        .select(['id', 'head_sha256', 'answer'])
        .where('device_id', '=', deviceId)
        .where('for_region', '=', forRegion)
        .where('epoch', '=', head.epoch)
        .where('sequence', '=', head.sequence),
    );
    if (known !== undefined && known.head_sha256 !== headSha256)
      return refuse('telemetry-cloned', `another batch ${head.sequence} for ${forRegion} waits here`);
    if (known !== undefined) {
      const { id, answer } = known;
      const envelope = answer === null ? null : (JSON.parse(answer) as Envelope);
      if (envelope === null || checkAnswer({ envelope, regionRoot: root, deviceId, region: forRegion }).ok)
        return ok(answer);
      // By a key that is none of that region any more: the device does not believe it, and the region answers once more.
      db.run(qb.deleteFrom('carried_batches').where('id', '=', id));
    }
    // The device sends nothing that is further ahead of what it has no answer to: those before have arrived.
    db.run(
      qb
        .deleteFrom('carried_batches')
        .where('device_id', '=', deviceId)
        .where('for_region', '=', forRegion)
        .where('epoch', '=', head.epoch)
        .where('sequence', '<=', head.sequence - resendBatchesMax)
        .where('answer', 'is not', null),
    );
    const fits = room(db, deviceId, bytes.length);
    if (!fits.ok) return fits;
    db.run(
      qb.insertInto('carried_batches').values({
        ...{ device_id: deviceId, for_region: forRegion, epoch: head.epoch, sequence: head.sequence },
        ...{ head_sha256: headSha256, bytes, size: bytes.length, answer: null },
        ...{ stored_at_ms: clock.wall(), answered_at_ms: null },
      }),
    );
    const { epoch, sequence } = head;
    log.emit('debug', 'carried.stored', { deviceId, forRegion, epoch, sequence, bytes: bytes.length });
    return ok(null);
  }

  /** It is for this region: the device came back before its outbox was empty. */
  function takeHome(batch: SignedBatch, bytes: Uint8Array): void {
    const { deviceId, head } = batch;
    parts.ingest.carry({
      ...{ deviceId, payload: bytes, epoch: head.epoch },
      done: (outcome) => {
        if (outcome.kind === 'answer') tasks.run('carried answer', () => send(deviceId, outcome.envelope));
      },
    });
  }

  async function take(deviceId: string, payload: Uint8Array): Promise<void> {
    const message = decodeCarried(payload);
    const device = await store.tx((db) =>
      db.first(qb.selectFrom('devices').select(['public_key', 'status']).where('device_id', '=', deviceId)),
    );
    if (device?.status !== 'active') return;
    const read = message.ok
      ? readBatch({
          payload: message.value.batch,
          devicePublicKey: new Uint8Array(device.public_key),
          deviceId,
          region: message.value.region,
        })
      : message;
    // Bytes that were changed on their way here must not take up room that the genuine ones need.
    const whole = read.ok
      ? checkBytes(read.value.statement, read.value.message.wrap, read.value.message.body)
      : read;
    if (!message.ok || !read.ok || !whole.ok) {
      const { refusal } = [message, read, whole].find((one) => !one.ok) as { refusal: Refusal };
      log.emit('warn', 'carried.refused', { deviceId, ...refusal });
      return events.recordStranger({ source: 'registry', subject: deviceId, ...refusal });
    }
    const { region: forRegion, batch: bytes } = message.value;
    if (forRegion === region) return takeHome(read.value, bytes);
    const kept = await store.tx((db) => keepIn(db, read.value, forRegion, bytes));
    if (kept.ok) {
      if (kept.value !== null) await send(deviceId, JSON.parse(kept.value) as Envelope);
      return;
    }
    await events.recordStranger({ source: 'registry', subject: deviceId, ...kept.refusal });
    await notice(read.value, forRegion, kept.refusal);
  }

  // --- answers of the old region ---

  function answerIn(db: RegistryDb, peer: string, item: CarriedAnswer): void {
    const { deviceId, epoch, sequence, headSha256, envelope, code } = item;
    const key = { deviceId, forRegion: peer, epoch, sequence };
    const row = db.first(
      qb
        .selectFrom('carried_batches')
        .select('id')
        .where('device_id', '=', deviceId)
        .where('for_region', '=', peer)
        .where('epoch', '=', epoch)
        .where('sequence', '=', sequence)
        .where('head_sha256', '=', headSha256)
        .where('answer', 'is', null),
    );
    // Answered before, or erased here meanwhile.
    if (row === undefined) return;
    const root = roots.rootIn(db, peer);
    const checked =
      envelope === null || root === null
        ? null
        : checkAnswer({ envelope, regionRoot: root, deviceId, region: peer });
    if (checked !== null && !checked.ok) {
      events.recordIn(db, {
        ...{ source: 'registry', subject: deviceId, code: 'carried-answer-invalid' },
        detail: `${peer} answers batch ${sequence} with what it did not sign: ${checked.refusal.detail}`,
      });
      return;
    }
    if (envelope !== null && checked?.ok === true && checked.value.result.status === 'stored') {
      db.run(
        qb
          .updateTable('carried_batches')
          .set({ bytes: null, answer: toColumn(envelope), answered_at_ms: clock.wall() })
          .where('id', '=', row.id),
      );
      answered.push(deviceId);
      log.emit('debug', 'carried.answered', { ...key });
      return;
    }
    // The copy here is of no use; the device sends what is wanted, now that it hears why, or when it asks again.
    db.run(qb.deleteFrom('carried_batches').where('id', '=', row.id));
    log.emit('warn', 'carried.answered', { ...key, code: code ?? 'refused' });
    if (envelope !== null) tasks.run('carried answer', () => send(deviceId, envelope));
  }

  async function deliver(deviceId: string): Promise<void> {
    const rows = await store.tx((db) =>
      db.all(
        qb
          .selectFrom('carried_batches')
          .select('answer')
          .where('device_id', '=', deviceId)
          .where('answer', 'is not', null)
          .orderBy('sequence'),
      ),
    );
    for (const { answer } of rows) if (answer !== null) await send(deviceId, JSON.parse(answer) as Envelope);
  }

  return {
    receive(deviceId, payload) {
      // The device sends again what is not answered.
      if (waitingBytes + payload.length > limits.carriedWaitingBytesMax) return;
      waitingBytes += payload.length;
      const turn = last.then(() => take(deviceId, payload));
      last = turn
        .catch((thrown: unknown) => {
          const fault = asFleetError(thrown);
          log.emit('error', 'carried.failed', { deviceId, code: fault.code, detail: fault.message });
        })
        .finally(() => {
          waitingBytes -= payload.length;
        });
      tasks.run('carried', async () => last);
    },
    deliver,
    start: (on) => {
      bus = on;
    },
    stop: () => {
      bus = null;
    },

    eraseIn(db, { deviceId, untilMs }) {
      db.run(
        qb
          .deleteFrom('carried_batches')
          .where('device_id', '=', deviceId)
          .where('stored_at_ms', '<', untilMs),
      );
      db.run(qb.deleteFrom('carried_inbox').where('device_id', '=', deviceId));
    },

    outgoing: {
      name: 'carried',
      flow: 'carried',
      readIn: (db, peer, after, limit) =>
        db
          .all(
            qb
              .selectFrom('carried_batches')
              .selectAll()
              .where('for_region', '=', peer)
              .where('id', '>', after)
              .where('bytes', 'is not', null)
              .orderBy('id')
              // Some of a page's bytes: a batch may have a quarter of a megabyte.
              .limit(Math.min(limit, pageBatchesMax)),
          )
          .map((row) => ({
            id: row.id,
            body: {
              ...{ deviceId: row.device_id, epoch: row.epoch, sequence: row.sequence },
              headSha256: row.head_sha256,
              batch: Buffer.from(row.bytes ?? []).toString('base64'),
            },
          })),
    },

    incoming: {
      name: 'carried-answers',
      takeIn(db, peer, items) {
        for (const { body } of items) {
          const item = carriedAnswerSchema.safeParse(body);
          if (item.success) answerIn(db, peer, item.data);
        }
        db.run(qb.deleteFrom('carried_batches').where('answered_at_ms', '<', clock.wall() - answeredKeptMs));
      },
      taken() {
        const these = new Set(answered);
        answered = [];
        for (const deviceId of these) tasks.run('carried answers', () => deliver(deviceId));
      },
    },
  };
}

const pageBatchesMax = 16;
