// Why: the head that every JSON body on the bus carries, made in one place.
// Trusts: Clock and Entropy. Must never: be used to order anything; heads are not signed.

import type { Clock, Entropy } from '../../shared/kernel/ports.ts';
import { schemaVersion } from '../../shared/wire/messages.ts';

export interface MessageHead {
  schemaVersion: typeof schemaVersion;
  messageId: string;
  sentAtMs: number;
}

/** `bytes` random bytes as lower-case hex. */
export function randomHex(entropy: Entropy, bytes: number): string {
  return Array.from(entropy.bytes(bytes), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function messageHead(clock: Clock, entropy: Entropy): MessageHead {
  return {
    schemaVersion,
    messageId: randomHex(entropy, 16),
    sentAtMs: Math.max(0, Math.floor(clock.wall())),
  };
}
