// Why: rebuilds a file from a patch and the bases that a device holds.
// Trusts: nothing in the patch; a base only after its digest. Must never: write anything before the bases are known to
// be the right ones, call a file rebuilt whose digest is another, or take memory or time that the patch's header
// does not tell.

import { sha256Hex, sha256Stream } from '../../crypto/digests.ts';
import { limits as fleetLimits } from '../../kernel/limits.ts';
import type { Zstd } from '../../kernel/ports.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { crc32, DeltaFault } from './bytes.ts';
import { elementBytes, storeElements } from './elements.ts';
import { dictionaryStart, unpackFrame } from './frames.ts';
import { GroupReader } from './group-reader.ts';
import { Guesser, tableBounds } from './guesses.ts';
import { digestStartOf, type OpenPatch, openPatch, type Section } from './header.ts';
import { dictionaryBytesMax, pieceBytesMax, type TargetExtent, unitElements } from './operations.ts';
import { readPlan } from './plan.ts';
import { readSkeleton, skeletonOf } from './skeleton.ts';

export interface DeltaLimits {
  targetBytesMax: number;
  /** Of `DeltaHeader.memoryBytesMax`. */
  memoryBytesMax: number;
}

export interface DeltaToApply {
  patch: Uint8Array;
  /** As the header lists them. */
  bases: readonly Uint8Array[];
  zstd: Zstd;
  limits?: DeltaLimits;
}

/** A part of the file, in order. It is overwritten when the call returns. */
export type DeltaSink = (chunk: Uint8Array) => void;

const defaultLimits: DeltaLimits = {
  targetBytesMax: fleetLimits.deltaTargetBytesMax,
  memoryBytesMax: fleetLimits.deltaMemoryBytesMax,
};

/**
 * The file that the patch makes, in memory. Refusals: `delta-malformed`, `delta-unsupported`, `delta-too-large`,
 * `delta-base-mismatch`, `delta-result-mismatch`.
 */
export function applyDelta(parts: DeltaToApply): Result<Uint8Array> {
  let whole: Uint8Array | null = null;
  let at = 0;
  const done = rebuild(parts, (chunk, { target }) => {
    whole ??= new Uint8Array(target.bytes);
    whole.set(chunk, at);
    at += chunk.length;
  });
  return done.ok ? ok(whole ?? new Uint8Array(0)) : done;
}

/**
 * Gives the file to a sink, part by part, and says at the end whether it is the right one. The bases were checked
 * before the first part. What was given is worthless unless the result is ok. Refusals as for `applyDelta`.
 */
export function streamDelta(parts: DeltaToApply & { sink: DeltaSink }): Result<void> {
  return rebuild(parts, parts.sink);
}

function rebuild(
  { patch, bases, zstd, limits = defaultLimits }: DeltaToApply,
  sink: (chunk: Uint8Array, header: OpenPatch['header']) => void,
): Result<void> {
  const opened = openPatch(patch);
  if (!opened.ok) return opened;
  const open = opened.value;
  const { header } = open;
  const refusal = checkHeader(header, bases, limits);
  if (!refusal.ok) return refusal;
  const digest = sha256Stream();
  let left = header.target.bytes;
  const emit = (chunk: Uint8Array): void => {
    left -= chunk.length;
    if (left < 0) throw new DeltaFault('more bytes than it says');
    digest.update(chunk);
    sink(chunk, header);
  };
  try {
    if (open.form === 'tensors') new Rebuild(open, bases, zstd, emit).run();
    else emit(wholeFile(open, bases, zstd));
    if (left !== 0) throw new DeltaFault('fewer bytes than it says');
  } catch (error) {
    if (error instanceof DeltaFault) return refuse('delta-malformed', `no valid patch: ${error.message}`);
    throw error;
  }
  if (digest.hex() !== header.target.sha256)
    return refuse('delta-result-mismatch', 'what was rebuilt is not what the patch announces');
  return ok();
}

function checkHeader(
  { bases, target, memoryBytesMax }: OpenPatch['header'],
  files: readonly Uint8Array[],
  limits: DeltaLimits,
): Result<void> {
  if (target.bytes > limits.targetBytesMax || memoryBytesMax > limits.memoryBytesMax)
    return refuse(
      'delta-too-large',
      `a file of ${target.bytes} bytes, made with ${memoryBytesMax} bytes of memory`,
    );
  const right =
    files.length === bases.length &&
    bases.every(({ bytes, digestStart }, at) => {
      const file = files[at];
      return file?.length === bytes && digestStartOf(sha256Hex(file)) === digestStart;
    });
  return right ? ok() : refuse('delta-base-mismatch', 'the patch was made for other bytes than these');
}

function wholeFile(
  { form, header, sections }: OpenPatch,
  bases: readonly Uint8Array[],
  zstd: Zstd,
): Uint8Array {
  const frame = (sections[0] as Section).bytes;
  if (form === 'stored') {
    if (frame.length !== header.target.bytes) throw new DeltaFault('a file of another size than it says');
    return frame;
  }
  const [base] = bases;
  if (form === 'packed' || base === undefined) {
    const into = new Uint8Array(header.target.bytes);
    unpackFrame(zstd, frame, into);
    return into;
  }
  const into = new Uint8Array(header.target.bytes);
  const start = dictionaryStart(base);
  if (start === null || base.length > dictionaryBytesMax) throw new DeltaFault('a dictionary that is none');
  unpackFrame(zstd, frame, into, base.subarray(start));
  return into;
}

/** A section after its checksum. */
function checked(section: OpenPatch['sections'][number] | undefined): Section {
  if (section === undefined) throw new DeltaFault('a section is missing');
  if (crc32(section.bytes) !== section.checksum) throw new DeltaFault('a checksum is wrong');
  return section;
}

class Rebuild {
  readonly #open: OpenPatch;
  readonly #bases: readonly Uint8Array[];
  readonly #zstd: Zstd;
  readonly #emit: DeltaSink;
  /** As long as the longest piece so far; a unit at most. */
  #elements = new Uint32Array(0);
  #chunk = new Uint8Array(0);
  #group: GroupReader | null = null;
  /** Plan and skeleton come first. */
  #nextGroup = 2;

  constructor(open: OpenPatch, bases: readonly Uint8Array[], zstd: Zstd, emit: DeltaSink) {
    this.#open = open;
    this.#bases = bases;
    this.#zstd = zstd;
    this.#emit = emit;
  }

  run(): void {
    const { header, sections } = this.#open;
    const packed = checked(sections[0]);
    const planBytes = new Uint8Array(packed.plainBytes);
    unpackFrame(this.#zstd, packed.bytes, planBytes);
    const sizes = this.#bases.map((base) => base.length);
    const plan = readPlan(planBytes, sizes, header.target.bytes);
    const skeletonBytes = plan.target.reduce((rest, { length }) => rest - length, header.target.bytes);
    const told = checked(sections[1]);
    const base = skeletonOf(this.#bases, plan.base);
    // Base and target skeleton are what the directory said, so that nobody is surprised.
    if (told.plainBytes !== skeletonBytes + (plan.base.length === 0 ? 0 : base.length))
      throw new DeltaFault('a skeleton of another size than it says');
    const skeleton = readSkeleton(this.#zstd, told.bytes, base, skeletonBytes);
    const held = [...sizes, header.target.bytes].reduce((sum, size) => sum + size, 0);
    const guesser = new Guesser(this.#bases, plan.base, plan.tables, tableBounds(held));
    let at = 0;
    for (const extent of plan.target) {
      if (extent.gap > 0) this.#emit(skeleton.subarray(at, at + extent.gap));
      at += extent.gap;
      this.#extent(extent, guesser);
    }
    if (at < skeletonBytes) this.#emit(skeleton.subarray(at));
    this.#closeGroup();
    if (this.#nextGroup !== sections.length) throw new DeltaFault('sections are left over');
  }

  /** The group that holds the next unit. */
  #reader(): GroupReader {
    if (this.#group !== null && !this.#group.finished) return this.#group;
    this.#closeGroup();
    const section = checked(this.#open.sections[this.#nextGroup++]);
    this.#group = new GroupReader(this.#zstd, section.bytes, section.plainBytes);
    if (this.#group.finished) throw new DeltaFault('a group of no units');
    return this.#group;
  }

  #closeGroup(): void {
    if (this.#group === null) return;
    if (!this.#group.finished) throw new DeltaFault('units are left over');
    this.#group.close();
    this.#group = null;
  }

  #extent(extent: TargetExtent, guesser: Guesser): void {
    const { guess, coding, kind, length } = extent;
    if (coding === 'exact' && guess.kind === 'base') {
      this.#emit(guesser.bytes(guess.base));
      return;
    }
    if (coding === 'patched' && guess.kind === 'base') {
      const dictionary = guesser.bytes(guess.base);
      const start = dictionaryStart(dictionary);
      if (start === null || dictionary.length > dictionaryBytesMax || length > pieceBytesMax)
        throw new DeltaFault('a dictionary that is none');
      this.#emit(this.#reader().readPatch(length, dictionary.subarray(start)));
      return;
    }
    const width = elementBytes(kind);
    const count = length / width;
    const longest = Math.min(unitElements, count);
    if (coding !== 'bytes' && this.#elements.length < longest) {
      this.#elements = new Uint32Array(longest);
      this.#chunk = new Uint8Array(longest * 4);
    }
    for (let from = 0; from < count; from += unitElements) {
      const part = Math.min(unitElements, count - from);
      if (coding === 'bytes') {
        this.#emit(this.#reader().readBytes(part * width));
        continue;
      }
      guesser.guess(guess, from, part, { kind, signed: extent.signed, elements: this.#elements });
      if (coding !== 'exact') this.#reader().readElements(extent, kind, this.#elements, part);
      const chunk = this.#chunk.subarray(0, part * width);
      storeElements(this.#elements, width, chunk);
      this.#emit(chunk);
    }
  }
}
