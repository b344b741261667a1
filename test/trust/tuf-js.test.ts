// Why: another TUF client must read our repository as we do, or the wire format is not TUF's.
// Trusts: tuf-js 5.0.1 for honest repositories only; where it was measured to be wrong, we must refuse.
// Must never: use the network; both clients read the same map of files.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { findRelease } from '../../shared/trust/tuf/client.ts';
import {
  codeOf,
  Device,
  dayMs,
  entry,
  forge,
  nowMs,
  Repository,
  signerNamed,
  wireKeyId,
} from './catalogue-fixture.ts';
import { TufJsClient } from './tuf-js-client.ts';

/** tuf-js reads the machine's clock, so these repositories live far in the future. */
function lasting(): Repository {
  const repository = new Repository();
  repository.expiresAtMs = Date.UTC(2090, 0, 1);
  repository.publishRoot();
  repository.publishTargets();
  for (const namespace of repository.publishers.keys()) repository.publishNamespace(namespace);
  repository.publishSnapshot();
  return repository;
}

const path = 'acme/detector/1.0.0';
const detector = { namespace: 'acme', name: 'detector', version: '1.0.0' };

/** Digest that tuf-js finds for a target, null where it names none, or the error it throws. */
async function askTufJs(
  root: Uint8Array,
  files: ReadonlyMap<string, Uint8Array>,
  path: string,
): Promise<string | null | Error> {
  const client = new TufJsClient(root);
  try {
    return await client.ask((name) => files.get(name) ?? null, path);
  } finally {
    client.remove();
  }
}

describe('tuf-js', () => {
  it('finds the same targets in repositories with any history', async () => {
    const steps = fc.array(
      fc.constantFrom('release', 'root', 'root-key', 'targets', 'floor', 'timestamp-key'),
      { maxLength: 5 },
    );
    await fc.assert(
      fc.asyncProperty(steps, async (history) => {
        const repository = lasting();
        for (const [index, step] of history.entries()) {
          if (step === 'release') repository.release(`acme/detector/1.1.${index}`, index + 2);
          if (step === 'root') repository.publishRoot();
          if (step === 'root-key') {
            const before = repository.rootSigners;
            repository.rootSigners = [...before.slice(1), signerNamed(`root ${index}`)];
            repository.publishRoot(before);
          }
          if (step === 'targets') repository.publishTargets();
          if (step === 'floor') {
            repository.floors.set('acme', new Map([['detector', index]]));
            repository.publishNamespace('acme');
          }
          if (step === 'timestamp-key') {
            repository.timestampSigner = signerNamed(`timestamp ${index}`);
            repository.publishRoot();
          }
          repository.publishSnapshot();
        }
        const device = new Device(repository.firstRoot);
        assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
        const names = [
          ...(repository.releases.get('acme')?.keys() ?? []),
          'acme/detector/9.9.9',
          'nobody/x/1.0.0',
        ];
        for (const name of names) {
          const [namespace = '', model = '', version = ''] = name.split('/');
          const ours = findRelease(device.state, { namespace, name: model, version });
          assert.equal(
            await askTufJs(repository.firstRoot, repository.files, name),
            ours.ok ? ours.value.sha256 : null,
            name,
          );
        }
      }),
      { numRuns: 8 },
    );
  });

  const forgeries: [string, (repository: Repository) => void][] = [
    [
      'a timestamp by a stranger',
      (repository) => {
        repository.timestampSigner = signerNamed('mallory');
        repository.publishTimestamp();
      },
    ],
    [
      'a snapshot by a stranger',
      (repository) => {
        repository.snapshotSigner = signerNamed('mallory');
        repository.publishSnapshot();
      },
    ],
    [
      'targets by a stranger',
      (repository) => {
        repository.targetsSigner = signerNamed('mallory');
        repository.publishTargets();
        repository.publishSnapshot();
      },
    ],
    [
      'a namespace by another publisher',
      (repository) => {
        repository.publishers.set('acme', signerNamed('beta'));
        repository.publishNamespace('acme');
        repository.publishSnapshot();
      },
    ],
    [
      'a root by its own keys alone',
      (repository) => {
        repository.rootSigners = ['x', 'y', 'z'].map(signerNamed);
        repository.publishRoot();
      },
    ],
  ];
  for (const [what, run] of forgeries) {
    it(`refuses with us ${what}`, async () => {
      const repository = lasting();
      assert.equal(await askTufJs(repository.firstRoot, repository.files, path), entry(1).sha256);
      run(repository);
      assert.ok((await askTufJs(repository.firstRoot, repository.files, path)) instanceof Error);
      const device = new Device(repository.firstRoot);
      const refreshed = await device.refresh(repository.files);
      assert.ok(!refreshed.ok || !findRelease(device.state, detector).ok);
    });
  }

  const laxities: [string, (repository: Repository) => Promise<Uint8Array> | Uint8Array][] = [
    [
      'one key under two ids for a threshold of two',
      (repository) => {
        const { keyId } = repository.timestampSigner;
        let secondId = '';
        const root = forge(
          repository.firstRoot,
          (file) => {
            const keys = file.signed['keys'] as Record<string, unknown>;
            const roles = file.signed['roles'] as Record<string, unknown>;
            const again = { ...(keys[keyId] as object), note: 'the same key' };
            secondId = wireKeyId(again);
            keys[secondId] = again;
            roles['timestamp'] = { keyids: [keyId, secondId], threshold: 2 };
          },
          repository.rootSigners,
        );
        for (const name of [...repository.files.keys()].filter((file) => file.endsWith('root.json')))
          repository.files.delete(name);
        repository.files.set(
          'timestamp.json',
          forge(repository.files.get('timestamp.json') ?? new Uint8Array(), (file) => {
            const [signature] = file.signatures;
            if (signature) file.signatures.push({ ...signature, keyid: secondId });
          }),
        );
        return root;
      },
    ],
    [
      'a date that is no date',
      (repository) => {
        repository.files.set(
          'timestamp.json',
          forge(
            repository.files.get('timestamp.json') ?? new Uint8Array(),
            (file) => (file.signed['expires'] = 'the end of days'),
            [repository.timestampSigner],
          ),
        );
        return repository.firstRoot;
      },
    ],
  ];
  for (const [what, prepare] of laxities) {
    it(`accepts ${what}, and we do not`, async () => {
      const repository = lasting();
      const root = await prepare(repository);
      assert.equal(
        await askTufJs(root, repository.files, path),
        entry(1).sha256,
        'if this fails, tuf-js was mended',
      );
      const refreshed = await new Device(root).refresh(repository.files, { nowMs: nowMs - dayMs });
      assert.ok(!refreshed.ok);
      assert.ok(['metadata-signature-invalid', 'metadata-malformed'].includes(refreshed.refusal.code));
    });
  }
});
