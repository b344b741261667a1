// Why: a folder of the real machine as a place: its files and its databases.
// Trusts: its caller to hold the folder's lock. Must never: reach outside the folder.

import { join } from 'node:path';
import type { Place } from '../kernel/ports.ts';
import { openDisk } from './disk.ts';
import { openStore } from './sqlite.ts';

export function folderPlace(folder: string): Place {
  return {
    disk: (inner) => openDisk(join(folder, inner)),
    openStore: (file, terms) => openStore(join(folder, file), terms),
  };
}
