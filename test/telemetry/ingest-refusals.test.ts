// Why: everything that is wrong with a batch has its own code, is seen by the operator and changes nothing.
// Trusts: ingest-world.ts. Must never: count a refusal that came with another code.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { telemetryLimits } from '../../registry/telemetry/limits.ts';
import { boxKeyPairFromSeed } from '../../shared/crypto/sealed-box.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { encodeBatchMessage, sealRow, signStatement } from '../../shared/trust/telemetry.ts';
import { resendBatchesMax } from '../../shared/wire/telemetry.ts';
import { bombBody, recordsOf } from './batch-maker.ts';
import { type IngestWorld, openIngestWorld, type Sender } from './ingest-world.ts';

/** Nothing was stored, the operator can see why, and the honest batch is still welcome. */
async function leftNothing(world: IngestWorld, sender: Sender, code: ErrorCode): Promise<void> {
  assert.deepEqual(await world.records(), [], code);
  const events = await world.events(code);
  assert.ok(
    events.some((event) => event.subject === sender.id),
    `no event ${code}`,
  );
  const honest = await sender.maker.make(recordsOf(1));
  assert.deepEqual(await sender.exchange(honest.message), [{ status: 'stored', records: 1 }], code);
}

test('edits: of the body, the wrap, the statement, the frame', async (t) => {
  const cases: [ErrorCode, (bytes: Uint8Array, at: { body: number; wrap: number }) => void][] = [
    ['telemetry-body-mismatch', (bytes, at) => flip(bytes, at.body + 3)],
    ['telemetry-body-mismatch', (bytes, at) => flip(bytes, at.wrap + 3)],
    ['telemetry-malformed', (bytes) => flip(bytes, 0)],
  ];
  for (const [code, edit] of cases) {
    const world = await openIngestWorld(t);
    const sender = await world.sender();
    const batch = await sender.maker.make(recordsOf(3), { aside: true });
    const bytes = new Uint8Array(batch.message);
    const body = bytes.length - batch.body.length;
    edit(bytes, { body, wrap: body - batch.wrap.length });
    // No answer: what somebody did to a message on its way must not make the device give up its batch.
    assert.equal(await sender.refusal(bytes), 'no answer');
    await leftNothing(world, sender, code);
  }
});

function flip(bytes: Uint8Array, at: number): void {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
}

test('an edited statement is nobody’s', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { envelope, wrap, body } = await sender.maker.make(recordsOf(3), { aside: true });
  const said = Buffer.from(envelope.payload, 'base64').toString();
  const payload = Buffer.from(said.replace('"recordCount":3', '"recordCount":4')).toString('base64');
  const edited = encodeBatchMessage({ envelope: { ...envelope, payload }, wrap, body });
  assert.equal(await sender.refusal(edited), 'no answer');
  await leftNothing(world, sender, 'telemetry-signature-invalid');
});

test('another device signs the batch again, as it is or as its own', async (t) => {
  const world = await openIngestWorld(t);
  const [victim, thief] = [await world.sender(), await world.sender()];
  const stolen = await victim.maker.make(recordsOf(3), { aside: true });
  const said = { format: 'packed' as const, recordCount: 3, plainBytes: 1, ...stolen };
  const resigned = { ...stolen, envelope: signStatement(said, thief.maker.signer) };
  // On the thief's own topic: the signature is good, the head names the other device.
  assert.equal(await thief.refusal(encodeBatchMessage(resigned)), 'no answer');
  assert.ok((await world.events('telemetry-other-device')).some((event) => event.subject === thief.id));
  // On the victim's topic: not its key.
  assert.equal(await victim.refusal(encodeBatchMessage(resigned)), 'no answer');
  assert.ok((await world.events('telemetry-signature-invalid')).some((event) => event.subject === victim.id));
  // With a head of its own around the other's wrap and body: neither opens for that head and that key.
  const own = await thief.maker.make([], { aside: true });
  const rewrapped = { ...said, headBytes: own.headBytes };
  const envelope = signStatement(rewrapped, thief.maker.signer);
  assert.equal(await thief.refusal(encodeBatchMessage({ ...stolen, envelope })), 'telemetry-unreadable');
  await leftNothing(world, victim, 'telemetry-signature-invalid');
});

test('a wrap of an earlier batch around a new head', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const old = await sender.maker.make(recordsOf(3), { aside: true });
  const fresh = await sender.maker.make(recordsOf(3), { aside: true, head: { openedAtMs: 5 } });
  const said = { format: 'packed' as const, recordCount: 3, plainBytes: 1, ...old };
  const envelope = signStatement({ ...said, headBytes: fresh.headBytes }, sender.maker.signer);
  assert.equal(await sender.refusal(encodeBatchMessage({ ...old, envelope })), 'telemetry-wrap-mismatch');
  await leftNothing(world, sender, 'telemetry-wrap-mismatch');
});

test('a batch for another region', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const batch = await sender.maker.make(recordsOf(1), { aside: true, head: { region: 'other' } });
  assert.equal(await sender.refusal(batch.message), 'no answer');
  await leftNothing(world, sender, 'telemetry-other-device');
});

test('keys: unknown ones, of another device, of an enrolment that never was, sealed to a stranger', async (t) => {
  const world = await openIngestWorld(t);
  const [sender, other] = [await world.sender(), await world.sender()];
  const { maker } = sender;
  const strange = boxKeyPairFromSeed(world.core.entropy.bytes(32));
  const sealTo = Buffer.from(strange.publicKey).toString('hex');
  const cases: [ErrorCode, Parameters<typeof maker.make>[1]][] = [
    ['telemetry-key-unknown', { head: { keyId: 'none' } }],
    ['telemetry-key-unknown', { head: { keyId: other.maker.key.keyId } }],
    ['telemetry-key-unknown', { head: { epoch: 7 } }],
    ['telemetry-unreadable', { sealTo }],
  ];
  for (const [code, wishes] of cases) {
    const batch = await maker.make(recordsOf(1), { ...wishes, aside: true });
    assert.equal(await sender.refusal(batch.message), code, JSON.stringify(wishes));
  }
  await leftNothing(world, sender, 'telemetry-key-unknown');
});

test('content that is not what was signed for', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { maker } = sender;
  const deep = Buffer.from(
    `{"timeMs":1,"release":null,"data":{"a":${'['.repeat(60_000)}${']'.repeat(60_000)}}}`,
  );
  const rows = (key: Uint8Array, ...lines: Uint8Array[]): Uint8Array =>
    Buffer.concat(
      lines.map((line, index) => {
        const box = sealRow(key, index, line);
        const length = Buffer.alloc(4);
        length.writeUInt32BE(box.length);
        return Buffer.concat([length, box]);
      }),
    );
  const rowOf = (text: string | Buffer) => ({
    format: 'rows' as const,
    recordCount: 1,
    plainBytes: Buffer.byteLength(text) + 1,
    body: async (key: Uint8Array) => rows(key, Buffer.from(text)),
  });
  const cases: [string, ErrorCode, Parameters<typeof maker.make>[1]][] = [
    ['fewer records', 'telemetry-unreadable', { recordCount: 4 }],
    ['more records', 'telemetry-unreadable', { recordCount: 2 }],
    ['fewer bytes', 'telemetry-unreadable', { plainBytes: 100_000 }],
    ['random body', 'telemetry-unreadable', { body: async () => world.core.entropy.bytes(500) }],
    ['no JSON', 'telemetry-unreadable', rowOf('{')],
    ['no record', 'telemetry-unreadable', rowOf('{"timeMs":-1,"release":null,"data":{}}')],
    ['too deep', 'telemetry-unreadable', rowOf(deep)],
  ];
  for (const [what, code, wishes] of cases) {
    const batch = await maker.make(recordsOf(3), { ...wishes, aside: true });
    assert.equal(await sender.refusal(batch.message), code, what);
  }
  const full = await maker.make([], { format: 'tombstone', body: async () => deep, aside: true });
  assert.equal(await sender.refusal(full.message), 'no answer');
  assert.equal((await world.events('telemetry-body-mismatch')).length, 1);
  await leftNothing(world, sender, 'telemetry-unreadable');
});

test('a decompression bomb is cut off at what was signed for, and at the region’s own cap', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { maker } = sender;
  const bytes = 32 * 1024 * 1024;
  const body = (key: Uint8Array) => bombBody(key, bytes);
  const small = await maker.make([], { recordCount: 1, plainBytes: 1_000, body, aside: true });
  assert.ok(small.message.length < limits.busMessageBytesMax);
  assert.equal(await sender.refusal(small.message), 'telemetry-too-large');
  const honest = await maker.make([], { recordCount: 1, plainBytes: bytes, body, aside: true });
  const before = process.memoryUsage().arrayBuffers;
  assert.equal(await sender.refusal(honest.message), 'telemetry-too-large');
  assert.ok(process.memoryUsage().arrayBuffers - before < telemetryLimits.batchPlainBytesMax);
  await leftNothing(world, sender, 'telemetry-too-large');
});

test('a gap names the sequence that is waited for; a broken chain is none', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { maker } = sender;
  const [one, two, three] = [
    await maker.make(recordsOf(1)),
    await maker.make(recordsOf(1, 1)),
    await maker.make(recordsOf(1, 2)),
  ];
  await sender.exchange(one.message);
  const [gap] = await sender.exchange(three.message);
  assert.ok(gap?.status === 'refused');
  assert.deepEqual([gap.code, gap.expectedSequence], ['telemetry-gap', 2]);
  maker.sequence = 1;
  maker.previousHeadSha256 = three.headSha256;
  const broken = await maker.make(recordsOf(1), { aside: true });
  assert.equal(await sender.refusal(broken.message), 'telemetry-chain-broken');
  assert.deepEqual((await sender.exchange(two.message, three.message)).length, 2);
  assert.equal((await world.records()).length, 3);
  assert.equal((await world.events('telemetry-gap')).length, 1);
  assert.equal((await world.events('telemetry-chain-broken')).length, 1);
});

test('a message kept by somebody and sent again much later is refused', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const kept = await sender.maker.make(recordsOf(1));
  await sender.exchange(kept.message);
  for (let n = 1; n < resendBatchesMax; n += 1) {
    await sender.exchange((await sender.maker.make(recordsOf(1, n))).message);
  }
  // So far the device itself may have lost the answer.
  assert.deepEqual(await sender.exchange(kept.message), [{ status: 'stored', records: 1 }]);
  await sender.exchange((await sender.maker.make(recordsOf(1, 99))).message);
  assert.equal(await sender.refusal(kept.message), 'telemetry-replayed');
  assert.equal((await world.events('telemetry-replayed'))[0]?.subject, sender.id);
  assert.equal((await world.records()).length, resendBatchesMax + 1);
});

test('a cloned device: both are shut out until somebody decides', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const genuine = await sender.maker.make(recordsOf(2));
  await sender.exchange(genuine.message);
  sender.maker.sequence = 0;
  sender.maker.previousHeadSha256 = null;
  const clone = await sender.maker.make(recordsOf(2, 10), { aside: true });
  const after = await sender.maker.make(recordsOf(1), {
    aside: true,
    head: { sequence: 2, previousHeadSha256: genuine.headSha256 },
  });
  // Made in the same millisecond: the heads are the same, the batches are not.
  assert.equal(clone.headSha256, genuine.headSha256);
  assert.equal(await sender.refusal(clone.message), 'telemetry-cloned');
  assert.equal((await world.view(sender.device)).status, 'quarantined');
  assert.deepEqual(world.bus.disconnected, [sender.id]);
  assert.equal(await world.fleet.mayConnect({ kind: 'device', deviceId: sender.id }), false);
  assert.equal((await world.events('telemetry-cloned')).length, 1);
  assert.equal(await sender.device.assignment(), null);
  assert.deepEqual(await sender.exchange(after.message), []);
  assert.equal((await world.records()).length, 2);
  await world.fleet.devices.release(sender.id, 'tester');
  assert.deepEqual(await sender.exchange(after.message), [{ status: 'stored', records: 1 }]);
});
