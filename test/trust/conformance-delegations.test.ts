// Why: what the public TUF conformance suite demands of delegations, downloads, role names and key rotations,
// in its own words and on a repository of our own. Trusts: the simulator.
// Must never: assert prose; what counts is exit codes, files kept and requests made.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { type Scene, scene } from './tuf-driver.ts';
import { dayMs, encode, newKey, type TufSimulator } from './tuf-simulator.ts';

interface Delegation {
  from: string;
  to: string;
  terminating?: boolean;
  paths?: string[];
}

interface Graph {
  what: string;
  delegations: Delegation[];
  visited: string[];
}

const to = (from: string, role: string, more: Omit<Delegation, 'from' | 'to'> = {}): Delegation => ({
  from,
  to: role,
  ...more,
});

const graphs: Graph[] = [
  { what: 'one role', delegations: [to('targets', 'A')], visited: ['A'] },
  { what: 'two on one level', delegations: [to('targets', 'A'), to('targets', 'B')], visited: ['A', 'B'] },
  {
    what: 'two levels',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('B', 'C')],
    visited: ['A', 'B', 'C'],
  },
  {
    what: 'two levels, depth first',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('A', 'C'), to('A', 'D')],
    visited: ['A', 'C', 'D', 'B'],
  },
  {
    what: 'three levels, depth first',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('A', 'C'), to('C', 'D')],
    visited: ['A', 'C', 'D', 'B'],
  },
  {
    what: 'a terminating role ends everything but what is below it',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('A', 'C', { terminating: true }), to('A', 'D')],
    visited: ['A', 'C'],
  },
  {
    what: 'below a terminating role the search goes on',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('A', 'C', { terminating: true }), to('C', 'D')],
    visited: ['A', 'C', 'D'],
  },
  {
    what: 'what stands before a terminating role is visited first',
    delegations: [
      to('targets', 'A'),
      to('targets', 'B', { terminating: true }),
      to('targets', 'C'),
      to('A', 'D'),
    ],
    visited: ['A', 'D', 'B'],
  },
  {
    what: 'a terminating role for other paths ends nothing',
    delegations: [to('targets', 'A', { terminating: true, paths: ['*.py'] }), to('targets', 'B')],
    visited: ['B'],
  },
  {
    what: 'branches for other paths',
    delegations: [to('targets', 'A', { paths: ['*.py'] }), to('targets', 'B'), to('A', 'C')],
    visited: ['B'],
  },
  {
    what: 'branches for other paths, one level down',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('A', 'C', { paths: ['*.py'] }), to('C', 'D')],
    visited: ['A', 'B'],
  },
  {
    what: 'a cycle',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('B', 'C'), to('C', 'D'), to('D', 'B')],
    visited: ['A', 'B', 'C', 'D'],
  },
  {
    what: 'two ways to one role: the first counts',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('B', 'C'), to('A', 'C')],
    visited: ['A', 'C', 'B'],
  },
  {
    what: 'two ways to one role, the first for other paths',
    delegations: [to('targets', 'A'), to('targets', 'B'), to('B', 'C'), to('A', 'C', { paths: ['*.py'] })],
    visited: ['A', 'B', 'C'],
  },
];

function grow(repository: TufSimulator, delegations: readonly Delegation[]): void {
  for (const { from, to: name, terminating = false, paths = ['*'] } of delegations)
    repository.delegate(from, { name, terminating, paths, threshold: 1 });
  repository.publishAll(...new Set(delegations.map((one) => one.to)));
}

const asked = (roles: readonly string[]): string[] => roles.map((role) => `metadata/1.${role}.json`);

describe('the search for a target', () => {
  for (const { what, delegations, visited } of graphs) {
    it(`visits the right roles in the right order: ${what}`, async (t) => {
      const { repository, client } = await scene(t, { kind: 'ed25519' });
      grow(repository, delegations);
      assert.equal(await client.download('missingpath'), 1);
      assert.equal(client.code, 'target-unknown');
      assert.deepEqual(repository.requests.slice(4), asked(visited));
      repository.requests = [];
      assert.equal(await client.download('missingpath'), 1);
      assert.deepEqual(repository.requests.slice(2), [], 'what is held is not fetched again');
    });
  }

  const tree = [
    to('targets', 'A', { paths: ['*.doc', '*.md'] }),
    to('targets', 'B', { paths: ['releases/*/*'] }),
    to('B', 'C', { paths: ['releases/x/*'] }),
    to('B', 'D', { paths: ['releases/y/*.zip'] }),
  ];
  for (const [path, found, visited] of [
    ['targetfile', 'by targets', []],
    ['README.md', 'by A', ['A']],
    ['releases/x/x_v1', 'by C', ['B', 'C']],
    ['releases/y/y_v1.zip', 'by D', ['B', 'D']],
    ['releases/z/z_v1.zip', null, ['B']],
  ] as const) {
    it(`finds ${path} where every role of the chain may speak for it`, async (t) => {
      const { repository, client } = await scene(t, { kind: 'ed25519' });
      for (const { from, to: name, paths = [] } of tree)
        repository.delegate(from, { name, terminating: false, paths, threshold: 1 });
      repository.addTarget('targets', 'targetfile', 'by targets');
      repository.addTarget('A', 'README.md', 'by A');
      repository.addTarget('C', 'releases/x/x_v1', 'by C');
      repository.addTarget('D', 'releases/y/y_v1.zip', 'by D');
      repository.addTarget('D', 'releases/z/z_v1.zip', 'z by D');
      repository.publishAll('A', 'B', 'C', 'D');
      assert.equal(await client.download(path), found === null ? 1 : 0);
      assert.deepEqual(client.downloads(), found === null ? [] : [found]);
      assert.deepEqual(
        repository.requests.slice(4).filter((one) => one.startsWith('metadata')),
        asked(visited),
      );
    });
  }

  it('reads hash prefixes', async (t) => {
    const { repository, client } = await scene(t);
    // SHA-256 of `bin/file` begins with its own first digits and with nobody else's.
    const prefixes = [...'0123456789abcdef'];
    for (const [index, prefix] of prefixes.entries())
      repository.delegate('targets', {
        name: `bin-${index}`,
        terminating: true,
        path_hash_prefixes: [prefix],
        threshold: 1,
      });
    for (const index of prefixes.keys()) repository.addTarget(`bin-${index}`, 'bin/file', `in bin ${index}`);
    // `echo -n bin/file | sha256sum` begins with 4.
    repository.addTarget('bin-4', 'bin/file', 'in bin 4');
    repository.publishAll(...prefixes.map((_, index) => `bin-${index}`));
    assert.equal(await client.download('bin/file'), 0);
    assert.deepEqual(client.downloads(), ['in bin 4']);
    assert.equal(repository.requests.filter((one) => one.includes('bin-')).length, 1);
  });

  it('in a diamond believes a role by the keys of the way taken, also when it is held from the other', async (t) => {
    const { repository, client } = await scene(t);
    for (const name of ['A', 'B'])
      repository.delegate('targets', {
        name,
        terminating: false,
        paths: [`${name.toLowerCase()}/*`],
        threshold: 1,
      });
    repository.delegate('A', { name: 'C', terminating: false, paths: ['*/*'], threshold: 1 });
    const bOnly = repository.delegate('B', { name: 'C', terminating: false, paths: ['*/*'], threshold: 1 });
    repository.signers.set('C', [bOnly]);
    repository.addTarget('C', 'a/file', 'through A');
    repository.addTarget('C', 'b/file', 'through B');
    repository.publishAll('A', 'B', 'C');
    assert.equal(await client.download('b/file'), 0, 'B knows this signer');
    assert.equal(await client.download('a/file'), 1, 'A never authorised it');
    assert.equal(client.code, 'metadata-signature-invalid');
    assert.equal(await client.download(['b/file', 'a/file']), 1);
    assert.deepEqual(client.downloads(), ['through B']);
  });

  it('ends at a role that cannot be verified: nobody behind it may answer', async (t) => {
    const { repository, client } = await scene(t);
    grow(repository, [to('targets', 'A'), to('targets', 'B')]);
    repository.addTarget('B', 'file', 'by B');
    repository.signers.set('A', [newKey()]);
    repository.publishAll('A', 'B');
    assert.equal(await client.download('file'), 1);
    assert.equal(client.code, 'metadata-signature-invalid');
    assert.equal(client.version('A'), undefined);
    delete repository.snapshot.meta['A.json'];
    repository.publish('snapshot', 'timestamp');
    assert.equal(await client.download('file'), 1, 'nor behind one that the snapshot does not list');
    assert.equal(client.code, 'metadata-rollback');
  });

  it('ends after a bounded number of roles', async (t) => {
    const { repository, client } = await scene(t, { kind: 'ed25519' });
    const key = newKey('ed25519');
    const names = Array.from({ length: 200 }, (_, index) => `role-${index}`);
    for (const name of names)
      repository.delegate('targets', { name, terminating: false, paths: ['*'], threshold: 1 }, key);
    repository.publishAll(...names);
    assert.equal(await client.download('missingpath'), 1);
    assert.equal(client.code, 'metadata-too-large');
    assert.equal(repository.requests.length, 4 + 64);
  });
});

describe('role names', () => {
  const names: [string, string][] = [
    ['?', '%3F'],
    ['#', '%23'],
    ['/delegatedrole', '%2Fdelegatedrole'],
    ['../delegatedrole', '..%2Fdelegatedrole'],
    ['..', '..'],
    ['.', '.'],
    ["a!b'c(d)e*f", 'a%21b%27c%28d%29e%2Af'],
    ['50% & more+', '50%25%20%26%20more%2B'],
    ['ünï', '%C3%BCn%C3%AF'],
    ['__proto__', '__proto__'],
    ['constructor', 'constructor'],
    ['a.b.json', 'a.b.json'],
    ['timestamp.json', 'timestamp.json'],
    ['ROOT', 'ROOT'],
    ['long'.repeat(30), 'long'.repeat(30)],
    ['ß'.repeat(128), '%C3%9F'.repeat(128)],
  ];
  for (const [role, quoted] of names) {
    it(`are quoted: ${role.slice(0, 20)}`, async (t) => {
      for (const consistent of [true, false]) {
        const { repository, client } = await scene(t);
        repository.root.consistent_snapshot = consistent;
        repository.delegate('targets', { name: role, terminating: false, paths: ['*'], threshold: 1 });
        repository.addTarget(role, 'file', `of ${role}`);
        repository.publish('root');
        repository.publishAll(role);
        assert.equal(await client.download('nonexistent target'), 1);
        assert.equal(client.code, 'target-unknown');
        assert.equal(repository.requests.at(-1), `metadata/${consistent ? '1.' : ''}${quoted}.json`);
        assert.equal(Object.keys(client.trusted()).length, 5);
        assert.equal(await client.download('file'), 0);
        assert.deepEqual(client.downloads(), [`of ${role}`]);
        assert.equal(readdirSync(client.folder).length, 3, 'nothing was made beside the folders');
      }
    });
  }

  for (const role of ['root', 'timestamp', 'snapshot', 'targets']) {
    it(`may not be ${role}`, async (t) => {
      const { repository, client } = await scene(t);
      assert.equal(await client.refresh(), 0);
      const key = newKey();
      repository.targetsOf('targets').delegations = {
        keys: { [key.id]: key.wire },
        roles: [{ name: role, keyids: [key.id], threshold: 1, terminating: false, paths: ['*'] }],
      };
      repository.publishAll();
      assert.equal(await client.download('file'), 1);
      assert.equal(client.code, 'metadata-malformed');
      assert.equal(client.version('targets'), 1);
    });
  }
});

describe('the expiry of delegated roles', () => {
  async function delegated(parts: Scene, expiresAtMs: number): Promise<void> {
    const { repository } = parts;
    repository.delegate('targets', {
      name: 'delegated',
      terminating: false,
      paths: ['path/*'],
      threshold: 1,
    });
    repository.expire('delegated', expiresAtMs);
    repository.addTarget('delegated', 'path/first', 'first');
    repository.addTarget('delegated', 'path/second', 'second');
    repository.publishAll('delegated');
  }

  it('a new one that has expired is neither used nor kept', async (t) => {
    const parts = await scene(t);
    await delegated(parts, Date.now() - dayMs);
    assert.equal(await parts.client.refresh(), 0);
    assert.equal(await parts.client.download('path/first'), 1);
    assert.equal(parts.client.code, 'metadata-expired');
    assert.deepEqual(parts.client.downloads(), []);
    assert.deepEqual(parts.client.trusted(), { root: 1, snapshot: 2, targets: 2, timestamp: 2 });
  });

  it('one that is held is used until it expires, and again when there is a newer one', async (t) => {
    const parts = await scene(t);
    const { repository, client } = parts;
    await delegated(parts, Date.now() + 7 * dayMs);
    assert.equal(await client.download('path/first'), 0);
    const later = Date.now() + 18 * dayMs;
    assert.equal(await client.download('path/second', later), 1);
    assert.equal(client.code, 'metadata-expired');
    assert.deepEqual(client.downloads(), ['first']);
    repository.expire('delegated', Date.now() + 21 * dayMs);
    repository.publish('delegated', 'snapshot', 'timestamp');
    assert.equal(await client.download('path/second', later), 0);
    assert.deepEqual(client.downloads().sort(), ['first', 'second']);
  });
});

describe('rotations of the root', () => {
  interface Version {
    keys: number[];
    threshold: number;
    signed: number[];
  }
  const v = (keys: number[], threshold: number, signed: number[]): Version => ({ keys, threshold, signed });
  const five = [0, 1, 2, 3, 4];
  const cases: [string, Version[], boolean][] = [
    ['1 of 1', [v([1], 1, [1]), v([2], 1, [2, 1]), v([2], 1, [2])], true],
    [
      '1 of 1 with signatures of strangers',
      [v([1], 1, [3, 1, 4]), v([2], 1, [3, 2, 1, 4]), v([2], 1, [3, 2, 4])],
      true,
    ],
    [
      '3 of 5 in several combinations',
      [v(five, 3, [0, 2, 4]), v(five, 3, [0, 4, 1]), v(five, 3, [0, 1, 3])],
      true,
    ],
    ['3 of 5, one key changed', [v(five, 3, [0, 2, 4]), v([0, 1, 3, 4, 5], 3, [0, 4, 1])], true],
    [
      '3 of 5, one key changed, with a step between',
      [v(five, 3, [0, 2, 4]), v([0, 1, 3, 4, 5], 3, [0, 2, 4, 5]), v([0, 1, 3, 4, 5], 3, [0, 4, 5])],
      true,
    ],
    [
      '3 of 5, all keys changed',
      [v(five, 3, [0, 2, 4]), v([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]), v([5, 6, 7, 8, 9], 3, [5, 6, 7])],
      true,
    ],
    ['threshold raised', [v([1, 2, 3], 1, [1]), v([1, 2, 3], 2, [1, 2])], true],
    ['threshold lowered', [v([1, 2, 3], 2, [1, 2]), v([1, 2, 3], 1, [1, 2]), v([1, 2, 3], 1, [1])], true],
    ['threshold raised with a key more', [v([1], 1, [1]), v([1, 2], 2, [1, 2])], true],
    ['not signed by the old key', [v([1], 1, [1]), v([2], 1, [2, 3, 4])], false],
    ['not signed by the new key', [v([1], 1, [1]), v([2], 1, [1, 3, 4])], false],
    ['not by three new keys', [v(five, 3, [0, 2, 4]), v([0, 1, 3, 4, 5], 3, [0, 2, 4])], false],
    ['not by three old keys', [v(five, 3, [0, 2, 4]), v([0, 1, 3, 4, 5], 3, [0, 4, 5])], false],
    ['new threshold not reached', [v([1, 2, 3], 1, [1]), v([1, 2, 3], 2, [2])], false],
    ['old threshold not reached', [v([1, 2, 3], 2, [1, 2]), v([1, 2, 3], 1, [1])], false],
  ];
  const keys = Array.from({ length: 10 }, () => newKey('ed25519'));
  const pick = (indexes: readonly number[]) => indexes.flatMap((index) => keys[index] ?? []);

  for (const [what, versions, succeeds] of cases) {
    it(`${succeeds ? 'are followed' : 'are refused'}: ${what}`, async (t) => {
      const { repository, client } = await scene(t, { kind: 'ed25519', bare: true });
      repository.published.delete('root');
      for (const version of versions) {
        for (const key of pick(version.keys)) repository.root.keys[key.id] = key.wire;
        repository.root.roles['root'] = {
          keyids: pick(version.keys).map((key) => key.id),
          threshold: version.threshold,
        };
        repository.signers.set('root', pick(version.signed));
        repository.publish('root');
      }
      const roots = repository.published.get('root') ?? [];
      assert.equal(await client.init(roots[0] ?? new Uint8Array()), 0);
      assert.equal(await client.refresh(), succeeds ? 0 : 1);
      assert.deepEqual(client.bytes('root.json'), roots.at(succeeds ? -1 : -2));
    });
  }

  const others: [string, Version, boolean][] = [
    ['1 of 1', v([2], 1, [2]), true],
    ['1 of 1 with signatures of strangers', v([1], 1, [3, 1, 4]), true],
    ['not signed by the new key', v([2], 1, [1, 3, 4]), false],
    ['two of three by the wrong key', v([0, 1, 3, 4, 5], 3, [0, 2, 4]), false],
    ['threshold not reached', v([0, 1, 3, 4, 5], 3, [0, 4]), false],
    ...[
      [0, 2, 4],
      [0, 4, 1],
      [0, 1, 3],
      [1, 2, 3],
      [2, 3, 4],
    ].map((signed): [string, Version, boolean] => [`3 of 5, ${signed.join()}`, v(five, 3, signed), true]),
  ];
  for (const [what, version, succeeds] of others) {
    it(`of the other roles ${succeeds ? 'are followed' : 'are refused'}: ${what}`, async (t) => {
      const { repository, client } = await scene(t, { kind: 'ed25519' });
      for (const role of ['timestamp', 'snapshot', 'targets']) {
        for (const key of pick(version.keys)) repository.root.keys[key.id] = key.wire;
        repository.root.roles[role] = {
          keyids: pick(version.keys).map((key) => key.id),
          threshold: version.threshold,
        };
        repository.signers.set(role, pick(version.signed));
        repository.publish('root');
        // The same versions, signed anew.
        for (const name of ['targets', 'snapshot', 'timestamp'])
          repository.replace(name, () => encode(repository.role(name), repository.signers.get(name) ?? []));
        assert.equal(await client.refresh(), succeeds ? 0 : 1);
        if (succeeds) assert.deepEqual(client.bytes(`${role}.json`), repository.latest(role));
      }
    });
  }
});
