// Why: rows on the deciding functions alone: what they refuse needs no device and no broker to be shown.
// Trusts: nothing. Must never: let a row pass whose honest twin would be refused too.

import assert from 'node:assert/strict';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { AttackCase } from './attack-case.ts';

export function codeOf(result: Result<unknown>): string {
  return result.ok ? 'accepted' : result.refusal.code;
}

/** What a row tries: the result for the honest object, then for the attacker's. */
export interface Attempt {
  honest: Result<unknown> | Promise<Result<unknown>>;
  forged: Result<unknown> | Promise<Result<unknown>>;
}

export function directRow(
  group: AttackCase['group'],
  id: string,
  attack: string,
  code: ErrorCode,
  attempt: () => Attempt | Promise<Attempt>,
): AttackCase {
  return {
    id,
    group,
    attack,
    code,
    where: 'direct',
    run: async () => {
      const { honest, forged } = await attempt();
      assert.equal(codeOf(await honest), 'accepted', 'the honest twin');
      return codeOf(await forged);
    },
  };
}

/** What a maker or a tool says, which throws where a judge refuses. */
export function resultOf<T>(work: () => T): Result<T> {
  try {
    return ok(work());
  } catch (error) {
    if (error instanceof FleetError) return refuse(error.code, error.message);
    throw error;
  }
}

/** The bytes of a JSON text in which something stands that a strict reader refuses. */
export function withDuplicateKey(payload: Uint8Array, key: string): Uint8Array {
  const text = Buffer.from(payload).toString('utf8');
  return new Uint8Array(Buffer.from(text.replace('{', `{${JSON.stringify(key)}:0,`)));
}
