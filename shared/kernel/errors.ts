// Why: every fault has a literal code, a retry class, a hint for the person who reads it, and a cause.
// Trusts: codes.ts, the one table of codes. Must never: carry payloads or keys in its message.

import { type CodeInfo, codes, type ErrorCode } from './codes.ts';
import type { Refusal, Result } from './result.ts';

export class FleetError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;
  /** The rule of the region's policy that decided; null where none did. */
  readonly rule: string | null;

  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; rule?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'FleetError';
    this.code = code;
    this.hint = options.hint ?? codes[code].hint;
    this.rule = options.rule ?? null;
  }

  get retry(): CodeInfo['retry'] {
    return codes[this.code].retry;
  }
}

/** Turns a refusal into a thrown fault where nothing can go on without the value. */
export function unwrap<T>(result: Result<T>): T {
  if (result.ok) return result.value;
  throw refusalError(result.refusal);
}

export function refusalError(refusal: Refusal): FleetError {
  return new FleetError(refusal.code, refusal.detail, { rule: refusal.rule });
}

/** The FleetError behind anything that was thrown; what is not one is the bug code `internal`. */
export function asFleetError(thrown: unknown): FleetError {
  if (thrown instanceof FleetError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new FleetError('internal', message, { cause: thrown });
}

/** A broken invariant is a bug: the process must exit, its supervisor restarts it, the journal resumes. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new FleetError('internal', `invariant broken: ${message}`);
}
