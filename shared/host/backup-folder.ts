// Why: backups of a registry as folders side by side: each appears whole or not at all, and shares the bytes of files that
// never change with the registry and with the backups before it.
// Trusts: its caller to link only what nobody writes to. Must never: show a half-written backup under its name, nor make a
// file that other users can read.

import { constants, createReadStream } from 'node:fs';
import {
  chmod,
  copyFile,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { sha256Stream } from '../crypto/digests.ts';
import { diskFault, errnoOf } from './disk-fault.ts';
import { makeFolders } from './folders.ts';
import { lockFolder } from './lock.ts';

const partial = '.partial';

/** A file's bytes, or a folder's names, are durable when it resolves. */
export async function syncPath(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Everything under a folder, and the folder. */
export async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    await (entry.isDirectory() ? syncTree(path) : syncPath(path));
  }
  await syncPath(folder);
}

async function guarded<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskFault(error, doing);
  }
}

/** SHA-256 and size of a file of any length, or null where there is none. `onRead` hears of each piece. */
export async function digestOfFile(
  path: string,
  onRead: (bytes: number) => void = () => undefined,
): Promise<{ sha256: string; bytes: number } | null> {
  const digest = sha256Stream();
  let bytes = 0;
  try {
    for await (const chunk of createReadStream(path, {
      highWaterMark: 1024 * 1024,
    }) as AsyncIterable<Buffer>) {
      digest.update(chunk);
      bytes += chunk.length;
      onRead(chunk.length);
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return null;
    throw diskFault(error, `read ${path}`);
  }
  return { sha256: digest.hex(), bytes };
}

/** One file for both names where the disk allows it, else a copy with bytes of its own. */
export async function linkOrCopy(from: string, to: string): Promise<'linked' | 'copied'> {
  try {
    await link(from, to);
    return 'linked';
  } catch (error) {
    // Another disk, a file system without links, or too many of them already.
    const errno = errnoOf(error);
    if (errno === undefined || !['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EACCES'].includes(errno))
      throw diskFault(error, `link ${from} to ${to}`);
  }
  return guarded(`copy ${from} to ${to}`, async () => {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    await chmod(to, 0o600);
    await syncPath(to);
    return 'copied' as const;
  });
}

export interface BackupDraft {
  /** Where a file of it lies until `finish`; its folder is there. */
  path(inner: string): string;
  write(inner: string, bytes: Uint8Array | string): Promise<void>;
  read(inner: string): Promise<Uint8Array | null>;
  remove(inner: string): Promise<void>;
  /** A file that never changes: shared with where it comes from, else with a backup that has it, else copied. */
  take(inner: string, from: string): Promise<void>;
  /** Gives it its name; durable when it resolves. */
  finish(): Promise<string>;
  /** Leaves nothing; after `finish` it does nothing. */
  end(): Promise<void>;
}

/** Files that take the place of a folder of a backup, all at once. */
export interface FolderDraft {
  path(inner: string): string;
  write(inner: string, bytes: Uint8Array | string): Promise<void>;
}

export interface BackupFolder {
  folder: string;
  path(name: string, inner: string): string;
  /** Of whole backups, oldest first by name. */
  list(): Promise<string[]>;
  read(name: string, inner: string): Promise<Uint8Array | null>;
  /** Removes a folder of a backup and writes over what was in it; false where it is gone. */
  remove(name: string, inner: string): Promise<boolean>;
  /**
   * Puts what `fill` writes in the place of a folder of a backup and writes over what was there; after a cut `mend` finds the
   * one or the other, whole.
   */
  replace(name: string, inner: string, fill: (draft: FolderDraft) => Promise<void>): Promise<void>;
  /** Ends what a cut left of `replace`; `last` is the file that is written last. */
  mend(name: string, inner: string, last: string): Promise<void>;
  /** For whoever changes backups that are there: one at a time over all processes, also while one is taken. Fault: `state-locked`. */
  alone<T>(work: () => Promise<T>): Promise<T>;
  /** One at a time over all processes. Faults: `state-locked`, `conflict`. */
  begin(name: string, innerFolders: readonly string[]): Promise<BackupDraft>;
}

function writeNew(path: string, bytes: Uint8Array | string): Promise<void> {
  return guarded(`write ${path}`, async () => {
    await writeFile(path, bytes, { mode: 0o600, flag: 'wx' });
    await syncPath(path);
  });
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Removes a folder after writing over its files, but for what others share: what was deleted is not to be found on the disk. */
async function shred(folder: string): Promise<void> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  for (const entry of entries.filter((one) => one.isFile())) {
    const file = await open(join(folder, entry.name), 'r+');
    try {
      const { size, nlink } = await file.stat();
      const zeros = Buffer.alloc(Math.min(size, 1024 * 1024));
      for (let at = 0; nlink === 1 && at < size; at += zeros.length)
        await file.write(zeros, 0, Math.min(zeros.length, size - at), at);
      await file.sync();
    } finally {
      await file.close();
    }
  }
  await rm(folder, { recursive: true, force: true });
}

export function openBackupFolder(path: string): BackupFolder {
  const folder = resolve(path);
  const placesOf = (name: string, inner: string) => ({
    now: join(folder, name, inner),
    next: join(folder, name, `.${inner}.next`),
    before: join(folder, name, `.${inner}.before`),
  });

  async function readAt(path: string): Promise<Uint8Array | null> {
    try {
      return new Uint8Array(await readFile(path));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return null;
      throw diskFault(error, `read ${path}`);
    }
  }

  async function list(): Promise<string[]> {
    const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return [];
      throw diskFault(error, `list ${folder}`);
    });
    return entries
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
      .map((entry) => entry.name)
      .sort();
  }

  return {
    folder,
    list,
    read: (name, inner) => readAt(join(folder, name, inner)),
    path: (name, inner) => join(folder, name, inner),
    remove: (name, inner) =>
      guarded(`remove ${inner} of ${name}`, async () => {
        const { now, next, before } = placesOf(name, inner);
        let there = false;
        for (const one of [next, before, now]) {
          there = (await exists(one)) || there;
          await shred(one);
        }
        if (there) await syncPath(join(folder, name));
        return there;
      }),
    replace: (name, inner, fill) =>
      guarded(`replace ${inner} of ${name}`, async () => {
        const { now, next, before } = placesOf(name, inner);
        await shred(next);
        await mkdir(next, { mode: 0o700 });
        await fill({
          path: (file) => join(next, file),
          write: (file, bytes) => writeNew(join(next, file), bytes),
        });
        await syncPath(next);
        await rename(now, before);
        await rename(next, now);
        await syncPath(join(folder, name));
        await shred(before);
        await syncPath(join(folder, name));
      }),
    mend: (name, inner, last) =>
      guarded(`mend ${inner} of ${name}`, async () => {
        const { now, next, before } = placesOf(name, inner);
        // The old one was moved away and the new one, which is whole, not yet to its place.
        if (!(await exists(now)) && (await exists(before)))
          await rename((await exists(join(next, last))) ? next : before, now);
        for (const left of [next, before]) await shred(left);
      }),
    async alone(work) {
      const lock = await lockFolder(join(folder, '.changing'));
      try {
        return await work();
      } finally {
        await lock.release();
      }
    },
    async begin(name, innerFolders) {
      makeFolders(folder, 0o700);
      // Beside the backups, not among them.
      const lock = await lockFolder(join(folder, '.lock'));
      const made = join(folder, `.${name}${partial}`);
      const at = (inner: string): string => join(made, inner);
      let earlier: string[] = [];
      let open = true;
      const end = async (): Promise<void> => {
        if (!open) return;
        open = false;
        await rm(made, { recursive: true, force: true });
        await lock.release();
      };
      try {
        // What an end in between left: nobody else is at work here.
        for (const left of await readdir(folder))
          if (left.startsWith('.') && left.endsWith(partial))
            await rm(join(folder, left), { recursive: true, force: true });
        earlier = (await list()).reverse();
        for (const one of ['.', ...innerFolders]) await mkdir(at(one), { recursive: true, mode: 0o700 });
      } catch (error) {
        await end();
        throw diskFault(error, `begin a backup in ${folder}`);
      }
      return {
        path: at,
        write: (inner, bytes) => writeNew(at(inner), bytes),
        read: (inner) => readAt(at(inner)),
        remove: (inner) => guarded(`remove ${inner}`, () => rm(at(inner), { force: true })),
        take: (inner, from) =>
          guarded(`take ${from}`, async () => {
            const origin = await stat(from);
            const isHere = origin.dev === (await stat(made)).dev;
            // On another disk a backup before this one may have made the copy already.
            for (const one of isHere ? [] : earlier) {
              const source = join(folder, one, inner);
              const there = await stat(source).catch(() => null);
              if (there?.size !== origin.size) continue;
              await linkOrCopy(source, at(inner));
              return;
            }
            await linkOrCopy(from, at(inner));
          }),
        finish: () =>
          guarded(`finish ${name}`, async () => {
            for (const one of innerFolders) await syncPath(at(one));
            await syncPath(made);
            await rename(made, join(folder, name));
            await syncPath(dirname(join(folder, name)));
            open = false;
            await lock.release();
            return join(folder, name);
          }),
        end,
      };
    },
  };
}
