// Why: the plan of a patch as bytes: which pieces of the base are numbers, and how each tensor of the target comes from
// them. Fields of one sort stand together, told as differences to what is likely, so that they pack to little.
// Trusts: nothing that it reads. Must never: give out a plan that reaches outside of base or target.

import { ByteReader, ByteWriter, DeltaFault } from './bytes.ts';
import { elementBytes, elementKinds, isFloat } from './elements.ts';
import {
  type BaseExtent,
  baseOf,
  codings,
  type Guess,
  guessKinds,
  type Plan,
  permutedAxesMax,
  type Table,
  type TargetExtent,
  tableKinds,
  tableLength,
} from './operations.ts';

const columnNames = [
  'counts',
  'base',
  'lengths',
  'kinds',
  'gaps',
  'sizes',
  'guesses',
  'indexes',
  'details',
] as const;
type Columns<Part> = Record<(typeof columnNames)[number], Part>;

function columns<Part>(make: () => Part): Columns<Part> {
  return Object.fromEntries(columnNames.map((name) => [name, make()])) as Columns<Part>;
}

/** Pieces in all; each costs a decoder some hundred bytes. Models have some thousands. */
export const extentsMax = 200_000;
const tablesMax = 200_000;

export function writePlan(plan: Plan): Uint8Array {
  const out = columns(() => new ByteWriter());
  out.counts.varint(plan.base.length).varint(plan.tables.length).varint(plan.target.length);
  let file = 0;
  let end = 0;
  const gaps: number[] = [];
  for (const extent of plan.base) {
    out.base.varint(extent.file - file);
    if (extent.file !== file) end = 0;
    gaps.push(extent.offset - end);
    out.base.varint(extent.offset - end);
    out.lengths.varint(extent.length);
    out.kinds.byte(kindByte(extent));
    file = extent.file;
    end = extent.offset + extent.length;
  }
  for (const table of plan.tables) writeTable(out.details, table);
  let expected = 0;
  for (const extent of plan.target) {
    const base = baseOf(extent.guess);
    out.kinds.byte(kindByte(extent));
    out.guesses.byte(guessKinds.indexOf(extent.guess.kind) * 8 + codings.indexOf(extent.coding));
    out.gaps.signed(extent.gap - (base === null ? 0 : (gaps[base] ?? 0)));
    out.sizes.signed(extent.length - likelyLength(plan, extent));
    if (base !== null) {
      out.indexes.signed(base - expected);
      expected = base + 1;
    }
    writeGuess(out.details, extent.guess);
    if (shifted(extent)) out.kinds.byte(extent.exponentShift);
  }
  const whole = new ByteWriter();
  for (const name of columnNames) whole.varint(out[name].length).bytes(out[name].view());
  return whole.view();
}

/** Integers have no exponents. */
function shifted({ coding, kind }: Pick<TargetExtent, 'coding' | 'kind'>): boolean {
  return isFloat(kind) && (coding === 'dense' || coding === 'sparse' || coding === 'full');
}

function kindByte(extent: { kind: BaseExtent['kind']; signed: boolean }): number {
  return elementKinds.indexOf(extent.kind) * 2 + (extent.signed ? 1 : 0);
}

function writeTable(out: ByteWriter, table: Table): void {
  out.byte(tableKinds.indexOf(table.kind));
  if (table.kind === 'listed') {
    out.varint(table.values.length);
    for (const value of table.values) out.uint32(floatBits(value));
    return;
  }
  out.varint(table.base);
  if (table.kind === 'base') return;
  out
    .varint(table.channels)
    .varint(table.inner)
    .uint32(floatBits(table.divisor))
    .uint32(floatBits(table.factor));
}

function writeGuess(out: ByteWriter, guess: Guess): void {
  if (guess.kind === 'permuted') {
    out.byte(guess.dims.length);
    for (const [at, size] of guess.dims.entries()) out.varint(size).byte(guess.order[at] ?? 0);
  } else if (guess.kind === 'table') out.varint(guess.table);
  else if (guess.kind === 'scaled') out.varint(guess.inner).varint(guess.scale);
  else if (guess.kind === 'quantised' || guess.kind === 'dequantised')
    out
      .varint(guess.inner)
      .varint(guess.scale)
      .varint(guess.zero === null ? 0 : guess.zero + 1);
}

/** Of a tensor that has as many elements as what it is guessed from. */
function likelyLength(
  plan: Pick<Plan, 'base' | 'tables'>,
  extent: Pick<TargetExtent, 'guess' | 'kind'>,
): number {
  const width = elementBytes(extent.kind);
  if (extent.guess.kind === 'table') {
    const table = plan.tables[extent.guess.table];
    return table === undefined ? 0 : tableLength(plan.base, table) * width;
  }
  const base = baseOf(extent.guess);
  const from = base === null ? undefined : plan.base[base];
  if (extent.guess.kind === 'base') return from?.length ?? 0;
  return from === undefined ? 0 : (from.length / elementBytes(from.kind)) * width;
}

const floats = new Float32Array(1);
const words = new Uint32Array(floats.buffer);

function floatBits(value: number): number {
  floats[0] = value;
  return words[0] as number;
}

function readFloat(reader: ByteReader): number {
  words[0] = reader.uint32();
  return floats[0] as number;
}

/** Reads a plan and holds it against the sizes that it speaks of. Faults with DeltaFault. */
export function readPlan(bytes: Uint8Array, baseSizes: readonly number[], targetBytes: number): Plan {
  const whole = new ByteReader(bytes);
  const from = columns(() => new ByteReader(whole.bytes(whole.varint())));
  whole.end();
  const [baseCount, tableCount, targetCount] = [
    from.counts.varint(),
    from.counts.varint(),
    from.counts.varint(),
  ];
  if (baseCount + targetCount > extentsMax || tableCount > tablesMax)
    throw new DeltaFault('too many tensors');
  const plan: Plan = { base: [], tables: [], target: [] };
  const gaps = readBase(plan.base, from, baseCount, baseSizes);
  for (let index = 0; index < tableCount; index++) plan.tables.push(readTable(from.details, plan.base));
  let expected = 0;
  let end = 0;
  for (let index = 0; index < targetCount; index++) {
    const kind = readKind(from.kinds);
    const word = from.guesses.byte();
    const coding = codings[word % 8];
    const name = guessKinds[Math.floor(word / 8)];
    if (coding === undefined || name === undefined)
      throw new DeltaFault('an unknown way to guess or to code');
    let base = 0;
    if (name !== 'none' && name !== 'table') {
      base = expected + from.indexes.signed();
      expected = base + 1;
      if (plan.base[base] === undefined) throw new DeltaFault('a base tensor that is not there');
    }
    const guess = readGuess(from.details, name, base);
    const extent = { ...kind, guess, coding, exponentShift: 0 };
    const gap = from.gaps.signed() + (baseOf(guess) === null ? 0 : (gaps[base] ?? 0));
    const length = from.sizes.signed() + likelyLength(plan, extent);
    if (shifted(extent)) extent.exponentShift = from.kinds.byte();
    end += gap + length;
    if (gap < 0 || length < 1 || end > targetBytes) throw new DeltaFault('a tensor outside of the file');
    const target = { ...extent, gap, length };
    checkExtent(plan, target);
    plan.target.push(target);
  }
  for (const name of columnNames) from[name].end();
  return plan;
}

function readKind(reader: ByteReader): Pick<BaseExtent, 'kind' | 'signed'> {
  const byte = reader.byte();
  const kind = elementKinds[byte >>> 1];
  if (kind === undefined) throw new DeltaFault('an unknown type of numbers');
  return { kind, signed: byte % 2 === 1 };
}

function readBase(
  into: BaseExtent[],
  from: Columns<ByteReader>,
  count: number,
  sizes: readonly number[],
): number[] {
  const gaps: number[] = [];
  let file = 0;
  let end = 0;
  for (let index = 0; index < count; index++) {
    const skipped = from.base.varint();
    if (skipped > 0) end = 0;
    file += skipped;
    const gap = from.base.varint();
    const length = from.lengths.varint();
    const kind = readKind(from.kinds);
    const offset = end + gap;
    end = offset + length;
    if (!(end <= (sizes[file] ?? -1)) || length % elementBytes(kind.kind) !== 0)
      throw new DeltaFault('a base tensor outside of its file');
    into.push({ ...kind, file, offset, length });
    gaps.push(gap);
  }
  return gaps;
}

function readTable(reader: ByteReader, base: readonly BaseExtent[]): Table {
  const kind = tableKinds[reader.byte()];
  if (kind === undefined) throw new DeltaFault('an unknown table');
  if (kind === 'listed') {
    const count = reader.varint();
    if (count * 4 > reader.left || count === 0) throw new DeltaFault('a table that ends too early');
    return { kind, values: Float32Array.from({ length: count }, () => readFloat(reader)) };
  }
  const index = reader.varint();
  const extent = base[index];
  if (extent === undefined || extent.kind === 'bytes' || extent.length === 0)
    throw new DeltaFault('a table of a base tensor that is not there');
  if (kind === 'base') return { kind, base: index };
  const [channels, inner] = [reader.varint(), reader.varint()];
  const count = extent.length / elementBytes(extent.kind);
  if (channels < 1 || inner < 1 || channels * inner > count)
    throw new DeltaFault('a table with other channels');
  return { kind, base: index, channels, inner, divisor: readFloat(reader), factor: readFloat(reader) };
}

function readGuess(reader: ByteReader, kind: Guess['kind'], base: number): Guess {
  if (kind === 'none') return { kind };
  if (kind === 'table') return { kind, table: reader.varint() };
  if (kind === 'base' || kind === 'cast') return { kind, base };
  if (kind === 'permuted') {
    const axes = reader.byte();
    if (axes > permutedAxesMax) throw new DeltaFault('too many axes');
    const pairs = Array.from({ length: axes }, () => ({ size: reader.varint(), axis: reader.byte() }));
    return { kind, base, dims: pairs.map(({ size }) => size), order: pairs.map(({ axis }) => axis) };
  }
  const inner = reader.varint();
  if (inner < 1) throw new DeltaFault('rows of no elements');
  const scale = reader.varint();
  if (kind === 'scaled') return { kind, base, inner, scale };
  const zero = reader.varint();
  return { kind, base, inner, scale, zero: zero === 0 ? null : zero - 1 };
}

/** Every guess must have the elements that it is asked for; every coding must suit its type. */
function checkExtent(plan: Plan, extent: TargetExtent): void {
  const { guess, coding, kind, length } = extent;
  if (length % elementBytes(kind) !== 0) throw new DeltaFault('a tensor of part of an element');
  if (coding === 'bytes') return;
  if (coding === 'patched') {
    if (guess.kind !== 'base') throw new DeltaFault('a dictionary that is none');
    return;
  }
  if (guess.kind === 'base' && coding === 'exact') {
    // Bytes are copied; of what type they are does not matter.
    if (length !== likelyLength(plan, extent)) throw new DeltaFault('a guess of another size');
    return;
  }
  if (kind === 'bytes') throw new DeltaFault('bytes are coded as numbers');
  if (guess.kind === 'none') {
    if (coding !== 'full') throw new DeltaFault('a guess that is missing');
    return;
  }
  if (length !== likelyLength(plan, extent)) throw new DeltaFault('a guess of another size');
  const from = plan.base[baseOf(guess) ?? -1];
  if (from !== undefined && from.kind === 'bytes' && guess.kind !== 'base')
    throw new DeltaFault('bytes are taken as numbers');
  if ((guess.kind === 'base' || guess.kind === 'permuted') && from?.kind !== kind)
    throw new DeltaFault('a guess of another type');
  if (guess.kind === 'quantised' && isFloat(kind)) throw new DeltaFault('floats are no whole numbers');
  if (guess.kind === 'permuted') checkOrder(guess, length / elementBytes(kind));
  const used = guess.kind === 'table' ? [guess.table] : 'scale' in guess ? [guess.scale] : [];
  if ('zero' in guess && guess.zero !== null) used.push(guess.zero);
  if (used.some((index) => plan.tables[index] === undefined))
    throw new DeltaFault('a table that is not there');
}

function checkOrder({ dims, order }: { dims: number[]; order: number[] }, count: number): void {
  const axes = [...order].sort((a, b) => a - b);
  if (axes.some((axis, at) => axis !== at)) throw new DeltaFault('an order of axes that is none');
  if (dims.reduce((product, size) => product * size, 1) !== count)
    throw new DeltaFault('a shape of another size');
}
