// Why: what happens to several regions in one world, drawn from the seed: releases, cuts, restores, and a home that moves.
// Trusts: the seed. Must never: depend on what became of an earlier step.

import { draw, drawInt } from '../chance.ts';

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
);

export interface RegionTerms {
  regions: number;
  chaosMs: number;
  convergeMs: number;
  steps: number;
  handsOver: boolean;
}

const minuteMs = 60_000;

export function drawRegionTerms(seed: number): RegionTerms {
  const long = draw(seed, 'long') < 0.15;
  return {
    regions: drawInt(2, 3, seed, 'regions') + (draw(seed, 'four') < 0.1 ? 1 : 0),
    chaosMs: drawInt(4, long ? 120 : 25, seed, 'chaos') * minuteMs,
    convergeMs: 3 * 60 * minuteMs,
    steps: drawInt(3, 14, seed, 'steps'),
    handsOver: draw(seed, 'hands-over') < 0.45,
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
    else if (kind < 0.93) steps.push({ number, atMs, kind: 'restore', region });
    else {
      const how = (['flip', 'cut', 'empty', 'old'] as const)[drawInt(0, 3, seed, 'how', number)] ?? 'flip';
      steps.push({ number, atMs, kind: 'twist', region, ms, how });
    }
  }
  // Nothing would be worth looking at without any.
  number += 1;
  steps.push({ number, atMs: drawInt(90_000, 200_000, seed, 'first-push'), kind: 'push', model: 'alpha' });
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
