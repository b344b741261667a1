// Why: stored records over HTTP: who may read them, which ones, in an order that one can go on from.
// Trusts: ingest-world.ts. Must never: check prose; statuses, codes and records only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { type Problem, type Role, telemetryCountsSchema } from '../../shared/wire/http.ts';
import { type StoredRecord, storedRecordSchema } from '../../shared/wire/telemetry.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { recordsOf } from './batch-maker.ts';
import { type IngestWorld, openIngestWorld } from './ingest-world.ts';

async function openApi(world: IngestWorld) {
  const api = createApi(apiParts(world), () => true);
  const get = async (path: string, role: Role = 'operator', namespace: string | null = null) => {
    const { token } = await world.core.access.create({ user: 'tester', role, namespace, ttlMs: null });
    const headers = { authorization: `Bearer ${token}` };
    return api.fetch(new Request(`http://localhost/api/v1/telemetry${path}`, { headers }));
  };
  const lines = async (query = ''): Promise<StoredRecord[]> => {
    const answer = await get(query);
    assert.equal(answer.status, 200, query);
    assert.match(answer.headers.get('content-type') ?? '', /^application\/x-ndjson/);
    const text = await answer.text();
    assert.ok(text === '' || text.endsWith('\n'));
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => storedRecordSchema.parse(JSON.parse(line)));
  };
  const codeOf = async (...asked: Parameters<typeof get>): Promise<string> =>
    ((await (await get(...asked)).json()) as Problem).code;
  return { get, lines, codeOf };
}

const cursorOf = ({ device, epoch, sequence, index }: StoredRecord): string =>
  `${device}:${epoch}:${sequence}:${index}`;

test('filters: device, class, time, release; in the order of storing', async (t) => {
  const world = await openIngestWorld(t);
  const [one, two] = [await world.sender(), await world.sender()];
  const release = 'acme/digits@1.0.0';
  await one.exchange((await one.maker.make(recordsOf(3, 100), { class: 'app' })).message);
  await two.exchange((await two.maker.make(recordsOf(3, 50, release), { class: 'stats' })).message);
  await one.exchange((await one.maker.make(recordsOf(2, 0), { class: 'event' })).message);
  const { lines } = await openApi(world);
  const numbers = async (query: string) => (await lines(query)).map((record) => record.data['number']);
  assert.deepEqual(await numbers(''), [100, 101, 102, 50, 51, 52, 0, 1]);
  assert.deepEqual(await numbers(`?device=${one.id}`), [100, 101, 102, 0, 1]);
  assert.deepEqual(await numbers('?class=stats'), [50, 51, 52]);
  assert.deepEqual(await numbers(`?device=${one.id}&class=event`), [0, 1]);
  assert.deepEqual(await numbers(`?release=${encodeURIComponent(release)}`), [50, 51, 52]);
  const at = (number: number): number => recordsOf(1, number)[0]?.timeMs ?? 0;
  assert.deepEqual(await numbers(`?since=${at(51)}`), [100, 101, 102, 51, 52]);
  assert.deepEqual(await numbers(`?since=${at(51)}&until=${at(101)}`), [100, 51, 52]);
  assert.deepEqual(await numbers(`?since=${at(1_000)}`), []);
  assert.deepEqual(await numbers('?limit=2'), [100, 101]);
  assert.deepEqual(await numbers(`?device=${'0'.repeat(32)}`), []);
});

test('a reader that goes on from its last record misses and repeats nothing', async (t) => {
  const world = await openIngestWorld(t);
  const senders = [await world.sender(), await world.sender()];
  const { lines } = await openApi(world);
  const seen: StoredRecord[] = [];
  for (let round = 0; round < 4; round += 1) {
    for (const sender of senders) {
      await sender.exchange((await sender.maker.make(recordsOf(7, 10 * round))).message);
    }
    const last = seen.at(-1);
    const cursor = last === undefined ? '' : `&cursor=${cursorOf(last)}`;
    // Fewer than came: the reader falls behind and stops within batches.
    seen.push(...(await lines(`?limit=9${cursor}`)));
  }
  const last = seen.at(-1);
  assert.ok(last);
  seen.push(...(await lines(`?cursor=${cursorOf(last)}`)));
  assert.deepEqual(seen, await lines());
  assert.equal(new Set(seen.map(cursorOf)).size, 2 * 4 * 7);
});

test('an answer of many batches is whole', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const [batches, each] = [20, 51];
  const count = batches * each;
  for (let at = 0; at < count; at += each)
    await sender.exchange((await sender.maker.make(recordsOf(each, at))).message);
  const { lines } = await openApi(world);
  assert.deepEqual(
    (await lines()).map((record) => record.data['number']),
    Array.from({ length: count }, (_, number) => number),
  );
  assert.equal((await lines('?limit=700')).length, 700);
});

test('raw records are for operators, auditors and admins of the whole fleet; counts for everybody', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  await sender.exchange(
    (await sender.maker.make(recordsOf(3))).message,
    (await sender.maker.make(recordsOf(5), { format: 'tombstone' })).message,
  );
  const { get, codeOf } = await openApi(world);
  for (const role of ['viewer', 'publisher', 'approver'] as const) {
    assert.equal(await codeOf('', role), 'role-forbidden', role);
  }
  assert.equal(await codeOf('', 'operator', 'acme'), 'namespace-forbidden');
  for (const role of ['auditor', 'operator', 'admin'] as const) {
    assert.equal((await get('', role)).status, 200, role);
  }
  const counts = {
    device: sender.id,
    batches: 2,
    records: 3,
    dropped: 5,
    erased: 0,
    expired: 0,
    lostBatches: 0,
  };
  const answered = telemetryCountsSchema.array().parse(await (await get('/counts', 'viewer')).json());
  assert.deepEqual(answered, [counts]);
  assert.deepEqual(await (await get(`/counts?device=${'0'.repeat(32)}`)).json(), []);
  for (const query of ['?limit=0', '?device=x', '?class=x', '?release=x', '?since=x', '?cursor=x']) {
    assert.equal(await codeOf(query), 'input-invalid', query);
  }
  assert.equal(await codeOf(`?cursor=${sender.id}:0:9:0`), 'not-found');
});

test('queries walk along an index and sort nothing', async (t) => {
  const world = await openIngestWorld(t);
  const plans: string[] = [];
  const { tx } = world.store;
  world.store.tx = (work) =>
    tx((db) =>
      work({
        ...db,
        all: (query) => {
          const { sql, parameters } = query.compile();
          if (sql.includes('telemetry_sealed')) {
            const values = parameters as (string | number)[];
            const plan = db.sql.all<{ detail: string }>(`EXPLAIN QUERY PLAN ${sql}`, ...values);
            plans.push(plan.map((step) => step.detail).join('; '));
          }
          return db.all(query);
        },
      }),
    );
  const day = Date.UTC(2026, 0, 1);
  for (const filter of [{}, { device: 'x' }, { sinceMs: day }, { device: 'x', sinceMs: day, untilMs: day }]) {
    await world.records(filter);
  }
  assert.equal(plans.length, 4);
  for (const plan of plans) {
    assert.doesNotMatch(plan, /SCAN|TEMP B-TREE/);
    assert.match(plan, /SEARCH s USING INTEGER PRIMARY KEY/);
  }
});
