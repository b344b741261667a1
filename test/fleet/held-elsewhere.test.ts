// Why: what devices give back where keys of the region have changed, or another region signs the catalogue.
// Trusts: holder.ts for an honest device's side. Must never: check prose; codes and verdicts only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judgeHeld, type Present } from '../../registry/fleet/restore-judgement.ts';
import type { Keyring } from '../../registry/signing/keys.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { makeRegionRoot } from '../../shared/trust/region.ts';
import { signAnswer } from '../../shared/trust/telemetry.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { dayMs } from '../registry-core/support.ts';
import { giveBack } from './holder.ts';
import { holdersOf } from './restored-fleet.ts';
import { openWorld, region } from './world.ts';

const thief = signerFromSeed(new Uint8Array(32).fill(9), 'node');

test('an answer by a key that the region had before its present one still proves what was stored', async (t) => {
  const world = await openWorld(t);
  const [holder] = await holdersOf(world, 1);
  assert.ok(holder);
  const key = (name: Parameters<Keyring['firstStart']>[0]) => world.keyring.firstStart(name);
  const role = (publicKey: Uint8Array) => ({ keys: [publicKey], threshold: 1 });
  const regionRoot = makeRegionRoot({
    version: 2,
    expiresAtMs: world.clock.wall() + 300 * dayMs,
    region,
    roles: {
      root: {
        keys: [
          key('region-root-1').publicKey,
          key('region-root-2').publicKey,
          key('region-root-3').publicKey,
        ],
        threshold: 2,
      },
      director: role(key('director').publicKey),
      time: role(key('time').publicKey),
      ack: role(key('command').publicKey),
      command: role(key('command').publicKey),
    },
    signers: [key('region-root-1'), key('region-root-2')],
  });
  giveBack(world, holder.device, 'region-root', regionRoot);
  await world.settle();
  assert.equal((await world.events('restore-adopted')).length, 1);
  const answer = {
    ...{ schemaVersion: 1 as const, deviceId: holder.device.id, region, epoch: 0, sequence: 3 },
    ...{ headSha256: sha256Hex(new Uint8Array(1)), result: { status: 'stored' as const, records: 1 } },
  };
  giveBack(world, holder.device, 'acknowledgement', encodeMessage(signAnswer(answer, thief)));
  await world.settle();
  assert.equal((await world.events('held-invalid')).length, 1);
  giveBack(world, holder.device, 'acknowledgement', encodeMessage(signAnswer(answer, key('ack'))));
  await world.settle();
  assert.equal((await world.events('held-invalid')).length, 1);
  assert.equal((await world.events('lost-in-restore')).length, 1);
});

test('a region that mirrors takes no names of releases from a device: they come with their files from the home', async (t) => {
  const world = await openWorld(t);
  const [holder] = await holdersOf(world, 1);
  assert.ok(holder);
  const file = async (name: string): Promise<Uint8Array> => {
    const bytes = await world.repository.file(name);
    assert.ok(bytes, name);
    return new Uint8Array(bytes);
  };
  await world.push('acme/digits@1.0.0', 1);
  await world.push('acme/digits@2.0.0', 2);
  const { version: latest } = await world.repository.current('targets');
  assert.ok(latest > 1);
  const targets = await file(`${latest}.targets.json`);
  const later = await file('2.acme.json');
  const present = (mirrors: boolean, version: number): Present => ({
    ...{ deviceId: holder.device.id, region, mirrors, epoch: 0, assignment: null, targetsMissing: false },
    ...{ root: new Uint8Array(1), regionRoot: new Uint8Array(1), targets },
    versionOf: () => version,
    bytesOf: () => null,
    earlierRegionRoots: () => [],
    telemetry: { epoch: 0, lastSequence: 0 },
    signsUnder: () => !mirrors,
  });
  const root = await file('1.root.json');
  const judged = (name: string, bytes: Uint8Array, mirrors: boolean, version: number) => {
    const verdict = judgeHeld(name, bytes, { ...present(mirrors, version), root });
    return verdict.ok ? verdict.value.kind : verdict.refusal.code;
  };
  assert.equal(judged('ns/acme', later, false, 1), 'namespace');
  assert.equal(judged('ns/acme', later, true, 1), 'elsewhere');
  assert.equal(judged('ns/acme', later, true, 2), 'known');
  assert.equal(judged('targets', targets, false, 1), 'targets');
  assert.equal(judged('targets', targets, true, 1), 'elsewhere');
  assert.equal(judged('ns/acme', Buffer.from('{}'), true, 1), 'held-invalid');
});
