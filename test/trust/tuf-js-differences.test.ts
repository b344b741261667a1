// Why: two clients that share no code give the same verdict on the same repositories, whatever was done to them;
// where they are known to differ, the difference has a name and a reason, and is shown to be there still.
// Trusts: the simulator; fast-check's seeds, which it prints. Must never: use the network.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { openPolicy } from '../../agent/cli/tuf/open-policy.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { ListedTargets } from '../../shared/trust/tuf/format.ts';
import { acceptTargets } from '../../shared/trust/tuf/trusted-set.ts';
import { fetchListed, type HeldFiles, updateTopLevel } from '../../shared/trust/tuf/update.ts';
import { findTarget } from '../../shared/trust/tuf/walk.ts';
import { digestOf, type FileSource, TufJsClient } from './tuf-js-client.ts';
import {
  dayMs,
  digest,
  edited,
  encode,
  newKey,
  type SimKey,
  sameKey,
  TufSimulator,
} from './tuf-simulator.ts';

/** Our core with a store in memory that keeps each file as soon as it is trusted. */
class OurClient {
  held: HeldFiles;
  readonly delegated = new Map<string, Uint8Array>();

  constructor(root: Uint8Array) {
    this.held = { root, timestamp: null, snapshot: null, targets: null, floors: null };
  }

  async find(source: FileSource, path: string): Promise<Result<string>> {
    const fetcher = {
      fetch: async (name: string) => {
        const bytes = source(name);
        return bytes === null ? refuse('metadata-missing', name) : ok(new Uint8Array(bytes));
      },
    };
    const nowMs = Date.now();
    const updated = await updateTopLevel({
      policy: openPolicy,
      held: this.held,
      fetcher,
      nowMs,
      saveRoot: async (root) => {
        this.held = { ...this.held, root };
      },
      save: async (name, bytes, floors) => {
        this.held = { ...this.held, [name]: bytes, floors };
      },
    });
    if (!updated.ok) return updated;
    const { root, snapshot, targets } = updated.value;
    const found = await findTarget({
      path,
      topTargets: targets,
      targetIn: (file: ListedTargets, one) => file.targets.get(one),
      load: async (role) => {
        const meta = snapshot.files.get(`${role.name}.json`);
        if (meta === undefined) return refuse('metadata-missing', role.name);
        const file = { name: role.name, meta, bytesMax: 1_000_000 };
        const held = this.delegated.get(role.name) ?? null;
        const loaded = await fetchListed({ fetcher, nowMs }, root, file, held, (bytes) =>
          acceptTargets(openPolicy, snapshot, role.name, role, bytes),
        );
        if (loaded.ok) this.delegated.set(role.name, loaded.value.bytes);
        return loaded;
      },
    });
    return found.ok ? ok(found.value.target.sha256 ?? '') : found;
  }

  /** In the words of tuf-js: a digest, null where nobody names the target, else refused. */
  async ask(source: FileSource, path: string): Promise<string | null | 'refused'> {
    const found = await this.find(source, path);
    if (found.ok) return found.value;
    return found.refusal.code === 'target-unknown' ? null : 'refused';
  }
}

const verdict = (answer: string | null | Error): string | null =>
  answer instanceof Error ? 'refused' : answer;

const keys = Array.from({ length: 8 }, (_, index) => newKey(index < 6 ? 'ed25519' : 'ecdsa'));
const key = (index: number): SimKey => keys[index % keys.length] ?? newKey();
const names = ['a', 'b', 'c', 'd'];
const paths = ['x', 'y.zip', 'r/x', 'r/y.zip', 'r/s/x'];
const patterns = ['*', '*.zip', 'r/*', 'r/?', 'r/*/*', 'x', 'nothing'];

interface Step {
  kind: string;
  role: string;
  n: number;
}

/** What a repository, or who broke into it, may do. */
const kinds = [
  'publish',
  'delegate',
  'diamond',
  'add target',
  'move target',
  'sign with another key',
  'sign with nothing',
  'wrong version',
  'old timestamp',
  'old snapshot',
  'old targets',
  'expire',
  'lose file',
  'cut file',
  'flip byte',
  'wrong type',
  'sign twice',
  'rotate online key',
  'rotate targets key',
  'new root',
  'root by new keys',
  'root by old keys',
  'skip root',
  'threshold two',
  'drop from snapshot',
  'hashes',
  'wrong hash',
  'same version',
] as const;

const delegatedRoles = (simulator: TufSimulator): string[] =>
  [...simulator.roles.keys()].filter((name) => names.includes(name));

function apply(simulator: TufSimulator, { kind, role, n }: Step): void {
  const delegated = delegatedRoles(simulator);
  const target = delegated.includes(role) ? role : 'targets';
  const anyRole = ['timestamp', 'snapshot', target][n % 3] ?? 'timestamp';
  const all = (): void => simulator.publishAll(...delegated);
  switch (kind) {
    case 'delegate':
    case 'diamond': {
      const from =
        kind === 'diamond' ? (delegated[n % Math.max(delegated.length, 1)] ?? 'targets') : 'targets';
      if (from === role || simulator.targetsOf(from).delegations?.roles.some((one) => one.name === role))
        break;
      const words = {
        name: role,
        terminating: n % 3 === 0,
        paths: [patterns[n % patterns.length] ?? '*'],
        threshold: 1,
      };
      simulator.delegate(from, words, key(n));
      simulator.signers.set(role, [...new Set(simulator.signers.get(role))]);
      simulator.publishAll(...delegatedRoles(simulator));
      break;
    }
    case 'add target':
    case 'move target':
      simulator.addTarget(target, paths[n % paths.length] ?? 'x', `${target} ${n}`);
      all();
      break;
    case 'sign with another key':
      simulator.signers.set(anyRole, [key(n + 1)]);
      all();
      break;
    case 'sign with nothing':
      simulator.signers.set(anyRole, []);
      all();
      break;
    case 'wrong version':
      simulator.role(anyRole).version += 1 + (n % 2);
      all();
      break;
    case 'old timestamp':
      simulator.published.set('timestamp', simulator.published.get('timestamp')?.slice(0, 1) ?? []);
      break;
    case 'old snapshot':
      simulator.timestamp.meta['snapshot.json'] = { version: 1 };
      simulator.publish('timestamp');
      break;
    case 'old targets':
      simulator.snapshot.meta[`${target}.json`] = { version: 1 };
      simulator.publish('snapshot', 'timestamp');
      break;
    case 'expire':
      simulator.expire(anyRole, Date.now() - dayMs);
      all();
      break;
    case 'lose file':
      all();
      simulator.published.get(anyRole)?.pop();
      simulator.published.get(anyRole)?.push(Buffer.alloc(0));
      break;
    case 'cut file':
      all();
      simulator.replace(anyRole, (bytes) => bytes.subarray(0, n % bytes.length));
      break;
    case 'flip byte':
      all();
      simulator.replace(anyRole, (bytes) =>
        edited(bytes, (file) => {
          file.signed['version'] = Number(file.signed['version']) + (n % 2);
          file.signed['more'] = n;
        }),
      );
      break;
    case 'wrong type':
      simulator.role(anyRole)['_type'] = ['root', 'targets', 'snapshot', 'mirrors'][n % 4];
      all();
      break;
    case 'sign twice':
      all();
      simulator.replace(anyRole, (bytes) =>
        edited(bytes, ({ signatures }) => void signatures.push(...signatures)),
      );
      break;
    case 'rotate online key':
      simulator.rotate('timestamp');
      simulator.rotate('snapshot');
      simulator.publish('root');
      all();
      break;
    case 'rotate targets key':
      simulator.rotate('targets');
      simulator.publish('root');
      if (n % 2 === 0) all();
      break;
    case 'new root': {
      const before = simulator.signers.get('root') ?? [];
      simulator.rotate('root');
      const after = simulator.signers.get('root') ?? [];
      simulator.signers.set('root', [...before, ...after]);
      simulator.publish('root');
      simulator.signers.set('root', after);
      break;
    }
    case 'root by new keys':
      simulator.rotate('root');
      simulator.publish('root');
      break;
    case 'root by old keys': {
      const before = simulator.signers.get('root') ?? [];
      simulator.rotate('root');
      simulator.signers.set('root', before);
      simulator.publish('root');
      break;
    }
    case 'skip root':
      simulator.role('root').version += 1;
      simulator.publish('root');
      break;
    case 'threshold two':
      Object.assign(simulator.root.roles['timestamp'] ?? {}, { threshold: 2 });
      if (n % 2 === 0) simulator.addKey('timestamp');
      simulator.publish('root');
      all();
      break;
    case 'drop from snapshot':
      delete simulator.snapshot.meta[`${target}.json`];
      simulator.publish('snapshot', 'timestamp');
      break;
    case 'hashes':
      simulator.listsHashes = true;
      all();
      break;
    case 'wrong hash': {
      simulator.listsHashes = true;
      all();
      const listed = simulator.snapshot.meta[`${target}.json`];
      if (listed?.hashes) listed.hashes['sha256'] = digest('sha256', String(n));
      simulator.publish('snapshot', 'timestamp');
      break;
    }
    case 'same version':
      simulator.timestamp.meta['snapshot.json'] = { version: 50 };
      simulator.replace('timestamp', () =>
        encode(simulator.role('timestamp'), simulator.signers.get('timestamp') ?? []),
      );
      break;
    default:
      all();
  }
}

const step = fc.record({
  kind: fc.oneof(
    { weight: 2, arbitrary: fc.constantFrom<string>('delegate', 'diamond', 'add target', 'publish') },
    { weight: 1, arbitrary: fc.constantFrom<string>(...kinds) },
  ),
  role: fc.constantFrom(...names),
  n: fc.nat(50),
});

async function compare(steps: readonly Step[], path: string): Promise<void> {
  const simulator = new TufSimulator('ed25519');
  const root = simulator.latest('root');
  const [ours, theirs] = [new OurClient(root), new TufJsClient(root)];
  const source: FileSource = (name) => simulator.file(name);
  try {
    simulator.addTarget('targets', 'x', 'first');
    simulator.publishAll();
    for (const [index, one] of steps.entries()) {
      apply(simulator, one);
      const expected = verdict(await theirs.ask(source, path));
      assert.equal(await ours.ask(source, path), expected, `after step ${index}, ${one.kind}`);
    }
  } finally {
    theirs.remove();
  }
}

describe('tuf-js and we', () => {
  it('give the same verdict on repositories with any history', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), fc.constantFrom(...paths), compare),
      { numRuns: 60 },
    );
  });

  for (const kind of kinds) {
    it(`give the same verdict after: ${kind}`, async () => {
      for (const n of [0, 1, 2, 7]) {
        const before: Step[] = [
          { kind: 'delegate', role: 'a', n: 7 },
          { kind: 'diamond', role: 'b', n: 14 },
          { kind: 'add target', role: 'b', n: 5 },
          { kind: 'publish', role: 'a', n: 0 },
        ];
        await compare([...before, { kind, role: 'b', n }, { kind: 'publish', role: 'a', n: 1 }], 'x');
      }
    });
  }
});

interface Difference {
  what: string;
  why: string;
  /** Makes the repository; tuf-js and we are asked for `path`. What they answered comes back. */
  run(): Promise<{ theirs: string | null | Error; ours: Result<string> }>;
  /** What tuf-js is known to answer. If this fails, tuf-js was mended: take the row out. */
  theirs: string | null | 'refused';
  /** What we answer: a digest, or the code of the refusal. */
  ours: string;
}

async function both(
  root: Uint8Array,
  source: FileSource,
  path: string,
): Promise<{ theirs: string | null | Error; ours: Result<string> }> {
  const theirs = new TufJsClient(root);
  try {
    return { theirs: await theirs.ask(source, path), ours: await new OurClient(root).find(source, path) };
  } finally {
    theirs.remove();
  }
}

const xDigest = digest('sha256', 'content of x');

/** A repository with the target `x`, changed before its files are signed. */
function changed(change: (simulator: TufSimulator) => void): TufSimulator {
  const simulator = new TufSimulator('ed25519');
  simulator.addTarget('targets', 'x', 'content of x');
  simulator.published.clear();
  for (const name of simulator.roles.keys()) simulator.role(name).version = 1;
  change(simulator);
  simulator.publish('targets', 'snapshot', 'timestamp', 'root');
  return simulator;
}

const differences: Difference[] = [
  {
    what: 'a target through a delegator that never authorised the signer',
    why: 'TUF 1.0.34 §5.6.3 asks for the keys of the delegating role; tuf-js keeps a role by its name alone',
    theirs: digest('sha256', 'through B'),
    ours: 'metadata-signature-invalid',
    async run() {
      const simulator = new TufSimulator('ed25519');
      for (const [name, paths] of [
        ['A', ['a/*']],
        ['B', ['b/*']],
      ] as const)
        simulator.delegate('targets', { name, terminating: false, paths: [...paths], threshold: 1 });
      const words = { name: 'C', terminating: false, paths: ['*/*'], threshold: 1 };
      simulator.delegate('A', words, key(0));
      simulator.delegate('B', words, key(1));
      simulator.signers.set('C', [key(1)]);
      simulator.addTarget('C', 'b/x', 'through B');
      simulator.addTarget('C', 'a/x', 'through B');
      simulator.publishAll('A', 'B', 'C');
      const root = simulator.latest('root');
      const source: FileSource = (name) => simulator.file(name);
      const client = new TufJsClient(root);
      const ours = new OurClient(root);
      try {
        const updater = client.updater(source);
        await updater.getTargetInfo('b/x');
        await ours.find(source, 'b/x');
        return {
          theirs: await digestOf(() => updater.getTargetInfo('a/x')),
          ours: await ours.find(source, 'a/x'),
        };
      } finally {
        client.remove();
      }
    },
  },
  {
    what: 'a threshold of two met by one key under two ids',
    why: '§4.2.1: each key counts once towards the threshold, whatever it is called',
    theirs: xDigest,
    ours: 'metadata-signature-invalid',
    run() {
      const simulator = changed((one) => {
        one.root.roles['timestamp'] = { keyids: [], threshold: 2 };
        one.signers.set('timestamp', []);
        one.addKey('timestamp', key(0));
        one.addKey('timestamp', sameKey(key(0), { note: 'the same key' }));
      });
      return both(simulator.latest('root'), (name) => simulator.file(name), 'x');
    },
  },
  {
    what: 'a target with empty hashes',
    why: '§4.5: without a digest the listing binds no bytes',
    theirs: '',
    ours: 'metadata-malformed',
    run() {
      const simulator = changed((one) => {
        one.targetsOf('targets').targets['x'] = { length: 12, hashes: {} };
      });
      return both(simulator.latest('root'), (name) => simulator.file(name), 'x');
    },
  },
  {
    what: 'a date that is no date',
    why: '§4.2.1: YYYY-MM-DDTHH:MM:SSZ; a date that cannot be compared never expires',
    theirs: xDigest,
    ours: 'metadata-malformed',
    run() {
      const simulator = changed((one) => {
        one.role('timestamp').expires = 'the end of days';
      });
      return both(simulator.latest('root'), (name) => simulator.file(name), 'x');
    },
  },
  {
    what: 'a rollback after a torn file',
    why: '§5.4.3: the number that was seen binds, whether or not the file it stood in survived',
    theirs: xDigest,
    ours: 'metadata-rollback',
    async run() {
      const simulator = new TufSimulator('ed25519');
      simulator.addTarget('targets', 'x', 'content of x');
      simulator.publishAll();
      const past = new Map(simulator.published);
      simulator.addTarget('targets', 'x', 'newer content');
      simulator.publishAll();
      const root = simulator.latest('root');
      const [theirs, ours] = [new TufJsClient(root), new OurClient(root)];
      const source: FileSource = (name) => simulator.file(name);
      try {
        assert.equal(await theirs.ask(source, 'x'), digest('sha256', 'newer content'));
        assert.equal(await ours.ask(source, 'x'), digest('sha256', 'newer content'));
        for (const name of ['timestamp.json', 'snapshot.json']) theirs.tear(name, new Uint8Array());
        ours.held = { ...ours.held, timestamp: new Uint8Array(), snapshot: new Uint8Array() };
        for (const [name, versions] of past) simulator.published.set(name, versions);
        return { theirs: await theirs.ask(source, 'x'), ours: await ours.find(source, 'x') };
      } finally {
        theirs.remove();
      }
    },
  },
];

describe('known differences from tuf-js 5.0.1', () => {
  for (const { what, why, run, ...expected } of differences) {
    it(`${what} (${why})`, async () => {
      const { theirs, ours } = await run();
      assert.equal(verdict(theirs), expected.theirs, 'tuf-js answers otherwise than was measured');
      assert.equal(ours.ok ? ours.value : ours.refusal.code, expected.ours);
    });
  }
});
