// Why: one number as a symbol of a byte, which is coded, and its low bits, which are not. A difference becomes its bit
// length, its sign and its two top bits; a number without a base becomes its exponent.
// Trusts: its caller for lengths. Must never: leave a difference or a number without a symbol.

import { type ElementKind, elementBytes, isFloat } from './elements.ts';

/** Differences are taken modulo 2^32 (2^16, 2^8), so that every one has a way back. */
export const symbolsMax = 7 + (32 - 2) * 8;

interface SymbolTable {
  base: Uint32Array;
  rawBits: Uint8Array;
  negative: Uint8Array;
  /** All three in one number, for who reads each symbol: `base >>> rawBits` · `rawBits` from bit 3 · `negative` from bit 8. */
  packed: Uint16Array;
}

/** 0 · ±1 · ±2 ±3 · then for each bit length eight: two top bits below the leading one, and the sign. */
export const symbolTable = makeSymbolTable();

function makeSymbolTable(): SymbolTable {
  const table = {
    base: new Uint32Array(256),
    rawBits: new Uint8Array(256),
    negative: new Uint8Array(256),
    packed: new Uint16Array(256),
  };
  for (let symbol = 1; symbol < symbolsMax; symbol++) {
    const index = symbol - 1;
    table.negative[symbol] = index & 1;
    const step = index >>> 1;
    if (step < 3) table.base[symbol] = step + 1;
    else {
      const rawBits = (step - 3) >>> 2;
      table.base[symbol] = ((4 + ((step - 3) & 3)) << rawBits) >>> 0;
      table.rawBits[symbol] = rawBits;
    }
    const { base, rawBits, negative } = table;
    const [low, raw] = [base[symbol] as number, rawBits[symbol] as number];
    table.packed[symbol] = (low >>> raw) | (raw << 3) | ((negative[symbol] as number) << 8);
  }
  return table;
}

/** Of a difference as a signed number of 32 bits. Its raw bits are the low `rawBits` of its amount. */
export function symbolOf(difference: number): number {
  if (difference === 0) return 0;
  const negative = difference < 0 ? 1 : 0;
  const amount = (negative === 1 ? -difference : difference) >>> 0;
  if (amount < 4) return 1 + (amount - 1) * 2 + negative;
  const rawBits = 29 - Math.clz32(amount);
  return 1 + (3 + rawBits * 4 + ((amount >>> rawBits) & 3)) * 2 + negative;
}

/** Target minus base on the ordered integers; away from zero is positive for floats. */
export function differencesOf(
  kind: ElementKind,
  base: Uint32Array,
  target: Uint32Array,
  count: number,
  into: Int32Array,
): void {
  const unused = 32 - elementBytes(kind) * 8;
  if (!isFloat(kind)) {
    for (let at = 0; at < count; at++)
      into[at] = (((target[at] as number) - (base[at] as number)) << unused) >> unused;
    return;
  }
  for (let at = 0; at < count; at++) {
    // In the high bits, so that one way serves floats of 16 and of 32 bits.
    const from = (base[at] as number) << unused;
    const to = (target[at] as number) << unused;
    const difference =
      ((to ^ ((to >> 31) | (1 << 31))) >> unused) - ((from ^ ((from >> 31) | (1 << 31))) >> unused);
    into[at] = ((from < 0 ? -difference : difference) << unused) >> unused;
  }
}

/** The way back: base plus difference. Writes over `base`. */
export function addDifferences(
  kind: ElementKind,
  base: Uint32Array,
  differences: Int32Array,
  count: number,
): void {
  const unused = 32 - elementBytes(kind) * 8;
  if (!isFloat(kind)) {
    const mask = 0xffffffff >>> unused;
    for (let at = 0; at < count; at++) base[at] = ((base[at] as number) + (differences[at] as number)) & mask;
    return;
  }
  for (let at = 0; at < count; at++) {
    const given = differences[at] as number;
    if (given === 0) continue;
    const from = (base[at] as number) << unused;
    const ordered = (((from ^ ((from >> 31) | (1 << 31))) >> unused) + (from < 0 ? -given : given)) << unused;
    base[at] = (ordered ^ ((~ordered >> 31) | (1 << 31))) >>> unused;
  }
}
