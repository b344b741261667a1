// Why: the frames between a program and the process it asks a model in, one code for both ends: a message as JSON, and
// tensors as raw bytes behind it.
// Trusts: nothing; lengths are bounded and the tensors checked before they are used.
// Must never: take memory by a length it read, or import the schema library: the process loads this file.
//
// Layout, little-endian: u32 bytes of what follows the prefix · u32 bytes of the header · header (JSON: the message,
// and of each tensor name, datatype, shape and bytes) · each tensor's bytes as `tensorToBytes` writes them.

import { ok, type Result, refuse } from '../kernel/result.ts';
import type { Datatype } from '../wire/manifest.ts';
import { isDatatype, type Tensor, tensorFromBytes, tensorToBytes } from '../wire/tensors.ts';

const prefixBytes = 8;
/** One frame: as much as the agent takes in one. */
export const tensorFrameBytesMax = 512 * 1024 * 1024;

export interface TensorFrame {
  message: unknown;
  tensors: Tensor[];
}

interface TensorHead {
  name: string;
  datatype: Datatype;
  shape: number[];
  bytes: number;
}

/** The pieces of one frame, in order; tensor data is not copied. Refusal: `infer-unsupported` where it is too large. */
export function encodeTensorFrame(message: unknown, tensors: readonly Tensor[]): Result<Uint8Array[]> {
  const body = tensors.map(tensorToBytes);
  const heads = tensors.map(
    ({ name, datatype, shape }, at): TensorHead => ({
      ...{ name, datatype, shape },
      bytes: body[at]?.length ?? 0,
    }),
  );
  const header = Buffer.from(JSON.stringify({ message, tensors: heads }));
  const bytes = body.reduce((sum, one) => sum + one.length, header.length);
  if (bytes > tensorFrameBytesMax)
    return refuse(
      'infer-unsupported',
      `tensors of ${bytes} bytes in one run; at most ${tensorFrameBytesMax} are sent`,
    );
  const prefix = Buffer.alloc(prefixBytes);
  prefix.writeUInt32LE(bytes, 0);
  prefix.writeUInt32LE(header.length, 4);
  return ok([prefix, header, ...body.filter(({ length }) => length > 0)]);
}

export interface TensorFrameReader {
  /** Frames that are complete with this chunk. Refusals: `message-malformed`; `infer-invalid` of a tensor. */
  push(chunk: Buffer): Result<TensorFrame>[];
}

/** What was read of a frame is kept in the pieces in which it came until all of it is there. */
export function createTensorFrameReader(): TensorFrameReader {
  let pieces: Buffer[] = [];
  let held = 0;
  /** Of the frame that is coming, its prefix included; 0 where that is not known yet. */
  let wanted = 0;

  const joined = (): Buffer => {
    const [first] = pieces;
    const all = pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces, held);
    pieces = [all];
    return all;
  };
  return {
    push(chunk) {
      if (chunk.length > 0) pieces.push(chunk);
      held += chunk.length;
      const frames: Result<TensorFrame>[] = [];
      while (held >= Math.max(wanted, prefixBytes)) {
        const bytes = joined();
        wanted = prefixBytes + bytes.readUInt32LE(0);
        if (wanted > prefixBytes + tensorFrameBytesMax)
          return [...frames, refuse('message-malformed', 'a frame larger than any of ours')];
        if (held < wanted) break;
        frames.push(decode(bytes.subarray(prefixBytes, wanted), bytes.readUInt32LE(4)));
        held -= wanted;
        pieces = held === 0 ? [] : [bytes.subarray(wanted)];
        wanted = 0;
      }
      return frames;
    },
  };
}

function headOf(value: unknown): TensorHead | null {
  if (typeof value !== 'object' || value === null) return null;
  const { name, datatype, shape, bytes } = value as Partial<Record<keyof TensorHead, unknown>>;
  if (typeof name !== 'string' || typeof datatype !== 'string' || !isDatatype(datatype)) return null;
  if (!Array.isArray(shape) || !shape.every((size) => Number.isSafeInteger(size))) return null;
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0) return null;
  return { name, datatype, shape: shape as number[], bytes };
}

function decode(payload: Buffer, headerBytes: number): Result<TensorFrame> {
  const malformed = (what: string): Result<never> => refuse('message-malformed', what);
  if (headerBytes > payload.length) return malformed('a header beyond its frame');
  let header: unknown;
  try {
    header = JSON.parse(payload.toString('utf8', 0, headerBytes));
  } catch (error) {
    if (error instanceof SyntaxError) return malformed('a header that is no JSON');
    throw error;
  }
  if (typeof header !== 'object' || header === null) return malformed('a header that is no object');
  const { message, tensors: heads } = header as { message?: unknown; tensors?: unknown };
  if (!Array.isArray(heads)) return malformed('a header without tensors');
  const tensors: Tensor[] = [];
  let at = headerBytes;
  for (const one of heads) {
    const head = headOf(one);
    if (head === null || at + head.bytes > payload.length) return malformed('a tensor beyond its frame');
    const tensor = tensorFromBytes(
      head.name,
      head.datatype,
      head.shape,
      payload.subarray(at, at + head.bytes),
    );
    if (!tensor.ok) return tensor;
    tensors.push(tensor.value);
    at += head.bytes;
  }
  if (at !== payload.length) return malformed('bytes that belong to no tensor');
  return ok({ message, tensors });
}
