// Why: the one place that counts who signed a metadata file.
// Trusts: the role's keys, which the caller took from metadata it had verified before.
// Must never: let one key meet a threshold of two, under whatever names it appears.

import { verify } from '../../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import type { MetadataHead, RoleKeys } from './metadata.ts';

/** Raw public keys (hex) of the role whose signature on this file is valid; each physical key once. */
export function validSigners(metadata: MetadataHead, role: Pick<RoleKeys, 'keys'>): ReadonlySet<string> {
  const signatures = new Map(metadata.signatures.map((entry) => [entry.keyId, entry.signature]));
  const signers = new Set<string>();
  for (const { keyId, publicKey } of role.keys) {
    const signature = signatures.get(keyId);
    if (signature === undefined) continue;
    if (verify(publicKey, metadata.signedBytes, signature))
      signers.add(Buffer.from(publicKey).toString('hex'));
  }
  return signers;
}

/** TUF 1.0.34 §5.3.4, §5.4.2, §5.5.3, §5.6.3: a threshold of different keys. Refusal: `metadata-signature-invalid`. */
export function checkThreshold(
  metadata: MetadataHead,
  role: RoleKeys | undefined,
  what: string,
): Result<void> {
  if (role === undefined) return refuse('metadata-signature-invalid', `${what}: nobody is named to sign it`);
  const signers = validSigners(metadata, role).size;
  if (signers >= role.threshold) return ok();
  return refuse(
    'metadata-signature-invalid',
    `${what}: ${signers} of ${role.threshold} needed signatures are valid`,
  );
}
