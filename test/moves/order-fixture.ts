// Why: an order to move a device, and who may sign it, for the tests of moves.
// Trusts: the fixtures of the trust tests. Must never: check anything itself.

import type { Signer } from '../../shared/crypto/ed25519.ts';
import { encodeMove, signMove } from '../../shared/trust/device-move.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import type { MoveOrder } from '../../shared/wire/device-move.ts';
import type { Envelope } from '../../shared/wire/messages.ts';
import { dayMs, nowMs } from '../trust/catalogue-fixture.ts';
import { deviceId } from '../trust/region-fixture.ts';

export const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';

export function claimTo(region: string, deviceIds: readonly string[] = [deviceId]): ClaimFile {
  return {
    ...{ schemaVersion: 1, kind: 'lepton-claim', claimId: 'a'.repeat(20), region },
    ...{ brokerUrl: 'mqtts://127.0.0.1:8883', fleetCa: pem, certificate: pem, privateKey: 'no secret' },
    ...{ labels: {}, uses: deviceIds.length, expiresAtMs: nowMs + 10 * dayMs },
    ...{ catalogueRootSha256: 'a'.repeat(64), regionRootSha256: 'b'.repeat(64), deviceIds: [...deviceIds] },
  };
}

export function orderOf(changes: Partial<MoveOrder> = {}): MoveOrder {
  return {
    ...{ schemaVersion: 1, moveId: '1'.repeat(24), deviceIds: [deviceId], from: 'eu' },
    ...{ to: claimTo('us'), issuedAtMs: nowMs, expiresAtMs: nowMs + 7 * dayMs },
    ...changes,
  };
}

export const signedOrder = (signers: readonly Signer[], changes: Partial<MoveOrder> = {}): Envelope =>
  signMove(encodeMove(orderOf(changes)), signers);
