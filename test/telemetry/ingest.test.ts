// Why: what a device sealed is stored once, in order, and answered when it is durable; nothing else is stored.
// Trusts: ingest-world.ts. Must never: check prose; codes, states and records only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { telemetryLimits } from '../../registry/telemetry/limits.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { Device, region } from '../fleet/world.ts';
import { dayMs } from '../registry-core/support.ts';
import { BatchMaker, recordsOf } from './batch-maker.ts';
import { openIngestWorld, quiet } from './ingest-world.ts';

test('a device is given its own key right at enrolment, before anything is assigned to it', async (t) => {
  const world = await openIngestWorld(t);
  const [one, other] = await world.devices(2);
  assert.ok(one && other);
  const assignments = [await one.assignment(), await other.assignment()];
  assert.deepEqual(
    assignments.map((assignment) => [assignment?.epoch, assignment?.releases, assignment?.telemetry?.epoch]),
    [
      [1, [], 0],
      [1, [], 0],
    ],
  );
  const [key, otherKey] = assignments.map((assignment) => assignment?.telemetry);
  assert.ok(key && otherKey);
  assert.notEqual(key.publicKey, otherKey.publicKey);
  assert.notEqual(key.keyId, otherKey.keyId);
  // A restart changes nothing: the same keys, no epoch spent.
  await world.restart();
  assert.deepEqual(await one.assignment(), assignments[0]);
});

test('packed, rows and tombstones are stored, in order, and answered', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { maker } = sender;
  const release = 'acme/digits@1.0.0';
  const packed = await maker.make(recordsOf(3, 0, release), { class: 'stats' });
  const rows = await maker.make(recordsOf(2, 3), { format: 'rows' });
  const dropped = await maker.make(recordsOf(7), { format: 'tombstone', class: 'log' });
  const empty = await maker.make([]);
  assert.deepEqual(
    await sender.exchange(packed.message, rows.message, dropped.message, empty.message),
    [3, 2, 0, 0].map((records) => ({ status: 'stored', records })),
  );
  const answers = await sender.answers();
  assert.deepEqual(
    answers.map((answer) => [answer.sequence, answer.headSha256]),
    [packed, rows, dropped, empty].map(({ head, headSha256 }) => [head.sequence, headSha256]),
  );
  assert.deepEqual(
    await world.records(),
    [
      ...recordsOf(3, 0, release).map((record, index) => ({ class: 'stats', sequence: 1, index, ...record })),
      ...recordsOf(2, 3).map((record, index) => ({ class: 'app', sequence: 2, index, ...record })),
    ].map((record) => ({ device: sender.id, epoch: 0, ...record })),
  );
  assert.deepEqual(world.fleet.counters().telemetry, {
    batches: 4,
    records: 5,
    repeated: 0,
    refused: 0,
    overflowed: 0,
    paused: 0,
  });
});

test('no answer goes out before its records are in the store', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const seen: number[] = [];
  const publish = world.bus.publish.bind(world.bus);
  world.bus.publish = async (topic, payload, options) => {
    if (topic === deviceTopic(region, sender.id, 'telemetry/ack')) {
      seen.push((await world.records()).length);
    }
    await publish(topic, payload, options);
  };
  const batch = await sender.maker.make(recordsOf(4));
  await sender.exchange(batch.message);
  assert.deepEqual(seen, [4]);
});

test('a batch whose answer was lost is answered again and stored once, also after a restart', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const batch = await sender.maker.make(recordsOf(3));
  const stored = { status: 'stored', records: 3 };
  assert.deepEqual(await sender.exchange(batch.message, batch.message), [stored, stored]);
  await world.restart();
  assert.deepEqual(await sender.exchange(batch.message), [stored]);
  const next = await sender.maker.make(recordsOf(1));
  assert.deepEqual(await sender.exchange(next.message), [{ status: 'stored', records: 1 }]);
  assert.equal((await world.records()).length, 4);
});

test('a commit that fails is not answered; the batch is taken when it comes again', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const batches = [await sender.maker.make(recordsOf(2)), await sender.maker.make(recordsOf(2))];
  const { tx } = world.store;
  world.store.tx = async (work) => {
    const done = await tx((db) => {
      const value = work(db);
      const records = db.sql.get<{ n: number }>('SELECT count(*) AS n FROM telemetry_sealed')?.n ?? 0;
      // As SQLite would at the commit: everything is rolled back.
      if (records > 0) throw new FleetError('disk-full', 'the disk is full');
      return value;
    });
    return done;
  };
  assert.deepEqual(await sender.exchange(...batches.map((batch) => batch.message)), [
    { status: 'refused', code: 'telemetry-gap', detail: 'batch 2 after 0', expectedSequence: 1 },
  ]);
  world.store.tx = tx;
  assert.deepEqual(await world.records(), []);
  assert.equal((await sender.exchange(...batches.map((batch) => batch.message))).length, 2);
  assert.equal((await world.records()).length, 4);
});

test('many devices at once: one commit stores what waits, each device in its own order', async (t) => {
  const world = await openIngestWorld(t);
  const senders = await Promise.all(Array.from({ length: 6 }, () => world.sender()));
  const { tx } = world.store;
  let commits = 0;
  world.store.tx = (work) =>
    tx((db) => {
      const before = db.sql.get<{ n: number }>('SELECT count(*) AS n FROM telemetry_batches')?.n;
      const value = work(db);
      if (db.sql.get<{ n: number }>('SELECT count(*) AS n FROM telemetry_batches')?.n !== before)
        commits += 1;
      return value;
    });
  for (const sender of senders) {
    for (let batch = 0; batch < 4; batch += 1) {
      sender.say((await sender.maker.make(recordsOf(2, 2 * batch))).message);
    }
  }
  await quiet(world);
  assert.ok(commits < 24, `${commits} commits of 24 batches`);
  for (const sender of senders) {
    const mine = await world.records({ device: sender.id });
    assert.deepEqual(
      mine.map((record) => record.data['number']),
      [0, 1, 2, 3, 4, 5, 6, 7],
    );
    assert.equal((await sender.answers()).length, 4);
  }
});

test('what does not fit in the queue is not answered and costs nobody else', async (t) => {
  const world = await openIngestWorld(t);
  const [flooding, patient] = [await world.sender(), await world.sender()];
  const batches = [];
  for (let n = 0; n < telemetryLimits.waitingPerDeviceMax + 5; n += 1) {
    batches.push(await flooding.maker.make(recordsOf(1, n)));
  }
  const calm = await patient.maker.make(recordsOf(1));
  for (const { message } of batches) flooding.say(message);
  patient.say(calm.message);
  await quiet(world);
  const { overflowed } = world.fleet.counters().telemetry;
  assert.ok(overflowed > 0 && overflowed <= 5, `${overflowed} overflowed`);
  assert.equal((await patient.answers()).length, 1);
  await flooding.exchange(...batches.slice(-5).map((batch) => batch.message));
  assert.equal((await world.records({ device: flooding.id })).length, batches.length);
});

test('a new enrolment begins a new chain under a new key; the old one is over', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const first = await sender.maker.make(recordsOf(2));
  const unsent = await sender.maker.make(recordsOf(1));
  await sender.exchange(first.message);
  const again = await world.enrol(await world.claim(), sender.device);
  assert.ok(again.status === 'accepted');
  assert.equal(again.telemetryEpoch, 1);
  await world.settle();
  const key = (await sender.device.assignment())?.telemetry;
  assert.ok(key && key.epoch === 1 && key.keyId !== sender.maker.key.keyId);
  assert.equal(await sender.refusal(unsent.message), 'telemetry-replayed');
  assert.equal(await sender.refusal(first.message), 'telemetry-replayed');
  const maker = new BatchMaker({ seed: sender.device.seed, region, key, entropy: world.core.entropy });
  const anew = await maker.make(recordsOf(2, 5));
  assert.deepEqual(await sender.exchange(anew.message), [{ status: 'stored', records: 2 }]);
  assert.deepEqual(
    (await world.records()).map((record) => [record.epoch, record.sequence, record.data['number']]),
    [
      [0, 1, 0],
      [0, 1, 1],
      [1, 1, 5],
      [1, 1, 6],
    ],
  );
});

test('a start gives keys to devices that were cut off before they got one, or come from an older version', async (t) => {
  const world = await openIngestWorld(t);
  const [cutOff, old, content] = await world.devices(3);
  assert.ok(cutOff && old && content);
  const { qb } = world.store;
  await world.store.tx((db) => db.run(qb.deleteFrom('assignments').where('device_id', '=', cutOff.id)));
  await world.store.tx((db) =>
    db.run(qb.updateTable('devices').set({ telemetry_epoch: 3 }).where('device_id', '=', old.id)),
  );
  await world.restart();
  assert.equal((await cutOff.assignment())?.telemetry?.epoch, 0);
  assert.equal((await old.assignment())?.telemetry?.epoch, 3);
  assert.equal((await content.assignment())?.epoch, 1);
});

test('the same claim again keeps the enrolment’s epoch and key', async (t) => {
  const world = await openIngestWorld(t);
  const claim = await world.claim();
  const device = new Device(world, 'cut off');
  await world.enrol(claim, device, 'attempt1');
  const before = await device.assignment();
  const again = await world.enrol(claim, device, 'attempt2');
  assert.ok(again.status === 'accepted' && again.telemetryEpoch === 0);
  assert.deepEqual(await device.assignment(), before);
});

test('when the period ends there is another key, and the old one still opens what was sealed to it', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const before = sender.maker.key;
  const old = await sender.maker.make(recordsOf(1));
  world.clock.advance(telemetryLimits.keyPeriodMs - dayMs);
  await world.settle();
  assert.equal((await sender.device.assignment())?.telemetry?.keyId, before.keyId);
  world.clock.advance(2 * dayMs);
  await world.settle();
  const key = (await sender.device.assignment())?.telemetry;
  assert.ok(key && key.keyId !== before.keyId && key.publicKey !== before.publicKey && key.epoch === 0);
  sender.maker.key = key;
  const fresh = await sender.maker.make(recordsOf(1, 1));
  assert.deepEqual(
    await sender.exchange(old.message, fresh.message),
    [1, 1].map((records) => ({ status: 'stored', records })),
  );
});

test('a change while another is being published goes out at once', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  // Renewal is due, and so is the next key: two changes of one assignment, the second while the first goes out.
  world.clock.advance(telemetryLimits.keyPeriodMs + dayMs);
  await world.fleet.director.equip(world.core.telemetryKeys.ended());
  const key = (await sender.device.assignment())?.telemetry;
  assert.ok(key && key.keyId !== sender.maker.key.keyId);
});

test('a device that may not speak is not answered and stores nothing', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const batch = await sender.maker.make(recordsOf(1));
  await world.fleet.devices.revoke(sender.id, 'tester');
  assert.deepEqual(await sender.exchange(batch.message), []);
  const stranger = new Device(world, 'stranger');
  world.bus.say(deviceTopic(region, stranger.id, 'telemetry'), batch.message);
  world.bus.say(deviceTopic(region, sender.id, 'telemetry'), encodeMessage({}));
  await quiet(world);
  assert.deepEqual(await world.records(), []);
  assert.equal((await world.events('device-revoked')).length, 3);
  assert.equal((await world.events('device-unknown')).length, 1);
});

test('records come back as they were: text of every kind, depth, numbers', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const data = {
    text: 'ünïcode "quoted" \\ \u0000 \u2028 \ud800 💡\nline',
    numbers: [0, -0.1, 1e300, Number.MAX_SAFE_INTEGER, 5e-324],
    nested: { list: [null, true, [{ deep: [] }]] },
    empty: {},
  };
  const record = { timeMs: Number.MAX_SAFE_INTEGER, release: null, data };
  await sender.exchange((await sender.maker.make([record])).message);
  const [stored] = await world.records();
  assert.equal(JSON.stringify(stored?.data), JSON.stringify(data));
  assert.equal(stored?.timeMs, Number.MAX_SAFE_INTEGER);
});
