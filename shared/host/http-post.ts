// Why: one POST to an address that an operator named, behind a port.
// Trusts: nothing in the answer but its status. Must never: follow a redirect, read a long answer, or wait without a deadline.

import type { HttpPost } from '../kernel/ports.ts';
import { ok, refuse } from '../kernel/result.ts';

export const systemHttpPost: HttpPost = async (url, { headers, body, timeoutMs, signal }) => {
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers,
      body: new Uint8Array(body),
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    });
    await answer.body?.cancel();
    return ok(answer.status);
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return refuse('webhook-unreachable', cause instanceof Error ? cause.message : String(cause));
  }
};
