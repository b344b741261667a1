// Why: zlib behind the Deflate port, on its thread pool, with a bound on what may come out.
// Trusts: zlib. Must never: give memory to more than the caller allowed, however small the input is.

import { deflateRaw, inflateRaw } from 'node:zlib';
import type { Deflate } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';

/** Level 3 packs telemetry to within a tenth of level 6 in a third of the time. */
const level = 3;

export const systemDeflate: Deflate = {
  deflate: (bytes) =>
    new Promise((resolve, reject) => {
      deflateRaw(bytes, { level }, (error, packed) => (error ? reject(error) : resolve(plainView(packed))));
    }),

  inflate: (bytes, bytesMax) =>
    new Promise<Result<Uint8Array>>((resolve) => {
      // zlib refuses a limit of zero; nothing can be inflated to nothing but the empty stream.
      const maxOutputLength = Math.max(1, bytesMax);
      inflateRaw(bytes, { maxOutputLength }, (error, text) => {
        if (error === null && text.length <= bytesMax) resolve(ok(plainView(text)));
        else if (error === null || (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
          resolve(refuse('telemetry-too-large', `more than ${bytesMax} bytes come out of ${bytes.length}`));
        } else resolve(refuse('telemetry-unreadable', `no DEFLATE stream: ${error.message}`));
      });
    }),
};

function plainView(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length);
}
