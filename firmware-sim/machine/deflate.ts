// Why: raw DEFLATE whose bytes are the same under every version of Node: zlib's are not. Nothing is compressed.
// Trusts: zlib for reading, which has one answer. Must never: be used outside the simulator.

import { inflateRawSync } from 'node:zlib';
import type { Deflate } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';

/** Longest stored block, RFC 1951 §3.2.4. */
const blockBytesMax = 0xffff;

/** RFC 1951 §3.2.4: every block stored as it is. */
function stored(bytes: Uint8Array): Uint8Array {
  const blocks = Math.max(1, Math.ceil(bytes.length / blockBytesMax));
  const out = new Uint8Array(bytes.length + 5 * blocks);
  const view = new DataView(out.buffer);
  for (let block = 0, from = 0, at = 0; block < blocks; block += 1) {
    const length = Math.min(blockBytesMax, bytes.length - from);
    out[at] = block === blocks - 1 ? 1 : 0;
    view.setUint16(at + 1, length, true);
    view.setUint16(at + 3, length ^ 0xffff, true);
    out.set(bytes.subarray(from, from + length), at + 5);
    from += length;
    at += 5 + length;
  }
  return out;
}

/** What `stored` or any other made, at once: for witnesses, who may not wait. */
export const inflated = (bytes: Uint8Array): Uint8Array => new Uint8Array(inflateRawSync(bytes));

export const storedDeflate: Deflate = {
  deflate: async (bytes) => stored(bytes),
  inflate: async (bytes, bytesMax) => {
    try {
      const text = inflateRawSync(bytes, { maxOutputLength: Math.max(1, bytesMax) });
      if (text.length <= bytesMax) return ok(new Uint8Array(text));
      return refuse('telemetry-too-large', `more than ${bytesMax} bytes`);
    } catch (error) {
      const tooLarge = error instanceof Error && 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE';
      if (tooLarge) return refuse('telemetry-too-large', `more than ${bytesMax} bytes`);
      return refuse('telemetry-unreadable', 'no DEFLATE stream');
    }
  },
};
