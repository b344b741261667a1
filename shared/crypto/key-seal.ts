// Why: an offline key rests on a disk that may be stolen: its seed is sealed under a passphrase.
// Trusts: the schema in wire/key-file.ts for the bounds of scrypt. Must never: tell a wrong passphrase from a
// changed box in a way that helps guessing, or give out a seed that is not the one of the public key beside it.

import { scrypt, scryptSync } from 'node:crypto';
import { invariant } from '../kernel/errors.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import type { KeyFile, ScryptParameters } from '../wire/key-file.ts';
import { publicKeyOf, tufKeyId } from './ed25519.ts';
import { openSecret, sealSecret, secretKeyBytes, secretNonceBytes } from './secretbox.ts';

const saltBytes = 32;
/** Drawn by the caller for one key: its seed, the salt and the nonce. */
export const keySealEntropyBytes = 32 + saltBytes + secretNonceBytes;
/** RFC 7914's work in the memory of any machine with Node on it: 128 MiB, a third of a second. */
const cost = { N: 2 ** 17, r: 8, p: 1 } as const;

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const fromHex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));

/** NFKC: the same words typed on another keyboard are the same passphrase. */
function stretch(passphrase: string, { salt, N, r, p }: ScryptParameters): Uint8Array {
  const maxmem = 128 * N * r + 128 * r * p + 1024 * 1024;
  return new Uint8Array(
    scryptSync(Buffer.from(passphrase.normalize('NFKC'), 'utf8'), fromHex(salt), secretKeyBytes, {
      N,
      r,
      p,
      maxmem,
    }),
  );
}

/** Parameters for what is sealed from now on; 32 bytes of salt, drawn by the caller. */
export const newStretching = (salt: Uint8Array): ScryptParameters => ({
  name: 'scrypt',
  salt: toHex(salt),
  ...cost,
});

/** The key of a passphrase, beside everything else that runs: 32 bytes. */
export function stretchBeside(passphrase: string, { salt, N, r, p }: ScryptParameters): Promise<Uint8Array> {
  const maxmem = 128 * N * r + 128 * r * p + 1024 * 1024;
  const words = Buffer.from(passphrase.normalize('NFKC'), 'utf8');
  return new Promise((resolve, reject) => {
    scrypt(words, fromHex(salt), secretKeyBytes, { N, r, p, maxmem }, (error, key) => {
      if (error === null) resolve(new Uint8Array(key));
      else reject(error);
    });
  });
}

/** A new key, sealed. `entropy` has `keySealEntropyBytes` bytes and is used for nothing else. */
export function makeSealedKey(holder: string, passphrase: string, entropy: Uint8Array): KeyFile {
  invariant(entropy.length === keySealEntropyBytes, 'a key takes its seed, salt and nonce from one draw');
  const seed = entropy.subarray(0, 32);
  const nonce = entropy.subarray(32 + saltBytes);
  const kdf: ScryptParameters = {
    name: 'scrypt',
    salt: toHex(entropy.subarray(32, 32 + saltBytes)),
    ...cost,
  };
  const publicKey = publicKeyOf(seed);
  return {
    schemaVersion: 1,
    kind: 'lepton-key',
    holder,
    publicKey: toHex(publicKey),
    keyId: tufKeyId(publicKey),
    kdf,
    nonce: toHex(nonce),
    box: toHex(sealSecret(stretch(passphrase, kdf), nonce, seed)),
  };
}

/** The seed in a key file. Refusals: `passphrase-wrong`, `key-file-malformed` (another key's box). */
export function openSealedKey(file: KeyFile, passphrase: string): Result<Uint8Array> {
  const seed = openSecret(stretch(passphrase, file.kdf), fromHex(file.nonce), fromHex(file.box));
  if (seed === null) return refuse('passphrase-wrong', 'the passphrase does not open this key file');
  // Whoever could write to the file may have put another holder's public key beside the box.
  if (toHex(publicKeyOf(seed)) !== file.publicKey)
    return refuse('key-file-malformed', 'the private key in it is not that of its public key');
  return ok(seed);
}
