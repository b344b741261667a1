// Why: the device's certificate request (PKCS #10, RFC 2986). It has one shape only, so the agent writes it
// itself: the X.509 library would stay in its memory for good after this one use (8 MB).
// Trusts: its own key. Must never: put anything else into the request than the key and its device id.

import { publicKeyOf, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, spkiFromPublicKey } from '../../shared/crypto/spki.ts';

/** X.690 tags. */
const tags = {
  integer: 0x02,
  bitString: 0x03,
  oid: 0x06,
  utf8: 0x0c,
  sequence: 0x30,
  set: 0x31,
  attributes: 0xa0,
};
/** 2.5.4.3, commonName. */
const commonName = Uint8Array.of(0x55, 0x04, 0x03);
/** 1.3.101.112, Ed25519 (RFC 8410). */
const ed25519 = Uint8Array.of(0x2b, 0x65, 0x70);

/** In the shortest form, as X.690 §10.1 wants it. */
function lengthBytes(length: number): number[] {
  if (length < 0x80) return [length];
  return length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
}

/** One DER element. A request is far below the 64 KiB that two length bytes can say. */
function der(tag: number, ...parts: Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([Uint8Array.of(tag, ...lengthBytes(length)), ...parts]);
}

/** The request for the key of this seed, signed by it, in PEM; its subject is `CN=<device id>`. */
export function makeCertificateRequest(seed: Uint8Array): string {
  const publicKey = publicKeyOf(seed);
  const subject = new TextEncoder().encode(deviceIdOf(publicKey));
  const name = der(tags.sequence, der(tags.oid, commonName), der(tags.utf8, subject));
  const info = der(
    tags.sequence,
    der(tags.integer, Uint8Array.of(0)),
    der(tags.sequence, der(tags.set, name)),
    spkiFromPublicKey(publicKey),
    der(tags.attributes),
  );
  const signature = signerFromSeed(seed, 'node').sign(info);
  const request = der(
    tags.sequence,
    info,
    der(tags.sequence, der(tags.oid, ed25519)),
    der(tags.bitString, Uint8Array.of(0), signature),
  );
  const lines =
    Buffer.from(request)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE REQUEST-----', ...lines, '-----END CERTIFICATE REQUEST-----', ''].join(
    '\n',
  );
}
