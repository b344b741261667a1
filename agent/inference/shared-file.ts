// Why: large tensors at the speed of memory: one file without a name in memory (tmpfs), open in the agent and in
// its child. The socket carries where they stand (pipe.ts). Trusts: nothing that the other end says of an offset.
// Must never: have a name that a crash could leave behind, map the file (the other end may cut it), or hold more
// than a fixed size.
//
// The file is cut into areas, one for each request under way: a window for its inputs, then one for its outputs.
// Only the pages that were written take memory.

import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { malformed, type PutBytes, type TakeBytes } from './pipe.ts';

/** Inputs, or outputs, of one request; what does not fit goes through the socket. */
export const windowBytes = 16 * 1024 * 1024;
const areasMax = 2;
/** Pages kept for the next request; taking them anew costs as much as writing them. */
const keptBytesMax = 8 * 1024 * 1024;
const folderDefault = '/dev/shm';
/** `f_type` of statfs(2). */
const tmpfsMagic = 0x01021994;
/** Of open(2): a file that never had a name. Not among Node's constants. */
const temporaryFile = 0o20000000;

export interface Area {
  index: number;
  inputs: PutBytes;
  outputs: TakeBytes;
}

export interface SharedFile {
  descriptor: number;
  /** Null while all areas are taken. */
  acquire(): Area | null;
  /** What stood there may be overwritten from now on. */
  release(area: Area): void;
  /** Idempotent. */
  close(): void;
}

function isSystemError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && 'code' in error && 'syscall' in error;
}

/** Null where there is no such folder in memory: then everything goes through the socket. */
export function openSharedFile(folder: string | null = folderDefault): SharedFile | null {
  if (folder === null || process.platform !== 'linux') return null;
  let descriptor: number;
  try {
    if (statfsSync(folder).type !== tmpfsMagic) return null;
    descriptor = openSync(folder, temporaryFile | constants.O_DIRECTORY | constants.O_RDWR, 0o600);
  } catch (error) {
    // Not there, not ours to write, too old a kernel, no descriptor left: none of them is worth a failure.
    if (isSystemError(error)) return null;
    throw error;
  }
  const taken = new Set<number>();
  let touched = false;
  let closed = false;
  const touch = (): void => {
    touched = true;
  };
  return {
    descriptor,
    acquire: () => {
      if (closed) return null;
      for (let index = 0; index < areasMax; index++) {
        if (taken.has(index)) continue;
        taken.add(index);
        return {
          index,
          inputs: putInto(descriptor, inputsStart(index), touch),
          outputs: takeFrom(descriptor, outputsStart(index), (_offset, bytes) => {
            touch();
            return Buffer.allocUnsafeSlow(bytes);
          }),
        };
      }
      return null;
    },
    release: ({ index }) => {
      taken.delete(index);
      if (closed || !touched || taken.size > 0) return;
      touched = false;
      // Asked of the system and not counted here, so that it also holds for what a child wrote unasked.
      if (fstatSync(descriptor).blocks * 512 > keptBytesMax) ftruncateSync(descriptor, 0);
    },
    close: () => {
      if (closed) return;
      closed = true;
      closeSync(descriptor);
    },
  };
}

const inputsStart = (area: number): number => area * 2 * windowBytes;
const outputsStart = (area: number): number => inputsStart(area) + windowBytes;

/** The child's end of one area. `local` is memory for inputs at their offset in the window. */
export function openArea(
  descriptor: number,
  area: unknown,
  local: (offset: number, bytes: number) => Uint8Array,
): { inputs: TakeBytes; outputs: PutBytes } | null {
  if (typeof area !== 'number') return null;
  return {
    inputs: takeFrom(descriptor, inputsStart(area), local),
    outputs: putInto(descriptor, outputsStart(area), () => undefined),
  };
}

function putInto(descriptor: number, start: number, touch: () => void): PutBytes {
  let end = start;
  return (bytes) => {
    if (bytes.length > start + windowBytes - end) return null;
    touch();
    const at = end;
    try {
      for (let done = 0; done < bytes.length; )
        done += writeSync(descriptor, bytes, done, bytes.length - done, at + done);
    } catch (error) {
      // The folder is full, often at 64 MiB in a container: the socket carries it.
      if (isSystemError(error)) return null;
      throw error;
    }
    end = Math.ceil((at + bytes.length) / 8) * 8;
    return at;
  };
}

function takeFrom(
  descriptor: number,
  start: number,
  allocate: (offset: number, bytes: number) => Uint8Array,
): TakeBytes {
  let end = start;
  return (at, bytes) => {
    // One behind the other, so that a short header cannot make us read more than one window.
    if (!Number.isSafeInteger(at) || at < end || bytes > start + windowBytes - at)
      throw malformed('a tensor beyond its window');
    const target = allocate(at - start, bytes);
    for (let done = 0; done < bytes; ) {
      const count = readSync(descriptor, target, done, bytes - done, at + done);
      if (count === 0) throw malformed('a tensor beyond the end of the file');
      done += count;
    }
    end = at + bytes;
    return target;
  };
}
