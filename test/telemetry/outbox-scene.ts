// Why: a device's outbox and sender against a small region that keeps the rules of shared/trust/telemetry.ts,
// with a line that can be cut and answers that can be held or forged.
// Trusts: the format's own checks. Must never: stand in for the outbox or the sender.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import type { Outbox, OutboxLimits } from '../../agent/telemetry/outbox-port.ts';
import { outboxMigrations } from '../../agent/telemetry/outbox-tables.ts';
import { type Sender, type SenderParts, startSender } from '../../agent/telemetry/sender.ts';
import { boxKeyPairFromSeed } from '../../shared/crypto/sealed-box.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore, type SqliteStore } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import {
  checkBytes,
  checkStatement,
  decodeBatchMessage,
  openWrap,
  signAnswer,
  unpackRecords,
} from '../../shared/trust/telemetry.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import type { BatchAnswer, BatchHead, BatchStatement, TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { signerNamed } from '../trust/catalogue-fixture.ts';
import { device, deviceId, trusted } from '../trust/region-fixture.ts';

export const region = 'eu';
export const ack = signerNamed('ack');

export function record(number: number, note = 'x'): TelemetryRecord {
  return { timeMs: 1_700_000_000_000 + number, release: null, data: { number, note } };
}

export interface StoredBatch {
  head: BatchHead;
  headSha256: string;
  statement: BatchStatement;
  records: TelemetryRecord[];
  message: Uint8Array;
}

export class Region {
  readonly keys = boxKeyPairFromSeed(new Uint8Array(32).fill(7));
  readonly stored: StoredBatch[] = [];
  /** Sequences in the order in which messages came. */
  readonly heard: number[] = [];
  online = true;
  /** Called for each answer; the default sends it. */
  deliver: (answer: BatchAnswer) => void = (answer) => this.send(answer);
  /** A refusal to give instead of what would be right, or null. */
  refuseWith: (sequence: number) => { code: string; detail: string } | null = () => null;
  receive: (payload: Uint8Array) => void = () => undefined;
  publishes = 0;
  /** One message after the other, as a real region takes those of one device. */
  private last: Promise<void> = Promise.resolve();

  readonly bus = {
    connected: () => this.online,
    publish: async (_topic: string, payload: Uint8Array) => {
      if (!this.online) throw new FleetError('bus-offline', 'cut');
      this.publishes += 1;
      const turn = this.last.then(() => this.take(payload));
      this.last = turn.catch(() => undefined);
      await turn;
    },
    subscribe: async () => ({ cancel: async () => undefined }),
  };

  send(answer: BatchAnswer, signer = ack): void {
    const envelope = signAnswer(answer, signer);
    this.receive(encodeMessage({ schemaVersion: 1, messageId: 'm', sentAtMs: 0, envelope }));
  }

  private async take(payload: Uint8Array): Promise<void> {
    const message = decodeBatchMessage(payload);
    assert.ok(message.ok);
    const { envelope, wrap, body } = message.value;
    const checked = checkStatement({ envelope, devicePublicKey: device.publicKey, deviceId, region });
    assert.ok(checked.ok, checked.ok ? '' : checked.refusal.detail);
    const { statement, head, headSha256 } = checked.value;
    const bytes = checkBytes(statement, wrap, body);
    assert.ok(bytes.ok);
    this.heard.push(head.sequence);
    const of = this.stored.filter((batch) => batch.head.epoch === head.epoch);
    const expectedSequence = of.length + 1;
    const answer = (result: BatchAnswer['result']): void =>
      this.deliver({
        schemaVersion: 1,
        deviceId,
        region,
        epoch: head.epoch,
        sequence: head.sequence,
        headSha256,
        result,
      });
    const refusal = this.refuseWith(head.sequence);
    if (refusal !== null) return answer({ status: 'refused', ...refusal, expectedSequence });
    const known = of[head.sequence - 1];
    if (known !== undefined) {
      assert.equal(known.headSha256, headSha256, 'two batches with one sequence');
      return answer({ status: 'stored', records: known.records.length });
    }
    if (head.sequence !== expectedSequence) {
      const detail = `expected ${expectedSequence}`;
      return answer({ status: 'refused', code: 'telemetry-gap', detail, expectedSequence });
    }
    assert.equal(head.previousHeadSha256, of.at(-1)?.headSha256 ?? null, 'the chain');
    const key = openWrap({ wrap, ...this.keys, headSha256 });
    assert.ok(key.ok);
    const records = await unpackRecords({
      statement,
      body,
      batchKey: key.value,
      deflate: systemDeflate,
      plainBytesMax: 1 << 24,
    });
    assert.ok(records.ok, records.ok ? '' : records.refusal.detail);
    // Another message may have been stored while this one was inflated.
    if (of.length !== this.stored.filter((batch) => batch.head.epoch === head.epoch).length) return;
    this.stored.push({ head, headSha256, statement, records: records.value, message: payload });
    answer({ status: 'stored', records: records.value.length });
  }

  /** Numbers of the records stored, in order. */
  numbers(): number[] {
    return this.stored.flatMap(({ records }) => records.map(({ data }) => Number(data['number'])));
  }
}

export interface Scene {
  folder: string;
  region: Region;
  outbox: Outbox;
  sender: Sender;
  refusals: Refusal[];
  events: string[];
  /** Ends as a crash does: nothing is packed, the store is closed under it. */
  crash(): Promise<void>;
  /** Opens the same folder again, after `crash` or `close`. */
  again(): Promise<void>;
  close(): Promise<void>;
}

export interface SceneOptions {
  limits?: Partial<OutboxLimits>;
  clock?: Clock;
  sender?: Partial<SenderParts>;
  epoch?: number;
  /** Whether the line is up at the start; absent: it is. */
  online?: boolean;
}

export async function scene(
  test: { after(done: () => Promise<void>): void },
  options: SceneOptions = {},
): Promise<Scene> {
  const folder = await mkdtemp(join(tmpdir(), 'lepton-outbox-'));
  const clock = options.clock ?? systemClock;
  const host = new Region();
  host.online = options.online ?? true;
  const events: string[] = [];
  const refusals: Refusal[] = [];
  const log: Log = { emit: (_level, event) => events.push(event) };
  let store: SqliteStore;

  async function start(): Promise<Pick<Scene, 'outbox' | 'sender'>> {
    store = await openStore(join(folder, 'outbox.sqlite'), {
      synchronous: 'FULL',
      reclaim: true,
      migrations: outboxMigrations,
    });
    const outbox = await openOutbox({
      store,
      clock,
      entropy: systemEntropy,
      deflate: systemDeflate,
      log,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
    });
    const key = { epoch: options.epoch ?? 1, keyId: 'k1', publicKey: hex(host.keys.publicKey) };
    assert.ok((await outbox.useKey({ deviceId, region, key })).ok);
    const sender = startSender({
      outbox,
      bus: host.bus,
      signer: device,
      deviceId,
      region,
      regionRoot: () => trusted(),
      onRefused: (refusal) => refusals.push(refusal),
      clock,
      entropy: systemEntropy,
      log,
      batchAgeMs: 20,
      ...options.sender,
    });
    host.receive = sender.receive;
    return { outbox, sender };
  }

  const self: Scene = {
    folder,
    region: host,
    refusals,
    events,
    ...(await start()),
    crash: async () => {
      await self.sender.stop();
      await store.close();
    },
    again: async () => {
      Object.assign(self, await start());
    },
    close: async () => {
      await self.sender.stop();
      await self.outbox.close();
      await store.close();
    },
  };
  test.after(async () => {
    await self.close();
    await rm(folder, { recursive: true, force: true });
  });
  return self;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Looks again until it holds; a test's own time limit ends it. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const endsAtMs = Date.now() + 20_000;
  while (!(await holds())) {
    assert.ok(Date.now() < endsAtMs, `never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
