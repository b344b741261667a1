// Why: durable plain files behind the Disk port: real fsync of files and of the folders that name them.
// Trusts: the operating system to keep what it has synced. Must never: leave its root folder, nor make
// a file that other users can read.

import {
  type FileHandle,
  open,
  readdir,
  readFile,
  rename,
  stat,
  statfs,
  truncate,
  unlink,
} from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { invariant } from '../kernel/errors.ts';
import type { Disk } from '../kernel/ports.ts';
import { diskFault, errnoOf } from './disk-fault.ts';
import { makeFolders } from './folders.ts';

const fileMode = 0o600;
const folderMode = 0o700;

async function guarded<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskFault(error, doing);
  }
}

/** Like `guarded`, with `absent` where there is no such file or folder. */
async function orAbsent<T, A>(doing: string, absent: A, work: () => Promise<T>): Promise<T | A> {
  try {
    return await work();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return absent;
    throw diskFault(error, doing);
  }
}

async function using<T>(path: string, flags: string, work: (file: FileHandle) => Promise<T>): Promise<T> {
  const file = await open(path, flags, fileMode);
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

async function syncFolder(path: string): Promise<void> {
  // Windows has no way to sync a folder; NTFS journals names by itself.
  if (process.platform === 'win32') return;
  await using(path, 'r', (folder) => folder.sync());
}

/** Makes a folder and those above it. The name of each new one is durable when this resolves. */
async function makeFolder(path: string): Promise<void> {
  for (const folder of makeFolders(path, folderMode).reverse()) await syncFolder(dirname(folder));
}

/**
 * Opens a folder as a Disk; makes it (0700) where it is missing. Files are made 0600.
 * Faults: `disk-full`, `disk-io`. `append` makes a missing file; `rename` replaces its target.
 */
export function openDisk(root: string): Disk {
  const base = resolve(root);
  makeFolders(base, folderMode);
  const at = (path: string): string => {
    const legal =
      path === '.' || path.split('/').every((part) => part !== '' && part !== '.' && part !== '..');
    invariant(legal && !path.includes('\0') && !path.includes('\\'), `path leaves its disk: ${path}`);
    return join(base, path);
  };
  return {
    read: (path) => orAbsent(`read ${path}`, null, async () => new Uint8Array(await readFile(at(path)))),

    readRange: (path, offset, length) =>
      orAbsent(`read ${path}`, null, () =>
        using(at(path), 'r', async (file) => {
          // Bounded by what is there, so that a huge length costs nothing.
          const left = Math.max(0, (await file.stat()).size - offset);
          const bytes = new Uint8Array(Math.min(length, left));
          let done = 0;
          while (done < bytes.length) {
            const { bytesRead } = await file.read(bytes, done, bytes.length - done, offset + done);
            if (bytesRead === 0) break;
            done += bytesRead;
          }
          return bytes.subarray(0, done);
        }),
      ),

    size: (path) =>
      orAbsent(`size of ${path}`, null, async () => {
        const found = await stat(at(path));
        return found.isFile() ? found.size : null;
      }),

    create: (path) =>
      guarded(`create ${path}`, async () => {
        await makeFolder(dirname(at(path)));
        await using(at(path), 'w', async () => undefined);
      }),

    append: (path, bytes) =>
      guarded(`append to ${path}`, () => using(at(path), 'a', (file) => file.appendFile(bytes))),

    truncate: (path, bytes) => guarded(`truncate ${path}`, () => truncate(at(path), bytes)),

    fsync: (path) => guarded(`fsync ${path}`, () => using(at(path), 'r+', (file) => file.sync())),

    rename: (from, to) =>
      guarded(`rename ${from} to ${to}`, async () => {
        await makeFolder(dirname(at(to)));
        await rename(at(from), at(to));
      }),

    unlink: (path) => orAbsent(`unlink ${path}`, undefined, () => unlink(at(path))),

    fsyncDir: (path) => guarded(`fsync folder ${path}`, () => syncFolder(at(path))),

    list: (path) => orAbsent(`list ${path}`, [], async () => (await readdir(at(path))).sort()),

    freeBytes: () =>
      guarded('free space', async () => {
        const { bavail, bsize } = await statfs(base);
        return bavail * bsize;
      }),
  };
}
