// Why: that a region said what a cell says, for whoever takes it from a peer or reads it years later.
// Trusts: the `ack` keys of the region's roots, which its caller knows to be that region's. Must never: take another
// region's word, or read what nobody signed.

import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type CellStatement, cellStatementSchema } from '../wire/cells.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../wire/messages.ts';
import { readSignedBody } from './signed-body.ts';
import type { RoleKeys } from './tuf/metadata.ts';

export function signCell(statement: CellStatement, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.cell, encodeMessage(statement), [signer]);
}

/**
 * What the region told. `keys`: its `ack` keys, under each of its roots, since keys change and cells stay. Refusals:
 * `envelope-malformed`, `cells-invalid` (none of them signed it, it is no cell, or one of another region).
 */
export function checkCell(
  envelope: Envelope,
  region: string,
  keys: readonly Pick<RoleKeys, 'keys' | 'threshold'>[],
): Result<CellStatement> {
  let opened: Result<Uint8Array> = refuse('cells-invalid', `no root of region ${region} is known`);
  for (const { keys: named, threshold } of keys) {
    const publicKeys = named.map((key) => key.publicKey);
    opened = openEnvelope(envelope, payloadTypes.cell, publicKeys, threshold, 'cells-invalid');
    if (opened.ok) break;
  }
  if (!opened.ok) return opened;
  const cell = readSignedBody(cellStatementSchema, opened.value, 'cells-invalid');
  if (cell.ok && cell.value.region !== region)
    return refuse('cells-invalid', `${region} gave a cell of region ${cell.value.region}`);
  return cell.ok ? ok(cell.value) : cell;
}
