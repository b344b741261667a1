// Why: a folder of results appears whole or not at all: its files are written beside it and it gets its name last.
// Trusts: its caller for the names. Must never: leave a half-written folder under the name, or touch another one.

import { chmodSync, existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { makeFolders } from '../../shared/host/folders.ts';
import { FleetError } from '../../shared/kernel/errors.ts';

/** Fault: `conflict` where something is there already and may not be replaced. */
export function checkFree(folder: string, force: boolean): void {
  if (!force && existsSync(folder))
    throw new FleetError('conflict', `${folder} exists already`, {
      hint: 'name another one by --out, or replace it by --force',
    });
}

/** Writes all files; where one cannot be written nothing is left. */
export function writeFolder(
  folder: string,
  files: ReadonlyMap<string, Uint8Array | string>,
  force: boolean,
): void {
  checkFree(folder, force);
  const path = resolve(folder);
  makeFolders(dirname(path));
  const made = mkdtempSync(join(dirname(path), `.${basename(path)}-`));
  // A folder for everybody that may read here, as one made by hand is.
  chmodSync(made, 0o777 & ~process.umask());
  // A Ctrl-C now would end the program between two files.
  const later = (): void => {
    process.exitCode = 130;
  };
  process.on('SIGINT', later);
  const old = `${made}-before`;
  try {
    for (const [name, content] of files) writeFileSync(join(made, name), content);
    if (existsSync(path)) renameSync(path, old);
    renameSync(made, path);
    rmSync(old, { recursive: true, force: true });
  } catch (cause) {
    rmSync(made, { recursive: true, force: true });
    // What was there before is there again.
    if (existsSync(old) && !existsSync(path)) renameSync(old, path);
    throw new FleetError(
      'disk-io',
      `cannot write ${folder}: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        cause,
        hint: 'name a folder in a place where this user may write, with space',
      },
    );
  } finally {
    process.off('SIGINT', later);
  }
}
