// Why: what was appended reaches the region exactly once, whatever is cut, and never lies in clear.
// Trusts: outbox-scene.ts for a region that checks everything. Must never: wait for time to pass.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type BatchAnswer, resendBatchesMax } from '../../shared/wire/telemetry.ts';
import { signerNamed } from '../trust/catalogue-fixture.ts';
import { deviceId, other } from '../trust/region-fixture.ts';
import { nothingOpens } from './device-secrets.ts';
import { ack, hex, record, region, scene, until } from './outbox-scene.ts';

const many = (from: number, count: number) =>
  Array.from({ length: count }, (_, index) => record(from + index));
/** No class has a share of its own. */
const whole = { log: 1, sample: 1, stats: 1, app: 1, event: 1 };
const range = (count: number) => Array.from({ length: count }, (_, index) => index);

test('records arrive once and in order, in batches that are packed, and the outbox is empty', async (t) => {
  const one = await scene(t, { limits: { batchRecordsMax: 100 } });
  for (let at = 0; at < 950; at += 50) unwrap(await one.outbox.append('app', many(at, 50)));
  assert.equal(one.outbox.counters().producedRecords, 950);
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 950);
  assert.deepEqual(one.region.numbers(), range(950));
  assert.deepEqual([...new Set(one.region.stored.map(({ statement }) => statement.format))], ['packed']);
  assert.deepEqual(one.outbox.counters(), {
    producedRecords: 950,
    acknowledgedRecords: 950,
    droppedRecords: 0,
    pendingBatches: 0,
    bytes: 0,
    dropped: [],
  });
});

test('one append larger than a batch is one transaction over several batches', async (t) => {
  const one = await scene(t, { limits: { batchRecordsMax: 100 } });
  unwrap(await one.outbox.append('app', many(0, 1_234)));
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 1_234);
  assert.deepEqual(one.region.numbers(), range(1_234));
});

test('a batch holds one class, and sequences are sent in order', async (t) => {
  const one = await scene(t, { online: false });
  unwrap(await one.outbox.append('app', [record(0)]));
  unwrap(await one.outbox.append('event', [record(1)]));
  unwrap(await one.outbox.append('app', [record(2)]));
  one.region.online = true;
  one.sender.connected();
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 3);
  assert.deepEqual(
    one.region.stored.map(({ head, records }) => [head.sequence, head.class, records.length]),
    [
      [1, 'app', 2],
      [2, 'event', 1],
    ],
  );
});

test('after a crash the rows go as they are, and what follows is another batch', async (t) => {
  const one = await scene(t, { online: false });
  unwrap(await one.outbox.append('app', many(0, 30)));
  await one.crash();
  await one.again();
  assert.equal(one.outbox.counters().producedRecords, 30);
  unwrap(await one.outbox.append('app', many(30, 5)));
  one.region.online = true;
  one.sender.connected();
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 35);
  assert.deepEqual(one.region.numbers(), range(35));
  assert.deepEqual(
    one.region.stored.map(({ statement }) => [statement.format, statement.recordCount]),
    [
      ['rows', 30],
      ['packed', 5],
    ],
  );
});

test('a clean end packs what is open; offline nothing is closed for its age', async (t) => {
  const one = await scene(t, { online: false });
  for (const at of range(30)) unwrap(await one.outbox.append('app', [record(at)]));
  assert.equal(one.outbox.counters().pendingBatches, 1);
  await one.close();
  await one.again();
  one.region.online = true;
  one.sender.connected();
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 30);
  assert.deepEqual(
    one.region.stored.map(({ statement }) => statement.format),
    ['packed'],
  );
});

test('lost answers: the batch is sent again, stored once and deleted once', async (t) => {
  const one = await scene(t, { limits: { batchRecordsMax: 10 }, sender: { answerMs: 30 } });
  let lose = 3;
  one.region.deliver = (answer) => {
    if (lose > 0) lose -= 1;
    else one.region.send(answer);
  };
  unwrap(await one.outbox.append('app', many(0, 45)));
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 45);
  assert.deepEqual(one.region.numbers(), range(45));
  assert.ok(one.region.publishes > 5);
});

test('one answer that is late while later ones come: the device does not run so far ahead that the batch is too old', async (t) => {
  const one = await scene(t, { limits: { batchRecordsMax: 1 }, sender: { answerMs: 60_000 } });
  const held: BatchAnswer[] = [];
  one.region.deliver = (answer) => {
    if (answer.sequence === 3 && held.length === 0) held.push(answer);
    else one.region.send(answer);
  };
  unwrap(await one.outbox.append('app', many(0, 60)));
  const acknowledged = (): number => one.outbox.counters().acknowledgedRecords;
  await until('all that may go before the third', () => acknowledged() >= resendBatchesMax + 1);
  assert.equal(Math.max(...one.region.heard), 3 + resendBatchesMax - 1);
  for (const answer of held) one.region.send(answer);
  await until('all acknowledged', () => acknowledged() === 60);
});

test('a gap makes the device go back to what the region waits for', async (t) => {
  const one = await scene(t, { limits: { batchRecordsMax: 10 } });
  let first = true;
  one.region.refuseWith = (sequence) => {
    if (sequence !== 1 || !first) return null;
    first = false;
    return { code: 'registry-not-ready', detail: 'starting' };
  };
  unwrap(await one.outbox.append('app', many(0, 60)));
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 60);
  assert.deepEqual(one.region.numbers(), range(60));
});

test('a region that lost what it had stored, and what was given back to it, is given it again on the same line', async (t) => {
  const given: Uint8Array[] = [];
  const giveBack = (acknowledgement: Uint8Array) => void given.push(acknowledgement);
  const sender = { giveBack, gapAgainMs: 30, answerMs: 60_000 };
  const one = await scene(t, { limits: { batchRecordsMax: 1 }, sender });
  unwrap(await one.outbox.append('app', many(0, 1)));
  await until('the first is acknowledged', () => one.outbox.counters().acknowledgedRecords === 1);
  // A restore took it, and what is given back it cannot store at first.
  const [stored] = one.region.stored.splice(0);
  assert.ok(stored !== undefined);
  const refused = (): number => one.events.filter((event) => event === 'telemetry.halted').length;
  unwrap(await one.outbox.append('app', many(1, 1)));
  await until('it stands still', () => refused() > 0);
  assert.ok(given.length > 0);
  one.region.stored.push(stored);
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 2);
});

test('forged acknowledgements delete nothing and are reported', async (t) => {
  const one = await scene(t);
  const held: Parameters<typeof one.region.deliver>[0][] = [];
  one.region.deliver = (answer) => held.push(answer);
  unwrap(await one.outbox.append('app', [record(0)]));
  await until('it was sent', () => held.length > 0);
  const [answer] = held;
  assert.ok(answer);
  one.region.send(answer, signerNamed('director'));
  one.region.send(answer, other);
  one.region.send({ ...answer, deviceId: 'f'.repeat(32) });
  one.region.send({ ...answer, region: 'us' });
  one.region.send({ ...answer, headSha256: 'a'.repeat(64) });
  one.sender.receive(new TextEncoder().encode('{"schemaVersion":1}'));
  await until('all were judged', () => one.refusals.length === 6);
  assert.deepEqual([...new Set(one.refusals.map(({ code }) => code))], ['telemetry-answer-invalid']);
  assert.equal(one.outbox.counters().acknowledgedRecords, 0);
  assert.equal(one.outbox.counters().pendingBatches, 1);
  one.region.send(answer, ack);
  await until('the real one counts', () => one.outbox.counters().acknowledgedRecords === 1);
});

test('a refusal for good halts until the next connection, and is not repeated', async (t) => {
  const one = await scene(t);
  let refusing = true;
  one.region.refuseWith = () => (refusing ? { code: 'telemetry-cloned', detail: 'two of you' } : null);
  unwrap(await one.outbox.append('app', [record(0)]));
  await until('it was refused', () => one.refusals.length === 1);
  assert.equal(one.refusals[0]?.code, 'telemetry-cloned');
  unwrap(await one.outbox.append('event', [record(1)]));
  await until('halted', () => one.events.includes('telemetry.halted'));
  assert.equal(one.region.publishes, 1);
  refusing = false;
  one.sender.connected();
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 2);
});

test('a batch that the region can never read becomes a tombstone, counted', async (t) => {
  const one = await scene(t, { limits: { batchRecordsMax: 10 } });
  one.region.refuseWith = (sequence) =>
    sequence === 1 && one.outbox.counters().droppedRecords === 0
      ? { code: 'telemetry-unreadable', detail: 'bits have rotted' }
      : null;
  unwrap(await one.outbox.append('app', many(0, 20)));
  await until('the rest arrived', () => one.outbox.counters().acknowledgedRecords === 10);
  await until('empty', () => one.outbox.counters().pendingBatches === 0);
  assert.equal(one.outbox.counters().droppedRecords, 10);
  assert.equal(one.region.stored[0]?.statement.format, 'tombstone');
  assert.equal(one.region.stored[0]?.statement.recordCount, 10);
  assert.equal(one.refusals[0]?.code, 'telemetry-unreadable');
});

test('a full outbox drops the lowest class first, oldest first, and its heads keep the chain', async (t) => {
  const note = 'n'.repeat(1_000);
  const one = await scene(t, {
    online: false,
    limits: { batchRecordsMax: 10, outboxBytesMax: 75_000, batchRowBytesMax: 20_000, classShares: whole },
  });
  const fill = async (className: 'log' | 'app' | 'event', from: number, count: number) => {
    for (const at of range(count))
      unwrap(await one.outbox.append(className, [randomRecord(from + at, note)]));
  };
  await fill('event', 0, 20);
  await fill('log', 100, 20);
  await fill('app', 200, 60);
  const { droppedRecords, producedRecords } = one.outbox.counters();
  assert.equal(producedRecords, 100);
  assert.ok(droppedRecords > 0);
  assert.ok(one.outbox.counters().bytes <= 75_000);
  one.region.online = true;
  one.sender.connected();
  await until('empty', () => one.outbox.counters().pendingBatches === 0);
  const counters = one.outbox.counters();
  assert.equal(counters.acknowledgedRecords + counters.droppedRecords, 100);
  const numbers = one.region.numbers();
  assert.deepEqual(
    numbers.filter((number) => number < 100),
    range(20),
    'no event was dropped',
  );
  const dropped = (className: string) =>
    one.region.stored.filter(
      (batch) => batch.head.class === className && batch.statement.format === 'tombstone',
    );
  assert.equal(numbers.filter((number) => number >= 100 && number < 200).length, 0, 'every log was dropped');
  assert.equal(dropped('log').length, 2);
  const apps = numbers.filter((number) => number >= 200);
  assert.deepEqual(
    apps,
    range(60)
      .map((at) => 200 + at)
      .slice(-apps.length),
    'the oldest of the class went',
  );
  assert.ok(one.region.stored.some(({ statement }) => statement.format === 'tombstone'));
  assert.equal(numbers.at(-1), 259, 'the newest is there');
});

test('where only more important records are held, less important ones are refused', async (t) => {
  const one = await scene(t, {
    online: false,
    limits: { batchRecordsMax: 5, outboxBytesMax: 60_000, batchRowBytesMax: 20_000, classShares: whole },
  });
  let refused = null;
  for (const at of range(60)) {
    const appended = await one.outbox.append('event', [randomRecord(at, 'e'.repeat(1_000))]);
    unwrap(appended);
    const log = await one.outbox.append('log', [randomRecord(1_000 + at, 'l'.repeat(1_000))]);
    if (!log.ok) refused ??= log.refusal;
  }
  assert.equal(refused?.code, 'telemetry-full');
  const { producedRecords } = one.outbox.counters();
  const large = await one.outbox.append('app', [record(0, 'x'.repeat(30_000))]);
  assert.equal(large.ok ? '' : large.refusal.code, 'telemetry-too-large');
  assert.equal(one.outbox.counters().producedRecords, producedRecords);
});

test('a new enrolment starts at one again; what was held is dropped, counted', async (t) => {
  const one = await scene(t, { online: false });
  unwrap(await one.outbox.append('app', many(0, 7)));
  const key = { epoch: 2, keyId: 'k2', publicKey: hex(one.region.keys.publicKey) };
  const used = unwrap(await one.outbox.useKey({ deviceId, region, key }));
  assert.equal(used.droppedRecords, 7);
  unwrap(await one.outbox.append('app', many(7, 2)));
  one.region.online = true;
  one.sender.connected();
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 2);
  assert.deepEqual(
    one.region.stored.map(({ head }) => [head.epoch, head.sequence, head.keyId]),
    [[2, 1, 'k2']],
  );
  assert.deepEqual(one.outbox.counters().droppedRecords, 7);
  const older = await one.outbox.useKey({ deviceId, region, key: { ...key, epoch: 1 } });
  assert.equal(older.ok ? '' : older.refusal.code, 'telemetry-replayed');
  const zero = { ...key, keyId: 'k3', publicKey: '00'.repeat(32) };
  const unusable = await one.outbox.useKey({ deviceId, region, key: zero });
  assert.equal(unusable.ok ? '' : unusable.refusal.code, 'key-invalid');
});

test('no record in clear in any file, open, closed or deleted', async (t) => {
  const marker = 'marker-4f8c1e';
  const one = await scene(t);
  const look = (when: string): void => {
    for (const name of readdirSync(one.folder)) {
      assert.equal(readFileSync(join(one.folder, name)).includes(marker), false, `${name} ${when}`);
    }
  };
  one.region.online = false;
  for (const at of range(50)) unwrap(await one.outbox.append('app', [record(at, `${marker} ${at}`)]));
  look('while open');
  await one.crash();
  await one.again();
  look('after a crash');
  await nothingOpens(one.folder, marker);
  await one.close();
  look('when packed');
  await nothingOpens(one.folder, marker);
  await one.again();
  one.region.online = true;
  one.sender.connected();
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 50);
  look('when deleted');
  assert.ok(one.region.stored[0]?.records[0]?.data['note'] === `${marker} 0`, 'the region reads it');
});

test('the file shrinks when the outbox was emptied', async (t) => {
  const one = await scene(t, { online: false });
  for (const at of range(40)) {
    const records = range(100).map((index) => randomRecord(at * 100 + index, 'z'.repeat(700)));
    unwrap(await one.outbox.append('app', records));
  }
  const pages = (): number => readFileSync(join(one.folder, 'outbox.sqlite')).length / 4_096;
  await one.close();
  await one.again();
  const before = pages();
  one.region.online = true;
  one.sender.connected();
  await until('all acknowledged', () => one.outbox.counters().acknowledgedRecords === 4_000);
  await one.close();
  await one.again();
  assert.ok(pages() < before / 2, `${before} pages before, ${pages()} after`);
});

/** A record that does not compress, so that sizes are what they seem. */
function randomRecord(number: number, note: string) {
  const bytes = Buffer.alloc(Math.ceil((note.length * 3) / 4));
  let state = number + 1;
  for (let at = 0; at < bytes.length; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = state >>> 16;
  }
  return record(number, bytes.toString('base64'));
}
