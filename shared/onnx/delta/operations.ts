// Why: the words in which a patch says how each tensor comes from the base: a guess, and how what is missing is
// coded. Trusts: nothing. Must never: mean something else in a later version; new words are added at the end.

import { type ElementKind, elementBytes } from './elements.ts';

/** A piece of a base file whose bytes are numbers. */
export interface BaseExtent {
  /** Which of the base files. */
  file: number;
  offset: number;
  length: number;
  kind: ElementKind;
  signed: boolean;
}

/** Numbers that whole rows of a tensor share, such as scales: element i has number ⌊i / inner⌋ modulo their count. */
export type Table =
  /** As float32 in the patch. */
  | { kind: 'listed'; values: Float32Array }
  /** Numbers of a base tensor. */
  | { kind: 'base'; base: number }
  /** Greatest amount of each channel of a base tensor, over `divisor`, times `factor`; each step in float32. */
  | { kind: 'peak'; base: number; channels: number; inner: number; divisor: number; factor: number }
  /** Likewise its range, zero included. */
  | { kind: 'span'; base: number; channels: number; inner: number; divisor: number; factor: number };

/** What the tensor is guessed to be. */
export type Guess =
  | { kind: 'none' }
  | { kind: 'base'; base: number }
  /** Axis j of the tensor is axis `order[j]` of the base, whose shape is `dims`. */
  | { kind: 'permuted'; base: number; dims: number[]; order: number[] }
  /** rint(base / scale) + zero; a zero of null is 0. */
  | { kind: 'quantised'; base: number; inner: number; scale: number; zero: number | null }
  /** (base − zero) × scale. */
  | { kind: 'dequantised'; base: number; inner: number; scale: number; zero: number | null }
  | { kind: 'cast'; base: number }
  /** base × scale. */
  | { kind: 'scaled'; base: number; inner: number; scale: number }
  /** The numbers of a table. */
  | { kind: 'table'; table: number };

export const guessKinds = [
  'none',
  'base',
  'permuted',
  'quantised',
  'dequantised',
  'cast',
  'scaled',
  'table',
] as const satisfies readonly Guess['kind'][];
export const tableKinds = ['listed', 'base', 'peak', 'span'] as const satisfies readonly Table['kind'][];

/**
 * How what the guess lacks is coded: nothing; a difference for each element; the same but only for blocks of 64 that
 * differ; elements in full, their symbols routed by the guess; bytes; bytes with the base tensor as dictionary.
 */
export const codings = ['exact', 'dense', 'sparse', 'full', 'bytes', 'patched'] as const;
export type Coding = (typeof codings)[number];

export interface Operation {
  guess: Guess;
  coding: Coding;
  /** Taken off the exponent before it routes a difference, so that tensors of unlike scale share their tables. */
  exponentShift: number;
}

export interface TargetExtent extends Operation {
  /** Bytes of the skeleton before it. */
  gap: number;
  length: number;
  kind: ElementKind;
  signed: boolean;
}

export interface Plan {
  base: BaseExtent[];
  tables: Table[];
  target: TargetExtent[];
}

/** The base extent that a guess reads, or that is the dictionary of a patched one. */
export function baseOf(guess: Guess): number | null {
  return guess.kind === 'none' || guess.kind === 'table' ? null : guess.base;
}

/** Elements of a table, before it is computed. */
export function tableLength(base: readonly BaseExtent[], table: Table): number {
  if (table.kind === 'listed') return table.values.length;
  if (table.kind !== 'base') return table.channels;
  const extent = base[table.base];
  return extent === undefined ? 0 : extent.length / elementBytes(extent.kind);
}

/** Elements of one unit of coding: what a decoder holds at a time. */
export const unitElements = 1 << 18;
/** A group of units is closed when it holds so many symbols or bytes. */
export const groupElements = 1 << 20;
export const blockElements = 64;
export const permutedAxesMax = 8;
/** Dictionaries: of a tensor, and of a piece of the skeleton. Bounds what zstd takes. */
export const dictionaryBytesMax = 8 * 1024 * 1024;
/** One piece of the skeleton, and the longest tensor that is patched. */
export const pieceBytesMax = 4 * 1024 * 1024;
