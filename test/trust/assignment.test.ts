// Why: what moves a device, the order in which it is doubted, and what two authorities must agree on.
// Trusts: shared/crypto. Must never: let a check be passed by an object that fails an earlier one.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { checkAgreement } from '../../shared/trust/agreement.ts';
import { type AssignmentInForce, checkAssignment, signAssignment } from '../../shared/trust/assignment.ts';
import type { RegionRoot } from '../../shared/trust/region.ts';
import {
  type AssignedRelease,
  type Assignment,
  type Envelope,
  encodeMessage,
  payloadTypes,
} from '../../shared/wire/messages.ts';
import { codeOf, Device, dayMs, entry, nowMs, Repository, role, signerNamed } from './catalogue-fixture.ts';
import { detector, device, deviceId, director, other, trusted } from './region-fixture.ts';

function assignment(changes: Partial<Assignment> = {}): Assignment {
  return {
    schemaVersion: 1,
    deviceId,
    region: 'eu',
    epoch: 5,
    issuedAtMs: nowMs,
    expiresAtMs: nowMs + dayMs,
    labels: { site: 'a\u0001b' },
    releases: [detector],
    telemetry: null,
    authoritiesSha256: null,
    ...changes,
  };
}

interface CheckParts {
  current?: AssignmentInForce | null;
  nowMs?: number;
  root?: RegionRoot;
}

const eu = trusted();

function check(envelope: Envelope, parts: CheckParts = {}): ReturnType<typeof checkAssignment> {
  return checkAssignment({
    envelope,
    regionRoot: parts.root ?? eu,
    deviceId,
    region: 'eu',
    current: parts.current ?? null,
    nowMs: parts.nowMs ?? nowMs,
  });
}

function inForce(given: Assignment): AssignmentInForce {
  const checked = check(signAssignment(given, director));
  assert.ok(checked.ok);
  return { epoch: given.epoch, payloadSha256: checked.value.payloadSha256 };
}

describe('an assignment', () => {
  it('of this device, region and director is accepted', () => {
    const checked = check(signAssignment(assignment(), director));
    assert.ok(checked.ok);
    assert.deepEqual(checked.value.assignment, assignment());
    assert.equal(checked.value.unchanged, false);
  });

  it('that is in force already is no news', () => {
    const checked = check(signAssignment(assignment(), director), { current: inForce(assignment()) });
    assert.equal(checked.ok && checked.value.unchanged, true);
  });

  const current = inForce(assignment());
  const signed = (changes: Partial<Assignment>): Envelope => signAssignment(assignment(changes), director);
  const rawSigned = (body: object | string, signer = director): Envelope =>
    signEnvelope(
      payloadTypes.assignment,
      typeof body === 'string' ? Buffer.from(body) : encodeMessage(body),
      [signer],
    );
  const cases: [string, Envelope, string, CheckParts?][] = [
    ['of a stranger', signAssignment(assignment(), other), 'assignment-signature-invalid'],
    [
      'of the region’s time key',
      signAssignment(assignment(), signerNamed('time')),
      'assignment-signature-invalid',
    ],
    ['of the device itself', signAssignment(assignment(), device), 'assignment-signature-invalid'],
    [
      'of a director that was rotated out',
      signed({}),
      'assignment-signature-invalid',
      { root: trusted({ director: role(1, other) }) },
    ],
    [
      'by one director of two',
      signed({}),
      'assignment-signature-invalid',
      { root: trusted({ director: role(2, director, other) }) },
    ],
    ['that is a report', { ...signed({}), payloadType: payloadTypes.report }, 'envelope-malformed'],
    [
      'with a changed payload',
      { ...signed({}), payload: signed({ epoch: 6 }).payload },
      'assignment-signature-invalid',
    ],
    ['without epoch', rawSigned({ ...assignment(), epoch: undefined }), 'assignment-malformed'],
    [
      'with a key twice',
      rawSigned(JSON.stringify(assignment()).replace('"epoch":5', '"epoch":5,"epoch":9')),
      'assignment-malformed',
    ],
    ['that is no JSON', rawSigned('hello'), 'assignment-malformed'],
    [
      'that serves two releases under one name',
      signed({ releases: [detector, { ...detector, counter: 2 }] }),
      'assignment-malformed',
    ],
    [
      'for another device',
      signed({ deviceId: deviceIdOf(other.publicKey), epoch: 9 }),
      'assignment-other-device',
      { current },
    ],
    ['of another region', signed({ region: 'us', epoch: 9 }), 'assignment-other-region', { current }],
    [
      'judged by another region’s root',
      signed({}),
      'assignment-other-region',
      { root: trusted({ region: 'us' }) },
    ],
    ['of an older epoch', signed({ epoch: 4 }), 'assignment-replayed', { current }],
    [
      'of the same epoch with other content',
      signed({ releases: [] }),
      'assignment-epoch-reused',
      { current },
    ],
    ['that has expired', signed({ epoch: 6, expiresAtMs: nowMs }), 'assignment-expired', { current }],
    [
      'under an expired region root',
      signed({}),
      'metadata-expired',
      { root: trusted({ expiresAtMs: nowMs - dayMs }) },
    ],
    ['that removes everything', signed({ epoch: 6, releases: [] }), 'ok', { current }],
  ];
  for (const [what, envelope, code, parts] of cases) {
    it(`${what}: ${code}`, () => assert.equal(codeOf(check(envelope, parts)), code));
  }

  it('is doubted in a fixed order: an earlier fault hides a later one', () => {
    const faults: [Partial<Assignment>, string][] = [
      [{ deviceId: deviceIdOf(other.publicKey) }, 'assignment-other-device'],
      [{ region: 'us' }, 'assignment-other-region'],
      [{ epoch: 4 }, 'assignment-replayed'],
      [{ expiresAtMs: nowMs - 1 }, 'assignment-expired'],
    ];
    fc.assert(
      fc.property(fc.subarray([0, 1, 2, 3], { minLength: 1 }), (picked) => {
        const changes = Object.assign({ epoch: 6 }, ...picked.map((index) => faults[index]?.[0]));
        assert.equal(codeOf(check(signed(changes), { current })), faults[Math.min(...picked)]?.[1]);
      }),
    );
  });

  it('never lowers the epoch over any order of genuine assignments', () => {
    const epochs = fc.array(
      fc.record({ epoch: fc.integer({ min: 1, max: 6 }), labels: fc.constantFrom({}, { a: 'b' }) }),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(epochs, (arrivals) => {
        const kept: AssignmentInForce[] = [];
        for (const arrival of arrivals) {
          const before = kept.at(-1) ?? null;
          const checked = check(signed(arrival), { current: before });
          if (!checked.ok) continue;
          const { payloadSha256, unchanged } = checked.value;
          if (before !== null && arrival.epoch <= before.epoch) {
            assert.ok(unchanged);
            assert.deepEqual(before, { epoch: arrival.epoch, payloadSha256 });
          }
          kept.push({ epoch: arrival.epoch, payloadSha256 });
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe('agreement of director and publisher', () => {
  it('is on the same bytes, counter and floor', async () => {
    const repository = new Repository();
    repository.releases.get('acme')?.set('acme/detector/1.1.0', entry(2));
    repository.releases.get('acme')?.set('acme/old/1.0.0', entry(1));
    repository.floors.set(
      'acme',
      new Map([
        ['detector', 1],
        ['old', 2],
      ]),
    );
    repository.publishNamespace('acme');
    repository.publishSnapshot();
    const home = new Device(repository.firstRoot);
    await home.refresh(repository.files);
    const cases: [Partial<AssignedRelease>, string][] = [
      [{}, 'ok'],
      [{ releaseId: 'acme/detector@9.0.0' }, 'target-unknown'],
      [{ releaseId: 'acme/other@1.0.0' }, 'target-unknown'],
      [{ releaseId: 'nobody/detector@1.0.0' }, 'target-unknown'],
      [{ releaseId: 'acme/detector@01.0.0' }, 'target-unknown'],
      [{ releaseId: 'acme/detector@1.1.0' }, 'target-digest-mismatch'],
      [{ manifestSha256: 'b'.repeat(64) }, 'target-digest-mismatch'],
      [{ manifestBytes: 101 }, 'target-digest-mismatch'],
      [{ counter: 2 }, 'release-counter-mismatch'],
      [{ requires: null }, 'release-requires-mismatch'],
      [{ requires: { opset: 18 } }, 'release-requires-mismatch'],
      [{ releaseId: 'acme/old@1.0.0' }, 'release-below-floor'],
      [{ releaseId: 'acme/old@1.0.0', counter: 2 }, 'release-counter-mismatch'],
    ];
    for (const [changes, code] of cases) {
      assert.equal(
        codeOf(checkAgreement(home.state, { ...detector, ...changes })),
        code,
        JSON.stringify(changes),
      );
    }
    const fresh = new Device(repository.firstRoot);
    assert.equal(codeOf(checkAgreement(fresh.state, detector)), 'metadata-missing');
  });
});
