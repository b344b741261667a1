// Why: asserts on the code of a fault, never on its prose.
// Trusts: nothing. Must never: accept another error.

import { FleetError } from '../../shared/kernel/errors.ts';

export function isFleetError(code: string): (error: unknown) => boolean {
  return (error) => error instanceof FleetError && error.code === code;
}
