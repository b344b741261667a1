// Why: whether a file fits before the first byte of it is asked for. Trusts: what the disk says of itself.
// Must never: let a download take what the device's databases need to go on.

import { limits } from '../../shared/kernel/limits.ts';
import type { Disk } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { blobFolder } from './blob-names.ts';

export interface RoomTerms {
  /** All files of releases together, with those on their way; null: as much as the disk has. */
  storageQuotaBytes?: number | null;
  storageReserveBytes?: number;
}

export interface Room {
  /** Refusals: `storage-quota`, `disk-full`. */
  has(bytes: number): Promise<Result<void>>;
}

const MiB = 1024 * 1024;
/** For people: a number that is too small for the unit keeps its bytes. */
const words = (bytes: number): string => (bytes < MiB ? `${bytes} bytes` : `${Math.ceil(bytes / MiB)} MiB`);

export function createRoom(disk: Disk, terms: RoomTerms): Room {
  const quota = terms.storageQuotaBytes ?? null;
  const reserve = terms.storageReserveBytes ?? limits.storageReserveBytes;

  async function used(): Promise<number> {
    let bytes = 0;
    for (const name of await disk.list(blobFolder)) bytes += (await disk.size(`${blobFolder}/${name}`)) ?? 0;
    return bytes;
  }

  return {
    has: async (bytes) => {
      if (quota !== null) {
        const held = await used();
        if (held + bytes > quota)
          return refuse(
            'storage-quota',
            `${words(bytes)} more beside ${words(held)}, the quota is ${words(quota)}`,
          );
      }
      const free = await disk.freeBytes();
      if (free !== null && free < bytes + reserve)
        return refuse(
          'disk-full',
          `${words(bytes)} wanted beside ${words(reserve)} in reserve, ${words(free)} free`,
        );
      return ok();
    },
  };
}
