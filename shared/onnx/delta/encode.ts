// Why: makes the patch that turns files that a device holds into one that it lacks.
// Trusts: the files only as bytes: a model that does not parse is coded as what it is. Must never: give out a patch
// that does not rebuild the target to the bit (it applies each one before it hands it over).

import { sha256Hex } from '../../crypto/digests.ts';
import { invariant } from '../../kernel/errors.ts';
import type { Zstd, ZstdLevel } from '../../kernel/ports.ts';
import { applyDelta } from './apply.ts';
import { dictionaryStart, packFrame } from './frames.ts';
import { GroupWriter } from './group-writer.ts';
import { Guesser, tableBounds } from './guesses.ts';
import { basesMax, type DeltaHeader, digestStartOf, type Section, writePatch } from './header.ts';
import { Judge, type Judgement } from './judge.ts';
import {
  dictionaryBytesMax,
  type Guess,
  type Operation,
  type Plan,
  pieceBytesMax,
  type TargetExtent,
  unitElements,
} from './operations.ts';
import { Pairing } from './pairing.ts';
import { extentsMax, writePlan } from './plan.ts';
import { levelFor, skeletonOf, smallBytesMax, strengthFor, strongest, writeSkeleton } from './skeleton.ts';
import { TableBook } from './tables.ts';
import {
  countOf,
  type DeltaFile,
  type FileTensor,
  readElements,
  type TensorSet,
  tensorsOf,
} from './tensors.ts';

export interface DeltaToEncode {
  /** Files of the release that the device holds: the model, and external data where it has any. */
  base: readonly DeltaFile[];
  target: DeltaFile;
  /** Other files of the target's release: where the target is external data, its model tells what lies in it. */
  beside?: readonly DeltaFile[];
  zstd: Zstd;
}

const unbounded = { scannedMax: Number.POSITIVE_INFINITY, numbersMax: Number.POSITIVE_INFINITY };
/** Per element, where a turned or scaled base is looked for although one of the same shape was found. */
const poorShare = 0.78;
/** Of that: where scales are looked for, which costs a pass over the tensor. */
const scaledShare = 0.5;
/** A sample flatters a scale that was fitted to one of its elements. */
const scaledHandicap = 1.03;

/** The smallest patch that is found. The files of the base, at most `basesMax`, are to be applied in this order. */
export function encodeDelta(files: DeltaToEncode): Uint8Array {
  const { zstd, beside = [] } = files;
  const base = files.base.map(plain);
  const target = plain(files.target);
  invariant(base.length <= basesMax, `a patch over ${base.length} files`);
  const header = {
    bases: base.map(({ bytes }) => ({ digestStart: digestStartOf(sha256Hex(bytes)), bytes: bytes.length })),
    target: { sha256: sha256Hex(target.bytes), bytes: target.bytes.length },
  };
  const patches = [
    new Encoder(base, target, beside, zstd).patch(header),
    // As one frame over the base, too: there is little to take apart in a short file.
    ...(target.bytes.length <= smallBytesMax ? wholePatches(header, base, target.bytes, zstd) : []),
  ];
  const patch = patches.reduce((best, one) => (one.length < best.length ? one : best));
  const memory = { targetBytesMax: target.bytes.length, memoryBytesMax: Number.MAX_SAFE_INTEGER };
  const rebuilt = applyDelta({ patch, bases: base.map(({ bytes }) => bytes), zstd, limits: memory });
  invariant(rebuilt.ok, `a patch does not apply: ${rebuilt.ok ? '' : rebuilt.refusal.detail}`);
  return patch;
}

/** Views of a Buffer are Buffers, which cost several times what views of plain bytes do. */
function plain({ path, bytes }: DeltaFile): DeltaFile {
  return { path, bytes: new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) };
}

type Announced = Pick<DeltaHeader, 'bases' | 'target'>;

function wholePatches(
  header: Announced,
  base: readonly DeltaFile[],
  target: Uint8Array,
  zstd: Zstd,
): Uint8Array[] {
  const single = (bytes: Uint8Array): Section[] => [{ bytes, plainBytes: target.length }];
  const patches = [writePatch(header, 'stored', single(target))];
  if (target.length === 0) return patches;
  patches.push(writePatch(header, 'packed', single(packFrame(zstd, target, levelFor(target.length)))));
  const [first] = base;
  const start = first === undefined ? null : dictionaryStart(first.bytes);
  if (first === undefined || start === null || first.bytes.length > dictionaryBytesMax) return patches;
  const frame = packFrame(zstd, target, levelFor(target.length), first.bytes.subarray(start));
  return [...patches, writePatch(header, 'over-base', single(frame))];
}

class Encoder {
  readonly #bases: readonly Uint8Array[];
  readonly #target: Uint8Array;
  readonly #zstd: Zstd;
  readonly #baseSet: TensorSet;
  readonly #targetSet: TensorSet;
  readonly #guesser: Guesser;
  readonly #judge: Judge;
  readonly #tables: TableBook;
  readonly #groups: GroupWriter;
  /** Of what is short, or is told apart from numbers. */
  readonly #strength: ZstdLevel;
  readonly #elements: Uint32Array;
  readonly #own: Uint32Array;

  constructor(base: readonly DeltaFile[], target: DeltaFile, beside: readonly DeltaFile[], zstd: Zstd) {
    this.#bases = base.map(({ bytes }) => bytes);
    this.#target = target.bytes;
    this.#zstd = zstd;
    this.#targetSet = tensorsOf([target], [target, ...beside]);
    const baseSet = tensorsOf(base, base);
    // Without tensors to take apart the whole base is what the file may repeat.
    const apart =
      this.#targetSet.apart.length > 0 && baseSet.apart.length + this.#targetSet.apart.length <= extentsMax;
    this.#baseSet = apart ? baseSet : { ...baseSet, apart: [] };
    if (!apart) this.#targetSet = { ...this.#targetSet, apart: [] };
    const extents = this.#baseSet.apart;
    const held = [target, ...base].reduce((sum, { bytes }) => sum + bytes.length, 0);
    const { numbersMax } = tableBounds(held);
    this.#tables = new TableBook(new Guesser(this.#bases, extents, [], unbounded), numbersMax);
    this.#guesser = new Guesser(this.#bases, extents, this.#tables.tables, unbounded);
    this.#judge = new Judge(this.#guesser, zstd);
    const apartBytes = [...extents, ...this.#targetSet.apart].reduce((sum, { length }) => sum + length, 0);
    this.#strength = target.bytes.length <= smallBytesMax ? strongest : strengthFor(held - apartBytes, held);
    this.#groups = new GroupWriter(zstd, this.#strength);
    const longest = this.#targetSet.apart.reduce((most, tensor) => Math.max(most, countOf(tensor)), 0);
    this.#elements = new Uint32Array(Math.min(unitElements, longest));
    this.#own = new Uint32Array(this.#elements.length);
  }

  patch(header: Announced): Uint8Array {
    const target = this.#extents();
    const plan = withUsedTables({ base: this.#baseSet.apart, tables: this.#tables.tables, target });
    this.#groups.finish();
    const baseSkeleton = skeletonOf(this.#bases, this.#baseSet.apart);
    const skeleton = skeletonOf([this.#target], this.#targetSet.apart);
    const planBytes = writePlan(plan);
    return writePatch(header, 'tensors', [
      { bytes: packFrame(this.#zstd, planBytes, this.#strength), plainBytes: planBytes.length },
      {
        bytes: writeSkeleton(this.#zstd, baseSkeleton, skeleton, this.#strength),
        plainBytes: skeleton.length + (plan.base.length === 0 ? 0 : baseSkeleton.length),
      },
      ...this.#groups.sections,
    ]);
  }

  #extents(): TargetExtent[] {
    const pairing = new Pairing({
      ...{ base: this.#baseSet, target: this.#targetSet },
      ...{ judge: this.#judge, tables: this.#tables },
    });
    // Scales may stand before what they scale: their tables are found first.
    for (const tensor of this.#targetSet.apart) pairing.quantised(tensor);
    let end = 0;
    return this.#targetSet.apart.map((tensor) => {
      const operation = this.#choose(tensor, pairing);
      this.#write(tensor, operation);
      const { kind, signed, length, offset } = tensor;
      const gap = offset - end;
      end = offset + length;
      return { ...operation, kind, signed, length, gap };
    });
  }

  #choose(tensor: FileTensor, pairing: Pairing): Operation {
    const same = pairing.same(tensor);
    if (same !== null) return exactly({ kind: 'base', base: same });
    const found: Judgement[] = [];
    const poorBits = tensor.length * 8 * poorShare;
    for (const guess of pairing.guesses(tensor)) {
      const judged = this.#judge.differing(tensor, guess);
      if (judged.coding === 'sparse' && this.#judge.exact(tensor, guess)) return exactly(guess);
      found.push(judged);
      if (guess.kind === 'base') {
        found.push(this.#judge.full(tensor, guess));
        if (judged.bits > poorBits * scaledShare) found.push(...this.#scaled(tensor, guess.base, pairing));
      }
    }
    if (found.every(({ bits }) => bits > poorBits)) {
      const turned = pairing.turned(tensor);
      if (turned !== null) {
        if (this.#judge.exact(tensor, turned)) return exactly(turned);
        found.push(this.#judge.differing(tensor, turned));
      }
    }
    found.push(this.#judge.bytes(tensor));
    if (tensor.kind !== 'bytes') found.push(this.#judge.full(tensor, { kind: 'none' }));
    const patched = this.#patched(tensor, pairing);
    return best(patched === null ? found : [...found, patched]);
  }

  /** With what its numbers cost. */
  #scaled(tensor: FileTensor, base: number, pairing: Pairing): Judgement[] {
    return [...pairing.scaled(tensor, base)].map((guess) => {
      const judged = this.#judge.differing(tensor, guess);
      const numbers = guess.kind === 'scaled' ? this.#tables.lengthOf(guess.scale) : 0;
      return { ...judged, bits: judged.bits * scaledHandicap + numbers * 32 };
    });
  }

  /** Over the tensor of the same name where that has another length: rows were added, a text grew. */
  #patched(tensor: FileTensor, pairing: Pairing): Judgement | null {
    const base = pairing.named(tensor);
    if (base === null) return null;
    const dictionary = this.#guesser.bytes(base);
    const usable = dictionaryStart(dictionary) !== null && dictionary.length <= dictionaryBytesMax;
    const other = dictionary.length !== tensor.length || tensor.kind === 'bytes';
    if (!usable || !other || tensor.length > pieceBytesMax) return null;
    const bits = this.#frame(tensor, base).length * 8;
    return { guess: { kind: 'base', base }, coding: 'patched', exponentShift: 0, bits };
  }

  #frame(tensor: FileTensor, base: number): Uint8Array {
    const dictionary = this.#guesser.bytes(base);
    return packFrame(
      this.#zstd,
      tensor.bytes,
      levelFor(tensor.length),
      dictionary.subarray(dictionaryStart(dictionary) ?? 0),
    );
  }

  #write(tensor: FileTensor, operation: Operation): void {
    const { guess, coding } = operation;
    if (coding === 'exact') return;
    if (coding === 'patched' && guess.kind === 'base') {
      this.#groups.addPatch(this.#frame(tensor, guess.base));
      return;
    }
    const { kind, signed } = tensor;
    const count = countOf(tensor);
    for (let from = 0; from < count; from += unitElements) {
      const part = Math.min(unitElements, count - from);
      if (coding === 'bytes') {
        const width = tensor.length / count;
        this.#groups.addBytes(tensor.bytes.subarray(from * width, (from + part) * width));
        continue;
      }
      this.#guesser.guess(guess, from, part, { kind, signed, elements: this.#elements });
      readElements(tensor, from, part, this.#own);
      this.#groups.addElements(operation, kind, this.#elements, this.#own, part);
    }
  }
}

function exactly(guess: Guess): Operation {
  return { guess, coding: 'exact', exponentShift: 0 };
}

function best(found: readonly Judgement[]): Operation {
  const { guess, coding, exponentShift } = found.reduce((least, one) =>
    one.bits < least.bits ? one : least,
  );
  return { guess, coding, exponentShift };
}

/** Guesses were made that were not taken; their tables need not be sent. */
function withUsedTables(plan: Plan): Plan {
  const used = new Map<number, number>();
  const renumbered = (index: number): number => {
    const known = used.get(index) ?? used.size;
    used.set(index, known);
    return known;
  };
  const target = plan.target.map((extent): TargetExtent => {
    const { guess } = extent;
    if (guess.kind === 'table') return { ...extent, guess: { ...guess, table: renumbered(guess.table) } };
    if (guess.kind === 'scaled') return { ...extent, guess: { ...guess, scale: renumbered(guess.scale) } };
    if (guess.kind !== 'quantised' && guess.kind !== 'dequantised') return extent;
    const zero = guess.zero === null ? null : renumbered(guess.zero);
    return { ...extent, guess: { ...guess, scale: renumbered(guess.scale), zero } };
  });
  const tables = [...used.keys()].map((index) => plan.tables[index]).filter((table) => table !== undefined);
  return { ...plan, tables, target };
}
