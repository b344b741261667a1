// Why: attacks that would take a device to another region, let a stranger into one, or speak for a region that it left.
// Trusts: keys made of names. Must never: need a broker; the same over real registries is in test/moves.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkNotice, signNotice } from '../../shared/trust/carried.ts';
import { checkJoining, checkMove, type MoveStanding, signJoining } from '../../shared/trust/device-move.ts';
import type { Joining, MoveOrder } from '../../shared/wire/device-move.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow, withDuplicateKey } from './direct-rows.ts';
import { region, trusted } from './fleet-region.ts';
import { device, deviceId, other, otherId } from './fleet-reports.ts';
import { objects } from './fuzz-seeds.ts';
import { dayMs, nowMs, signerNamed } from './hostile-repository.ts';

const holders = ['root-1', 'root-2', 'root-3'].map(signerNamed);
const by = holders.slice(0, 2);
const keys = holders.map(({ keyId, publicKey }) => ({ keyId, publicKey }));
const root = { roles: new Map([['root', { keys, threshold: 2 }]]) };

const order: MoveOrder = {
  ...{ schemaVersion: 1, moveId: '1'.repeat(24), deviceIds: [deviceId], from: region },
  to: {
    ...objects.claim,
    region: 'us',
    deviceIds: [deviceId],
    expiresAtMs: nowMs + 9 * dayMs,
  } as MoveOrder['to'],
  ...{ issuedAtMs: nowMs, expiresAtMs: nowMs + dayMs },
};
const standing: MoveStanding = { deviceId, region, lastIssuedAtMs: 0, lastMoveId: null, nowMs };

const signed = (changes: Partial<MoveOrder> = {}, signers: readonly Signer[] = by): Envelope =>
  signEnvelope(payloadTypes.deviceMove, encodeMessage({ ...order, ...changes }), signers);
const judge = (envelope: Envelope, changes: Partial<MoveStanding> = {}): Result<unknown> =>
  checkMove(envelope, root, { ...standing, ...changes });

const moved = (id: string, attack: string, code: ErrorCode, forged: () => Result<unknown>): AttackCase =>
  directRow('fleet', `move-${id}`, attack, code, () => ({ honest: judge(signed()), forged: forged() }));

const moves: AttackCase[] = [
  moved('one-key', 'a stolen root key alone orders a device away', 'move-signature-invalid', () =>
    judge(signed({}, [...by.slice(0, 1), ...by.slice(0, 1)])),
  ),
  moved(
    'by-region',
    'a region’s root and director order a device of theirs away',
    'move-signature-invalid',
    () => judge(signed({}, ['region-1', 'region-2', 'director', 'command'].map(signerNamed))),
  ),
  moved('by-online', 'the home’s online keys order a device away', 'move-signature-invalid', () =>
    judge(signed({}, ['snapshot', 'timestamp'].map(signerNamed))),
  ),
  moved(
    'as-assignment',
    'what root keys signed as something else is shown as an order',
    'envelope-malformed',
    () => judge(signEnvelope(payloadTypes.regionList, encodeMessage(order), by)),
  ),
  moved('two-readings', 'a signed order that two readers would read differently', 'move-malformed', () =>
    judge(signEnvelope(payloadTypes.deviceMove, withDuplicateKey(encodeMessage(order), 'from'), by)),
  ),
  moved('other-device', 'a genuine order for another device', 'move-other-device', () => {
    const to = { ...order.to, deviceIds: [otherId] };
    return judge(signed({ deviceIds: [otherId], to }));
  }),
  moved('other-region', 'a genuine order for devices of another region', 'move-other-region', () =>
    judge(signed(), { region: 'asia' }),
  ),
  moved(
    'after-return',
    'the order of a first move, repeated after the device came back',
    'move-replayed',
    () => judge(signed(), { lastIssuedAtMs: nowMs + 1, lastMoveId: '2'.repeat(24) }),
  ),
  moved('expired', 'an order that was kept until its time was over', 'move-expired', () =>
    judge(signed(), { nowMs: nowMs + dayMs }),
  ),
  moved('in-place', 'an order into the region where the device is', 'move-malformed', () =>
    judge(signed({ to: { ...order.to, region } })),
  ),
  moved('twice', 'an order that names a device twice', 'move-malformed', () =>
    judge(signed({ deviceIds: [deviceId, deviceId] })),
  ),
  moved('open-claim', 'an order with a claim that whoever has it could use', 'move-malformed', () => {
    const { deviceIds: _, ...to } = order.to;
    return judge(signed({ to }));
  }),
  moved('short-claim', 'an order whose claim ends before it', 'move-malformed', () =>
    judge(signed({ to: { ...order.to, expiresAtMs: nowMs + 1 } })),
  ),
];

const joining: Joining = { ...objects.joining, labels: {}, runs: [], schemaVersion: 1, deviceId };
const { claimId, to } = joining;
const judgeJoining = (envelope: Envelope): Result<unknown> =>
  checkJoining({ envelope, devicePublicKey: device.publicKey, claimId, region: to });
const joined = (id: string, attack: string, code: ErrorCode, forged: () => Envelope): AttackCase =>
  directRow('fleet', `joining-${id}`, attack, code, () => ({
    honest: judgeJoining(signJoining(joining, device)),
    forged: judgeJoining(forged()),
  }));

const joinings: AttackCase[] = [
  joined(
    'as-report',
    'what a device signed as something else is shown as its joining',
    'envelope-malformed',
    () => signEnvelope(payloadTypes.report, encodeMessage(joining), [device]),
  ),
  joined('stranger', 'who has only the claim’s file enrols the device that it names', 'joining-invalid', () =>
    signJoining(joining, other),
  ),
  joined('two-readings', 'a device’s word that two readers would read differently', 'joining-invalid', () =>
    signEnvelope(payloadTypes.joining, withDuplicateKey(encodeMessage(joining), 'to'), [device]),
  ),
  joined('other-device', 'a device joins in the name of another one', 'joining-invalid', () =>
    signJoining({ ...joining, deviceId: otherId }, device),
  ),
  joined('other-claim', 'what a device said for one claim is shown with another', 'joining-invalid', () =>
    signJoining({ ...joining, claimId: 'b'.repeat(20) }, device),
  ),
  joined('other-region', 'what a device said for one region is shown to another', 'joining-invalid', () =>
    signJoining({ ...joining, to: 'asia' }, device),
  ),
];

const notice = {
  ...({
    schemaVersion: 1,
    deviceId,
    epoch: 1,
    sequence: 1,
    headSha256: sha256Hex(new Uint8Array()),
  } as const),
  ...{ region, forRegion: 'us', code: 'carried-full', detail: 'x', pauseMs: 1 },
};
const judgeNotice = (envelope: Envelope): Result<unknown> =>
  checkNotice({ envelope, regionRoot: trusted, deviceId });
const noticed = (
  id: string,
  attack: string,
  forged: () => Envelope,
  code: ErrorCode = 'telemetry-answer-invalid',
): AttackCase =>
  directRow('fleet', `carried-${id}`, attack, code, () => ({
    honest: judgeNotice(signNotice(notice, signerNamed('ack'))),
    forged: judgeNotice(forged()),
  }));

const notices: AttackCase[] = [
  noticed(
    'as-answer',
    'a region’s answer to a batch of its own is shown as its notice about a carried one',
    () => signEnvelope(payloadTypes.telemetryAnswer, encodeMessage(notice), [signerNamed('ack')]),
    'envelope-malformed',
  ),
  noticed('stranger', 'somebody on the bus makes a device hold back what it carries', () =>
    signNotice(notice, signerNamed('mallory')),
  ),
  noticed('two-readings', 'a notice that two readers would read differently', () =>
    signEnvelope(payloadTypes.carriedNotice, withDuplicateKey(encodeMessage(notice), 'pauseMs'), [
      signerNamed('ack'),
    ]),
  ),
  noticed('other-device', 'a notice for another device', () =>
    signNotice({ ...notice, deviceId: otherId }, signerNamed('ack')),
  ),
  noticed('other-region', 'a notice in the name of another region than the device is in', () =>
    signNotice({ ...notice, region: 'asia' }, signerNamed('ack')),
  ),
];

export const moveAttacks: readonly AttackCase[] = [...moves, ...joinings, ...notices];
export { judge as judgeMove, signed as signedMove };
