// Why: a backlog of a whole site that comes at once makes its devices slower one by one, not its region forget: what
// there is room for is stored, in turn, and what there is no room for comes again.
// Trusts: test/fleet/world.ts for enrolled devices. Must never: stand in for ingest, the outbox or the sender.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import type { Outbox } from '../../agent/telemetry/outbox-port.ts';
import { outboxMigrations } from '../../agent/telemetry/outbox-tables.ts';
import { type Sender, startSender } from '../../agent/telemetry/sender.ts';
import { createIngest } from '../../registry/telemetry/ingest.ts';
import { telemetryLimits } from '../../registry/telemetry/limits.ts';
import { createWaiting } from '../../registry/telemetry/waiting.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { type Device, openWorld, region, type World } from '../fleet/world.ts';
import { countedEntropy } from '../registry-core/support.ts';
import { record } from './outbox-scene.ts';

const devices = 24;
const batches = 30;
const perBatch = 10;
/** About a third of what their first windows are together. */
const waitingBytesMax = 48 * 1024;
const endsAfterMs = 600_000;

interface Member {
  id: string;
  outbox: Outbox;
  sender: Sender;
}

async function member(t: TestContext, world: World, device: Device, say: (message: Uint8Array) => void) {
  const entropy = countedEntropy(`sender ${device.id}`);
  const { clock, log } = world;
  const store = await openStore(':memory:', { synchronous: 'FULL', migrations: outboxMigrations });
  const small = { batchRecordsMax: perBatch };
  const outbox = await openOutbox({ store, clock, entropy, deflate: systemDeflate, log, limits: small });
  const key = (await device.assignment())?.telemetry;
  assert.ok(key);
  unwrap(await outbox.useKey({ deviceId: device.id, region, key }));
  for (let at = 0; at < batches; at += 1)
    unwrap(
      await outbox.append(
        'app',
        Array.from({ length: perBatch }, (_, one) => record(at * perBatch + one, device.id)),
      ),
    );
  const regionRoot = unwrap(parseRegionRoot(await world.repository.regionRoot()));
  const sender = startSender({
    ...{ outbox, deviceId: device.id, region, clock, entropy, log },
    bus: {
      connected: () => true,
      publish: async (_topic, message) => say(message),
      subscribe: async () => ({ cancel: async () => undefined }),
    },
    signer: signerFromSeed(device.seed, 'node'),
    regionRoot: () => regionRoot,
    onRefused: ({ code, detail }) => assert.fail(`${code}: ${detail}`),
  });
  t.after(async () => {
    await sender.stop();
    await outbox.close();
    await store.close();
  });
  return { id: device.id, outbox, sender };
}

test('a site that comes back at once is stored, slower and not poorer', async (t) => {
  const world = await openWorld(t);
  const members = new Map<string, Member>();
  const refused: string[] = [];
  const ingest = createIngest({
    ...world.core,
    region,
    keys: world.core.telemetryKeys,
    signer: world.core.keyring.signer('ack'),
    waitingBytesMax,
    answer: async (deviceId, message) => members.get(deviceId)?.sender.receive(message),
    refused: async (_deviceId, { code }) => void refused.push(code),
    cloned: async () => assert.fail('cloned'),
    evidence: { addIn: () => undefined, stored: () => undefined },
  });
  t.after(() => ingest.stop());
  for (const device of await world.devices(devices)) {
    const one = await member(t, world, device, (message) => ingest.receive(device.id, message));
    members.set(device.id, one);
  }
  const pending = () => [...members.values()].filter(({ outbox }) => outbox.counters().pendingBatches > 0);
  const startMs = world.clock.mono();
  while (pending().length > 0) {
    assert.ok(world.clock.mono() - startMs < endsAfterMs, `${pending().length} devices still wait`);
    await new Promise((resolve) => setImmediate(resolve));
    world.clock.advance(1);
  }
  await ingest.idle();
  const { batches: stored, records, paused, overflowed } = ingest.counters();
  assert.deepEqual([stored, records], [devices * batches, devices * batches * perBatch], 'each exactly once');
  for (const { outbox } of members.values()) {
    const { acknowledgedRecords, droppedRecords } = outbox.counters();
    assert.deepEqual([acknowledgedRecords, droppedRecords], [batches * perBatch, 0]);
  }
  // What comes after a lost one of the same window is early; nothing else may be wrong with an honest device.
  assert.ok(refused.every((code) => code === 'telemetry-gap'));
  // Only the first windows come unasked. Whoever was heard, or not answered, comes with fewer.
  assert.ok(paused > 0, 'nobody was asked to slow down');
  assert.ok(overflowed > 0 && overflowed < devices * limits.outboxWindow, `${overflowed} found no room`);
});

test('no device that waits is passed over twice by the same other one', () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ device: fc.nat(5), bytes: fc.integer({ min: 1, max: 40 }) }) },
    { weight: 2, arbitrary: fc.constant(null) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const bytesMax = 600;
      const waiting = createWaiting(bytesMax);
      /** What waits of each device, and who was served since it began to wait. */
      const model = new Map<string, { queue: Uint8Array[]; passed: Set<string> }>();
      let bytes = 0;
      for (const one of steps) {
        if (one !== null) {
          const deviceId = String(one.device);
          const payload = new Uint8Array(one.bytes);
          const hasRoom = waiting.push({ deviceId, payload });
          const { queue, passed } = model.get(deviceId) ?? { queue: [], passed: new Set() };
          const fits =
            bytes + payload.length <= bytesMax && queue.length < telemetryLimits.waitingPerDeviceMax;
          assert.equal(hasRoom, fits);
          if (!hasRoom) continue;
          bytes += payload.length;
          model.set(deviceId, { queue: [...queue, payload], passed });
        } else {
          const next = waiting.next();
          if (next === null) {
            assert.equal(model.size, 0);
            continue;
          }
          const { deviceId, payload } = next;
          const own = model.get(deviceId);
          assert.ok(own !== undefined && own.queue[0] === payload, 'its own oldest');
          bytes -= payload.length;
          model.delete(deviceId);
          if (own.queue.length > 1) model.set(deviceId, { queue: own.queue.slice(1), passed: new Set() });
          for (const [other, { passed }] of model) {
            if (other === deviceId) continue;
            assert.ok(!passed.has(deviceId), `${deviceId} came twice while ${other} waited`);
            passed.add(deviceId);
          }
        }
        assert.equal(waiting.bytes(), bytes);
      }
    }),
  );
});
