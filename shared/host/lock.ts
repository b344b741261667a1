// Why: one process per state folder, by a lock of the operating system that dies with its process, so
// that kill -9 leaves nothing to clean up. Trusts: file locks of a local file system.
// Must never: decide by a pid file or by the lock file's existence.

import { chmodSync, closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { FleetError } from '../kernel/errors.ts';
import { diskFault } from './disk-fault.ts';
import { makeFolders } from './folders.ts';

export interface FolderLock {
  release(): Promise<void>;
}

/**
 * Makes the folder where it is missing, sets it to 0700 and holds it until `release` or the end of the
 * process. Faults: `state-locked` where another process (or this one) holds it, `disk-full`, `disk-io`.
 */
export async function lockFolder(path: string): Promise<FolderLock> {
  const file = join(path, 'lock.sqlite');
  try {
    makeFolders(path, 0o700);
    chmodSync(path, 0o700);
    closeSync(openSync(file, 'a', 0o600));
  } catch (error) {
    throw diskFault(error, `lock ${path}`);
  }
  let database: Database.Database | undefined;
  try {
    database = new Database(file, { timeout: 0 });
    // Nothing is ever written: the open exclusive transaction is the lock.
    database.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    database?.close();
    if (error instanceof Database.SqliteError && error.code.startsWith('SQLITE_BUSY')) {
      throw new FleetError('state-locked', `${path} is in use`, { cause: error });
    }
    throw diskFault(error, `lock ${path}`);
  }
  const held = database;
  return {
    release: async () => {
      held.close();
    },
  };
}
