// Why: drift is told by what devices counted beside the release's profile: of the fleet, of one device, of groups; an alarm
// is an event, once when it begins and once when it ends.
// Trusts: ingest-world.ts for batches, store and API. Must never: check prose; verdicts, numbers and codes only.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { sparkline } from '../../registry/cli/sparkline.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { type DriftView, driftSchema } from '../../shared/wire/drift.ts';
import type { Problem, Role } from '../../shared/wire/http.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { type IngestWorld, openIngestWorld } from './ingest-world.ts';
import { even, evenProfile, pushProfiled, sendWindow, shifted } from './profiled.ts';

const release = 'acme/pump@1.0.0';

function asking(world: IngestWorld) {
  const api = createApi(apiParts(world), () => true);
  const get = async (path: string, role: Role, namespace: string | null) => {
    const { token } = await world.core.access.create({ user: 'tester', role, namespace, ttlMs: null });
    const headers = { authorization: `Bearer ${token}` };
    return api.fetch(new Request(`http://localhost/api/v1/models/${path}`, { headers }));
  };
  return {
    drift: async (query = '', model = 'acme/pump'): Promise<DriftView> => {
      const answer = await get(`${model}/drift${query}`, 'operator', null);
      assert.equal(answer.status, 200, await answer.clone().text());
      return driftSchema.parse(await answer.json());
    },
    codeOf: async (path: string, role: Role = 'operator', namespace: string | null = null): Promise<string> =>
      ((await (await get(path, role, namespace)).json()) as Problem).code ?? 'none',
  };
}

const verdicts = (view: DriftView): string[][] =>
  view.groups.map(({ group, features }) => [group, ...features.map(({ verdict }) => verdict)]);

test('drift: the fleet, one device and groups by label, each by its own counts', async (t) => {
  const world = await openIngestWorld(t);
  const profileSha256 = await pushProfiled(world, release, 1);
  const about = { release, profileSha256 };
  const [calm, shaken, idle] = [await world.sender(), await world.sender(), await world.sender()];
  unwrap(await world.fleet.devices.label(calm.id, { site: 'a' }));
  unwrap(await world.fleet.devices.label(shaken.id, { site: 'b' }));
  unwrap(await world.fleet.devices.label(idle.id, { site: null }));
  await sendWindow(world, calm, about, { x: even(30), classes: [270, 30] });
  await sendWindow(world, shaken, about, { x: shifted(30), classes: [150, 150] });
  await sendWindow(world, idle, about, { x: even(1) });
  const { drift } = asking(world);

  const whole = await drift('?by=site');
  assert.equal(whole.release, release);
  assert.equal(whole.profileSha256, profileSha256);
  assert.deepEqual(verdicts(whole), [
    ['fleet', 'drift', 'drift'],
    ['site=', 'too-few', 'too-few'],
    ['site=a', 'ok', 'ok'],
    ['site=b', 'drift', 'drift'],
  ]);
  const [fleet, , a, b] = whole.groups;
  assert.equal(fleet?.devices, 3);
  assert.equal(fleet?.rows, 610);
  // Half of the values lie where a tenth of a bin each should: KS is one half at the middle.
  assert.equal(b?.features[0]?.distances?.ks.toFixed(6), '0.500000');
  assert.equal(a?.features[0]?.distances?.ks.toFixed(6), '0.000000');
  assert.ok(a?.features[0]?.exceeded.length === 0 && b?.features[0]?.exceeded.includes('psi'));
  assert.deepEqual(a?.features[1]?.live.shares, [0.9, 0.1, 0]);

  assert.deepEqual(verdicts(await drift(`?device=${calm.id}`)), [[calm.id, 'ok', 'ok']]);
  assert.equal((await drift(`?device=${shaken.id}`)).verdict, 'drift');
  assert.equal((await drift(`?device=${idle.id}`)).verdict, 'too-few');
});

test('drift: a sensor that gives nothing any more is a drift, not too few', async (t) => {
  const world = await openIngestWorld(t);
  const about = { release, profileSha256: await pushProfiled(world, release, 1) };
  const sender = await world.sender();
  await sendWindow(world, sender, about, { x: even(0), missing: 200 });
  const [feature] = (await asking(world).drift()).groups[0]?.features ?? [];
  assert.equal(feature?.verdict, 'drift');
  assert.deepEqual(feature?.exceeded, ['missing']);
});

test('drift: which release, which hours, and what is said where nothing can be', async (t) => {
  const world = await openIngestWorld(t);
  const { drift, codeOf } = asking(world);
  assert.equal(await codeOf('acme/pump/drift'), 'not-found');
  await pushProfiled(world, 'acme/bare@1.0.0', 1, null);
  const bare = await drift('', 'acme/bare');
  assert.deepEqual([bare.verdict, bare.release, bare.groups], ['no-profile', null, []]);
  assert.ok(bare.hint);

  const older = { release, profileSha256: await pushProfiled(world, release, 1) };
  const quiet = await drift();
  assert.deepEqual([quiet.verdict, quiet.release], ['no-counts', release]);
  assert.ok(quiet.hint);
  const sender = await world.sender();
  await sendWindow(world, sender, { ...older, ageMs: 48 * 3_600_000 }, { x: shifted(30) });
  await sendWindow(world, sender, older, { x: even(30) });
  assert.equal((await drift()).verdict, 'ok');
  const sinceMs = world.clock.wall() - 72 * 3_600_000;
  assert.equal((await drift(`?since=${sinceMs}`)).verdict, 'drift');
  assert.equal(
    (await drift(`?since=${sinceMs}&until=${world.clock.wall() - 24 * 3_600_000}`)).verdict,
    'drift',
  );

  await pushProfiled(world, 'acme/pump@1.1.0', 2);
  await pushProfiled(world, 'acme/pump@1.2.0', 3, null);
  assert.deepEqual((await drift()).release, 'acme/pump@1.1.0');
  assert.equal((await drift(`?release=${encodeURIComponent(release)}`)).verdict, 'ok');
  assert.equal((await drift('?release=acme/pump@1.2.0')).verdict, 'no-profile');
  assert.equal(await codeOf('acme/pump/drift?release=acme/pump@9.0.0'), 'not-found');
  assert.equal(await codeOf('acme/pump/drift?release=acme/bare@1.0.0'), 'not-found');
});

test('drift: an erased device takes its sums with it, and nobody else’s', async (t) => {
  const world = await openIngestWorld(t);
  const about = { release, profileSha256: await pushProfiled(world, release, 1) };
  const [gone, stays] = [await world.sender(), await world.sender()];
  await sendWindow(world, gone, about, { x: shifted(30) });
  await sendWindow(world, stays, about, { x: even(30) });
  const wanted = { untilMs: null, requestedBy: 'tester', reason: null };
  unwrap(await world.fleet.erasures.erase(gone.id, wanted));
  const { drift } = asking(world);
  assert.deepEqual(verdicts(await drift()), [['fleet', 'ok', 'too-few']]);
  assert.equal((await drift(`?device=${gone.id}`)).verdict, 'no-counts');
  const left = await world.store.tx(({ sql }) =>
    ['rollup_features', 'rollup_requests', 'drift_watches'].map(
      (table) => sql.all(`SELECT 1 FROM ${table} WHERE device_id = ?`, gone.id).length,
    ),
  );
  assert.deepEqual(left, [0, 0, 0]);
});

test('drift: for whoever may read telemetry, within the model’s namespace', async (t) => {
  const world = await openIngestWorld(t);
  await pushProfiled(world, release, 1);
  const { codeOf } = asking(world);
  assert.equal(await codeOf('acme/pump/drift', 'viewer'), 'role-forbidden');
  assert.equal(await codeOf('acme/pump/drift', 'operator', 'other'), 'namespace-forbidden');
  assert.equal(await codeOf('acme/pump/drift', 'operator', 'acme'), 'none');
  assert.equal(await codeOf('acme/pump/drift', 'auditor'), 'none');
});

const codesOf = async (world: IngestWorld): Promise<string[]> =>
  (await world.fleet.events.list({ limit: 100 }))
    .filter(({ code }) => code.startsWith('drift-'))
    .map(({ code, subject }) => `${subject === null ? 'fleet' : 'device'} ${code}`)
    .sort();

test('alarms: begin with the second window in a row, end with the second, are told once', async (t) => {
  const world = await openIngestWorld(t);
  const about = { release, profileSha256: await pushProfiled(world, release, 1) };
  const sender = await world.sender();
  const send = (x: number[]) => sendWindow(world, sender, about, { x });
  await send(even(20));
  await send(shifted(20));
  await send(even(20));
  await send(shifted(20));
  assert.deepEqual(await codesOf(world), [], 'one odd window is no alarm');
  await send(shifted(20));
  assert.deepEqual(await codesOf(world), ['device drift-began', 'fleet drift-began']);
  assert.deepEqual(await world.fleet.evidence.watch.alarms(), [
    { scope: 'fleet', model: 'acme/pump', features: 1 },
    { scope: 'device', model: 'acme/pump', features: 1 },
  ]);
  await send(shifted(20));
  await send(even(20));
  await send(shifted(20));
  assert.equal((await codesOf(world)).length, 2, 'it goes on: nothing to tell');
  // A restart forgets nothing.
  await send(even(20));
  await world.restart();
  await send(even(20));
  assert.deepEqual(await codesOf(world), [
    'device drift-began',
    'device drift-ended',
    'fleet drift-began',
    'fleet drift-ended',
  ]);
});

test('alarms: windows fill up over batches; what is old, repeated or of another profile is in none', async (t) => {
  const world = await openIngestWorld(t);
  const about = { release, profileSha256: await pushProfiled(world, release, 1) };
  const sender = await world.sender();
  for (let round = 0; round < 4; round += 1) {
    await sendWindow(world, sender, { ...about, ageMs: 25 * 3_600_000 }, { x: shifted(20) });
    await sendWindow(world, sender, { ...about, profileSha256: 'ab'.repeat(32) }, { x: shifted(20) });
  }
  assert.deepEqual(await codesOf(world), []);
  // Ten batches of twenty rows each: two windows.
  for (let round = 0; round < 9; round += 1) await sendWindow(world, sender, about, { x: shifted(2) });
  assert.deepEqual(await codesOf(world), []);
  await sendWindow(world, sender, about, { x: shifted(2) });
  assert.deepEqual(await codesOf(world), ['device drift-began', 'fleet drift-began']);
});

test('alarms: a profile of many features tells the first and counts the rest', async (t) => {
  const world = await openIngestWorld(t);
  const [one] = evenProfile.features;
  assert.ok(one);
  const features = Array.from({ length: 30 }, (_, index) => ({ ...one, index }));
  const profileSha256 = await pushProfiled(world, release, 1, { schemaVersion: 1, features });
  const sender = await world.sender();
  for (let round = 0; round < 2; round += 1) {
    const data = {
      kind: 'features',
      ...{ model: 'pump', profileSha256, windowMs: 60_000, rows: 200, seenRows: 200 },
      features: features.map(({ index }) => ({
        ...{ role: 'input', tensor: 'x', index, of: 'value', counts: shifted(20), missing: 0 },
      })),
    };
    const made = await sender.maker.make([{ timeMs: world.clock.wall(), release, data }], { class: 'stats' });
    await sender.exchange(made.message);
    world.clock.advance(61_000);
  }
  const codes = await codesOf(world);
  assert.equal(codes.filter((code) => code === 'fleet drift-began').length, 20);
  assert.equal(codes.filter((code) => code === 'fleet drift-more').length, 1);
});

test('metrics: drift and sums for Prometheus, in a text with which promtool finds nothing wrong', async (t) => {
  const world = await openIngestWorld(t);
  const about = { release, profileSha256: await pushProfiled(world, release, 1) };
  const sender = await world.sender();
  for (let round = 0; round < 2; round += 1) await sendWindow(world, sender, about, { x: shifted(20) });
  const answer = await createApi(apiParts(world), () => true).fetch(new Request('http://localhost/metrics'));
  const text = await answer.text();
  for (const line of [
    'lepton_rollup_records_total{kind="features"} 2',
    'lepton_drift_windows_total 4',
    'lepton_drift_changes_total{change="began"} 2',
    'lepton_drift_alarms{scope="fleet",model="acme/pump"} 1',
    'lepton_drift_alarms{scope="device",model="acme/pump"} 1',
    'lepton_telemetry_batches_total{outcome="stored"} 2',
  ])
    assert.ok(text.split('\n').includes(line), line);
  const ran = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  if (ran.error !== undefined) t.diagnostic('promtool is not installed: not checked by it');
  else assert.deepEqual([ran.status, ran.stdout, ran.stderr], [0, '', '']);
});

test('sparkline: shapes keep their peaks, an empty bin is empty, a small one is not', () => {
  assert.equal(sparkline([0, 0.5, 1, 0.001]), ' ▅█▁');
  assert.equal(sparkline([0, 0]), '  ');
  assert.equal(sparkline(Array<number>(48).fill(1)).length, 24);
  assert.equal(sparkline([]), '');
});
