// Why: every message on the bus has an id of its own, by which logs of both ends are brought together.
// Trusts: the entropy port. Must never: be taken for a secret.

import type { Entropy } from '../../shared/kernel/ports.ts';

export function messageId(entropy: Entropy): string {
  return Buffer.from(entropy.bytes(12)).toString('hex');
}
