// Why: the two regions of a move, each on a real store: who is let in, who is let go, and what comes home of an earlier stay; each
// attempt to have it otherwise is refused with its own code.
// Trusts: the worlds of test/fleet and test/telemetry; the other region is what the test says for it.
// Must never: check prose.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { makeDeviceRequest } from '../../shared/host/certificates.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { encodeMove, signJoining, signMove } from '../../shared/trust/device-move.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { signReport } from '../../shared/trust/report.ts';
import { checkAnswer } from '../../shared/trust/telemetry.ts';
import { encodeCarried } from '../../shared/wire/carried.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import type { MoveOrder } from '../../shared/wire/device-move.ts';
import {
  desiredMessageSchema,
  type Envelope,
  encodeMessage,
  parseMessage,
} from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { Device, enrolWith, head, openWorld, region, type World } from '../fleet/world.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import { openIngestWorld, quiet } from '../telemetry/ingest-world.ts';
import { signerNamed } from '../trust/catalogue-fixture.ts';
import { claimTo } from './order-fixture.ts';
import { offered, pulled } from './other-region.ts';

const dayMs = 86_400_000;

// --- the old region ---

/** The world's own root keys of development. */
const rootKeys = (world: World): Signer[] =>
  (['root-1', 'root-2', 'root-3'] as const).map((name) => world.core.keyring.firstStart(name));

function orderFor(world: World, devices: readonly Device[], changes: Partial<MoveOrder> = {}): MoveOrder {
  const nowMs = world.clock.wall();
  const deviceIds = devices.map(({ id }) => id);
  return {
    ...{ schemaVersion: 1, moveId: '1'.repeat(24), deviceIds, from: region },
    to: { ...claimTo('west', deviceIds), expiresAtMs: nowMs + 9 * dayMs },
    ...{ issuedAtMs: nowMs, expiresAtMs: nowMs + 7 * dayMs },
    ...changes,
  };
}

async function applied(
  world: World,
  order: MoveOrder,
  signers = rootKeys(world).slice(0, 2),
): Promise<string> {
  const done = await world.fleet.moves.apply(signMove(encodeMove(order), signers), 'tester');
  return done.ok ? 'applied' : done.refusal.code;
}

function desired(world: World, { id }: Device) {
  const payload = world.bus.retained.get(deviceTopic(region, id, 'desired'));
  return payload === undefined ? null : unwrap(parseMessage(desiredMessageSchema, payload));
}

const reportOf = (device: Device, signer: Signer, changes: object = {}): Envelope =>
  signReport({ ...device.reportBody(), region: 'west', ...changes }, signer);

test('an order reaches its devices with their assignments, and nobody else’s word moves them', async (t) => {
  const world = await openWorld(t);
  const [one, two] = await world.devices(2);
  assert.ok(one && two);
  const { keyring } = world.core;
  const regionKeys = (['region-root-1', 'region-root-2'] as const).map((name) => keyring.firstStart(name));
  for (const signers of [
    rootKeys(world).slice(0, 1),
    regionKeys,
    [keyring.signer('director'), keyring.signer('command')],
    [keyring.signer('snapshot'), keyring.signer('timestamp')],
  ])
    assert.equal(await applied(world, orderFor(world, [one]), signers), 'move-signature-invalid');
  const nowMs = world.clock.wall();
  assert.equal(await applied(world, orderFor(world, [one], { from: 'east' })), 'move-other-region');
  assert.equal(await applied(world, orderFor(world, [one], { expiresAtMs: nowMs })), 'move-expired');
  assert.equal(await applied(world, orderFor(world, [new Device(world, 'stranger')])), 'device-unknown');
  assert.equal(desired(world, one)?.move, undefined);

  // Where root keys lie on the registry's disk, it signs as their holders would.
  const order = orderFor(world, [one]);
  const byDisk = unwrap(await world.fleet.moves.sign(encodeMove(order)));
  assert.equal(byDisk.signatures.length, 3);
  assert.ok((await world.fleet.moves.apply(byDisk, 'tester')).ok);
  assert.equal(await applied(world, order), 'applied', 'the same one again');
  assert.ok(desired(world, one)?.move);
  assert.equal(desired(world, two)?.move, undefined);
  // It is there for devices that are away, and after a restart.
  await world.restart();
  assert.ok(desired(world, one)?.move);
  assert.ok(await one.assignment(), 'older agents read their assignment as before');

  one.says = { move: { moveId: order.moveId, to: 'west', state: 'enrolling', reason: null } };
  await one.obey();
  await world.settle();
  assert.equal((await world.view(one)).move?.order?.state, 'enrolling');
  // An older one does not replace it; a newer one does.
  const older = orderFor(world, [one], { moveId: '2'.repeat(24), issuedAtMs: order.issuedAtMs });
  assert.equal(await applied(world, older), 'move-replayed');
  const newer = orderFor(world, [one], { moveId: '3'.repeat(24), issuedAtMs: order.issuedAtMs + 1 });
  assert.equal(await applied(world, newer), 'applied');
  const states = (await world.fleet.moves.list()).map(({ moveId, devices }) => [
    moveId[0],
    devices[0]?.state,
  ]);
  assert.deepEqual(states, [
    ['3', 'ordered'],
    ['1', 'replaced'],
  ]);
  // Nobody followed it in time: it is handed to nobody any more.
  world.clock.advance(8 * dayMs);
  await world.fleet.director.publish([one.id]);
  assert.equal(desired(world, one)?.move, undefined);
  assert.equal((await world.view(one)).move?.order?.state, 'expired');
});

test('a device is let go once it says from its new region that it is there', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { device, maker } = sender;
  const own = signerFromSeed(device.seed, 'node');
  const order = orderFor(world, [device]);
  assert.equal(await applied(world, order), 'applied');
  await device.obey();
  await world.settle();
  const item = (report: Envelope) => ({ deviceId: device.id, moveId: order.moveId, report });
  const before = reportOf(device, own, { counter: device.counter });
  await pulled(world, 'moved', 'west', [
    item(reportOf(device, signerNamed('somebody'))),
    item(reportOf(device, own, { region: 'east' })),
    // From an earlier stay there.
    item(before),
    { deviceId: device.id },
  ]);
  assert.equal((await world.view(device)).status, 'active');
  assert.equal((await world.events('report-signature-invalid')).length, 2);

  await pulled(world, 'moved', 'west', [item(reportOf(device, own))]);
  const view = await world.view(device);
  assert.deepEqual([view.status, view.move?.movedTo, view.move?.order?.state], ['moved', 'west', 'moved']);
  assert.equal(desired(world, device), null);
  assert.ok(world.bus.disconnected.includes(device.id));
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: device.id }), false);
  assert.deepEqual(
    (await world.fleet.revocation.revoked()).map(({ id, status }) => [id, status]),
    [[device.id, 'moved']],
  );
  const released = await world.fleet.devices.release(device.id, 'tester');
  assert.equal(released.ok ? 'released' : released.refusal.code, 'device-moved');
  await world.fleet.director.reissueAll();
  assert.equal(desired(world, device), null, 'it gets no assignment any more');
  assert.equal(
    await applied(world, { ...order, moveId: '4'.repeat(24), issuedAtMs: order.issuedAtMs + 9 }),
    'device-moved',
  );

  // What it had comes through the other region: once, in order, whatever comes twice or was changed on the way.
  const [first, second, third] = [
    await maker.make(recordsOf(3)),
    await maker.make(recordsOf(2, 3)),
    await maker.make(recordsOf(1, 5)),
  ];
  const carried = ({ head: { epoch, sequence }, headSha256, message }: typeof first, changed = message) => ({
    ...{ deviceId: device.id, epoch, sequence, headSha256 },
    batch: Buffer.from(changed).toString('base64'),
  });
  const altered = second.message.slice();
  altered.set([(altered.at(-1) ?? 0) ^ 1], altered.length - 1);
  await pulled(world, 'carried', 'west', [
    carried(first),
    carried(first),
    carried(third),
    carried(second, altered),
    carried(second),
    carried(third),
    { deviceId: device.id },
  ]);
  const root = unwrap(parseRegionRoot(await world.repository.regionRoot()));
  const answers = (await offered(world, 'carried-answers', 'west')).map(({ body }) => {
    const { sequence, envelope, code } = body as {
      sequence: number;
      envelope: Envelope | null;
      code: string | null;
    };
    if (envelope === null) return [sequence, code];
    const { result } = unwrap(checkAnswer({ envelope, regionRoot: root, deviceId: device.id, region }));
    return [sequence, result.status === 'stored' ? result.records : result.code];
  });
  assert.deepEqual(answers, [
    [1, 3],
    [1, 3],
    [3, 'telemetry-gap'],
    [2, 'telemetry-body-mismatch'],
    [2, 2],
    [3, 1],
  ]);
  assert.equal((await world.records()).length, 6);
  assert.deepEqual(await offered(world, 'carried-answers', 'east'), [], 'they go to whoever brought them');
});

// --- the new region ---

let attempts = 0;
async function joinWith(
  world: World,
  device: Device,
  claim: ClaimFile,
  joining: Envelope | null,
): Promise<{ status: string; code?: string }> {
  const csr = await makeDeviceRequest(device.seed);
  const agent = { version: '0.1.0', runtime: '1.30.0', arch: 'x64' };
  const body = { ...head(world), csr, labels: { own: 'claimed' }, timezone: 'UTC', agent };
  const message = encodeMessage({ ...body, ...(joining === null ? {} : { joining }) });
  attempts += 1;
  return enrolWith(world, claim.claimId, `attempt${attempts}`, message);
}

const joiningOf = (
  device: Device,
  claimId: string,
  runs: { as: string; releaseId: string; manifestSha256: string }[],
) => ({
  ...({
    schemaVersion: 1,
    deviceId: device.id,
    claimId,
    moveId: '1'.repeat(24),
    from: 'east',
    to: region,
  } as const),
  ...{ labels: { site: 'b' }, timezone: 'UTC', runs },
});

test('a claim for named devices lets in those alone, by their own word; what they run stays', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/one@1.0.0', 1);
  await world.push('acme/lost@1.0.0', 1);
  const models = await world.releases.list();
  const [release, lost] = ['acme/one', 'acme/lost'].map(
    (name) => models.find((model) => model.name === name)?.versions[0],
  );
  assert.ok(release && lost);
  // As a mirror has it whose new home does not name what the lost one did.
  await world.store.tx((db) =>
    db.run(
      world.store.qb
        .updateTable('releases')
        .set({ admitted: 0, reason: 'the catalogue in force does not name it' })
        .where('release_id', '=', 'acme/lost@1.0.0'),
    ),
  );
  const [device, thief] = [new Device(world, 'moved'), new Device(world, 'thief')];
  const claim = await world.fleet.claims.create({
    ...{ labels: {}, uses: 1, ttlMs: dayMs, createdBy: 'tester' },
    deviceIds: [device.id],
  });
  const joining = joiningOf(device, claim.claimId, [
    { as: 'one', releaseId: 'acme/one@1.0.0', manifestSha256: release.digest },
    { as: 'other', releaseId: 'birch/other@1.0.0', manifestSha256: 'd'.repeat(64) },
    { as: 'lost', releaseId: 'acme/lost@1.0.0', manifestSha256: lost.digest },
  ]);
  const [own, stranger] = [device, thief].map(({ seed }) => signerFromSeed(seed, 'node'));
  assert.ok(own && stranger);
  const thiefs = { ...joining, deviceId: thief.id };
  assert.equal(
    (await joinWith(world, thief, claim, signJoining(thiefs, stranger))).code,
    'claim-other-device',
  );
  assert.equal((await joinWith(world, device, claim, null)).code, 'joining-invalid');
  assert.equal(
    (await joinWith(world, device, claim, signJoining(joining, stranger))).code,
    'joining-invalid',
  );
  const enrolled = await joinWith(world, device, claim, signJoining(joining, own));
  assert.equal(enrolled.status, 'accepted');
  // What it said with its key counts, not what stands beside it.
  const view = await world.view(device);
  assert.deepEqual([view.labels, view.move?.movedFrom], [{ site: 'b' }, 'east']);
  const assignment = await device.assignment();
  assert.deepEqual(
    assignment?.releases.map(({ as, releaseId }) => [as, releaseId]),
    [['one', 'acme/one@1.0.0']],
  );
  assert.deepEqual(assignment?.keep, ['other', 'lost']);
  assert.ok(assignment?.telemetry);

  // The old region hears of it with the device's own first report, and not before.
  assert.deepEqual(await offered(world, 'moved', 'east'), []);
  await device.obey();
  await world.settle();
  device.report();
  await world.settle();
  const [told, ...more] = await offered(world, 'moved', 'east');
  assert.deepEqual(more, []);
  assert.ok(told);
  assert.equal((told.body as { deviceId: string }).deviceId, device.id);
  assert.deepEqual(await offered(world, 'moved', 'south'), []);
});

for (const isHeard of [true, false])
  test(`a device that comes back brings what it still had of its first stay; that it left was ${isHeard ? '' : 'not '}heard`, async (t) => {
    const world = await openIngestWorld(t);
    const { device, maker } = await world.sender();
    const own = signerFromSeed(device.seed, 'node');
    await device.obey();
    await world.settle();
    const order = orderFor(world, [device]);
    assert.equal(await applied(world, order), 'applied');
    const gone = { deviceId: device.id, moveId: order.moveId, report: reportOf(device, own) };
    if (isHeard) await pulled(world, 'moved', 'west', [gone]);
    const claim = await world.fleet.claims.create({
      ...{ labels: {}, uses: 1, ttlMs: dayMs, createdBy: 'tester' },
      deviceIds: [device.id],
    });
    const joining = signJoining({ ...joiningOf(device, claim.claimId, []), from: 'west' }, own);
    assert.equal((await joinWith(world, device, claim, joining)).status, 'accepted');
    // Heard now, or once more where west was restored: it is on its way here, and has not reported yet.
    await pulled(world, 'moved', 'west', [gone]);
    device.online();
    const view = await world.view(device);
    assert.deepEqual([view.status, view.move?.movedFrom, view.move?.movedTo], ['active', 'west', null]);
    assert.equal(view.move?.order?.state, 'moved');
    assert.equal(desired(world, device)?.move, undefined, 'what sent it away is over');
    const fresh = (await device.assignment())?.telemetry;
    assert.equal(fresh?.epoch, maker.key.epoch + 1);
    const batch = await maker.make(recordsOf(4));
    world.bus.say(deviceTopic(region, device.id, 'carried'), encodeCarried({ region, batch: batch.message }));
    await world.settle();
    await quiet(world);
    await world.settle();
    assert.deepEqual(
      (await world.records()).map(({ epoch }) => epoch),
      Array.from({ length: 4 }, () => maker.key.epoch),
    );
    const topic = deviceTopic(region, device.id, 'carried/ack');
    assert.equal(world.bus.published.filter((one) => one.topic === topic).length, 1);
    // By the way of today's batches it is one of an enrolment that ended.
    world.bus.say(deviceTopic(region, device.id, 'telemetry'), (await maker.make(recordsOf(1, 9))).message);
    await quiet(world);
    await world.settle();
    assert.equal((await world.events('telemetry-replayed')).length, 1);
  });
