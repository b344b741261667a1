// Why: a rollout across regions as people read it: a line for each region, and why it stands.
// Trusts: the registry's answers, validated. Must never: hide a region that was not heard from.

import type { RegionRolloutExplanation, RegionRolloutStatus } from '../../shared/wire/region-rollouts.ts';
import type { RolloutPlan } from '../../shared/wire/rollout-plan.ts';
import { table, when, withWord } from './output.ts';

type Part = RegionRolloutStatus['regions'][number];

const headline = (
  head: Pick<RegionRolloutStatus, 'id' | 'name' | 'release' | 'releases' | 'state'>,
  because: string | null,
): string =>
  `rollout ${head.id} (${head.name}) across regions: ${head.releases?.join(withWord()) ?? head.release} is ${head.state}${because === null ? '' : `: ${because}`}`;

/** All of its waves together. */
function devicesOf({ waves }: Part): string {
  const sums = new Map<string, number>();
  for (const { devices } of waves)
    for (const [state, count] of Object.entries(devices))
      if (state !== 'total' && count > 0) sums.set(state, (sums.get(state) ?? 0) + count);
  return [...sums].map(([state, count]) => `${count} ${state}`).join(', ') || '-';
}

function gateOf({ gates }: Part): string {
  const failed = gates.find(({ verdict }) => verdict === 'fail');
  if (failed === undefined) return '-';
  const value = failed.value === null ? '?' : Number(failed.value.toPrecision(4));
  return `${failed.gate} ${value} (limit ${failed.limit}, wave ${failed.wave})`;
}

function stateOf({ state, acted, wish, unreachableSinceMs }: Part): string {
  if (unreachableSinceMs !== null) return `${state}, unreachable since ${when(unreachableSinceMs)}`;
  return acted || wish === 'wait' ? state : `${state}, told to ${wish}`;
}

export function regionRolloutText(status: RegionRolloutStatus): string {
  const { id, regions, failed, state, reason } = status;
  return [
    headline(status, reason),
    table(
      ['STAGE', 'REGION', 'STATE', 'WAVES DONE', 'DEVICES', 'GATE FAILED', 'LAST HEARD', 'THERE', 'REASON'],
      regions.map((part) => [
        `${part.stage}`,
        part.region,
        stateOf(part),
        `${part.waves.filter((wave) => wave.state === 'passed').length}/${part.waves.length}`,
        devicesOf(part),
        gateOf(part),
        part.lastHeardMs === null ? 'never' : when(part.lastHeardMs),
        part.rollout ?? '-',
        part.reason ?? '-',
      ]),
    ),
    ...(state === 'paused' && failed.length > 0
      ? [
          '',
          `next: lepton rollout resume ${id} (${failed.join(', ')} tries again), resume ${id} --without ${failed.join(' ')}, or abort ${id}`,
        ]
      : []),
  ].join('\n');
}

export function regionExplanationText(said: RegionRolloutExplanation): string {
  return [
    headline(said, said.because),
    table(
      ['STAGE', 'REGION', 'STATE', 'BECAUSE', 'WAITS FOR'],
      said.regions.map((one) => [
        `${one.stage}`,
        one.region,
        one.state,
        one.because ?? '-',
        one.waitsFor.join('; ') || '-',
      ]),
    ),
  ].join('\n');
}

/**
 * Nothing more happens by itself: it has ended, or a region that failed keeps it until somebody says how it goes on, and no
 * region is on its way anywhere.
 */
export function isSettled({ state, endedAtMs, failed, regions }: RegionRolloutStatus): boolean {
  if (endedAtMs !== null) return true;
  return (
    state === 'paused' &&
    failed.length > 0 &&
    regions.every(
      (part) =>
        part.state !== 'rolling-back' &&
        (part.acted || part.unreachableSinceMs !== null || part.wish === 'wait'),
    )
  );
}

export function stageLines({ stages = [] }: RolloutPlan): string[] {
  if (stages.length === 0) return [];
  return [
    '',
    `stages: ${stages.length}`,
    table(
      ['STAGE', 'REGION', 'DEVICES'],
      stages.flatMap(({ index, regions }) =>
        regions.map((one) => [
          `${index}`,
          one.region,
          one.devices === null ? 'decided there' : `${one.devices}`,
        ]),
      ),
    ),
  ];
}
