// Why: public TUF repositories sign with ECDSA and RSA and list SHA-512; `lepton-agent tuf` reads those too.
// Trusts: node:crypto for the arithmetic, nothing that was read. Must never: be imported by anything but that
// command (test/architecture.test.ts): what a device runs is signed with Ed25519 and named by SHA-256.

import { constants, createHash, createPublicKey, type JsonWebKey, type KeyObject, verify } from 'node:crypto';

export interface ForeignKey {
  /** `rsassa-pss-sha256` and the like: it fixes the key's kind, the padding and the digest. */
  scheme: string;
  /**
   * SPKI in DER, made anew from the key's numbers: one physical key has one spelling here, whatever PEM, point
   * compression or scheme it came with. So it is what a key is counted by.
   */
  publicKey: Uint8Array;
}

interface Scheme {
  digest: 'sha256' | 'sha384';
  keyTypes: readonly string[];
  /** For ECDSA. */
  curve?: string;
  /** For RSA. */
  padding?: { padding: number; saltLength?: number };
}

/** TUF 1.0.34 §4.2.1 "scheme"; the longer key types are those of metadata written before 2020. */
const schemes: ReadonlyMap<string, Scheme> = new Map<string, Scheme>([
  ['ecdsa-sha2-nistp256', { digest: 'sha256', keyTypes: ['ecdsa', 'ecdsa-sha2-nistp256'], curve: 'P-256' }],
  ['ecdsa-sha2-nistp384', { digest: 'sha384', keyTypes: ['ecdsa', 'ecdsa-sha2-nistp384'], curve: 'P-384' }],
  [
    'rsassa-pss-sha256',
    {
      digest: 'sha256',
      keyTypes: ['rsa'],
      padding: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_AUTO },
    },
  ],
  [
    'rsa-pkcs1v15-sha256',
    { digest: 'sha256', keyTypes: ['rsa'], padding: { padding: constants.RSA_PKCS1_PADDING } },
  ],
]);

/** Nothing else that Node would read is a public key: not a certificate, and never somebody's private key. */
const pemPattern = /^-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\r\n]+-----END PUBLIC KEY-----(\r?\n)*$/;
const pemCharactersMax = 8_192;
/** Below 2048 bits RSA is broken; beyond 8192, or with a long exponent, each verification would take for ever. */
const modulusBitsMin = 2_048;
const modulusBitsMax = 8_192;
const exponentMax = 1n << 33n;

/** The key of a metadata file, or null where it is none that we know: such a key counts for nothing. */
export function readForeignKey(keyType: string, scheme: string, pem: string): ForeignKey | null {
  const known = schemes.get(scheme);
  if (known === undefined || !known.keyTypes.includes(keyType)) return null;
  if (pem.length > pemCharactersMax || !pemPattern.test(pem)) return null;
  const key = parsePem(pem);
  if (key === null) return null;
  const numbers = key.export({ format: 'jwk' });
  if (known.curve !== undefined) {
    // The other curve under this scheme's name would be algorithm confusion.
    return numbers.crv === known.curve ? { scheme, publicKey: spki(numbers) } : null;
  }
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  if (numbers.kty !== 'RSA' || modulusLength < modulusBitsMin || modulusLength > modulusBitsMax) return null;
  if (publicExponent < 3n || publicExponent > exponentMax || publicExponent % 2n === 0n) return null;
  return { scheme, publicKey: spki(numbers) };
}

function parsePem(pem: string): KeyObject | null {
  try {
    const key = createPublicKey(pem);
    return key.asymmetricKeyType === 'ec' || key.asymmetricKeyType === 'rsa' ? key : null;
  } catch {
    // No key, or one of a curve that OpenSSL does not know: the same answer, it verifies nothing.
    return null;
  }
}

function spki(numbers: JsonWebKey): Uint8Array {
  const key = createPublicKey({ key: numbers, format: 'jwk' });
  return new Uint8Array(key.export({ format: 'der', type: 'spki' }));
}

/** Whether the signature over the message is the key's, by its scheme. False for anything malformed. */
export function verifyForeign(key: ForeignKey, message: Uint8Array, signature: Uint8Array): boolean {
  const known = schemes.get(key.scheme);
  if (known === undefined || signature.length === 0) return false;
  const parsed = createPublicKey({ key: Buffer.from(key.publicKey), format: 'der', type: 'spki' });
  try {
    return verify(known.digest, message, { key: parsed, ...known.padding }, signature);
  } catch {
    // OpenSSL reports some malformed signatures as an error of its own; they are as wrong as the others.
    return false;
  }
}

/** SHA-512 of the bytes, 128 lower-case hex digits. */
export function sha512Hex(bytes: Uint8Array): string {
  return createHash('sha512').update(bytes).digest('hex');
}

/** SHA-512 of what does not fit in memory; like `sha256Stream`. */
export function sha512Stream(): { update(bytes: Uint8Array): void; hex(): string } {
  const hash = createHash('sha512');
  return {
    update(bytes) {
      hash.update(bytes);
    },
    hex: () => hash.digest('hex'),
  };
}
