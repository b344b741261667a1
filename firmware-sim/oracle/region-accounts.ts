// Why: at rest every record that an application was told is durable lies exactly once in the store of the region that its device
// was of, and in no other; and nothing that went between regions could be read on its way.
// Trusts: the stores of all regions, what was answered. Must never: excuse a loss that no lost disk explains.

import type { SqlTx } from '../../shared/kernel/ports.ts';
import type { Carried } from '../network/doors.ts';
import { recordMark } from '../region-world/devices.ts';
import type { RegionsWorld } from '../region-world/regions.ts';
import { storedIds } from './accounts.ts';
import { registryFile } from './registry-oracle.ts';

/** As it stands in bytes, and at each of the three places that it can have in base64. */
const marks = [
  recordMark,
  ...[0, 1, 2].map((at) =>
    Buffer.from(`${' '.repeat(at)}${recordMark}`)
      .toString('base64')
      .slice(at === 0 ? 0 : 4, -4),
  ),
];

/** Why what crossed a line must not have, or null. */
export function readable({ from, to, path, bytes }: Carried): string | null {
  const body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return marks.some((mark) => body.includes(mark))
    ? `a record can be read between ${from} and ${to}: ${path}`
    : null;
}

/** What does not add up, in words; null where everything does. */
export function regionAccounts(all: RegionsWorld): string | null {
  for (const one of all.devices) {
    const { node } = one.device;
    const lying = new Map<string, string>();
    const deviceId = one.oracle.deviceId();
    if (deviceId === null) continue;
    for (const region of all.regions) {
      const ids = region.place.look(registryFile, (db: SqlTx) => storedIds(db, region.place, deviceId)) ?? [];
      for (const id of ids) {
        const other = lying.get(id);
        if (other !== undefined) return `record ${id} is stored in ${other} and in ${region.name}`;
        if (!id.startsWith(`${node}-`)) return `${region.name} stores ${id} in the name of ${node}`;
        lying.set(id, region.name);
      }
    }
    for (const [id, region] of all.truths.answeredBy(node)) {
      const lies = lying.get(id);
      const home = all.regions.find(({ name }) => name === region);
      // What a disk that is gone had stored is gone with it, and so is what one that was set back had.
      if (lies === undefined && (home === undefined || home.lost || all.truths.of(region).isForked()))
        continue;
      if (lies === undefined) return `record ${id}, answered in ${region}, is nowhere`;
      if (lies !== region) return `record ${id}, answered in ${region}, is stored in ${lies}`;
    }
  }
  return null;
}
