// Why: a device that lies about what it holds changes nothing for anybody (DESIGN 3).
// Trusts: holder.ts for an honest device's side. Must never: check prose; codes and the database's own rows only.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createHeldFiles } from '../../registry/fleet/held-files.ts';
import type { Keyring } from '../../registry/signing/keys.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { makeRegionRoot, parseRegionRoot } from '../../shared/trust/region.ts';
import { signAnswer } from '../../shared/trust/telemetry.ts';
import { makeRoot, makeSnapshot, makeTargets, makeTimestamp } from '../../shared/trust/tuf/repository.ts';
import { encodeMessage, heldMessageSchema, heldPieceBytes } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { dayMs } from '../registry-core/support.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import { giveBack } from './holder.ts';
import { goOn, holdersOf } from './restored-fleet.ts';
import { head, openWorld, region, rolloutFile, type World } from './world.ts';

/** Everything but what is noted about the attempt itself. */
async function dump(world: World): Promise<string> {
  const tables = await world.store.tx((db) =>
    db.sql.all<{ name: string }>(
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('fleet_events', 'sqlite_sequence')",
    ),
  );
  const rows = await world.store.tx((db) =>
    tables.map(({ name }) => [name, db.sql.all<Record<string, unknown>>(`SELECT * FROM ${name}`)]),
  );
  return JSON.stringify(rows, (key, value) => (key === 'attacks' ? undefined : value));
}

const thief = signerFromSeed(new Uint8Array(32).fill(9), 'node');

/** A file with its head changed by whoever holds no key, signatures as they were. */
function edited(bytes: Uint8Array, change: Record<string, unknown>): Uint8Array {
  const file = JSON.parse(new TextDecoder().decode(bytes));
  return encodeMessage({ ...file, signed: { ...file.signed, ...change } });
}

test('forged newer files change nothing for anybody, and each is an attack by name', async (t) => {
  const world = await openWorld(t);
  await world.push('acme/digits@1.0.0', 1);
  const holders = await holdersOf(world, 2);
  await world.start(rolloutFile('digits', { release: 'acme/digits@1.0.0' }));
  await goOn(holders);
  const [liar, other] = holders;
  assert.ok(liar && other);
  for (const holder of holders) assert.equal(await holder.send(recordsOf(1)), 'stored');
  const { trust, regionRoot } = liar;
  assert.ok(trust.timestamp && trust.snapshot && trust.targets && trust.delegated['acme']);
  const expiresAtMs = world.clock.wall() + 30 * dayMs;
  const high = { version: 500, expiresAtMs, signers: [thief] };
  const spec = { keys: [thief.publicKey], threshold: 1 };
  const region1 = unwrap(parseRegionRoot(regionRoot));
  const assignment = liar.assignment;
  assert.ok(assignment);
  const far = { ...assignment, epoch: 900 };
  const answer = {
    schemaVersion: 1 as const,
    deviceId: liar.device.id,
    region,
    epoch: 0,
    sequence: 70,
    headSha256: 'a'.repeat(64),
    result: { status: 'stored' as const, records: 1 },
  };
  const ack = world.keyring.signer('ack');
  const director = world.keyring.signer('director');
  const files: [string, Uint8Array][] = [
    ['timestamp', makeTimestamp({ ...high, snapshot: { version: 500, bytes: null, sha256: null } })],
    ['timestamp', edited(trust.timestamp, { version: 500 })],
    ['timestamp', trust.snapshot],
    ['timestamp', Buffer.from('nonsense')],
    [
      'snapshot',
      makeSnapshot({
        ...high,
        files: new Map([['targets.json', { version: 9, bytes: null, sha256: null }]]),
      }),
    ],
    ['snapshot', edited(trust.snapshot, { version: 500 })],
    ['targets', makeTargets({ ...high, delegations: [] })],
    ['targets', edited(trust.targets, { version: 500 })],
    ['targets', trust.delegated['acme']],
    ['ns/acme', makeTargets(high)],
    ['ns/acme', edited(trust.delegated['acme'], { version: 500 })],
    ['ns/nobody', trust.delegated['acme']],
    [
      'root',
      makeRoot({
        ...high,
        version: 2,
        roles: { root: spec, targets: spec, snapshot: spec, timestamp: spec },
      }),
    ],
    ['root', edited(trust.root, { version: 2 })],
    ['root', regionRoot],
    [
      'region-root',
      makeRegionRoot({
        ...high,
        version: 2,
        region,
        roles: { root: spec, director: spec, time: spec, ack: spec, command: spec },
      }),
    ],
    [
      'region-root',
      makeRegionRoot({
        version: 2,
        expiresAtMs,
        region: 'elsewhere',
        roles: {
          ...region1.roles,
          root: { keys: region1.roles.root.keys.map((key) => key.publicKey), threshold: 2 },
          director: spec,
          time: spec,
          ack: spec,
          command: spec,
        },
        signers: [world.keyring.firstStart('region-root-1'), world.keyring.firstStart('region-root-2')],
      }),
    ],
    ['assignment', encodeMessage(signAssignment(far, thief))],
    ['assignment', encodeMessage(signAssignment({ ...far, deviceId: other.device.id }, director))],
    ['assignment', encodeMessage(signAssignment({ ...far, region: 'elsewhere' }, director))],
    ['assignment', encodeMessage(signAssignment(far, ack))],
    ['assignment', other.held.get('assignment') ?? new Uint8Array(1)],
    ['acknowledgement', encodeMessage(signAnswer(answer, thief))],
    ['acknowledgement', encodeMessage(signAnswer({ ...answer, deviceId: other.device.id }, ack))],
    ['acknowledgement', encodeMessage(signAnswer({ ...answer, region: 'elsewhere' }, ack))],
    [
      'acknowledgement',
      encodeMessage(
        signAnswer(
          {
            ...answer,
            result: { status: 'refused', code: 'telemetry-gap', detail: '', expectedSequence: 1 },
          },
          ack,
        ),
      ),
    ],
    ['acknowledgement', encodeMessage(signAnswer(answer, director))],
  ];
  const before = await dump(world);
  const retained = new Map(world.bus.retained);
  for (const [index, [file, bytes]] of files.entries()) {
    giveBack(world, liar.device, file, bytes);
    await world.settle();
    assert.equal((await world.events('held-invalid')).length, index + 1, `${index}: ${file}`);
  }
  const events = await world.events('held-invalid');
  assert.ok(events.every((event) => event.attack && event.subject === liar.device.id));
  await world.pass(10_000);
  assert.equal(await dump(world), before);
  assert.deepEqual(world.bus.retained, retained);
  // Genuine, and not later than what is here: no news and no attack.
  liar.giveBack([
    'root',
    'regionRoot',
    'timestamp',
    'snapshot',
    'targets',
    'ns/acme',
    'assignment',
    'acknowledgement',
  ]);
  await world.settle();
  assert.equal((await world.events('held-invalid')).length, files.length);
  assert.equal(await dump(world), before);
});

test('pieces are bounded, whole or nothing, and of active devices alone', async (t) => {
  const world = await openWorld(t);
  const holders = await holdersOf(world, 2);
  const [one, other] = holders;
  assert.ok(one && other);
  const bytes = new Uint8Array(200_000).fill(65);
  const piece = {
    ...head(world),
    kind: 'held',
    file: 'targets',
    sha256: sha256Hex(bytes),
    totalBytes: bytes.length,
    offset: 0,
    bytes: Buffer.from(bytes.subarray(0, heldPieceBytes)).toString('base64'),
  };
  const invalid = async () => (await world.events('held-invalid')).length;
  // Never finished, out of order, repeated: nothing to judge.
  one.device.say('result', piece);
  one.device.say('result', { ...piece, offset: 5 * heldPieceBytes });
  one.device.say('result', piece);
  await world.settle();
  assert.equal(await invalid(), 0);
  // Other bytes than were announced.
  one.device.say('result', { ...piece, totalBytes: 3, bytes: Buffer.from('abc').toString('base64') });
  await world.settle();
  assert.equal(await invalid(), 1);
  // More than a file may have, an unknown file, no message at all.
  one.device.say('result', { ...piece, totalBytes: 9 * 1024 * 1024 });
  one.device.say('result', { ...piece, file: '../x' });
  world.bus.say(deviceTopic(region, one.device.id, 'result'), Buffer.from('{'));
  await world.settle();
  assert.equal(await invalid(), 4);
  // Too many at once: the fifth file is not begun, so its rest leads nowhere.
  const held = createHeldFiles(world.clock);
  const parse = (body: object) => heldMessageSchema.parse(body);
  for (const name of ['a', 'b', 'c', 'd', 'e']) {
    assert.deepEqual(held.add('x', parse({ ...piece, file: `ns/${name}` })), { ok: true, value: null });
  }
  const rest = {
    ...piece,
    offset: heldPieceBytes,
    bytes: Buffer.from(bytes.subarray(heldPieceBytes, 2 * heldPieceBytes)).toString('base64'),
  };
  const last = {
    ...piece,
    offset: 2 * heldPieceBytes,
    bytes: Buffer.from(bytes.subarray(2 * heldPieceBytes)).toString('base64'),
  };
  for (const [name, whole] of [
    ['a', true],
    ['e', false],
  ] as const) {
    held.add('x', parse({ ...rest, file: `ns/${name}` }));
    const done = held.add('x', parse({ ...last, file: `ns/${name}` }));
    assert.equal(done.ok && done.value?.length === bytes.length, whole, name);
  }
  // Left lying, it is forgotten.
  world.clock.advance(61_000);
  held.add('x', parse({ ...rest, file: 'ns/b' }));
  assert.deepEqual(held.add('x', parse({ ...last, file: 'ns/b' })), { ok: true, value: null });

  await world.fleet.devices.revoke(other.device.id, 'tester');
  giveBack(world, other.device, 'timestamp', Buffer.from('nonsense'));
  await world.settle();
  assert.equal(await invalid(), 4);
});

test('roots: exactly the next one is taken, further ones are asked of the operator', async (t) => {
  const world = await openWorld(t);
  const [holder] = await holdersOf(world, 1);
  assert.ok(holder);
  const expiresAtMs = world.clock.wall() + 300 * dayMs;
  const role = (...names: Parameters<Keyring['firstStart']>[0][]) => ({
    keys: names.map((name) => world.keyring.firstStart(name).publicKey),
    threshold: names.length > 1 ? 2 : 1,
  });
  const rootOf = (version: number) =>
    makeRoot({
      version,
      expiresAtMs,
      roles: {
        root: role('root-1', 'root-2', 'root-3'),
        targets: role('targets'),
        snapshot: role('snapshot'),
        timestamp: role('timestamp'),
      },
      signers: [world.keyring.firstStart('root-1'), world.keyring.firstStart('root-3')],
    });
  const regionRootOf = (version: number) =>
    makeRegionRoot({
      version,
      expiresAtMs,
      region,
      roles: {
        root: role('region-root-1', 'region-root-2', 'region-root-3'),
        director: role('director'),
        time: role('time'),
        ack: role('ack'),
        command: role('command'),
      },
      signers: [world.keyring.firstStart('region-root-1'), world.keyring.firstStart('region-root-2')],
    });
  const before = await dump(world);
  giveBack(world, holder.device, 'root', rootOf(4));
  await world.settle();
  assert.equal(await dump(world), before);
  assert.equal((await world.events('restore-suspected')).length, 1);
  giveBack(world, holder.device, 'root', rootOf(2));
  giveBack(world, holder.device, 'region-root', regionRootOf(2));
  await world.settle();
  assert.deepEqual(await world.repository.file('2.root.json'), Buffer.from(rootOf(2)));
  assert.deepEqual(await world.repository.file('region/2.root.json'), Buffer.from(regionRootOf(2)));
  assert.equal((await world.events('restore-adopted')).length, 2);
  assert.equal((await world.events('held-invalid')).length, 0);
  assert.deepEqual(await holder.refresh([]), { refusal: null, behind: [] });
  assert.deepEqual([holder.versions().root, holder.versions().regionRoot], [2, 2]);
});

test('a root with other online keys: with ours the catalogue is signed anew at once, with another region’s nothing changes', async (t) => {
  const world = await openWorld(t);
  const [holder] = await holdersOf(world, 1);
  assert.ok(holder);
  const key = (name: Parameters<Keyring['firstStart']>[0]) => world.keyring.firstStart(name);
  const rootOf = (timestamp: Uint8Array, snapshot: Uint8Array) =>
    makeRoot({
      version: 2,
      expiresAtMs: world.clock.wall() + 300 * dayMs,
      roles: {
        root: {
          keys: [key('root-1').publicKey, key('root-2').publicKey, key('root-3').publicKey],
          threshold: 2,
        },
        targets: { keys: [key('targets').publicKey], threshold: 1 },
        snapshot: { keys: [snapshot], threshold: 1 },
        timestamp: { keys: [timestamp], threshold: 1 },
      },
      signers: [key('root-1'), key('root-3')],
    });
  const before = await dump(world);
  giveBack(world, holder.device, 'root', rootOf(thief.publicKey, thief.publicKey));
  giveBack(world, holder.device, 'root', rootOf(thief.publicKey, key('snapshot').publicKey));
  await world.settle();
  assert.equal(await dump(world), before);
  assert.equal((await world.events('restore-suspected')).length, 1);
  assert.equal((await world.events('restore-adopted')).length, 0);

  const next = rootOf(key('snapshot').publicKey, key('timestamp').publicKey);
  giveBack(world, holder.device, 'root', next);
  await world.settle();
  assert.deepEqual(await world.repository.file('2.root.json'), Buffer.from(next));
  assert.deepEqual(await holder.refresh([]), { refusal: null, behind: [] });
  assert.equal(holder.versions().root, 2);
});
