// Why: what was erased stays erased when an older database comes back, and nothing is erased for a word that nobody signed.
// Trusts: ingest-world.ts for batches and store. Must never: look for what was erased only where the code would look.

import assert from 'node:assert/strict';
import { appendFileSync, cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import type { NewAuditEntry } from '../../registry/audit/audit.ts';
import { createErasures } from '../../registry/telemetry/erasure.ts';
import { openErasureJournal } from '../../registry/telemetry/erasure-journal.ts';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { openWithholding } from '../../registry/telemetry/withholding.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { checkErasure } from '../../shared/trust/erasure.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { Erasure } from '../../shared/wire/erasure.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { heardLog, temporaryFolder } from '../registry-core/support.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import { type IngestWorld, openIngestWorld, type Sender } from '../telemetry/ingest-world.ts';

const by = { untilMs: null, requestedBy: 'alice', reason: 'asked for by the person' };
const databases = ['registry.sqlite', 'telemetry-keys.sqlite'];

async function send(sender: Sender, from: number): Promise<void> {
  await sender.exchange((await sender.maker.make(recordsOf(3, from))).message);
}

const countOf = async (world: IngestWorld, { id }: Sender): Promise<number> =>
  (await world.records({ device: id })).length;

/** Two devices, a copy of both databases, then the first device is erased. */
async function erasedAfterCopy(t: Parameters<typeof openIngestWorld>[0]) {
  const folder = temporaryFolder(t);
  const copies = temporaryFolder(t);
  const first = await openIngestWorld(t, { folder, chance: 'first' });
  const [one, other] = [await first.sender(), await first.sender()];
  for (const sender of [one, other]) await send(sender, 0);
  await first.store.copyTo(join(copies, 'registry.sqlite'));
  await first.core.telemetryKeys.copyTo(join(copies, 'telemetry-keys.sqlite'));
  await send(other, 3);
  const erasure = unwrap(await first.fleet.erasures.erase(one.id, by));
  await first.close();
  /** These databases as they were, everything else as it is. */
  const bringBack = (names: readonly string[]): void => {
    for (const name of names) {
      for (const end of ['-wal', '-shm']) rmSync(join(folder, `${name}${end}`), { force: true });
      cpSync(join(copies, name), join(folder, name));
    }
  };
  return { folder, first, one, other, erasure, bringBack };
}

/** Secret keys of a device in a copy of the keys' database. */
async function secretsIn(path: string, deviceId: string): Promise<number> {
  const store = await openStore(path, { synchronous: 'FULL' });
  const rows = await store.tx((db) =>
    db.all('SELECT key_id FROM telemetry_keys WHERE device_id = ?', deviceId),
  );
  await store.close();
  return rows.length;
}

test('an older copy of both databases is erased again before anything else; the certificate stays the same', async (t) => {
  const { folder, first, one, other, erasure, bringBack } = await erasedAfterCopy(t);
  bringBack(databases);
  assert.equal(await secretsIn(join(folder, 'telemetry-keys.sqlite'), one.id), 1, 'it is back');

  const second = await openIngestWorld(t, { folder, chance: 'second', clock: first.clock });
  const replayed = second.log.events.filter(({ event }) => event === 'erasure.replayed');
  assert.deepEqual(
    replayed.map(({ fields }) => [fields['deviceId'], fields['keys'], fields['records'], fields['from']]),
    [[one.id, 1, 3, 'journal']],
  );
  assert.deepEqual([await countOf(second, one), await countOf(second, other)], [0, 3]);
  assert.deepEqual(await second.fleet.erasures.list(), [erasure]);
  const root = unwrap(parseRegionRoot(await second.repository.regionRoot()));
  assert.deepEqual(checkErasure(erasure.certificate, root), { ok: true, value: erasure.statement });
  const [keyId = ''] = erasure.statement.keys.map((key) => key.keyId);
  assert.equal(await second.core.telemetryKeys.open(one.id, 0, keyId), null);
  assert.equal(second.core.telemetryKeys.isErased(keyId), true);
  // The device goes on with another key, and what was sealed to the old one and comes late counts as erased.
  await second.settle();
  one.device.moveTo(second);
  assert.notEqual((await one.device.assignment())?.telemetry?.keyId, keyId);
  await second.close();
  assert.equal(readFileSync(join(folder, 'registry.sqlite')).includes(Buffer.from(keyId)), true, 'certified');

  const third = await openIngestWorld(t, { folder, chance: 'third', clock: first.clock });
  assert.deepEqual(
    third.log.events.filter(({ event }) => event.startsWith('erasure.')),
    [],
    'a second start finds nothing to do',
  );
  assert.deepEqual(await third.fleet.erasures.list(), [erasure]);
});

test('the keys alone come back from their own backup: gone again, and so is what they would open', async (t) => {
  const { folder, first, one, other, bringBack } = await erasedAfterCopy(t);
  bringBack(['telemetry-keys.sqlite']);
  const second = await openIngestWorld(t, { folder, chance: 'second', clock: first.clock });
  const returned = second.log.events.filter(({ event }) => event === 'erasure.keys.returned');
  assert.deepEqual(
    returned.map(({ fields }) => fields['keys']),
    [1],
  );
  assert.deepEqual([await countOf(second, one), await countOf(second, other)], [0, 6]);
  await second.close();
  // No page of the file holds them any more: what is left is the key that it got since.
  const kept = await openStore(join(folder, 'telemetry-keys.sqlite'), { synchronous: 'FULL' });
  t.after(() => kept.close());
  const left = await kept.tx((db) =>
    db.all<{ made: number }>(
      'SELECT made_at_ms AS made FROM telemetry_keys WHERE device_id = ? AND key_id IN (SELECT key_id FROM erased_keys)',
      one.id,
    ),
  );
  assert.deepEqual(left, []);
});

test('the journal lacks what the database knows: it is written again; a torn line is cut off', async (t) => {
  const { folder, first, erasure } = await erasedAfterCopy(t);
  const path = join(folder, 'erasures.jsonl');
  const line = `${JSON.stringify(erasure)}\n`;
  assert.equal(readFileSync(path, 'utf8'), line);
  writeFileSync(path, line.slice(0, 100));
  const second = await openIngestWorld(t, { folder, chance: 'second', clock: first.clock });
  assert.equal(readFileSync(path, 'utf8'), line);
  await second.close();

  const journal = openErasureJournal(openDisk(folder));
  await Promise.all([journal.append([erasure]), journal.append([erasure])]);
  assert.equal(readFileSync(path, 'utf8'), line, 'once is enough');
});

test('a certificate that nobody signed erases nothing, and keeps a restored registry closed', async (t) => {
  const { folder, first, one, other, erasure, bringBack } = await erasedAfterCopy(t);
  bringBack(databases);
  rmSync(join(folder, 'erasures.jsonl'));
  const forged: Erasure = {
    statement: { ...erasure.statement, deviceId: other.id, erasureId: 'forged' },
    certificate: { ...erasure.certificate, payload: Buffer.from('{}').toString('base64') },
  };
  // Genuine, and put under another id, so that it would be done a second time.
  const renamed: Erasure = { ...erasure, statement: { ...erasure.statement, erasureId: 'renamed' } };
  appendFileSync(
    join(folder, 'erasures.jsonl'),
    `${JSON.stringify(forged)}\n${JSON.stringify(renamed)}\nno certificate\n`,
  );
  const store = await openStore(join(folder, 'registry.sqlite'), { synchronous: 'FULL' });
  const restored = { backup: 'b', takenAtMs: 1, restoredAtMs: 2, erasures: 'given' };
  await store.tx((db) => db.run("INSERT INTO settings VALUES ('restored', ?)", JSON.stringify(restored)));
  await store.close();
  const second = await openIngestWorld(t, { folder, chance: 'second', clock: first.clock });
  assert.equal(second.log.events.filter(({ event }) => event === 'erasure.unproven').length, 2);
  assert.deepEqual(await second.fleet.erasures.list(), []);
  const refused = await createTelemetryRecords(second.core).read({}, { cursor: null, limit: null });
  assert.equal(refused.ok ? 'ok' : refused.refusal.code, 'erasures-unconfirmed');
  assert.equal(await second.core.withholding.confirm('bob'), true);
  assert.deepEqual([await countOf(second, one), await countOf(second, other)], [3, 3]);
});

test('a restored registry gives out no record before erasures are known; devices go on sending', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  await send(sender, 0);
  const restored = { backup: '20260101T000000Z-00000000', takenAtMs: 1, restoredAtMs: 2, erasures: 'peers' };
  await world.store.tx(({ sql }) => {
    sql.run("INSERT INTO settings VALUES ('restored', ?)", JSON.stringify(restored));
    sql.run("INSERT INTO settings VALUES ('incarnation', 'second life')");
  });
  await world.core.withholding.reload();
  await world.restart();
  const api = createApi(apiParts(world), () => true);
  const { token } = await world.core.access.create({
    ...{ user: 'bob', role: 'admin', namespace: null, ttlMs: null },
  });
  const ask = async (method: string, path: string, body?: object) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const init = body === undefined ? { method, headers } : { method, headers, body: JSON.stringify(body) };
    return api.fetch(new Request(`http://localhost/api/v1${path}`, init));
  };
  for (const path of ['/telemetry', `/rights/export?device=${sender.id}`]) {
    const answer = await ask('GET', path);
    assert.equal(answer.status, 409, path);
    assert.match(await answer.text(), /erasures-unconfirmed/);
  }
  await send(sender, 3);
  // Peers learn of this life; nobody is there to answer.
  const told = await world.store.tx(({ sql }) => sql.all('SELECT stream, peer, body FROM erasure_outbox'));
  assert.deepEqual(told, [
    { stream: 'erasure-requests', peer: null, body: '{"kind":"restored","incarnation":"second life"}' },
  ]);
  assert.equal((await ask('POST', '/restored/erasures-confirmed', {})).status, 200);
  assert.equal((await (await ask('GET', '/telemetry')).text()).split('\n').length - 1, 6);
  assert.equal((await openWithholding(world.core)).view()?.settled?.by, 'bob', 'it is remembered');
});

test('every device with a label is erased; a replay of a peer is audited', async (t) => {
  const world = await openIngestWorld(t);
  const [one, other] = [await world.sender(), await world.sender()];
  for (const sender of [one, other]) await send(sender, 0);
  unwrap(await world.fleet.devices.label(one.id, { subject: 'p-17' }));
  const api = createApi(apiParts(world), () => true);
  const { token } = await world.core.access.create({
    ...{ user: 'bob', role: 'admin', namespace: null, ttlMs: null },
  });
  const erase = async (labels: object): Promise<Response> =>
    api.fetch(
      new Request('http://localhost/api/v1/telemetry/erasures', {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ labels, reason: 'article 17' }),
      }),
    );
  assert.equal((await erase({})).status, 400, 'no label is not every device');
  assert.deepEqual(await (await erase({ subject: 'p-18' })).json(), []);
  const done = (await (await erase({ subject: 'p-17' })).json()) as Erasure[];
  assert.deepEqual(
    done.map(({ statement }) => [statement.deviceId, statement.requestedBy]),
    [[one.id, 'bob']],
  );
  assert.deepEqual([await countOf(world, one), await countOf(world, other)], [0, 3]);

  const entries: NewAuditEntry[] = [];
  const { erasures: again } = await withoutErasures(world, entries);
  const [erasure] = done;
  assert.ok(erasure);
  const item = { id: 1, body: { kind: 'returned', erasure } };
  const exchange = again.exchange({ peersIn: () => ['north'], rootsIn: () => [] });
  const incoming = exchange.incoming.find(({ name }) => name === 'erasures');
  await world.store.tx((db) => incoming?.takeIn(db, 'north', [item, item]));
  assert.deepEqual(
    entries.map(({ action, via, subject, outcome }) => [action, via, subject, outcome]),
    [['telemetry.erasure.replay', 'region', one.id, 'done']],
  );
  assert.deepEqual(await again.list(), done);
});

/** The same registry, having forgotten its erasures; what it does is audited. */
async function withoutErasures(world: IngestWorld, entries: NewAuditEntry[]) {
  await world.store.tx(({ sql }) => sql.run('DELETE FROM erasures'));
  return {
    erasures: createErasures({
      ...world.core,
      signer: world.keyring.signer('ack'),
      log: heardLog(),
      audit: { appendIn: (_db, entry) => void entries.push(entry) },
      eraseIn: () => undefined,
      equip: async () => undefined,
      background: (_what, work) => void work(),
    }),
  };
}
