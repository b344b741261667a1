// Why: the enrolment claim file (DESIGN 3): all a device needs to make its first connection.
// Trusts: the person who carried the file. Must never: be logged; it holds a private key.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { deviceIdSchema, labelsSchema, nameSchema } from './messages.ts';

/** Devices that one claim can be bound to, and one order can move: their ids travel with it. */
export const movedDevicesMax = 500;

export const claimFileSchema = z.object({
  schemaVersion: z.literal(1),
  kind: z.literal('lepton-claim'),
  claimId: z.string().regex(/^[a-z0-9]{16,32}$/),
  region: nameSchema,
  /** `mqtts://HOST:PORT`. */
  brokerUrl: z.string().regex(/^mqtts:\/\/[^/?#@\s]+$/),
  /** PEM of the fleet's certificate authority. */
  fleetCa: z.string().max(16_384),
  /** PEM of the short-lived claim certificate and its private key (PKCS #8). */
  certificate: z.string().max(16_384),
  privateKey: z.string().max(8_192),
  labels: labelsSchema,
  uses: z.number().int().positive(),
  expiresAtMs: z.number().int().positive(),
  /** SHA-256, hex, of the root metadata files that the device must receive. */
  catalogueRootSha256: z.string().regex(sha256Pattern),
  regionRootSha256: z.string().regex(sha256Pattern),
  /**
   * The only devices that it lets in, by their keys: who has the file but none of these keys can do nothing with it.
   * Absent: it lets in whoever has the file.
   */
  deviceIds: z.array(deviceIdSchema).min(1).max(movedDevicesMax).exactOptional(),
});
export type ClaimFile = z.infer<typeof claimFileSchema>;
