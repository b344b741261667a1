// Why: the search through delegations and the reader of any repository: `lepton-agent tuf` meets graphs and
// bindings that the house's own catalogue does not allow. Trusts: nothing.
// Must never: let a search go on without an end.

import { openPolicy } from '../../agent/cli/tuf/open-policy.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type DelegatedRole, memberOf } from '../../shared/trust/tuf/format.ts';
import type { AnyTargets } from '../../shared/trust/tuf/policy.ts';
import { findTarget } from '../../shared/trust/tuf/walk.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import { HostileRepository, inside, type Json } from './hostile-repository.ts';

/** Who delegates to whom, by which paths, and which role's file names the target. */
interface Graph {
  path?: string;
  next(role: string): readonly [name: string, paths?: string][];
  names(role: string): boolean;
  /** A role whose file does not verify. */
  forged?: string;
}

function search(graph: Graph): Promise<Result<unknown>> {
  const file = (name: string): AnyTargets & { name: string } => ({
    name,
    bytes: new Uint8Array(),
    signedBytes: new Uint8Array(),
    signatures: [],
    version: 1,
    expiresAtMs: 0,
    delegations: graph.next(name).map(([role, paths = 'acme/*'], index): DelegatedRole => {
      const keys = { keys: [], threshold: index + 1 };
      return { name: role, terminating: false, paths: [paths], pathHashPrefixes: null, ...keys };
    }),
  });
  let loaded = 0;
  return findTarget({
    path: graph.path ?? 'acme/x',
    topTargets: file('targets'),
    targetIn: ({ name }, path) => (graph.names(name) ? path : undefined),
    load: async ({ name }) => {
      loaded += 1;
      if (loaded > 2 * limits.delegatedRolesVisitedMax) throw new Error('the search does not end');
      return name === graph.forged ? refuse('metadata-signature-invalid', name) : ok(file(name));
    },
  });
}

const isB = (role: string): boolean => role === 'b';
const line: Graph = {
  next: (role) => (role === 'targets' ? [['a'], ['b']] : []),
  names: isB,
};
/** A chain of roles whose last one names the target. */
const chain = (length: number): Graph => ({
  next: (role) => [[`r${role === 'targets' ? 1 : Number(role.slice(1)) + 1}`]],
  names: (role) => role === `r${length}`,
});
const toB = (paths: string, path = 'acme/x'): Graph => ({
  path,
  next: (role) => (role === 'targets' ? [['b', paths]] : []),
  names: isB,
});

const walks: [string, string, ErrorCode, Graph, Graph][] = [
  ['nobody', 'a target that no role speaks for', 'target-unknown', line, { ...line, next: () => [] }],
  [
    'cycle',
    'roles that delegate to each other, so that the search never ends',
    'target-unknown',
    line,
    { next: (role) => [[role === 'a' ? 'c' : 'a']], names: () => false },
  ],
  [
    'chain',
    'more delegated roles on the way than the limit',
    'metadata-too-large',
    chain(limits.delegatedRolesVisitedMax),
    chain(limits.delegatedRolesVisitedMax + 1),
  ],
  [
    'forged-role',
    'a role whose file does not verify, before one that the attacker holds',
    'metadata-signature-invalid',
    line,
    { ...line, forged: 'a' },
  ],
  [
    'other-folder',
    'a role that names a target of a folder that it was not delegated',
    'target-unknown',
    toB('acme/*'),
    toB('beta/*'),
  ],
  [
    'deeper',
    'a role that names a target deeper than the folder that it was delegated',
    'target-unknown',
    toB('acme/*/*', 'acme/x/y'),
    toB('acme/*', 'acme/x/y'),
  ],
];

function readWith(change: (signed: Json, role: Json) => void): Result<unknown> {
  const bytes = new HostileRepository().publish('targets', {
    change: (signed) => change(signed, (inside(signed, 'delegations')['roles'] as Json[])[0] ?? {}),
  });
  return openPolicy.parseTargets(bytes);
}

const byPrefixes = (role: Json, prefixes: readonly string[]): void => {
  delete role['paths'];
  role['path_hash_prefixes'] = prefixes;
};
const onRole =
  (members: Json) =>
  (_signed: Json, role: Json): void =>
    void Object.assign(role, members);
const listed = (sha512: string) => (signed: Json) => {
  inside(signed, 'targets')['a'] = { length: 1, hashes: { sha512 } };
};
const prefixes = (many: readonly string[]) => (_signed: Json, role: Json) => byPrefixes(role, many);
const hundredThousand = Array.from({ length: 100_000 }, () => 'ab');

const readings: [string, string, (signed: Json, role: Json) => void, (signed: Json, role: Json) => void][] = [
  [
    'both-bindings',
    'a delegation by paths and by hash prefixes, of which a reader may take either',
    prefixes(['ab']),
    onRole({ path_hash_prefixes: ['ab'] }),
  ],
  ['prefix-no-hex', 'a hash prefix that is none', prefixes(['ab']), prefixes(['AB'])],
  [
    'prefixes-many',
    'more hash prefixes than the limit',
    prefixes(hundredThousand),
    prefixes([...hundredThousand, 'ab']),
  ],
  ['name-empty', 'a role without a name', onRole({ name: 'r' }), onRole({ name: '' })],
  [
    'name-long',
    'a role of 129 characters',
    onRole({ name: 'r'.repeat(128) }),
    onRole({ name: 'r'.repeat(129) }),
  ],
  ['name-root', 'a delegated role named `root`', onRole({ name: 'r' }), onRole({ name: 'root' })],
  [
    'path-long',
    'a path of 513 characters',
    onRole({ paths: ['p'.repeat(512)] }),
    onRole({ paths: ['p'.repeat(513)] }),
  ],
  [
    'paths-many',
    'more paths than the limit',
    onRole({ paths: Array.from({ length: 1_000 }, () => 'p') }),
    onRole({ paths: Array.from({ length: 1_001 }, () => 'p') }),
  ],
  ['sha512-short', 'a SHA-512 cut to 127 digits', listed('a'.repeat(128)), listed('a'.repeat(127))],
];

const member = (value: Parameters<typeof memberOf>[0], key: string): Result<void> =>
  memberOf(value, key) === null ? refuse('metadata-malformed', `no ${key}`) : ok();

export const walkAttacks: AttackCase[] = [
  ...walks.map(([id, attack, code, honest, forged]) =>
    directRow('repository', `walk-${id}`, attack, code, () => ({
      honest: search(honest),
      forged: search(forged),
    })),
  ),
  ...readings.map(([id, attack, honest, forged]) =>
    directRow('repository', `open-${id}`, `in any repository, ${attack}`, 'metadata-malformed', () => ({
      honest: readWith(honest),
      forged: readWith(forged),
    })),
  ),
  ...(
    [
      ['text', 'a text whose length is taken for a member', 'text'],
      ['list', 'a list whose length is taken for a member', ['a']],
    ] as const
  ).map(([id, attack, value]) =>
    directRow('repository', `member-of-${id}`, attack, 'metadata-malformed', () => ({
      honest: member({ length: 1 }, 'length'),
      forged: member(typeof value === 'string' ? value : [...value], 'length'),
    })),
  ),
];
