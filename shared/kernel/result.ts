// Why: an expected refusal is a value with a code, a fault is a thrown FleetError (errors.ts).
// Trusts: nothing. Must never: be used to swallow a bug.

import type { ErrorCode } from './codes.ts';

export interface Refusal {
  code: ErrorCode;
  /** What was wrong, in words, without secrets or payloads. */
  detail: string;
  /** The rule of the region's policy that decided, such as `flows/no-raw`, where one did. */
  rule?: string;
  /** Where it is known when a repetition may succeed. */
  retryAfterMs?: number;
}

export type Result<T> = { ok: true; value: T } | { ok: false; refusal: Refusal };

export function ok(): { ok: true; value: undefined };
export function ok<T>(value: T): { ok: true; value: T };
export function ok<T>(value?: T): { ok: true; value: T | undefined } {
  return { ok: true, value };
}

export function refuse(code: ErrorCode, detail: string): { ok: false; refusal: Refusal } {
  return { ok: false, refusal: { code, detail } };
}
