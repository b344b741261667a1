// Why: rows that are handed over in a short way are the rows that are stored, whichever of them comes first.
// Trusts: SQLite. Must never: read the rows in the way that is under test.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deviceRows } from '../../registry/rollout/device-rows.ts';
import { readRollout } from '../../registry/rollout/records.ts';
import { openWorld, rolloutFile } from '../fleet/world.ts';
import { onRelease1, v1, v2 } from './ground.ts';

const plain = `SELECT d.device_id AS id, d.status, d.presence, d.presence_at_ms AS presenceAtMs, d.reported_epoch AS reportedEpoch,
    m.wave_index AS wave, m.state AS memberState, m.reason AS memberReason, m.step, m.epoch, m.step_at_ms AS stepAtMs, m.previous,
    r.state AS modelState, r.active, r.candidate, r.last_good AS lastGood, r.target, r.rollout_id AS modelRolloutId,
    r.reason AS modelReason, w.release_id AS desiredReleaseId, w.rollout_id AS desiredRolloutId
  FROM devices d LEFT JOIN rollout_devices m ON m.device_id = d.device_id AND m.rollout_id = ?
    LEFT JOIN device_models r ON r.device_id = d.device_id AND r.name = 'digits'
    LEFT JOIN desired w ON w.device_id = d.device_id AND w.as_name = 'digits'`;

test('rows of devices are what is stored, whoever of them is the first', async (t) => {
  const world = await openWorld(t);
  await world.push(v1, 1);
  await world.push(v2, 2);
  const members = await world.devices(6);
  await onRelease1(world, members.slice(0, 4));
  const spec = { release: v2, waves: [{ count: 2 }, { percent: 100 }] };
  const rolloutId = await world.start(rolloutFile('some', spec));
  members[0]?.offline();
  await world.devices(1);
  await world.settle();
  const seen = new Set<string>();
  const undo = new Error('everything as it was');
  const looked = world.store.tx((db) => {
    db.sql.run('PRAGMA defer_foreign_keys = ON');
    // Each device goes to the end once, so that each is what the others are told by.
    for (const { id } of members) {
      const rollout = readRollout(db, world.store.qb, rolloutId);
      assert.ok(rollout);
      for (const newcomers of [false, true]) {
        const expected = db.sql
          .all<{ id: string; wave: number | null }>(`${plain} ORDER BY d.device_id`, rolloutId)
          .filter(({ wave }) => newcomers || wave !== null);
        // As for a large fleet, and as for this one.
        const rows = deviceRows(db, world.store.qb, rollout, newcomers, 1);
        assert.deepEqual(deviceRows(db, world.store.qb, rollout, newcomers), rows);
        assert.deepEqual(
          rows.map(({ agent, ...row }) => row),
          expected,
        );
        seen.add(rows[0]?.id ?? '');
        const agents = rows.map(({ agent }) => JSON.parse(agent) as { version: string });
        assert.ok(agents.every(({ version }) => (version !== '') === newcomers));
      }
      for (const table of ['devices', 'rollout_devices', 'device_models', 'desired'])
        db.sql.run(`UPDATE ${table} SET device_id = 'z' || device_id WHERE device_id = ?`, id);
    }
    throw undo;
  });
  await assert.rejects(looked, undo);
  assert.ok(seen.size > 2);
});
