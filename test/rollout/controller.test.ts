// Why: the pure step keeps its promises for many waves and any order of reports, also where no file allows them yet.
// Trusts: nothing. Must never: need a store, a bus or a clock.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { step } from '../../registry/rollout/controller.ts';
import type { DeviceFact } from '../../registry/rollout/facts.ts';
import { before, releaseId, type Sim, simulate } from './controller-sim.ts';

const inWave = (sim: Sim, wave: number): string[] =>
  [...sim.members()].filter(([, member]) => member.wave === wave).map(([id]) => id);
const wants = (sim: Sim): number =>
  sim.facts.devices.filter((device) => device.desired?.releaseId === releaseId).length;

test('waves go out one after the other, each after the proof of the one before', () => {
  const sim = simulate(10, { waves: [{ count: 1 }, { percent: 50 }, { percent: 100 }] });
  sim.step();
  assert.equal(wants(sim), 1);
  for (const id of inWave(sim, 0)) sim.report(id, 'good');
  sim.step();
  assert.deepEqual(
    sim.facts.waves.map((wave) => wave.state),
    ['passed', 'running', 'pending'],
  );
  assert.equal(wants(sim), 5);
  for (const id of inWave(sim, 1)) sim.report(id, 'good');
  sim.step();
  for (const id of inWave(sim, 2)) sim.report(id, 'good');
  sim.step();
  assert.equal(sim.facts.rollout.state, 'succeeded');
  assert.ok([...sim.assignedOnce.values()].every((times) => times === 1));
});

test('a bad canary: nobody else is touched', () => {
  const sim = simulate(10, { waves: [{ count: 1 }, { percent: 100 }] });
  sim.step();
  const [canary = ''] = inWave(sim, 0);
  sim.report(canary, 'bad');
  sim.step();
  sim.report(canary, 'obey');
  sim.step();
  assert.equal(sim.facts.rollout.state, 'failed');
  assert.deepEqual([...sim.assignedOnce.keys()], [canary]);
  assert.deepEqual(
    sim.facts.waves.map((wave) => wave.state),
    ['failed', 'pending'],
  );
  const states = [...sim.members().values()].map((member) => member.state);
  assert.equal(states.filter((state) => state === 'pending').length, 9);
});

test('a bad second wave takes the first back, too', () => {
  const sim = simulate(4, { waves: [{ count: 2 }, { percent: 100 }] });
  sim.step();
  for (const id of inWave(sim, 0)) sim.report(id, 'good');
  sim.step();
  sim.report(inWave(sim, 1)[0] ?? '', 'bad');
  sim.step();
  assert.equal(wants(sim), 0);
  for (const { id } of sim.facts.devices) sim.report(id, 'obey');
  sim.step();
  assert.deepEqual(
    sim.facts.waves.map((wave) => wave.state),
    ['rolled-back', 'failed'],
  );
  assert.equal(sim.facts.rollout.state, 'failed');
});

test('any order of reports ends: succeeded with all on the release, or failed with none', () => {
  const outcome = fc.constantFrom('good' as const, 'bad' as const, 'busy' as const);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.array(fc.tuple(fc.nat(7), outcome), { maxLength: 40 }),
      fc.integer({ min: 1, max: 3 }),
      fc.boolean(),
      (count, reports, changesMax, restarted) => {
        const sim = simulate(count, { waves: [{ count: 1 }, { percent: 40 }, { percent: 100 }] }, changesMax);
        sim.step();
        for (const [at, said] of reports) {
          sim.report(`device-${at % count}`, said);
          // A restart keeps only what can be stored.
          if (restarted) sim.facts = JSON.parse(JSON.stringify(sim.facts));
          sim.step();
        }
        // In the end every device obeys.
        for (let round = 0; round < 4; round += 1) {
          for (const { id } of sim.facts.devices) sim.report(id, 'obey');
          sim.step();
        }
        const { state } = sim.facts.rollout;
        assert.ok(state === 'succeeded' || state === 'failed', state);
        assert.equal(wants(sim), state === 'succeeded' ? count : 0);
        assert.ok(sim.facts.waves.every((wave) => wave.state !== 'running' && wave.state !== 'soaking'));
      },
    ),
    { numRuns: 400 },
  );
});

test('a first wave that nobody could reach proves nothing', () => {
  const deadlines = { unreachable: { after: '30s', counts: 'ignore' } };
  const sim = simulate(3, { waves: [{ count: 1 }, { percent: 100 }], deadlines });
  sim.step();
  const [canary] = inWave(sim, 0);
  const devices = sim.facts.devices.map((device) => ({ ...device, online: device.id !== canary }));
  sim.facts = { ...sim.facts, devices, nowMs: 100_000 };
  sim.step();
  assert.equal(sim.facts.rollout.state, 'failed');
  assert.equal(wants(sim), 0);
});

test('says when time alone will change something', () => {
  const deadlines = {
    fetching: '1h',
    probing: '5m',
    soaking: '1h',
    unreachable: { after: '30s', counts: 'wait' },
  };
  const sim = simulate(2, { waves: [{ percent: 100 }], deadlines });
  sim.step();
  const [online, away] = sim.facts.devices;
  assert.ok(online && away);
  sim.facts = { ...sim.facts, devices: [online, { ...away, online: false, presenceAtMs: 5_000 }] };
  assert.equal(step(sim.facts).wakeAtMs, 35_000);
  sim.facts = { ...sim.facts, devices: [online] };
  assert.equal(step(sim.facts).wakeAtMs, 1_000 + 2 * 3_600_000 + 300_000 + 2_000_000);
});

test('devices that a later rollout holds already prove nothing: no wave passes', () => {
  const sim = simulate(1, { waves: [{ count: 1 }, { percent: 50 }, { percent: 100 }] });
  sim.facts = { ...sim.facts, devices: sim.facts.devices.map((device) => ({ ...device, desiredNumber: 9 })) };
  sim.step();
  assert.deepEqual(
    [sim.facts.rollout.state, sim.facts.waves.map(({ state }) => state)],
    ['aborted', ['running', 'pending', 'pending']],
  );
});

test('a late device of a later rollout makes no room for another one in a wave that is full', () => {
  const ids = Array.from({ length: 24 }, (_, index) => `late-${index}`);
  for (const id of ids) {
    const sim = simulate(1, { waves: [{ count: 1 }, { percent: 50 }, { percent: 100 }] });
    const [first] = sim.facts.devices;
    assert.ok(first);
    sim.step();
    sim.report(first.id, 'good');
    sim.step();
    assert.equal(sim.facts.rollout.state, 'succeeded');
    const none = { model: null, desired: null, proven: null, member: null };
    const held: DeviceFact = { ...first, ...none, id: 'held', desired: before, desiredNumber: 9 };
    const late: DeviceFact = { ...first, ...none, id, desiredNumber: 0 };
    sim.facts = { ...sim.facts, devices: [...sim.facts.devices, late, held] };
    sim.step();
    const members = sim.members();
    assert.equal(members.has('held'), false);
    assert.equal(members.get(id)?.wave, 2, id);
  }
});
