// Why: what a stranger sends must not travel on at full length in refusals.
// Trusts: nothing. Must never: assert the words of the validator.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assignmentSchema, encodeMessage, parseMessage } from '../../shared/wire/messages.ts';

test('a refusal of a body with an enormous key stays short', () => {
  const body = { labels: { ['k'.repeat(100_000)]: 1 } };
  const parsed = parseMessage(assignmentSchema.pick({ labels: true }), encodeMessage(body));
  assert.ok(!parsed.ok);
  assert.equal(parsed.refusal.code, 'message-malformed');
  assert.ok(parsed.refusal.detail.length <= 501, `${parsed.refusal.detail.length} characters`);
});
