// Why: the frames between the agent and an inference child, one code for both ends: JSON where it is
// small, raw numbers where it is large, aligned so that neither end copies them.
// Trusts: nothing; lengths are bounded before memory is taken. Must never: import zod or a tensor codec,
// the child loads this file and every megabyte counts there.
//
// Layout, little-endian: prefix (u32 length of what follows it · u32 header length · u32 id · u32 area of the shared
// file plus one, or 0 · f64 milliseconds of a run, or 0) · header (JSON, padded with spaces to 8) · each tensor's bytes
// in the header's order, padded to 8. Strings stand in the header. What differs from one request to the next of its
// kind stands in the prefix: their headers are the same bytes then, and neither end writes or parses them again.
// A large tensor may stand in the file that both ends have open (shared-file.ts): then its head says where, and
// frames before its own say how much of it stands there already: both ends copy at the same time.

import type { LinkedModel } from '../../shared/host/linked-folder.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { MemoryBound } from '../../shared/onnx/memory-bounds.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';

export const prefixBytes = 24;
/** One frame. Twice the largest HTTP body as numbers would still fit; a child cannot make us take more. */
export const frameBytesMax = 512 * 1024 * 1024;

export type ChildRequest =
  | {
      kind: 'admit';
      modelPath: string;
      excludeOutputs: string[];
      /** External data files, relative to the model's folder. */
      externalFiles: { path: string; bytes: number }[];
      memoryBounds: MemoryBound[];
    }
  | {
      kind: 'load';
      modelPath: string;
      /** With external data: where its folder may be made, and the files that stand in it. */
      external: LinkedModel | null;
      threads: number;
      providers: string[];
    }
  | { kind: 'run'; outputs: string[] }
  | { kind: 'memory' }
  /** Which execution providers this build of the runtime has. */
  | { kind: 'providers' }
  /** Whether one of them runs a model here. */
  | { kind: 'provider'; name: string };

/** Before a request or an answer of the same id, without an answer itself: part of a tensor is in the shared file. */
export interface PartNotice {
  kind: 'part';
  /** Offset of the whole tensor in the shared file, and its length. */
  at: number;
  bytes: number;
  /** So many of its bytes can be read. */
  ready: number;
}

/** Bytes; `peakBytes` is the high-water mark of resident memory. */
export interface ChildMemory {
  rssBytes: number;
  peakBytes: number;
}

export type ChildReply =
  | { kind: 'refused'; code: string; detail: string }
  | { kind: 'admitted'; inputs: TensorSignature[]; outputs: TensorSignature[]; opset: number }
  /** `skipped`: providers that were asked for and cannot be had here. */
  | { kind: 'loaded'; loadMs: number; provider: string; skipped: { name: string; reason: string }[] }
  /** `runMs` stands in the prefix. */
  | { kind: 'ran'; runMs: number }
  | ({ kind: 'memory' } & ChildMemory)
  | { kind: 'providers'; names: string[] }
  | { kind: 'provider'; usable: boolean };

export interface TensorHead {
  name: string;
  datatype: Datatype;
  shape: number[];
  /** Length of the data; absent for strings. */
  bytes?: number | undefined;
  /** Offset in the shared file; absent where the data stands in the frame. */
  at?: number | undefined;
  strings?: string[] | undefined;
}

/** Parsed once for all frames that repeat it: not to be changed. */
interface Header {
  message: unknown;
  tensors: readonly TensorHead[];
}

export interface Frame extends Header {
  id: number;
  /** With a request: the area of the shared file that belongs to it until it is answered. */
  area: number | undefined;
  /** Of a run, in milliseconds; else 0. */
  runMs: number;
  body: Uint8Array;
}

/**
 * Puts bytes into the shared file, and tells of its parts where they are many. Their offset there, or null where they
 * have no room.
 */
export type PutBytes = (bytes: Uint8Array, tell: (part: PartNotice) => void) => number | null;
/** Where the large tensors of one frame go. */
export interface SharedPlace {
  area?: number;
  put: (bytes: Uint8Array) => number | null;
}
/** Reads them back. Throws FleetError `internal` where they cannot stand there. */
export type TakeBytes = (at: number, bytes: number) => Uint8Array;

/** Smaller tensors cost less in the socket, which is written anyway, than two system calls more. */
const inlineBytesMax = 32 * 1024;
/** Up to here a frame is one piece: copying it is cheaper than handing over several. */
export const singlePieceBytesMax = 64 * 1024;

const padded = (length: number): number => (length + 7) & ~7;
const padding = new Uint8Array(8);

export function rawBytes(data: Exclude<TensorData, string[]>): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

type Message = ChildRequest | ChildReply | PartNotice;

/** What a frame is made of, apart from what differs with each. */
interface Layout {
  header: Uint8Array;
  heads: readonly TensorHead[];
  /** What stands in the frame itself, in order. */
  body: readonly Uint8Array[];
  /** With their padding. */
  bodyBytes: number;
}

function headerOf(message: Message, tensors: readonly TensorHead[]): Uint8Array {
  const json = JSON.stringify({
    message: message.kind === 'ran' ? { kind: 'ran' } : message,
    tensors,
  });
  const jsonBytes = Buffer.byteLength(json);
  const header = Buffer.alloc(padded(jsonBytes), 0x20);
  header.write(json);
  return header;
}

function layOut(message: Message, tensors: readonly Tensor[], shared: SharedPlace | undefined): Layout {
  const heads: TensorHead[] = [];
  const body: Uint8Array[] = [];
  let bodyBytes = 0;
  for (const { name, datatype, shape, data } of tensors) {
    if (Array.isArray(data)) {
      heads.push({ name, datatype, shape, strings: data });
      continue;
    }
    const bytes = rawBytes(data);
    const at = shared !== undefined && bytes.length > inlineBytesMax ? shared.put(bytes) : null;
    if (at !== null) {
      heads.push({ name, datatype, shape, bytes: bytes.length, at });
      continue;
    }
    heads.push({ name, datatype, shape, bytes: bytes.length });
    body.push(bytes);
    bodyBytes += padded(bytes.length);
  }
  return { header: headerOf(message, heads), heads, body, bodyBytes };
}

interface Repeatable extends Layout {
  message: Message;
}

/** Runs and their answers, as far as all that differs between two of them stands outside of the header. */
function mayRepeat(message: Message, { heads, bodyBytes }: Layout): boolean {
  return (
    (message.kind === 'run' || message.kind === 'ran') &&
    bodyBytes <= inlineBytesMax &&
    heads.every(({ strings, at }) => strings === undefined && at === undefined)
  );
}

function sameItems<T>(one: readonly T[], other: readonly T[]): boolean {
  if (one.length !== other.length) return false;
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

/** The layout of such a frame with this header, null where its header is another one. */
function layOutAgain(before: Repeatable, message: Message, tensors: readonly Tensor[]): Layout | null {
  if (message.kind === 'run') {
    if (before.message.kind !== 'run' || !sameItems(before.message.outputs, message.outputs)) return null;
  } else if (message.kind !== 'ran' || before.message.kind !== 'ran') return null;
  const { header, heads, bodyBytes } = before;
  if (heads.length !== tensors.length) return null;
  const body: Uint8Array[] = [];
  for (let index = 0; index < heads.length; index++) {
    const head = heads[index];
    const tensor = tensors[index];
    if (head === undefined || tensor === undefined || Array.isArray(tensor.data)) return null;
    const { name, datatype, shape, data } = tensor;
    if (head.name !== name || head.datatype !== datatype || head.bytes !== data.byteLength) return null;
    if (!sameItems(head.shape, shape)) return null;
    body.push(rawBytes(data));
  }
  return { header, heads, body, bodyBytes };
}

export interface FrameWriter {
  /**
   * The pieces of one frame in order, no more than one from `allocate`. Large tensor data is not copied. Throws
   * FleetError `infer-unsupported` for more than a frame may carry.
   */
  write(
    id: number,
    message: Message,
    tensors: readonly Tensor[],
    shared?: SharedPlace,
    allocate?: (bytes: number) => Buffer,
  ): Uint8Array[];
}

/** Keeps the header of the last small run or answer, for those that repeat it. */
export function createFrameWriter(): FrameWriter {
  let last: Repeatable | null = null;
  return {
    write: (id, message, tensors, shared, allocate = Buffer.allocUnsafe) => {
      let layout = last === null ? null : layOutAgain(last, message, tensors);
      if (layout === null) {
        layout = layOut(message, tensors, shared);
        if (mayRepeat(message, layout)) last = { ...layout, body: [], message };
      }
      const { header, body, bodyBytes } = layout;
      const length = header.length + bodyBytes;
      if (length > frameBytesMax) {
        throw new FleetError(
          'infer-unsupported',
          `tensors of ${bodyBytes} bytes are more than one request may carry`,
        );
      }
      const single = prefixBytes + length <= singlePieceBytesMax;
      const frame = allocate(prefixBytes + (single ? length : header.length));
      frame.writeUInt32LE(length, 0);
      frame.writeUInt32LE(header.length, 4);
      frame.writeUInt32LE(id, 8);
      frame.writeUInt32LE(shared?.area === undefined ? 0 : shared.area + 1, 12);
      frame.writeDoubleLE(message.kind === 'ran' ? message.runMs : 0, 16);
      frame.set(header, prefixBytes);
      if (!single) return [frame, ...body.flatMap(withPadding)];
      let at = prefixBytes + header.length;
      for (const bytes of body) {
        frame.set(bytes, at);
        at += bytes.length;
        while (at % 8 !== 0) frame[at++] = 0;
      }
      return [frame];
    },
  };
}

function withPadding(bytes: Uint8Array): Uint8Array[] {
  const gap = padded(bytes.length % 8) - (bytes.length % 8);
  return [bytes, padding.subarray(0, gap)].filter((piece) => piece.length > 0);
}

export function malformed(what: string): FleetError {
  return new FleetError('internal', `inference pipe: ${what}`);
}

function parseHeader(text: string): Header {
  const header = JSON.parse(text) as Partial<Header> | null;
  if (header === null || typeof header !== 'object') throw malformed('no header');
  if (!Array.isArray(header.tensors)) throw malformed('no tensors');
  const { message, tensors } = header;
  return { message, tensors };
}

/** Larger headers name strings or many tensors, and are hardly the same twice. */
const headerKeptBytesMax = 1_024;

export interface FrameReader {
  /** Takes what was read. The frames that it completes: views of it where they lie in it whole. */
  push(chunk: Buffer): Frame[];
}

/** Throws FleetError `internal` where the other end does not follow the layout. */
export function createFrameReader(bytesMax: number = frameBytesMax): FrameReader {
  const prefix = Buffer.alloc(prefixBytes);
  let prefixFilled = 0;
  let payload: Buffer | null = null;
  let payloadFilled = 0;
  const lastBytes = Buffer.alloc(headerKeptBytesMax);
  let lastLength = 0;
  let last: Header | null = null;

  const lengthIn = (bytes: Buffer, at: number): number => {
    const length = bytes.readUInt32LE(at);
    const headerBytes = bytes.readUInt32LE(at + 4);
    if (length > bytesMax) throw malformed(`a frame of ${length} bytes`);
    if (headerBytes === 0 || headerBytes > length || headerBytes % 8 !== 0) throw malformed('header length');
    return length;
  };

  const headerIn = (bytes: Buffer, at: number, length: number): Header => {
    if (last !== null && lastLength === length && bytes.compare(lastBytes, 0, length, at, at + length) === 0)
      return last;
    const header = parseHeader(bytes.toString('utf8', at, at + length));
    if (length <= headerKeptBytesMax) {
      bytes.copy(lastBytes, 0, at, at + length);
      lastLength = length;
      last = header;
    }
    return header;
  };

  /** `head` has the prefix at `headAt`, `bytes` what follows it at `at`. */
  const decode = (head: Buffer, headAt: number, bytes: Buffer, at: number): Frame => {
    const length = head.readUInt32LE(headAt);
    const headerBytes = head.readUInt32LE(headAt + 4);
    const area = head.readUInt32LE(headAt + 12);
    const { message, tensors } = headerIn(bytes, at, headerBytes);
    return {
      id: head.readUInt32LE(headAt + 8),
      area: area === 0 ? undefined : area - 1,
      runMs: head.readDoubleLE(headAt + 16),
      message,
      tensors,
      body: bytes.subarray(at + headerBytes, at + length),
    };
  };

  return {
    push: (chunk) => {
      const frames: Frame[] = [];
      let at = 0;
      while (at < chunk.length) {
        if (payload === null) {
          const bodyAt = at + prefixBytes;
          if (prefixFilled === 0 && bodyAt <= chunk.length && (chunk.byteOffset + at) % 8 === 0) {
            const length = lengthIn(chunk, at);
            if (bodyAt + length <= chunk.length) {
              frames.push(decode(chunk, at, chunk, bodyAt));
              at = bodyAt + length;
              continue;
            }
          }
          const taken = chunk.copy(prefix, prefixFilled, at);
          prefixFilled += taken;
          at += taken;
          if (prefixFilled < prefixBytes) break;
          payload = Buffer.allocUnsafeSlow(lengthIn(prefix, 0));
          payloadFilled = 0;
        }
        const taken = chunk.copy(payload, payloadFilled, at);
        payloadFilled += taken;
        at += taken;
        if (payloadFilled < payload.length) break;
        frames.push(decode(prefix, 0, payload, 0));
        payload = null;
        prefixFilled = 0;
      }
      return frames;
    },
  };
}

export interface TensorBytes {
  head: TensorHead;
  /** Of the frame or of the shared file; empty for strings. Aligned to 8 where the frame is. */
  bytes: Uint8Array;
}

const nothing = new Uint8Array(0);

/** The data of each tensor. Throws FleetError `internal` where the lengths do not add up. */
export function tensorBytes(frame: Frame, take: TakeBytes | null): TensorBytes[] {
  let offset = 0;
  const cut: TensorBytes[] = [];
  for (const head of frame.tensors) {
    const length = head.bytes ?? 0;
    if (!Number.isSafeInteger(length) || length < 0) throw malformed('a tensor without a length');
    if (head.at !== undefined) {
      if (take === null) throw malformed('a tensor in a file that was not offered');
      cut.push({ head, bytes: take(head.at, length) });
      continue;
    }
    if (offset + length > frame.body.length) throw malformed('tensor beyond its frame');
    cut.push({ head, bytes: length === 0 ? nothing : frame.body.subarray(offset, offset + length) });
    offset += Math.ceil(length / 8) * 8;
  }
  if (offset !== frame.body.length) throw malformed('bytes that belong to no tensor');
  return cut;
}
