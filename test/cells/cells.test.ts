// Why: a day is published once, when it is closed: to whom, what of it, and what becomes of those who are late or erased.
// Trusts: test/fleet/world.ts for store, keys, clock and API. Must never: compare prose; numbers, rules and codes only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { createCellsIncoming, createCellsOutgoing } from '../../registry/cells/streams.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { signCell } from '../../shared/trust/cells.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import {
  type CellList,
  cellItemSchema,
  cellListSchema,
  cellStatementSchema,
  mergedListSchema,
} from '../../shared/wire/cells.ts';
import type { Problem, Role } from '../../shared/wire/http.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { openWorld, type World } from '../fleet/world.ts';
import { publisherKey } from '../registry-core/support.ts';
import { openIngestWorld } from '../telemetry/ingest-world.ts';
import { evenProfile, pushProfiled } from '../telemetry/profiled.ts';
import { type Did, dayMs, deviceName, publishing, releases, tell, threeDays } from './scene.ts';

const firstDay = Date.UTC(2026, 0, 1) / dayMs;
const [old, next, canary] = releases;

function asking(world: World) {
  const api = createApi(apiParts(world), () => true);
  const get = async (path: string, role: Role, namespace: string | null = null): Promise<Response> => {
    const { token } = await world.core.access.create({ user: 'tester', role, namespace, ttlMs: null });
    const headers = { authorization: `Bearer ${token}` };
    return api.fetch(new Request(`http://localhost/api/v1/${path}`, { headers }));
  };
  return {
    get,
    cells: async (query = '', role: Role = 'auditor', namespace: string | null = null): Promise<CellList> => {
      const answer = await get(`cells${query}`, role, namespace);
      assert.equal(answer.status, 200, await answer.clone().text());
      return cellListSchema.parse(await answer.json());
    },
    merged: async (query = '') =>
      mergedListSchema.parse(await (await get(`cells/merged${query}`, 'viewer')).json()).merged,
    codeOf: async (path: string): Promise<string> =>
      ((await (await get(path, 'viewer')).json()) as Problem).code ?? 'none',
  };
}

const brief = ({ cells }: CellList) =>
  cells.map(({ day, subject, answered, failed }) => [day - firstDay, subject, answered, failed]);

test('cells: a day is published when it has been over for a day, once, in fixed cells', async (t) => {
  const world = await openIngestWorld(t);
  const profileSha256 = await pushProfiled(world, old, 1, evenProfile);
  await tell(world, threeDays(firstDay, profileSha256));
  const job = publishing(world.core);
  world.clock.advance(2 * dayMs - 1);
  // The day before, of which there is nothing.
  assert.equal(await job.closeDue(), 1);
  const { cells } = asking(world);
  assert.equal((await cells()).cells.length, 0);
  world.clock.advance(1);
  assert.equal(await job.closeDue(), 1);
  assert.deepEqual(brief(await cells()), [
    [0, old, 400, 10],
    [0, next, 340, 9],
  ]);
  world.clock.advance(2 * dayMs);
  assert.equal(await job.closeDue(), 2);
  assert.equal(await job.closeDue(), 0);
  const all = await cells();
  assert.equal(all.cells.length, 6);
  const { body } =
    (await world.store.tx(({ sql }) => sql.get<{ body: Uint8Array }>('SELECT body FROM cells'))) ?? {};
  const [first] = all.cells;
  assert.deepEqual(JSON.parse(Buffer.from(body ?? []).toString()), first);
  assert.equal(first?.devicesAtLeast, 20);
  assert.deepEqual(first?.errors, { 'bad-input': 10 });
  assert.equal(first?.energy[0]?.joulesPer1000, 25);
  assert.deepEqual(first?.features?.features[0]?.counts, [0, ...Array(10).fill(40), 0]);
  // Two devices are slower: they are not enough for a class of their own.
  assert.equal(first?.latency?.length, 1);
  // Three devices ran the third release: not by itself, and not as what is missing in the model’s sum.
  assert.deepEqual(
    new Set(all.withheld.list?.map(({ subject, part, rule }) => `${subject} ${part} ${rule}`)),
    new Set([`${canary} cell cells/k`, 'acme/pump cell cells/complement']),
  );
});

test('cells: viewers read what is published, and not which cells are withheld', async (t) => {
  const world = await openWorld(t);
  await tell(world, threeDays(firstDay));
  world.clock.advance(4 * dayMs);
  await publishing(world.core).closeDue();
  const { cells, codeOf } = asking(world);
  const seen = await cells('', 'viewer');
  assert.equal(seen.cells.length, 6);
  assert.equal(seen.withheld.list, null);
  assert.ok(seen.withheld.count > 0);
  for (const role of ['auditor', 'operator', 'admin'] as const)
    assert.equal((await cells('', role)).withheld.list?.length, seen.withheld.count);
  assert.equal((await cells('', 'operator', 'other')).withheld.list, null);
  assert.ok((await cells(`?release=${old}`, 'operator', 'acme')).withheld.list);
  assert.deepEqual(brief(await cells(`?release=${next}&to=${firstDay * dayMs}`)), [[0, next, 340, 9]]);
  assert.equal((await cells('?region=elsewhere')).cells.length, 0);
  assert.equal((await cells('?model=acme/other')).cells.length, 0);
  assert.equal(await codeOf('cells?model=acme'), 'input-invalid');
  assert.equal(await codeOf('cells?from=2&to=1'), 'none');
  assert.equal(await codeOf(`cells?from=${2 * dayMs}&to=1`), 'input-invalid');
  assert.equal(await codeOf(`cells?from=0&to=${100 * dayMs}`), 'input-invalid');
  // There is no way to ask for part of a day, of devices by label, or of one of them.
  assert.deepEqual(
    brief(
      await cells(
        `?from=${firstDay * dayMs + 9 * 3_600_000}&to=${firstDay * dayMs + 10 * 3_600_000}&device=x`,
      ),
    ),
    [
      [0, old, 400, 10],
      [0, next, 340, 9],
    ],
  );
});

test('cells: who is late is counted and in no cell, and who joins alone waits', async (t) => {
  const world = await openWorld(t);
  await tell(world, threeDays(firstDay));
  world.clock.advance(2 * dayMs);
  const job = publishing(world.core);
  await job.closeDue();
  const late = { timeMs: firstDay * dayMs + 1, release: old, data: '{}' };
  const batch = { deviceId: deviceName(50), batchId: 1, class: 'stats' as const, nowMs: world.clock.wall() };
  await world.store.tx((db) => world.fleet.evidence.addIn(db, { ...batch, records: [late, late] }));
  await tell(world, [{ release: old, device: deviceName(50), day: firstDay }]);
  // One joins on the second day; on the third it has company.
  const joins = (at: number, day: number): Did => ({
    release: old,
    device: deviceName(at),
    day,
    answered: 20,
  });
  await tell(world, [joins(60, firstDay + 1), ...[60, 61, 62, 63, 64].map((at) => joins(at, firstDay + 2))]);
  world.clock.advance(2 * dayMs);
  await job.closeDue();
  const { cells } = asking(world);
  const found = await cells(`?release=${old}`);
  assert.deepEqual(brief(found), [
    [0, old, 400, 10],
    [1, old, 400, 10],
    [2, old, 500, 10],
  ]);
  assert.equal(found.lateRecords, 2);
});

test('cells: an erased device stays in what was published and is in nothing that follows', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  await tell(world, threeDays(firstDay));
  const also = (day: number): Did => ({ release: old, device: sender.id, day, answered: 20 });
  await tell(world, [also(firstDay), also(firstDay + 1)]);
  world.clock.advance(2 * dayMs);
  const job = publishing(world.core);
  await job.closeDue();
  unwrap(await world.fleet.erasures.erase(sender.id, { untilMs: null, requestedBy: 'tester', reason: null }));
  world.clock.advance(dayMs);
  await job.closeDue();
  const found = brief(await asking(world).cells(`?release=${old}`));
  assert.deepEqual(found[0], [0, old, 420, 10]);
  // With it four others are left out, so that the difference is nobody’s.
  assert.equal(found[1]?.[2], (20 - 4) * 20);
  const members = await world.store.tx(({ sql }) =>
    sql.all<{ members: string }>('SELECT members FROM cell_members'),
  );
  assert.ok(members.every((row) => !row.members.includes(sender.id)));
});

test('cells: features that no envelope would hold stay here', async (t) => {
  const world = await openWorld(t);
  const x = Array<number>(4_000).fill(1_000);
  const many = { release: old, day: firstDay, profileSha256: 'a'.repeat(64), x, features: 50 };
  await tell(
    world,
    [1, 2, 3, 4, 5].map((at) => ({ ...many, device: deviceName(at) })),
  );
  world.clock.advance(2 * dayMs);
  assert.equal(await publishing(world.core).closeDue(), 1);
  const { cells, withheld } = await asking(world).cells();
  assert.deepEqual([cells[0]?.answered, cells[0]?.features], [120, null]);
  assert.deepEqual(
    withheld.list?.map(({ part, rule }) => [part, rule]),
    [['features', 'cells/size']],
  );
});

test('cells: one that is being erased is in no cell, and an erasure in between starts the day anew', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  await tell(world, threeDays(firstDay));
  await tell(world, [{ release: old, device: device.id, day: firstDay, answered: 20 }]);
  await world.store.tx(({ sql }) =>
    sql.run(
      `INSERT INTO erasures (erasure_id, device_id, until_ms, requested_by, reason, begun_at_ms, certificate)
       VALUES ('e', ?, 1, 'tester', NULL, 1, NULL)`,
      device.id,
    ),
  );
  world.clock.advance(2 * dayMs);
  let asked = 0;
  const job = publishing({
    ...world.core,
    store: {
      ...world.store,
      tx: async (work) => {
        asked += 1;
        // Ends while the day is being added up.
        if (asked === 40)
          await world.store.tx(({ sql }) =>
            sql.run(`UPDATE erasures SET certificate = '{}' WHERE erasure_id = 'e'`),
          );
        return world.store.tx(work);
      },
    },
  });
  assert.equal(await job.closeDue(), 0);
  assert.ok(asked > 40);
  assert.equal((await asking(world).cells()).cells.length, 0);
  await world.store.tx(({ sql }) => sql.run('DELETE FROM rollup_requests WHERE device_id = ?', device.id));
  assert.equal(await job.closeDue(), 1);
  assert.deepEqual(brief(await asking(world).cells(`?release=${old}`)), [[0, old, 400, 10]]);
});

test('cells: peers pull them in order, take each once, and nothing that the region did not sign', async (t) => {
  const [home, away] = [await openWorld(t), await openIngestWorld(t)];
  const profileSha256 = await pushProfiled(away, old, 1, evenProfile);
  await tell(home, threeDays(firstDay, profileSha256));
  home.clock.advance(4 * dayMs);
  // Its rollups say region `test` as well: what it publishes is of another name here.
  const core = { ...home.core, region: 'south' };
  await publishing(core).closeDue();
  const outgoing = createCellsOutgoing(home.store);
  const items = await home.store.tx((db) => outgoing.readIn(db, 'test', 0, 4));
  const rest = await home.store.tx((db) => outgoing.readIn(db, 'test', items.at(-1)?.id ?? 0, 4));
  assert.deepEqual([outgoing.flow, items.length, rest.length], ['cells', 4, 2]);

  const root = unwrap(parseRegionRoot(await home.repository.regionRoot()));
  const regionKeysOf = (_db: unknown, region: string) => (region === 'south' ? [root.roles.ack] : []);
  const incoming = createCellsIncoming({ ...away, regionKeysOf, events: away.fleet.events });
  const take = (peer: string, some: typeof items) => away.store.tx((db) => incoming.takeIn(db, peer, some));
  await assert.rejects(take('north', items), { code: 'metadata-missing' });
  await take('south', items);
  await take('south', [...items, ...rest]);
  const { cells, merged } = asking(away);
  const days = `from=${firstDay * dayMs}&to=${(firstDay + 2) * dayMs}`;
  assert.equal((await cells(`?region=south&${days}`)).cells.length, 6);
  assert.deepEqual(await away.events('cells-invalid'), []);

  const attack = async (body: unknown): Promise<string[]> => {
    // Once it may be that a newer root is to come; what is wrong the next time is wrong.
    const doubted = await take('south', [{ id: 99, body }]).then(
      () => 'taken',
      (error: { code: string }) => error.code,
    );
    if (doubted !== 'taken') {
      assert.equal(doubted, 'cells-invalid');
      await take('south', [{ id: 99, body }]);
    }
    return (await away.fleet.events.list({ attacks: true, limit: 10 })).map(({ code }) => code);
  };
  const { envelope } = cellItemSchema.parse(items[0]?.body);
  const statement = cellStatementSchema.parse(JSON.parse(Buffer.from(envelope.payload, 'base64').toString()));
  const foreign = signCell({ ...statement, answered: 1 }, publisherKey('acme'));
  assert.deepEqual(await attack({ envelope: foreign }), ['cells-invalid']);
  assert.deepEqual(await attack({ nothing: true }), ['cells-invalid', 'cells-invalid']);
  const ack = home.keyring.signer('ack');
  const other = { envelope: signCell({ ...statement, region: 'west' }, ack) };
  assert.deepEqual((await attack(other)).length, 3);
  const malformed = { envelope: signCell({ ...statement, subject: 'acme' }, ack) };
  assert.deepEqual((await attack(malformed)).length, 4);
  // Signed by the region, and not what it said before.
  const revised = { envelope: signCell({ ...statement, answered: 401 }, ack) };
  assert.deepEqual((await attack(revised))[0], 'cells-changed');
  assert.equal((await cells(`?region=south&release=${old}&${days}`)).cells[0]?.answered, 400);

  await tell(away, threeDays(firstDay, profileSha256));
  away.clock.advance(4 * dayMs);
  await publishing(away.core).closeDue();
  const [of] = await merged(`?release=${old}&${days}`);
  assert.deepEqual([of?.regions, of?.cells, of?.answered, of?.failed], [['south', 'test'], 6, 2_400, 60]);
  assert.deepEqual(of?.errors, { 'bad-input': 60 });
  assert.equal(of?.devicesAtLeast, 40);
  assert.ok((of?.latencyMs?.p50 ?? 0) >= 20 && (of?.latencyMs?.p99 ?? 0) < 26);
  assert.equal(of?.energy[0]?.joulesPer1000, 25);
  const [x, classes] = of?.features ?? [];
  assert.deepEqual([x?.verdict, x?.psi, x?.count, x?.bins], ['ok', 0.0005, 2_400, 12]);
  assert.equal(classes?.verdict, 'too-few');
  assert.equal(of?.verdict, 'ok');
});
