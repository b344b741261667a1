// Why: holds what the record says of requests: who changed what, why and with what outcome; who read raw records; and that no
// token stands anywhere. Trusts: the API over a registry in memory. Must never: pass because nothing was written.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { openAudit } from '../../registry/audit/open-audit.ts';
import type { AuditEntry } from '../../shared/wire/audit.ts';
import { auditPageSchema } from '../../shared/wire/audit.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { openWorld, type World } from '../fleet/world.ts';
import { openAsking, storeThings } from './asking.ts';

const entries = async (world: World): Promise<AuditEntry[]> =>
  (await world.core.audit.list({ limit: 1_000 })).entries;
const newest = async (world: World): Promise<AuditEntry> => {
  const last = (await entries(world)).at(-1);
  assert.ok(last);
  return last;
};

test('a change is written with who, what, why, and what came of it', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const { rolloutId } = await storeThings(world);
  const [device] = await world.devices(1);
  assert.ok(device);
  const admin = await asking.token('admin');
  const audited = async (
    method: string,
    path: string,
    body?: object,
  ): Promise<Pick<AuditEntry, 'action' | 'subject' | 'outcome' | 'code' | 'reason'>> => {
    await asking.outcome(method, `/api/v1${path}`, { token: admin, ...(body === undefined ? {} : { body }) });
    const { action, subject, outcome, code, reason, actor, via } = await newest(world);
    assert.equal(actor, 'user:admin-user');
    assert.equal(via, 'api');
    return { action, subject, outcome, code, reason };
  };
  const done = { outcome: 'done', code: null, reason: null } as const;
  assert.deepEqual(await audited('POST', `/devices/${device.id}/revoke`), {
    ...{ action: 'devices.revoke', subject: device.id },
    ...done,
  });
  assert.deepEqual(await audited('POST', `/rollouts/${rolloutId}/pause`, { comment: 'holidays' }), {
    ...{ action: 'rollouts.pause', subject: rolloutId, ...done },
    reason: 'holidays',
  });
  const erasure = await audited('POST', `/devices/${device.id}/telemetry/erasure`, { reason: 'asked for' });
  assert.deepEqual(erasure, { action: 'telemetry.erase', subject: device.id, ...done, reason: 'asked for' });
  assert.deepEqual(await audited('POST', '/devices/none/revoke'), {
    ...{
      action: 'devices.revoke',
      subject: 'none',
      outcome: 'refused',
      code: 'device-unknown',
      reason: null,
    },
  });
  assert.deepEqual(await audited('PUT', '/masking', { rules: 'no list' }), {
    ...{ action: 'masking.set', subject: null, outcome: 'refused', code: 'input-invalid', reason: null },
  });
  await asking.outcome('POST', '/api/v1/tokens', { token: admin, body: { user: 'ann', role: 'viewer' } });
  const made = await newest(world);
  assert.equal(made.action, 'tokens.create');
  assert.match(made.subject ?? '', /^[0-9a-f]{16}$/);
  assert.deepEqual([made.detail.user, made.detail.role, made.detail.status], ['ann', 'viewer', 201]);
  assert.equal(typeof made.detail.tokenId, 'string');
  assert.equal(typeof made.detail.requestId, 'string');
  // Nothing is left open, and what nobody asked over HTTP is there as well.
  const { qb } = world.store;
  assert.deepEqual(await world.store.tx((db) => db.all(qb.selectFrom('audit_open').selectAll())), []);
  const enrolled = (await entries(world)).find(({ action }) => action === 'devices.enrol');
  assert.equal(enrolled?.actor, `device:${device.id}`);
});

test('reads of records, samples and exports are written with their filter; other reads are not', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const { sampleId } = await storeThings(world);
  const auditor = await asking.token('auditor');
  const get = (path: string) => asking.outcome('GET', `/api/v1${path}`, { token: auditor });
  const before = (await entries(world)).length;
  for (const path of ['/devices', '/models', '/keys', '/telemetry/counts', '/audit', '/events'])
    await get(path);
  assert.equal((await entries(world)).length, before);

  await get(`/telemetry?class=app&since=5&limit=7&password=secret`);
  const read = await newest(world);
  assert.equal(read.action, 'telemetry.read');
  assert.equal(read.actor, 'user:auditor-user');
  const { requestId: _id, tokenId: _token, ...facts } = read.detail;
  assert.deepEqual(facts, { 'filter.class': 'app', 'filter.since': '5', 'filter.limit': '7', status: 200 });
  await get('/samples?state=waiting');
  const listed = await newest(world);
  assert.deepEqual(
    [listed.action, listed.detail['filter.state'], listed.detail.records],
    ['samples.list', 'waiting', 1],
  );
  await get(`/samples/${sampleId}`);
  assert.equal((await newest(world)).subject, sampleId);
  await get('/models/acme/digits/samples/dataset');
  const dataset = await newest(world);
  assert.deepEqual(
    [dataset.action, dataset.subject, dataset.detail.records],
    ['samples.export', 'acme/digits', 0],
  );
  const count = (await entries(world)).length;
  await get('/audit/export');
  const exported = await newest(world);
  assert.deepEqual([exported.action, exported.detail.records], ['audit.export', count]);
});

test('refusals are written, within bounds for each token and for all strangers together', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const viewer = await asking.token('viewer');
  const before = (await entries(world)).length;
  await asking.outcome('GET', '/api/v1/keys', { token: viewer });
  const refused = await newest(world);
  assert.deepEqual(
    [refused.action, refused.outcome, refused.code],
    ['keys.show', 'refused', 'role-forbidden'],
  );
  assert.equal(refused.actor, 'user:viewer-user');
  await asking.outcome('GET', '/api/v1/keys', { token: 'lepton_made-up' });
  const forged = await newest(world);
  assert.deepEqual([forged.actor, forged.code], ['stranger', 'token-invalid']);
  await asking.outcome('POST', '/api/v1/keys/plan', {});
  assert.equal((await newest(world)).code, 'token-missing');
  const sofar = (await entries(world)).length;
  assert.equal(sofar, before + 3);
  // A read without a token is nobody who learns nothing.
  await asking.outcome('GET', '/api/v1/keys');
  await asking.outcome('GET', '/api/v1/nowhere', { token: viewer });
  assert.equal((await entries(world)).length, sofar);

  for (let count = 0; count < 120; count += 1) await asking.outcome('GET', '/api/v1/keys', { token: viewer });
  const flooded = await entries(world);
  assert.equal(flooded.length, sofar + 99);
  assert.equal(world.core.audit.omitted(), 21);
  // Another one's refusals are still written, and say what was left out.
  const publisher = await asking.token('publisher');
  await asking.outcome('GET', '/api/v1/keys', { token: publisher });
  assert.equal((await newest(world)).detail.omittedBefore, 21);
  await asking.outcome('GET', '/api/v1/tokens', { token: publisher });
  assert.equal((await newest(world)).detail.omittedBefore, undefined);
  const metrics = await (await asking.fetch('GET', '/metrics')).text();
  assert.match(metrics, /^lepton_audit_refusals_omitted_total 21$/m);
});

test('what a caller reads is not shown where the reading cannot be written down', async (t) => {
  const world = await openWorld(t);
  const token = await openAsking(world).token('auditor');
  const append = async (): Promise<never> => {
    throw new Error('disk gone');
  };
  const parts = { ...apiParts(world), audit: { ...world.core.audit, append } };
  const headers = { authorization: `Bearer ${token}` };
  const get = (path: string) =>
    createApi(parts, () => true).fetch(new Request(`http://localhost/api/v1${path}`, { headers }));
  for (const path of ['/telemetry', '/samples', '/audit/export'])
    assert.equal((await get(path)).status, 500, path);
  assert.equal((await get('/devices')).status, 200);
});

test('what cannot be noted does not begin; what was under way at the end is found at the start', async (t) => {
  const world = await openWorld(t);
  const admin = await openAsking(world).token('admin');
  const [device] = await world.devices(1);
  assert.ok(device);
  const { audit } = world.core;
  const failing = async (): Promise<never> => {
    throw new Error('disk gone');
  };
  const revokeWith = async (changed: Partial<typeof audit>) => {
    const parts = { ...apiParts(world), audit: { ...audit, ...changed } };
    const url = `http://localhost/api/v1/devices/${device.id}/revoke`;
    const headers = { authorization: `Bearer ${admin}` };
    return createApi(parts, () => true).fetch(new Request(url, { method: 'POST', headers }));
  };
  assert.equal((await revokeWith({ begin: failing })).status, 500);
  assert.equal((await world.view(device)).status, 'active');
  // The change is made; the one who asked is not told that all is well.
  assert.equal((await revokeWith({ finish: failing })).status, 500);
  assert.equal((await world.view(device)).status, 'revoked');
  const again = await openAudit({ ...world, ...world.core });
  const last = (await again.list({ limit: 1_000 })).entries.at(-1);
  assert.deepEqual(
    [last?.action, last?.subject, last?.actor, last?.outcome, last?.code],
    ['devices.revoke', device.id, 'user:admin-user', 'failed', 'interrupted'],
  );
  assert.equal(typeof last?.detail.beganAtMs, 'number');
  const third = await openAudit({ ...world, ...world.core });
  assert.equal((await third.list({ limit: 1_000 })).entries.at(-1)?.id, last?.id);
});

test('no token stands in a log, an answer or an entry, however it was sent', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const admin = await asking.token('admin');
  const escaped = (text: string): string => text.replace('_', '%5F').replace('l', '%6c');
  const twice = escaped(admin).replaceAll('%', '%25');
  const made = await asking.fetch('POST', '/api/v1/tokens', {
    token: admin,
    body: { user: 'ann', role: 'viewer' },
  });
  const { token: viewer } = (await made.json()) as { token: string };
  await asking.outcome('GET', '/api/v1/devices', { token: viewer });
  const inUrls = [
    `/api/v1/devices?token=${admin}`,
    `/api/v1/devices?token=anything`,
    `/api/v1/devices?access_token=x`,
    `/api/v1/devices?${admin}=1`,
    `/api/v1/devices?subject=a%20${escaped(admin)}`,
    `/api/v1/tokens/${admin}`,
    `/api/v1/tokens/${escaped(admin)}`,
    `/api/v1/tokens/${twice}`,
    `/api/v1/nothing/${admin}/here`,
  ];
  const codes: (string | null)[] = [];
  const answers: string[] = [];
  for (const path of inUrls) {
    for (const [method, token] of [
      ['GET', admin],
      ['GET', null],
      ['DELETE', admin],
    ] as const) {
      const answer = await asking.fetch(method, path, { token });
      const text = await answer.text();
      answers.push(text);
      codes.push((JSON.parse(text) as { code: string }).code);
    }
  }
  assert.deepEqual([...new Set(codes)], ['token-in-url']);
  const leaked = (await entries(world)).filter(({ code }) => code === 'token-in-url');
  assert.ok(leaked.some(({ action, subject }) => action === 'tokens.revoke' && subject === 'lepton_…'));
  const filtered = `/api/v1/telemetry?cursor=${twice}`;
  assert.equal((await asking.outcome('GET', filtered, { token: admin })).code, 'token-in-url');
  answers.push(await (await asking.fetch('GET', `/${admin}`)).text());
  // In bodies, where a reason or a name should stand.
  const [device] = await world.devices(1);
  assert.ok(device);
  const reason = `because ${viewer} said so`;
  const path = `/api/v1/devices/${device.id}/telemetry/erasure`;
  assert.equal((await asking.outcome('POST', path, { token: admin, body: { reason } })).status, 200);
  assert.equal((await newest(world)).reason, 'because lepton_… said so');

  const said = JSON.stringify([world.log.events, await entries(world), answers]);
  for (const secret of [admin, viewer, escaped(admin), twice]) {
    assert.equal(said.includes(secret), false);
    assert.equal(said.includes(secret.slice(7, 30)), false);
  }
  const requests = world.log.events.filter(({ event }) => event === 'http.request');
  assert.ok(requests.length >= inUrls.length * 3);
  assert.ok(requests.every(({ fields }) => !String(fields.path).includes('?')));
  assert.ok(requests.some(({ fields }) => fields.path === '/api/v1/tokens/lepton_…'));
});

test('a page of the record is for auditors and admins, by who, what and about what', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const admin = await asking.token('admin');
  const auditor = await asking.token('auditor');
  for (const name of ['a', 'b', 'c'])
    await asking.outcome('PUT', `/api/v1/groups/${name}`, {
      token: admin,
      body: { selector: { matchLabels: { site: 'a' } } },
    });
  await asking.outcome('DELETE', '/api/v1/groups/b', { token: admin });
  const page = async (query: string) =>
    auditPageSchema.parse(
      await (await asking.fetch('GET', `/api/v1/audit?${query}`, { token: auditor })).json(),
    );
  const all = await page('');
  assert.deepEqual(
    all.entries.map(({ id }) => id),
    all.entries.map((_, at) => at + 1),
  );
  assert.equal(all.after, null);
  const [first] = all.entries;
  assert.deepEqual([first?.action, first?.subject], ['audit.begin', world.core.region]);
  const two = await page('limit=2&action=groups.put');
  assert.deepEqual(
    two.entries.map(({ subject }) => subject),
    ['a', 'b'],
  );
  const rest = await page(`limit=2&action=groups.put&after=${two.after}`);
  assert.deepEqual([rest.entries.map(({ subject }) => subject), rest.after], [['c'], null]);
  const about = await page('subject=b&actor=user%3Aadmin-user');
  assert.deepEqual(
    about.entries.map(({ action }) => action),
    ['groups.put', 'groups.remove'],
  );
});

test('what no person asked for over the API is written as well', async (t) => {
  const world = await openWorld(t);
  const [device] = await world.devices(1);
  assert.ok(device);
  const { id } = device;
  await world.fleet.devices.quarantine(id, { code: 'report-cloned', detail: 'two of it' });
  await world.fleet.devices.quarantine(id, { code: 'report-cloned', detail: 'two of it' });
  const { qb } = world.store;
  const begun = { erasure_id: 'e1', device_id: id, until_ms: 1, requested_by: 'ann', reason: 'asked for' };
  await world.store.tx((db) =>
    db.run(qb.insertInto('erasures').values({ ...begun, begun_at_ms: 0, certificate: null })),
  );
  await world.fleet.erasures.resume();
  assert.deepEqual(
    (await entries(world)).slice(1).map(({ actor, action, subject, code }) => [actor, action, subject, code]),
    [
      [`device:${id}`, 'devices.enrol', id, null],
      ['registry', 'devices.quarantine', id, 'report-cloned'],
      ['job:erasure', 'telemetry.erase', id, null],
    ],
  );
  assert.equal((await newest(world)).detail.requestedBy, 'ann');
});
