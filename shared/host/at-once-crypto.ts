// Why: the X.509 library works on WebCrypto, which computes on other threads: an answer then comes at a time that no
// seed decides. These are the few of its functions that Ed25519 certificates need, done at once; signing one takes
// less than the way to a thread and back. Trusts: node:crypto.
// Must never: do anything else than Ed25519, SHA-1 (key identifiers, RFC 5280 §4.2.1.2) and SHA-256.

import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign,
  verify,
  webcrypto,
} from 'node:crypto';
import { FleetError } from '../kernel/errors.ts';

type Bytes = ArrayBuffer | ArrayBufferView;

const keys = new WeakMap<object, KeyObject>();

function bufferOf(bytes: Bytes): Buffer {
  return ArrayBuffer.isView(bytes)
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : Buffer.from(bytes);
}

/** A buffer of its own: the library reads the whole `ArrayBuffer`. */
function whole(bytes: Uint8Array): ArrayBuffer {
  const copy = new ArrayBuffer(bytes.length);
  new Uint8Array(copy).set(bytes);
  return copy;
}

function keyOf(key: webcrypto.CryptoKey): KeyObject {
  const known = keys.get(key);
  if (known === undefined) throw new FleetError('internal', 'a key that was not imported here');
  return known;
}

function imported(format: string, bytes: Bytes, usages: readonly string[]): webcrypto.CryptoKey {
  const der = bufferOf(bytes);
  const isPrivate = format === 'pkcs8';
  if (!isPrivate && format !== 'spki')
    throw new FleetError('internal', `keys as ${format} are not read here`);
  const object = isPrivate
    ? createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    : createPublicKey({ key: der, format: 'der', type: 'spki' });
  if (object.asymmetricKeyType !== 'ed25519') throw new Error('not an Ed25519 key');
  const key = {
    type: isPrivate ? ('private' as const) : ('public' as const),
    extractable: !isPrivate,
    algorithm: { name: 'Ed25519' },
    usages: [...usages] as webcrypto.KeyUsage[],
  };
  keys.set(key, object);
  return key;
}

const digests: Record<string, string> = { 'SHA-1': 'sha1', 'SHA-256': 'sha256' };

const done = {
  importKey: async (
    format: string,
    bytes: Bytes,
    _algorithm: unknown,
    _extractable: boolean,
    usages: string[],
  ) => imported(format, bytes, usages),
  exportKey: async (_format: 'spki', key: webcrypto.CryptoKey) =>
    whole(keyOf(key).export({ type: 'spki', format: 'der' })),
  sign: async (_algorithm: unknown, key: webcrypto.CryptoKey, message: Bytes) =>
    whole(sign(null, bufferOf(message), keyOf(key))),
  verify: async (_algorithm: unknown, key: webcrypto.CryptoKey, signature: Bytes, message: Bytes) =>
    verify(null, bufferOf(message), keyOf(key), bufferOf(signature)),
  digest: async (algorithm: string | { name: string }, message: Bytes) => {
    const name = typeof algorithm === 'string' ? algorithm : algorithm.name;
    const known = digests[name];
    if (known === undefined) throw new FleetError('internal', `${name} is not computed here`);
    return whole(createHash(known).update(bufferOf(message)).digest());
  },
};

/** What the library takes for WebCrypto. Whatever is not above throws. */
export const atOnceCrypto: webcrypto.Crypto = Object.assign(Object.create(webcrypto) as webcrypto.Crypto, {
  getRandomValues: (): never => {
    throw new FleetError('internal', 'serial numbers come from the caller');
  },
});
Object.defineProperty(atOnceCrypto, 'subtle', {
  value: Object.assign(Object.create(webcrypto.subtle), done),
});
