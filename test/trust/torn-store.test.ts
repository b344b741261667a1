// Why: a disk may lose or cut any file. Then the device fetches it again, starts, and is never moved back below
// what it had seen. Trusts: the fixture's repository. Must never: tear a file that was not whole before.

import assert from 'node:assert/strict';
import { unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  loadTrust,
  pinRoots,
  saveCatalogue,
  saveRoot,
  trustMigrations,
} from '../../agent/trust/trust-store.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import type { Store } from '../../shared/kernel/ports.ts';
import { findRelease, type TrustState, verifyStoredCatalogue } from '../../shared/trust/tuf/client.ts';
import { codeOf, Device, Repository, signerNamed } from './catalogue-fixture.ts';
import { regionRoot } from './region-fixture.ts';
import { scene } from './tuf-driver.ts';

const detector = { namespace: 'acme', name: 'detector', version: '1.0.0' };

/** A device that has seen several versions, and the repository as it was before the last of them. */
async function grown(): Promise<{ repository: Repository; device: Device; past: Map<string, Uint8Array> }> {
  const repository = new Repository();
  repository.publishTargets();
  repository.release('acme/detector/1.1.0', 2);
  const device = new Device(repository.firstRoot);
  assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
  const past = new Map(repository.files);
  repository.publishTargets();
  repository.release('acme/detector/1.2.0', 3);
  repository.release('beta/voice/1.1.0', 2);
  assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
  return { repository, device, past };
}

/** Several lengths of it, and nothing at all. */
function tears(bytes: Uint8Array): (Uint8Array | null)[] {
  const lengths = [0, 1, 64, Math.floor(bytes.length / 2), bytes.length - 1];
  const zeros = new Uint8Array(bytes.length);
  return [null, zeros, ...lengths.map((length) => bytes.subarray(0, length))];
}

type FileName = 'timestamp' | 'snapshot' | 'targets' | 'acme';

function fileOf(state: TrustState, name: FileName): Uint8Array {
  const bytes = name === 'acme' ? state.delegated['acme'] : state[name];
  assert.ok(bytes);
  return bytes;
}

function withFile(state: TrustState, name: FileName, bytes: Uint8Array | null): TrustState {
  if (name !== 'acme') return { ...state, [name]: bytes };
  const { acme: _torn, ...others } = state.delegated;
  return { ...state, delegated: bytes === null ? others : { ...others, acme: bytes } };
}

const sets: FileName[][] = [
  ['timestamp'],
  ['snapshot'],
  ['targets'],
  ['acme'],
  ['timestamp', 'snapshot'],
  ['timestamp', 'snapshot', 'targets', 'acme'],
];

describe('a state with torn files', () => {
  for (const names of sets) {
    it(`heals ${names.join(', ')} and is never moved back`, async () => {
      const { repository, device, past } = await grown();
      const whole = device.state;
      for (const index of tears(fileOf(whole, 'timestamp')).keys()) {
        const torn = names.reduce(
          (state, name) => withFile(state, name, tears(fileOf(whole, name))[index] ?? null),
          whole,
        );
        // An attacker who kept the past serves all of it, whole and signed.
        device.state = torn;
        assert.equal(codeOf(await device.refresh(past)), 'metadata-rollback', `tear ${index}`);
        assert.equal(device.state, torn);
        // With the newest timestamp, but an older snapshot under the name of the new one.
        device.state = torn;
        const version = repository.versions.get('snapshot');
        const mixed = new Map([
          ...repository.files,
          [`${version}.snapshot.json`, past.get('2.snapshot.json')],
        ]);
        const refreshed = await device.refresh(mixed as Map<string, Uint8Array>);
        assert.ok(!refreshed.ok || names.every((name) => name !== 'snapshot'));

        device.state = torn;
        assert.equal(codeOf(await device.refresh(repository.files)), 'ok', `tear ${index}`);
        assert.deepEqual(device.state, { ...whole, refused: {} });
        assert.equal(codeOf(verifyStoredCatalogue(device.state)), 'ok');
        assert.equal(codeOf(findRelease(device.state, { ...detector, version: '1.2.0' })), 'ok');
      }
    });
  }

  it('§5.3.11 new online keys free the numbers, whether or not the files are whole', async () => {
    for (const names of sets) {
      const { repository, device } = await grown();
      device.state = names.reduce((state, name) => withFile(state, name, null), device.state);
      repository.versions.set('timestamp', 1);
      repository.versions.set('snapshot', 1);
      repository.publishSnapshot();
      assert.equal(codeOf(await device.refresh(repository.files)), 'metadata-rollback');
      repository.timestampSigner = signerNamed('a new timestamp key');
      repository.publishRoot();
      repository.publishSnapshot();
      assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
      assert.equal(device.state.numbers?.timestamp, 3);
      assert.equal(device.state.numbers?.root, 2);
    }
  });

  it('other new keys do not', async () => {
    const { repository, device, past } = await grown();
    device.state = { ...device.state, timestamp: null, snapshot: null };
    repository.targetsSigner = signerNamed('a new targets key');
    const root = repository.publishRoot();
    const rolledBack = new Map([...past, ['2.root.json', root]]);
    assert.equal(codeOf(await device.refresh(rolledBack)), 'metadata-rollback');
  });

  it('does not answer from a stored file that is older than what was stored', async () => {
    const { repository, device, past } = await grown();
    const old = new Device(repository.firstRoot);
    assert.equal(codeOf(await old.refresh(past)), 'ok');
    assert.ok(device.state.numbers);
    const swapped = { ...old.state, numbers: device.state.numbers };
    assert.equal(codeOf(verifyStoredCatalogue(swapped)), 'metadata-rollback');
    assert.equal(codeOf(verifyStoredCatalogue(old.state)), 'ok');
  });

  it('binds by its files where it has no numbers yet, and has them after one refresh', async () => {
    const { repository, device, past } = await grown();
    const { numbers: _none, ...before } = device.state;
    device.state = before;
    assert.equal(codeOf(await device.refresh(past)), 'metadata-rollback');
    device.state = { ...before, timestamp: null };
    assert.equal(codeOf(await device.refresh(past)), 'metadata-rollback', 'the snapshot still binds');
    device.state = before;
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    assert.ok(device.state.numbers);
  });
});

async function enrolled(repository: Repository): Promise<Store> {
  const store = await openStore(':memory:', { synchronous: 'FULL', migrations: trustMigrations });
  await store.tx((db) => pinRoots(db, { catalogue: repository.firstRoot, region: regionRoot() }));
  return store;
}

/** One refresh as the agent does it: state from the store, roots at once, the rest in one transaction. */
async function refresh(store: Store, files: ReadonlyMap<string, Uint8Array>): Promise<string> {
  const held = await loadTrust(store);
  assert.ok(held);
  const device = new Device(held.catalogue.root);
  device.state = held.catalogue;
  const result = await device.refresh(files);
  for (const root of device.savedRoots) await saveRoot(store, root);
  if (result.ok) await saveCatalogue(store, result.value);
  return codeOf(result);
}

function tear(store: Store, sql: string): Promise<void> {
  return store.tx((db) => {
    assert.ok(db.run(sql).changes > 0, sql);
  });
}

describe('a store with torn rows', () => {
  const rows = ['timestamp', 'snapshot', 'targets', 'delegated/acme', 'root'];
  for (const name of rows) {
    for (const how of ["bytes = x''", 'bytes = substr(bytes, 1, 99)', 'bytes = substr(bytes, 2)', null]) {
      it(`${name}: ${how ?? 'deleted'}`, async () => {
        const repository = new Repository();
        const store = await enrolled(repository);
        const past = new Map(repository.files);
        assert.equal(await refresh(store, repository.files), 'ok');
        repository.release('acme/detector/1.1.0', 2);
        assert.equal(await refresh(store, repository.files), 'ok');
        const whole = await loadTrust(store);
        const where = `WHERE name = '${name}'`;
        await tear(
          store,
          how === null ? `DELETE FROM trust_files ${where}` : `UPDATE trust_files SET ${how} ${where}`,
        );
        assert.equal(await refresh(store, past), 'metadata-rollback');
        assert.equal(await refresh(store, repository.files), 'ok');
        assert.deepEqual(await loadTrust(store), whole);
        await store.close();
      });
    }
  }

  it('starts from an older root, walks to the newest, and keeps its numbers on the way', async () => {
    const repository = new Repository();
    const store = await enrolled(repository);
    repository.timestampSigner = signerNamed('timestamp of root 2');
    repository.publishRoot();
    repository.publishSnapshot();
    const underRoot2 = new Map(repository.files);
    assert.equal(await refresh(store, repository.files), 'ok');
    repository.snapshotSigner = signerNamed('snapshot of root 3');
    repository.publishRoot();
    repository.publishSnapshot();
    assert.equal(await refresh(store, repository.files), 'ok');
    const whole = await loadTrust(store);

    await tear(store, "UPDATE trust_files SET bytes = substr(bytes, 1, 200) WHERE name = 'root'");
    await tear(
      store,
      'UPDATE trust_roots SET bytes = substr(bytes, 1, 200) WHERE id >= (SELECT max(id) FROM trust_roots)',
    );
    const fallen = await loadTrust(store);
    assert.deepEqual(fallen?.catalogue.root, repository.files.get('2.root.json'));
    // Whoever holds keys that root 3 rotated out serves the world as it was before it.
    assert.equal(await refresh(store, underRoot2), 'metadata-rollback');
    const rolledBack = new Map(repository.files);
    repository.versions.set('timestamp', 0);
    repository.publishTimestamp();
    const timestamp = repository.files.get('timestamp.json');
    assert.ok(timestamp);
    rolledBack.set('timestamp.json', timestamp);
    assert.equal(await refresh(store, rolledBack), 'metadata-rollback', 'rotations seen before free nothing');
    repository.versions.set('timestamp', 9);
    repository.publishTimestamp();
    assert.equal(await refresh(store, repository.files), 'ok');
    assert.deepEqual((await loadTrust(store))?.catalogue.root, whole?.catalogue.root);
    await store.close();
  });

  it('starts from a second copy of the region root, and from no older one', async () => {
    const repository = new Repository();
    const store = await enrolled(repository);
    await tear(store, "UPDATE trust_files SET bytes = x'00' WHERE name = 'region-root'");
    assert.deepEqual((await loadTrust(store))?.regionRoot, regionRoot());
    assert.deepEqual(
      await store.tx((db) => db.all("SELECT count(*) AS n FROM trust_roots WHERE kind = 'region'")),
      [{ n: 1 }],
    );
    await store.close();
  });

  it('is not reset by enrolling again with a root that it has left behind', async () => {
    const repository = new Repository();
    const store = await enrolled(repository);
    repository.publishRoot();
    repository.publishSnapshot();
    assert.equal(await refresh(store, repository.files), 'ok');
    const before = await loadTrust(store);
    await store.tx((db) => pinRoots(db, { catalogue: repository.firstRoot, region: regionRoot() }));
    assert.deepEqual(await loadTrust(store), before);
    const other = new Repository();
    other.rootSigners = ['x', 'y', 'z'].map(signerNamed);
    const otherRoot = other.publishRoot();
    await store.tx((db) => pinRoots(db, { catalogue: otherRoot, region: regionRoot() }));
    const anew = (await loadTrust(store))?.catalogue;
    assert.deepEqual(anew, {
      root: otherRoot,
      timestamp: null,
      snapshot: null,
      targets: null,
      delegated: {},
    });
    await store.close();
  });

  it('of the first version gets its roots and no numbers by the migration', async () => {
    const repository = new Repository();
    const store = await openStore(':memory:', {
      synchronous: 'FULL',
      migrations: trustMigrations.slice(0, 1),
    });
    const region = regionRoot();
    await store.tx((db) => {
      for (const [name, bytes] of [
        ['root', repository.firstRoot],
        ['region-root', region],
      ] as const)
        db.run('INSERT INTO trust_files (name, bytes) VALUES (?, ?)', name, bytes);
    });
    const unmigrated = await loadTrust(store);
    assert.deepEqual(
      unmigrated?.catalogue.root,
      new Uint8Array(repository.firstRoot),
      'status reads it as it is',
    );
    await store.tx((db) => {
      for (const statement of (trustMigrations[1]?.sql ?? '').split(/;\n/).filter((one) => /\w/.test(one)))
        db.run(statement);
    });
    const held = await loadTrust(store);
    assert.equal(held?.catalogue.numbers, undefined);
    await tear(store, "UPDATE trust_files SET bytes = x''");
    const torn = await loadTrust(store);
    assert.deepEqual(torn?.catalogue.root, new Uint8Array(repository.firstRoot));
    assert.deepEqual(torn?.regionRoot, region);
    assert.equal(await refresh(store, repository.files), 'ok');
    assert.ok((await loadTrust(store))?.catalogue.numbers);
    await store.close();
  });
});

describe('the folder of lepton-agent tuf with torn files', () => {
  for (const name of [
    'root.json',
    'timestamp.json',
    'snapshot.json',
    'targets.json',
    'role.json',
    'version-floors',
    'pinned-root',
  ]) {
    it(name, async (t) => {
      const { repository, client } = await scene(t, { kind: 'ed25519' });
      repository.delegate('targets', { name: 'role', terminating: false, paths: ['*'], threshold: 1 });
      repository.addTarget('role', 'file', 'content');
      repository.publish('root');
      repository.publishAll('role');
      assert.equal(await client.download('file'), 0);
      const past = new Map(repository.published);
      repository.publish('root');
      repository.publishAll('role');
      assert.equal(await client.download('file'), 0);
      const now = new Map(repository.published);
      const serve = (files: Map<string, Buffer[]>): void => {
        for (const [role, versions] of files) repository.published.set(role, versions);
      };
      const whole = client.trusted();
      const path = join(client.metadata, name);
      const bytes = client.bytes(name);
      for (const torn of tears(bytes)) {
        if (torn === null) unlinkSync(path);
        else writeFileSync(path, torn);
        serve(past);
        assert.equal(await client.refresh(), 1);
        assert.equal(client.code, 'metadata-rollback');
        serve(now);
        assert.equal(await client.download('file'), 0, client.code);
        assert.deepEqual(client.trusted(), whole);
        writeFileSync(path, bytes);
      }
    });
  }

  it('init again changes nothing, or mends the root; another root starts anew', async (t) => {
    const { repository, client } = await scene(t);
    const first = repository.latest('root');
    repository.publish('root');
    assert.equal(await client.refresh(), 0);
    assert.equal(await client.init(first), 0);
    assert.deepEqual(client.trusted(), { root: 2, snapshot: 1, targets: 1, timestamp: 1 });
    writeFileSync(join(client.metadata, 'root.json'), '{}');
    assert.equal(await client.init(first), 0);
    assert.deepEqual(client.trusted(), { root: 1, snapshot: 1, targets: 1, timestamp: 1 });
    assert.equal(await client.init(repository.latest('root')), 0);
    assert.deepEqual(client.trusted(), { root: 2 });
    assert.equal(await client.refresh(), 0);
  });
});
