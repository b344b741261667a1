// Why: the real randomness behind the Entropy port. Keys and message ids come from here.
// Trusts: the operating system's generator. Must never: be seeded or replaced outside the simulator.

import { randomBytes } from 'node:crypto';
import type { Entropy } from '../kernel/ports.ts';

export const systemEntropy: Entropy = {
  u32: () => randomBytes(4).readUInt32BE(0),
  /** A plain Uint8Array on its own buffer, so that no pooled memory is shared with it. */
  bytes: (n) => new Uint8Array(randomBytes(n)),
};
