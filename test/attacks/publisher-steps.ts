// Why: what the registry's decision says to a publisher's next file, whoever uploads it: nothing signed once may
// change, vanish or fall. Trusts: the hostile repository. Must never: go through HTTP; those rows are others.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import {
  checkPublisherMetadata,
  highestCounter,
  nextPublisherTargets,
} from '../../shared/trust/tuf/publisher.ts';
import { countValidSignatures, parseTargetsFile } from '../../shared/trust/tuf/repository.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import {
  type Edit,
  encode,
  HostileRepository,
  inside,
  type Json,
  nowMs,
  signerNamed,
} from './hostile-repository.ts';

const first = 'acme/detector/1.0.0';
const second = 'acme/detector/1.1.0';

/** A namespace with a release, a floor and a withdrawal, and the file that should follow. */
export function scene(edit: Edit = {}): { current: Uint8Array; next: Uint8Array } {
  const repository = new HostileRepository();
  repository.publish('acme', {
    alone: true,
    version: 1,
    change: (signed) => (signed['x-lepton'] = { floors: { detector: 1 }, withdrawn: { detector: [1] } }),
  });
  const current = repository.bytes('acme');
  repository.addRelease(second, 5);
  const next = repository.publish('acme', { alone: true, ...edit });
  return { current, next };
}

const judge = (parts: { current: Uint8Array | null; next: Uint8Array }, threshold = 1): Result<unknown> =>
  checkPublisherMetadata({
    namespace: 'acme',
    role: { keys: [signerNamed('acme').publicKey], threshold },
    ...parts,
    nowMs,
  });

const step = (id: string, attack: string, code: ErrorCode, edit: Edit): AttackCase =>
  directRow('upload', `publisher-${id}`, attack, code, () => ({
    honest: judge(scene()),
    forged: judge(scene(edit)),
  }));
const change = (work: (signed: Json) => void): Edit => ({ change: work });
const onFirst = (value: Json): Edit =>
  change((signed) => Object.assign(inside(signed, 'targets', first), value));
const own = (value: Json): Edit => change((signed) => (signed['x-lepton'] = value));

export const publisherSteps: AttackCase[] = [
  step('version-skipped', 'a publisher’s file that skips a version', 'metadata-version-invalid', {
    version: 3,
  }),
  step('version-again', 'a publisher’s file of the version that is there', 'metadata-version-invalid', {
    version: 1,
  }),
  step('no-metadata', 'an upload that is no metadata', 'metadata-malformed', { bytes: () => encode('{}') }),
  step(
    'delegates',
    'a publisher’s file that delegates to somebody else',
    'metadata-malformed',
    change((signed) => new HostileRepository().delegate(signed, 'beta')),
  ),
  step(
    'release-gone',
    'a publisher’s file without a release that was signed before',
    'metadata-rollback',
    change((signed) => delete inside(signed, 'targets')[first]),
  ),
  step(
    'release-digest',
    'a signed release with other bytes',
    'release-exists',
    onFirst({ hashes: { sha256: 'b'.repeat(64) } }),
  ),
  step('release-length', 'a signed release of another size', 'release-exists', onFirst({ length: 1 })),
  step(
    'release-counter',
    'a signed release with another counter',
    'release-exists',
    onFirst({ custom: { counter: 3, requires: { opset: 17 } } }),
  ),
  step(
    'release-requires',
    'a signed release that needs something else',
    'release-exists',
    onFirst({ custom: { counter: 1, requires: null } }),
  ),
  step(
    'floor-falls',
    'a floor that falls',
    'metadata-rollback',
    own({ floors: { detector: 0 }, withdrawn: { detector: [1] } }),
  ),
  step('floor-gone', 'a floor that is left out', 'metadata-rollback', own({ withdrawn: { detector: [1] } })),
  step(
    'withdrawn-back',
    'a withdrawn release that comes back',
    'metadata-rollback',
    own({ floors: { detector: 1 } }),
  ),
  step(
    'other-namespace',
    'a publisher’s file with a release of another namespace',
    'metadata-malformed',
    change((signed) => {
      inside(signed, 'targets')['beta/voice/9.0.0'] = inside(signed, 'targets', second);
      delete inside(signed, 'targets')[second];
    }),
  ),
  step(
    'path-outside',
    'a publisher’s file with a path that leaves its namespace',
    'metadata-malformed',
    change((signed) => {
      inside(signed, 'targets')['acme/../beta/1.0.0'] = inside(signed, 'targets', second);
    }),
  ),
  step(
    'no-counter',
    'a release without a counter',
    'metadata-malformed',
    change((signed) => (inside(signed, 'targets', second)['custom'] = {})),
  ),
  step(
    'counter-taken',
    'two new releases with one counter',
    'conflict',
    change((signed) => {
      inside(signed, 'targets')['acme/detector/1.2.0'] = inside(signed, 'targets', second);
    }),
  ),
  step(
    'counter-falls',
    'a new release with a counter that does not grow',
    'conflict',
    change((signed) => {
      inside(signed, 'targets', second, 'custom')['counter'] = 0;
    }),
  ),
  step(
    'below-floor',
    'a new release below the floor that comes with it: nobody could be given it',
    'release-below-floor',
    own({ floors: { detector: 6 }, withdrawn: { detector: [1] } }),
  ),
  step(
    'withdrawn-nothing',
    'a withdrawal of a counter that no release has, which would take back what is signed later',
    'target-unknown',
    own({ floors: { detector: 1 }, withdrawn: { detector: [1, 77] } }),
  ),
  step('stranger', 'a publisher’s file signed by somebody else', 'metadata-signature-invalid', {
    signers: [signerNamed('mallory')],
  }),
  step('expired', 'a publisher’s file that is over when it comes', 'metadata-expired', {
    expiresAtMs: nowMs,
  }),
  directRow(
    'upload',
    'publisher-below-its-threshold',
    'one of two keys that a namespace needs',
    'metadata-signature-invalid',
    () => ({
      honest: judge(scene()),
      forged: judge(scene(), 2),
    }),
  ),
  directRow(
    'upload',
    'publisher-current-torn',
    'a stored publisher’s file that was cut',
    'metadata-malformed',
    () => {
      const { current, next } = scene();
      return { honest: judge({ current, next }), forged: judge({ current: current.subarray(0, 100), next }) };
    },
  ),
  directRow(
    'upload',
    'publisher-tool-no-metadata',
    'a publisher’s tool that is handed a broken current file',
    'metadata-malformed',
    () => {
      const { current } = scene();
      const next = (bytes: Uint8Array) =>
        nextPublisherTargets({
          namespace: 'acme',
          current: bytes,
          add: [],
          expiresAtMs: nowMs + 1_000,
          signers: [signerNamed('acme')],
        });
      return { honest: next(current), forged: next(encode('[]')) };
    },
  ),
  ...(
    [
      [
        'other-namespace',
        'a publisher’s tool that is told to sign for another namespace',
        'input-invalid',
        'beta',
        '9.0.0',
        9,
      ],
      [
        'release-exists',
        'a publisher’s tool that is told to sign a release again',
        'release-exists',
        'acme',
        '1.0.0',
        9,
      ],
      ['counter-falls', 'a publisher’s tool that is told to reuse a counter', 'conflict', 'acme', '9.0.0', 1],
    ] as const
  ).map(([id, attack, code, namespace, version, counter]) =>
    directRow('upload', `publisher-tool-${id}`, attack, code, () => {
      const { current } = scene();
      const entry = { bytes: 1, sha256: 'c'.repeat(64), requires: null };
      const add = (name: string, at: string, count: number) =>
        nextPublisherTargets({
          namespace: 'acme',
          current,
          add: [
            {
              release: { namespace: name, name: 'detector', version: at },
              entry: { ...entry, counter: count },
            },
          ],
          expiresAtMs: nowMs + 1_000,
          signers: [signerNamed('acme')],
        });
      return { honest: add('acme', '9.0.0', 9), forged: add(namespace, version, counter) };
    }),
  ),
  directRow(
    'upload',
    'publisher-counter-of-garbage',
    'the highest counter of a file that is none',
    'metadata-malformed',
    () => {
      const model = { namespace: 'acme', name: 'detector' };
      return { honest: highestCounter(scene().current, model), forged: highestCounter(encode('[]'), model) };
    },
  ),
  directRow('upload', 'targets-file-garbage', 'a targets file that is none', 'metadata-malformed', () => ({
    honest: parseTargetsFile(scene().next),
    forged: parseTargetsFile(encode('7')),
  })),
  directRow(
    'upload',
    'targets-file-wide',
    'a targets file whose delegation covers all',
    'metadata-malformed',
    () => {
      const repository = new HostileRepository();
      const wide = repository.publish('targets', {
        change: (signed) =>
          Object.assign((inside(signed, 'delegations')['roles'] as Json[])[0] ?? {}, { paths: ['*'] }),
      });
      return {
        honest: parseTargetsFile(new HostileRepository().bytes('targets')),
        forged: parseTargetsFile(wide),
      };
    },
  ),
  ...(
    [
      ['garbage', 'bytes that are no JSON', encode('{')],
      ['no-signed', 'a file without a signed part', encode('{"signatures":[]}')],
      ['no-signatures', 'a file without signatures', encode('{"signed":{"_type":"targets"}}')],
      [
        'malformed',
        'a signed part that is no metadata',
        encode('{"signatures":[],"signed":{"_type":"root"}}'),
      ],
    ] as const
  ).map(([id, attack, bytes]) =>
    directRow(
      'upload',
      `signatures-of-${id}`,
      `counting the signatures of ${attack}`,
      'metadata-signature-invalid',
      () => {
        const count = (file: Uint8Array): Result<unknown> =>
          countValidSignatures(file, [signerNamed('acme').publicKey]) === 1
            ? ok()
            : refuse('metadata-signature-invalid', 'none');
        return { honest: count(scene().next), forged: count(bytes) };
      },
    ),
  ),
];
