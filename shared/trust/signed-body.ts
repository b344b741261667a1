// Why: the payload of a verified envelope becomes a domain type once, strictly.
// Trusts: nothing in the payload; that a key signed it does not make it well-formed.
// Must never: read a text that another reader would read differently.

import type { z } from 'zod';
import { parseStrictJson } from '../crypto/canonical-json.ts';
import type { ErrorCode } from '../kernel/codes.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { describeIssues } from '../wire/messages.ts';

/** Refusal: `code`, naming the first wrong field. */
export function readSignedBody<S extends z.ZodType>(
  schema: S,
  payload: Uint8Array,
  code: ErrorCode,
): Result<z.infer<S>> {
  const json = parseStrictJson(payload, { code });
  if (!json.ok) return json;
  const parsed = schema.safeParse(json.value);
  return parsed.success ? ok(parsed.data) : refuse(code, describeIssues(parsed.error));
}
