// Why: what moves a device to another region for good: the order that the catalogue's root signs, the file in which it is
// carried from signer to signer, and what the device says to the region that it joins.
// Trusts: nothing before the schemas; signatures are checked in shared/trust/device-move.ts.
// Must never: hold a secret. The claim in an order lets in the devices that it names and nobody else.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { claimFileSchema, movedDevicesMax } from './claim.ts';
import {
  deviceIdSchema,
  envelopeSchema,
  labelsSchema,
  nameSchema,
  reasonSchema,
  releaseIdSchema,
} from './messages.ts';

const timeMs = z.number().int().nonnegative();
export const moveIdSchema = z.string().regex(/^[0-9a-f]{24}$/);

/** Signed by a threshold of the catalogue's root keys, offline. */
export const moveOrderSchema = z.object({
  schemaVersion: z.literal(1),
  moveId: moveIdSchema,
  deviceIds: z.array(deviceIdSchema).min(1).max(movedDevicesMax),
  /** The region that the devices are in. */
  from: nameSchema,
  /**
   * The region that they are to join, with its root's digest, broker and certificate authority: the claim that it made
   * for them, so that nothing stands in an order twice and differently.
   */
  to: claimFileSchema,
  /** A device follows no order that was issued before one that it took. */
  issuedAtMs: timeMs,
  expiresAtMs: timeMs,
});
export type MoveOrder = z.infer<typeof moveOrderSchema>;

/** `lepton devices move --out FILE`: an order on its way from signer to signer. Public. */
export const moveFileSchema = z.object({
  schemaVersion: z.literal(1),
  kind: z.literal('lepton-device-move'),
  /** Exact bytes of the order, base64: what is signed. */
  order: z.base64().max(1_000_000),
  signatures: z.array(envelopeSchema.shape.signatures.element).max(16),
  /** The catalogue's root when the order was made, base64: by it a signer sees who must sign. */
  catalogueRoot: z.base64().max(1_000_000),
});
export type MoveFile = z.infer<typeof moveFileSchema>;

/** What the device signs with its own key when it joins with a claim that names it. */
export const joiningSchema = z.object({
  schemaVersion: z.literal(1),
  deviceId: deviceIdSchema,
  claimId: claimFileSchema.shape.claimId,
  moveId: moveIdSchema,
  from: nameSchema,
  to: nameSchema,
  labels: labelsSchema,
  timezone: z.string().max(64),
  /** What serves on it, so that the new region need not take away what it did not give. */
  runs: z
    .array(
      z.object({
        as: nameSchema,
        releaseId: releaseIdSchema,
        manifestSha256: z.string().regex(sha256Pattern),
      }),
    )
    .max(64),
});
export type Joining = z.infer<typeof joiningSchema>;

/** `ordered`: the device has not said anything of it yet. */
export const moveStates = [
  'ordered',
  'waiting',
  'enrolling',
  'rehearsing',
  'moved',
  'refused',
  'replaced',
  'expired',
] as const;
export type MoveStateName = (typeof moveStates)[number];

/** `POST /api/v1/moves`, and the answer of `POST /api/v1/moves/sign`. */
export const moveApplySchema = z.object({ envelope: envelopeSchema });
export const moveSignSchema = z.object({ order: moveFileSchema.shape.order });

/** `GET /api/v1/moves`, newest first. */
export const moveSchema = z.object({
  moveId: moveIdSchema,
  from: z.string(),
  to: z.string(),
  issuedAtMs: timeMs,
  expiresAtMs: timeMs,
  appliedBy: z.string(),
  appliedAtMs: timeMs,
  devices: z.array(
    z.object({
      id: deviceIdSchema,
      state: z.enum(moveStates),
      reason: reasonSchema.nullable(),
      atMs: timeMs,
    }),
  ),
});
export type MoveView = z.infer<typeof moveSchema>;
