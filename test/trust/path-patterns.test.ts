// Why: which paths a delegation covers, by the specification's own examples and by a slow second matcher.
// Trusts: fast-check's seeds. Must never: use the matcher that is tested to say what is expected.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { limits } from '../../shared/kernel/limits.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import type { DelegatedRole } from '../../shared/trust/tuf/format.ts';
import { isDelegatedPath, matchesPathPattern } from '../../shared/trust/tuf/path-patterns.ts';
import type { AnyTargets } from '../../shared/trust/tuf/policy.ts';
import { findTarget } from '../../shared/trust/tuf/walk.ts';

describe('path patterns', () => {
  const cases: [string, string[], string[]][] = [
    // TUF 1.0.34 §4.5, PATHPATTERN.
    [
      'targets/*.tgz',
      ['targets/foo.tgz', 'targets/bar.tgz'],
      ['targets/foo.txt', 'foo.tgz', 'targets/a/foo.tgz'],
    ],
    [
      'foo-version-?.tgz',
      ['foo-version-2.tgz', 'foo-version-a.tgz'],
      ['foo-version-alpha.tgz', 'foo-version-.tgz'],
    ],
    ['*.tgz', ['foo.tgz', 'bar.tgz', '.tgz'], ['targets/foo.tgz', 'foo.txt']],
    ['foo.tgz', ['foo.tgz'], ['foo.tgz/', '/foo.tgz', 'fooXtgz', 'Foo.tgz']],
    // Segments must be as many, and a wildcard never reaches over a separator.
    ['acme/*/*', ['acme/a/1.0.0', 'acme//', 'acme/?/*'], ['acme/a', 'acme/a/b/c', 'xacme/a/b', 'acme']],
    ['*', ['', 'a', '**', '.hidden'], ['a/b', '/']],
    ['**', ['a', ''], ['a/b']],
    ['a?c', ['abc', 'a\u{1f600}c', 'a?c'], ['a/c', 'ac', 'abbc']],
    ['*a*b*', ['ab', 'xaxbx', 'aab'], ['ba', 'a', 'b']],
    // Nothing else means anything.
    ['[ab]', ['[ab]'], ['a', 'b']],
    ['{a,b}', ['{a,b}'], ['a']],
    ['a\\*', ['a\\', 'a\\x'], ['a*']],
    ['!a', ['!a'], ['b']],
    ['a.c', ['a.c'], ['abc']],
    ['', [''], ['a', '/']],
    ['../*', ['../x'], ['x', 'a/x']],
  ];
  for (const [pattern, matching, others] of cases) {
    it(`"${pattern}"`, () => {
      for (const path of matching) assert.ok(matchesPathPattern(pattern, path), path);
      for (const path of others) assert.ok(!matchesPathPattern(pattern, path), path);
    });
  }

  /** By definition, without any cleverness. */
  function matches(pattern: string[], path: string[]): boolean {
    const [first, ...rest] = pattern;
    if (first === undefined) return path.length === 0;
    if (first === '*') {
      if (matches(rest, path)) return true;
      return path.length > 0 && path[0] !== '/' && matches(pattern, path.slice(1));
    }
    const [head, ...tail] = path;
    if (head === undefined) return false;
    return (first === '?' ? head !== '/' : first === head) && matches(rest, tail);
  }

  it('are read as a second matcher reads them', () => {
    const text = fc.array(fc.constantFrom('a', 'b', '/', '.', '\u{1f600}'), { maxLength: 8 });
    const glob = fc.array(fc.constantFrom('a', 'b', '/', '*', '?', '\u{1f600}'), { maxLength: 8 });
    fc.assert(
      fc.property(glob, text, (pattern, path) => {
        assert.equal(matchesPathPattern(pattern.join(''), path.join('')), matches(pattern, path));
      }),
      { numRuns: 5_000 },
    );
  });

  it('of the worst kind take no time', () => {
    const start = performance.now();
    for (let round = 0; round < 20; round += 1)
      assert.ok(!matchesPathPattern('*a'.repeat(256), `${'a'.repeat(511)}b`));
    assert.ok(performance.now() - start < 5_000, 'a matcher that tries every split would take for ever');
  });

  it('may be hash prefixes instead', () => {
    // `echo -n bin/file | sha256sum`: 46a4e0c3…
    for (const [prefixes, expected] of [
      [['46a4'], true],
      [['00', '4'], true],
      [['46a5'], false],
      [[], false],
    ] as const)
      assert.equal(isDelegatedPath({ paths: null, pathHashPrefixes: prefixes }, 'bin/file'), expected);
    assert.equal(isDelegatedPath({ paths: [], pathHashPrefixes: null }, 'bin/file'), false);
  });
});

describe('the walk over any graph', () => {
  const file = (delegations: DelegatedRole[]): AnyTargets => ({
    bytes: new Uint8Array(),
    signedBytes: new Uint8Array(),
    signatures: [],
    version: 1,
    expiresAtMs: 0,
    delegations,
  });
  const role = (name: string, terminating: boolean): DelegatedRole => ({
    name,
    terminating,
    paths: ['*'],
    pathHashPrefixes: null,
    keys: [],
    threshold: 1,
  });

  /** The specification's own words (§5.6.7), by recursion. */
  function visitsOf(graph: ReadonlyMap<string, DelegatedRole[]>): string[] {
    const visited: string[] = [];
    const preorder = (name: string): boolean => {
      for (const next of graph.get(name) ?? []) {
        if (!visited.includes(next.name)) {
          visited.push(next.name);
          if (preorder(next.name)) return true;
        }
        if (next.terminating) return true;
      }
      return false;
    };
    preorder('targets');
    return visited;
  }

  const names = ['a', 'b', 'c', 'd', 'e', '__proto__'];
  const edges = fc.uniqueArray(fc.tuple(fc.constantFrom(...names), fc.boolean()), {
    selector: ([name]) => name,
    maxLength: 4,
  });
  const graphs = fc.tuple(...['targets', ...names].map((name) => fc.tuple(fc.constant(name), edges)));

  it('visits each role once, in the order of the specification, and ends', async () => {
    await fc.assert(
      fc.asyncProperty(graphs, async (parts) => {
        const graph = new Map(parts.map(([name, next]) => [name, next.map(([to, end]) => role(to, end))]));
        const visited: string[] = [];
        const found = await findTarget({
          path: 'x',
          topTargets: file(graph.get('targets') ?? []),
          targetIn: () => undefined,
          load: async ({ name }) => {
            visited.push(name);
            return ok(file(graph.get(name) ?? []));
          },
        });
        assert.equal(found.ok || found.refusal.code, 'target-unknown');
        assert.deepEqual(visited, visitsOf(graph));
      }),
      { numRuns: 500 },
    );
  });

  it('stops at the first answer, and with the code of a role that cannot be had', async () => {
    const topTargets = file([role('a', false), role('b', false)]);
    const visited: string[] = [];
    const found = await findTarget({
      path: 'x',
      topTargets,
      targetIn: (_targets, path) => (visited.length > 0 ? `${path} of ${visited.at(-1)}` : undefined),
      load: async ({ name }) => {
        visited.push(name);
        return ok(file([]));
      },
    });
    assert.deepEqual(found, ok({ target: 'x of a', role: 'a' }));
    const refused = await findTarget({
      path: 'x',
      topTargets,
      targetIn: () => undefined,
      load: async ({ name }) => refuse('metadata-expired', name),
    });
    assert.deepEqual(refused, refuse('metadata-expired', 'a'));
  });

  it('stops after a bounded number of roles, however many there are', async () => {
    let loaded = 0;
    const many = Array.from({ length: limits.delegationsMax }, (_, index) => role(`r${index}`, false));
    const found = await findTarget({
      path: 'x',
      topTargets: file(many),
      targetIn: () => undefined,
      load: async () => {
        loaded += 1;
        return ok(file(many));
      },
    });
    assert.equal(found.ok || found.refusal.code, 'metadata-too-large');
    assert.equal(loaded, limits.delegatedRolesVisitedMax);
  });
});
