// Why: what a publisher, or who stole its key, can do to its own namespace and to no other.
// Trusts: the fixture's repository. Must never: see the refresh of the other namespaces fail.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { findRelease } from '../../shared/trust/tuf/client.ts';
import { codeOf, forge, type Repository, settled, signerNamed } from './catalogue-fixture.ts';

const detector = { namespace: 'acme', name: 'detector', version: '1.0.0' };

interface Attack {
  what: string;
  /** Refusal expected from `findRelease` for this namespace. */
  code: string;
  run(repository: Repository): void;
}

const namespaceAttacks: Attack[] = [
  {
    what: 'a namespace signed by another publisher',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.publishers.set('acme', signerNamed('beta'));
      repository.publishNamespace('acme');
    },
  },
  {
    what: 'a namespace signed by the top-level key',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.publishers.set('acme', repository.targetsSigner);
      repository.publishNamespace('acme');
    },
  },
  {
    what: 'another namespace’s file',
    code: 'metadata-signature-invalid',
    run(repository) {
      repository.files.set(
        `${repository.next('acme')}.acme.json`,
        forge(
          repository.current('beta'),
          (file) => (file.signed['version'] = repository.versions.get('acme')),
          [signerNamed('beta')],
        ),
      );
    },
  },
  {
    what: 'a namespace’s file with a flipped bit',
    code: 'metadata-digest-mismatch',
    run(repository) {
      repository.publishNamespace('acme');
    },
  },
  {
    what: 'a target without digests',
    code: 'metadata-malformed',
    run(repository) {
      repository.files.set(
        `${repository.next('acme')}.acme.json`,
        forge(
          repository.files.get('2.acme.json') ?? new Uint8Array(),
          (file) => {
            file.signed['version'] = repository.versions.get('acme');
            file.signed['targets'] = { 'acme/detector/1.0.0': { length: 100, hashes: {} } };
          },
          [signerNamed('acme')],
        ),
      );
    },
  },
];

describe('attacks on a namespace', () => {
  for (const attack of namespaceAttacks) {
    it(`${attack.what}: ${attack.code}`, async () => {
      const { repository, device } = await settled();
      repository.release('acme/detector/1.1.0', 2);
      assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
      attack.run(repository);
      const version = repository.versions.get('acme') ?? 0;
      const bytes = repository.files.get(`${version}.acme.json`) ?? new Uint8Array();
      repository.publishSnapshot();
      if (attack.code === 'metadata-digest-mismatch') {
        const flipped = new Uint8Array(bytes);
        flipped[200] = (flipped[200] ?? 0) ^ 1;
        repository.files.set(`${version}.acme.json`, flipped);
      }
      assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
      assert.equal(codeOf(findRelease(device.state, detector)), attack.code);
      assert.equal(
        codeOf(findRelease(device.state, { namespace: 'beta', name: 'voice', version: '1.0.0' })),
        'ok',
      );
    });
  }
});
