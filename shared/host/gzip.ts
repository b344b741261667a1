// Why: gzip for answers over HTTP, on zlib's thread pool. Trusts: zlib.
// Must never: unpack; whoever reads gzip from strangers needs a bound.

import { gzip } from 'node:zlib';

/** Metadata is packed once and served often: the default level costs 20 ms for a megabyte. */
export function gzipBytes(bytes: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    gzip(bytes, (error, packed) =>
      error ? reject(error) : resolve(new Uint8Array(packed.buffer, packed.byteOffset, packed.length)),
    );
  });
}
