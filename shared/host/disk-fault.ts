// Why: one way from an error of the file system to a fault with a code and a next step.
// Trusts: the operating system's error names. Must never: hide which path it was about.

import { FleetError } from '../kernel/errors.ts';

export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** A file system error as a fault: `disk-full` where space or quota ran out, else `disk-io`. */
export function diskFault(error: unknown, doing: string): FleetError {
  if (error instanceof FleetError) return error;
  const errno = errnoOf(error);
  const code = errno === 'ENOSPC' || errno === 'EDQUOT' ? 'disk-full' : 'disk-io';
  return new FleetError(code, `${doing}: ${errno ?? String(error)}`, { cause: error });
}
