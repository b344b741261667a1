// Why: floats as JSON text. A detector answers with 300,000 of them; printing each 32-bit float as the
// 17 digits of a double takes three times as long and twice the bytes.
// Trusts: nothing. Must never: write a text that does not read back as the same float.

/** 10^0 … 10^22: exact in a double. */
const powers = Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`));
/** The longest text of a double, and a comma. */
const textBytesMax = 26;

const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const COMMA = 0x2c;

/** The numbers with commas between them. NaN and the infinities stand as strings (tensor-json.ts). */
export function floatsText(data: Float32Array | Float64Array): Uint8Array {
  const single = data instanceof Float32Array;
  // Every byte that is returned was written.
  const text = Buffer.allocUnsafe(data.length * textBytesMax);
  let at = 0;
  for (let index = 0; index < data.length; index++) {
    if (index > 0) text[at++] = COMMA;
    const value = data[index] ?? 0;
    const end = single ? writeSingle(value, text, at) : -1;
    at = end >= 0 ? end : writeWord(value, text, at);
  }
  return text.subarray(0, at);
}

/** Any number in its own words: JavaScript prints the shortest text that reads back as that double. */
function writeWord(value: number, text: Uint8Array, start: number): number {
  const plain = Object.is(value, -0) ? '-0' : String(value);
  const word = Number.isFinite(value) ? plain : `"${plain}"`;
  for (let index = 0; index < word.length; index++) text[start + index] = word.charCodeAt(index);
  return start + word.length;
}

/**
 * A 32-bit float between 1e-9 and 1e7 in the 8 or 9 significant digits that tell it from its
 * neighbours, without trailing zeros. Returns the end, or −1 where the number is none of those.
 */
function writeSingle(signed: number, text: Uint8Array, start: number): number {
  const value = Math.abs(signed);
  if (!(value >= 1e-9 && value < 1e7)) return -1;
  let decimals = decimalsOf(value);
  let scale = powers[decimals] ?? 1;
  let digits = Math.round(value * scale);
  if (Math.fround(digits / scale) !== value) {
    scale = powers[++decimals] ?? 1;
    digits = Math.round(value * scale);
    // Nine digits always suffice (IEEE 754-2019 §5.12.2), but both steps above round once.
    if (Math.fround(digits / scale) !== value) return -1;
  }
  let at = start;
  if (signed < 0) text[at++] = MINUS;
  // Below 2^31 all along: integer arithmetic, which is what makes this fast.
  let rest = (digits / 10) | 0;
  while (decimals > 0 && rest * 10 === digits) {
    digits = rest;
    decimals--;
    rest = (digits / 10) | 0;
  }
  const width = digitsOf(digits);
  const end = at + (width <= decimals ? decimals + 2 : decimals > 0 ? width + 1 : width);
  let write = end - 1;
  for (; decimals > 0; decimals--) {
    rest = (digits / 10) | 0;
    text[write--] = ZERO + digits - rest * 10;
    digits = rest;
    if (decimals === 1) text[write--] = DOT;
  }
  do {
    rest = (digits / 10) | 0;
    text[write--] = ZERO + digits - rest * 10;
    digits = rest;
  } while (write >= at);
  return end;
}

/** Decimals that give 8 significant digits to a number between 1e-9 and 1e7. */
function decimalsOf(value: number): number {
  if (value >= 1) {
    if (value >= 1000) return value >= 100_000 ? (value >= 1_000_000 ? 1 : 2) : value >= 10_000 ? 3 : 4;
    return value >= 100 ? 5 : value >= 10 ? 6 : 7;
  }
  if (value >= 0.01) return value >= 0.1 ? 8 : 9;
  let decimals = 10;
  for (let bound = 0.001; value < bound; bound /= 10) decimals++;
  return decimals;
}

function digitsOf(value: number): number {
  let digits = 1;
  for (let bound = 10; value >= bound; bound *= 10) digits++;
  return digits;
}
