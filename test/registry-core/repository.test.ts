// Why: what the registry signs must satisfy the very client that devices run, from the first start through
// pushes, renewals and a restart. Trusts: shared/trust as the judge. Must never: verify with its own code.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openKeyring } from '../../registry/signing/keys.ts';
import { type CatalogueRepository, openRepository } from '../../registry/signing/repository.ts';
import { openRegistryStore } from '../../registry/store/open.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import {
  findRelease,
  type MetadataFetcher,
  refreshCatalogue,
  type TrustState,
} from '../../shared/trust/tuf/client.ts';
import { makeTargets } from '../../shared/trust/tuf/repository.ts';
import {
  bench,
  countedEntropy,
  dayMs,
  heardLog,
  hexOf,
  identityModel,
  preparePush,
  publisherKey,
  temporaryFolder,
  turnedClock,
} from './support.ts';

function fetcherOf(repository: CatalogueRepository): MetadataFetcher {
  return {
    async fetch(name) {
      const bytes = await repository.file(name);
      return bytes === null ? refuse('metadata-missing', name) : ok(new Uint8Array(bytes));
    },
  };
}

function stateFrom(root: Uint8Array): TrustState {
  return { root: new Uint8Array(root), timestamp: null, snapshot: null, targets: null, delegated: {} };
}

async function refresh(
  repository: CatalogueRepository,
  state: TrustState,
  nowMs: number,
  namespaces: string[],
) {
  return refreshCatalogue({
    state,
    fetcher: fetcherOf(repository),
    nowMs,
    namespaces,
    saveRoot: async () => undefined,
  });
}

test('a new registry offers a catalogue that a new device accepts', async (t) => {
  const { repository, clock, keyring } = await bench(t);
  const root = await repository.catalogueRoot();
  assert.equal(await repository.catalogueRootSha256(), sha256Hex(root));
  assert.deepEqual(await repository.file('1.root.json'), root);
  const state = unwrap(await refresh(repository, stateFrom(root), clock.wall(), []));
  assert.notEqual(state.targets, null);

  const region = unwrap(parseRegionRoot(await repository.regionRoot()));
  assert.equal(region.region, 'test');
  assert.deepEqual(
    region.roles.director.keys.map((key) => Buffer.from(key.publicKey).toString('hex')),
    [hexOf(keyring.signer('director'))],
  );
  assert.deepEqual(await repository.file('region/1.root.json'), await repository.regionRoot());
  assert.equal(await repository.file('2.root.json'), null);
});

test('a delegated push reaches the device with its counter; the doorbell rings with the new timestamp', async (t) => {
  const { repository, clock } = await bench(t);
  const key = publisherKey('acme');
  const rung: Uint8Array[] = [];
  const quiet = repository.onTimestamp((bytes) => rung.push(bytes));
  unwrap(await repository.delegate('acme', [hexOf(key)], 1));
  const push = preparePush({
    releaseId: 'acme/echo@1.0.0',
    model: identityModel('1'),
    current: null,
    counter: 1,
    signers: [key],
    expiresAtMs: clock.wall() + 365 * dayMs,
  });
  const accepted = unwrap(await repository.acceptPublisherMetadata('acme', push.metadata));
  assert.deepEqual(accepted.signedBy, [key.keyId]);
  assert.equal(rung.length, 2);
  assert.deepEqual(rung[1], await repository.file('timestamp.json'));
  quiet();

  const state = unwrap(
    await refresh(repository, stateFrom(await repository.catalogueRoot()), clock.wall(), ['acme']),
  );
  const found = unwrap(findRelease(state, { namespace: 'acme', name: 'echo', version: '1.0.0' }));
  assert.equal(found.counter, 1);
  assert.equal(found.sha256, sha256Hex(push.manifest));
  assert.equal((await repository.publisher('acme'))?.metadataVersion, 1);
});

test('publisher metadata is refused with the reason, and nothing of it is kept', async (t) => {
  const { repository, clock } = await bench(t);
  const key = publisherKey('acme');
  const stranger = publisherKey('stranger');
  const expiresAtMs = clock.wall() + 365 * dayMs;
  const code = async (bytes: Uint8Array): Promise<string> => {
    const result = await repository.acceptPublisherMetadata('acme', bytes);
    return result.ok ? 'accepted' : result.refusal.code;
  };
  const make = (version: string, counter: number, current: Uint8Array | null, signers = [key]) =>
    preparePush({
      releaseId: `acme/echo@${version}`,
      model: identityModel(version),
      current,
      counter,
      signers,
      expiresAtMs,
    }).metadata;

  const first = make('1.0.0', 1, null);
  assert.equal(await code(first), 'namespace-unknown');
  unwrap(await repository.delegate('acme', [hexOf(key)], 1));
  assert.equal(await code(make('1.0.0', 1, null, [stranger])), 'publisher-key-unknown');
  assert.equal(await code(Buffer.from('{}')), 'metadata-malformed');
  const expired = preparePush({
    releaseId: 'acme/echo@1.0.0',
    model: identityModel('1'),
    current: null,
    counter: 1,
    signers: [key],
    expiresAtMs: clock.wall() - 1_000,
  });
  assert.equal(await code(expired.metadata), 'metadata-expired');
  assert.equal(await code(first), 'accepted');
  const before = await repository.file('timestamp.json');
  assert.equal(await code(make('1.0.1', 2, null)), 'metadata-version-invalid');
  // A later version that forgets the first release.
  const dropped = makeTargets({ version: 2, expiresAtMs, targets: new Map(), signers: [key] });
  assert.equal(await code(dropped), 'metadata-rollback');
  assert.deepEqual(await repository.file('timestamp.json'), before);
  assert.equal(await code(make('1.0.1', 2, first)), 'accepted');
});

test('a threshold of two keys needs two; changing keys may not orphan what is signed', async (t) => {
  const { repository, clock } = await bench(t);
  const [a, b] = [publisherKey('a'), publisherKey('b')];
  unwrap(await repository.delegate('duo', [hexOf(a), hexOf(b)], 2));
  const push = (signers: (typeof a)[]) =>
    preparePush({
      releaseId: 'duo/echo@1.0.0',
      model: identityModel('duo'),
      current: null,
      counter: 1,
      signers,
      expiresAtMs: clock.wall() + 365 * dayMs,
    }).metadata;
  const single = await repository.acceptPublisherMetadata('duo', push([a]));
  assert.equal(single.ok ? 'accepted' : single.refusal.code, 'release-not-signed');
  assert.equal((await repository.acceptPublisherMetadata('duo', push([a, b]))).ok, true);
  const orphaning = await repository.delegate('duo', [hexOf(publisherKey('c'))], 1);
  assert.equal(orphaning.ok ? 'taken' : orphaning.refusal.code, 'conflict');
  assert.equal((await repository.delegate('duo', [hexOf(a)], 1)).ok, true);
  for (const [keys, threshold, expected] of [
    [[hexOf(a)], 2, 'input-invalid'],
    // The same key twice is one key.
    [[hexOf(a), hexOf(a)], 2, 'input-invalid'],
    // A small-order point.
    [['00'.repeat(32)], 1, 'key-invalid'],
  ] as const) {
    const refused = await repository.delegate('small', [...keys], threshold);
    assert.equal(refused.ok ? 'taken' : refused.refusal.code, expected);
  }
  const reserved = await repository.delegate('snapshot', [hexOf(a)], 1);
  assert.equal(reserved.ok ? 'taken' : reserved.refusal.code, 'input-invalid');
});

test('two years of daily renewals keep every device’s catalogue fresh, and never sign in vain', async (t) => {
  const { repository, clock } = await bench(t);
  const early = stateFrom(await repository.catalogueRoot());
  assert.equal(await repository.resign(clock.wall()), false);
  let follower = unwrap(await refresh(repository, early, clock.wall(), []));
  for (let day = 0; day < 730; day += 1) {
    clock.advance(dayMs + 1);
    assert.equal(await repository.resign(clock.wall()), true, `day ${day}`);
    assert.equal(await repository.resign(clock.wall()), false, `day ${day} again`);
    if (day % 30 === 0) follower = unwrap(await refresh(repository, follower, clock.wall(), []));
  }
  assert.notEqual(await repository.file('3.root.json'), null);
  // A device that slept for two years walks the chain of roots.
  const late = unwrap(await refresh(repository, early, clock.wall(), []));
  assert.deepEqual(late.root, new Uint8Array(await repository.catalogueRoot()));
  // Without renewals a cut-off device sees that it is cut off.
  clock.advance(8 * dayMs);
  const stale = await refresh(repository, follower, clock.wall(), []);
  assert.equal(stale.ok ? 'fresh' : stale.refusal.code, 'metadata-expired');
});

test('a restart goes on with the same keys and files; lost keys are not replaced in silence', async (t) => {
  const folder = temporaryFolder(t);
  const clock = turnedClock();
  const log = heardLog();
  const path = join(folder, 'registry.sqlite');
  const open = async (mayCreate: boolean) => {
    const store = await openRegistryStore(path);
    const keyring = await openKeyring({
      disk: openDisk(join(folder, 'keys')),
      mayCreate,
      region: 'test',
      hosts: ['localhost'],
      clock,
      entropy: countedEntropy(`start ${mayCreate}`),
      log,
    });
    return {
      store,
      keyring,
      repository: await openRepository({ store, keyring, region: 'test', clock, log }),
    };
  };
  const first = await open(true);
  const root = await first.repository.catalogueRoot();
  const timestamp = await first.repository.file('timestamp.json');
  const { certificatePem } = first.keyring.fleetCa;
  await first.store.close();
  assert.equal(log.events.filter(({ event }) => event === 'registry.keys.development').length, 1);

  const second = await open(false);
  assert.deepEqual(await second.repository.catalogueRoot(), root);
  assert.deepEqual(await second.repository.file('timestamp.json'), timestamp);
  assert.equal(second.keyring.fleetCa.certificatePem, certificatePem);
  await second.store.close();

  rmSync(join(folder, 'keys', 'director.pem'));
  await assert.rejects(open(false), (error) => error instanceof FleetError && error.code === 'state-corrupt');
});
