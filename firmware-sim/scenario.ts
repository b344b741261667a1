// Why: what a world's registry asks of its device, and when: good, bad, superseded, withdrawn.
// Trusts: the seed. Must never: ask for something whose end depends on how far the device had come,
// since cuts move that: only after the device is at rest may a bad release follow.

import type { AssignedRelease, Assignment } from '../shared/wire/messages.ts';
import { type Catalogue, type Kind, outcomes } from './catalogue.ts';
import { draw, drawInt } from './chance.ts';

export interface Step {
  /** Wait until nothing moves any more, or this many milliseconds: in the middle of the update before. */
  after: 'rest' | number;
  /** Model → release key and rollout; a model that is absent is to be removed. */
  wanted: Record<string, { key: string; rolloutId: string; soakMs: number }>;
}

const badKinds = (Object.keys(outcomes) as Kind[]).filter((kind) => kind !== 'good');
const models = ['alpha', 'beta'] as const;

export function drawScenario(seed: number): Step[] {
  const steps: Step[] = [];
  const count = drawInt(2, 6, seed, 'steps');
  const modelCount = draw(seed, 'models') < 0.35 ? 2 : 1;
  let wanted: Step['wanted'] = {};
  for (let index = 0; index < count; index += 1) {
    const midway = index > 0 && draw(seed, 'midway', index) < 0.35;
    const next: Step['wanted'] = {};
    for (const model of models.slice(0, modelCount)) {
      const chance = draw(seed, 'step', index, model);
      const before = wanted[model];
      const rolloutId = `rollout-${index}`;
      const soakMs =
        draw(seed, 'soak', index, model) < 0.5 ? 0 : drawInt(1, 60_000, seed, 'soakMs', index, model);
      const good = `${model}/good/${drawInt(0, 3, seed, 'good', index, model)}`;
      if (midway || index === 0 || chance < 0.35) next[model] = { key: good, rolloutId, soakMs };
      else if (chance < 0.75) {
        const kind = badKinds[drawInt(0, badKinds.length - 1, seed, 'bad', index, model)] ?? 'bad-golden';
        next[model] = { key: `${model}/${kind}/0`, rolloutId, soakMs };
      }
      // The director re-issues what it said before, for the same rollout or as a retry.
      else if (chance < 0.85 && before !== undefined) next[model] = before;
      else if (chance < 0.92 && before !== undefined) next[model] = { ...before, rolloutId };
    }
    steps.push({ after: midway ? drawInt(0, 2_000, seed, 'gap', index) : 'rest', wanted: next });
    wanted = next;
  }
  return steps;
}

const simShadow = { requests: 20, cpuPercent: 25, timeoutMs: 60_000, agreementMin: 0.9 };

/** A release that shadowing finds out always is; the others every third time. */
function shadowed(key: string, epoch: number): boolean {
  return key.includes('/disagrees/') || epoch % 3 === 0;
}

export function assignmentOf(step: Step, epoch: number, catalogue: Catalogue): Assignment {
  const releases = Object.entries(step.wanted).map(([as, { key, rolloutId, soakMs }]): AssignedRelease => {
    const { releaseId, manifestSha256, manifestBytes, counter } = catalogue.release(key);
    // Far beyond what any seed takes: a missed deadline would make the end depend on the cuts.
    const deadlinesMs = { fetching: 1e9, probing: 1e9, soaking: 1e9 };
    return {
      as,
      releaseId,
      manifestSha256,
      manifestBytes,
      counter,
      requires: null,
      rolloutId,
      policy: { deadlinesMs, soakMs, ...(shadowed(key, epoch) ? { shadow: simShadow } : {}) },
    };
  });
  return {
    schemaVersion: 1,
    deviceId: '00000000000000000000000000000000',
    region: 'sim',
    epoch,
    issuedAtMs: 0,
    expiresAtMs: 4_000_000_000_000,
    labels: {},
    releases,
    telemetry: null,
    authoritiesSha256: null,
  };
}
