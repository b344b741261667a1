// Why: a refresh in one round trip: the device says which metadata it holds, the registry answers with what
// it lacks, in one file. Trusts: nothing; every file inside is verified like one that was fetched by its name.
// Must never: be believed for what it says about versions; it is a parcel, not a statement.
//
// Layout, big endian: u8 format (1) · u8 compression (0 none, 1 raw DEFLATE) · u32 plain bytes · plain
// plain: u32 index length · index (JSON) · the files' bytes one after the other

import { z } from 'zod';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { describeIssues, metadataNamePattern } from './messages.ts';

export const parcelHeaderBytes = 6;
/** All metadata that one device can need: roots, timestamp, snapshot, targets and its namespaces. */
export const parcelPlainBytesMax = 32 * 1024 * 1024;
const parcelFormat = 1;
const filesMax = 1_024;

const indexSchema = z.object({
  files: z
    .array(z.object({ name: z.string().regex(metadataNamePattern), bytes: z.number().int().positive() }))
    .max(filesMax),
  /** Of the device's own files those that are newer than the registry's: it was restored from a backup. */
  behind: z.array(z.enum(['root', 'regionRoot', 'timestamp', 'snapshot', 'targets'])).default([]),
  /** Namespaces of which the device holds a newer file. */
  behindNamespaces: z.array(z.string().max(63)).max(filesMax).default([]),
});
type Index = z.infer<typeof indexSchema>;

export interface Parcel {
  /** By the name under which each would have been fetched: `timestamp.json`, `3.root.json`, `7.acme.json`. */
  files: ReadonlyMap<string, Uint8Array>;
  behind: Index['behind'];
  behindNamespaces: readonly string[];
}

/** The plain bytes of a parcel, before `encodeParcel`. */
export function packParcel(parcel: Parcel): Uint8Array {
  const index: Index = {
    files: [...parcel.files].map(([name, bytes]) => ({ name, bytes: bytes.length })),
    behind: [...parcel.behind],
    behindNamespaces: [...parcel.behindNamespaces],
  };
  const head = new TextEncoder().encode(JSON.stringify(index));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  return new Uint8Array(Buffer.concat([length, head, ...parcel.files.values()]));
}

/** The file as it is sent; `deflated` where that is shorter. */
export function encodeParcel(plain: Uint8Array, deflated: Uint8Array | null): Uint8Array {
  const body = deflated !== null && deflated.length < plain.length ? deflated : plain;
  const header = Buffer.alloc(parcelHeaderBytes);
  header.writeUInt8(parcelFormat, 0);
  header.writeUInt8(body === plain ? 0 : 1, 1);
  header.writeUInt32BE(plain.length, 2);
  return new Uint8Array(Buffer.concat([header, body]));
}

/** How a parcel's body is to be unpacked. Refusals: `message-malformed`, `metadata-too-large`. */
export function readParcelHeader(
  bytes: Uint8Array,
): Result<{ deflated: boolean; plainBytes: number; body: Uint8Array }> {
  if (bytes.length < parcelHeaderBytes || bytes[0] !== parcelFormat) {
    return refuse('message-malformed', 'no parcel of metadata');
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const compression = view.getUint8(1);
  const plainBytes = view.getUint32(2);
  if (compression > 1) return refuse('message-malformed', 'a parcel with an unknown compression');
  if (plainBytes > parcelPlainBytesMax) {
    return refuse(
      'metadata-too-large',
      `a parcel of ${plainBytes} bytes, ${parcelPlainBytesMax} are the limit`,
    );
  }
  const body = bytes.subarray(parcelHeaderBytes);
  if (compression === 0 && body.length !== plainBytes) {
    return refuse('message-malformed', 'a parcel of another length than it says');
  }
  return ok({ deflated: compression === 1, plainBytes, body });
}

/** What is in the plain bytes of a parcel. Refusal: `message-malformed`. The files are views, not copies. */
export function unpackParcel(plain: Uint8Array): Result<Parcel> {
  if (plain.length < 4) return refuse('message-malformed', 'a parcel without an index');
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const headEnd = 4 + view.getUint32(0);
  if (headEnd > plain.length) return refuse('message-malformed', 'the index of a parcel is cut off');
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(plain.subarray(4, headEnd)));
  } catch {
    return refuse('message-malformed', 'the index of a parcel is no JSON');
  }
  const parsed = indexSchema.safeParse(json);
  if (!parsed.success) return refuse('message-malformed', describeIssues(parsed.error));
  const files = new Map<string, Uint8Array>();
  let at = headEnd;
  for (const { name, bytes } of parsed.data.files) {
    if (files.has(name)) return refuse('message-malformed', 'a file twice in a parcel');
    if (at + bytes > plain.length) return refuse('message-malformed', 'a file of a parcel is cut off');
    files.set(name, plain.subarray(at, at + bytes));
    at += bytes;
  }
  if (at !== plain.length) return refuse('message-malformed', 'a parcel with something behind its files');
  const { behind, behindNamespaces } = parsed.data;
  return ok({ files, behind, behindNamespaces });
}
