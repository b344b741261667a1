// Why: a registry that an earlier version filled opens with today's, and everything is there and goes on.
// Trusts: the migrations folder for what the schema was. Must never: pass over a table that had rows then.

import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createRightsExport } from '../../registry/rights/export.ts';
import { migrationsFolder, openRegistryStore } from '../../registry/store/open.ts';
import { telemetryKeyMigrations } from '../../registry/telemetry/keys.ts';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { openStore, readMigrations, type SqliteStore } from '../../shared/host/sqlite.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { SqlTx, SqlValue } from '../../shared/kernel/ports.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { temporaryFolder } from '../registry-core/support.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import { type IngestWorld, openIngestWorld, type Sender } from '../telemetry/ingest-world.ts';
import { filled, release } from './filled-world.ts';

type Row = Record<string, SqlValue>;

const tablesOf = (db: SqlTx): string[] =>
  db
    .all<{ name: string }>(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'migrations' ORDER BY name",
    )
    .map(({ name }) => name);

interface Column {
  name: string;
  type: string;
  notnull: number;
  pk: number;
  dflt_value: string | null;
}
const columnsOf = (db: SqlTx, table: string): Column[] => db.all<Column>(`PRAGMA table_info(${table})`);

/** Key columns first, so that rows of before and after stand in one order. */
function rowsOf(db: SqlTx, table: string, columns: readonly string[]): Row[] {
  const names = columns.join(', ');
  return db.all<Row>(`SELECT ${names} FROM ${table} ORDER BY ${names}`);
}

function insert(db: SqlTx, table: string, row: Row): void {
  const names = Object.keys(row);
  const blanks = names.map(() => '?').join(', ');
  db.run(`INSERT INTO ${table} (${names.join(', ')}) VALUES (${blanks})`, ...Object.values(row));
}

/** A row of no meaning for a table that the world left empty: any value that the schema takes. */
function madeRow(db: SqlTx, table: string): Row {
  const given: Record<string, Row> = {
    encodings: { bases: '[]', outcome: 'no-smaller' },
    pending_pushes: { namespace: 'beta' },
    publisher_steps: { namespace: 'beta' },
    telemetry_lost: { first_sequence: 7, last_sequence: 9 },
    authorities: { number: 9 },
    version_floors: { version: 3 },
  };
  const known = given[table] ?? {};
  const needed = columnsOf(db, table).filter(
    ({ name, notnull, pk, dflt_value }) =>
      name in known || ((notnull === 1 || pk > 0) && dflt_value === null),
  );
  return Object.fromEntries(
    needed.map(({ name, type }) => {
      if (type === 'INTEGER' || type === 'REAL') return [name, known[name] ?? 1];
      return [name, known[name] ?? (type === 'BLOB' ? new Uint8Array([123, 125]) : '{}')];
    }),
  );
}

/** The rows of today's database in the tables and columns that there were; every table gets one at least. */
async function downgrade(
  today: SqliteStore,
  old: SqliteStore,
  records: readonly StoredRecord[],
): Promise<Map<string, Row[]>> {
  const source = await today.tx((db) => {
    const tables = tablesOf(db);
    return new Map(
      tables.map((table) => [
        table,
        rowsOf(
          db,
          table,
          columnsOf(db, table).map(({ name }) => name),
        ),
      ]),
    );
  });
  return old.tx((db) => {
    db.run('PRAGMA defer_foreign_keys = ON');
    const before = new Map<string, Row[]>();
    for (const table of tablesOf(db)) {
      const columns = columnsOf(db, table).map(({ name }) => name);
      // Of 009 is another table than today's of that name.
      for (const row of source.get(table) ?? [])
        if (columns.every((name) => name in row))
          insert(db, table, Object.fromEntries(columns.map((name) => [name, row[name] ?? null])));
    }
    // Before records were sealed they lay in clear.
    if (!tablesOf(db).includes('telemetry_sealed'))
      for (const { sequence, device, index, timeMs, release: about, data } of records) {
        const place = 'SELECT batch_id FROM telemetry_batches WHERE device_id = ? AND sequence = ?';
        const batch = db.get<{ batch_id: number }>(place, device, sequence);
        const row = { record_index: index, time_ms: timeMs, release: about, data: JSON.stringify(data) };
        insert(db, 'telemetry_records', { batch_id: batch?.batch_id ?? 0, ...row });
      }
    for (const table of tablesOf(db)) {
      const columns = columnsOf(db, table).map(({ name }) => name);
      const device = db.get<{ device_id: string }>('SELECT device_id FROM devices LIMIT 1')?.device_id ?? '';
      const rollout = db.get<{ id: string }>('SELECT rollout_id AS id FROM rollouts')?.id ?? '';
      const there = db.get(`SELECT 1 FROM ${table}`) !== undefined;
      if (!there) {
        const made = madeRow(db, table);
        const batch = db.get<{ id: number }>('SELECT max(batch_id) AS id FROM telemetry_batches')?.id ?? 1;
        if (table === 'telemetry_records') Object.assign(made, { batch_id: batch, record_index: 99 });
        if ('device_id' in made) made['device_id'] = device;
        if ('rollout_id' in made) made['rollout_id'] = rollout;
        if (table === 'erasures') made['certificate'] = erasureOf(device);
        insert(db, table, made);
      }
      before.set(table, rowsOf(db, table, columns));
    }
    return before;
  });
}

/** What a certificate looks like; a start hands it on. */
function erasureOf(deviceId: string): string {
  const statement = {
    ...{ schemaVersion: 1, erasureId: '{}', deviceId, region: 'test', untilMs: 1, keys: [], batches: 0 },
    ...{ records: 0, requestedBy: 'ann', reason: null, doneAtMs: 1 },
  };
  const signatures = [{ keyid: 'a', sig: 'YmI=' }];
  return JSON.stringify({ statement, certificate: { payloadType: 'x', payload: 'e30=', signatures } });
}

/** What later migrations carried over or dropped, with the migration that says so. */
const changed: Readonly<Record<string, string>> = {
  pending_pushes: '005: rows go to publisher_steps',
  labels: '012: nothing was ever written to the table of 009',
};
test('filled with an earlier schema: every row is there today, and the registry goes on', async (t) => {
  const first = temporaryFolder(t);
  const made = await openIngestWorld(t, { folder: first, chance: 'first' });
  const senders = await filled(made);
  const records = await made.records();
  await made.close();
  for (const last of ['003', '008', '013', '018'])
    await t.test(`of ${last}`, (inner) => upgrades(inner, last, { first, made, senders, records }));
});

async function upgrades(
  t: TestContext,
  last: string,
  from: { first: string; made: IngestWorld; senders: [Sender, Sender]; records: StoredRecord[] },
): Promise<void> {
  const { first, made, senders, records } = from;
  const [one, other] = senders;
  const folder = temporaryFolder(t);
  for (const name of ['keys', 'blobs']) cpSync(join(first, name), join(folder, name), { recursive: true });
  const migrations = readMigrations(migrationsFolder).filter(({ name }) => name.slice(0, 3) <= last);
  const today = await openStore(join(first, 'registry.sqlite'), { synchronous: 'FULL' });
  const old = await openStore(join(folder, 'registry.sqlite'), { synchronous: 'FULL', migrations });
  const before = await downgrade(today, old, records);
  for (const store of [today, old]) await store.close();
  await downgradeKeys(first, folder, last);

  const upgraded = await openRegistryStore(join(folder, 'registry.sqlite'));
  await upgraded.tx(({ sql }) => {
    for (const [table, rows] of before) {
      if (table in changed) continue;
      const columns = Object.keys(rows[0] ?? {});
      const present = new Set(columnsOf(sql, table).map(({ name }) => name));
      const gone = columns.filter((name) => !present.has(name));
      assert.deepEqual(gone, [], `${table} lost columns`);
      assert.deepEqual(rowsOf(sql, table, columns), rows, table);
    }
    const faults = sql.values('PRAGMA foreign_key_check');
    assert.deepEqual(faults, []);
  });
  await upgraded.close();

  const world = await openIngestWorld(t, { folder, chance: last, clock: made.clock });
  assert.deepEqual(
    (await world.fleet.devices.list()).map(({ id, models }) => [id, models[0]?.active]).sort(),
    [one, other].map(({ id }) => [id, release]).sort(),
  );
  const models = await world.releases.list();
  assert.ok(models.some(({ name, versions }) => name === 'acme/digits' && versions[0]?.version === '1.0.0'));
  const [rollout] = (await world.rollouts.list()).filter(({ name }) => name === 'digits');
  assert.equal((await world.status(rollout?.id ?? '')).devices.length, 2);
  const bodies = (stored: readonly StoredRecord[]): string[] =>
    stored.map(({ device, sequence, index, data }) => JSON.stringify([device, sequence, index, data])).sort();
  const readable = (await world.records()).filter(({ index }) => index !== 99);
  assert.deepEqual(bodies(readable), bodies(records));

  // The chain of a device goes on where it was, with the key that it had.
  one.moveTo(world);
  const next = await one.maker.make(recordsOf(1, 50), { aside: true });
  assert.deepEqual(await one.exchange(next.message), [{ status: 'stored', records: 1 }]);
  assert.equal((await world.records({ device: one.id })).filter(({ index }) => index !== 99).length, 5);
  const rights = createRightsExport({
    ...{ ...world.core, records: createTelemetryRecords(world.core) },
    auditOf: async function* (device) {
      yield { device };
    },
    ended: async () => undefined,
  });
  let text = '';
  for await (const bytes of unwrap(await rights.read(one.id))) text += new TextDecoder().decode(bytes);
  assert.match(text, /"section":"end"/);
  const after = await world.store.tx(({ sql }) => new Set(tablesOf(sql)));
  for (const table of before.keys()) assert.ok(after.has(table) || table in changed, table);
}

/** The keys' own file as of then: one table until masking and erasures came. */
async function downgradeKeys(first: string, folder: string, last: string): Promise<void> {
  const file = 'telemetry-keys.sqlite';
  if (last >= '010') {
    cpSync(join(first, file), join(folder, file));
    return;
  }
  const migrations = telemetryKeyMigrations.slice(0, 1);
  const today = await openStore(join(first, file), { synchronous: 'FULL' });
  const old = await openStore(join(folder, file), { synchronous: 'FULL', migrations });
  const rows = await today.tx((db) => db.all<Row>('SELECT * FROM telemetry_keys'));
  await old.tx((db) => {
    for (const row of rows) insert(db, 'telemetry_keys', row);
  });
  for (const store of [today, old]) await store.close();
}

test('a schema of a later version is refused, and nothing is changed', async (t) => {
  const path = join(temporaryFolder(t), 'registry.sqlite');
  const store = await openRegistryStore(path);
  await store.tx(({ sql }) => sql.run("INSERT INTO migrations VALUES ('999-later.sql', '')"));
  await store.close();
  const refused = await openRegistryStore(path).catch((thrown: unknown) => thrown);
  assert.ok(refused instanceof FleetError);
  assert.equal(refused.code, 'state-newer');
});
