// Why: the region's side of telemetry on a real store with real keys, for devices that the test speaks for.
// Trusts: test/fleet/world.ts. Must never: stand in for a part that is under test.

import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { createTelemetryRecords, type RecordFilter } from '../../registry/telemetry/records.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { checkAnswer } from '../../shared/trust/telemetry.ts';
import { parseMessage, signedMessageSchema } from '../../shared/wire/messages.ts';
import { type BatchAnswer, type StoredRecord, storedRecordSchema } from '../../shared/wire/telemetry.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { type Device, openWorld, region, type World, type WorldOptions } from '../fleet/world.ts';
import { countedEntropy } from '../registry-core/support.ts';
import { BatchMaker } from './batch-maker.ts';

export interface IngestWorld extends World {
  /** A device that enrolled and took its key. */
  sender(): Promise<Sender>;
  records(filter?: RecordFilter): Promise<StoredRecord[]>;
}

/** A device with its end of the chain. */
export class Sender {
  readonly device: Device;
  readonly maker: BatchMaker;
  private world: World;

  constructor(world: World, device: Device, maker: BatchMaker) {
    this.world = world;
    this.device = device;
    this.maker = maker;
  }

  get id(): string {
    return this.device.id;
  }

  /** The same device at a registry that was started again. */
  moveTo(world: World): void {
    this.world = world;
    this.device.moveTo(world);
  }

  say(message: Uint8Array): void {
    this.world.bus.say(deviceTopic(region, this.id, 'telemetry'), message);
  }

  /** Every answer so far, checked as a device checks it. */
  async answers(): Promise<BatchAnswer[]> {
    const topic = deviceTopic(region, this.id, 'telemetry/ack');
    const regionRoot = unwrap(parseRegionRoot(await this.world.repository.regionRoot()));
    return this.world.bus.published
      .filter((message) => message.topic === topic)
      .map(({ payload }) => {
        const { envelope } = unwrap(parseMessage(signedMessageSchema, payload));
        return unwrap(checkAnswer({ envelope, regionRoot, deviceId: this.id, region }));
      });
  }

  /** Sends and gives the answers that came to it, in order. */
  async exchange(...messages: Uint8Array[]): Promise<BatchAnswer['result'][]> {
    const before = (await this.answers()).length;
    for (const message of messages) this.say(message);
    await quiet(this.world);
    return (await this.answers()).slice(before).map((answer) => answer.result);
  }

  /** The one refusal's code, or 'no answer'. */
  async refusal(message: Uint8Array): Promise<string> {
    const [result] = await this.exchange(message);
    if (result === undefined) return 'no answer';
    assert.equal(result.status, 'refused');
    return result.code;
  }
}

/** Until ingest has nothing to do; zlib's threads take real time. */
export async function quiet(world: World): Promise<void> {
  let idle = false;
  const waiting = world.fleet.telemetryIdle().then(() => {
    idle = true;
  });
  for (const end = performance.now() + 30_000; !idle; ) {
    assert.ok(performance.now() < end, 'ingest does not come to rest');
    await new Promise((resolve) => setImmediate(resolve));
    world.clock.advance(1);
  }
  await waiting;
}

export async function openIngestWorld(t: TestContext, options: WorldOptions = {}): Promise<IngestWorld> {
  const world = await openWorld(t, options);
  const stored = createTelemetryRecords(world.core);
  return Object.assign(world, {
    async sender() {
      const [device] = await world.devices(1);
      assert.ok(device);
      const key = (await device.assignment())?.telemetry;
      assert.ok(key);
      const maker = new BatchMaker({ seed: device.seed, region, key, entropy: countedEntropy(device.id) });
      return new Sender(world, device, maker);
    },
    async records(filter: RecordFilter = {}) {
      const lines = unwrap(await stored.read(filter, { cursor: null, limit: null }));
      return (await text(lines))
        .split('\n')
        .slice(0, -1)
        .map((line) => storedRecordSchema.parse(JSON.parse(line)));
    },
  });
}
