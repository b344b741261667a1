// Why: the controller with its store in a variable: what it decides becomes the facts of its next step, and devices
// report what a test wants. Trusts: nothing. Must never: need a store, a bus or a clock.

import assert from 'node:assert/strict';
import { step } from '../../registry/rollout/controller.ts';
import type {
  DesiredRelease,
  DeviceFact,
  Member,
  RolloutDecision,
  RolloutFact,
  RolloutFacts,
  WaveFact,
} from '../../registry/rollout/facts.ts';
import { pendingGates } from '../../registry/rollout/gates.ts';
import { rolloutFileSchema } from '../../shared/wire/rollout-file.ts';

export const releaseId = 'acme/digits@2.0.0';
const bytes = { manifestSha256: 'a'.repeat(64), manifestBytes: 9, counter: 2, requires: null };
const policy = { deadlinesMs: { fetching: 1, probing: 1, soaking: 1 }, soakMs: 0 };
export const before: DesiredRelease = { ...bytes, releaseId: 'acme/digits@1.0.0', rolloutId: 'r0', policy };

export interface Sim {
  facts: RolloutFacts;
  /** Steps until nothing more follows; the assignment's epoch grows as the director's would. */
  step(): void;
  report(id: string, outcome: 'good' | 'bad' | 'busy' | 'soaking' | 'obey'): void;
  members(): Map<string, Member>;
  assignedOnce: Map<string, number>;
  /** Called with the facts of each step and what it decided. */
  onStep: (facts: RolloutFacts, decision: RolloutDecision) => void;
}

/** The controller with its store in a variable. */
export function simulate(count: number, spec: Record<string, unknown>, changesMax = 1_000): Sim {
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
    onStep: () => undefined,
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
        sim.onStep(facts, decision);
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
          const again = step(sim.facts);
          assert.deepEqual(
            [again.rollout, again.waves, again.desired.size],
            [decision.rollout, decision.waves, 0],
          );
          // Of one that has ended, what its members are called is nobody's business any more.
          if (decision.rollout.endedAtMs === null) assert.deepEqual(again.members, decision.members);
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
        const soaking = { ...model, state: 'soaking' as const, active: target };
        const next = { good, busy, soaking, obey: good, bad: target === releaseId ? bad : good }[outcome];
        return { ...device, reportedEpoch: epochs.get(id) ?? 1, model: next };
      });
      sim.facts = { ...sim.facts, devices };
    },

    members: () => new Map(sim.facts.devices.flatMap(({ id, member }) => (member ? [[id, member]] : []))),
  };
  return sim;
}
