// Why: whoever asks for what is held about a device gets all of it, and nothing of another one; a table that somebody adds
// later is not forgotten. Trusts: ingest-world.ts. Must never: take the list of tables from the code under test.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { createRightsExport } from '../../registry/rights/export.ts';
import { exportedTables, followedTables, otherTables } from '../../registry/rights/exported-tables.ts';
import { openRegistryStore } from '../../registry/store/open.ts';
import { telemetryKeyMigrations } from '../../registry/telemetry/keys.ts';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import type { Role } from '../../shared/wire/http.ts';
import { type RightsLine, rightsLineSchema, rightsSections } from '../../shared/wire/rights.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { type IngestWorld, openIngestWorld } from '../telemetry/ingest-world.ts';
import { filled, release } from './filled-world.ts';

/** Columns by which a table knows devices. */
const deviceColumns = ['device_id', 'device', 'subject'];

const tablesIn = (db: SqlTx): string[] =>
  db
    .all<{ name: string }>(
      `SELECT DISTINCT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
       WHERE m.type = 'table' AND c.name IN (${deviceColumns.map((name) => `'${name}'`).join()}) ORDER BY 1`,
    )
    .map(({ name }) => name);

test('every table that knows devices is given out, or is left out for a reason that is written down', async (t) => {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const keys = await openStore(':memory:', { synchronous: 'FULL', migrations: telemetryKeyMigrations });
  t.after(() => keys.close());
  const named = new Set([
    ...Object.keys(exportedTables),
    ...followedTables.map(({ table }) => table),
    ...Object.keys(otherTables),
  ]);
  const found = [...(await store.tx(({ sql }) => tablesIn(sql))), ...(await keys.tx(tablesIn))];
  assert.deepEqual(
    found.filter((table) => !named.has(table)),
    [],
    'name it in registry/rights/exported-tables.ts: as a section, or among those left out with the reason',
  );
  const all = await store.tx(({ sql }) =>
    sql.all<{ name: string }>("SELECT name FROM sqlite_master WHERE type = 'table'"),
  );
  const present = new Set([...all.map(({ name }) => name), ...found]);
  assert.deepEqual(
    [...named].filter((table) => !present.has(table)),
    [],
    'these are gone',
  );
});

async function linesOf(answer: Response): Promise<RightsLine[]> {
  assert.equal(answer.status, 200, await answer.clone().text());
  const lines = (await answer.text()).split('\n');
  assert.equal(lines.pop(), '');
  return lines.map((line) => rightsLineSchema.parse(JSON.parse(line)));
}

function asking(world: IngestWorld) {
  const api = createApi(apiParts(world), () => true);
  return async (path: string, role: Role = 'auditor', atRegion: string | null = null): Promise<Response> => {
    const wanted = { user: 'ann', role, namespace: null, ttlMs: null, atRegion };
    const { token } = await world.core.access.create(wanted);
    const headers = { authorization: `Bearer ${token}` };
    return api.fetch(new Request(`http://localhost/api/v1${path}`, { headers }));
  };
}

test('all of one device comes out, opened, and nothing of the other; it is audited with counts', async (t) => {
  const world = await openIngestWorld(t);
  const [one, other] = await filled(world);
  const ask = asking(world);
  const lines = await linesOf(await ask(`/rights/export?device=${one.id}`));
  const end = lines.pop();
  assert.ok(end !== undefined && 'counts' in end);
  assert.deepEqual(
    Object.keys(end.counts),
    Object.keys(rightsSections),
    'every section says how much it has',
  );
  const { counts } = end;
  for (const section of Object.keys(rightsSections)) {
    const count = lines.filter((line) => line.section === section).length;
    assert.equal(counts[section], count, section);
  }
  const filledSections = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([section]) => section);
  assert.deepEqual(filledSections, [
    ...['device', 'claim-uses', 'claims', 'certificates', 'models', 'desired', 'assignments'],
    ...['rollout-membership', 'rollouts', 'rollout-history', 'telemetry-chains', 'telemetry-batches'],
    ...['records', 'samples', 'predictions', 'ground-truth', 'events', 'telemetry-keys', 'audit'],
  ]);
  const dataOf = (section: string): Record<string, unknown>[] =>
    lines.flatMap((line) => ('data' in line && line.section === section ? [line.data] : []));
  assert.equal(dataOf('records').length, 4);
  assert.deepEqual(dataOf('records')[2]?.['data'], {
    ...{ kind: 'capture', model: 'digits', requestId: `r-${one.id}`, reasons: ['random'], confidence: 0.5 },
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 1], data: [7] }],
    outputs: [{ name: 'p', datatype: 'FP32', shape: [1, 1], data: [0.5] }],
  });
  assert.deepEqual(dataOf('samples')[0]?.['inputs'], [
    { name: 'x', datatype: 'FP32', shape: [1, 1], data: [7] },
  ]);
  assert.equal(dataOf('ground-truth')[0]?.['label'], `label-${one.id}`);
  assert.equal(dataOf('models')[0]?.['active'], release);
  assert.match(String(dataOf('certificates')[0]?.['certificate']), /BEGIN CERTIFICATE/);

  const text = JSON.stringify(lines);
  assert.equal(text.includes(other.id), false, 'nothing of another device');
  const [key] = await world.core.telemetryKeys.ofDevice(one.id);
  const pair = await world.core.telemetryKeys.open(one.id, 0, key?.keyId ?? '');
  assert.ok(pair && key?.publicKey && text.includes(key.publicKey));
  assert.equal(text.includes(Buffer.from(pair.secretKey).toString('hex')), false);
  assert.equal(text.includes(Buffer.from(pair.secretKey).toString('base64')), false);

  const { entries } = await world.core.audit.list({ subject: one.id, actor: 'user:ann', limit: 10 });
  assert.deepEqual(
    entries.map(({ action, outcome, detail }) => [action, outcome, detail['records']]),
    [
      ['rights.export', 'done', undefined],
      ['rights.exported', 'done', 4],
    ],
  );
  for (const role of ['viewer', 'operator', 'approver', 'publisher'] as const)
    assert.equal((await ask(`/rights/export?device=${one.id}`, role)).status, 403, role);
  const abroad = await ask(`/rights/export?device=${one.id}`, 'auditor', 'south');
  assert.match(await abroad.text(), /"code":"policy-denied"/, 'raw records do not leave the region');
  assert.equal((await ask(`/rights/export?device=${'0'.repeat(32)}`)).status, 404);
  assert.equal((await ask('/rights/export?device=me')).status, 400);
});

test('after an erasure the certificate and what is left of the device come out', async (t) => {
  const world = await openIngestWorld(t);
  const [one] = await filled(world);
  unwrap(
    await world.fleet.erasures.erase(one.id, {
      ...{ untilMs: null, requestedBy: 'ann', reason: null, allRegions: true },
    }),
  );
  const ask = asking(world);
  const end = (await linesOf(await ask(`/rights/export?device=${one.id}`))).pop();
  assert.ok(end !== undefined && 'counts' in end);
  const { records, samples, erasures, 'erasure-requests': requests, predictions } = end.counts;
  assert.deepEqual([records, samples, predictions, erasures, requests], [0, 0, 0, 1, 1]);
});

test('a reader that goes away half-way is audited as such; audit entries come by whoever keeps them', async (t) => {
  const world = await openIngestWorld(t);
  const [one] = await filled(world);
  const ended: boolean[] = [];
  const rights = createRightsExport({
    ...world.core,
    records: createTelemetryRecords(world.core),
    auditOf: async function* (device) {
      yield { device, action: 'devices.label' };
    },
    ended: async (_device, _counts, whole) => void ended.push(whole),
  });
  const lines = unwrap(await rights.read(one.id));
  await lines.next();
  await lines.return(undefined);
  let last = '';
  for await (const bytes of unwrap(await rights.read(one.id))) last += new TextDecoder().decode(bytes);
  assert.deepEqual(ended, [false, true]);
  assert.match(
    last,
    /\{"section":"audit","data":\{"device":"[0-9a-f]{32}","action":"devices.label"\}\}\n\{"section":"end"/,
  );
});
