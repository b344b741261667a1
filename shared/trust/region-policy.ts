// Why: a region's policy is in force when its root keys have signed it, whoever brings it.
// Trusts: the region root it is given. Must never: take a policy of another region, or one that too few have signed.

import { parseStrictJson } from '../crypto/canonical-json.ts';
import { sha256Hex } from '../crypto/digests.ts';
import { openEnvelope, preAuthEncoding, signEnvelope } from '../crypto/dsse.ts';
import { type Signer, tufKeyId, verify } from '../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { type Envelope, payloadTypes } from '../wire/messages.ts';
import { type RegionPolicy, regionPolicySchema } from '../wire/region-policy.ts';
import type { RegionRoot } from './region.ts';
import { readSignedBody } from './signed-body.ts';

/**
 * One spelling (RFC 8785): members in the order of their UTF-16 units, numbers as ECMAScript writes them. Masking rules have
 * fractions, which the canonical JSON of TUF does not know.
 */
function spell(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(spell).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  members.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${spell(member)}`).join(',')}}`;
}

/** The bytes that are signed: two files that mean the same have the same ones. */
export function policyBytes(policy: RegionPolicy): Uint8Array {
  return new TextEncoder().encode(spell(policy));
}

export const policySha256 = (policy: RegionPolicy): string => sha256Hex(policyBytes(policy));

/** Unsigned where there are no signers. */
export function signPolicy(policy: RegionPolicy, signers: readonly Signer[] = []): Envelope {
  return signEnvelope(payloadTypes.regionPolicy, policyBytes(policy), signers);
}

/** The same with this signer's signature, in the place of an earlier one of that key. */
export function withPolicySignature(envelope: Envelope, signer: Signer): Envelope {
  const message = preAuthEncoding(
    envelope.payloadType,
    new Uint8Array(Buffer.from(envelope.payload, 'base64')),
  );
  const sig = Buffer.from(signer.sign(message)).toString('base64');
  const others = envelope.signatures.filter(({ keyid }) => keyid !== signer.keyId);
  return { ...envelope, signatures: [...others, { keyid: signer.keyId, sig }] };
}

/** What an envelope says, whoever signed it. Refusal: `policy-file-invalid`. */
export function readPolicy(envelope: Envelope): Result<RegionPolicy> {
  if (envelope.payloadType !== payloadTypes.regionPolicy)
    return refuse('policy-file-invalid', `the payload type is not ${payloadTypes.regionPolicy}`);
  const payload = new Uint8Array(Buffer.from(envelope.payload, 'base64'));
  const json = parseStrictJson(payload, { code: 'policy-file-invalid' });
  if (!json.ok) return json;
  // By what is in it, without this version's defaults: a later version reads what an earlier one signed.
  if (Buffer.from(payload).toString('utf8') !== spell(json.value))
    return refuse('policy-file-invalid', 'the signed bytes are not the one spelling of what they say');
  return readSignedBody(regionPolicySchema, payload, 'policy-file-invalid');
}

/** Keys of the root's role whose signatures are valid, by their ids. */
export function policySigners(envelope: Envelope, root: RegionRoot): string[] {
  const message = preAuthEncoding(
    envelope.payloadType,
    new Uint8Array(Buffer.from(envelope.payload, 'base64')),
  );
  return root.roles.root.keys.flatMap(({ publicKey }) => {
    const keyId = tufKeyId(publicKey);
    const isValid = envelope.signatures.some(
      ({ keyid, sig }) =>
        keyid === keyId && verify(publicKey, message, new Uint8Array(Buffer.from(sig, 'base64'))),
    );
    return isValid ? [keyId] : [];
  });
}

/**
 * The policy, once enough root keys of its region have signed it. Whether its version rises is for the caller. Refusals:
 * `policy-file-invalid`, `policy-other-region`, `policy-signature-invalid`.
 */
export function checkPolicy(envelope: Envelope, root: RegionRoot): Result<RegionPolicy> {
  const read = readPolicy(envelope);
  if (!read.ok) return read;
  const { region } = read.value.metadata;
  if (region !== root.region)
    return refuse('policy-other-region', `the policy is of region ${region}, this is ${root.region}`);
  const { keys, threshold } = root.roles.root;
  const publicKeys = keys.map(({ publicKey }) => publicKey);
  const code = 'policy-signature-invalid';
  const opened = openEnvelope(envelope, payloadTypes.regionPolicy, publicKeys, threshold, code);
  return opened.ok ? ok(read.value) : opened;
}
