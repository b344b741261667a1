// Why: key files, plans and bundles on a disk: read, made, never replaced by accident.
// Trusts: the file system's permissions. Must never: overwrite a key, or print what is in a private one.

import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { keySealEntropyBytes, makeSealedKey, openSealedKey } from '../../shared/crypto/key-seal.ts';
import { seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { HeldKey } from '../../shared/trust/ceremony/change.ts';
import {
  type KeyFile,
  type PublicKeyFile,
  parseKeyFile,
  publicKeyFileOf,
} from '../../shared/wire/key-file.ts';
import { type KeyBundle, type KeyPlan, parseKeyBundle, parseKeyPlan } from '../../shared/wire/key-plan.ts';
import { newPassphrase, passphraseOf } from './passphrase.ts';

export function readBytes(path: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(path));
  } catch (cause) {
    throw new FleetError('input-invalid', `cannot read ${path}: ${String(cause)}`, { cause });
  }
}

function writeWhole(path: string, text: string, options: { flag: 'w' | 'wx'; mode: number }): void {
  const file = openSync(path, options.flag, options.mode);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

const spelled = (document: object): string => `${JSON.stringify(document, null, 2)}\n`;

/** A plan or a bundle; public. The whole file or the one before. */
export function writeDocument(path: string, document: object): void {
  try {
    writeWhole(`${path}.new`, spelled(document), { flag: 'w', mode: 0o644 });
    renameSync(`${path}.new`, path);
  } catch (cause) {
    throw new FleetError('input-invalid', `cannot write ${path}: ${String(cause)}`, { cause });
  }
}

const named = (path: string, error: FleetError): FleetError =>
  new FleetError(error.code, `${path}: ${error.message}`, { hint: error.hint, cause: error });

/** Runs `read` and names the file in what it throws. */
function of<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof FleetError ? named(path, error) : error;
  }
}

export const readPlan = (path: string): KeyPlan => of(path, () => unwrap(parseKeyPlan(readBytes(path))));
export const readBundle = (path: string): KeyBundle =>
  of(path, () => unwrap(parseKeyBundle(readBytes(path))));

const isPem = (bytes: Uint8Array): boolean =>
  Buffer.from(bytes.subarray(0, 64)).toString('latin1').trimStart().startsWith('-----BEGIN');

/**
 * Somebody who can sign with the key in a file: PKCS #8 in PEM, or one of `lepton keys create` whose passphrase
 * is asked for. Faults: `key-invalid`, `key-file-malformed`, `passphrase-wrong`, `passphrase-missing`.
 */
export function openPrivateKey(path: string, bytes: Uint8Array = readBytes(path)): Signer {
  return of(path, () => {
    if (isPem(bytes))
      return signerFromSeed(unwrap(seedFromPkcs8Pem(Buffer.from(bytes).toString('utf8'))), 'tweetnacl');
    const file = unwrap(parseKeyFile(bytes));
    if (file.kind === 'lepton-public-key')
      throw new FleetError('key-file-malformed', 'this is the public file; signing needs the private one');
    return signerFromSeed(unwrap(openSealedKey(file, passphraseOf(path))), 'tweetnacl');
  });
}

/** The public part of any key file, without a passphrase. */
export function readPublicKey(path: string): PublicKeyFile {
  return of(path, () => {
    const bytes = readBytes(path);
    if (!isPem(bytes)) return publicKeyFileOf(unwrap(parseKeyFile(bytes)));
    const { publicKey, keyId } = openPrivateKey(path, bytes);
    const hex = Buffer.from(publicKey).toString('hex');
    return { schemaVersion: 1, kind: 'lepton-public-key', holder: '(not named)', publicKey: hex, keyId };
  });
}

/** The key of a `.pub` file as a ceremony takes it. */
export function readHeldKey(path: string): HeldKey {
  const { publicKey, holder } = readPublicKey(path);
  return { publicKey: new Uint8Array(Buffer.from(publicKey, 'hex')), holder };
}

/** A key given as 64 hex digits or by its file. */
export function keyArgument(text: string): HeldKey {
  if (/^[0-9a-fA-F]{64}$/.test(text))
    return { publicKey: new Uint8Array(Buffer.from(text, 'hex')), holder: null };
  return readHeldKey(text);
}

/** Makes a key: `path`, sealed, and `path.pub` beside it. Faults: `conflict` where either is there already. */
export function createKey(path: string, holder: string): KeyFile {
  const publicPath = `${path}.pub`;
  for (const one of [path, publicPath]) {
    if (existsSync(one)) {
      throw new FleetError('conflict', `${one} is there already`, {
        hint: 'name another file; a key is never replaced',
      });
    }
  }
  const passphrase = newPassphrase(path);
  const file = makeSealedKey(holder, passphrase, new Uint8Array(randomBytes(keySealEntropyBytes)));
  try {
    // `wx`: another one at the same moment must not lose its key.
    writeWhole(path, spelled(file), { flag: 'wx', mode: 0o600 });
    writeWhole(publicPath, spelled(publicKeyFileOf(file)), { flag: 'wx', mode: 0o644 });
  } catch (cause) {
    throw new FleetError('input-invalid', `cannot write ${path}: ${String(cause)}`, { cause });
  }
  return file;
}
