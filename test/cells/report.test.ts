// Why: the report of models has everything that is known of a release, of other regions no more than their cells, and
// nobody's words can pass for its own. Trusts: test/fleet/world.ts. Must never: compare more prose than a heading.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi, type RegistryApi } from '../../registry/api/app.ts';
import { createCellsIncoming, createCellsOutgoing } from '../../registry/cells/streams.ts';
import { namesRelease } from '../../registry/reports/incidents.ts';
import { metricsOf } from '../../registry/reports/model-facts.ts';
import { modelsMarkdown } from '../../registry/reports/models.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { Problem, Role } from '../../shared/wire/http.ts';
import { type ModelsReport, modelsReportSchema } from '../../shared/wire/model-report.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { openWorld, type World } from '../fleet/world.ts';
import { hexOf, identityModel, once, preparePush, publisherKey } from '../registry-core/support.ts';
import { openIngestWorld } from '../telemetry/ingest-world.ts';
import { evenProfile } from '../telemetry/profiled.ts';
import { dayMs, publishing, releases, tell, threeDays } from './scene.ts';

const firstDay = Date.UTC(2026, 0, 1) / dayMs;
const [old] = releases;

const card = [
  '# pump: classification',
  '',
  '## On the test part',
  '- accuracy 0.98 (most frequent: 0.9)',
  '',
  '## Limits',
  '- <script>alert(1)</script> | not a table',
  '### acme/forged@9.9.9',
  '',
].join('\n');

/** Three releases of one model, the first with a card and a profile; its profile's digest. */
async function pushAll(world: World): Promise<string> {
  const publisher = publisherKey('acme');
  unwrap(await world.repository.delegate('acme', [hexOf(publisher)], 1));
  const texts = [
    { path: 'profile.json', role: 'profile', bytes: Buffer.from(JSON.stringify(evenProfile)) },
    { path: 'card.md', role: 'card', bytes: Buffer.from(card) },
  ];
  for (const { bytes } of texts) unwrap(await world.blobs.put(sha256Hex(bytes), once(bytes)));
  for (const [at, releaseId] of releases.entries()) {
    const version = (await world.repository.publisher('acme'))?.metadataVersion ?? 0;
    const model = identityModel(releaseId);
    unwrap(await world.blobs.put(sha256Hex(model), once(model)));
    const files = [{ path: 'model.onnx', role: 'model', bytes: model }, ...(at === 0 ? texts : [])];
    const push = preparePush({
      ...{ releaseId, model, counter: at + 1, signers: [publisher] },
      current: version === 0 ? null : await world.repository.file(`${version}.acme.json`),
      expiresAtMs: world.clock.wall() + 365 * dayMs,
      manifest: {
        files: files.map(({ path, role, bytes }) => ({
          path,
          role,
          sha256: sha256Hex(bytes),
          bytes: bytes.length,
        })),
      },
    });
    assert.equal(unwrap(await world.releases.push({ ...push, pushedBy: 'pat' })).status, 'accepted');
  }
  return sha256Hex(Buffer.from(JSON.stringify(evenProfile)));
}

const apis = new WeakMap<World, RegistryApi>();

async function asked(world: World, query: string, role: Role): Promise<Response> {
  const api = apis.get(world) ?? createApi(apiParts(world), () => true);
  apis.set(world, api);
  const { token } = await world.core.access.create({ user: 'tester', role, namespace: null, ttlMs: null });
  const headers = { authorization: `Bearer ${token}` };
  return api.fetch(new Request(`http://localhost/api/v1/reports/models${query}`, { headers }));
}

async function report(world: World, query = '', role: Role = 'auditor'): Promise<ModelsReport> {
  const answer = await asked(world, query, role);
  assert.equal(answer.status, 200, await answer.clone().text());
  return modelsReportSchema.parse(await answer.json());
}

const rolloutFile = `apiVersion: lepton/v1
kind: Rollout
metadata: {name: pump-1}
spec:
  release: ${old}
  selector: {matchLabels: {site: a}}
  waves: [{percent: 100}]
  gates: {success: 0.99, minDevices: 2}
`;

test('report: a release with what it is, where it runs, how it does and what went wrong', async (t) => {
  const [world, away] = [await openIngestWorld(t), await openWorld(t)];
  const profileSha256 = await pushAll(world);
  const devices = await world.devices(2, { site: 'a' });
  await world.start(rolloutFile);
  for (const device of devices) await device.obey();
  await world.settle();
  await tell(world, threeDays(firstDay, profileSha256));
  await tell(away, threeDays(firstDay, profileSha256));
  const detail = `the manifest of ${old} is another`;
  await world.fleet.events.recordStranger({
    source: 'device',
    subject: null,
    code: 'target-digest-mismatch',
    detail,
  });
  await world.fleet.events.recordStranger({
    ...{ source: 'device', subject: null, code: 'model-invalid' },
    detail: `${old}-rc.1 is another release`,
  });
  world.clock.advance(4 * dayMs);
  away.clock.advance(4 * dayMs);
  await publishing(world.core).closeDue();
  await publishing({ ...away.core, region: 'south' }).closeDue();
  const root = unwrap(parseRegionRoot(await away.repository.regionRoot()));
  const incoming = createCellsIncoming({
    ...world,
    regionKeysOf: () => [root.roles.ack],
    events: world.fleet.events,
  });
  const items = await away.store.tx((db) => createCellsOutgoing(away.store).readIn(db, 'test', 0, 100));
  await world.store.tx((db) => incoming.takeIn(db, 'south', items));

  const found = await report(world);
  const [model] = found.models;
  assert.deepEqual([model?.name, model?.releases.length, found.truncated], ['acme/pump', 3, false]);
  const about = model?.releases.find(({ release }) => release === old);
  assert.ok(about);
  assert.deepEqual([about.status, about.pushedBy, about.signedBy.length], ['available', 'pat', 1]);
  assert.equal(about.card?.text, card);
  assert.deepEqual(about.metrics, ['accuracy 0.98 (most frequent: 0.9)']);
  assert.equal(about.runs.active, 2);
  assert.deepEqual(about.runs.states, { committed: 2 });
  assert.deepEqual(about.runs.regions, [{ region: 'south', devicesAtLeast: 20, lastDay: firstDay + 2 }]);
  assert.deepEqual([about.cells?.answered, about.cells?.failed, about.cells?.verdict], [2_400, 60, 'ok']);
  assert.deepEqual([about.own?.requests, about.own?.drift, about.own?.energy.length], [1_230, 'ok', 1]);
  assert.deepEqual(
    about.incidents.map(({ kind, code, count }) => [kind, code, count]),
    [['attack', 'target-digest-mismatch', 1]],
  );

  const markdown = modelsMarkdown(found);
  assert.ok(!/^### acme\/forged/m.test(markdown));
  assert.ok(!markdown.includes('<script>'));
  for (const heading of ['## acme/pump', `### ${old}`, '#### Incidents', '#### What regions tell'])
    assert.ok(markdown.includes(`\n${heading}\n`), heading);
});

test('report: own counts are for whoever may read telemetry; one model or release; and what is not there', async (t) => {
  const world = await openWorld(t);
  const profileSha256 = await pushAll(world);
  await tell(world, threeDays(firstDay, profileSha256));
  world.clock.advance(4 * dayMs);
  await publishing(world.core).closeDue();
  const [model] = (await report(world, `?model=${old}`, 'viewer')).models;
  assert.deepEqual(
    model?.releases.map(({ release, own }) => [release, own]),
    [[old, null]],
  );
  assert.equal(model?.releases[0]?.cells?.answered, 1_200);
  assert.equal((await report(world, '?model=acme/pump', 'publisher')).models[0]?.releases.length, 3);
  const codeOf = async (query: string): Promise<string> =>
    ((await (await asked(world, query, 'viewer')).json()) as Problem).code ?? 'none';
  assert.equal(await codeOf('?model=acme/none'), 'not-found');
  assert.equal(await codeOf('?model=acme/pump@9.9.9'), 'not-found');
  assert.equal(await codeOf('?model=acme'), 'input-invalid');
  assert.equal(await codeOf('?since=0'), 'input-invalid');
});

test('report: a failed rollout and the devices on which it failed are incidents', async (t) => {
  const world = await openWorld(t);
  await pushAll(world);
  const devices = await world.devices(2, { site: 'a' });
  await world.start(rolloutFile);
  for (const device of devices) await device.obey({ code: 'golden-mismatch', detail: 'case 1 differs' });
  await world.settle();
  const [model] = (await report(world, `?model=${old}`, 'viewer')).models;
  const incidents = model?.releases[0]?.incidents ?? [];
  assert.ok(
    incidents.some(({ kind, code, count }) => kind === 'device' && code === 'golden-mismatch' && count === 2),
  );
  assert.ok(incidents.some(({ kind }) => kind === 'rollout'));
});

test('report: words name a release, not one whose name begins with it', () => {
  assert.ok(namesRelease(`took ${old} back`, old));
  assert.ok(namesRelease(`it is ${old}.`, old));
  assert.ok(!namesRelease(`${old}-rc.1`, old));
  assert.ok(!namesRelease(`${old}1`, old));
  assert.ok(!namesRelease(`x${old}`, old));
  assert.ok(namesRelease(`${old}-rc.1, not ${old}`, old));
  assert.equal(metricsOf('# a card of another hand'), null);
});
