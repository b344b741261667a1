// Why: holds that regions keep each other's heads, once each, and notice a region that tells two stories.
// Trusts: real stores of two regions. Must never: take a contradiction for a repetition.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditLimits } from '../../registry/audit/limits.ts';
import type { StreamItem } from '../../registry/regions/streams.ts';
import { signAuditHead } from '../../shared/trust/audit.ts';
import type { AuditHead } from '../../shared/wire/audit.ts';
import { dayMs, turnedClock } from '../registry-core/support.ts';
import { auditedRegion, pull } from './region.ts';

const region = 'eu-west';

async function scene(t: Parameters<typeof auditedRegion>[0]) {
  const clock = turnedClock();
  const peer = await auditedRegion(t, region, clock);
  const own = await auditedRegion(t, 'us-east', clock);
  const stream = own.incoming((name) => (name === region ? [peer.root.roles.ack] : null));
  let item = 0;
  const itemOf = (head: Partial<AuditHead>, signer = peer.signer): StreamItem => {
    item += 1;
    const whole: AuditHead = {
      ...{ schemaVersion: 1, region, entries: 10, headSha256: 'a'.repeat(64), atMs: 1_000, sequence: 1 },
      ...head,
    };
    return { id: item, body: signAuditHead(whole, signer) };
  };
  const take = (...items: StreamItem[]): Promise<void> =>
    own.store.tx((db) => stream.takeIn(db, region, items));
  const held = async (): Promise<[sequence: number, conflict: string | null][]> =>
    (
      await own.store.tx((db) =>
        db.all(own.store.qb.selectFrom('peer_audit_heads').selectAll().orderBy('sequence')),
      )
    ).map(({ sequence, conflict }) => [sequence, conflict]);
  const events = async (): Promise<string[]> =>
    (await own.events.list({ attacks: true, limit: 1_000 })).map(({ code }) => code).reverse();
  const audited = async (): Promise<(string | null)[]> =>
    (await own.audit.list({ limit: 1_000, actor: `region:${region}` })).entries.map(({ code }) => code);
  return { clock, peer, own, stream, itemOf, take, held, events, audited };
}

test('signed heads go over once, in order, and are in the next export', async (t) => {
  const { peer, own, held, events } = await scene(t);
  await peer.work(3);
  await peer.audit.heads.sign();
  await peer.work(1);
  await peer.audit.heads.sign();
  await pull(peer, own);
  await pull(peer, own);
  assert.deepEqual(await held(), [
    [1, null],
    [2, null],
  ]);
  assert.deepEqual(await events(), []);
  const read = (after: number, limit: number) =>
    peer.store.tx((db) => peer.outgoing.readIn(db, 'us-east', after, limit).map(({ id }) => id));
  assert.deepEqual([await read(0, 1), await read(1, 9), await read(2, 9)], [[1], [2], []]);
  assert.deepEqual([peer.outgoing.name, peer.outgoing.flow], ['audit-heads', 'audit-heads']);
  const lines = await own.exported();
  assert.equal(lines.filter((line) => line.startsWith('{"peerHead":')).length, 2);
});

test('contradictions are events and entries, once each', async (t) => {
  const b = 'b'.repeat(64);
  const cases: { name: string; next: Partial<AuditHead>; code: string | null }[] = [
    { name: 'grown', next: { sequence: 2, entries: 12, headSha256: b, atMs: 2_000 }, code: null },
    { name: 'the same count twice', next: { sequence: 2, atMs: 2_000 }, code: null },
    {
      name: 'same count, other digest',
      next: { sequence: 2, headSha256: b, atMs: 2_000 },
      code: 'equivocation',
    },
    { name: 'same number, other count', next: { entries: 11, headSha256: b }, code: 'equivocation' },
    { name: 'lower count', next: { sequence: 2, entries: 9, headSha256: b, atMs: 2_000 }, code: 'rollback' },
    { name: 'earlier', next: { sequence: 2, entries: 12, headSha256: b, atMs: 999 }, code: 'time-backwards' },
    // What comes late is measured by its own place, not by when it came.
    { name: 'late', next: { sequence: 0.5, entries: 5, headSha256: b, atMs: 500 }, code: null },
  ];
  const { own, take, itemOf, held, events, audited } = await scene(t);
  const codes: string[] = [];
  for (const { name, next, code } of cases) {
    await own.store.tx((db) => db.run(own.store.qb.deleteFrom('peer_audit_heads')));
    await take(itemOf({ sequence: 10 }));
    const second = itemOf({ ...next, sequence: (next.sequence ?? 1) * 10 });
    await take(second);
    await take(second, second);
    if (code !== null) codes.push(`audit-head-${code}`);
    assert.deepEqual(await events(), codes, name);
    assert.deepEqual(await audited(), codes, name);
    assert.equal((await held()).length, 2, name);
  }
});

test('after a contradiction the region is measured by what was sound before', async (t) => {
  const { take, itemOf, events } = await scene(t);
  await take(
    itemOf({ sequence: 1, entries: 10 }),
    itemOf({ sequence: 2, entries: 50, headSha256: 'b'.repeat(64) }),
  );
  // Restored from a backup, or rewritten: told again until it is longer than it ever was.
  await take(
    itemOf({ sequence: 3, entries: 20, headSha256: 'c'.repeat(64) }),
    itemOf({ sequence: 4, entries: 30, headSha256: 'd'.repeat(64) }),
    itemOf({ sequence: 5, entries: 60, headSha256: 'e'.repeat(64) }),
    itemOf({ sequence: 6, entries: 61, headSha256: 'f'.repeat(64) }),
  );
  assert.deepEqual(await events(), ['audit-head-rollback', 'audit-head-rollback']);
});

test('what nobody of the region signed is passed over and noted; without its root its heads wait', async (t) => {
  const { own, take, itemOf, held, events, audited } = await scene(t);
  const forged = itemOf({}, own.signer);
  await take(forged, { id: 99, body: { no: 'envelope' } }, itemOf({ region: 'ap-south' }), itemOf({}));
  assert.deepEqual(await held(), [[1, null]]);
  assert.deepEqual(await events(), Array(3).fill('audit-head-invalid'));
  assert.deepEqual(await audited(), Array(3).fill('audit-head-invalid'));
  const blind = own.incoming(() => null);
  await assert.rejects(
    own.store.tx((db) => blind.takeIn(db, region, [itemOf({ sequence: 2 })])),
    { code: 'audit-head-unverified' },
  );
  // A region that is wrong for good fills nothing.
  await take(...Array.from({ length: 200 }, () => forged));
  assert.ok((await audited()).length <= auditLimits.peerFaults.burst);
});

test('old heads are thinned to the last of each day; contradictions stay', async (t) => {
  const { clock, take, itemOf, held } = await scene(t);
  const head = (sequence: number, day: number) =>
    itemOf({
      sequence,
      entries: sequence,
      headSha256: String(sequence % 10).repeat(64),
      atMs: day * dayMs + sequence,
    });
  await take(head(1, 1), head(2, 1), head(3, 1), head(4, 2), head(5, 2));
  await take(itemOf({ sequence: 2, entries: 2, headSha256: 'f'.repeat(64), atMs: dayMs + 2 }));
  clock.advance(auditLimits.peerHeadsAllMs + dayMs);
  const many = Array.from({ length: 260 }, (_, at) => head(6 + at, 40));
  await take(...many);
  assert.deepEqual((await held()).slice(0, 4), [
    [2, 'audit-head-equivocation'],
    [3, null],
    [5, null],
    [6, null],
  ]);
  assert.equal((await held()).length, 3 + 260);
});
