// Why: what happens to several regions in one world, drawn from the seed: releases, cuts, restores, and a home that moves.
// Trusts: the seed. Must never: depend on what became of an earlier step.

import { draw, drawInt } from '../chance.ts';
import type { ReleaseKind } from '../fleet-world/publisher.ts';

export type RegionStep = { number: number; atMs: number } & (
  | { kind: 'push'; model: string }
  | { kind: 'withdraw'; pick: number }
  | { kind: 'floor'; model: string }
  | { kind: 'cut-line'; a: number; b: number; ms: number }
  | { kind: 'restart'; region: number }
  | { kind: 'power'; region: number; downMs: number }
  | { kind: 'backup'; region: number }
  | { kind: 'restore'; region: number }
  | { kind: 'twist'; region: number; ms: number; how: 'flip' | 'cut' | 'empty' | 'old' }
  | { kind: 'hand-over'; to: number; lost: boolean }
  | FleetStep
);

/** What people do with rollouts and devices. */
export type FleetStep =
  | { kind: 'across'; by: number | null; rollout: AcrossChoice }
  | { kind: 'own'; region: number; fresh: boolean }
  | { kind: 'say'; what: 'pause' | 'resume' | 'abort' | 'abort-revert' }
  | { kind: 'say-there'; region: number; what: 'pause' | 'resume' }
  | { kind: 'island'; region: number; ms: number }
  | { kind: 'device-power'; device: number; downMs: number }
  | { kind: 'move'; device: number; to: number };

export interface AcrossChoice {
  release: ReleaseKind;
  /** Regions by number, stage by stage. */
  stages: number[][];
  soakMs: number;
  skipAfterMs: number | null;
  /** Of the first wave; the second takes everybody. */
  waveSoakMs: number;
  onGateFailure: 'rollback' | 'pause';
  onAbort: 'keep' | 'revert';
}

export interface RegionTerms {
  regions: number;
  chaosMs: number;
  convergeMs: number;
  steps: number;
  handsOver: boolean;
  /** In each region. */
  devices: number;
  /** People move devices, and bring no backup back. */
  moves: boolean;
}

const minuteMs = 60_000;
/** A region is cut off for so long. */
const islandMs = 60 * minuteMs;

export function drawRegionTerms(seed: number): RegionTerms {
  const long = draw(seed, 'long') < 0.15;
  const moves = draw(seed, 'moves') < 0.4;
  const one = draw(seed, 'devices') < 0.6;
  return {
    regions: drawInt(2, 3, seed, 'regions') + (draw(seed, 'four') < 0.1 ? 1 : 0),
    chaosMs: drawInt(4, long ? 120 : 25, seed, 'chaos') * minuteMs,
    // A device that lost its region for a while waits long between two tries.
    convergeMs: 8 * 60 * minuteMs,
    steps: drawInt(3, 14, seed, 'steps'),
    handsOver: draw(seed, 'hands-over') < 0.45,
    // Of a single one of its region nobody would ask that it moves.
    devices: moves
      ? drawInt(2, 3, seed, 'devices', 'moving')
      : one
        ? 1
        : drawInt(1, 3, seed, 'devices', 'more'),
    moves,
  };
}

export function drawRegionScenario(seed: number, terms: RegionTerms): RegionStep[] {
  const steps: RegionStep[] = [];
  let number = 0;
  const at = (name: string): number => drawInt(90_000, terms.chaosMs, seed, name, number);
  for (let index = 0; index < terms.steps; index += 1) {
    number += 1;
    const kind = draw(seed, 'kind', number);
    const region = drawInt(0, terms.regions - 1, seed, 'region', number);
    const other = (region + drawInt(1, terms.regions - 1, seed, 'other', number)) % terms.regions;
    const model = draw(seed, 'model', number) < 0.7 ? 'alpha' : 'beta';
    const atMs = at('at');
    const ms = drawInt(10, 900, seed, 'ms', number) * 1_000;
    if (kind < 0.4) steps.push({ number, atMs, kind: 'push', model });
    else if (kind < 0.48)
      steps.push({ number, atMs, kind: 'withdraw', pick: drawInt(0, 99, seed, 'pick', number) });
    else if (kind < 0.52) steps.push({ number, atMs, kind: 'floor', model });
    else if (kind < 0.68) steps.push({ number, atMs, kind: 'cut-line', a: region, b: other, ms });
    else if (kind < 0.74) steps.push({ number, atMs, kind: 'restart', region });
    else if (kind < 0.82) steps.push({ number, atMs, kind: 'power', region, downMs: ms });
    else if (kind < 0.88) steps.push({ number, atMs, kind: 'backup', region });
    else if (kind < 0.93) {
      // What a restored region forgot of devices that moved is healed by people.
      if (terms.moves) continue;
      // Mostly one that is not home: a home that forgot what it signed is the other world's to judge.
      const restored = drawInt(1, terms.regions - 1, seed, 'restored', number);
      const takenMs = drawInt(90_000, atMs, seed, 'backup-at', number);
      steps.push({ number, atMs, kind: 'restore', region: restored });
      number += 1;
      steps.push({ number, atMs: takenMs, kind: 'backup', region: restored });
    } else {
      const how = (['flip', 'cut', 'empty', 'old'] as const)[drawInt(0, 3, seed, 'how', number)] ?? 'flip';
      steps.push({ number, atMs, kind: 'twist', region, ms, how });
    }
  }
  // Nothing would be worth looking at without any.
  number += 1;
  steps.push({ number, atMs: drawInt(90_000, 200_000, seed, 'first-push'), kind: 'push', model: 'alpha' });
  for (const step of drawFleetSteps(seed, terms)) {
    number += 1;
    steps.push({ number, ...step });
  }
  if (!terms.moves && draw(seed, 'comes-back') < 0.3) {
    const region = drawInt(1, terms.regions - 1, seed, 'comes-back', 'region');
    const atMs = drawInt(150_000, Math.max(160_000, terms.chaosMs), seed, 'comes-back', 'at');
    number += 2;
    steps.push({ number: number - 1, atMs, kind: 'restore', region });
    const takenMs = drawInt(90_000, atMs, seed, 'comes-back', 'taken');
    steps.push({ number, atMs: takenMs, kind: 'backup', region });
  }
  if (terms.handsOver) {
    const moves = draw(seed, 'twice') < 0.25 ? 2 : 1;
    for (let index = 0; index < moves; index += 1) {
      number += 1;
      const to = drawInt(index === 0 ? 1 : 0, terms.regions - 1, seed, 'to', number);
      const lost = draw(seed, 'lost', number) < 0.4;
      steps.push({
        number,
        atMs: drawInt(200_000, Math.max(220_000, terms.chaosMs), seed, 'move', number),
        kind: 'hand-over',
        to,
        lost,
      });
    }
  }
  return steps.sort((a, b) => a.atMs - b.atMs || a.number - b.number);
}

function drawAcross(seed: number, terms: RegionTerms, ...key: (string | number)[]): AcrossChoice {
  const chance = (name: string): number => draw(seed, name, ...key);
  const order = Array.from({ length: terms.regions }, (_, region) => region).sort(
    (a, b) => chance(`place-${a}`) - chance(`place-${b}`),
  );
  const stages: number[][] = [];
  for (const region of order) {
    const last = stages.at(-1);
    if (last !== undefined && chance(`beside-${region}`) < 0.25) last.push(region);
    else stages.push([region]);
  }
  return {
    release: chance('release') < 0.85 ? 'good' : chance('bad') < 0.5 ? 'bad-golden' : 'fails-in-service',
    stages,
    soakMs: chance('soak') < 0.5 ? 0 : drawInt(10, 120, seed, 'stage-soak', ...key) * 1_000,
    skipAfterMs: chance('skip') < 0.3 ? drawInt(3, 20, seed, 'skip-after', ...key) * minuteMs : null,
    waveSoakMs: drawInt(0, 60, seed, 'wave-soak', ...key) * 1_000,
    onGateFailure: chance('gate') < 0.6 ? 'rollback' : 'pause',
    onAbort: chance('on-abort') < 0.5 ? 'keep' : 'revert',
  };
}

function drawFleetSteps(seed: number, terms: RegionTerms): ({ atMs: number } & FleetStep)[] {
  const steps: ({ atMs: number } & FleetStep)[] = [];
  const share = (name: string, index: number): number => draw(seed, 'fleet', name, index);
  const int = (low: number, high: number, name: string, index: number): number =>
    drawInt(low, high, seed, 'fleet', name, index);
  const last = Math.max(300_000, terms.chaosMs);
  const count = drawInt(1, 4, seed, 'fleet', 'steps');
  for (let index = 0; index < count; index += 1) {
    const atMs = int(150_000, last, 'at', index);
    const region = int(0, terms.regions - 1, 'region', index);
    const kind = share('kind', index);
    // One at least, and mostly by the home region: the others are not followed.
    if (index === 0 || kind < 0.3) {
      const by = share('by', index) < 0.85 ? null : region;
      steps.push({ atMs, kind: 'across', by, rollout: drawAcross(seed, terms, 'across', index) });
      const said = share('said', index);
      const what = said < 0.15 ? 'pause' : said < 0.22 ? 'abort' : said < 0.3 ? 'abort-revert' : null;
      const sayMs = atMs + int(5_000, 400_000, 'say', index);
      if (what !== null) steps.push({ atMs: sayMs, kind: 'say', what });
      const goOnMs = sayMs + int(10_000, 400_000, 'resume', index);
      if (what === 'pause') steps.push({ atMs: goOnMs, kind: 'say', what: 'resume' });
      // Whoever runs a region has stopped it there before, and lets it go on after everybody else.
      if (what === 'pause' && share('there-too', index) < 0.5)
        steps.push(
          {
            atMs: sayMs - int(1_000, 4_000, 'there-before', index),
            kind: 'say-there',
            region,
            what: 'pause',
          },
          {
            atMs: goOnMs + int(60_000, 200_000, 'there-after', index),
            kind: 'say-there',
            region,
            what: 'resume',
          },
        );
    } else if (kind < 0.5) steps.push({ atMs, kind: 'own', region, fresh: share('fresh', index) < 0.5 });
    else if (kind < 0.65) {
      steps.push({ atMs, kind: 'say-there', region, what: 'pause' });
      steps.push({
        atMs: atMs + int(5_000, 300_000, 'there', index),
        kind: 'say-there',
        region,
        what: 'resume',
      });
    } else
      steps.push({
        atMs,
        kind: 'device-power',
        device: int(0, 8, 'device', index),
        downMs: int(1, 900, 'down', index) * 1_000,
      });
  }
  if (terms.moves) {
    for (let index = 0; index < int(1, 3, 'moves', 0); index += 1) {
      // Half of them go on from where they came to, or back.
      const which = share('moves-on', index) < 0.5 ? 0 : index;
      steps.push({
        ...{ atMs: int(200_000, last, 'move', index), kind: 'move' },
        ...{ device: int(0, 8, 'moved', which), to: int(0, terms.regions - 1, 'move-to', index) },
      });
    }
  }
  // The region goes on by itself, and what was begun before it was cut off is waited for.
  if (draw(seed, 'fleet', 'island') < 0.25)
    steps.push({
      ...{ atMs: drawInt(170_000, 400_000, seed, 'fleet', 'island-at'), kind: 'island', ms: islandMs },
      region: drawInt(0, terms.regions - 1, seed, 'fleet', 'island-of'),
    });
  return steps;
}
