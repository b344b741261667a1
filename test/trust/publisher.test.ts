// Why: a publisher's metadata only grows. Trusts: the fixture's entries.
// Must never: let the registry accept a step that would take a release or a floor back.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import {
  checkPublisherMetadata,
  checkPublisherStep,
  highestCounter,
  type NewRelease,
  nextPublisherTargets,
} from '../../shared/trust/tuf/publisher.ts';
import { addSignature, makeTargets, parseTargetsFile } from '../../shared/trust/tuf/repository.ts';
import { codeOf, dayMs, entry, nowMs, role, signerNamed } from './catalogue-fixture.ts';

const acme = signerNamed('acme');
const expiresAtMs = nowMs + dayMs;

function release(id: string, counter: number): NewRelease {
  const name = parseReleaseId(id);
  assert.ok(name);
  return { release: name, entry: { ...entry(counter), counter } };
}

function next(
  current: Uint8Array | null,
  add: NewRelease[],
  floors?: Map<string, number>,
): ReturnType<typeof nextPublisherTargets> {
  return nextPublisherTargets({
    namespace: 'acme',
    current,
    add,
    ...(floors ? { floors } : {}),
    expiresAtMs,
    signers: [acme],
  });
}

function must(result: ReturnType<typeof next>): Uint8Array {
  assert.ok(result.ok, result.ok ? '' : result.refusal.detail);
  return result.value;
}

const first = must(next(null, [release('acme/a@1.0.0', 1), release('acme/b@1.0.0', 7)]));
const second = must(next(first, [release('acme/a@1.1.0', 2)], new Map([['a', 2]])));
const role1 = role(1, acme);

describe('a publisher’s next metadata', () => {
  it('keeps what is there, is one version on and passes the registry', () => {
    const parsed = parseTargetsFile(second);
    assert.ok(parsed.ok);
    assert.equal(parsed.value.version, 2);
    assert.deepEqual([...parsed.value.targets.keys()].sort(), [
      'acme/a/1.0.0',
      'acme/a/1.1.0',
      'acme/b/1.0.0',
    ]);
    assert.deepEqual([...parsed.value.floors], [['a', 2]]);
    const checked = checkPublisherMetadata({
      namespace: 'acme',
      role: role1,
      current: first,
      next: second,
      nowMs,
    });
    assert.ok(checked.ok);
    assert.deepEqual(checked.value.added, [release('acme/a@1.1.0', 2)]);
    assert.deepEqual(highestCounter(second, { namespace: 'acme', name: 'a' }), { ok: true, value: 2 });
    assert.deepEqual(highestCounter(null, { namespace: 'acme', name: 'a' }), { ok: true, value: 0 });
  });

  it('refuses on the publisher’s own machine what the registry would refuse', () => {
    assert.equal(codeOf(next(first, [release('acme/a@1.0.0', 9)])), 'release-exists');
    assert.equal(codeOf(next(first, [release('acme/a@1.0.1', 1)])), 'conflict');
    assert.equal(codeOf(next(first, [release('acme/b@1.0.1', 6)])), 'conflict');
    assert.equal(codeOf(next(null, [release('acme/a@1.0.0', 3), release('acme/a@1.0.1', 3)])), 'conflict');
    assert.equal(codeOf(next(first, [release('beta/a@1.0.0', 3)])), 'input-invalid');
    assert.equal(codeOf(next(second, [], new Map([['a', 1]]))), 'metadata-rollback');
    assert.equal(codeOf(next(new Uint8Array([1]), [])), 'metadata-malformed');
  });

  const base = new Map([
    ['acme/a/1.0.0', entry(1)],
    ['acme/b/1.0.0', entry(7)],
  ]);
  const make = (targets: typeof base, version = 2, floors = new Map<string, number>()): Uint8Array =>
    makeTargets({ version, expiresAtMs, targets, floors, signers: [acme] });
  const steps: [string, Uint8Array, string][] = [
    ['the same again, renewed', make(base), 'ok'],
    ['a skipped version', make(base, 3), 'metadata-version-invalid'],
    ['the version in force', make(base, 1), 'metadata-version-invalid'],
    ['a release that is gone', make(new Map([['acme/a/1.0.0', entry(1)]])), 'metadata-rollback'],
    [
      'a release with another digest',
      make(new Map([...base, ['acme/a/1.0.0', { ...entry(1), sha256: 'b'.repeat(64) }]])),
      'release-exists',
    ],
    [
      'a release with another size',
      make(new Map([...base, ['acme/a/1.0.0', entry(1, 5)]])),
      'release-exists',
    ],
    [
      'a release with other needs',
      make(new Map([...base, ['acme/a/1.0.0', { ...entry(1), requires: null }]])),
      'release-exists',
    ],
    [
      'another namespace’s release',
      make(new Map([...base, ['beta/a/1.0.0', entry(1)]])),
      'metadata-malformed',
    ],
    ['a path that is no release', make(new Map([...base, ['acme/a/1.0', entry(2)]])), 'metadata-malformed'],
    ['a path with more parts', make(new Map([...base, ['acme/a/1.0.0/x', entry(2)]])), 'metadata-malformed'],
    [
      'a release without counter',
      make(new Map([...base, ['acme/c/1.0.0', { ...entry(1), counter: null }]])),
      'metadata-malformed',
    ],
    ['a counter that does not grow', make(new Map([...base, ['acme/b/1.0.1', entry(6)]])), 'conflict'],
    ['a first counter of zero', make(new Map([...base, ['acme/c/1.0.0', entry(0)]])), 'conflict'],
    [
      'a delegation',
      makeTargets({
        version: 2,
        expiresAtMs,
        targets: base,
        delegations: [{ namespace: 'sub', ...role1 }],
        signers: [acme],
      }),
      'metadata-malformed',
    ],
  ];
  for (const [what, bytes, code] of steps) {
    it(`${what}: ${code}`, () => {
      assert.equal(
        codeOf(checkPublisherStep({ namespace: 'acme', current: make(base, 1), next: bytes })),
        code,
      );
    });
  }

  it('needs the namespace’s keys, enough of them, and time left', () => {
    const other = signerNamed('other');
    const check = (bytes: Uint8Array, spec = role1, at = nowMs): string =>
      codeOf(
        checkPublisherMetadata({ namespace: 'acme', role: spec, current: null, next: bytes, nowMs: at }),
      );
    assert.equal(check(first), 'ok');
    assert.equal(check(first, role(1, other)), 'metadata-signature-invalid');
    assert.equal(check(first, role(2, acme, other)), 'metadata-signature-invalid');
    assert.equal(check(addSignature(first, other), role(2, acme, other)), 'ok');
    assert.equal(check(first, role1, expiresAtMs), 'metadata-expired');
  });

  it('grows through any number of honest pushes, each of which passes', () => {
    const push = fc.record({ model: fc.constantFrom('a', 'b', 'c'), floor: fc.boolean() });
    fc.assert(
      fc.property(fc.array(push, { maxLength: 8 }), (pushes) => {
        let current: Uint8Array | null = null;
        for (const [index, { model, floor }] of pushes.entries()) {
          const highest = highestCounter(current, { namespace: 'acme', name: model });
          assert.ok(highest.ok);
          const counter = highest.value + 1;
          const floors = floor ? new Map([[model, counter]]) : undefined;
          const bytes: Uint8Array = must(
            next(current, [release(`acme/${model}@1.${index}.0`, counter)], floors),
          );
          const step = checkPublisherMetadata({
            namespace: 'acme',
            role: role1,
            current,
            next: bytes,
            nowMs,
          });
          assert.equal(step.ok && step.value.version, index + 1);
          current = bytes;
        }
      }),
      { numRuns: 20 },
    );
  });
});
