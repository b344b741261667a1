// Why: large tensors at the speed of memory: one file without a name in memory (tmpfs), open in the agent and in
// its child. The socket carries where they stand (pipe.ts). Trusts: nothing that the other end says of an offset.
// Must never: have a name that a crash could leave behind, map the file (the other end may cut it), or hold more
// than a fixed size.
//
// The file is cut into areas, one for each request under way: a window for its inputs, then one for its outputs.
// Only the pages that were written take memory. What is larger than a part is read by one end while the other still
// writes, which hides most of the copying and the time in which a process wakes up.

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
import { malformed, type PartNotice, type PutBytes, type TakeBytes } from './pipe.ts';

/** Inputs, or outputs, of one request; what does not fit goes through the socket. */
export const windowBytes = 16 * 1024 * 1024;
const areasMax = 2;
/** Between two notices: less would cost more in the socket than it hides. */
export const partBytes = 512 * 1024;
/** Pages kept for the next request; taking them anew costs as much as writing them. */
const keptBytesMax = 8 * 1024 * 1024;
const folderDefault = '/dev/shm';
/** `f_type` of statfs(2). */
const tmpfsMagic = 0x01021994;
/** Of open(2): a file that never had a name. Not among Node's constants. */
const temporaryFile = 0o20000000;

/** What the other end writes into a window. Throws FleetError `internal` where that cannot stand there. */
export interface Incoming {
  /** Reads what is there of a tensor that still comes. */
  begin(part: PartNotice): void;
  /** The whole tensor. */
  take: TakeBytes;
}

/** Bytes that still come into memory of their own, on their way into a window. */
export interface Ahead {
  /** So many of them are there: whole parts are written and told of. */
  ready(bytes: number, tell: (part: PartNotice) => void): void;
}

/** This end's side of a window that the other reads. */
export interface Outgoing {
  put: PutBytes;
  /**
   * Begins with the first thing that will be put while it still comes; put, as the very same memory, it is only
   * finished. Null where it has no room.
   */
  begin(whole: Uint8Array): Ahead | null;
}

export interface Area {
  index: number;
  inputs: Outgoing;
  outputs: Incoming;
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
): { inputs: Incoming; outputs: Outgoing } | null {
  if (typeof area !== 'number') return null;
  return {
    inputs: takeFrom(descriptor, inputsStart(area), local),
    outputs: putInto(descriptor, outputsStart(area), () => undefined),
  };
}

function putInto(descriptor: number, start: number, touch: () => void): Outgoing {
  let end = start;
  let ahead: { whole: Uint8Array; at: number; done: number } | null = null;

  /** Writes up to `ready`, a part at a time; how far it came. Throws what the system throws. */
  const write = (
    { whole, at, done }: { whole: Uint8Array; at: number; done: number },
    ready: number,
    tell: (part: PartNotice) => void,
  ): number => {
    let written = done;
    while (written < ready) {
      const next = Math.min(ready, written + partBytes);
      while (written < next) written += writeSync(descriptor, whole, written, next - written, at + written);
      if (next < whole.length) tell({ kind: 'part', at, bytes: whole.length, ready: next });
    }
    return written;
  };
  const hasRoom = (bytes: number): boolean => bytes <= start + windowBytes - end;
  const fail = (error: unknown): null => {
    if (!isSystemError(error)) throw error;
    // The folder is full, often at 64 MiB in a container: the socket carries this one and what follows.
    end = start + windowBytes;
    ahead = null;
    return null;
  };
  return {
    begin: (whole) => {
      if (end > start || !hasRoom(whole.length)) return null;
      ahead = { whole, at: end, done: 0 };
      end = Math.ceil((end + whole.length) / 8) * 8;
      return {
        ready: (bytes, tell) => {
          if (ahead === null) return;
          const parts = bytes - ((bytes - ahead.done) % partBytes);
          // The last bytes wait for whoever asks: then they are there, and need no word of their own.
          if (parts <= ahead.done || parts >= whole.length) return;
          touch();
          try {
            ahead.done = write(ahead, parts, tell);
          } catch (error) {
            fail(error);
          }
        },
      };
    },
    put: (bytes, tell) => {
      const begun = ahead;
      ahead = null;
      const known = begun !== null && isSameMemory(begun.whole, bytes);
      if (!known && !hasRoom(bytes.length)) return null;
      touch();
      const one = known ? begun : { whole: bytes, at: end, done: 0 };
      try {
        write(one, bytes.length, tell);
      } catch (error) {
        return fail(error);
      }
      if (!known) end = Math.ceil((end + bytes.length) / 8) * 8;
      return one.at;
    },
  };
}

function isSameMemory(one: Uint8Array, other: Uint8Array): boolean {
  return one.buffer === other.buffer && one.byteOffset === other.byteOffset && one.length === other.length;
}

function takeFrom(
  descriptor: number,
  start: number,
  allocate: (offset: number, bytes: number) => Uint8Array,
): Incoming {
  let takenEnd = start;
  let begunEnd = start;
  /** In the order of their places, not taken yet. */
  const begun: { at: number; target: Uint8Array; filled: number }[] = [];

  // One behind the other, so that short headers cannot make us read a window more than twice.
  const check = (at: number, bytes: number, end: number): void => {
    if (!Number.isSafeInteger(at) || at < end || !(bytes >= 0 && bytes <= start + windowBytes - at))
      throw malformed('a tensor beyond its window');
  };
  const fill = (tensor: { at: number; target: Uint8Array; filled: number }, ready: number): void => {
    while (tensor.filled < ready) {
      const { at, target, filled } = tensor;
      const count = readSync(descriptor, target, filled, ready - filled, at + filled);
      if (count === 0) throw malformed('a tensor beyond the end of the file');
      tensor.filled += count;
    }
  };
  return {
    begin: ({ at, bytes, ready }) => {
      let last = begun.at(-1);
      if (last?.at !== at || last.target.length !== bytes) {
        check(at, bytes, begunEnd);
        last = { at, target: allocate(at - start, bytes), filled: 0 };
        begun.push(last);
        begunEnd = at + bytes;
      }
      if (!(ready >= last.filled + partBytes && ready < bytes)) throw malformed('a part of no use');
      fill(last, ready);
    },
    take: (at, bytes) => {
      check(at, bytes, takenEnd);
      takenEnd = at + bytes;
      const [first] = begun;
      const known = first?.at === at && first.target.length === bytes ? begun.shift() : undefined;
      const tensor = known ?? { at, target: allocate(at - start, bytes), filled: 0 };
      fill(tensor, bytes);
      return tensor.target;
    },
  };
}
