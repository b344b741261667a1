// Why: external data must stand beside its model under the path that the model names, while files of releases are kept
// under their digests: a folder of hard links for as long as the runtime opens them.
// Trusts: paths that the caller's schemas keep inside a release. Must never: leave a folder behind, or remove one that
// a living process uses.

import { copyFileSync, linkSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';

export interface LinkedFile {
  /** Absolute path of the verified file. */
  from: string;
  /** Path inside the release. */
  path: string;
}

/** A model with files beside it, and where their folder may be made. */
export interface LinkedModel {
  workFolder: string;
  /** Path inside the release. */
  modelPath: string;
  files: LinkedFile[];
}

function linkFiles(folder: string, files: readonly LinkedFile[]): void {
  for (const { from, path } of files) {
    const to = join(folder, path);
    mkdirSync(dirname(to), { recursive: true, mode: 0o700 });
    try {
      linkSync(from, to);
    } catch (error) {
      const errno = error instanceof Error && 'code' in error ? error.code : undefined;
      // File systems without hard links, or a work folder on another one.
      if (errno !== 'EXDEV' && errno !== 'EPERM' && errno !== 'ENOTSUP' && errno !== 'EMLINK') throw error;
      copyFileSync(from, to);
    }
  }
}

/** Removes what processes left behind that died while they loaded. */
function sweep(workFolder: string): void {
  mkdirSync(workFolder, { recursive: true, mode: 0o700 });
  for (const name of readdirSync(workFolder)) {
    const pid = Number(name);
    if (Number.isSafeInteger(pid) && pid !== process.pid && isAlive(pid)) continue;
    rmSync(join(workFolder, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // ESRCH is the answer "no"; EPERM means that it lives under another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/**
 * Opens the model where its files are: `modelPath` itself, or the same among links to the others. The links are gone
 * afterwards; the runtime has the files open or in memory.
 */
export async function withLinks<T>(
  modelPath: string,
  linked: LinkedModel | null,
  open: (path: string) => Promise<T>,
): Promise<T> {
  if (linked === null) return open(modelPath);
  const folder = join(linked.workFolder, String(process.pid));
  try {
    sweep(linked.workFolder);
    linkFiles(folder, linked.files);
    return await open(join(folder, linked.modelPath));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
