// Why: a rollout across regions as people see it: each region with its stage, its state as it last said, and why.
// Trusts: the same judgements as the controller. Must never: judge anything anew.

import type { RegionRolloutExplanation, RegionRolloutStatus } from '../../shared/wire/region-rollouts.ts';
import { waitingWords } from './region-controller.ts';
import { failedParts, type PartFact, saidOf, standingOf } from './region-facts.ts';
import type { RegionRolloutRecord } from './region-rollout-records.ts';

type PartView = RegionRolloutStatus['regions'][number];

const stateOf = (part: PartFact): PartView['state'] =>
  part.leftOut ? 'left-out' : (saidOf(part)?.state ?? 'waiting');

function partView(part: PartFact, lastHeardMs: number | null): PartView {
  const said = saidOf(part);
  const { stage, region, wish, unreachableSinceMs } = part;
  return {
    ...{ stage, region, wish, lastHeardMs, unreachableSinceMs },
    state: stateOf(part),
    reason: said?.reason ?? null,
    code: said?.code ?? null,
    rule: said?.rule ?? null,
    acted: (said?.acted ?? 0) >= part.revision,
    rollout: said?.rollout ?? null,
    waves: said?.waves ?? [],
    gates: said?.gates ?? [],
  };
}

export function regionStatus(record: RegionRolloutRecord): RegionRolloutStatus {
  const { row, releases, parts, lastHeardMs } = record;
  return {
    id: record.id,
    name: row.name,
    release: releases[0] ?? '',
    ...(releases.length > 1 ? { releases } : {}),
    state: record.state,
    reason: record.reason,
    createdBy: row.created_by,
    createdAtMs: row.created_at_ms,
    endedAtMs: record.endedAtMs,
    failed: failedParts(parts).map(({ region }) => region),
    regions: parts.map((part) => partView(part, lastHeardMs.get(part.region) ?? null)),
  };
}

function waitsFor(record: RegionRolloutRecord, part: PartFact): string[] {
  const { state, parts, endedAtMs } = record;
  const standing = standingOf(part);
  if (endedAtMs !== null || standing === 'succeeded' || standing === 'left-out') return [];
  const said = saidOf(part);
  const heard =
    (said?.revision ?? 0) >= part.revision
      ? []
      : [`the region to take the word ${part.wish}, revision ${part.revision}`];
  if (standing === 'failed' && state === 'paused')
    return [
      `lepton rollout resume ${record.id} (it tries again), or resume --without ${part.region}, or abort`,
    ];
  if (part.wish === 'wait') {
    const before = parts.filter((one) => one.stage < part.stage && standingOf(one) !== 'succeeded');
    return before.filter(({ leftOut }) => !leftOut).map((one) => `stage ${one.stage}: ${waitingWords(one)}`);
  }
  if (state === 'paused' && part.wish === 'pause') return [...heard, `lepton rollout resume ${record.id}`];
  if (standing === 'paused')
    return [...heard, `${part.region}: lepton rollout resume ${said?.rollout ?? ''}, there`];
  const there = said?.rollout ?? null;
  return there === null ? heard : [...heard, `${part.region}: lepton rollout explain ${there}, there`];
}

export function explainRegions(record: RegionRolloutRecord): RegionRolloutExplanation {
  const { row, releases, parts } = record;
  return {
    ...{ id: record.id, name: row.name, release: releases[0] ?? '' },
    ...{ state: record.state, because: record.reason },
    regions: parts.map((part) => ({
      ...{ stage: part.stage, region: part.region, state: stateOf(part) },
      because: part.unreachableSinceMs === null ? (saidOf(part)?.reason ?? null) : waitingWords(part),
      waitsFor: waitsFor(record, part),
    })),
  };
}
