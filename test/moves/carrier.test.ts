// Why: what a device still has for the region that it left, at the region that carries it: kept blind, within bounds, and
// ended by nobody's word but that region's, with the keys that it has now.
// Trusts: the worlds of test/fleet and test/telemetry; the other region is what the test says for it.
// Must never: check prose.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { signAnswer } from '../../shared/trust/telemetry.ts';
import { encodeCarried } from '../../shared/wire/carried.ts';
import { desiredMessageSchema, parseMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { type Device, region } from '../fleet/world.ts';
import { countedEntropy } from '../registry-core/support.ts';
import { BatchMaker, recordsOf } from '../telemetry/batch-maker.ts';
import { openIngestWorld } from '../telemetry/ingest-world.ts';
import { role, signerNamed } from '../trust/catalogue-fixture.ts';
import { regionRoot } from '../trust/region-fixture.ts';
import { offered, pulled } from './other-region.ts';

test('batches for another region are kept blind, within bounds, and only that region’s word ends them', async (t) => {
  const world = await openIngestWorld(t, {
    limits: { carriedBatchesPerDeviceMax: 3, carriedBytesMax: 20_000 },
  });
  const { device } = await world.sender();
  const other = (await world.sender()).device;
  const key = {
    epoch: 4,
    keyId: 'theirs',
    publicKey: Buffer.from(signerNamed('x').publicKey).toString('hex'),
  };
  const makerOf = ({ id, seed }: Device) =>
    new BatchMaker({ seed, region: 'eu', key, entropy: countedEntropy(`carried ${id}`) });
  const maker = makerOf(device);
  const say = async (message: Uint8Array, forRegion = 'eu', by = device): Promise<string[]> => {
    const topic = deviceTopic(region, by.id, 'carried/ack');
    const before = world.bus.published.filter((one) => one.topic === topic).length;
    world.bus.say(
      deviceTopic(region, by.id, 'carried'),
      encodeCarried({ region: forRegion, batch: message }),
    );
    await world.settle();
    return world.bus.published
      .filter((one) => one.topic === topic)
      .slice(before)
      .map(({ payload }) => {
        const { envelope } = unwrap(parseMessage(desiredMessageSchema, payload));
        const said = JSON.parse(Buffer.from(envelope.payload, 'base64').toString()) as {
          code?: string;
          result?: { status: string };
        };
        return said.code ?? said.result?.status ?? '?';
      });
  };
  const first = await maker.make(recordsOf(2));
  // This region has not heard of that one: the device is told to try again.
  assert.deepEqual(await say(first.message), ['carried-region-unknown']);
  await world.store.tx((db) =>
    db.run(
      world.store.qb.insertInto('region_roots').values({ region: 'eu', version: 1, bytes: regionRoot() }),
    ),
  );
  assert.deepEqual(await say(first.message), []);
  assert.deepEqual(await say(first.message), [], 'the same again is the same');
  // Changed on its way, of another device, for another region than was signed, no batch at all.
  const altered = first.message.slice();
  altered.set([(altered.at(-1) ?? 0) ^ 1], altered.length - 1);
  await say(altered);
  await say(first.message, 'eu', other);
  await say(first.message, 'us');
  await say(Uint8Array.of(1, 2, 3));
  assert.equal((await world.events('telemetry-body-mismatch')).length, 1);
  assert.equal((await world.events('telemetry-other-device')).length, 1);
  assert.equal((await world.events('telemetry-signature-invalid')).length, 1);
  assert.equal((await world.events('telemetry-malformed')).length, 1);
  const waiting = await offered(world, 'carried', 'eu');
  assert.deepEqual(
    waiting.map(({ body }) => (body as { batch: string }).batch),
    [Buffer.from(first.message).toString('base64')],
  );
  assert.deepEqual(await offered(world, 'carried', 'us'), []);

  // Another batch under the same number is not the device's.
  const twin = makerOf(device);
  twin.sequence = 0;
  const second = await maker.make(recordsOf(1, 9));
  assert.deepEqual(await say((await twin.make(recordsOf(5), { head: { openedAtMs: 7 } })).message), [
    'telemetry-cloned',
  ]);
  await say(second.message);
  await say((await maker.make(recordsOf(1, 10))).message);
  const fourth = await maker.make(recordsOf(1, 11));
  assert.deepEqual(await say(fourth.message), ['carried-full']);

  // Answers: only what that region signed; another region's word, or its for another device, changes nothing.
  const answer = (batch: typeof first, signer: Signer, changes: object = {}) => ({
    ...{
      deviceId: device.id,
      epoch: 4,
      sequence: batch.head.sequence,
      headSha256: batch.headSha256,
      code: null,
    },
    envelope: signAnswer(
      {
        ...{ schemaVersion: 1, deviceId: device.id, region: 'eu', epoch: 4, sequence: batch.head.sequence },
        ...{ headSha256: batch.headSha256, result: { status: 'stored', records: 2 } as const, ...changes },
      },
      signer,
    ),
  });
  const ack = signerNamed('ack');
  await pulled(world, 'carried-answers', 'eu', [answer(first, world.core.keyring.signer('ack'))]);
  await pulled(world, 'carried-answers', 'us', [answer(first, ack)]);
  assert.equal((await world.events('carried-answer-invalid')).length, 1);
  assert.equal((await offered(world, 'carried', 'eu')).length, 3);
  const topic = deviceTopic(region, device.id, 'carried/ack');
  const told = (): number => world.bus.published.filter((one) => one.topic === topic).length;
  const before = told();
  await pulled(world, 'carried-answers', 'eu', [answer(first, ack)]);
  assert.equal((await offered(world, 'carried', 'eu')).length, 2);
  assert.equal(told(), before + 1);
  // A device that was away hears it when it is back, and when it sends the batch again.
  device.offline();
  await world.settle();
  const away = told();
  device.online();
  await world.settle();
  assert.ok(told() > away);
  assert.deepEqual(await say(first.message), ['stored']);
  // What is refused there is wanted again: the copy goes, and the device is told why.
  await pulled(world, 'carried-answers', 'eu', [
    answer(second, ack, {
      result: { status: 'refused', code: 'telemetry-gap', detail: 'x', expectedSequence: 1 },
    }),
  ]);
  assert.equal((await offered(world, 'carried', 'eu')).length, 1);
  assert.deepEqual(await say(second.message), [], 'and it is taken again');

  // That region changes its keys: what the earlier one signed is believed by nobody, and it answers once more.
  assert.deepEqual(await say(first.message), ['stored']);
  const later = signerNamed('later ack');
  const bytes = regionRoot({ version: 2, ack: role(1, later) });
  await world.store.tx((db) =>
    db.run(world.store.qb.insertInto('region_roots').values({ region: 'eu', version: 2, bytes })),
  );
  assert.deepEqual(await say(first.message), []);
  assert.equal((await offered(world, 'carried', 'eu')).length, 3);
  await pulled(world, 'carried-answers', 'eu', [answer(first, later)]);
  assert.equal((await offered(world, 'carried', 'eu')).length, 2);
  assert.deepEqual(await say(first.message), ['stored']);

  // Erasing a device removes what of it lies here for others.
  unwrap(await world.fleet.erasures.erase(device.id, { untilMs: null, requestedBy: 'tester', reason: null }));
  assert.deepEqual(await offered(world, 'carried', 'eu'), []);
});
