// Why: puts each device into its wave by a stable hash, so that the same file picks the same devices and
// one that joins late falls into a wave by its place. Trusts: nothing. Must never: move a device that has a wave.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { RolloutSpec, Wave } from '../../shared/wire/rollout-file.ts';

const encoder = new TextEncoder();

/** The contract's default: one device first, everything ten minutes later. */
const wavesDefault: readonly Wave[] = [
  { count: 1, soak: 600_000 },
  { percent: 100, soak: 0 },
];

export function wavesOf(spec: RolloutSpec): readonly Wave[] {
  return spec.waves ?? wavesDefault;
}

/** `growth` as waves for so many devices; those that come later are in the last one. */
export function grown(growth: NonNullable<RolloutSpec['growth']>, devices: number): Wave[] {
  const { start, factor, soak } = growth;
  const waves: Wave[] = [];
  for (let count = start; count < devices; count = Math.ceil(count * factor)) waves.push({ count, soak });
  // A canary even where nobody is there yet: the first that comes is not all of them.
  if (waves.length === 0) waves.push({ count: start, soak });
  return [...waves, { percent: 100, soak }];
}

/** Place in the order of a rollout: the SHA-256 of its name and the device. */
export function placeOf(rolloutName: string, deviceId: string): string {
  return sha256Hex(encoder.encode(`${rolloutName}/${deviceId}`));
}

/** How many devices of `total` the waves up to this one hold. Waves are cumulative. */
export function cumulativeDevices(wave: Wave, total: number): number {
  if (wave.count !== undefined) return Math.min(wave.count, total);
  // Rounded up: one percent of ten devices is one device, not none.
  return Math.min(total, Math.ceil(((wave.percent ?? 100) * total) / 100));
}

/**
 * Waves of devices that have none yet, by device. `members` are the devices that have one, `from` the
 * wave that is under way: nobody joins a wave that has passed. A device that no wave reaches is left out.
 */
export function placeDevices(rollout: {
  name: string;
  waves: readonly Wave[];
  from: number;
  members: ReadonlyMap<string, number>;
  newcomers: readonly string[];
}): Map<string, number> {
  const { name, waves, from, members, newcomers } = rollout;
  const order = [...members.keys(), ...newcomers].map((id) => ({ id, place: placeOf(name, id) }));
  order.sort((a, b) => (a.place < b.place ? -1 : 1));
  const filled = waves.map((_, index) => [...members.values()].filter((wave) => wave <= index).length);
  const placed = new Map<string, number>();
  const waiting = new Set(newcomers);
  for (const [rank, { id }] of order.entries()) {
    if (!waiting.has(id)) continue;
    const index = waves.findIndex((wave, at) => {
      if (at < from) return false;
      const room = cumulativeDevices(wave, order.length);
      return rank < room && (filled[at] ?? 0) < room;
    });
    if (index < 0) continue;
    placed.set(id, index);
    for (let at = index; at < waves.length; at += 1) filled[at] = (filled[at] ?? 0) + 1;
  }
  return placed;
}
