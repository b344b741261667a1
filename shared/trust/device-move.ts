// Why: who may move a device to another region: a threshold of the catalogue's root keys, and nobody else; a director, a
// region's root or the registry's online keys alone cannot (DESIGN 3).
// Trusts: the root in force for the keys. Must never: look at what an order says before enough of them signed it.

import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { deviceIdOf } from '../crypto/spki.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type Joining, joiningSchema, type MoveOrder, moveOrderSchema } from '../wire/device-move.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../wire/messages.ts';
import { readSignedBody } from './signed-body.ts';
import type { RootFile } from './tuf/format.ts';

export type MoveRoot = Pick<RootFile, 'roles'>;

export function encodeMove(order: MoveOrder): Uint8Array {
  return encodeMessage(moveOrderSchema.parse(order));
}

export function signMove(order: Uint8Array, signers: readonly Signer[]): Envelope {
  return signEnvelope(payloadTypes.deviceMove, order, signers);
}

/** The order's exact bytes and the order, once enough of the root's keys signed it. Refusals: `envelope-malformed`,
 *  `move-signature-invalid`, `move-malformed`. */
export function openMove(
  envelope: Envelope,
  root: MoveRoot,
): Result<{ order: MoveOrder; bytes: Uint8Array }> {
  const { keys, threshold } = root.roles.get('root') ?? { keys: [], threshold: 0 };
  const opened = openEnvelope(
    envelope,
    payloadTypes.deviceMove,
    keys.map((key) => key.publicKey),
    threshold,
    'move-signature-invalid',
  );
  if (!opened.ok) return opened;
  const order = readMove(opened.value);
  return order.ok ? ok({ order: order.value, bytes: opened.value }) : order;
}

/** What an order says, whoever signed it. Refusal: `move-malformed`. */
export function readMove(bytes: Uint8Array): Result<MoveOrder> {
  const read = readSignedBody(moveOrderSchema, bytes, 'move-malformed');
  if (!read.ok) return read;
  const { deviceIds, from, to, expiresAtMs } = read.value;
  if (from === to.region) return refuse('move-malformed', `it moves from ${from} to ${from}`);
  if (new Set(deviceIds).size !== deviceIds.length)
    return refuse('move-malformed', 'it names a device twice');
  const bound = new Set(to.deviceIds ?? []);
  if (!deviceIds.every((id) => bound.has(id)))
    return refuse('move-malformed', 'its claim does not let in every device that it names');
  if (expiresAtMs > to.expiresAtMs) return refuse('move-malformed', 'its claim ends before the order does');
  return read;
}

export interface MoveStanding {
  deviceId: string;
  /** Where the device is. */
  region: string;
  /** When the newest order that it took was issued, 0 where none; and which that was. */
  lastIssuedAtMs: number;
  lastMoveId: string | null;
  nowMs: number;
}

/**
 * Whether a device follows this order. `known`: it is the one that it took last. Refusals, in the order of the checks:
 * those of `openMove`, `move-other-device`, `move-replayed`, `move-other-region`, `move-expired`.
 */
export function checkMove(
  envelope: Envelope,
  root: MoveRoot,
  standing: MoveStanding,
): Result<{ order: MoveOrder; known: boolean }> {
  const opened = openMove(envelope, root);
  if (!opened.ok) return opened;
  const { order } = opened.value;
  const { deviceId, region, lastIssuedAtMs, lastMoveId, nowMs } = standing;
  if (!order.deviceIds.includes(deviceId))
    return refuse('move-other-device', `it names ${order.deviceIds.length} other devices`);
  if (order.moveId === lastMoveId) return ok({ order, known: true });
  if (order.issuedAtMs <= lastIssuedAtMs)
    return refuse('move-replayed', `issued at ${order.issuedAtMs}, the last one at ${lastIssuedAtMs}`);
  if (order.from !== region)
    return refuse('move-other-region', `it moves devices of ${order.from}; this one is in ${region}`);
  if (order.expiresAtMs <= nowMs) return refuse('move-expired', 'its time is over');
  return ok({ order, known: false });
}

export function signJoining(joining: Joining, device: Signer): Envelope {
  return signEnvelope(payloadTypes.joining, encodeMessage(joining), [device]);
}

/** Whether this device itself asks to join that region with that claim. Refusals: `envelope-malformed`, `joining-invalid`. */
export function checkJoining(parts: {
  envelope: Envelope;
  devicePublicKey: Uint8Array;
  claimId: string;
  region: string;
}): Result<Joining> {
  const { envelope, devicePublicKey, claimId, region } = parts;
  const opened = openEnvelope(envelope, payloadTypes.joining, [devicePublicKey], 1, 'joining-invalid');
  if (!opened.ok) return opened;
  const body = readSignedBody(joiningSchema, opened.value, 'joining-invalid');
  if (!body.ok) return body;
  const joining = body.value;
  if (joining.deviceId !== deviceIdOf(devicePublicKey))
    return refuse('joining-invalid', `it is of device ${joining.deviceId}`);
  if (joining.claimId !== claimId || joining.to !== region)
    return refuse('joining-invalid', `it is for claim ${joining.claimId} of region ${joining.to}`);
  return body;
}
