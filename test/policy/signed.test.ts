// Why: a policy is in force when root keys of its region have signed it, and only forwards.
// Trusts: test/fleet/world.ts, test/support/ceremony.ts. Must never: sign with a key that the region would not take.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openRegionPolicies } from '../../registry/policy/region-policies.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import {
  checkPolicy,
  policyBytes,
  policySha256,
  signPolicy,
  withPolicySignature,
} from '../../shared/trust/region-policy.ts';
import { type Envelope, payloadTypes } from '../../shared/wire/messages.ts';
import { openWorld, type World } from '../fleet/world.ts';
import { bundleFrom, firstChanges, holder, signedBy } from '../support/ceremony.ts';
import { policyOf } from './files.ts';

const [alice, bob, tina] = [holder('alice'), holder('bob'), holder('tina')];

const put = (world: World, envelope: Envelope) =>
  world.core.policies.put(envelope, { by: 'admin', masking: world.core.masking });
const codeOf = <T>(result: Result<T>): string => (result.ok ? 'ok' : result.refusal.code);

/** Puts offline root keys in the place of those on the registry's disk. */
async function offline(world: World): Promise<void> {
  const { keys } = world.repository;
  const plan = await keys.plan({ newOnline: true });
  const made = bundleFrom(plan, firstChanges([alice, bob], tina), { nowMs: world.clock.wall(), renew: true });
  unwrap(await keys.install(signedBy(made, alice, bob, tina)));
}

test('in development the registry signs by itself; version by version, and the same one again changes nothing', async (t) => {
  const world = await openWorld(t);
  assert.equal((await world.core.policies.view()).inForce, null);
  const one = policyOf('cells: {devicesMin: 9}');
  const done = unwrap(await put(world, signPolicy(one)));
  assert.deepEqual([done.status, done.version.version, done.version.signedBy.length], ['in-force', 1, 2]);
  assert.equal(done.version.sha256, policySha256(one));
  assert.equal(world.core.policies.cellDevicesMin(), 9);
  assert.equal(unwrap(await put(world, signPolicy(one))).status, 'in-force-already');

  const changed = policyOf('cells: {devicesMin: 3}');
  assert.equal(
    codeOf(await put(world, signPolicy(changed))),
    'policy-version-stale',
    'another one of that version',
  );
  const three = policyOf('cells: {devicesMin: 3}', { version: 3 });
  assert.equal(codeOf(await put(world, signPolicy(three))), 'ok');
  assert.equal(codeOf(await put(world, signPolicy(policyOf('', { version: 2 })))), 'policy-version-stale');
  assert.equal(codeOf(await put(world, signPolicy(one))), 'policy-version-stale', 'an earlier one again');
  assert.equal(
    codeOf(await put(world, signPolicy(policyOf('', { version: 4, region: 'us' })))),
    'policy-other-region',
  );
  const shadowed = policyOf(
    `flows:
- {id: a, classes: [log], destinations: ['*'], allow: false, because: x}
- {id: b, classes: [log], destinations: [us], allow: true, because: x}`,
    { version: 4 },
  );
  assert.equal(codeOf(await put(world, signPolicy(shadowed))), 'policy-file-invalid');
  assert.equal(world.core.policies.cellDevicesMin(), 3);
  assert.deepEqual(
    (await world.core.policies.history()).map(({ version }) => version),
    [3, 1],
  );

  // As after a restart: read again, verified again.
  const again = await openRegionPolicies({ ...world.core, region: 'test' });
  assert.deepEqual(await again.view(), await world.core.policies.view());
});

test('with offline keys the threshold of holders signs, in any order; what is forged or too little is refused', async (t) => {
  const world = await openWorld(t);
  await offline(world);
  const policy = policyOf('retention: {log: 30d}\nmasking: [{do: round, field: load, to: 0.5}]');
  const unsigned = signPolicy(policy);
  const code = async (envelope: Envelope) => codeOf(await put(world, envelope));
  const none = await put(world, unsigned);
  assert.match(none.ok ? '' : none.refusal.detail, /0 of 2/);
  const byAlice = withPolicySignature(unsigned, alice.signer);
  assert.equal(await code(byAlice), 'policy-signature-invalid');
  assert.equal(
    await code(withPolicySignature(byAlice, alice.signer)),
    'policy-signature-invalid',
    'one key twice',
  );
  assert.equal(
    await code(withPolicySignature(byAlice, holder('mallory').signer)),
    'policy-signature-invalid',
  );
  assert.equal(
    await code(withPolicySignature(byAlice, tina.signer)),
    'policy-signature-invalid',
    'of targets',
  );
  // A key of the region that signs other things all day.
  const director = world.core.keyring.signer('director');
  assert.equal(await code(withPolicySignature(byAlice, director)), 'policy-signature-invalid');
  // Under another name of payload, and with one number changed behind the signatures.
  const whole = withPolicySignature(byAlice, bob.signer);
  assert.equal(await code({ ...whole, payloadType: payloadTypes.erasure }), 'policy-file-invalid');
  const other = signPolicy(policyOf('retention: {log: 31d}\nmasking: [{do: round, field: load, to: 0.5}]'));
  assert.equal(await code({ ...whole, payload: other.payload }), 'policy-signature-invalid');
  // Another spelling of the same words, signed by all.
  const loose = {
    ...unsigned,
    payload: Buffer.from(`${Buffer.from(policyBytes(policy))} `).toString('base64'),
  };
  const signedLoose = withPolicySignature(withPolicySignature(loose, alice.signer), bob.signer);
  assert.equal(await code(signedLoose), 'policy-file-invalid');

  assert.equal(await code(whole), 'ok');
  const { inForce } = await world.core.policies.view();
  assert.deepEqual(inForce?.signedBy.toSorted(), [alice, bob].map(({ signer }) => signer.keyId).toSorted());
  const root = unwrap(parseRegionRoot(await world.repository.regionRoot()));
  assert.deepEqual(unwrap(checkPolicy(inForce?.envelope ?? whole, root)), policy);
});

test('other root keys follow: what is in force stays, and says that it is theirs no more', async (t) => {
  const world = await openWorld(t);
  unwrap(await put(world, signPolicy(policyOf('cells: {devicesMin: 9}'))));
  assert.equal((await world.core.policies.view()).inForce?.olderRoot, false);
  await offline(world);
  assert.equal((await world.core.policies.view()).inForce?.olderRoot, true);
  const again = await openRegionPolicies({ ...world.core, region: 'test' });
  assert.equal(again.cellDevicesMin(), 9);
});

test('a database that somebody changed is not believed', async (t) => {
  const world = await openWorld(t);
  unwrap(await put(world, signPolicy(policyOf('cells: {devicesMin: 9}'))));
  const forged = signPolicy(policyOf('cells: {devicesMin: 2}'), [
    signerFromSeed(new Uint8Array(32).fill(7), 'node'),
  ]);
  await world.store.tx((db) =>
    db.run(world.store.qb.updateTable('region_policies').set({ envelope: JSON.stringify(forged) })),
  );
  await assert.rejects(openRegionPolicies({ ...world.core, region: 'test' }), { code: 'state-corrupt' });
});

test('masking: the policy’s rules come first and reach devices; nobody takes one away', async (t) => {
  const world = await openWorld(t);
  const { masking } = world.core;
  const [device] = await world.devices(1);
  assert.ok(device);
  const [own, theirs] = policyOf('masking: [{do: drop, field: own}, {do: hash, field: person.name}]').spec
    .masking;
  assert.ok(own && theirs);
  await masking.set([own], false);
  unwrap(await put(world, signPolicy(policyOf('masking: [{do: hash, field: person.name}]'))));
  assert.equal(masking.isPending(), true);
  await world.fleet.director.reissueChanged();
  await world.settle();
  assert.deepEqual((await device.assignment())?.masking?.rules, [theirs, own]);
  assert.deepEqual(masking.view().rules, [theirs, own]);

  const denied = { code: 'policy-denied', rule: 'masking/hash:person.name' };
  await assert.rejects(masking.set([own], false), denied);
  await assert.rejects(masking.set([], false), denied);
  await masking.set([theirs], false);
  assert.deepEqual(masking.view().rules, [theirs]);
  // A later policy without it: what the region itself never set is gone with it.
  unwrap(await put(world, signPolicy(policyOf('', { version: 2 }))));
  assert.deepEqual(masking.view().rules, []);
  const many = Array.from({ length: 64 }, (_, at) => ({ ...own, field: [`f${at}`] }));
  await masking.set(many, false);
  const tooMany = await put(world, signPolicy(policyOf('masking: [{do: drop, field: x}]', { version: 3 })));
  assert.equal(codeOf(tooMany), 'policy-file-invalid');
});

test('counts: many at once are added up in few commits, and none is lost', async (t) => {
  const { core, store } = await openWorld(t);
  const decision = { allowed: true, rule: 'default/cells', reason: 'x' };
  const count = (bytes: number) =>
    core.policies.count({ flow: 'cells', destination: 'us', decision, bytes, records: 1 });
  await count(1);
  await Promise.all(Array.from({ length: 50 }, (_, at) => count(at)));
  await count(2);
  const denied = { ...decision, allowed: false, rule: 'flows/no' };
  await core.policies.count({ flow: 'cells', destination: 'us', decision: denied, bytes: 0, records: 0 });
  const rows = await store.tx((db) => db.all(store.qb.selectFrom('flow_counts').selectAll().orderBy('rule')));
  assert.deepEqual(
    rows.map(({ rule, allowed, requests, records, bytes }) => [rule, allowed, requests, records, bytes]),
    [
      ['default/cells', 1, 52, 52, 1 + 1_225 + 2],
      ['flows/no', 0, 1, 0, 0],
    ],
  );
});
