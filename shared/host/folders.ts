// Why: folders that people name on a command line are made here, one by one. Node's own recursive mkdir never comes
// back where a folder exists and nothing can be made in it (`/proc/x`): it makes the folder above again, for ever.
// Trusts: nothing but what it sees on the way down. Must never: try anything twice.

import { mkdirSync, type Stats, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { FleetError } from '../kernel/errors.ts';
import { diskFault, errnoOf } from './disk-fault.ts';

/** What lies there, or undefined. */
const found = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false });

/** Makes one folder; true where it is new. Somebody else may have made it in the meantime. */
function makeOne(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST' && found(path)?.isDirectory() === true) return false;
    throw error;
  }
}

function makeMissing(path: string, mode: number): string[] {
  const missing: string[] = [];
  let folder = resolve(path);
  while (found(folder) === undefined && dirname(folder) !== folder) {
    missing.unshift(folder);
    folder = dirname(folder);
  }
  // What is there and is no folder says so itself, by the error of making something in it.
  if (missing.length === 0) missing.push(folder);
  return missing.filter((one) => makeOne(one, mode));
}

/**
 * Makes a folder and those above it that are missing; the new ones, the outermost first. Faults: `disk-full`, and
 * `disk-io` with a next step for whoever named the folder.
 */
export function makeFolders(path: string, mode = 0o777): string[] {
  try {
    return makeMissing(path, mode);
  } catch (error) {
    const fault = diskFault(error, `make the folder ${path}`);
    if (fault.code !== 'disk-io') throw fault;
    throw new FleetError(fault.code, fault.message, {
      hint: 'name a folder in a place where this user may make one',
      cause: error,
    });
  }
}
