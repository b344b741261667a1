// Why: what the public TUF conformance suite demands of the client workflow, in its own words and on a
// repository of our own: refresh, keys, expiry, rollback. The suite itself runs from outside the project.
// Trusts: the simulator. Must never: assert prose; what counts is exit codes, files kept and requests made.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { scene } from './tuf-driver.ts';
import { dayMs, edited, encode, type KeyKind, newKey, type SimKey, sameKey } from './tuf-simulator.ts';

const first = [
  'metadata/2.root.json',
  'metadata/timestamp.json',
  'metadata/1.snapshot.json',
  'metadata/1.targets.json',
];
const unchanged = ['metadata/2.root.json', 'metadata/timestamp.json'];
const tops = ['root', 'timestamp', 'snapshot', 'targets'];

for (const asProcess of [false, true]) {
  describe(`refresh, ${asProcess ? 'as a process' : 'as a function'}`, () => {
    it('asks for exactly what it needs, and keeps it byte for byte', async (t) => {
      const { repository, client } = await scene(t, { asProcess });
      repository.replace('timestamp', (bytes) => Buffer.concat([bytes, Buffer.from(' \n')]));
      assert.equal(await client.refresh(), 0);
      assert.deepEqual(repository.requests, first);
      for (const role of tops) assert.deepEqual(client.bytes(`${role}.json`), repository.latest(role));
      repository.requests = [];
      assert.equal(await client.refresh(), 0);
      assert.deepEqual(repository.requests, unchanged);
    });

    it('is part of a download, also of one that finds nothing', async (t) => {
      const { repository, client } = await scene(t, { asProcess });
      assert.equal(await client.download('nonexistent artifact'), 1);
      assert.equal(client.code, 'target-unknown');
      assert.deepEqual(repository.requests, first);
      assert.deepEqual(client.trusted(), { root: 1, snapshot: 1, targets: 1, timestamp: 1 });
      repository.addTarget('targets', 'path/to/a/file.txt', 'content');
      repository.publishAll();
      assert.equal(await client.download('path/to/a/file.txt'), 0, client.code);
      assert.deepEqual(client.downloads(), ['content']);
    });

    it('makes no request where the initial root is not valid or not signed', async (t) => {
      const { repository, client } = await scene(t, { asProcess, bare: true });
      const plausible =
        '3045022100ee448afe2d25dd1f05afedac83a24e7df90f203615221434979153dc7cea6d4702207710015851e571885a77db8a6e42c4b2983a59b9e1ebec91178dfa2fb0d42ab8';
      for (const root of [
        edited(repository.latest('root'), ({ signed }) => delete signed['version']),
        edited(repository.latest('root'), ({ signatures }) => {
          for (const one of signatures) one.sig = plausible;
        }),
        Buffer.from('no root'),
      ]) {
        assert.equal(await client.init(root), 1);
        assert.equal(await client.refresh(), 1);
        assert.deepEqual(repository.requests, []);
      }
    });
  });
}

describe('metadata that does not hold', () => {
  const afterFailure: [string, Record<string, number>][] = [
    ['root', { root: 1 }],
    ['timestamp', { root: 2 }],
    ['snapshot', { root: 2, timestamp: 2 }],
    ['targets', { root: 2, snapshot: 2, timestamp: 2 }],
  ];
  for (const [role, trusted] of afterFailure) {
    it(`unsigned ${role}: what came before it is kept`, async (t) => {
      const { repository, client } = await scene(t);
      repository.signers.get(role)?.pop();
      repository.publish('root', 'targets', 'snapshot', 'timestamp');
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-signature-invalid');
      assert.deepEqual(client.trusted(), trusted);
    });
    if (role === 'timestamp') continue;
    it(`${role} of another version than its name: what came before it is kept`, async (t) => {
      const { repository, client } = await scene(t);
      repository.role(role).version += 1;
      const list = role === 'snapshot' ? repository.timestamp.meta : repository.snapshot.meta;
      repository.publish('root');
      if (role === 'root') repository.publishAll();
      else {
        repository.publish('targets');
        if (role === 'targets') list['targets.json'] = { version: 2 };
        repository.publish('snapshot');
        if (role === 'snapshot') list['snapshot.json'] = { version: 2 };
        repository.publish('timestamp');
      }
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-version-invalid');
      assert.deepEqual(client.trusted(), trusted);
    });
  }

  it('of another type, signed by the right keys', async (t) => {
    const { repository, client } = await scene(t);
    const [timestampKey] = repository.signers.get('timestamp') ?? [];
    assert.ok(timestampKey);
    repository.addKey('snapshot', timestampKey);
    repository.snapshot.meta = { 'snapshot.json': { version: 1 } };
    repository.publish('root', 'snapshot');
    repository.published.set('timestamp', [repository.latest('snapshot')]);
    assert.equal(await client.refresh(), 1);
    assert.equal(client.code, 'metadata-malformed');
    assert.deepEqual(client.trusted(), { root: 2 });
  });

  it('a timestamp changed without a new version: the one held is kept, and nothing more is asked for', async (t) => {
    const { repository, client } = await scene(t);
    assert.equal(await client.refresh(), 0);
    const held = client.bytes('timestamp.json');
    repository.timestamp.meta['snapshot.json'] = { version: 100 };
    repository.published.delete('timestamp');
    repository.publish('timestamp');
    repository.requests = [];
    assert.equal(await client.refresh(), 0);
    assert.deepEqual(repository.requests, unchanged);
    assert.deepEqual(client.bytes('timestamp.json'), held);
  });

  it('digests in listings count', async (t) => {
    const { repository, client } = await scene(t);
    repository.listsHashes = true;
    repository.publishAll();
    assert.equal(await client.refresh(), 0);
    repository.publish('targets');
    const listed = repository.snapshot.meta['targets.json'];
    assert.ok(listed?.hashes);
    listed.hashes['sha256'] = 'ab'.repeat(32);
    repository.publish('snapshot', 'timestamp');
    assert.equal(await client.refresh(), 1);
    assert.equal(client.code, 'metadata-digest-mismatch');
    assert.deepEqual(client.trusted(), { root: 1, snapshot: 3, targets: 2, timestamp: 3 });
  });

  it('new targets that no snapshot lists are not asked for', async (t) => {
    const { repository, client } = await scene(t);
    assert.equal(await client.refresh(), 0);
    repository.publish('targets');
    repository.requests = [];
    assert.equal(await client.refresh(), 0);
    assert.deepEqual(repository.requests, unchanged);
    assert.equal(client.version('targets'), 1);
  });

  for (const [role, trusted] of [
    ['timestamp', { root: 1, snapshot: 1, targets: 1, timestamp: 1 }],
    ['snapshot', { root: 1, snapshot: 1, targets: 1, timestamp: 2 }],
    ['targets', { root: 1, snapshot: 2, targets: 1, timestamp: 2 }],
  ] as const) {
    it(`${role} that is announced and not served`, async (t) => {
      const { repository, client } = await scene(t);
      assert.equal(await client.refresh(), 0);
      if (role === 'timestamp') repository.published.delete('timestamp');
      if (role === 'snapshot') {
        repository.timestamp.meta['snapshot.json'] = { version: 2 };
        repository.publish('timestamp');
      }
      if (role === 'targets') {
        repository.snapshot.meta['targets.json'] = { version: 2 };
        repository.publish('snapshot', 'timestamp');
      }
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-missing');
      const name = role === 'timestamp' ? 'timestamp.json' : `2.${role}.json`;
      assert.equal(repository.requests.at(-1), `metadata/${name}`);
      assert.deepEqual(client.trusted(), trusted);
    });
  }

  it('fields that nobody knows are signed too and disturb nobody', async (t) => {
    const { repository, client } = await scene(t);
    assert.equal(await client.refresh(), 0);
    Object.assign(repository.root, { 'custom-field': 'value' });
    Object.assign(repository.root.roles['root'] ?? {}, { 'another-field': 'välue' });
    repository.addKey('root', newKey('ecdsa', { 'extra-field': { a: 1, b: [2, null, true] } }));
    repository.rotate('snapshot');
    repository.addKey('snapshot', newKey('ecdsa', { keyid_hash_algorithms: 'md5' }));
    repository.publish('root', 'snapshot', 'timestamp');
    assert.equal(await client.refresh(), 0);
    assert.deepEqual(client.trusted(), { root: 2, snapshot: 2, targets: 1, timestamp: 2 });
  });
});

describe('keys', () => {
  it('a snapshot below its threshold of three', async (t) => {
    const { repository, client } = await scene(t);
    Object.assign(repository.root.roles['snapshot'] ?? {}, { threshold: 3 });
    repository.addKey('snapshot');
    repository.addKey('snapshot');
    repository.publish('root', 'targets', 'snapshot', 'timestamp');
    assert.equal(await client.refresh(), 0);
    repository.signers.get('snapshot')?.pop();
    repository.publishAll();
    assert.equal(await client.refresh(), 1);
    assert.equal(client.version('snapshot'), 2);
  });

  it('a threshold that its keys cannot meet: the root is taken, the snapshot is not, what was held stays', async (t) => {
    const { repository, client } = await scene(t);
    assert.equal(await client.refresh(), 0);
    for (let index = 0; index < 4; index += 1) repository.addKey('snapshot');
    Object.assign(repository.root.roles['snapshot'] ?? {}, { threshold: 6 });
    repository.publish('root', 'snapshot', 'timestamp');
    assert.equal(await client.refresh(), 1);
    assert.equal(client.version('root'), 2);
    assert.equal(client.version('snapshot'), 1);
    repository.root.roles['snapshot']?.keyids.push('an id without a key');
    repository.publish('root');
    assert.equal(await client.refresh(), 1);
    assert.equal(client.version('root'), 3);
  });

  it('one key many times, in the role and in the signatures', async (t) => {
    const { repository, client } = await scene(t);
    const key = newKey();
    for (let index = 0; index < 9; index += 1) {
      repository.root.keys[key.id] = key.wire;
      repository.root.roles['snapshot']?.keyids.push(key.id);
    }
    repository.signers.get('snapshot')?.push(key);
    Object.assign(repository.root.roles['snapshot'] ?? {}, { threshold: 6 });
    repository.publish('root', 'snapshot', 'timestamp');
    repository.replace('snapshot', (bytes) =>
      edited(bytes, ({ signatures }) => {
        const [one] = signatures.filter((signature) => signature.keyid === key.id);
        if (one) signatures.push(...Array.from({ length: 8 }, () => one));
      }),
    );
    assert.equal(await client.refresh(), 1);
    assert.equal(client.version('snapshot'), undefined);
  });

  for (const kind of ['ecdsa', 'rsa-pss', 'ed25519'] as const) {
    it(`one ${kind} key under many ids counts once`, async (t) => {
      const { repository, client } = await scene(t, { kind });
      const key = newKey(kind);
      for (let index = 0; index < 5; index += 1) repository.addKey('snapshot', sameKey(key, { index }));
      if (kind === 'rsa-pss') {
        // The other padding would be another scheme and still the same key.
        repository.root.keys['other'] = { ...key.wire, scheme: 'rsa-pkcs1v15-sha256' };
        repository.root.roles['snapshot']?.keyids.push('other');
      }
      Object.assign(repository.root.roles['snapshot'] ?? {}, { threshold: 3 });
      repository.publish('root', 'snapshot', 'timestamp');
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-signature-invalid');
      Object.assign(repository.root.roles['snapshot'] ?? {}, { threshold: 2 });
      repository.publish('root');
      assert.equal(await client.refresh(), 0, 'with the role’s first key they are two');
    });
  }

  it('a key id that signs twice, though the threshold is met', async (t) => {
    const { repository, client } = await scene(t);
    repository.replace('snapshot', (bytes) =>
      edited(bytes, ({ signatures }) => void signatures.push(...signatures)),
    );
    assert.equal(await client.refresh(), 1);
    assert.equal(client.code, 'metadata-malformed');
    assert.equal(client.version('snapshot'), undefined);
  });

  const kinds: KeyKind[] = ['rsa-pss', 'rsa-pkcs1', 'ecdsa', 'ecdsa-legacy', 'ecdsa-p384', 'ed25519'];
  for (const kind of kinds) {
    it(`${kind} is verified, and a plausible signature of that kind is not enough`, async (t) => {
      const { repository, client } = await scene(t);
      const key = repository.addKey('root', newKey(kind));
      Object.assign(repository.root.roles['root'] ?? {}, { threshold: 2 });
      repository.publish('root');
      assert.equal(await client.refresh(), 0, client.code);
      assert.equal(client.version('root'), 2);
      repository.publish('root');
      const other = newKey(kind).sign(Buffer.from('something else'));
      for (const sig of [other, other.slice(0, -2), '', 'zz']) {
        repository.replace('root', (bytes) =>
          edited(bytes, ({ signatures }) => {
            for (const one of signatures) if (one.keyid === key.id) one.sig = sig;
          }),
        );
        assert.equal(await client.refresh(), 1);
        assert.equal(client.code, 'metadata-signature-invalid');
        assert.equal(client.version('root'), 2);
      }
    });
  }

  it('keys that are none, or none of ours, count for nothing and harm nobody', async (t) => {
    const { repository, client } = await scene(t);
    const good = newKey('ecdsa');
    const odd: SimKey['wire'][] = [
      { ...good.wire, scheme: 'ecdsa-sha2-nistp384' },
      { ...good.wire, keyval: { public: 'no PEM' } },
      { ...good.wire, keytype: 'rsa' },
      { ...newKey('rsa-pss').wire, scheme: 'ecdsa-sha2-nistp256', keytype: 'ecdsa' },
      { ...newKey('ed25519').wire, keyval: { public: '00'.repeat(32) } },
      { ...good.wire, keytype: 'sphincs', scheme: 'sphincs-shake-128s' },
      JSON.parse('{"keytype":"sigstore-oidc","scheme":"Fulcio","keyval":{"identity":"x"}}') as SimKey['wire'],
    ];
    for (const [index, wire] of odd.entries()) {
      repository.root.keys[`odd-${index}`] = wire;
      repository.root.roles['timestamp']?.keyids.push(`odd-${index}`);
    }
    repository.publish('root');
    assert.equal(await client.refresh(), 0, client.code);
  });

  it('one good signature is enough for a threshold of one, beside a wrong or an empty one', async (t) => {
    const { repository, client } = await scene(t);
    const [old] = repository.signers.get('timestamp') ?? [];
    repository.addKey('timestamp');
    repository.publish('root', 'timestamp');
    for (const sig of [newKey().sign(Buffer.from('x')), '']) {
      repository.replace('timestamp', (bytes) =>
        edited(bytes, ({ signatures }) => {
          for (const one of signatures) if (one.keyid === old?.id) one.sig = sig;
        }),
      );
      assert.equal(await client.refresh(), 0);
      repository.publish('timestamp');
    }
  });
});

describe('expiry', () => {
  const past = Date.now() - dayMs;
  for (const [role, trusted] of [
    ['root', { root: 2, snapshot: 1, targets: 1, timestamp: 1 }],
    ['timestamp', { root: 1, snapshot: 1, targets: 1, timestamp: 1 }],
    ['snapshot', { root: 1, snapshot: 1, targets: 1, timestamp: 2 }],
    ['targets', { root: 1, snapshot: 2, targets: 1, timestamp: 2 }],
  ] as const) {
    it(`a new ${role} that has expired is ${role === 'root' ? 'kept, and nothing after it' : 'not kept'}`, async (t) => {
      const { repository, client } = await scene(t);
      assert.equal(await client.refresh(), 0);
      repository.expire(role, past);
      if (role === 'root') repository.publish('root');
      repository.publishAll();
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-expired');
      assert.deepEqual(client.trusted(), trusted);
    });
  }

  it('an expired file that is held still leads on to a newer one', async (t) => {
    const { repository, client } = await scene(t);
    repository.expire('timestamp', Date.now() + 7 * dayMs);
    repository.publish('timestamp');
    assert.equal(await client.refresh(), 0);
    const later = Date.now() + 18 * dayMs;
    assert.equal(await client.refresh(later), 1, 'and by itself it is no longer enough');
    repository.expire('timestamp', Date.now() + 21 * dayMs);
    repository.publishAll();
    assert.equal(await client.refresh(later), 0);
    assert.deepEqual(client.trusted(), { root: 1, snapshot: 2, targets: 2, timestamp: 3 });
  });
});

describe('rollback', () => {
  it('of a snapshot that nobody announces is not even noticed', async (t) => {
    const { repository, client } = await scene(t);
    repository.publish('snapshot', 'timestamp');
    assert.equal(await client.refresh(), 0);
    repository.published.get('snapshot')?.pop();
    repository.requests = [];
    assert.equal(await client.refresh(), 0);
    assert.deepEqual(repository.requests, unchanged);
    assert.equal(client.version('snapshot'), 2);
  });

  it('of the timestamp', async (t) => {
    const { repository, client } = await scene(t);
    repository.publish('timestamp');
    assert.equal(await client.refresh(), 0);
    repository.published.get('timestamp')?.pop();
    assert.equal(await client.refresh(), 1);
    assert.equal(client.code, 'metadata-rollback');
    assert.equal(client.version('timestamp'), 2);
  });

  for (const listsHashes of [false, true]) {
    const how = listsHashes ? 'with digests' : 'without digests';
    it(`of the snapshot, announced by a newer timestamp, ${how}`, async (t) => {
      const { repository, client } = await scene(t);
      repository.listsHashes = listsHashes;
      repository.publish('snapshot', 'timestamp');
      assert.equal(await client.refresh(), 0);
      repository.role('snapshot').version = 1;
      repository.published.set('snapshot', [
        encode(repository.role('snapshot'), repository.signers.get('snapshot') ?? []),
      ]);
      repository.timestamp.meta['snapshot.json'] = { version: 1 };
      repository.publish('timestamp');
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-rollback');
      assert.equal(repository.requests.at(-1), 'metadata/timestamp.json');
      assert.deepEqual(client.trusted(), { root: 1, snapshot: 2, targets: 1, timestamp: 2 });
    });

    it(`of targets, announced by a newer snapshot, ${how}`, async (t) => {
      const { repository, client } = await scene(t);
      repository.listsHashes = listsHashes;
      repository.publish('targets');
      repository.publishAll();
      assert.equal(await client.refresh(), 0);
      repository.snapshot.meta['targets.json'] = { version: 1 };
      repository.publish('snapshot', 'timestamp');
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-rollback');
      assert.equal(client.version('targets'), 3);
      assert.equal(client.version('snapshot'), 2);
    });
  }

  for (const roles of [['timestamp'], ['snapshot'], ['timestamp', 'snapshot']]) {
    it(`§5.3.11: new keys for ${roles.join(' and ')} free a client from a fast-forward attack`, async (t) => {
      const { repository, client } = await scene(t);
      for (const role of tops.slice(1)) {
        repository.role(role).version = 99;
        repository.published.set(
          role,
          Array.from({ length: 99 }, () => Buffer.alloc(0)),
        );
      }
      repository.publishAll();
      assert.equal(await client.refresh(), 0);
      assert.deepEqual(client.trusted(), { root: 1, snapshot: 100, targets: 100, timestamp: 100 });
      for (const role of tops.slice(1)) {
        repository.role(role).version = 1;
        repository.published.delete(role);
      }
      repository.publishAll();
      assert.equal(await client.refresh(), 1);
      assert.equal(client.code, 'metadata-rollback');
      for (const role of roles) repository.rotate(role);
      repository.publish('root', 'targets', 'snapshot', 'timestamp');
      assert.equal(await client.refresh(), 0, client.code);
      assert.deepEqual(client.trusted(), { root: 2, snapshot: 2, targets: 2, timestamp: 2 });
    });
  }
});
