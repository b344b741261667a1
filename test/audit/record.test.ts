// Why: holds the chain in the database: ids without gaps, nothing of what is rolled back, what may stand in an entry.
// Trusts: real SQLite. Must never: check a digest with other code than what an auditor runs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { auditEntrySha256, noEntrySha256 } from '../../shared/trust/audit.ts';
import { auditEntrySchema } from '../../shared/wire/audit.ts';
import { turnedClock } from '../registry-core/support.ts';
import { auditedRegion, entry } from './region.ts';

test('entries follow each other without gaps, also where a transaction is rolled back', async (t) => {
  const { audit, store, root } = await auditedRegion(t, 'eu-west');
  await audit.append(entry('a'));
  await assert.rejects(
    store.tx((db) => {
      audit.appendIn(db, entry('never'));
      throw new Error('rolled back');
    }),
  );
  await store.tx((db) => {
    audit.appendIn(db, entry('b'));
    audit.appendIn(db, entry('c'));
  });
  const { entries } = await audit.list({ limit: 10 });
  assert.deepEqual(
    entries.map(({ id, subject }) => [id, subject]),
    [
      [1, 'eu-west'],
      [2, 'a'],
      [3, 'b'],
      [4, 'c'],
    ],
  );
  let before = noEntrySha256;
  for (const one of entries) {
    assert.equal(one.previousSha256, before);
    assert.equal(one.entrySha256, auditEntrySha256(one));
    before = one.entrySha256;
  }
  assert.equal(entries[0]?.action, 'audit.begin');
  assert.equal(entries[0]?.detail.regionRootSha256, sha256Hex(root.bytes));
});

test('whatever a caller gives becomes an entry that has a digest and passes the schema', async (t) => {
  const { audit } = await auditedRegion(t, 'eu-west');
  const secret = `lepton_${'x'.repeat(43)}`;
  await audit.append(
    entry('s'.repeat(600), {
      actor: `user:${'\ud800'}half`,
      reason: `${'r'.repeat(999)}😀`,
      code: secret,
      detail: { share: 0.5, big: 2 ** 60, [secret]: secret, text: 't'.repeat(900), none: null, yes: true },
    }),
  );
  const { entries } = await audit.list({ limit: 10 });
  const last = auditEntrySchema.parse(entries.at(-1));
  assert.equal(last.entrySha256, auditEntrySha256(last));
  assert.equal(last.subject?.length, 512);
  assert.equal(last.actor, 'user:\ufffdhalf');
  assert.equal(last.reason, 'r'.repeat(999));
  assert.deepEqual([last.detail.share, last.detail.big], ['0.5', String(2 ** 60)]);
  assert.equal(JSON.stringify(last).includes('xxxx'), false);
});

test('a head is signed where entries were added, never twice for one count, never earlier than before', async (t) => {
  const clock = turnedClock();
  const { audit, work } = await auditedRegion(t, 'eu-west', clock);
  assert.equal(await audit.heads.newest(), null);
  const one = await audit.heads.sign();
  assert.deepEqual([one.head.sequence, one.head.entries], [1, 1]);
  assert.deepEqual(await audit.heads.sign(), one);
  await work(2);
  clock.advance(-3_600_000);
  const two = await audit.heads.sign();
  assert.deepEqual([two.head.sequence, two.head.entries], [2, 3]);
  assert.equal(two.head.atMs, one.head.atMs);
  assert.deepEqual(await audit.heads.newest(), two);
});
