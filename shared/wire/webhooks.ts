// Why: what a registry posts to whoever wants to be told, and how such a place is named.
// Trusts: nothing before the schemas. Must never: put anything of a record, a key or a token into a delivery.

import { z } from 'zod';
import { fleetEventSchema } from './http.ts';

const timeMs = z.number().int().nonnegative();
const codes = z.array(z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, 'expected the beginning of a code')).max(64);

function isFit(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
  return (url.protocol === 'https:' || (url.protocol === 'http:' && isHere)) && url.username === '';
}

/** `POST /api/v1/webhooks` */
export const webhookCreateSchema = z.object({
  url: z
    .url()
    .max(2_000)
    .refine(isFit, 'expected https://, or http:// on this machine, and no password in it'),
  /** Beginnings of the codes that it wants (`rollout-`, `drift-`); empty: all. */
  codes: codes.default([]),
});

export const webhookSchema = z.object({
  id: z.string(),
  url: z.string(),
  codes: z.array(z.string()),
  createdBy: z.string(),
  createdAtMs: timeMs,
  /** Deliveries that failed in a row. */
  failures: z.number().int().nonnegative(),
  lastError: z.string().nullable(),
  deliveredAtMs: timeMs.nullable(),
  /** While deliveries fail: when the next one is tried. */
  nextAtMs: timeMs.nullable(),
});
export type WebhookView = z.infer<typeof webhookSchema>;

/** The secret is in this answer and never again. Form and use: Standard Webhooks 1.0 (`whsec_` and base64). */
export const webhookCreatedSchema = webhookSchema.extend({ secret: z.string() });
export type WebhookCreated = z.infer<typeof webhookCreatedSchema>;

/**
 * The body of a delivery. Headers `webhook-id`, `webhook-timestamp` and `webhook-signature` are those of Standard
 * Webhooks 1.0. The same events may come twice (an answer was lost); their ids tell.
 */
export const webhookDeliverySchema = z.object({
  schemaVersion: z.literal(1),
  region: z.string(),
  /** In their order. */
  events: z.array(fleetEventSchema),
  /** Events that were removed before they could be delivered. */
  missed: z.number().int().nonnegative(),
});
export type WebhookDelivery = z.infer<typeof webhookDeliverySchema>;
