// Why: runs the rows of a group as tests, over each bench. Trusts: node:test.
// Must never: pass a row that met another refusal than the one it names.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AttackCase, Bench } from './attack-case.ts';

/** Rows at once over the wire: each waits for the network and the disk more than it computes. */
const atOnce = 4;

export function runGroup(name: string, cases: readonly AttackCase[], bench: () => Bench): void {
  describe(name, { concurrency: atOnce }, () => {
    for (const one of cases) {
      it(`${one.id}: ${one.attack}: ${one.code}`, async () => {
        if (one.needs === undefined) assert.equal(await one.run(bench()), one.code);
        else assert.ok(!(await isGreen(one, bench())), `it passes now: remove its mark \`${one.needs}\``);
      });
    }
  });
}

async function isGreen(one: AttackCase, bench: Bench): Promise<boolean> {
  try {
    return (await one.run(bench)) === one.code;
  } catch (error) {
    if (error instanceof assert.AssertionError) return false;
    throw error;
  }
}
