// Why: the binary frame that carries one piece of a file on `d/<device>/bytes`.
// Trusts: nothing; a frame is checked before any of it is used. Must never: allocate by a length it read.
//
// Layout, big endian: u8 format (1) · u8 status · u16 zero · u32 requestId · u64 offset · u64 total · payload.
// One request is answered by frames of growing offset; a status other than `data` ends it without payload.

import { ok, type Result, refuse } from '../kernel/result.ts';

export const frameHeaderBytes = 24;
const frameFormat = 1;

export const frameStatuses = ['data', 'not-found', 'denied', 'busy', 'invalid', 'failed'] as const;
export type FrameStatus = (typeof frameStatuses)[number];

export interface BulkFrame {
  status: FrameStatus;
  requestId: number;
  /** Offset of the payload's first byte in the file. */
  offset: number;
  /** Whole size of the file in bytes; 0 unless `data`. */
  totalBytes: number;
  payload: Uint8Array;
}

/** All of a frame but its payload, which follows it. */
export function encodeFrameHead(frame: Omit<BulkFrame, 'payload'>): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes);
  writeHead(bytes, frame);
  return bytes;
}

export function encodeFrame(frame: BulkFrame): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes + frame.payload.length);
  writeHead(bytes, frame);
  bytes.set(frame.payload, frameHeaderBytes);
  return bytes;
}

function writeHead(bytes: Uint8Array, frame: Omit<BulkFrame, 'payload'>): void {
  const view = new DataView(bytes.buffer);
  view.setUint8(0, frameFormat);
  view.setUint8(1, frameStatuses.indexOf(frame.status));
  view.setUint32(4, frame.requestId);
  view.setBigUint64(8, BigInt(frame.offset));
  view.setBigUint64(16, BigInt(frame.totalBytes));
}

/** Refusal: `message-malformed`. The payload is a view into `bytes`, not a copy. */
export function decodeFrame(bytes: Uint8Array): Result<BulkFrame> {
  if (bytes.length < frameHeaderBytes)
    return refuse('message-malformed', 'bulk frame shorter than its header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint8(0) !== frameFormat) return refuse('message-malformed', 'bulk frame of an unknown format');
  const status = frameStatuses[view.getUint8(1)];
  if (status === undefined) return refuse('message-malformed', 'bulk frame with an unknown status');
  const offset = Number(view.getBigUint64(8));
  const totalBytes = Number(view.getBigUint64(16));
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(totalBytes)) {
    return refuse('message-malformed', 'bulk frame with an offset beyond 2^53');
  }
  const payload = bytes.subarray(frameHeaderBytes);
  if (offset + payload.length > totalBytes) return refuse('message-malformed', 'bulk frame beyond its file');
  return ok({ status, requestId: view.getUint32(4), offset, totalBytes, payload });
}
