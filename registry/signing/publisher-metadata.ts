// Why: what the registry checks in a publisher's next targets metadata, complete or still short of signatures.
// Trusts: the keys that were named for the namespace; shared/trust for what one version may change.
// Must never: keep metadata that none of those keys signed.

import { tufKeyId } from '../../shared/crypto/ed25519.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkPublisherStep, type NewRelease } from '../../shared/trust/tuf/publisher.ts';
import { countValidSignatures } from '../../shared/trust/tuf/repository.ts';

export interface InspectedPush {
  version: number;
  expiresAtMs: number;
  /** Different keys of the namespace whose signature is valid; at least one. */
  signatures: number;
  threshold: number;
  /** TUF key ids of those. */
  signedBy: string[];
  /** Releases that the version in force does not name. */
  added: readonly NewRelease[];
}

/**
 * Refusals: those of `checkPublisherStep`, `metadata-expired`, and `publisher-key-unknown` where no valid
 * signature is there at all. Fewer than the threshold are no refusal here.
 */
export function inspectPublisherMetadata(input: {
  namespace: string;
  bytes: Uint8Array;
  /** Raw public keys. */
  keys: readonly Uint8Array[];
  threshold: number;
  /** Metadata in force, null before the first push. */
  current: Uint8Array | null;
  nowMs: number;
}): Result<InspectedPush> {
  const { namespace, bytes, threshold } = input;
  const step = checkPublisherStep({ namespace, current: input.current, next: bytes });
  if (!step.ok) return step;
  const signers = input.keys.filter((key) => countValidSignatures(bytes, [key]) === 1);
  if (signers.length === 0) {
    return refuse('publisher-key-unknown', `no key that was named for ${namespace} signed this metadata`);
  }
  const { version, expiresAtMs, added } = step.value;
  if (expiresAtMs <= input.nowMs)
    return refuse('metadata-expired', 'the pushed metadata has expired already');
  const signedBy = signers.map(tufKeyId).sort();
  return ok({ version, expiresAtMs, signatures: signers.length, threshold, signedBy, added });
}
