// Why: crash loop → last good release, from the child's death to the answer of the release before it.
// Trusts: forced.ts. Must never: time anything; `npm run soak` does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forceBadRelease } from './forced.ts';
import { noTrap } from './made.ts';

test('a committed release that keeps dying gives way to the one before it, and the report says why', {
  skip: noTrap,
}, async (t) => {
  const { outageMs, refused, model } = await forceBadRelease();
  t.diagnostic(`answered again after ${Math.round(outageMs)} ms; meanwhile ${JSON.stringify(refused)}`);
  assert.equal(model.reason?.code, 'model-crash-loop');
  assert.match(model.reason?.detail ?? '', /SIGFPE/);
  const known = ['model-crashed', 'model-crash-loop', 'infer-not-ready'];
  assert.deepEqual(
    Object.keys(refused).filter((code) => !known.includes(code)),
    [],
  );
});
