// Why: keys change, roots follow roots, thresholds count keys (TUF 1.0.34 §5.3, §6.1).
// Trusts: the fixture's repository. Must never: rotate without showing what the old keys can do no longer.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { limits } from '../../shared/kernel/limits.ts';
import { refuse } from '../../shared/kernel/result.ts';
import { findRelease } from '../../shared/trust/tuf/client.ts';
import { makeTargets } from '../../shared/trust/tuf/repository.ts';
import {
  codeOf,
  Device,
  dayMs,
  entry,
  fetchFrom,
  forge,
  nowMs,
  Repository,
  role,
  settled,
  signerNamed,
  wireKeyId,
} from './catalogue-fixture.ts';

const detector = { namespace: 'acme', name: 'detector', version: '1.0.0' };

describe('rotations', () => {
  it('walks a chain of roots with changing keys, saving each at once', async () => {
    const { repository, device } = await settled();
    for (let round = 1; round <= 5; round += 1) {
      const before = repository.rootSigners;
      repository.rootSigners = [1, 2, 3].map((index) => signerNamed(`root-${index}-${round}`));
      repository.publishRoot(before);
    }
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    assert.deepEqual(
      device.savedRoots.map((root) => Buffer.from(root)),
      [2, 3, 4, 5, 6].map((version) =>
        Buffer.from(repository.files.get(`${version}.root.json`) ?? new Uint8Array()),
      ),
    );
    await device.refresh(repository.files);
    assert.equal(device.asked[0], '7.root.json');
  });

  it('passes an expired root in the middle of the chain', async () => {
    const { repository, device } = await settled();
    repository.expiresAtMs = nowMs - dayMs;
    repository.publishRoot();
    repository.expiresAtMs = nowMs + dayMs;
    repository.publishRoot();
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
  });

  it('keeps the roots it walked when the rest fails', async () => {
    const { repository, device } = await settled();
    repository.publishRoot();
    repository.files.delete('timestamp.json');
    assert.equal(codeOf(await device.refresh(repository.files)), 'metadata-missing');
    assert.equal(device.state.root, device.savedRoots[0]);
  });

  it('stops after a bounded number of roots', async () => {
    const { repository, device } = await settled();
    for (let round = 0; round < limits.rootRotationsMax; round += 1) repository.publishRoot();
    assert.equal(codeOf(await device.refresh(repository.files)), 'metadata-too-large');
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok', 'it goes on from there');
  });

  for (const name of ['timestampSigner', 'snapshotSigner'] as const) {
    it(`§5.3.11 recovers from a fast-forward attack by a new ${name}, even when cut after the root`, async () => {
      for (const isCut of [false, true]) {
        const { repository, device } = await settled();
        repository.versions.set('timestamp', 1_000_000);
        repository.versions.set('snapshot', 1_000_000);
        repository.publishSnapshot();
        assert.equal(codeOf(await device.refresh(repository.files)), 'ok', 'the attack, with stolen keys');

        repository.versions.set('timestamp', 1);
        repository.versions.set('snapshot', 1);
        repository.publishSnapshot();
        assert.equal(
          codeOf(await device.refresh(repository.files)),
          'metadata-rollback',
          'the device is stuck',
        );

        repository[name] = signerNamed('a new key');
        repository.publishRoot();
        repository.publishSnapshot();
        if (isCut) {
          const serve = fetchFrom(repository.files);
          const cut = await device.refresh(async (file, max) =>
            file === 'timestamp.json' ? refuse('bus-offline', 'cut') : serve(file, max),
          );
          assert.equal(codeOf(cut), 'bus-offline');
        }
        assert.equal(codeOf(await device.refresh(repository.files)), 'ok', 'the new key frees it');
      }
    });
  }

  for (const name of ['timestamp', 'snapshot'] as const) {
    it(`§5.3.11 forgets its numbers when ${name} gets a key more, though the old one still counts`, async () => {
      const { repository, device } = await settled();
      repository.publishSnapshot();
      await device.refresh(repository.files);
      const roles = repository.roles();
      const more = { ...roles[name], keys: [...roles[name].keys, signerNamed('second').publicKey] };
      repository.publishRoot([], { ...roles, [name]: more });
      repository.versions.set('timestamp', 0);
      repository.publishTimestamp();
      assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    });
  }

  it('does not forget its numbers when other keys rotate', async () => {
    const { repository, device } = await settled();
    repository.publishSnapshot();
    await device.refresh(repository.files);
    repository.targetsSigner = signerNamed('new targets key');
    repository.publishRoot();
    repository.versions.set('timestamp', 0);
    repository.publishTimestamp();
    assert.equal(codeOf(await device.refresh(repository.files)), 'metadata-rollback');
  });

  it('refuses held targets whose key was rotated out', async () => {
    const { repository, device } = await settled();
    repository.targetsSigner = signerNamed('new targets key');
    repository.publishRoot();
    assert.equal(codeOf(await device.refresh(repository.files)), 'metadata-signature-invalid');
    repository.publishTargets();
    repository.publishSnapshot();
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
  });
});

describe('thresholds', () => {
  it('count one physical key once, under whatever ids it appears', async () => {
    const repository = new Repository();
    let secondId = '';
    const twice = forge(
      repository.firstRoot,
      (file) => {
        const keys = file.signed['keys'] as Record<string, unknown>;
        const roles = file.signed['roles'] as Record<string, { keyids: string[]; threshold: number }>;
        const { keyId } = repository.timestampSigner;
        // A field that nobody knows makes another id, and a right one, of the same key.
        const again = { ...(keys[keyId] as object), note: 'the same key' };
        secondId = wireKeyId(again);
        keys[secondId] = again;
        roles['timestamp'] = { keyids: [keyId, secondId], threshold: 2 };
      },
      repository.rootSigners,
    );
    const device = new Device(twice);
    const timestamp = forge(repository.files.get('timestamp.json') ?? new Uint8Array(), (file) => {
      const [signature] = file.signatures;
      assert.ok(signature);
      file.signatures.push({ ...signature, keyid: secondId });
    });
    const files = new Map([...repository.files, ['timestamp.json', timestamp]]);
    assert.equal(codeOf(await device.refresh(files)), 'metadata-signature-invalid');
  });

  it('need two publishers where two are named', async () => {
    const repository = new Repository();
    const [one, two] = [signerNamed('acme'), signerNamed('acme-2')];
    const targets = (signers: (typeof one)[]): Uint8Array =>
      makeTargets({
        version: 2,
        expiresAtMs: nowMs + dayMs,
        targets: new Map([['acme/detector/1.0.0', entry(1)]]),
        signers,
      });
    const top = makeTargets({
      version: 2,
      expiresAtMs: nowMs + dayMs,
      delegations: [{ namespace: 'acme', ...role(2, one, two) }],
      signers: [repository.targetsSigner],
    });
    repository.versions.set('targets', 2);
    repository.files.set('2.targets.json', top);
    for (const [signers, code] of [
      [[one], 'metadata-signature-invalid'],
      [[one, one], 'error'],
      [[one, two], 'ok'],
    ] as const) {
      if (code === 'error') {
        assert.throws(() => targets([...signers]), 'a file with one key id twice is not even made');
        continue;
      }
      repository.versions.set('acme', 2);
      repository.files.set('2.acme.json', targets([...signers]));
      repository.publishSnapshot();
      const device = new Device(repository.firstRoot);
      await device.refresh(repository.files);
      assert.equal(codeOf(findRelease(device.state, detector)), code);
    }
  });
});
