// Why: what is older than its class is kept goes, in steps, with all that lay beside it; what is younger stays, and sums still
// add up. Trusts: ingest-world.ts, a clock that the test turns. Must never: wait.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NewAuditEntry } from '../../registry/audit/audit.ts';
import { createRetention, oldestBatches } from '../../registry/policy/retention.ts';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { signPolicy } from '../../shared/trust/region-policy.ts';
import type { CaptureRecord } from '../../shared/wire/samples.ts';
import { dayMs } from '../registry-core/support.ts';
import { type IngestWorld, openIngestWorld, type Sender } from '../telemetry/ingest-world.ts';
import { policyOf } from './files.ts';

const capture = (number: number): CaptureRecord => ({
  ...{ kind: 'capture', model: 'pump', requestId: `r${number}`, reasons: ['random'], confidence: 0.5 },
  inputs: [{ name: 'x', datatype: 'FP32', shape: [1], data: [number] }],
  outputs: [{ name: 'p', datatype: 'FP32', shape: [1], data: [0.5] }],
});

async function put(world: IngestWorld, spec: string, version = 1): Promise<void> {
  const options = { by: 'admin', masking: world.core.masking };
  unwrap(await world.core.policies.put(signPolicy(policyOf(spec, { version })), options));
}

function opened(world: IngestWorld) {
  const entries: NewAuditEntry[] = [];
  const audit = {
    appendIn: (_db: object, entry: NewAuditEntry) => void entries.push(entry),
  };
  return {
    entries,
    retention: createRetention({ ...world.core, events: world.fleet.events, audit }),
  };
}

async function tell(sender: Sender, kind: 'sample' | 'app', count: number, atMs: number) {
  const records = Array.from({ length: count }, (_, number) => ({
    ...{ timeMs: atMs, release: 'acme/pump@1.0.0' },
    data: kind === 'sample' ? { ...capture(number) } : { id: `p${number}`, prediction: 'ok' },
  }));
  const [answer] = await sender.exchange((await sender.maker.make(records, { class: kind })).message);
  assert.deepEqual(answer, { status: 'stored', records: count });
}

const count = (world: IngestWorld, table: 'samples' | 'prediction_places' | 'telemetry_sealed') =>
  world.store.tx(
    (db) =>
      db.first(world.store.qb.selectFrom(table).select((eb) => eb.fn.countAll<number>().as('n')))?.n ?? 0,
  );

test('old batches go with samples and places beside them; chains stay, and counts add up', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const startMs = world.clock.wall();
  await tell(sender, 'sample', 4, startMs);
  await tell(sender, 'app', 3, startMs);
  // Accepted by a person: how many there were stays known, what they were does not.
  await world.store.tx((db) =>
    db.run(
      world.store.qb
        .updateTable('samples')
        .set({ state: 'accepted', label: 'ok', reviewer: 'ann' })
        .where('record_index', '=', 1),
    ),
  );
  world.clock.advance(20 * dayMs);
  await tell(sender, 'sample', 2, startMs + 20 * dayMs);
  // A clock that is a year ahead keeps nothing longer.
  await tell(sender, 'sample', 1, startMs + 385 * dayMs);

  const { retention, entries } = opened(world);
  assert.deepEqual(await retention.run(), [], 'no policy: nothing goes');
  await put(world, 'retention: {sample: 30d}');
  assert.deepEqual(await retention.run(), [], 'nothing is old enough');
  world.clock.advance(11 * dayMs);

  const plan = (await retention.plan()).find((one) => one.class === 'sample');
  assert.deepEqual([plan?.batches, plan?.records, plan?.rule], [1, 4, 'retention/sample']);
  assert.equal(plan?.oldestMs, startMs);
  assert.equal((await world.records()).length, 10, 'a plan deletes nothing');
  const [done] = await retention.run();
  assert.deepEqual([done?.class, done?.batches, done?.records, done?.bytes], ['sample', 1, 4, plan.bytes]);
  assert.equal((await world.records({ class: 'sample' })).length, 3);
  assert.equal((await world.records({ class: 'app' })).length, 3, 'of this class nothing is said');
  const rows = await world.store.tx((db) =>
    db.all(world.store.qb.selectFrom('samples').select(['state', 'label', 'batch_id']).orderBy('batch_id')),
  );
  assert.deepEqual(
    rows.map(({ state, label }) => `${state} ${label}`),
    ['erased null', 'waiting null', 'waiting null', 'waiting null'],
  );
  assert.equal(await count(world, 'prediction_places'), 3, 'what was predicted is of the other class');

  const [counts] = await createTelemetryRecords(world.core).counts(sender.id);
  assert.deepEqual([counts?.records, counts?.erased, counts?.expired, counts?.batches], [10, 0, 4, 4]);
  const [event] = await world.events('telemetry-expired');
  assert.match(event?.detail ?? '', /sample: 4 records in 1 batches \(retention\/sample\)/);
  assert.deepEqual(
    entries.map(({ actor, action, rule, detail }) => [actor, action, rule, detail['records']]),
    [['job:retention', 'telemetry.expire', 'retention/sample', 4]],
  );
  assert.deepEqual(await retention.run(), [], 'once');
  await put(world, 'retention: {sample: 30d, app: 30d}', 2);
  assert.deepEqual(
    (await retention.run()).map(({ class: kind, records }) => `${kind} ${records}`),
    ['app 3'],
  );
  assert.equal(await count(world, 'prediction_places'), 0);

  // The year that the clock was ahead does not count; and the chain goes on.
  world.clock.advance(20 * dayMs);
  assert.deepEqual(
    (await retention.run()).map(({ records }) => records),
    [3],
  );
  await tell(sender, 'sample', 1, world.clock.wall());
  // What was erased before it was old is not counted twice.
  unwrap(await world.fleet.erasures.erase(sender.id, { untilMs: null, requestedBy: 'ann', reason: null }));
  world.clock.advance(40 * dayMs);
  assert.deepEqual(await retention.run(), []);
  const [after] = await createTelemetryRecords(world.core).counts(sender.id);
  assert.deepEqual([after?.records, after?.erased, after?.expired], [11, 1, 10]);
});

test('thousands of batches go in bounded steps, by an index, and a stop ends between two of them', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  await tell(sender, 'app', 1, world.clock.wall());
  const startMs = world.clock.wall();
  const { qb } = world.store;
  await world.store.tx((db) => {
    const { id } = sender;
    db.sql.run(
      `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 3999)
       INSERT INTO telemetry_batches (device_id, epoch, sequence, head_sha256, wrap_sha256, class, format, records,
         dropped, time_first_ms, time_last_ms, stored_at_ms)
       SELECT ?, ?, 10 + i, 'h', 'w', iif(i % 2 = 0, 'log', 'event'), 'packed', 5, 0, ?, ? + i, ? + i FROM n`,
      ...[id, sender.maker.key.epoch, startMs, startMs, startMs],
    );
    db.sql.run(
      `INSERT INTO telemetry_sealed (batch_id, key_id, releases, sealed)
       SELECT batch_id, 'k', '[]', zeroblob(64) FROM telemetry_batches WHERE head_sha256 = 'h'`,
    );
  });
  await put(world, 'retention: {log: 1d, event: 2d}');
  const { retention, entries } = opened(world);
  world.clock.advance(dayMs + 2_000);
  const [logs, ...others] = await retention.run();
  assert.deepEqual(others, []);
  assert.deepEqual([logs?.batches, logs?.records, logs?.bytes], [1_000, 5_000, 64_000]);
  assert.ok(entries.every(({ detail }) => Number(detail['batches']) <= 100));
  assert.equal(entries.length, 10);

  const asked = oldestBatches(qb, 'log', 1).compile();
  const steps = await world.store.tx((db) =>
    db.sql.all<{ detail: string }>(`EXPLAIN QUERY PLAN ${asked.sql}`, 'log', 1, 100),
  );
  assert.match(steps.map(({ detail }) => detail).join(), /telemetry_batches_kept/);
  assert.doesNotMatch(steps.map(({ detail }) => detail).join(), /TEMP B-TREE/);

  world.clock.advance(10 * dayMs);
  const running = retention.run();
  await retention.stop();
  const broken = await running;
  const left = await count(world, 'telemetry_sealed');
  assert.ok(left > 1, 'it ended early');
  assert.equal(
    3_001 - left,
    broken.reduce((sum, { batches }) => sum + batches, 0),
  );
  const again = await opened(world).retention.run();
  assert.equal(
    again.reduce((sum, { batches }) => sum + batches, 0),
    left - 1,
  );
});
