// Why: the client workflow of TUF 1.0.34 §5.3–5.6 when nobody attacks, and what the stored state answers.
// Trusts: the fixture's repository. Must never: assert prose.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { findRelease, verifyStoredCatalogue } from '../../shared/trust/tuf/client.ts';
import { describeFile } from '../../shared/trust/tuf/repository.ts';
import {
  codeOf,
  Device,
  dayMs,
  entry,
  fetchFrom,
  nowMs,
  Repository,
  settled,
  signerNamed,
} from './catalogue-fixture.ts';

const detector = { namespace: 'acme', name: 'detector', version: '1.0.0' };

describe('refreshing the catalogue', () => {
  it('ends with a verified state that answers without network', async () => {
    const { device } = await settled();
    assert.deepEqual(device.asked, [
      '2.root.json',
      'timestamp.json',
      '1.snapshot.json',
      '1.targets.json',
      '1.acme.json',
      '1.beta.json',
    ]);
    assert.equal(codeOf(verifyStoredCatalogue(device.state)), 'ok');
    assert.deepEqual(findRelease(device.state, detector), {
      ok: true,
      value: {
        sha256: entry(1).sha256,
        bytes: 100,
        counter: 1,
        floor: 0,
        withdrawn: false,
        requires: { opset: 17 },
      },
    });
  });

  it('asks again only for what changed', async () => {
    const { repository, device } = await settled();
    await device.refresh(repository.files);
    assert.deepEqual(device.asked, ['2.root.json', 'timestamp.json']);
    repository.release('acme/detector/1.1.0', 2);
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    assert.deepEqual(device.asked, ['2.root.json', 'timestamp.json', '2.snapshot.json', '2.acme.json']);
    assert.equal(codeOf(findRelease(device.state, { ...detector, version: '1.1.0' })), 'ok');
  });

  it('fetches a namespace that is wanted later, though the timestamp is the same', async () => {
    const repository = new Repository();
    const device = new Device(repository.firstRoot);
    await device.refresh(repository.files, { namespaces: ['beta'] });
    assert.equal(codeOf(findRelease(device.state, detector)), 'metadata-missing');
    await device.refresh(repository.files, { namespaces: ['acme'] });
    assert.deepEqual(device.asked, ['2.root.json', 'timestamp.json', '1.acme.json']);
    assert.deepEqual(
      Object.keys(device.state.delegated).sort(),
      ['acme', 'beta'],
      'what is still listed is kept',
    );
    repository.release('beta/voice/1.1.0', 2);
    await device.refresh(repository.files, { namespaces: ['acme'] });
    assert.deepEqual(Object.keys(device.state.delegated), ['acme'], 'what is listed no longer goes');
  });

  it('heals stored targets and namespaces that were damaged, by asking again', async () => {
    const { repository, device } = await settled();
    const torn = (bytes: Uint8Array | null | undefined): Uint8Array =>
      (bytes ?? new Uint8Array()).subarray(0, 50);
    device.state = {
      ...device.state,
      targets: torn(device.state.targets),
      delegated: { acme: torn(device.state.delegated['acme']) },
    };
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    assert.equal(codeOf(verifyStoredCatalogue(device.state)), 'ok');
  });

  it('leaves out namespaces that the catalogue does not have', async () => {
    const repository = new Repository();
    repository.publishers.set('new', signerNamed('new'));
    repository.publishTargets();
    repository.publishers.delete('new');
    repository.publishSnapshot();
    const device = new Device(repository.firstRoot);
    assert.equal(
      codeOf(await device.refresh(repository.files, { namespaces: ['acme', 'new', 'other', 'targets'] })),
      'ok',
    );
    assert.equal(
      codeOf(findRelease(device.state, { namespace: 'other', name: 'x', version: '1.0.0' })),
      'target-unknown',
    );
    assert.equal(
      codeOf(findRelease(device.state, { namespace: 'new', name: 'x', version: '1.0.0' })),
      'target-unknown',
    );
    assert.equal(codeOf(findRelease(device.state, { ...detector, version: '9.9.9' })), 'target-unknown');
  });

  it('does not let one publisher’s expired or forged metadata hold up another’s', async () => {
    const repository = new Repository();
    repository.expiresAtMs = nowMs - 1;
    repository.publishNamespace('beta');
    repository.expiresAtMs = nowMs + dayMs;
    repository.publishSnapshot();
    const device = new Device(repository.firstRoot);
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    assert.equal(codeOf(findRelease(device.state, detector)), 'ok');
    const voice = { namespace: 'beta', name: 'voice', version: '1.0.0' };
    assert.equal(codeOf(findRelease(device.state, voice)), 'metadata-expired');
    assert.equal(device.state.refused?.['beta']?.code, 'metadata-expired');

    repository.publishers.set('beta', signerNamed('mallory'));
    repository.publishNamespace('beta');
    repository.publishSnapshot();
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    assert.equal(codeOf(findRelease(device.state, voice)), 'metadata-signature-invalid');
    assert.equal(codeOf(findRelease(device.state, detector)), 'ok');
  });

  it('fails as a whole, with the fetcher’s code, when the line breaks at any file', async () => {
    const repository = new Repository();
    const reference = new Device(repository.firstRoot);
    await reference.refresh(repository.files);
    for (const broken of reference.asked) {
      const device = new Device(repository.firstRoot);
      const before = device.state;
      const serve = fetchFrom(repository.files);
      const result = await device.refresh(async (name, max) =>
        name === broken ? refuse('bus-offline', 'cut') : serve(name, max),
      );
      assert.equal(codeOf(result), 'bus-offline', broken);
      assert.equal(device.state, before);
      assert.equal(codeOf(await device.refresh(repository.files)), 'ok', `after ${broken}`);
    }
  });
});

describe('a stored state', () => {
  it('is verified from its root down before it answers', async () => {
    const { repository, device } = await settled();
    const { state } = device;
    const other = new Repository();
    other.release('acme/detector/2.0.0', 5);
    const otherDevice = new Device(other.firstRoot);
    await otherDevice.refresh(other.files);
    const foreign = otherDevice.state;
    assert.equal(codeOf(findRelease({ ...state, timestamp: null }, detector)), 'metadata-missing');
    assert.equal(codeOf(findRelease({ ...state, delegated: {} }, detector)), 'metadata-missing');
    assert.equal(
      codeOf(findRelease({ ...state, snapshot: foreign.snapshot }, detector)),
      'metadata-digest-mismatch',
    );
    assert.equal(
      codeOf(findRelease({ ...state, delegated: foreign.delegated }, detector)),
      'metadata-digest-mismatch',
    );
    assert.equal(
      codeOf(findRelease({ ...state, targets: state.snapshot }, detector)),
      'metadata-digest-mismatch',
    );
    const stranger = new Repository();
    stranger.timestampSigner = signerNamed('mallory');
    stranger.publishTimestamp();
    assert.equal(
      codeOf(findRelease({ ...state, timestamp: stranger.files.get('timestamp.json') ?? null }, detector)),
      'metadata-signature-invalid',
    );
    assert.equal(
      codeOf(
        findRelease({ ...state, root: repository.files.get('timestamp.json') ?? new Uint8Array() }, detector),
      ),
      'metadata-malformed',
    );
  });

  it('answers after its dates have passed: expiry blocks installs, which refresh, and not what runs', async () => {
    const { repository, device } = await settled();
    assert.equal(
      codeOf(await device.refresh(repository.files, { nowMs: nowMs + 8 * dayMs })),
      'metadata-expired',
    );
    assert.equal(codeOf(findRelease(device.state, detector)), 'ok');
  });

  it('tells the floor that the publisher signed', async () => {
    const { repository, device } = await settled();
    repository.floors.set(
      'acme',
      new Map([
        ['detector', 4],
        ['constructor', 2],
      ]),
    );
    repository.release('acme/constructor/1.0.0', 3);
    assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    const found = findRelease(device.state, detector);
    assert.equal(found.ok && found.value.floor, 4);
    const odd = findRelease(device.state, { namespace: 'acme', name: 'constructor', version: '1.0.0' });
    assert.equal(odd.ok && odd.value.floor, 2);
  });

  it('holds listed lengths and digests each on its own', async () => {
    for (const missing of [{ sha256: null }, { bytes: null }]) {
      const { repository, device } = await settled();
      const bytes = repository.publishSnapshot();
      const name = `${repository.versions.get('snapshot')}.snapshot.json`;
      repository.publishTimestamp({ ...describeFile(bytes), ...missing });
      repository.files.set(name, bytes.subarray(1));
      assert.equal(codeOf(await device.refresh(repository.files)), 'metadata-digest-mismatch');
      repository.files.set(name, bytes);
      assert.equal(codeOf(await device.refresh(repository.files)), 'ok');
    }
  });

  it('does not believe a fetcher that gives more than was asked for', async () => {
    const repository = new Repository();
    const device = new Device(repository.firstRoot);
    const serve = fetchFrom(repository.files);
    const result = await device.refresh(async (name, max) => {
      const file = await serve(name, max);
      return name === '1.snapshot.json' && file.ok ? ok(new Uint8Array([...file.value, 0x20])) : file;
    });
    assert.equal(codeOf(result), 'metadata-too-large');
  });
});
