// Why: one attack on the client workflow of TUF 1.0.34 §5.3–5.6 a case, each with its own code.
// Trusts: the fixture's repository. Must never: count a refusal before the honest file was accepted.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { limits } from '../../shared/kernel/limits.ts';
import { describeFile, makeTargets } from '../../shared/trust/tuf/repository.ts';
import {
  codeOf,
  type Device,
  dayMs,
  entry,
  forge,
  nowMs,
  type Repository,
  role,
  settled,
  signerNamed,
} from './catalogue-fixture.ts';

interface Attack {
  what: string;
  /** Refusal expected from the refresh. */
  code: string;
  run(repository: Repository, device: Device): void;
}

const oneByte = (bytes: Uint8Array): Uint8Array => forge(bytes, (file) => (file.signed['version'] = 77));

const attacks: Attack[] = [
  {
    what: '§5.3.4 a root that its own new keys alone signed',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.rootSigners = ['evil-1', 'evil-2', 'evil-3'].map(signerNamed);
      repository.publishRoot();
    },
  },
  {
    what: '§5.3.4 a root that the old keys alone signed',
    code: 'metadata-signature-invalid',
    run(repository) {
      const roles = { ...repository.roles(), root: role(1, signerNamed('new-root')) };
      repository.publishRoot([], roles);
    },
  },
  {
    what: '§5.3.4 a root with one of two needed signatures',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.rootSigners = repository.rootSigners.slice(0, 1);
      repository.publishRoot([], { ...repository.roles(), root: role(1, signerNamed('root-1')) });
    },
  },
  {
    what: '§5.3.5 a root that skips a version',
    code: 'metadata-version-invalid',
    run(repository) {
      repository.next('root');
      repository.files.set('2.root.json', repository.publishRoot());
    },
  },
  {
    what: '§5.3.5 the same root under the next name',
    code: 'metadata-version-invalid',
    run(repository) {
      repository.files.set('2.root.json', repository.firstRoot);
    },
  },
  {
    what: '§5.3.10 an expired last root',
    code: 'metadata-expired',
    run(repository) {
      repository.expiresAtMs = nowMs;
      repository.publishRoot();
    },
  },
  {
    what: '§5.4.1 no timestamp',
    code: 'metadata-missing',
    run: (repository) => void repository.files.delete('timestamp.json'),
  },
  {
    what: '§5.4.1 an endless timestamp',
    code: 'metadata-too-large',
    run: (repository) =>
      void repository.files.set('timestamp.json', new Uint8Array(limits.timestampBytesMax + 1)),
  },
  {
    what: '§5.4.2 a timestamp by another key',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.timestampSigner = signerNamed('mallory');
      repository.publishTimestamp();
    },
  },
  {
    what: '§5.4.2 a changed timestamp',
    code: 'metadata-signature-invalid',
    run: (repository) => void repository.files.set('timestamp.json', oneByte(repository.publishTimestamp())),
  },
  {
    what: '§5.4.2 a snapshot served as timestamp',
    code: 'metadata-malformed',
    run: (repository) => void repository.files.set('timestamp.json', repository.current('snapshot')),
  },
  {
    what: '§5.4.3.1 an older timestamp',
    code: 'metadata-rollback',
    run(repository) {
      repository.versions.set('timestamp', 0);
      repository.publishTimestamp();
    },
  },
  {
    what: '§5.4.3.2 a newer timestamp of an older snapshot',
    code: 'metadata-rollback',
    run(repository) {
      const old = forge(repository.current('snapshot'), (file) => (file.signed['version'] = 1), [
        repository.snapshotSigner,
      ]);
      repository.publishTimestamp(describeFile(old));
    },
  },
  {
    what: '§5.4.4 an expired timestamp',
    code: 'metadata-expired',
    run(repository) {
      repository.expiresAtMs = nowMs - 1;
      repository.publishTimestamp();
    },
  },
  {
    what: '§5.5.2 a snapshot of other bytes',
    code: 'metadata-digest-mismatch',
    run(repository) {
      repository.publishSnapshot();
      const name = `${repository.versions.get('snapshot')}.snapshot.json`;
      repository.files.set(
        name,
        forge(repository.current('snapshot'), (file) => (file.signed['expires'] = '2099-01-01T00:00:00Z')),
      );
    },
  },
  {
    what: '§5.5.2 a snapshot that is listed too large',
    code: 'metadata-too-large',
    run(repository) {
      repository.publishSnapshot();
      repository.publishTimestamp({
        ...describeFile(repository.current('snapshot')),
        bytes: limits.snapshotBytesMax + 1,
      });
    },
  },
  {
    what: '§5.5.3 a snapshot by another key',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.snapshotSigner = signerNamed('mallory');
      repository.publishSnapshot();
    },
  },
  {
    what: '§5.5.4 a snapshot of another version than listed',
    code: 'metadata-version-invalid',
    run(repository) {
      const bytes = repository.publishSnapshot();
      repository.files.set('9.snapshot.json', bytes);
      repository.publishTimestamp({ ...describeFile(bytes), version: 9 });
    },
  },
  {
    what: '§5.5.5 a snapshot with older targets',
    code: 'metadata-rollback',
    run(repository) {
      repository.publishSnapshot((files) =>
        files.set('targets.json', { version: 1, bytes: null, sha256: null }),
      );
    },
  },
  {
    what: '§5.5.5 a snapshot with an older namespace',
    code: 'metadata-rollback',
    run(repository) {
      repository.publishSnapshot((files) =>
        files.set('acme.json', { version: 1, bytes: null, sha256: null }),
      );
    },
  },
  {
    what: '§5.5.5 a snapshot that lists a namespace no longer',
    code: 'metadata-rollback',
    run(repository) {
      repository.publishSnapshot((files) => files.delete('beta.json'));
    },
  },
  {
    what: '§5.5.6 an expired snapshot',
    code: 'metadata-expired',
    run(repository) {
      repository.expiresAtMs = nowMs - 1;
      repository.publishSnapshot();
      repository.expiresAtMs = nowMs + dayMs;
      repository.publishTimestamp();
    },
  },
  {
    what: '§5.6.1 targets that are listed and not served',
    code: 'metadata-missing',
    run(repository) {
      repository.publishTargets();
      repository.publishSnapshot();
      repository.files.delete(`${repository.versions.get('targets')}.targets.json`);
    },
  },
  {
    what: '§5.6.2 targets of other bytes',
    code: 'metadata-digest-mismatch',
    run(repository) {
      repository.publishTargets();
      repository.publishSnapshot();
      repository.files.set(
        `${repository.versions.get('targets')}.targets.json`,
        repository.files.get('2.targets.json') ?? new Uint8Array(),
      );
    },
  },
  {
    what: '§5.6.3 targets by another key',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.targetsSigner = signerNamed('mallory');
      repository.publishTargets();
      repository.publishSnapshot();
    },
  },
  {
    what: '§5.6.4 targets of another version than listed',
    code: 'metadata-version-invalid',
    run(repository) {
      const meta = describeFile(repository.publishTargets());
      repository.files.set('9.targets.json', repository.current('targets'));
      repository.publishSnapshot((files) => files.set('targets.json', { ...meta, version: 9 }));
    },
  },
  {
    what: '§5.6.5 expired targets',
    code: 'metadata-expired',
    run(repository) {
      repository.expiresAtMs = nowMs - 1;
      repository.publishTargets();
      repository.expiresAtMs = nowMs + dayMs;
      repository.publishSnapshot();
    },
  },
  {
    what: 'top-level targets that name a release',
    code: 'metadata-malformed',
    run(repository) {
      const version = repository.next('targets');
      repository.files.set(
        `${version}.targets.json`,
        makeTargets({
          version,
          expiresAtMs: nowMs + dayMs,
          targets: new Map([['acme/detector/1.0.0', entry(9)]]),
          signers: [repository.targetsSigner],
        }),
      );
      repository.publishSnapshot();
    },
  },
  {
    what: 'a delegation that reaches into another namespace',
    code: 'metadata-malformed',
    run(repository) {
      const bytes = forge(
        repository.publishTargets(),
        (file) => {
          const delegations = file.signed['delegations'] as { roles: { paths: string[] }[] };
          delegations.roles[1]?.paths.push('acme/*/*');
        },
        [repository.targetsSigner],
      );
      repository.files.set(`${repository.versions.get('targets')}.targets.json`, bytes);
      repository.publishSnapshot();
    },
  },
  {
    what: 'a stored root that was torn',
    code: 'state-corrupt',
    run(_repository, device) {
      device.state = { ...device.state, root: device.state.root.subarray(1) };
    },
  },
];

describe('attacks on a refresh', () => {
  for (const attack of attacks) {
    it(`${attack.what}: ${attack.code}`, async () => {
      const { repository, device } = await settled();
      repository.publishTargets();
      repository.release('acme/detector/1.1.0', 2);
      assert.equal(codeOf(await device.refresh(repository.files)), 'ok', 'the honest repository is accepted');
      attack.run(repository, device);
      const { root: _before, ...before } = device.state;
      assert.equal(codeOf(await device.refresh(repository.files)), attack.code);
      const { root: _after, ...after } = device.state;
      assert.deepEqual(after, before, 'nothing of it is kept, but roots that were verified');
    });
  }
});
