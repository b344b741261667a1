// Why: what a patch says of itself: the bases it needs, the file it makes, its sections with lengths and checksums.
// Trusts: nothing. Must never: believe a length that the patch does not have the bytes for, or read another version.

import { ok, type Result, refuse } from '../../kernel/result.ts';
import { ByteReader, ByteWriter, crc32, DeltaFault } from './bytes.ts';

const magic = [0x4c, 0x46, 0x44];
const version = 1;
/** Of the SHA-256 of a base: half of it names it, and small files have small patches. */
const baseDigestBytes = 16;
const targetDigestBytes = 32;
const checksumBytes = 4;
export const basesMax = 64;
const sectionsMax = 100_000;
/** What decoding takes besides what the patch holds: buffers of one unit, zstd's tables, the plan as objects. */
const workingBytes = 16 * 1024 * 1024;
const planFactor = 24;

/** The whole file as one frame over the base, as one frame, or as it is; or tensor by tensor. */
export const forms = ['over-base', 'packed', 'stored', 'tensors'] as const;
export type Form = (typeof forms)[number];

export interface Section {
  bytes: Uint8Array;
  plainBytes: number;
}

export interface DeltaBase {
  /** First 32 hex digits of the file's SHA-256. */
  digestStart: string;
  bytes: number;
}

export interface DeltaHeader {
  /** In the order in which `applyDelta` takes them. */
  bases: DeltaBase[];
  target: { sha256: string; bytes: number };
  /** What applying it takes at most, bases and patch included, without the target where that goes to a sink. */
  memoryBytesMax: number;
}

/** A patch taken apart; the checksums of its sections are not looked at yet. */
export interface OpenPatch {
  header: DeltaHeader;
  form: Form;
  sections: (Section & { checksum: number })[];
}

export function digestStartOf(sha256: string): string {
  return sha256.slice(0, baseDigestBytes * 2);
}

function fromHex(hex: string): Uint8Array {
  return Uint8Array.from({ length: hex.length / 2 }, (_, at) =>
    Number.parseInt(hex.slice(at * 2, at * 2 + 2), 16),
  );
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function writePatch(
  header: Pick<DeltaHeader, 'bases' | 'target'>,
  form: Form,
  sections: readonly Section[],
): Uint8Array {
  const out = new ByteWriter();
  for (const byte of magic) out.byte(byte);
  out.byte(version).byte(forms.indexOf(form)).byte(header.bases.length);
  for (const { digestStart, bytes } of header.bases) out.varint(bytes).bytes(fromHex(digestStart));
  out.varint(header.target.bytes).bytes(fromHex(header.target.sha256));
  if (form === 'tensors') {
    out.varint(sections.length);
    for (const { bytes, plainBytes } of sections)
      out.varint(bytes.length).varint(plainBytes).uint32(crc32(bytes));
    out.uint32(crc32(out.view()));
  }
  for (const { bytes } of sections) out.bytes(bytes);
  // A file in one piece has one checksum over all.
  if (form !== 'tensors') out.uint32(crc32(out.view()));
  return out.view().slice();
}

function openFaulting(patch: Uint8Array): OpenPatch | 'unsupported' {
  const reader = new ByteReader(patch);
  if (magic.some((byte) => reader.byte() !== byte)) throw new DeltaFault('it is no patch');
  if (reader.byte() !== version) return 'unsupported';
  const form = forms[reader.byte()];
  if (form === undefined) return 'unsupported';
  const count = reader.byte();
  if (count > basesMax) throw new DeltaFault('too many bases');
  const bases = Array.from({ length: count }, () => {
    const bytes = reader.varint();
    return { bytes, digestStart: toHex(reader.bytes(baseDigestBytes)) };
  });
  const target = { bytes: reader.varint(), sha256: toHex(reader.bytes(targetDigestBytes)) };
  const sections =
    form === 'tensors' ? readDirectory(patch, reader) : readSingle(patch, reader, target.bytes);
  const given = patch.length + bases.reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    header: { bases, target, memoryBytesMax: given + memoryOf(form, given, target.bytes, sections) },
    form,
    sections,
  };
}

function readSingle(patch: Uint8Array, reader: ByteReader, plainBytes: number): OpenPatch['sections'] {
  const bytes = reader.bytes(Math.max(reader.left - checksumBytes, 0));
  const end = patch.length - checksumBytes;
  if (reader.uint32() !== crc32(patch.subarray(0, end))) throw new DeltaFault('its checksum is wrong');
  return [{ bytes, plainBytes, checksum: crc32(bytes) }];
}

function readDirectory(patch: Uint8Array, reader: ByteReader): OpenPatch['sections'] {
  const count = reader.varint();
  if (count > sectionsMax || count < 2) throw new DeltaFault('too many sections, or too few');
  const rows: { length: number; plainBytes: number; checksum: number }[] = [];
  for (let index = 0; index < count; index++)
    rows.push({ length: reader.varint(), plainBytes: reader.varint(), checksum: reader.uint32() });
  const end = reader.at;
  if (reader.uint32() !== crc32(patch.subarray(0, end))) throw new DeltaFault('its checksum is wrong');
  const sections = rows.map(({ length, ...row }) => ({ ...row, bytes: reader.bytes(length) }));
  reader.end();
  return sections;
}

function memoryOf(form: Form, givenBytes: number, targetBytes: number, sections: readonly Section[]): number {
  if (form !== 'tensors') return targetBytes + workingBytes;
  const [plan, skeleton, ...groups] = sections;
  const group = groups.reduce((most, { plainBytes }) => Math.max(most, plainBytes), 0);
  // A group's streams are joined, so that they stand there twice; base and target have a skeleton each.
  // Tables: a number for 32 bytes, kept in up to three forms of eight.
  const tables = (givenBytes + targetBytes) * (3 / 4);
  return (
    Math.ceil(tables) +
    (plan?.plainBytes ?? 0) * planFactor +
    (skeleton?.plainBytes ?? 0) +
    group * 2 +
    workingBytes
  );
}

/** Takes a patch apart. Refusals: `delta-malformed`, `delta-unsupported`. */
export function openPatch(patch: Uint8Array): Result<OpenPatch> {
  try {
    const open = openFaulting(patch);
    return open === 'unsupported'
      ? refuse('delta-unsupported', 'the patch has a format that this version does not read')
      : ok(open);
  } catch (error) {
    if (error instanceof DeltaFault) return refuse('delta-malformed', `no valid patch: ${error.message}`);
    throw error;
  }
}

/** What a patch needs and makes, cheaply: nothing is decoded. Refusals: `delta-malformed`, `delta-unsupported`. */
export function readDeltaHeader(patch: Uint8Array): Result<DeltaHeader> {
  const open = openPatch(patch);
  return open.ok ? ok(open.value.header) : open;
}
