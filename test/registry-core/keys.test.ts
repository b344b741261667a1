// Why: keys that change under a running registry: what may be put in force, what signs afterwards, what is
// deleted. Trusts: the client that devices run as the judge of what is served. Must never: sign for the registry.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openKeyring } from '../../registry/signing/keys.ts';
import { openRepository } from '../../registry/signing/repository.ts';
import { openRegistryStore } from '../../registry/store/open.ts';
import { verify } from '../../shared/crypto/ed25519.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { bundleDocuments, bundleNext, withNext } from '../../shared/trust/ceremony/bundle.ts';
import type { Change } from '../../shared/trust/ceremony/change.ts';
import { parseRegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { findRelease, refreshCatalogue, type TrustState } from '../../shared/trust/tuf/client.ts';
import { noBounds } from '../../shared/trust/tuf/floors.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { describeFile, makeTimestamp } from '../../shared/trust/tuf/repository.ts';
import { followTimestamp, trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import { type KeyBundle, keyBundleSchema, keyPlanSchema } from '../../shared/wire/key-plan.ts';
import { bundleFrom, firstChanges, holder, onlineChanges, signedBy } from '../support/ceremony.ts';
import {
  countedEntropy,
  dayMs,
  type HeardLog,
  heardLog,
  hexOf,
  identityModel,
  preparePush,
  publisherKey,
  temporaryFolder,
  turnedClock,
} from './support.ts';

const [alice, bob, carol] = [holder('alice'), holder('bob'), holder('carol')];
const tina = holder('tina');
const roots = [alice, bob, carol];

async function registry(t: TestContext) {
  const folder = temporaryFolder(t);
  const clock = turnedClock();
  const log: HeardLog = heardLog();
  const store = await openRegistryStore(join(folder, 'registry.sqlite'));
  t.after(() => store.close());
  const open = async (mayCreate: boolean) => {
    const keyring = await openKeyring({
      disk: openDisk(join(folder, 'keys')),
      mayCreate,
      region: 'test',
      hosts: ['localhost'],
      clock,
      entropy: countedEntropy(`keys ${mayCreate}`),
      log,
    });
    return { keyring, repository: await openRepository({ store, keyring, region: 'test', clock, log }) };
  };
  const { keyring, repository } = await open(true);

  let state: TrustState = {
    root: new Uint8Array(await repository.catalogueRoot()),
    timestamp: null,
    snapshot: null,
    targets: null,
    delegated: {},
  };
  let regionRoot = unwrap(parseRegionRoot(await repository.regionRoot()));

  const world = {
    clock,
    log,
    keyring,
    repository,
    restart: () => open(false),
    keyFiles: () => readdirSync(join(folder, 'keys')).filter((name) => !/^(server|fleet-ca)\./.test(name)),
    plan: (newOnline = false) => repository.keys.plan({ newOnline }),
    bundle: async (changes: readonly Change[], more: { renew?: boolean; newOnline?: boolean } = {}) => {
      const plan = keyPlanSchema.parse(await world.plan(more.newOnline ?? false));
      return bundleFrom(plan, changes, { nowMs: clock.wall(), renew: more.renew ?? false });
    },
    install: (bundle: KeyBundle) =>
      repository.keys.install(keyBundleSchema.parse(JSON.parse(JSON.stringify(bundle)))),
    /** A device that was there from the start: walks both chains of roots. */
    follow: async (namespaces: string[] = []) => {
      state = unwrap(
        await refreshCatalogue({
          state,
          fetcher: {
            async fetch(name) {
              const bytes = await repository.file(name);
              return bytes === null ? refuse('metadata-missing', name) : ok(new Uint8Array(bytes));
            },
          },
          nowMs: clock.wall(),
          namespaces,
          saveRoot: async () => undefined,
        }),
      );
      for (;;) {
        const next = await repository.file(`region/${regionRoot.version + 1}.root.json`);
        if (next === null) break;
        regionRoot = unwrap(updateRegionRoot(regionRoot.bytes, new Uint8Array(next)));
      }
      return { state, regionRoot };
    },
    first: async () => {
      const bundle = signedBy(
        await world.bundle(firstChanges(roots, tina), { renew: true }),
        alice,
        bob,
        tina,
      );
      return unwrap(await world.install(bundle));
    },
    push: async (releaseId: string, counter: number, signers = [publisherKey('acme')]) => {
      const [namespace = ''] = releaseId.split('/');
      const version = (await repository.publisher(namespace))?.metadataVersion ?? 0;
      const push = preparePush({
        releaseId,
        model: identityModel(releaseId),
        current: version === 0 ? null : await repository.file(`${version}.${namespace}.json`),
        counter,
        signers,
        expiresAtMs: clock.wall() + 365 * dayMs,
      });
      return repository.acceptPublisherMetadata(namespace, push.metadata);
    },
  };
  return world;
}

const code = (result: Result<unknown>): string => (result.ok ? 'accepted' : result.refusal.code);
const signs = (signer: { publicKey: Uint8Array; sign(message: Uint8Array): Uint8Array }): boolean => {
  const message = new Uint8Array([1, 2, 3]);
  return verify(signer.publicKey, message, signer.sign(message));
};

test('the first ceremony: development keys go, devices follow, the catalogue stays what it was', async (t) => {
  const world = await registry(t);
  const { repository, keyring, log } = world;
  assert.equal(keyring.kind, 'development');
  unwrap(await repository.delegate('acme', [hexOf(publisherKey('acme'))], 1));
  unwrap(await world.push('acme/echo@1.0.0', 1));
  await world.follow(['acme']);
  const rung: Uint8Array[] = [];
  repository.onTimestamp((bytes) => rung.push(bytes));

  const done = await world.first();
  assert.deepEqual(done.documents, ['root 2', 'region-root 2', 'targets 3']);
  assert.deepEqual(done.signedHere, ['root', 'region-root']);
  assert.equal(done.directorChanged, false);
  assert.equal(rung.length, 1, 'the doorbell rings once');
  assert.equal(keyring.kind, 'offline');
  assert.deepEqual(world.keyFiles(), [
    'ack.pem',
    'command.pem',
    'director.pem',
    'snapshot.pem',
    'time.pem',
    'timestamp.pem',
  ]);
  assert.equal(log.events.filter(({ event }) => event === 'registry.keys.deleted').length, 7);
  assert.equal(log.events.filter(({ event }) => event === 'registry.keys.installed').length, 1);

  const { state, regionRoot } = await world.follow(['acme']);
  assert.equal(unwrap(findRelease(state, { namespace: 'acme', name: 'echo', version: '1.0.0' })).counter, 1);
  assert.deepEqual(
    regionRoot.roles.root.keys.map((key) => key.keyId).sort(),
    roots.map(({ signer }) => signer.keyId).sort(),
  );
  // Publishers push as before: targets need not be signed for that.
  unwrap(await world.push('acme/echo@1.1.0', 2));
  assert.ok((await world.follow(['acme'])).state);

  const restarted = await world.restart();
  assert.equal(restarted.keyring.kind, 'offline');
  assert.deepEqual(
    await restarted.repository.file('timestamp.json'),
    await repository.file('timestamp.json'),
  );
});

test('too few signatures: nothing changes, and the answer names the holders', async (t) => {
  const world = await registry(t);
  const { repository } = world;
  const bundle = await world.bundle(firstChanges(roots, tina), { renew: true });
  const before = await repository.file('timestamp.json');
  const result = await world.install(signedBy(bundle, alice));
  assert.equal(code(result), 'signatures-missing');
  const detail = result.ok ? '' : result.refusal.detail;
  assert.match(detail, /root: 1 of bob \([0-9a-f]{16}\), carol/);
  assert.match(detail, /targets: 1 of tina/);
  // What the registry adds by itself is not asked of anybody.
  assert.doesNotMatch(detail, /by the keys before/);
  assert.deepEqual(await repository.file('timestamp.json'), before);
  assert.equal(world.keyFiles().length, 13);
  // A stranger's signature counts for nothing.
  assert.equal(code(await world.install(signedBy(bundle, alice, tina))), 'signatures-missing');
  assert.equal(code(await world.install(signedBy(bundle, alice, carol, tina))), 'accepted');
});

test('the same bundle again is no news; one made for other documents is a conflict', async (t) => {
  const world = await registry(t);
  const stale = signedBy(
    await world.bundle(firstChanges([alice, bob], tina), { renew: true }),
    alice,
    bob,
    tina,
  );
  const bundle = signedBy(await world.bundle(firstChanges(roots, tina), { renew: true }), alice, bob, tina);
  unwrap(await world.install(bundle));
  const timestamp = await world.repository.file('timestamp.json');
  assert.equal(unwrap(await world.install(bundle)).status, 'in-force-already');
  assert.deepEqual(await world.repository.file('timestamp.json'), timestamp);
  assert.equal(code(await world.install(stale)), 'conflict');
  const elsewhere = { ...bundle, region: 'elsewhere' };
  assert.equal(code(await world.install(elsewhere)), 'assignment-other-region');
});

test('a bundle that does something else than its signers saw is refused', async (t) => {
  const world = await registry(t);
  await world.first();
  const renewal = signedBy(await world.bundle([], { renew: true }), alice, bob, tina);
  const next = bundleNext(renewal);
  // Another root in front of the signatures of this one.
  const mallory = holder('mallory');
  const other = await world.bundle([{ kind: 'replace', keyId: carol.signer.keyId, by: mallory.key }]);
  const swapped = withNext(renewal, { ...next, root: bundleNext(other).root });
  assert.equal(code(await world.install(swapped)), 'signatures-missing');
  // Old enough to have expired on its way.
  world.clock.advance(200 * dayMs);
  assert.equal(code(await world.install(renewal)), 'metadata-expired');
  assert.deepEqual(bundleDocuments(renewal).root, new Uint8Array(await world.repository.catalogueRoot()));
});

test('a signer that was asked for once signs with the new key after a rotation, without a restart', async (t) => {
  const world = await registry(t);
  await world.first();
  await world.follow();
  const ack = world.keyring.signer('ack');
  const director = world.keyring.signer('director');
  const [ackBefore, directorBefore] = [hexOf(ack), hexOf(director)];
  const stolen = world.keyring.held(world.keyring.signer('timestamp').publicKey);
  assert.ok(stolen);

  const plan = await world.plan(true);
  // Made and held, and not used yet.
  assert.equal(hexOf(ack), ackBefore);
  assert.equal(world.keyFiles().length, 12);
  const bundle = bundleFrom(plan, onlineChanges(plan), { nowMs: world.clock.wall() });
  assert.equal(code(await world.install(signedBy(bundle, alice))), 'signatures-missing');
  assert.equal(hexOf(ack), ackBefore);
  const done = unwrap(await world.install(signedBy(bundle, alice, bob)));
  assert.equal(done.directorChanged, true);
  assert.deepEqual(done.signedHere, []);
  assert.equal(hexOf(ack), plan.newOnline?.ack);
  assert.equal(hexOf(director), plan.newOnline?.director);
  assert.notEqual(hexOf(director), directorBefore);
  assert.ok(signs(ack) && signs(director));
  assert.equal(world.keyring.held(stolen.publicKey), null);
  assert.equal(world.keyFiles().length, 6);
  assert.ok(world.keyFiles().every((name) => /^[a-z]+-[0-9a-f]{16}\.pem$/.test(name)));

  const { state, regionRoot } = await world.follow();
  assert.deepEqual(
    regionRoot.roles.director.keys.map((key) => Buffer.from(key.publicKey).toString('hex')),
    [plan.newOnline?.director],
  );
  // What the stolen key signs, however new, is not this catalogue's any more.
  assert.ok(state.snapshot);
  const forged = makeTimestamp({
    version: 1_000_000,
    expiresAtMs: world.clock.wall() + dayMs,
    snapshot: describeFile(state.snapshot),
    signers: [stolen],
  });
  assert.equal(
    code(followTimestamp(housePolicy, unwrap(trustRoot(housePolicy, state.root)), null, noBounds, forged)),
    'metadata-signature-invalid',
  );
  const { keyring } = await world.restart();
  assert.equal(hexOf(keyring.signer('ack')), plan.newOnline?.ack);
});

test('in development a rotation needs nobody else, and stays development', async (t) => {
  const world = await registry(t);
  await world.follow();
  const plan = await world.plan(true);
  const done = unwrap(
    await world.install(bundleFrom(plan, onlineChanges(plan), { nowMs: world.clock.wall() })),
  );
  assert.deepEqual(done.signedHere, ['root', 'region-root']);
  assert.equal(world.keyring.kind, 'development');
  assert.ok((await world.follow()).state);
  // Renewals of what it still holds go on by themselves.
  world.clock.advance(310 * dayMs);
  assert.equal(await world.repository.resign(world.clock.wall()), true);
  assert.notEqual(await world.repository.file('3.root.json'), null);
  assert.notEqual(await world.repository.file('region/3.root.json'), null);
  assert.ok((await world.follow()).state);
});

test('online keys of an earlier plan are given up; a root that names keys of nobody here is refused', async (t) => {
  const world = await registry(t);
  await world.first();
  const [early, late] = [await world.plan(true), await world.plan(true)];
  assert.equal(world.keyFiles().length, 12);
  const make = (plan: typeof early): KeyBundle =>
    signedBy(bundleFrom(plan, onlineChanges(plan), { nowMs: world.clock.wall() }), alice, bob);
  const before = await world.repository.catalogueRoot();
  assert.equal(code(await world.install(make(early))), 'keys-not-held');
  assert.deepEqual(await world.repository.catalogueRoot(), before);
  unwrap(await world.install(make(late)));
  assert.deepEqual((await world.repository.keys.status()).pending, []);
});

test('a publisher by an offline hand; a revoked publisher key; a root key that is lost', async (t) => {
  const world = await registry(t);
  const { repository } = world;
  await world.first();
  const keys = [hexOf(publisherKey('acme'))];
  assert.equal(code(await repository.delegate('acme', keys, 1)), 'keys-offline');
  const acme = (...names: string[]): Change => ({
    kind: 'set',
    role: 'publisher:acme',
    keys: names.map((name) => ({ publicKey: publisherKey(name).publicKey, holder: name })),
    threshold: names.length,
  });
  unwrap(await world.install(signedBy(await world.bundle([acme('acme', 'second')]), tina)));
  assert.deepEqual(await repository.publisher('acme'), {
    namespace: 'acme',
    keys: [...keys, hexOf(publisherKey('second'))].sort(),
    threshold: 2,
    metadataVersion: 0,
    versionFloor: 0,
    counterFloors: {},
  });
  // Asked again for what is so already, it is no refusal.
  assert.equal(
    code(await repository.delegate('acme', [...keys, hexOf(publisherKey('second'))], 2)),
    'accepted',
  );
  assert.equal(code(await world.push('acme/echo@1.0.0', 1)), 'release-not-signed');
  unwrap(await world.push('acme/echo@1.0.0', 1, [publisherKey('acme'), publisherKey('second')]));
  await world.follow(['acme']);

  const revoked = publisherKey('second').keyId;
  const third = publisherKey('third');
  const swap = await world.bundle([
    { kind: 'replace', keyId: revoked, by: { publicKey: third.publicKey, holder: 'third' } },
  ]);
  const signers = [tina, { name: 'a', signer: publisherKey('acme'), key: tina.key }];
  const half = await world.install(signedBy(swap, ...signers));
  assert.equal(code(half), 'signatures-missing');
  assert.match(half.ok ? '' : half.refusal.detail, /publisher:acme: 1 of third/);
  unwrap(await world.install(signedBy(swap, ...signers, { name: 'third', signer: third, key: tina.key })));
  const { state } = await world.follow(['acme']);
  assert.equal(unwrap(findRelease(state, { namespace: 'acme', name: 'echo', version: '1.0.0' })).counter, 1);
  assert.equal((await repository.publisher('acme'))?.metadataVersion, 2);
  const holders = (await repository.keys.status()).roles.find(({ role }) => role === 'publisher:acme')?.keys;
  assert.deepEqual(holders?.map((key) => [key.holder, key.where]).sort(), [
    ['acme', 'publisher'],
    ['third', 'publisher'],
  ]);

  const dave = holder('dave');
  const lost = await world.bundle([{ kind: 'replace', keyId: carol.signer.keyId, by: dave.key }]);
  assert.equal(code(await world.install(signedBy(lost, alice, dave))), 'signatures-missing');
  assert.deepEqual(unwrap(await world.install(signedBy(lost, alice, bob))).documents, [
    'root 3',
    'region-root 3',
  ]);
  assert.ok((await world.follow(['acme'])).state);
  assert.equal(
    code(await world.install(signedBy(await world.bundle([], { renew: true }), bob, carol, tina))),
    'signatures-missing',
  );
});

test('what is signed offline is watched: a year ahead nothing, a month ahead once a day', async (t) => {
  const world = await registry(t);
  await world.first();
  const said = (): unknown[] =>
    world.log.events
      .filter(({ event }) => event === 'registry.keys.expiring')
      .map(({ fields }) => fields['role']);
  const day = async (): Promise<void> => {
    world.clock.advance(dayMs);
    await world.repository.resign(world.clock.wall());
    await world.repository.resign(world.clock.wall());
  };
  for (let days = 0; days < 149; days += 1) await day();
  assert.deepEqual(said(), []);
  const before = await world.repository.file('3.targets.json');
  for (let days = 0; days < 3; days += 1) await day();
  assert.deepEqual(said(), ['targets', 'targets']);
  assert.equal(before, null, 'it never signs targets by itself');
  const { warnings } = await world.repository.keys.status();
  assert.deepEqual(
    warnings.map(({ role, next }) => [role, next]),
    [['targets', 'lepton keys ceremony renew']],
  );
  // Snapshot and timestamp are its own, and stay fresh to the end.
  assert.ok((await world.follow()).state);
});

test('status says where each key is', async (t) => {
  const world = await registry(t);
  const where = async (): Promise<Record<string, string>> =>
    Object.fromEntries(
      (await world.repository.keys.status()).roles.map(({ role, keys }) => [
        role,
        [...new Set(keys.map((key) => `${key.holder ?? '-'} ${key.where}`))].join(', '),
      ]),
    );
  assert.deepEqual(new Set(Object.values(await where())), new Set(['- this registry']));
  const [warning] = (await world.repository.keys.status()).warnings;
  assert.equal(warning?.next, 'lepton keys ceremony first');
  await world.first();
  const after = await where();
  assert.equal(after['root'], 'alice offline, bob offline, carol offline');
  assert.equal(after['targets'], 'tina offline');
  assert.equal(after['director'], '- this registry');
  assert.equal(after['fleet-ca'], '- this registry');
  assert.deepEqual((await world.repository.keys.status()).warnings, []);
});
