// Why: who may do what, and that a token is worth nothing once it expired, was revoked or was changed.
// Trusts: the store. Must never: pass because everything is allowed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Action, authorize, createAccess, type Principal } from '../../registry/policy/access.ts';
import { openRegistryStore } from '../../registry/store/open.ts';
import { roles } from '../../shared/wire/http.ts';
import { countedEntropy, turnedClock } from './support.ts';

const actions: Action[] = [
  'catalogue.read',
  'catalogue.push',
  'publishers.claim',
  'publishers.write',
  'fleet.read',
  'claims.write',
  'devices.write',
  'rollouts.read',
  'rollouts.write',
  'cells.read',
  'cells.withheld',
  'telemetry.read',
  'keys.read',
  'keys.write',
  'audit.read',
  'policy.read',
  'policy.write',
  'tokens.write',
];

test('the table of rights, written out', () => {
  const reading = ['catalogue.read', 'fleet.read', 'rollouts.read', 'cells.read'];
  const expected: Record<(typeof roles)[number], string[]> = {
    viewer: reading,
    auditor: [...reading, 'telemetry.read', 'cells.withheld', 'keys.read', 'audit.read', 'policy.read'],
    approver: reading,
    publisher: [...reading, 'catalogue.push', 'publishers.claim'],
    operator: [
      ...[...reading, 'claims.write', 'devices.write', 'rollouts.write'],
      ...['cells.withheld', 'telemetry.read', 'keys.read'],
    ],
    admin: actions,
  };
  for (const role of roles) {
    const principal: Principal = { tokenId: 't', user: 'u', role, namespace: null, atRegion: null };
    const granted = actions.filter((action) => authorize(principal, action, 'acme').ok);
    assert.deepEqual(granted.sort(), [...expected[role]].sort(), role);
  }
});

test('a bound token changes its own namespace only, and nothing of the whole fleet', () => {
  const principal: Principal = { tokenId: 't', user: 'u', role: 'admin', namespace: 'acme', atRegion: null };
  assert.equal(authorize(principal, 'catalogue.push', 'acme').ok, true);
  for (const [action, namespace] of [
    ['catalogue.push', 'other'],
    ['devices.write', null],
    ['keys.read', null],
    ['keys.write', null],
    ['tokens.write', null],
    ['tokens.write', 'other'],
  ] as const) {
    const refused = authorize(principal, action, namespace);
    assert.equal(
      refused.ok ? 'granted' : refused.refusal.code,
      'namespace-forbidden',
      `${action} ${namespace}`,
    );
  }
  assert.equal(authorize(principal, 'fleet.read', null).ok, true);
});

test('a token works until it expires or is revoked; only its digest is stored', async (t) => {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const clock = turnedClock();
  const access = createAccess({ store, clock, entropy: countedEntropy('access') });
  const made = await access.create({ user: 'ann', role: 'operator', namespace: 'acme', ttlMs: 1_000 });
  const who = await access.authenticate(made.token);
  assert.deepEqual(who, {
    ok: true,
    value: { tokenId: made.view.id, user: 'ann', role: 'operator', namespace: 'acme', atRegion: null },
  });
  const rows = await store.tx((db) => db.all(store.qb.selectFrom('tokens').selectAll()));
  assert.equal(JSON.stringify(rows).includes(made.token), false);
  assert.equal((await access.authenticate(`${made.token}x`)).ok, false);

  clock.advance(1_000);
  const late = await access.authenticate(made.token);
  assert.equal(late.ok ? 'granted' : late.refusal.code, 'token-invalid');

  const lasting = await access.create({ user: 'bob', role: 'viewer', namespace: null, ttlMs: null });
  assert.equal((await access.authenticate(lasting.token)).ok, true);
  const revoked = await access.revoke(lasting.view.id);
  assert.equal(revoked.ok && revoked.value.revokedAtMs, clock.wall());
  assert.equal((await access.authenticate(lasting.token)).ok, false);
  const unknown = await access.revoke('nobody');
  assert.equal(unknown.ok ? 'revoked' : unknown.refusal.code, 'not-found');
});

test('the admin token is kept while it works and made anew when it does not', async (t) => {
  const store = await openRegistryStore(':memory:');
  t.after(() => store.close());
  const access = createAccess({ store, clock: turnedClock(), entropy: countedEntropy('admin') });
  const first = await access.ensureAdmin(null);
  assert.equal(await access.ensureAdmin(first), first);
  assert.notEqual(await access.ensureAdmin('lepton_forged'), 'lepton_forged');
  const viewer = await access.create({ user: 'v', role: 'viewer', namespace: null, ttlMs: null });
  assert.notEqual(await access.ensureAdmin(viewer.token), viewer.token);
});
