// Why: the frames between the agent and an inference child, one code for both ends: JSON where it is
// small, raw numbers where it is large, aligned so that neither end copies them.
// Trusts: nothing; lengths are bounded before memory is taken. Must never: import zod or a tensor codec,
// the child loads this file and every megabyte counts there.
//
// Layout, little-endian: u32 length of what follows the prefix · u32 header length · header (JSON, padded
// with spaces to 8) · each tensor's bytes in the header's order, padded to 8. Strings stand in the header.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import type { Tensor, TensorData } from '../../shared/wire/tensors.ts';

export const prefixBytes = 8;
/** One frame. Twice the largest HTTP body as numbers would still fit; a child cannot make us take more. */
export const frameBytesMax = 512 * 1024 * 1024;

export interface LinkedFile {
  /** Absolute path of the verified file. */
  from: string;
  /** Path inside the release. */
  path: string;
}

export type ChildRequest =
  | {
      kind: 'admit';
      modelPath: string;
      excludeOutputs: string[];
      /** External data files, relative to the model's folder. */
      externalFiles: string[];
    }
  | {
      kind: 'load';
      modelPath: string;
      /** With external data: where its folder may be made, and the files that stand in it. */
      external: { workFolder: string; modelPath: string; files: LinkedFile[] } | null;
      threads: number;
      providers: string[];
    }
  | { kind: 'run'; outputs: string[] }
  | { kind: 'memory' };

/** Bytes; `peakBytes` is the high-water mark of resident memory. */
export interface ChildMemory {
  rssBytes: number;
  peakBytes: number;
}

export type ChildReply =
  | { kind: 'refused'; code: string; detail: string }
  | { kind: 'admitted'; inputs: TensorSignature[]; outputs: TensorSignature[]; opset: number }
  | { kind: 'loaded'; loadMs: number }
  | { kind: 'ran'; runMs: number }
  | ({ kind: 'memory' } & ChildMemory);

export interface TensorHead {
  name: string;
  datatype: Datatype;
  shape: number[];
  /** Length in the body; absent for strings. */
  bytes?: number | undefined;
  strings?: string[] | undefined;
}

interface Header {
  id: number;
  message: unknown;
  tensors: TensorHead[];
}

export interface Frame extends Header {
  body: Uint8Array;
}

const padded = (length: number): number => Math.ceil(length / 8) * 8;
const noPadding = new Uint8Array(0);
const padding = new Uint8Array(8);

export function rawBytes(data: Exclude<TensorData, string[]>): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** The pieces of one frame in order. Tensor data is not copied: write it before it changes. */
export function encodePipeFrame(
  id: number,
  message: ChildRequest | ChildReply,
  tensors: Tensor[],
): Uint8Array[] {
  const body: Uint8Array[] = [];
  let bodyBytes = 0;
  const heads = tensors.map(({ name, datatype, shape, data }): TensorHead => {
    if (Array.isArray(data)) return { name, datatype, shape, strings: data };
    const bytes = rawBytes(data);
    const gap = padded(bytes.length) - bytes.length;
    body.push(bytes, gap === 0 ? noPadding : padding.subarray(0, gap));
    bodyBytes += bytes.length + gap;
    return { name, datatype, shape, bytes: bytes.length };
  });
  const header: Header = { id, message, tensors: heads };
  const json = Buffer.from(JSON.stringify(header), 'utf8');
  const headerBytes = padded(json.length);
  if (headerBytes + bodyBytes > frameBytesMax) {
    throw new FleetError(
      'infer-unsupported',
      `tensors of ${bodyBytes} bytes are more than one request may carry`,
    );
  }
  const head = Buffer.alloc(prefixBytes + headerBytes, 0x20);
  head.writeUInt32LE(headerBytes + bodyBytes, 0);
  head.writeUInt32LE(headerBytes, 4);
  json.copy(head, prefixBytes);
  return [head, ...body.filter((piece) => piece.length > 0)];
}

function malformed(what: string): FleetError {
  return new FleetError('internal', `inference pipe: ${what}`);
}

export interface FrameReader {
  /** Where the next bytes must be written; never empty. */
  target(): Uint8Array;
  /** Says that `count` bytes were written there. The frame, once it is complete. */
  advance(count: number): Frame | null;
  /** Whether a frame was begun and not ended. */
  midFrame(): boolean;
}

/** Throws FleetError `internal` where the other end does not follow the layout. */
export function createFrameReader(bytesMax: number = frameBytesMax): FrameReader {
  const prefix = Buffer.alloc(prefixBytes);
  let payload: Buffer | null = null;
  let filled = 0;

  const decode = (bytes: Buffer): Frame => {
    const headerBytes = prefix.readUInt32LE(4);
    const header = JSON.parse(bytes.toString('utf8', 0, headerBytes)) as Partial<Header> | null;
    if (header === null || typeof header !== 'object' || typeof header.id !== 'number')
      throw malformed('no id');
    if (!Array.isArray(header.tensors)) throw malformed('no tensors');
    return {
      id: header.id,
      message: header.message,
      tensors: header.tensors,
      body: bytes.subarray(headerBytes),
    };
  };

  return {
    target: () => (payload ?? prefix).subarray(filled),
    midFrame: () => filled > 0 || payload !== null,
    advance: (count) => {
      filled += count;
      if (payload === null) {
        if (filled < prefixBytes) return null;
        const length = prefix.readUInt32LE(0);
        const headerBytes = prefix.readUInt32LE(4);
        if (length > bytesMax) throw malformed(`a frame of ${length} bytes`);
        if (headerBytes === 0 || headerBytes > length || headerBytes % 8 !== 0)
          throw malformed('header length');
        payload = Buffer.allocUnsafeSlow(length);
        filled = 0;
        return null;
      }
      if (filled < payload.length) return null;
      const frame = decode(payload);
      payload = null;
      filled = 0;
      return frame;
    },
  };
}

export interface TensorBytes {
  head: TensorHead;
  /** A view into the frame, aligned to 8; empty for strings. */
  bytes: Uint8Array;
}

/** Cuts the body at the heads' lengths. Throws FleetError `internal` where they do not add up. */
export function cutBody(frame: Frame): TensorBytes[] {
  let offset = 0;
  const cut = frame.tensors.map((head): TensorBytes => {
    const length = head.bytes ?? 0;
    if (!Number.isSafeInteger(length) || length < 0 || offset + length > frame.body.length) {
      throw malformed('tensor beyond its frame');
    }
    const bytes = frame.body.subarray(offset, offset + length);
    offset += padded(length);
    return { head, bytes };
  });
  if (offset !== frame.body.length) throw malformed('bytes that belong to no tensor');
  return cut;
}
