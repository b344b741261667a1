// Why: the HTTP side of fleet and rollouts: who may, what is answered, which problem is named.
// Trusts: world.ts. Must never: check prose; statuses, codes and schemas only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { claimFileSchema } from '../../shared/wire/claim.ts';
import { deviceSchema, fleetEventSchema, type Problem, type Role } from '../../shared/wire/http.ts';
import {
  rolloutStartedSchema,
  rolloutStatusSchema,
  rolloutSummarySchema,
} from '../../shared/wire/rollouts.ts';
import { apiParts } from './api-parts.ts';
import { openWorld, rolloutFile, type World } from './world.ts';

const release = 'acme/digits@1.0.0';

async function openApi(world: World) {
  const api = createApi(apiParts(world), () => true);
  const tokenOf = async (role: Role, namespace: string | null = null): Promise<string> =>
    (await world.core.access.create({ user: 'tester', role, namespace, ttlMs: null })).token;
  const call = async (
    token: string,
    method: string,
    path: string,
    body?: object,
  ): Promise<{ status: number; body: unknown }> => {
    const headers = new Headers({ authorization: `Bearer ${token}` });
    if (body !== undefined) headers.set('content-type', 'application/json');
    const content = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await api.fetch(
      new Request(`http://localhost/api/v1${path}`, { method, headers, ...content }),
    );
    return { status: answer.status, body: await answer.json() };
  };
  const codeOf = async (...asked: Parameters<typeof call>): Promise<string> =>
    ((await call(...asked)).body as Problem).code;
  return { tokenOf, call, codeOf };
}

test('claims, devices and events over HTTP', async (t) => {
  const world = await openWorld(t);
  const { tokenOf, call, codeOf } = await openApi(world);
  const operator = await tokenOf('operator');
  const viewer = await tokenOf('viewer');
  const claim = await call(operator, 'POST', '/claims', { labels: { site: 'a' }, uses: 3 });
  assert.equal(claim.status, 201);
  assert.equal(claimFileSchema.parse(claim.body).uses, 3);
  assert.equal(await codeOf(viewer, 'POST', '/claims', {}), 'role-forbidden');
  assert.equal(await codeOf(operator, 'POST', '/claims', { uses: 0 }), 'input-invalid');

  const [device] = await world.devices(1, { site: 'a' });
  assert.ok(device);
  const path = `/devices/${device.id}`;
  assert.equal(deviceSchema.array().parse((await call(viewer, 'GET', '/devices')).body).length, 1);
  assert.equal(deviceSchema.parse((await call(viewer, 'GET', path)).body).presence, 'online');
  assert.equal(await codeOf(viewer, 'GET', '/devices/none'), 'device-unknown');
  assert.equal(await codeOf(viewer, 'PATCH', `${path}/labels`, { labels: { line: 'x' } }), 'role-forbidden');
  const labelled = await call(operator, 'PATCH', `${path}/labels`, { labels: { line: 'x', site: null } });
  assert.deepEqual(deviceSchema.parse(labelled.body).labels, { own: 'yes', line: 'x' });
  assert.equal(await codeOf(operator, 'PATCH', `${path}/labels`, { labels: { '': 'x' } }), 'input-invalid');
  assert.equal((await call(operator, 'POST', `${path}/release`)).status, 200);
  assert.equal(deviceSchema.parse((await call(operator, 'POST', `${path}/revoke`)).body).status, 'revoked');
  assert.equal(await codeOf(operator, 'POST', `${path}/release`), 'device-revoked');

  const events = fleetEventSchema
    .array()
    .parse((await call(viewer, 'GET', `/events?subject=${device.id}`)).body);
  assert.deepEqual(
    events.map((event) => event.code),
    ['device-revoked', 'enrolled'],
  );
  assert.equal(await codeOf(viewer, 'GET', '/events?limit=none'), 'input-invalid');
});

test('rollouts over HTTP need the right to the release’s namespace', async (t) => {
  const world = await openWorld(t);
  await world.push(release, 1);
  const [device] = await world.devices(1);
  assert.ok(device);
  const { tokenOf, call, codeOf } = await openApi(world);
  const operator = await tokenOf('operator', 'acme');
  const foreign = await tokenOf('operator', 'other');
  const viewer = await tokenOf('viewer');
  const file = rolloutFile('digits', { release });
  assert.equal(await codeOf(foreign, 'POST', '/rollouts', { file }), 'namespace-forbidden');
  assert.equal(await codeOf(viewer, 'POST', '/rollouts', { file }), 'role-forbidden');
  assert.equal(
    await codeOf(operator, 'POST', '/rollouts', { file: 'apiVersion: 1' }),
    'rollout-file-invalid',
  );
  const unknown = rolloutFile('digits', { release: 'acme/digits@9.0.0' });
  assert.equal(await codeOf(operator, 'POST', '/rollouts', { file: unknown }), 'release-unknown');
  const twice = rolloutFile('digits', { releases: [release, release] });
  assert.equal(await codeOf(operator, 'POST', '/rollouts', { file: twice }), 'rollout-file-invalid');
  // The right to one of several that switch together is not enough.
  const mixed = rolloutFile('digits', { releases: [release, 'other/eyes@1.0.0'] });
  assert.equal(await codeOf(operator, 'POST', '/rollouts', { file: mixed }), 'namespace-forbidden');

  const started = await call(operator, 'POST', '/rollouts', { file });
  assert.equal(started.status, 201);
  const { id } = rolloutStartedSchema.parse(started.body);
  await world.settle();
  assert.equal(
    rolloutStatusSchema.parse((await call(viewer, 'GET', `/rollouts/${id}`)).body).state,
    'running',
  );
  assert.equal(await codeOf(viewer, 'GET', '/rollouts/none'), 'rollout-unknown');
  assert.equal(rolloutSummarySchema.array().parse((await call(viewer, 'GET', '/rollouts')).body)[0]?.id, id);
  const approver = await tokenOf('approver');
  for (const verb of ['abort', 'pause', 'resume']) {
    assert.equal(await codeOf(foreign, 'POST', `/rollouts/${id}/${verb}`, {}), 'namespace-forbidden');
    assert.equal(await codeOf(approver, 'POST', `/rollouts/${id}/${verb}`, {}), 'role-forbidden');
  }
  assert.equal(await codeOf(operator, 'POST', `/rollouts/${id}/approve`, {}), 'role-forbidden');
  assert.equal(await codeOf(approver, 'POST', `/rollouts/${id}/approve`, {}), 'approval-not-needed');
  assert.equal((await call(operator, 'POST', `/rollouts/${id}/pause`, { comment: 'why' })).status, 200);
  assert.equal((await call(operator, 'POST', `/rollouts/${id}/resume`)).status, 200);
  assert.equal((await call(viewer, 'GET', `/rollouts/${id}/history`)).status, 200);
  assert.equal((await call(operator, 'POST', `/rollouts/${id}/abort`, { revert: true })).status, 200);
  await world.settle();
  await device.obey();
  await world.settle();
  assert.equal(
    rolloutStatusSchema.parse((await call(viewer, 'GET', `/rollouts/${id}`)).body).state,
    'aborted',
  );
  assert.equal(await codeOf(operator, 'POST', `/rollouts/${id}/abort`), 'rollout-state');
});
