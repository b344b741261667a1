// Why: the frames between the agent and an inference child, one code for both ends: JSON where it is
// small, raw numbers where it is large, aligned so that neither end copies them.
// Trusts: nothing; lengths are bounded before memory is taken. Must never: import zod or a tensor codec,
// the child loads this file and every megabyte counts there.
//
// Layout, little-endian: u32 length of what follows the prefix · u32 header length · header (JSON, padded
// with spaces to 8) · each tensor's bytes in the header's order, padded to 8. Strings stand in the header.
// A large tensor may stand in the file that both ends have open (shared-file.ts): then its head says where, and
// frames before its own say how much of it stands there already: both ends copy at the same time.

import type { LinkedModel } from '../../shared/host/linked-folder.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { MemoryBound } from '../../shared/onnx/memory-bounds.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';

export const prefixBytes = 8;
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

interface Header {
  id: number;
  message: unknown;
  /** With a request: the area of the shared file that belongs to it until it is answered. */
  area?: number | undefined;
  tensors: TensorHead[];
}

export interface Frame extends Header {
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

/** The pieces of one frame in order, no more than one from `allocate`. Large tensor data is not copied. */
export function encodePipeFrame(
  id: number,
  message: ChildRequest | ChildReply | PartNotice,
  tensors: Tensor[],
  shared?: SharedPlace,
  allocate: (bytes: number) => Buffer = Buffer.allocUnsafe,
): Uint8Array[] {
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
    bodyBytes += Math.ceil(bytes.length / 8) * 8;
  }
  const json = JSON.stringify({ id, message, area: shared?.area, tensors: heads });
  const jsonBytes = Buffer.byteLength(json);
  const headerBytes = padded(jsonBytes);
  if (headerBytes + bodyBytes > frameBytesMax) {
    throw new FleetError(
      'infer-unsupported',
      `tensors of ${bodyBytes} bytes are more than one request may carry`,
    );
  }
  const single = prefixBytes + headerBytes + bodyBytes <= singlePieceBytesMax;
  const head = allocate(prefixBytes + headerBytes + (single ? bodyBytes : 0));
  head.writeUInt32LE(headerBytes + bodyBytes, 0);
  head.writeUInt32LE(headerBytes, 4);
  head.write(json, prefixBytes);
  let at = prefixBytes + jsonBytes;
  while (at < prefixBytes + headerBytes) head[at++] = 0x20;
  if (!single) return [head, ...body.flatMap(withPadding)];
  for (const bytes of body) {
    head.set(bytes, at);
    at += bytes.length;
    while (at % 8 !== 0) head[at++] = 0;
  }
  return [head];
}

function withPadding(bytes: Uint8Array): Uint8Array[] {
  const gap = padded(bytes.length % 8) - (bytes.length % 8);
  return [bytes, padding.subarray(0, gap)].filter((piece) => piece.length > 0);
}

export function malformed(what: string): FleetError {
  return new FleetError('internal', `inference pipe: ${what}`);
}

function decode(bytes: Buffer, headerBytes: number): Frame {
  const header = JSON.parse(bytes.toString('utf8', 0, headerBytes)) as Partial<Header> | null;
  if (header === null || typeof header !== 'object' || typeof header.id !== 'number')
    throw malformed('no id');
  if (!Array.isArray(header.tensors)) throw malformed('no tensors');
  const { id, message, area, tensors } = header;
  return { id, message, area, tensors, body: bytes.subarray(headerBytes) };
}

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

  const lengthIn = (bytes: Buffer, at: number): number => {
    const length = bytes.readUInt32LE(at);
    const headerBytes = bytes.readUInt32LE(at + 4);
    if (length > bytesMax) throw malformed(`a frame of ${length} bytes`);
    if (headerBytes === 0 || headerBytes > length || headerBytes % 8 !== 0) throw malformed('header length');
    return length;
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
              frames.push(decode(chunk.subarray(bodyAt, bodyAt + length), chunk.readUInt32LE(at + 4)));
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
        frames.push(decode(payload, prefix.readUInt32LE(4)));
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
