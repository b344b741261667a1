// Why: what the tools of publishers and registry say to files that are spoilt: making, reviewing, signing and
// merging. Trusts: the hostile repository. Must never: judge a step again; those rows are publisher-steps.ts.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  checkPublisherMetadata,
  checkPublisherStep,
  nextCounter,
  nextPublisherTargets,
} from '../../shared/trust/tuf/publisher.ts';
import { reviewStep } from '../../shared/trust/tuf/publisher-review.ts';
import { addSignature, countValidSignatures, mergeSignatures } from '../../shared/trust/tuf/repository.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow, resultOf } from './direct-rows.ts';
import { type Edit, encode, HostileRepository, nowMs, signerNamed } from './hostile-repository.ts';
import { scene } from './publisher-steps.ts';

const acme = signerNamed('acme');
const second = signerNamed('acme-2');
const mallory = signerNamed('mallory');
const detector = { namespace: 'acme', name: 'detector' };

/** A renewal whose version follows this one. */
function renewalAfter(version: number): Result<unknown> {
  const repository = new HostileRepository();
  repository.publish('acme', { alone: true, version });
  const current = repository.bytes('acme');
  const next = repository.publish('acme', { alone: true });
  const role = { keys: [acme.publicKey], threshold: 1 };
  return checkPublisherMetadata({ namespace: 'acme', role, current, next, nowMs });
}

/** New releases of the detector under these versions, with counters that grow. */
function addAll(...versions: string[]): Result<unknown> {
  const add = versions.map((version, index) => ({
    release: { ...detector, version },
    entry: { bytes: 1, sha256: `${index}`.repeat(64), requires: null, counter: 10 + index },
  }));
  const { current } = scene();
  return nextPublisherTargets({
    namespace: 'acme',
    current,
    add,
    expiresAtMs: nowMs + 1_000,
    signers: [acme],
  });
}

function reviewed(edit: Edit): Result<unknown> {
  const step = checkPublisherStep({ namespace: 'acme', ...scene(edit) });
  return step.ok ? reviewStep('acme', step.value) : step;
}

/** Whether both keys have signed what these two files become. */
function merged(a: Uint8Array, b: Uint8Array): Result<unknown> {
  const keys = [acme.publicKey, second.publicKey];
  const both = mergeSignatures(a, b, keys);
  if (both === null) return refuse('metadata-malformed', 'nothing to merge');
  return countValidSignatures(both, keys) === 2 ? ok() : refuse('metadata-signature-invalid', 'not both');
}

const file = (edit: Edit = {}): Uint8Array => scene(edit).next;
const bySecond: Edit = { signers: [second] };
const garbage = encode('[]');
const merges: [string, string, ErrorCode, Uint8Array, Uint8Array][] = [
  [
    'first-garbage',
    'a waiting step that is no metadata, to be merged with one that is',
    'metadata-malformed',
    garbage,
    file(bySecond),
  ],
  [
    'second-garbage',
    'a step that is no metadata, to be merged with the waiting one',
    'metadata-malformed',
    file(),
    garbage,
  ],
  [
    'other-content',
    'a step of other content, whose signatures are to be merged with the waiting one’s',
    'metadata-malformed',
    file(),
    file({ ...bySecond, expiresAtMs: nowMs + 1_000 }),
  ],
  [
    'stranger',
    'a stranger’s signature, to be merged with a publisher’s',
    'metadata-signature-invalid',
    file(),
    file({ signers: [mallory] }),
  ],
];

export const publisherTools: AttackCase[] = [
  directRow(
    'upload',
    'publisher-version-last',
    'a publisher’s file of the first version that could not be asked for by its name',
    'metadata-version-invalid',
    () => ({ honest: renewalAfter(999_999_998), forged: renewalAfter(999_999_999) }),
  ),
  directRow(
    'upload',
    'publisher-tool-release-twice',
    'a publisher’s tool that is told to sign two contents under one release',
    'release-exists',
    () => ({ honest: addAll('9.0.0', '9.1.0'), forged: addAll('9.0.0', '9.0.0') }),
  ),
  directRow(
    'upload',
    'publisher-next-counter-of-garbage',
    'the next counter of a file that is none',
    'metadata-malformed',
    () => ({ honest: nextCounter(scene().current, detector), forged: nextCounter(garbage, detector) }),
  ),
  directRow(
    'upload',
    'review-unsaid',
    'a waiting step with a field that its signer is not shown',
    'metadata-malformed',
    () => ({
      honest: reviewed({}),
      forged: reviewed({ change: (signed) => (signed['x-unsaid'] = 1) }),
    }),
  ),
  directRow(
    'upload',
    'sign-no-signatures',
    'a signer’s tool that is handed a file without signatures',
    'metadata-malformed',
    () => ({
      honest: resultOf(() => addSignature(file(), second)),
      forged: resultOf(() => addSignature(encode('{"signed":{"_type":"targets"}}'), second)),
    }),
  ),
  ...merges.map(([id, attack, code, a, b]) =>
    directRow('upload', `merge-${id}`, attack, code, () => ({
      honest: merged(file(), file(bySecond)),
      forged: merged(a, b),
    })),
  ),
];
