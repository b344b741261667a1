// Why: who may move a device: each attempt of somebody who may not is refused with its own code.
// Trusts: the fixtures for keys. Must never: check prose.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkNotice, signNotice } from '../../shared/trust/carried.ts';
import { checkJoining, checkMove, type MoveStanding, signJoining } from '../../shared/trust/device-move.ts';
import { checkAnswer, signAnswer } from '../../shared/trust/telemetry.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import { decodeCarried, encodeCarried } from '../../shared/wire/carried.ts';
import { encodeMessage, payloadTypes } from '../../shared/wire/messages.ts';
import { dayMs, nowMs, Repository, signerNamed } from '../trust/catalogue-fixture.ts';
import { device, deviceId, director, other, regionKeys, trusted } from '../trust/region-fixture.ts';
import { claimTo, orderOf, signedOrder } from './order-fixture.ts';

const repository = new Repository();
const root = unwrap(trustRoot(housePolicy, repository.firstRoot));
const holders = repository.rootSigners;
const standing: MoveStanding = {
  ...{ deviceId, region: 'eu', lastIssuedAtMs: 0, lastMoveId: null, nowMs },
};

const codeOf = (result: Result<unknown>): string => (result.ok ? 'taken' : result.refusal.code);
const judged = (envelope: ReturnType<typeof signedOrder>, changes: Partial<MoveStanding> = {}): string =>
  codeOf(checkMove(envelope, root, { ...standing, ...changes }));

test('two holders of root keys move a device; nobody else does', () => {
  assert.equal(judged(signedOrder(holders.slice(0, 2))), 'taken');
  const [first] = holders;
  assert.ok(first);
  for (const signers of [
    [first],
    // One key counts once.
    [first, first],
    [first, director],
    [director],
    regionKeys,
    [repository.snapshotSigner, repository.timestampSigner, repository.targetsSigner],
  ])
    assert.equal(judged(signedOrder(signers)), 'move-signature-invalid');
  // Signed by the right ones, as something else.
  const order = encodeMessage(orderOf());
  assert.equal(judged(signEnvelope(payloadTypes.assignment, order, holders)), 'envelope-malformed');
  const changed = { ...signedOrder(holders), payload: signedOrder(holders, { from: 'xx' }).payload };
  assert.equal(judged(changed), 'move-signature-invalid');
  // The root's keys were replaced since it was signed.
  const keys = ['other-1', 'other-2']
    .map((name) => signerNamed(name))
    .map(({ keyId, publicKey }) => ({ keyId, publicKey }));
  const replaced = { roles: new Map([...root.roles, ['root', { keys, threshold: 2 }]]) };
  assert.equal(codeOf(checkMove(signedOrder(holders), replaced, standing)), 'move-signature-invalid');
});

test('an order for others, of another place, repeated, or too late is not followed', () => {
  const by = holders.slice(0, 2);
  const elsewhere = 'd'.repeat(32);
  const forOthers = signedOrder(by, { deviceIds: [elsewhere], to: claimTo('us', [elsewhere]) });
  assert.equal(judged(forOthers), 'move-other-device');
  assert.equal(judged(signedOrder(by), { region: 'asia' }), 'move-other-region');
  assert.equal(judged(signedOrder(by), { nowMs: nowMs + 8 * dayMs }), 'move-expired');
  // It went and came back by a later order: the first one again does not send it away.
  const back = { lastIssuedAtMs: nowMs + 1, lastMoveId: '2'.repeat(24) };
  assert.equal(judged(signedOrder(by), back), 'move-replayed');
  assert.equal(judged(signedOrder(by), { ...back, lastIssuedAtMs: nowMs }), 'move-replayed');
  assert.equal(judged(signedOrder(by), { ...back, lastIssuedAtMs: nowMs - 1 }), 'taken');
  // The one that it took last is no news and no attack, wherever the device is by now.
  const known = checkMove(signedOrder(by), root, {
    ...standing,
    ...{ region: 'us', lastIssuedAtMs: nowMs, lastMoveId: '1'.repeat(24) },
  });
  assert.equal(known.ok && known.value.known, true);
});

test('an order that could not work is refused before it is carried anywhere', () => {
  const by = holders.slice(0, 2);
  for (const changes of [
    { to: claimTo('eu') },
    { to: claimTo('us', ['d'.repeat(32)]) },
    { deviceIds: [deviceId, deviceId] },
    { expiresAtMs: nowMs + 11 * dayMs },
  ])
    assert.equal(judged(signedOrder(by, changes)), 'move-malformed');
  const { deviceIds, ...unbound } = claimTo('us');
  assert.equal(deviceIds?.length, 1);
  assert.equal(judged(signedOrder(by, { to: unbound })), 'move-malformed');
});

test('a claim is of no use to who has only its file: the device itself must ask', () => {
  const joining = {
    ...({ schemaVersion: 1, deviceId, claimId: 'a'.repeat(20), moveId: '1'.repeat(24) } as const),
    ...{ from: 'eu', to: 'us', labels: {}, timezone: 'UTC', runs: [] },
  };
  const check = (envelope: ReturnType<typeof signJoining>, claimId = 'a'.repeat(20), region = 'us') =>
    codeOf(checkJoining({ envelope, devicePublicKey: device.publicKey, claimId, region }));
  assert.equal(check(signJoining(joining, device)), 'taken');
  assert.equal(check(signJoining(joining, other)), 'joining-invalid');
  assert.equal(check(signJoining(joining, device), 'b'.repeat(20)), 'joining-invalid');
  assert.equal(check(signJoining(joining, device), undefined, 'asia'), 'joining-invalid');
  assert.equal(check(signJoining({ ...joining, deviceId: 'd'.repeat(32) }, device)), 'joining-invalid');
});

test('the present region cannot answer for the old one, and its notice deletes nothing', () => {
  const ack = signerNamed('ack');
  const usAck = signerNamed('ack of us');
  const eu = trusted({ region: 'eu' });
  const us = trusted({ region: 'us', ack: { keys: [usAck.publicKey], threshold: 1 } });
  const answer = {
    ...({ schemaVersion: 1, deviceId, epoch: 0, sequence: 1, headSha256: 'c'.repeat(64) } as const),
    result: { status: 'stored', records: 1 } as const,
  };
  const judge = (region: string, signer: typeof ack) =>
    codeOf(
      checkAnswer({
        envelope: signAnswer({ ...answer, region }, signer),
        ...{ regionRoot: eu, deviceId, region: 'eu' },
      }),
    );
  assert.equal(judge('eu', ack), 'taken');
  assert.equal(judge('eu', usAck), 'telemetry-answer-invalid');
  assert.equal(judge('us', ack), 'telemetry-answer-invalid');

  const { result: _, ...rest } = answer;
  const notice = { ...rest, region: 'us', forRegion: 'eu', code: 'carried-full', detail: 'x', pauseMs: 1 };
  const envelope = signNotice(notice, usAck);
  assert.equal(codeOf(checkNotice({ envelope, regionRoot: us, deviceId })), 'taken');
  assert.equal(codeOf(checkNotice({ envelope, regionRoot: eu, deviceId })), 'telemetry-answer-invalid');
  assert.equal(
    codeOf(checkNotice({ envelope, regionRoot: us, deviceId: 'd'.repeat(32) })),
    'telemetry-answer-invalid',
  );
  // A notice is no answer, whoever signs it.
  assert.equal(
    codeOf(checkAnswer({ envelope: signNotice(notice, ack), regionRoot: eu, deviceId, region: 'eu' })),
    'envelope-malformed',
  );
});

test('the envelope of a carried batch changes no byte of it', () => {
  const batch = Uint8Array.from({ length: 300 }, (_, at) => at);
  assert.deepEqual(unwrap(decodeCarried(encodeCarried({ region: 'eu', batch }))), { region: 'eu', batch });
  for (const bytes of [[], [1], [2, 0], [1, 3, 101, 117], [1, 0], [1, 2, 47, 47]])
    assert.equal(codeOf(decodeCarried(Uint8Array.from(bytes))), 'carried-malformed');
});
