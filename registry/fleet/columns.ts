// Why: JSON in a TEXT column, written by this program and validated before it was, becomes its type again.
// Trusts: the registry's own database. Must never: read what came from the network.

import { FleetError } from '../../shared/kernel/errors.ts';

/** The value of a JSON column. A fault `state-corrupt` where it is no JSON. */
export function fromColumn<T>(text: string): T {
  try {
    const value: T = JSON.parse(text);
    return value;
  } catch (error) {
    throw new FleetError('state-corrupt', 'a JSON column of the registry’s database does not parse', {
      cause: error,
    });
  }
}

/** The same for a column that may be null. */
export function fromNullableColumn<T>(text: string | null): T | null {
  return text === null ? null : fromColumn<T>(text);
}

export function toColumn(value: object): string {
  return JSON.stringify(value);
}

export function toNullableColumn(value: object | null): string | null {
  return value === null ? null : JSON.stringify(value);
}
