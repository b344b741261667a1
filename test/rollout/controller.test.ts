// Why: the pure step keeps its promises for many waves and any order of reports, also where no file allows them yet.
// Trusts: nothing. Must never: need a store, a bus or a clock.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { step } from '../../registry/rollout/controller.ts';
import type {
  DesiredRelease,
  DeviceFact,
  Member,
  RolloutFact,
  RolloutFacts,
  WaveFact,
} from '../../registry/rollout/facts.ts';
import { pendingGates } from '../../registry/rollout/gates.ts';
import { rolloutFileSchema } from '../../shared/wire/rollout-file.ts';

const releaseId = 'acme/digits@2.0.0';
const bytes = { manifestSha256: 'a'.repeat(64), manifestBytes: 9, counter: 2, requires: null };
const policy = { deadlinesMs: { fetching: 1, probing: 1, soaking: 1 }, soakMs: 0 };
const before: DesiredRelease = { ...bytes, releaseId: 'acme/digits@1.0.0', rolloutId: 'r0', policy };

interface Sim {
  facts: RolloutFacts;
  /** Steps until nothing more follows; the assignment's epoch grows as the director's would. */
  step(): void;
  report(id: string, outcome: 'good' | 'bad' | 'busy' | 'obey'): void;
  members(): Map<string, Member>;
  assignedOnce: Map<string, number>;
}

/** The controller with its store in a variable. */
function simulate(count: number, spec: Record<string, unknown>, changesMax = 1_000): Sim {
  const file = rolloutFileSchema.parse({
    apiVersion: 'lepton/v1',
    kind: 'Rollout',
    metadata: { name: 'r' },
    spec: { release: releaseId, ...spec },
  });
  const waves = file.spec.waves ?? [];
  const rollout: RolloutFact = {
    id: 'r1',
    number: 2,
    name: 'r',
    as: 'digits',
    release: { ...bytes, releaseId },
    spec: file.spec,
    priority: 0,
    createdBy: 'olga',
    waves,
    state: 'running',
    reason: null,
    endsAs: null,
    endedAtMs: null,
  };
  const epochs = new Map<string, number>();
  const sim: Sim = {
    assignedOnce: new Map(),
    facts: {
      rollout,
      waves: waves.map(
        (_, index): WaveFact => ({
          index,
          state: 'pending',
          reason: null,
          gates: pendingGates(file.spec, index),
          startedAtMs: null,
          endedAtMs: null,
        }),
      ),
      devices: Array.from(
        { length: count },
        (_, index): DeviceFact => ({
          id: `device-${index}`,
          active: true,
          online: true,
          presenceAtMs: 0,
          reportedEpoch: 1,
          agent: { version: '0.1.0', arch: 'x64' },
          model: {
            state: 'committed',
            active: before.releaseId,
            candidate: null,
            lastGood: before.releaseId,
            target: before.releaseId,
            rolloutId: 'r0',
            reason: null,
          },
          desired: before,
          desiredNumber: 1,
          desiredPriority: 0,
          desiredOpen: false,
          behind: null,
          site: '',
          busyElsewhere: false,
          proven: before,
          member: null,
        }),
      ),
      approvals: [],
      evidence: {},
      barred: {},
      nowMs: 1_000,
      changesMax,
    },

    step() {
      for (let rounds = 0; rounds < 100; rounds += 1) {
        const { facts } = sim;
        const decision = step(facts);
        assert.ok(decision.desired.size <= facts.changesMax);
        for (const id of decision.desired.keys()) epochs.set(id, (epochs.get(id) ?? 1) + 1);
        const devices = facts.devices.map((device): DeviceFact => {
          const decided = decision.members.get(device.id) ?? null;
          const change = decision.desired.get(device.id);
          if (change === undefined) return { ...device, member: decided };
          if (change?.rolloutId === 'r1')
            sim.assignedOnce.set(device.id, (sim.assignedOnce.get(device.id) ?? 0) + 1);
          const member = decided && { ...decided, epoch: epochs.get(device.id) ?? 1 };
          return { ...device, member, desired: change, desiredNumber: change?.rolloutId === 'r1' ? 2 : 1 };
        });
        const quiet = decision.desired.size === 0;
        sim.facts = { ...facts, rollout: decision.rollout, waves: decision.waves, devices };
        if (quiet) {
          // Stepping again from the same facts decides the same.
          assert.deepEqual(step(sim.facts).rollout, decision.rollout);
          return;
        }
      }
      assert.fail('the controller does not come to rest');
    },

    report(id, outcome) {
      const devices = sim.facts.devices.map((device): DeviceFact => {
        if (device.id !== id || device.desired === null || device.model === null) return device;
        const { releaseId: target, rolloutId } = device.desired;
        const model = { ...device.model, target, rolloutId, reason: null, candidate: null };
        const good = { ...model, state: 'committed' as const, active: target, lastGood: target };
        const bad = {
          ...model,
          state: 'idle' as const,
          reason: { code: 'probe-golden-failed', detail: 'case 0' },
        };
        const busy = { ...model, state: 'fetching' as const, candidate: target };
        const next = { good, busy, obey: good, bad: target === releaseId ? bad : good }[outcome];
        return { ...device, reportedEpoch: epochs.get(id) ?? 1, model: next };
      });
      sim.facts = { ...sim.facts, devices };
    },

    members: () => new Map(sim.facts.devices.flatMap(({ id, member }) => (member ? [[id, member]] : []))),
  };
  return sim;
}

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
