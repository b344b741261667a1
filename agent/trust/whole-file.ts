// Why: small files that must be there whole or not at all, and files that are broken and must not be lost.
// Trusts: the Disk port to keep its promises. Must never: leave half a file under a name that is read.

import type { Disk } from '../../shared/kernel/ports.ts';

/** Replaces a file so that a reader, also one after a power cut, sees the old one or the new one. */
export async function writeWhole(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const partial = `${path}.partial`;
  await disk.create(partial);
  await disk.append(partial, bytes);
  await disk.fsync(partial);
  await disk.rename(partial, path);
  await disk.fsyncDir('.');
}

/** Broken files kept for a person to look at; older ones make room. */
const asideMax = 3;
/** What SQLite keeps beside a database. Moved after it: a journal beside a new database would be played into it. */
const companions = ['', '-wal', '-shm'];

/**
 * Moves a database that is broken out of the way, as `<name>.broken-<n>`. The name, and how many bytes were set
 * aside; null where there was nothing.
 */
export async function setAside(disk: Disk, name: string): Promise<{ path: string; bytes: number } | null> {
  const marker = `${name}.broken-`;
  const numbers = (await disk.list('.'))
    .filter((one) => one.startsWith(marker) && /^\d+$/.test(one.slice(marker.length)))
    .map((one) => Number(one.slice(marker.length)))
    .sort((a, b) => a - b);
  const path = `${marker}${(numbers.at(-1) ?? 0) + 1}`;
  let bytes = 0;
  let moved = false;
  for (const companion of companions) {
    const size = await disk.size(name + companion);
    if (size === null) continue;
    await disk.rename(name + companion, path + companion);
    bytes += size;
    moved = true;
  }
  if (!moved) return null;
  for (const old of numbers.slice(0, Math.max(0, numbers.length + 1 - asideMax))) {
    for (const companion of companions) await disk.unlink(`${marker}${old}${companion}`);
  }
  await disk.fsyncDir('.');
  return { path, bytes };
}
