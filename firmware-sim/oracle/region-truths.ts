// Why: what really happened in a world of several regions: each region's directors apart, and for each record the region that
// its device was of when the application was answered. Trusts: what registries publish, devices' stores as committed.
// Must never: take one region's assignment for another's.

import type { World } from '../world.ts';
import { createTruth, type Truth } from './truth.ts';

export interface RegionTruths {
  /** Of one region's registry. */
  of(region: string): Truth;
  /** What a device's oracle judges by: an assignment counts where the region that the device is of issued it. */
  forDevice(regionNow: () => string | null): Truth;
  /** The application of a device was answered while the device was of that region. */
  answeredIn(node: string, region: string, id: string): void;
  /** By record the region in whose store it must come to lie. */
  answeredBy(node: string): ReadonlyMap<string, string>;
}

export function createRegionTruths(world: World): RegionTruths {
  const regions = new Map<string, Truth>();
  const records = new Map<string, Map<string, string>>();
  const of = (region: string): Truth => {
    const known = regions.get(region) ?? createTruth(world);
    regions.set(region, known);
    return known;
  };
  const answered = (node: string): Map<string, string> => {
    const known = records.get(node) ?? new Map<string, string>();
    records.set(node, known);
    return known;
  };
  return {
    of,
    forDevice(regionNow) {
      const here = (): Truth => of(regionNow() ?? '');
      const all = (): Truth[] => [...regions.values()];
      return {
        ...createTruth(world),
        isIssued: (deviceId, sha256) => here().isIssued(deviceId, sha256),
        expiryOf: (sha256) => here().expiryOf(sha256),
        // What it ran before it moved, a director of the region that it left had assigned.
        everAssigned: (deviceId, as, manifest) =>
          all().some((one) => one.everAssigned(deviceId, as, manifest)),
        isForked: () => all().some((one) => one.isForked()),
      };
    },
    answeredIn: (node, region, id) => void answered(node).set(id, region),
    answeredBy: answered,
  };
}
