// Why: a release is in the catalogue only as a whole: files here, model admitted, signed by its publishers.
// Trusts: shared/trust for signatures. Must never: need a model from outside for the rules themselves.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { addSignature } from '../../shared/trust/tuf/repository.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import {
  type Bench,
  bench,
  dayMs,
  hexOf,
  identityModel,
  once,
  preparePush,
  publisherKey,
} from './support.ts';

const key = publisherKey('acme');

async function acme(t: Parameters<typeof bench>[0]): Promise<Bench> {
  const made = await bench(t);
  unwrap(await made.repository.delegate('acme', [hexOf(key)], 1));
  return made;
}

async function prepare(
  { repository, clock }: Bench,
  releaseId: string,
  counter: number,
  options: { model?: Uint8Array; manifest?: object; signers?: Signer[] } = {},
) {
  const namespace = releaseId.slice(0, releaseId.indexOf('/'));
  const version = (await repository.publisher(namespace))?.metadataVersion ?? 0;
  return preparePush({
    releaseId,
    model: options.model ?? identityModel(releaseId),
    current: await repository.file(`${version}.${namespace}.json`),
    counter,
    signers: options.signers ?? [key],
    expiresAtMs: clock.wall() + 365 * dayMs,
    ...(options.manifest === undefined ? {} : { manifest: options.manifest }),
  });
}

test('a push is listed, found, and its manifest is a blob for devices', async (t) => {
  const made = await acme(t);
  const { releases, blobs } = made;
  for (const [version, counter] of [
    ['1.0.0', 1],
    ['1.1.0', 2],
  ] as const) {
    const push = await prepare(made, `acme/echo@${version}`, counter);
    unwrap(await blobs.put(sha256Hex(push.model), once(push.model)));
    const digest = sha256Hex(push.manifest);
    assert.deepEqual(unwrap(await releases.push(push)), {
      status: 'accepted',
      releaseId: `acme/echo@${version}`,
      digest,
      counter,
    });
    assert.deepEqual(await blobs.read(digest), new Uint8Array(push.manifest));
    // The same request once more, as after a lost answer.
    assert.equal(unwrap(await releases.push(push)).status, 'accepted');
  }
  const [model, ...others] = await releases.list();
  assert.equal(others.length, 0);
  assert.equal(model?.name, 'acme/echo');
  assert.deepEqual(
    model?.versions.map((one) => [one.version, one.counter, one.signedBy, one.admitted]),
    [
      ['1.1.0', 2, [key.keyId], true],
      ['1.0.0', 1, [key.keyId], true],
    ],
  );
  const found = await releases.find('acme/echo@1.0.0');
  assert.equal(found?.counter, 1);
  assert.equal(found?.manifest.files[0]?.path, 'model.onnx');
  assert.equal(await releases.find('acme/echo@9.9.9'), null);
  const missing = await releases.show('acme/none');
  assert.equal(missing.ok ? 'found' : missing.refusal.code, 'not-found');
  assert.equal(unwrap(await releases.show('acme/echo')).versions.length, 2);
});

test('each way in which a push is not whole has its code, and leaves the catalogue as it was', async (t) => {
  const made = await acme(t);
  const { releases, blobs, repository } = made;
  const good = await prepare(made, 'acme/echo@1.0.0', 1);
  const code = async (push: typeof good): Promise<string> => {
    const result = await releases.push(push);
    return result.ok ? result.value.status : result.refusal.code;
  };
  const before = await repository.file('timestamp.json');

  assert.equal(await code(good), 'blob-missing');
  unwrap(await blobs.put(sha256Hex(good.model), once(good.model)));
  assert.equal(await code({ ...good, manifest: Buffer.from('{') }), 'manifest-malformed');
  assert.equal(await code({ ...good, releaseId: 'acme/echo@1.0.1' }), 'manifest-malformed');
  assert.equal(await code({ ...good, releaseId: 'nonsense' }), 'input-invalid');
  const respaced = Buffer.from(`${Buffer.from(good.manifest).toString()}\n`);
  assert.equal(await code({ ...good, manifest: respaced }), 'target-digest-mismatch');
  const renamed = Buffer.from(Buffer.from(good.manifest).toString().replace('model.onnx', 'other.onnx'));
  assert.equal(renamed.length, good.manifest.length);
  assert.equal(await code({ ...good, manifest: renamed }), 'target-digest-mismatch');
  const wrongSize = await prepare(made, 'acme/echo@1.0.0', 1, {
    manifest: { files: [{ path: 'm.onnx', role: 'model', sha256: sha256Hex(good.model), bytes: 1 }] },
  });
  assert.equal(await code(wrongSize), 'blob-size-mismatch');
  const lying = await prepare(made, 'acme/echo@1.0.0', 1, {
    model: good.model,
    manifest: { inputs: [{ name: 'image', datatype: 'FP32', shape: [1] }] },
  });
  assert.equal(await code(lying), 'manifest-malformed');
  const text = Buffer.from('version https://git-lfs.github.com/spec/v1\n');
  unwrap(await blobs.put(sha256Hex(text), once(text)));
  assert.equal(await code(await prepare(made, 'acme/echo@1.0.0', 1, { model: text })), 'model-not-onnx');
  const golden = Buffer.from('[{"request": 1}]');
  unwrap(await blobs.put(sha256Hex(golden), once(golden)));
  const badGolden = await prepare(made, 'acme/echo@1.0.0', 1, {
    model: good.model,
    manifest: {
      files: [
        { path: 'm.onnx', role: 'model', sha256: sha256Hex(good.model), bytes: good.model.length },
        { path: 'golden.json', role: 'golden', sha256: sha256Hex(golden), bytes: golden.length },
      ],
    },
  });
  assert.equal(await code(badGolden), 'golden-malformed');
  assert.deepEqual(await releases.list(), []);
  assert.deepEqual(await repository.file('timestamp.json'), before);

  assert.equal(await code(good), 'accepted');
  const changed = await prepare(made, 'acme/other@1.0.0', 1, { model: identityModel('other') });
  assert.equal(await code({ ...changed, releaseId: 'acme/echo@1.0.0' }), 'release-exists');
  const stale = { ...good, metadata: changed.metadata };
  assert.equal(await code(stale), 'release-exists');
});

test('below the threshold a push waits, and the second signature brings it in', async (t) => {
  const made = await bench(t);
  const { releases, blobs, repository } = made;
  const [a, b] = [publisherKey('a'), publisherKey('b')];
  unwrap(await repository.delegate('duo', [hexOf(a), hexOf(b)], 2));
  const push = await prepare(made, 'duo/echo@1.0.0', 1, { signers: [a] });
  unwrap(await blobs.put(sha256Hex(push.model), once(push.model)));
  const waiting = unwrap(await releases.push(push));
  assert.equal(waiting.status, 'awaiting-signatures');
  assert.deepEqual(await releases.list(), []);
  const pending = await releases.pending('duo');
  assert.deepEqual([pending?.signatures, pending?.threshold], [1, 2]);
  assert.ok(pending?.releaseId && pending.manifest);
  assert.equal(await releases.find('duo/echo@1.0.0'), null);

  // The second publisher takes it from the registry, signs, and pushes it.
  const signed = addSignature(new Uint8Array(pending.metadata), b);
  const done = unwrap(
    await releases.push({
      releaseId: pending.releaseId,
      metadata: signed,
      manifest: pending.manifest,
      pushedBy: 'b',
    }),
  );
  assert.equal(done.status, 'accepted');
  assert.equal(await releases.pending('duo'), null);
  const [model] = await releases.list();
  assert.deepEqual(model?.versions[0]?.signedBy, [a.keyId, b.keyId].sort());
});

test('the negative collection: each model that cannot be served is refused with its code', {
  skip: dataMissing,
}, async (t) => {
  const made = await acme(t);
  const expected = {
    'aborts-process_test_cast_FLOAT_to_INT4.onnx': 'model-int4-output',
    'lfs-pointer_openwakeword.onnx': 'model-not-onnx',
    'missing-external-data_silero_op18_ifless.onnx': 'model-external-data-missing',
    'zipmap-output_rf_iris.onnx': 'model-output-not-tensor',
    // 9 KB that hold half a gigabyte; its manifest does not say so.
    'ram-blowup_light_vgg19.onnx': 'model-memory-estimate',
  };
  for (const [index, [name, code]] of Object.entries(expected).entries()) {
    const model = new Uint8Array(readFileSync(dataFolder('negative', name)));
    unwrap(await made.blobs.put(sha256Hex(model), once(model)));
    const result = await made.releases.push(await prepare(made, `acme/n${index}@1.0.0`, 1, { model }));
    assert.equal(result.ok ? result.value.status : result.refusal.code, code, name);
  }
  assert.equal((await made.releases.list()).length, 0);
});
