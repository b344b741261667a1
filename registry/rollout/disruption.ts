// Why: how many devices of one site are being updated at the same time, and in how many sites, so that a place never
// loses more of them at once than its operator bears.
// Trusts: outcomes made from signed reports. Must never: let a device through that the bound has no room for.

import type { RolloutSpec } from '../../shared/wire/rollout-file.ts';
import type { DeviceFact, Member } from './facts.ts';
import type { Outcome } from './members.ts';

/** Room that one step gives away, device by device. */
export interface Room {
  /** Whether the device could be updated now. */
  has(device: DeviceFact): boolean;
  /** True where the device may be updated now; it is then counted. */
  take(device: DeviceFact): boolean;
}

type Part = Pick<Member, 'step' | 'wave'>;

/** Until it serves again what it served before, or the release that it was given: its site does without it. */
function isUnavailable(member: Part | undefined, outcome: Outcome | undefined, device: DeviceFact): boolean {
  return device.busyElsewhere || isAtWork(member, outcome);
}

function isAtWork(member: Part | undefined, outcome: Outcome | undefined): boolean {
  const kind = outcome?.kind;
  return member?.step === 'assigned' && (kind === 'working' || kind === 'unreachable');
}

const counted = (counts: Map<string, number>, site: string): number => counts.get(site) ?? 0;

/**
 * Room for devices of `wave`. A site that has begun the wave goes on before another begins; sites begin in the order of
 * their names, so that an operator can say which is next.
 */
export function roomFor(
  disruption: RolloutSpec['disruption'],
  wave: number,
  devices: Iterable<{ device: DeviceFact; member: Part | undefined; outcome: Outcome | undefined }>,
): Room {
  if (disruption === undefined) return { has: () => true, take: () => true };
  const { maxUnavailable, maxSites } = disruption;
  const unavailable = new Map<string, number>();
  const waiting = new Set<string>();
  const begun = new Set<string>();
  /** Sites in which this rollout itself is at work. */
  const own = new Set<string>();
  for (const { device, member, outcome } of devices) {
    const { site } = device;
    if (isUnavailable(member, outcome, device)) unavailable.set(site, counted(unavailable, site) + 1);
    if (isAtWork(member, outcome)) own.add(site);
    if (member?.wave !== wave) continue;
    if (member.step === 'waiting' && device.active && device.behind === null) waiting.add(site);
    else if (member.step === 'assigned' && outcome?.kind !== 'ignored') begun.add(site);
  }
  // Where others are at work counts as well; one may join them only as long as all places are few enough.
  const taken = new Set(unavailable.keys());
  const open = new Set(maxSites === undefined || taken.size <= maxSites ? taken : own);
  const inTurn = [...waiting].sort();
  for (const site of [...inTurn.filter((one) => begun.has(one)), ...inTurn]) {
    if (open.has(site) || (maxSites !== undefined && taken.size >= maxSites)) continue;
    open.add(site);
    taken.add(site);
  }
  // One that another rollout works on is counted already, and is not taken twice at once.
  const has = ({ site, busyElsewhere }: DeviceFact): boolean =>
    !busyElsewhere && open.has(site) && counted(unavailable, site) < maxUnavailable;
  return {
    has,
    take(device) {
      if (!has(device)) return false;
      unavailable.set(device.site, counted(unavailable, device.site) + 1);
      return true;
    },
  };
}
