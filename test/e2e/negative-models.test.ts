// Why: models that must never serve: refused at the push; and where somebody got them past it, each device refuses
// them, goes on serving what it had without a failed request, and says why. Trusts: the data folder's negative models.
// Must never: call it survived when nobody asked meanwhile.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { Blobs } from '../../registry/catalog/blobs.ts';
import { createReleases, type Releases } from '../../registry/catalog/releases.ts';
import type { Registry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { identityModel, once, preparePush } from '../registry-core/support.ts';
import { modelCase } from '../support/cases.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { checkCase, makeClaim, rollOut, showDevice, startRollout } from '../support/fleet.ts';
import { deviceNow } from '../support/looking.ts';
import {
  type LeptonRunner,
  startTestAgent,
  type TestAgent,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';
import { openTestRegistry } from '../support/registry.ts';

const negatives: [file: string, code: string][] = [
  ['aborts-process_test_cast_FLOAT_to_INT4.onnx', 'model-int4-output'],
  ['lfs-pointer_openwakeword.onnx', 'model-not-onnx'],
  ['missing-external-data_silero_op18_ifless.onnx', 'model-external-data-missing'],
  ['ram-blowup_light_vgg19.onnx', 'model-memory-estimate'],
  ['zipmap-output_rf_iris.onnx', 'model-output-not-tensor'],
];
const yearMs = 365 * 86_400_000;
/** Longest gap between two answers that counts as serving on. */
const gapMsMax = 2_000;

describe('negative models', { skip: dataMissing }, () => {
  const digit = dataMissing === false ? modelCase('mnist/digit4-opset8') : null;
  let place: Workplace;
  let registry: Registry;
  let lepton: LeptonRunner;
  let agent: TestAgent;
  const signer = signerFromSeed(systemEntropy.bytes(32), 'node');
  let counter = 0;

  before(async () => {
    place = workplace('negative');
    ({ registry, lepton } = await openTestRegistry(place, { loaded: true }));
    agent = await startTestAgent(place, await makeClaim(place, { lepton }));
    const { repository } = registry.parts;
    unwrap(await repository.delegate('neg', [Buffer.from(signer.publicKey).toString('hex')], 1));
  });
  after(() => place.close());

  /** Publishes with these releases' own push, which may look at other bytes than those that are stored. */
  async function publish(releases: Releases, releaseId: string, model: Uint8Array): Promise<void> {
    const { repository, blobs } = registry.parts;
    const publisher = await repository.publisher('neg');
    assert.ok(publisher);
    const { metadataVersion } = publisher;
    counter += 1;
    const push = preparePush({
      releaseId,
      model,
      current: metadataVersion === 0 ? null : await repository.file(`${metadataVersion}.neg.json`),
      counter,
      signers: [signer],
      expiresAtMs: systemClock.wall() + yearMs,
    });
    unwrap(await blobs.put(sha256Hex(model), once(model)));
    assert.equal(unwrap(await releases.push(push)).status, 'accepted');
  }

  /** A registry's push whose admission is shown a harmless model. */
  function fooled(bad: Uint8Array): Releases {
    const { store, repository, blobs, clock, log } = registry.parts;
    const sha256 = sha256Hex(bad);
    const lying: Blobs = {
      ...blobs,
      read: async (digest) => (digest === sha256 ? identityModel('harmless') : blobs.read(digest)),
    };
    return createReleases({ store, repository, blobs: lying, clock, log });
  }

  for (const [file, code] of negatives) {
    test(`${file}: the push says ${code} and what to do`, async () => {
      const args = [
        'models',
        'push',
        dataFolder('negative', file),
        '--name',
        'neg/bad',
        '--version',
        '9.0.0',
      ];
      const done = await lepton([...args, '--json'], 1);
      const { error } = done.json() as { error: { code: string; hint: string } };
      assert.equal(error.code, code);
      assert.ok(error.hint.length > 10);
      assert.ok(done.stderr.startsWith(`lepton: ${code}: `), done.stderr);
    });
    test(`${file}: the registry refuses it from any client`, async () => {
      const model = new Uint8Array(readFileSync(dataFolder('negative', file)));
      await assert.rejects(publish(registry.parts.releases, 'neg/bad@9.0.0', model), { code });
    });
  }

  test('forced past the push, each is refused by the device, which answers all the time', async () => {
    assert.ok(digit);
    await publish(registry.parts.releases, 'neg/guard@1.0.0', new Uint8Array(readFileSync(digit.modelPath)));
    assert.equal((await rollOut(place, { lepton }, 'neg/guard@1.0.0')).state, 'succeeded');
    let asking = true;
    let answered = 0;
    let longestGapMs = 0;
    const client = (async () => {
      let lastMs = systemClock.mono();
      while (asking) {
        await checkCase(agent.http, 'guard', digit);
        const nowMs = systemClock.mono();
        longestGapMs = Math.max(longestGapMs, nowMs - lastMs);
        lastMs = nowMs;
        answered += 1;
        await systemClock.timer(20).done;
      }
    })();
    try {
      for (const [index, [file, code]] of negatives.entries()) {
        const model = new Uint8Array(readFileSync(dataFolder('negative', file)));
        const releaseId = `neg/guard@2.${index}.0`;
        await publish(fooled(model), releaseId, model);
        const rollout = await rollOut(place, { lepton }, releaseId, 1);
        assert.equal(rollout.state, 'failed');
        // What the device reported; by now it was given back its old release and has no more to complain of.
        const [told] = rollout.devices;
        assert.ok(told?.reason?.startsWith(`${code}: `), `${file}: ${told?.reason}`);
        const [shown] = (await showDevice({ lepton }, agent.id)).models;
        assert.equal(shown?.active, 'neg/guard@1.0.0', file);
      }
      const address = { http: registry.httpUrl, token: registry.adminToken };
      // A rollout that only pauses leaves the device with what it refused: an operator sees there what and why.
      for (const [index, [file, code]] of negatives.entries()) {
        const releaseId = `neg/guard@2.${index}.0`;
        const id = await startRollout(place, { lepton }, releaseId, { onGateFailure: 'pause' });
        const shown = await until(`devices show names ${code}`, async () => {
          const [model] = (await deviceNow(address, agent.id)).models;
          return model?.reason?.code === code ? model : null;
        });
        assert.ok((shown.reason?.detail ?? '').length > 10, file);
        assert.equal(shown.active, 'neg/guard@1.0.0', file);
        const printed = (await lepton(['devices', 'show', agent.id])).stdout;
        assert.ok(printed.includes(code), printed);
        await lepton(['rollout', 'abort', id, '--revert']);
      }
    } finally {
      asking = false;
    }
    await client;
    assert.ok(answered > 50, `${answered} answers`);
    assert.ok(longestGapMs < gapMsMax, `${longestGapMs} ms without an answer`);
  });
});
