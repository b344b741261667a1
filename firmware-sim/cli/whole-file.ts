// Why: files that a command writes are there whole or not at all, and none is lost to a name typed twice.
// Trusts: the operating system's rename. Must never: leave its half file behind where it can still act.

import { existsSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { writeOut } from '../../registry/cli/output.ts';
import { diskFault, errnoOf } from '../../shared/host/disk-fault.ts';
import { FleetError } from '../../shared/kernel/errors.ts';

const chunkCharsMin = 65_536;

/** Joins short texts: each write costs as much as thousands of characters. */
function* chunked(texts: Iterable<string>): Iterable<string> {
  let chunk = '';
  for (const text of texts) {
    chunk += text;
    if (chunk.length < chunkCharsMin) continue;
    yield chunk;
    chunk = '';
  }
  if (chunk !== '') yield chunk;
}

/** Ends early, without a fault, where nobody reads on (`… | head`). */
export async function writeStdout(texts: Iterable<string>): Promise<void> {
  for (const chunk of chunked(texts)) if (!(await writeOut(chunk))) return;
}

function refuseExisting(path: string, force: boolean): void {
  if (force || !existsSync(path)) return;
  throw new FleetError('conflict', `${path} is there already`, {
    hint: 'name another file, or give --force to write over it',
  });
}

/**
 * Writes beside the path and renames. Faults: `conflict` where a file is there and `force` is not given,
 * `input-invalid` where its folder is not there, `interrupted` at Ctrl-C, `disk-full`, `disk-io`.
 */
export async function writeWholeFile(path: string, texts: Iterable<string>, force: boolean): Promise<void> {
  refuseExisting(path, force);
  const beside = `${path}.${process.pid}.new`;
  const interrupt = new AbortController();
  const onSignal = (): void => interrupt.abort();
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) process.once(signal, onSignal);
  let file: FileHandle | null = null;
  try {
    file = await open(beside, 'wx', 0o644);
    for (const chunk of chunked(texts)) {
      if (interrupt.signal.aborted) throw new FleetError('interrupted', `${path} was not written`);
      await file.writeFile(chunk);
    }
    await file.sync();
    await file.close();
    refuseExisting(path, force);
    await rename(beside, path);
  } catch (error) {
    await file?.close();
    await rm(beside, { force: true });
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'EISDIR')
      throw new FleetError('input-invalid', `cannot write ${path}: ${errno}`, { cause: error });
    throw diskFault(error, `writing ${path}`);
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
  }
}
