// Why: what the registry checks in a publisher's next targets metadata, complete or still short of signatures.
// Trusts: the keys that were named for the namespace; shared/trust for what one version may change.
// Must never: keep metadata that none of those keys signed.

import { tufKeyId } from '../../shared/crypto/ed25519.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  checkPublisherStep,
  type NewRelease,
  type PublisherFloors,
  type PublisherTargets,
  type RaisedFloor,
  type WithdrawnRelease,
} from '../../shared/trust/tuf/publisher.ts';
import { stepIdOf, stepInWords } from '../../shared/trust/tuf/publisher-review.ts';
import { validSigners } from '../../shared/trust/tuf/signatures.ts';

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
  raised: readonly RaisedFloor[];
  withdrawn: readonly WithdrawnRelease[];
  /** Names this content, whoever signed it. */
  stepId: string;
  /** The same changes in words. */
  does: string[];
}

/**
 * Refusals: those of `checkPublisherStep`, `metadata-expired`, and `publisher-key-unknown` where no valid
 * signature is there at all. Fewer than the threshold are no refusal here.
 */
export function inspectPublisherMetadata(
  input: {
    namespace: string;
    bytes: Uint8Array | PublisherTargets;
    /** Raw public keys. */
    keys: readonly Uint8Array[];
    threshold: number;
    /** Metadata in force, null before the first push. */
    current: Uint8Array | PublisherTargets | null;
    nowMs: number;
  } & PublisherFloors,
): Result<InspectedPush> {
  const { namespace, threshold } = input;
  const step = checkPublisherStep({ ...input, next: input.bytes });
  if (!step.ok) return step;
  const { version, expiresAtMs, added, raised, withdrawn, next } = step.value;
  const known = input.keys.map((publicKey) => ({ keyId: tufKeyId(publicKey), publicKey }));
  const signers = validSigners(next, { keys: known });
  const signedBy = known
    .filter(({ publicKey }) => signers.has(Buffer.from(publicKey).toString('hex')))
    .map(({ keyId }) => keyId)
    .sort();
  if (signedBy.length === 0) {
    return refuse('publisher-key-unknown', `no key that was named for ${namespace} signed this metadata`);
  }
  if (expiresAtMs <= input.nowMs)
    return refuse('metadata-expired', 'the pushed metadata has expired already');
  return ok({
    version,
    expiresAtMs,
    signatures: signedBy.length,
    threshold,
    signedBy,
    added,
    raised,
    withdrawn,
    stepId: stepIdOf(next),
    does: stepInWords(namespace, step.value),
  });
}
