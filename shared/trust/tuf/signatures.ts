// Why: the one place that counts who signed a metadata file.
// Trusts: the role's keys, which the caller took from metadata it had verified before.
// Must never: let one key meet a threshold of two, under whatever names it appears.

import { verify } from '../../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import type { MetadataHead, RoleKeys } from './format.ts';
import type { VerifySignature } from './policy.ts';

/** The house's rule, and the one that holds where no policy says otherwise: Ed25519 and nothing else. */
export const verifyHouseKey: VerifySignature = (key, message, signature) =>
  key.scheme === undefined && verify(key.publicKey, message, signature);

/** Public keys (hex) of the role whose signature on this file is valid; each physical key once. */
export function validSigners(
  metadata: MetadataHead,
  role: Pick<RoleKeys, 'keys'>,
  verifyKey: VerifySignature = verifyHouseKey,
): ReadonlySet<string> {
  const signatures = new Map(metadata.signatures.map((entry) => [entry.keyId, entry.signature]));
  const signers = new Set<string>();
  for (const key of role.keys) {
    const signature = signatures.get(key.keyId);
    if (signature === undefined) continue;
    if (verifyKey(key, metadata.signedBytes, signature))
      signers.add(Buffer.from(key.publicKey).toString('hex'));
  }
  return signers;
}

/** TUF 1.0.34 §5.3.4, §5.4.2, §5.5.3, §5.6.3: a threshold of different keys. Refusal: `metadata-signature-invalid`. */
export function checkThreshold(
  metadata: MetadataHead,
  role: RoleKeys | undefined,
  what: string,
  verifyKey: VerifySignature = verifyHouseKey,
): Result<void> {
  if (role === undefined) return refuse('metadata-signature-invalid', `${what}: nobody is named to sign it`);
  const signers = validSigners(metadata, role, verifyKey).size;
  if (signers >= role.threshold) return ok();
  return refuse(
    'metadata-signature-invalid',
    `${what}: ${signers} of ${role.threshold} needed signatures are valid`,
  );
}
