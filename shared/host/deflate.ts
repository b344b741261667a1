// Why: zlib behind the Deflate port, on its thread pool, with a bound on what may come out.
// Trusts: zlib. Must never: give memory to more than the caller allowed, however small the input is.

import { deflateRaw, inflateRaw } from 'node:zlib';
import type { Deflate } from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';

/** Level 3 packs telemetry to within a tenth of level 6 in a third of the time. */
const level = 3;

/** Each chunk of what comes out is a turn on the pool: zlib's own 16 KiB are two dozen for one batch of records. */
const chunkBytesMin = 16 * 1024;
const chunkBytesMax = 1024 * 1024;
/** Telemetry packs to about that. */
const likelyFactor = 10;

export const systemDeflate: Deflate = {
  deflate: (bytes) =>
    new Promise((resolve, reject) => {
      deflateRaw(bytes, { level }, (error, packed) => (error ? reject(error) : resolve(plainView(packed))));
    }),

  inflate: (bytes, bytesMax) =>
    new Promise<Result<Uint8Array>>((resolve) => {
      // zlib refuses a limit of zero; nothing can be inflated to nothing but the empty stream.
      const maxOutputLength = Math.max(1, bytesMax);
      const chunkSize = Math.max(
        chunkBytesMin,
        Math.min(chunkBytesMax, bytesMax, bytes.length * likelyFactor),
      );
      inflateRaw(bytes, { maxOutputLength, chunkSize }, (error, text) => {
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
