// Why: keys over HTTP: who may look, plan and install, and that a refusal reaches the client whole.
// Trusts: a registry on its real port. Must never: leave a port or a folder behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Registry, startRegistry } from '../../registry/registry.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { keysInstalledSchema, keysStatusSchema, problemSchema, type Role } from '../../shared/wire/http.ts';
import { keyPlanSchema } from '../../shared/wire/key-plan.ts';
import { bundleFrom, firstChanges, holder, signedBy } from '../support/ceremony.ts';
import { heardLog, temporaryFolder } from './support.ts';

const [alice, bob, tina] = [holder('alice'), holder('bob'), holder('tina')];

function asking(registry: Registry) {
  return (method: string, path: string, body?: object, token = registry.adminToken): Promise<Response> =>
    fetch(`${registry.httpUrl}/api/v1/keys${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
}

test('look, plan, install over HTTP; each for whom it is meant', async (t) => {
  const registry = await startRegistry({
    dataFolder: temporaryFolder(t),
    region: 'test',
    http: { host: '127.0.0.1', port: 0 },
    mqtt: { host: '127.0.0.1', port: 0 },
    version: '0.0.0-test',
    clock: systemClock,
    entropy: systemEntropy,
    log: heardLog(),
  });
  t.after(() => registry.stop());
  const ask = asking(registry);
  const codeOf = async (response: Response): Promise<[number, string]> => [
    response.status,
    problemSchema.parse(await response.json()).code,
  ];
  const tokenOf = async (role: Role, namespace: string | null = null): Promise<string> =>
    (await registry.parts.access.create({ user: role, role, namespace, ttlMs: null })).token;

  for (const role of ['viewer', 'publisher', 'approver'] as const) {
    assert.deepEqual(await codeOf(await ask('GET', '', undefined, await tokenOf(role))), [
      403,
      'role-forbidden',
    ]);
  }
  for (const role of ['auditor', 'operator'] as const) {
    const token = await tokenOf(role);
    assert.equal(
      keysStatusSchema.parse(await (await ask('GET', '', undefined, token)).json()).keys,
      'development',
    );
    assert.deepEqual(await codeOf(await ask('POST', '/plan', { newOnline: true }, token)), [
      403,
      'role-forbidden',
    ]);
  }
  const bound = await tokenOf('admin', 'acme');
  assert.deepEqual(await codeOf(await ask('POST', '/plan', {}, bound)), [403, 'namespace-forbidden']);
  assert.deepEqual((await registry.parts.repository.keys.status()).pending, [], 'nobody has made keys');

  const plan = keyPlanSchema.parse(await (await ask('POST', '/plan', { newOnline: true })).json());
  assert.notEqual(plan.newOnline, null);
  const bundle = bundleFrom(plan, firstChanges([alice, bob], tina), { nowMs: Date.now(), renew: true });
  assert.deepEqual(await codeOf(await ask('POST', '/install', { bundle }, await tokenOf('operator'))), [
    403,
    'role-forbidden',
  ]);
  assert.deepEqual(await codeOf(await ask('POST', '/install', { bundle: { ...bundle, kind: 'x' } })), [
    400,
    'input-invalid',
  ]);
  const missing = await ask('POST', '/install', { bundle: signedBy(bundle, alice, tina) });
  const problem = problemSchema.parse(await missing.json());
  assert.deepEqual([missing.status, problem.code], [409, 'signatures-missing']);
  assert.match(problem.detail, /bob/);
  const whole = { bundle: signedBy(bundle, alice, bob, tina) };
  const installed = keysInstalledSchema.parse(await (await ask('POST', '/install', whole)).json());
  assert.deepEqual([installed.status, installed.keys, installed.reissued], ['installed', 'offline', 0]);
  assert.equal(installed.deleted.length, 7 + 6, 'development keys, and the online keys that nobody named');
  const again = keysInstalledSchema.parse(await (await ask('POST', '/install', whole)).json());
  assert.equal(again.status, 'in-force-already');
  const info = (await (
    await fetch(`${registry.httpUrl}/api/v1/registry`, {
      headers: { authorization: `Bearer ${registry.adminToken}` },
    })
  ).json()) as { keys: string };
  assert.equal(info.keys, 'offline');
});
