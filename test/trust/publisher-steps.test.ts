// Why: what a publisher says beside releases only grows, starts above what a restore lost, and is told in full to
// whoever signs second. Trusts: the fixture's keys. Must never: pass because a change went unnoticed.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { canonicalJson } from '../../shared/crypto/canonical-json.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import {
  checkPublisherStep,
  type NewRelease,
  nextCounter,
  nextPublisherTargets,
  type PublisherStep,
  readPublisherTargets,
} from '../../shared/trust/tuf/publisher.ts';
import { reviewStep, stepIdOf } from '../../shared/trust/tuf/publisher-review.ts';
import {
  addSignature,
  countValidSignatures,
  makeTargets,
  mergeSignatures,
} from '../../shared/trust/tuf/repository.ts';
import { codeOf, dayMs, entry, nowMs, signerNamed } from './catalogue-fixture.ts';

const acme = signerNamed('acme');
const other = signerNamed('other');
const expiresAtMs = nowMs + dayMs;

function release(id: string, counter: number): NewRelease {
  const name = parseReleaseId(id);
  assert.ok(name);
  return { release: name, entry: { ...entry(counter), counter } };
}

type Change = Partial<Parameters<typeof nextPublisherTargets>[0]>;
const next = (current: Uint8Array | null, change: Change) =>
  nextPublisherTargets({ namespace: 'acme', current, add: [], expiresAtMs, signers: [acme], ...change });
const step = (current: Uint8Array | null, bytes: Uint8Array, floors: Change = {}): PublisherStep =>
  unwrap(checkPublisherStep({ namespace: 'acme', current, next: bytes, ...floors }));

const first = unwrap(
  next(null, { add: [release('acme/a@1.0.0', 1), release('acme/a@1.1.0', 2), release('acme/b@1.0.0', 7)] }),
);

describe('a step that adds no release', () => {
  it('raises a floor, takes a release back or renews, and keeps everything else', () => {
    const floored = unwrap(next(first, { floors: new Map([['a', 2]]) }));
    assert.deepEqual(step(first, floored).raised, [{ model: 'a', from: 0, to: 2 }]);
    const withdrawn = unwrap(next(floored, { withdrawn: new Map([['a', new Set([2])]]) }));
    const taken = step(floored, withdrawn);
    assert.deepEqual(
      taken.withdrawn.map((one) => [one.release.version, one.counter]),
      [['1.1.0', 2]],
    );
    assert.deepEqual(taken.raised, []);
    const renewed = unwrap(next(withdrawn, { expiresAtMs: expiresAtMs + dayMs }));
    const { added, raised, withdrawn: more, next: file, version } = step(withdrawn, renewed);
    assert.deepEqual([added, raised, more, version], [[], [], [], 4]);
    assert.deepEqual([...file.floors], [['a', 2]]);
    assert.deepEqual([...(file.withdrawn.get('a') ?? [])], [2]);
    assert.equal(file.targets.size, 3);
  });

  it('refuses what would take something back, or withdraw what nobody has signed yet', () => {
    const both = unwrap(
      next(first, { floors: new Map([['a', 2]]), withdrawn: new Map([['b', new Set([7])]]) }),
    );
    const { targets, floors, withdrawn } = unwrap(readPublisherTargets(both));
    const make = (parts: object): string =>
      codeOf(
        checkPublisherStep({
          namespace: 'acme',
          current: both,
          next: makeTargets({
            version: 3,
            expiresAtMs,
            targets,
            floors,
            withdrawn,
            signers: [acme],
            ...parts,
          }),
        }),
      );
    assert.equal(make({}), 'ok');
    assert.equal(make({ floors: new Map([['a', 1]]) }), 'metadata-rollback');
    assert.equal(make({ floors: new Map() }), 'metadata-rollback');
    assert.equal(make({ withdrawn: new Map() }), 'metadata-rollback');
    assert.equal(make({ withdrawn: new Map([['b', new Set([7, 8])]]) }), 'target-unknown');
    assert.equal(make({ withdrawn: new Map([...withdrawn, ['c', new Set([1])]]) }), 'target-unknown');
  });

  it('a new release below its floor is refused where it is made', () => {
    const floored = unwrap(next(first, { floors: new Map([['a', 9]]) }));
    assert.equal(codeOf(next(floored, { add: [release('acme/a@2.0.0', 8)] })), 'release-below-floor');
    assert.deepEqual(nextCounter(floored, { namespace: 'acme', name: 'a' }), { ok: true, value: 9 });
    assert.equal(codeOf(next(floored, { add: [release('acme/a@2.0.0', 9)] })), 'ok');
  });
});

describe('after a restore', () => {
  it('the next version is exactly one above what was lost', () => {
    for (const [versionFloor, version] of [
      [0, 2],
      [1, 2],
      [7, 8],
    ] as const) {
      const made = unwrap(next(first, { versionFloor }));
      assert.equal(unwrap(readPublisherTargets(made)).version, version);
      const code = (floor: number) =>
        codeOf(checkPublisherStep({ namespace: 'acme', current: first, next: made, versionFloor: floor }));
      assert.equal(code(versionFloor), 'ok');
      assert.equal(code(versionFloor + 2), 'metadata-version-invalid');
    }
    const plain = unwrap(next(first, {}));
    assert.equal(
      codeOf(checkPublisherStep({ namespace: 'acme', current: first, next: plain, versionFloor: 7 })),
      'metadata-version-invalid',
    );
    // A file of ten digits could not be asked for.
    assert.equal(codeOf(next(first, { versionFloor: 999_999_999 })), 'metadata-version-invalid');
    assert.equal(codeOf(next(first, { versionFloor: 999_999_998 })), 'ok');
  });

  it('a new release has a counter above every one that was given out', () => {
    const counterFloors = new Map([['a', 5]]);
    const model = { namespace: 'acme', name: 'a' };
    assert.deepEqual(nextCounter(first, model, counterFloors), { ok: true, value: 6 });
    assert.deepEqual(nextCounter(first, model), { ok: true, value: 3 });
    assert.equal(codeOf(next(first, { add: [release('acme/a@2.0.0', 5)], counterFloors })), 'conflict');
    assert.equal(codeOf(next(first, { add: [release('acme/a@2.0.0', 6)], counterFloors })), 'ok');
    assert.equal(codeOf(next(first, { add: [release('acme/b@2.0.0', 8)], counterFloors })), 'ok');
  });
});

describe('what the second publisher is told', () => {
  const told = (current: Uint8Array | null, bytes: Uint8Array): string[] =>
    unwrap(reviewStep('acme', step(current, bytes))).does;

  it('every change is a line', () => {
    const digest = entry(3).sha256;
    assert.deepEqual(told(first, unwrap(next(first, { add: [release('acme/a@1.2.0', 3)] }))), [
      `adds acme/a@1.2.0 (counter 3, manifest ${digest})`,
    ]);
    assert.deepEqual(told(first, unwrap(next(first, {}))), ['renews acme: nothing else changes']);
    const all = unwrap(
      next(first, {
        add: [release('acme/a@1.2.0', 3)],
        floors: new Map([['a', 2]]),
        withdrawn: new Map([['b', new Set([7])]]),
      }),
    );
    assert.deepEqual(told(first, all), [
      `adds acme/a@1.2.0 (counter 3, manifest ${digest})`,
      'raises the floor of acme/a from 0 to 2: 1.0.0 may not be assigned any more',
      'withdraws acme/b@1.0.0 (counter 7)',
    ]);
  });

  it('a file that says more than the words is refused', () => {
    const made = unwrap(next(first, {}));
    const file = JSON.parse(new TextDecoder().decode(made));
    for (const hide of [
      (signed: Record<string, unknown>) => Object.assign(signed, { 'x-other': { grant: true } }),
      (signed: { targets: Record<string, object> }) =>
        Object.assign(Object.values(signed.targets)[0] ?? {}, { note: 'more' }),
    ]) {
      const changed = structuredClone(file);
      hide(changed.signed);
      const bytes = addSignature(new TextEncoder().encode(JSON.stringify(changed)), acme);
      // The registry may take it; nobody is made to sign it unseen.
      assert.equal(codeOf(reviewStep('acme', step(first, bytes))), 'metadata-malformed');
    }
    assert.equal(codeOf(reviewStep('acme', step(first, made))), 'ok');
  });

  it('the step’s name is its content, whoever signed it', () => {
    const made = unwrap(next(first, {}));
    const id = (bytes: Uint8Array): string => stepIdOf(unwrap(readPublisherTargets(bytes)));
    assert.equal(id(made), id(addSignature(made, other)));
    assert.equal(id(made), id(unwrap(next(first, { signers: [other] }))));
    assert.notEqual(id(made), id(unwrap(next(first, { expiresAtMs: expiresAtMs + 1_000 }))));
  });
});

describe('signatures of two who sign at once', () => {
  const keys = [acme.publicKey, other.publicKey];
  const byAcme = unwrap(next(first, {}));
  const byOther = unwrap(next(first, { signers: [other] }));

  it('both are kept, and no forged one takes the place of a valid one', () => {
    const merged = mergeSignatures(byAcme, byOther, keys);
    assert.ok(merged);
    assert.equal(countValidSignatures(merged, keys), 2);
    const forged = JSON.parse(new TextDecoder().decode(byOther));
    forged.signatures.push({ keyid: acme.keyId, sig: '00'.repeat(64) });
    const bytes = new TextEncoder().encode(JSON.stringify(forged));
    for (const [before, after] of [
      [byAcme, bytes],
      [bytes, byAcme],
    ] as const) {
      const kept = mergeSignatures(before, after, keys);
      assert.ok(kept);
      assert.equal(countValidSignatures(kept, keys), 2);
    }
  });

  it('only of the same content', () => {
    assert.equal(
      mergeSignatures(byAcme, unwrap(next(first, { expiresAtMs: expiresAtMs + 1_000 })), keys),
      null,
    );
    assert.equal(mergeSignatures(byAcme, canonicalJson({}), keys), null);
  });
});
