// Why: an order to move devices as a file that goes from signer to signer: made, read in words, signed, put together.
// Trusts: nothing in the file; a signer compares the words and the digest of the root with what it knows.
// Must never: add a signature of a key that counts for nothing.

import { randomBytes } from 'node:crypto';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, tufKeyId } from '../../shared/crypto/ed25519.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { encodeMove, openMove, readMove, signMove } from '../../shared/trust/device-move.ts';
import type { RootFile } from '../../shared/trust/tuf/format.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import { type MoveFile, type MoveOrder, moveFileSchema } from '../../shared/wire/device-move.ts';
import { type Envelope, parseMessage, payloadTypes } from '../../shared/wire/messages.ts';
import { readBytes } from './key-files.ts';

const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const fromBase64 = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));

export interface OpenMoveFile {
  file: MoveFile;
  order: MoveOrder;
  /** Of the root that the file carries. */
  rootSha256: string;
  signedBy: string[];
  needed: number;
}

export function makeMoveFile(parts: {
  deviceIds: readonly string[];
  from: string;
  to: ClaimFile;
  catalogueRoot: Uint8Array;
  nowMs: number;
  expiresAtMs: number;
}): MoveFile {
  const { deviceIds, from, to, catalogueRoot, nowMs, expiresAtMs } = parts;
  const bytes = encodeMove({
    ...{ schemaVersion: 1, moveId: randomBytes(12).toString('hex'), deviceIds: [...deviceIds], from, to },
    issuedAtMs: nowMs,
    expiresAtMs: Math.min(expiresAtMs, to.expiresAtMs),
  });
  // What no device would take is not carried about.
  unwrap(readMove(bytes));
  const order = toBase64(bytes);
  return {
    ...{ schemaVersion: 1, kind: 'lepton-device-move', order, signatures: [] },
    catalogueRoot: toBase64(catalogueRoot),
  };
}

/** Faults: `move-malformed`, and those of a root that cannot be read. */
export function openMoveFile(file: MoveFile): OpenMoveFile {
  const order = unwrap(readMove(fromBase64(file.order)));
  const root = unwrap(trustRoot(housePolicy, fromBase64(file.catalogueRoot)));
  const { threshold, keys } = root.roles.get('root') ?? { threshold: 0, keys: [] };
  const signedBy = keys.filter(({ publicKey }) => counts(file, root, publicKey)).map(({ keyId }) => keyId);
  return { file, order, rootSha256: sha256Hex(root.bytes), signedBy, needed: threshold };
}

function counts(file: MoveFile, root: RootFile, publicKey: Uint8Array): boolean {
  if (file.signatures.length === 0) return false;
  const role = { threshold: 1, keys: [{ keyId: tufKeyId(publicKey), publicKey }] };
  return openMove(envelopeOf(file), { roles: new Map([...root.roles, ['root', role]]) }).ok;
}

export function readMoveFile(path: string): MoveFile {
  const parsed = parseMessage(moveFileSchema, readBytes(path));
  if (!parsed.ok) throw new FleetError('move-malformed', `${path}: ${parsed.refusal.detail}`);
  return parsed.value;
}

export function envelopeOf({ order, signatures }: MoveFile): Envelope {
  return { payloadType: payloadTypes.deviceMove, payload: order, signatures };
}

/** One signature for each key, the last one of each. */
export function withSignatures(file: MoveFile, added: Envelope['signatures']): MoveFile {
  const byKey = new Map([...file.signatures, ...added].map((one) => [one.keyid, one]));
  return { ...file, signatures: [...byKey.values()] };
}

/** Fault: `key-not-needed` where the root does not name the key. */
export function signMoveFile(opened: OpenMoveFile, signer: Signer): MoveFile {
  const root = unwrap(trustRoot(housePolicy, fromBase64(opened.file.catalogueRoot)));
  const named = root.roles.get('root')?.keys ?? [];
  if (!named.some(({ publicKey }) => tufKeyId(publicKey) === signer.keyId))
    throw new FleetError('key-not-needed', `key ${signer.keyId} is none of the catalogue’s root`, {
      hint: 'an order is signed with keys of the catalogue’s root: lepton keys status lists them',
    });
  return withSignatures(opened.file, signMove(fromBase64(opened.file.order), [signer]).signatures);
}

/** What it would do, from the order itself. */
export function moveWords({ order, rootSha256, signedBy, needed }: OpenMoveFile): string[] {
  const { deviceIds, from, to, expiresAtMs } = order;
  return [
    `move ${order.moveId}: ${deviceIds.length} device(s) from ${from} to ${to.region}, until ${new Date(expiresAtMs).toISOString()}`,
    ...deviceIds.map((id) => `  ${id}`),
    `region root of ${to.region}  sha256 ${to.regionRootSha256}`,
    `broker of ${to.region}       ${to.brokerUrl}`,
    `catalogue root         sha256 ${rootSha256}`,
    [`signed by ${signedBy.length} of ${needed}`, ...signedBy.map((id) => `  ${id}`)].join('\n'),
  ];
}
