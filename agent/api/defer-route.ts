// Why: "not now" over the device's own HTTP, for whoever stands beside the machine, or its application.
// Trusts: nothing in the body. Must never: defer more than was asked for, or answer before it is durable.

import type { IncomingMessage } from 'node:http';
import type { Result } from '../../shared/kernel/result.ts';
import { refuse } from '../../shared/kernel/result.ts';
import { parseMessage } from '../../shared/wire/messages.ts';
import { deferRequestSchema } from '../update/deferral.ts';
import { type Answer, json, type RouteParts } from './answer.ts';

/** Refusals: `defer-exhausted`, `input-invalid`, and those of the body. */
export async function defer(request: IncomingMessage, parts: RouteParts): Promise<Result<Answer>> {
  if (parts.defer === undefined) return refuse('not-found', 'this agent updates nothing');
  // A page in a browser of this machine can post a form, but not this type without asking first.
  if (!/^application\/json\b/.test(request.headers['content-type'] ?? ''))
    return refuse('input-invalid', 'the content type is application/json');
  const body = await parts.recordsBody.read(request);
  if (!body.ok) return body;
  try {
    const asked = parseMessage(deferRequestSchema, body.value.bytes);
    if (!asked.ok) return refuse('input-invalid', `{"forMs": milliseconds or null}: ${asked.refusal.detail}`);
    const deferred = await parts.defer(asked.value.forMs);
    return deferred.ok ? { ok: true, value: json(deferred.value) } : deferred;
  } finally {
    body.value.done();
  }
}
