// Why: the two files of an offline key: the sealed private one and the public one that may be carried about.
// Trusts: nothing that was read. Must never: accept numbers for scrypt that cost unbounded memory or time.

import { z } from 'zod';
import { tufKeyId } from '../crypto/ed25519.ts';
import { checkPublicKey } from '../crypto/points.ts';
import { sha256Pattern } from '../kernel/releases.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { describeIssues, parseMessage } from './messages.ts';

const hex = (bytesMin: number, bytesMax: number) =>
  z.string().regex(new RegExp(`^([0-9a-f]{2}){${bytesMin},${bytesMax}}$`));

/** A name in words, on one line: it is printed, never looked up in. */
export const holderSchema = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$/u, 'a name on one line');

/**
 * Memory is 128·N·r bytes and time grows with N·r·p. What is written: N = 2^17, r = 8, p = 1 (128 MiB, a third
 * of a second). Twice that memory and four times that work are the most a file may ask for.
 */
export const scryptLimits = {
  memoryBytesMax: 256 * 1024 * 1024,
  workMax: 2 ** 22,
  costMin: 2 ** 14,
} as const;

export const scryptSchema = z
  .strictObject({
    name: z.literal('scrypt'),
    salt: hex(16, 64),
    N: z
      .number()
      .int()
      .min(scryptLimits.costMin)
      .max(2 ** 20),
    r: z.number().int().min(1).max(32),
    p: z.number().int().min(1).max(16),
  })
  .refine(({ N }) => (N & (N - 1)) === 0, 'N is no power of two')
  .refine(({ N, r }) => 128 * N * r <= scryptLimits.memoryBytesMax, 'asks for too much memory')
  .refine(({ N, r, p }) => N * r * p <= scryptLimits.workMax, 'asks for too much work');
export type ScryptParameters = z.infer<typeof scryptSchema>;

const publicPart = {
  schemaVersion: z.literal(1),
  holder: holderSchema,
  /** Raw Ed25519 public key. */
  publicKey: hex(32, 32),
  /** TUF key id of it. */
  keyId: z.string().regex(sha256Pattern),
};

/** The private key's file; useless without its passphrase. */
export const keyFileSchema = z.strictObject({
  ...publicPart,
  kind: z.literal('lepton-key'),
  kdf: scryptSchema,
  nonce: hex(24, 24),
  /** The seed in a secretbox (XSalsa20-Poly1305) under what scrypt makes of the passphrase. */
  box: hex(48, 48),
});
export type KeyFile = z.infer<typeof keyFileSchema>;

export const publicKeyFileSchema = z.strictObject({ ...publicPart, kind: z.literal('lepton-public-key') });
export type PublicKeyFile = z.infer<typeof publicKeyFileSchema>;

/** Both files are a few hundred bytes. */
const fileBytesMax = 16 * 1024;

const eitherSchema = z.discriminatedUnion('kind', [keyFileSchema, publicKeyFileSchema]);

/**
 * Either file, with a key that may stand for somebody and the id that belongs to it. Refusals:
 * `key-file-malformed`, `key-invalid`.
 */
export function parseKeyFile(bytes: Uint8Array): Result<KeyFile | PublicKeyFile> {
  if (bytes.length > fileBytesMax) return refuse('key-file-malformed', `larger than ${fileBytesMax} bytes`);
  const parsed = parseMessage(eitherSchema, bytes);
  if (!parsed.ok) return refuse('key-file-malformed', parsed.refusal.detail);
  const publicKey = new Uint8Array(Buffer.from(parsed.value.publicKey, 'hex'));
  const checked = checkPublicKey(publicKey);
  if (!checked.ok) return checked;
  if (tufKeyId(publicKey) !== parsed.value.keyId)
    return refuse('key-file-malformed', 'its key id is not that of its public key');
  return ok(parsed.value);
}

/** The public file of a key. */
export function publicKeyFileOf(file: KeyFile | PublicKeyFile): PublicKeyFile {
  const { holder, publicKey, keyId } = file;
  return { schemaVersion: 1, kind: 'lepton-public-key', holder, publicKey, keyId };
}

/** A holder's name that may be written into a file. Refusal: `input-invalid`. */
export function checkHolder(name: string): Result<string> {
  const parsed = holderSchema.safeParse(name);
  return parsed.success ? ok(name) : refuse('input-invalid', `holder: ${describeIssues(parsed.error)}`);
}
