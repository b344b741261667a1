// Why: what a registry offers in the place of a file: files that are smaller and from which a device makes it (DESIGN 7).
// Trusts: nothing; what comes out has the digest that was signed, or is thrown away.
// Must never: be believed for what it says about the file itself; digest and size are signed elsewhere.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';

/** A device asks with what it holds; more bases than a device has releases of one model are no question. */
export const waysHeldMax = 32;
/** The answer is one frame. */
export const waysBytesMax = 16 * 1024;

const sha256 = z.string().regex(sha256Pattern);

/** Fetched like any other blob, under its own digest. */
export const waySchema = z.object({
  /** Of the encoded file (shared/onnx/delta). */
  sha256,
  bytes: z.number().int().positive(),
  /** Digests of the files that it is made from, in the order of its header; empty where it needs none. */
  bases: z.array(sha256).max(waysHeldMax),
});
export type Way = z.infer<typeof waySchema>;

export const waysSchema = z.object({
  schemaVersion: z.literal(1),
  /** Of the file itself. */
  sha256,
  bytes: z.number().int().nonnegative(),
  /** Smaller than the file, the smallest first. */
  ways: z.array(waySchema).max(16),
  /** Another one is being made; asked again after so long, milliseconds. */
  retryAfterMs: z.number().int().positive().max(60_000).nullable(),
});
export type Ways = z.infer<typeof waysSchema>;
