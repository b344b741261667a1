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
const pageBytes = 4_096;
/**
 * Where a tensor begins in its page. Some processors (AMD's Zen 3) copy at a sixth of their speed where the target lies
 * 1 to 31 bytes behind the source, counted modulo a page; memory of this size begins 16 bytes behind the start of one.
 */
const placeInPage = 64;
/** Between two notices: less would cost more in the socket than it hides. */
export const partBytes = 512 * 1024;
/** Pages kept for the next request; taking them anew costs as much as writing them. */
const keptBytesMax = 8 * 1024 * 1024;
/** Of one answer, in memory that waits for it; new pages take longer than what is copied there. */
const preparedBytesMax = 4 * 1024 * 1024;
/** A child may answer with any number of outputs; what is remembered of them is bounded. */
const outputsPreparedMax = 16;
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

/** What a child answers. */
export interface IncomingAnswer extends Incoming {
  /** While the child works: takes memory for outputs as large as those of the last two answers. */
  prepare(): void;
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
  outputs: IncomingAnswer;
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
  /** Made once, and set back for each request. */
  const areas: (Area & { taken: boolean; reset(): void })[] = [];
  const usual: UsualSizes = [];
  let touched = false;
  let closed = false;
  const touch = (): void => {
    touched = true;
  };
  const openHere = (index: number): (typeof areas)[number] => {
    const inputs = putInto(descriptor, inputsStart(index), touch);
    const outputs = answerFrom(descriptor, outputsStart(index), usual, touch);
    const reset = (): void => {
      inputs.reset();
      outputs.reset();
    };
    return { index, inputs, outputs, taken: false, reset };
  };
  return {
    descriptor,
    acquire: () => {
      if (closed) return null;
      for (let index = 0; index < areasMax; index++) {
        areas[index] ??= openHere(index);
        const area = areas[index];
        if (area === undefined || area.taken) continue;
        area.taken = true;
        area.reset();
        return area;
      }
      return null;
    },
    release: ({ index }) => {
      const area = areas[index];
      if (area !== undefined) area.taken = false;
      if (closed || !touched || areas.some(({ taken }) => taken)) return;
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

const strideBytes = windowBytes + pageBytes;
const inputsStart = (area: number): number => area * 2 * strideBytes + placeInPage;
export const outputsStart = (area: number): number => inputsStart(area) + strideBytes;

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

/** For the next request. */
interface Reset {
  reset(): void;
}

/** The size of each output when it came last, and whether it was the same the time before. */
type UsualSizes = { bytes: number; again: boolean }[];

function answerFrom(
  descriptor: number,
  start: number,
  usual: UsualSizes,
  touch: () => void,
): IncomingAnswer & Reset {
  const prepared: Buffer[] = [];
  let taken = 0;
  const incoming = takeFrom(descriptor, start, (_offset, bytes) => {
    touch();
    if (taken < outputsPreparedMax) usual[taken] = { bytes, again: usual[taken]?.bytes === bytes };
    taken += 1;
    const ready = prepared.shift();
    return ready?.length === bytes ? ready : Buffer.allocUnsafeSlow(bytes);
  });
  return {
    ...incoming,
    reset: () => {
      incoming.reset();
      // Prepared for an answer that never came, or had less to it.
      prepared.length = 0;
      taken = 0;
    },
    prepare: () => {
      let room = preparedBytesMax;
      for (const { bytes, again } of usual) {
        room -= bytes;
        if (!again || room < 0) return;
        const fresh = Buffer.allocUnsafeSlow(bytes);
        for (let at = 0; at < bytes; at += pageBytes) fresh[at] = 0;
        prepared.push(fresh);
      }
    },
  };
}

function putInto(descriptor: number, start: number, touch: () => void): Outgoing & Reset {
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
  const placeAfter = (used: number): number => start + Math.ceil((used - start) / pageBytes) * pageBytes;
  const hasRoom = (bytes: number): boolean => bytes <= start + windowBytes - end;
  const fail = (error: unknown): null => {
    if (!isSystemError(error)) throw error;
    // The folder is full, often at 64 MiB in a container: the socket carries this one and what follows.
    end = start + windowBytes;
    ahead = null;
    return null;
  };
  return {
    reset: () => {
      end = start;
      ahead = null;
    },
    begin: (whole) => {
      if (end > start || !hasRoom(whole.length)) return null;
      ahead = { whole, at: end, done: 0 };
      end = placeAfter(end + whole.length);
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
      if (!known) end = placeAfter(end + bytes.length);
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
): Incoming & Reset {
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
    reset: () => {
      takenEnd = start;
      begunEnd = start;
      begun.length = 0;
    },
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
