// Why: what goes from region to region beside the catalogue: taken once and in order whatever breaks off, and only where the
// policy says yes. Trusts: a real store. Must never: look at the places by anything but what was taken.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RegionAsker } from '../../registry/regions/asking.ts';
import { createDoorHandler } from '../../registry/regions/door.ts';
import { regionLimits } from '../../registry/regions/limits.ts';
import { createPulls } from '../../registry/regions/pulls.ts';
import type { IncomingStream, OutgoingStream, StreamItem } from '../../registry/regions/streams.ts';
import { openRegistryStore } from '../../registry/store/open.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { heardLog } from '../registry-core/support.ts';
import { joinRegion, startRegion, until } from './support.ts';

const items = (from: number, to: number): StreamItem[] =>
  Array.from({ length: to - from + 1 }, (_, at) => ({ id: from + at, body: `item ${from + at}` }));

test('pages are taken once and in order; a take that throws keeps the place; a restored source is taken again', async (t) => {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const taken: string[] = [];
  let breaks = false;
  const stream: IncomingStream = {
    name: 'notes',
    takeIn: (db, _peer, page) => {
      for (const { body } of page) {
        db.sql.run(
          'INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING',
          `note ${String(body)}`,
          '',
        );
        if (breaks) throw new Error('the disk is full');
      }
      taken.push(...page.map(({ body }) => String(body)));
    },
  };
  const source = { incarnation: 'a', items: items(1, 7), asked: 0, away: false };
  const asker: Pick<RegionAsker, 'page'> = {
    page: async (_name, after) => {
      source.asked += 1;
      if (source.away) return refuse('region-unreachable', 'away');
      const left = source.items.filter(({ id }) => id > after);
      const page = left.slice(0, 3);
      return ok({ incarnation: source.incarnation, items: page, more: page.length < left.length });
    },
  };
  const pulls = createPulls({ store, log: heardLog() }, { streams: [stream], limits: regionLimits });
  const pull = () => pulls.pull('west', asker);
  assert.deepEqual(await pull(), ok({ taken: 7, refused: [] }));
  assert.deepEqual(
    taken,
    items(1, 7).map(({ body }) => body),
  );
  assert.deepEqual(await pull(), ok({ taken: 0, refused: [] }));

  source.items = items(1, 8);
  breaks = true;
  await assert.rejects(pull());
  const kept = await store.tx((db) => db.sql.all("SELECT key FROM settings WHERE key LIKE 'note%'"));
  assert.equal(kept.length, 7, 'what was begun is rolled back');
  breaks = false;
  assert.deepEqual(await pull(), ok({ taken: 1, refused: [] }));
  assert.deepEqual(await pulls.places('west'), [{ name: 'notes', last: 8, taken: 8 }]);

  source.away = true;
  assert.equal((await pull()).ok, false);
  source.away = false;
  // Restored from a backup, it numbers anew: all of it is offered again, and what is new under an old number is not missed.
  source.incarnation = 'b';
  source.items = [...items(1, 5), { id: 6, body: 'another six' }];
  assert.deepEqual(await pull(), ok({ taken: 6, refused: [] }));
  assert.ok(taken.includes('another six'));
});

test('a list that cannot be judged yet keeps its place and holds up no other', async (t) => {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const log = heardLog();
  const taken: string[] = [];
  let failure: Error | null = new FleetError('audit-head-unverified', 'its root is not here yet');
  const list = (name: string, first: () => void): IncomingStream => ({
    name,
    takeIn: (_db, _peer, page) => {
      first();
      taken.push(...page.map(({ body }) => `${name} ${String(body)}`));
    },
  });
  const heads = list('heads', () => {
    if (failure !== null) throw failure;
  });
  const asker: Pick<RegionAsker, 'page'> = {
    page: async (_name, after) =>
      ok({ incarnation: 'a', items: items(1, 2).filter(({ id }) => id > after), more: false }),
  };
  const streams = [heads, list('orders', () => undefined)];
  const pulls = createPulls({ store, log }, { streams, limits: regionLimits });
  const refused = {
    ...{ stream: 'heads', code: 'audit-head-unverified' as const, detail: 'its root is not here yet' },
  };
  for (const count of [2, 0])
    assert.deepEqual(await pulls.pull('west', asker), ok({ taken: count, refused: [refused] }));
  assert.deepEqual(taken, ['orders item 1', 'orders item 2']);
  assert.deepEqual(await pulls.places('west'), [{ name: 'orders', last: 2, taken: 2 }]);
  assert.deepEqual(
    log.events.map(({ event }) => event),
    ['regions.stream.refused'],
    'told once',
  );
  // A fault of our own store is no word about the list: whoever pulls is told.
  failure = new FleetError('disk-full', 'no space left');
  await assert.rejects(pulls.pull('west', asker), { code: 'disk-full' });
  failure = null;
  assert.deepEqual(await pulls.pull('west', asker), ok({ taken: 2, refused: [] }));
  assert.deepEqual(taken.slice(2), ['heads item 1', 'heads item 2']);
});

test('a list of raw telemetry is refused to a region by the rule, and told', async (t) => {
  const home = await startRegion(t, 'home');
  await joinRegion(t, home, 'west');
  await until('west is a region', async () => (await home.status()).regions.length === 2);
  const { regions } = home.registry.parts;
  assert.ok(regions);
  const entry = (await regions.members.peers())[0];
  assert.equal(entry?.region, 'west');
  const list = (name: string, flow: OutgoingStream['flow']): OutgoingStream => ({
    name,
    flow,
    readIn: (_db, peer, after, limit) =>
      items(1, 5)
        .filter(({ id }) => id > after)
        .slice(0, limit)
        .map(({ id, body }) => ({ id, body: `${String(body)} for ${peer}` })),
  });
  const denied: string[] = [];
  const handler = createDoorHandler({
    core: home.registry.parts,
    members: regions.members,
    policies: home.registry.parts.policies,
    streams: [list('cells', 'cells'), list('records', 'app')],
    limits: regionLimits,
    ready: () => true,
    onAsked: () => undefined,
    onDenied: async ({ region, flow, rule }) => void denied.push(`${region} ${flow} ${rule}`),
    log: heardLog(),
  });
  const ask = async (path: string, publicKey = entry?.publicKey ?? '') => {
    const url = new URL(`https://door.invalid/regions/v1/${path}`);
    const answer = await handler({
      ...{ publicKey, method: 'GET', path: url.pathname, query: url.searchParams },
      body: new Uint8Array(),
    });
    return { status: answer.status, body: JSON.parse(new TextDecoder().decode(answer.bytes)) as object };
  };
  const cells = await ask('streams/cells?after=2&limit=2');
  assert.equal(cells.status, 200);
  assert.deepEqual(cells.body, {
    incarnation: home.registry.parts.incarnation,
    items: [
      { id: 3, body: 'item 3 for west' },
      { id: 4, body: 'item 4 for west' },
    ],
    more: true,
  });
  const records = await ask('streams/records?after=0&limit=2');
  assert.equal(records.status, 403);
  assert.match(JSON.stringify(records.body), /"code":"policy-denied".*"rule":"default\/raw-stays"/);
  assert.deepEqual(denied, ['west app default/raw-stays']);
  // No list of records is offered by anybody: whoever makes one up is told the rule, and it is on record.
  for (const path of ['streams/sample?after=0&limit=1', 'streams/telemetry', 'telemetry/export', 'log']) {
    const forged = await ask(path);
    assert.equal(forged.status, 403, path);
    assert.match(JSON.stringify(forged.body), /"code":"policy-denied".*"rule":"default\/raw-stays"/, path);
  }
  assert.equal(denied.length, 5);
  assert.equal((await ask('streams/cells?after=0&limit=2', '00'.repeat(32))).status, 403);
  for (const path of [
    'streams/none?after=0&limit=1',
    'streams/cells?after=x&limit=1',
    'blobs/zz?offset=0&length=1',
  ])
    assert.ok((await ask(path)).status >= 400, path);
});
