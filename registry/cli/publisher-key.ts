// Why: the publisher's private key lives on the publisher's machine, and nowhere else.
// Trusts: the file system's permissions. Must never: send or print the private key.

import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { makeFolders } from '../../shared/host/folders.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { namePattern } from '../../shared/kernel/releases.ts';
import { openPrivateKey } from './key-files.ts';
import { configFolder, setting } from './settings.ts';

export interface PublisherKey {
  signer: Signer;
  publicKeyHex: string;
  file: string;
  /** True where this call made it. */
  created: boolean;
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

/**
 * The key with which this machine signs for a namespace: `file`, else `<keys>/<namespace>.key` where
 * `<keys>` is LEPTON_KEYS or the config folder. Made where it is missing and `create` allows it. A file of
 * `lepton keys create` works as well as PKCS #8; its passphrase is asked for.
 */
export function publisherKey(namespace: string, file: string | undefined, create: boolean): PublisherKey {
  if (!namePattern.test(namespace)) {
    throw new FleetError('input-invalid', `${namespace} is no namespace name`, {
      hint: 'use a-z, 0-9 and -',
    });
  }
  const path = file ?? join(setting('keys', undefined) ?? join(configFolder(), 'keys'), `${namespace}.key`);
  const found = (signer: Signer, created: boolean): PublisherKey => {
    return { signer, publicKeyHex: Buffer.from(signer.publicKey).toString('hex'), file: path, created };
  };
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(readFileSync(path));
  } catch (cause) {
    if (!isMissing(cause) || !create) {
      throw new FleetError('key-invalid', `cannot read the publisher's key ${path}: ${String(cause)}`, {
        cause,
        hint: 'name the key with --key FILE',
      });
    }
    const seed = new Uint8Array(randomBytes(32));
    makeFolders(dirname(path), 0o700);
    // `wx`: another push at the same moment must not lose its key.
    writeFileSync(path, pkcs8PemFromSeed(seed), { mode: 0o600, flag: 'wx' });
    return found(signerFromSeed(seed, 'tweetnacl'), true);
  }
  return found(openPrivateKey(path, bytes), false);
}
