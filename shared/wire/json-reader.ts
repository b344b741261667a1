// Why: reads JSON straight into typed arrays. JSON.parse rounds int64, lets 1e400 become Infinity and
// builds a list of every number first; this keeps each integer exact and allocates once.
// Trusts: nothing; the bytes are UTF-8 only once a string was decoded. Must never: allocate by a
// number it read, or recurse without a bound.

import type { ErrorCode } from '../kernel/codes.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';

export type JsonPlain = string | number | boolean | null | JsonPlain[] | { [key: string]: JsonPlain };

/** Deeper nesting has no meaning in any of our formats. */
const depthMax = 64;
/** Keys and names; tensor strings are bounded by the body alone. */
const keyBytesMax = 4096;
/** Each key is kept to find the one that stands twice; none of our formats comes near. */
const keysMax = 4096;
/** Up to here a list is searched faster than a set is made. */
const fewKeysMax = 16;

/** A syntax or content error on its way to the boundary (`readWhole`), which makes it a refusal. */
class ReadFault extends Error {}

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** 10^0 … 10^22: the powers of ten that a double holds exactly. */
const exactPowers = Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`));
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export class JsonReader {
  readonly #bytes: Buffer;
  readonly #bareNonFinite: boolean;
  #at = 0;

  constructor(bytes: Uint8Array, bareNonFinite: boolean) {
    this.#bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#bareNonFinite = bareNonFinite;
  }

  /** Where the next byte is read; `seek` goes back to such a place. */
  get at(): number {
    return this.#at;
  }

  get bytesLeft(): number {
    return this.#bytes.length - this.#at;
  }

  seek(at: number): void {
    this.#at = at;
  }

  fail(what: string): never {
    throw new ReadFault(what);
  }

  /** The next byte that is not white space, or 0 at the end. */
  peek(): number {
    const bytes = this.#bytes;
    let at = this.#at;
    let byte = bytes[at] ?? 0;
    while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) byte = bytes[++at] ?? 0;
    this.#at = at;
    return byte;
  }

  nextIsList(): boolean {
    return this.peek() === OPEN_LIST;
  }

  nextIsString(): boolean {
    return this.peek() === QUOTE;
  }

  /** Whether a list or an object comes next, which may be of any size. */
  nextIsNested(): boolean {
    const byte = this.peek();
    return byte === OPEN_LIST || byte === OPEN_OBJECT;
  }

  #expect(byte: number, what: string): void {
    if (this.peek() !== byte) this.fail(`not JSON: expected ${what} at byte ${this.#at}`);
    this.#at++;
  }

  end(): void {
    this.peek();
    if (this.bytesLeft > 0) this.fail(`not JSON: something follows the end at byte ${this.#at}`);
  }

  /** Calls `each` with the reader before each element; it must read exactly one value. */
  list(each: (index: number) => void): void {
    this.#expect(OPEN_LIST, 'a list');
    if (this.peek() === CLOSE_LIST) {
      this.#at++;
      return;
    }
    for (let index = 0; ; index++) {
      each(index);
      const byte = this.peek();
      this.#at++;
      if (byte === CLOSE_LIST) return;
      if (byte !== COMMA) this.fail(`not JSON: expected , or ] at byte ${this.#at - 1}`);
    }
  }

  /** Calls `each` with each key; it must read exactly one value. A key that stands twice is refused. */
  object(each: (key: string) => void): void {
    this.#expect(OPEN_OBJECT, 'an object');
    if (this.peek() === CLOSE_OBJECT) {
      this.#at++;
      return;
    }
    const few: string[] = [];
    let many: Set<string> | null = null;
    for (;;) {
      const start = this.#at;
      const key = this.string();
      if (this.#at - start > keyBytesMax) this.fail('a key longer than 4096 bytes');
      if (many === null ? few.includes(key) : many.has(key))
        this.fail(`the key ${JSON.stringify(key)} stands twice`);
      if (many?.size === keysMax) this.fail(`more than ${keysMax} keys in one object`);
      if (many !== null) many.add(key);
      else if (few.push(key) === fewKeysMax) many = new Set(few);
      this.#expect(COLON, ':');
      each(key);
      const byte = this.peek();
      this.#at++;
      if (byte === CLOSE_OBJECT) return;
      if (byte !== COMMA) this.fail(`not JSON: expected , or } at byte ${this.#at - 1}`);
    }
  }

  string(): string {
    this.#expect(QUOTE, 'a string');
    const bytes = this.#bytes;
    const start = this.#at;
    let at = start;
    let plain = true;
    let seen = 0;
    for (;;) {
      const byte = bytes[at] ?? 0;
      if (byte === QUOTE) break;
      seen |= byte;
      // A control character must be escaped; byte 0 is also what stands behind the end.
      if (byte < 0x20) this.fail(`not JSON: a string without end or with a control character at byte ${at}`);
      if (byte === BACKSLASH) {
        plain = false;
        at++;
      }
      at++;
    }
    this.#at = at + 1;
    // ASCII, as nearly all names are, needs no decoder.
    if (plain && seen < 0x80) return bytes.toString('latin1', start, at);
    const text = this.#decode(start, at);
    if (plain) return text;
    try {
      return JSON.parse(`"${text}"`) as string;
    } catch (error) {
      if (error instanceof SyntaxError) this.fail(`not JSON: a wrong escape in the string at byte ${start}`);
      throw error;
    }
  }

  #decode(start: number, end: number): string {
    try {
      return decoder.decode(this.#bytes.subarray(start, end));
    } catch (error) {
      if (error instanceof TypeError) this.fail(`not UTF-8 in the string at byte ${start}`);
      throw error;
    }
  }

  /**
   * A number. With `single` the result is only good for rounding to binary32: that skips a slow
   * conversion for the 17-digit texts which programs print for 32-bit floats.
   * A finite text beyond the range of a double is refused, never made Infinity.
   */
  number(single = false): number {
    let byte = this.peek();
    const bytes = this.#bytes;
    const start = this.#at;
    let at = start;
    const negative = byte === MINUS;
    if (negative) byte = bytes[++at] ?? 0;
    let mantissa = 0;
    let digits = 0;
    let exponent = 0;
    if (byte === ZERO) {
      byte = bytes[++at] ?? 0;
      if (byte >= ZERO && byte <= NINE) this.fail(`not JSON: a number with a leading zero at byte ${start}`);
    } else if (byte > ZERO && byte <= NINE) {
      do {
        mantissa = mantissa * 10 + (byte - ZERO);
        digits++;
        byte = bytes[++at] ?? 0;
      } while (byte >= ZERO && byte <= NINE);
    } else {
      return this.#nonFinite();
    }
    if (byte === DOT) {
      byte = bytes[++at] ?? 0;
      if (byte < ZERO || byte > NINE) this.fail(`not JSON: a number ends with its point at byte ${start}`);
      do {
        mantissa = mantissa * 10 + (byte - ZERO);
        if (mantissa > 0) digits++;
        exponent--;
        byte = bytes[++at] ?? 0;
      } while (byte >= ZERO && byte <= NINE);
    }
    if (byte === 0x65 || byte === 0x45) {
      byte = bytes[++at] ?? 0;
      const sign = byte === MINUS ? -1 : 1;
      if (byte === MINUS || byte === 0x2b) byte = bytes[++at] ?? 0;
      if (byte < ZERO || byte > NINE) this.fail(`not JSON: a number ends with its exponent at byte ${start}`);
      let written = 0;
      do {
        written = Math.min(written * 10 + (byte - ZERO), 100_000);
        byte = bytes[++at] ?? 0;
      } while (byte >= ZERO && byte <= NINE);
      exponent += sign * written;
    }
    this.#at = at;
    if (exponent >= -22 && exponent <= 22) {
      const power = exactPowers[Math.abs(exponent)] ?? 1;
      const value = exponent < 0 ? mantissa / power : mantissa * power;
      // Both factors exact: one rounding, hence the nearest double (Clinger 1990).
      if (mantissa <= Number.MAX_SAFE_INTEGER) return negative ? -value : value;
      // Else a few units in the last place off; good enough where both sides round to one binary32.
      if (single && digits <= 19) {
        const low = Math.fround(value * (1 - 2 ** -49));
        if (low === Math.fround(value * (1 + 2 ** -49))) return negative ? -low : low;
      }
    }
    const value = Number(this.#decode(start, at));
    if (!Number.isFinite(value)) this.fail(`a number beyond the range of a double at byte ${start}`);
    return value;
  }

  /**
   * Reads numbers with commas between them into `target` from `start` on, as long as they are plain: digits and a
   * point, exact in a double. Returns how many; the place is then behind the last of them. `number` reads the same
   * from the same text, only slower: it and `list` take over where this stops.
   */
  plainNumbers(target: Float32Array | Float64Array, start: number): number {
    const bytes = this.#bytes;
    let end = this.#at;
    let at = end;
    let index = start;
    while (index < target.length) {
      let byte = bytes[at] ?? 0;
      while (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) byte = bytes[++at] ?? 0;
      const negative = byte === MINUS;
      if (negative) byte = bytes[++at] ?? 0;
      const firstDigitAt = at;
      let mantissa = 0;
      while (byte >= ZERO && byte <= NINE) {
        mantissa = mantissa * 10 + (byte - ZERO);
        byte = bytes[++at] ?? 0;
      }
      // No digit, or a leading zero, which JSON does not know.
      if (at === firstDigitAt || (at > firstDigitAt + 1 && bytes[firstDigitAt] === ZERO)) break;
      let decimals = 0;
      if (byte === DOT) {
        const pointAt = at;
        byte = bytes[++at] ?? 0;
        while (byte >= ZERO && byte <= NINE) {
          mantissa = mantissa * 10 + (byte - ZERO);
          byte = bytes[++at] ?? 0;
        }
        decimals = at - pointAt - 1;
        if (decimals === 0 || decimals > 22) break;
      }
      if (mantissa > Number.MAX_SAFE_INTEGER || (byte !== COMMA && byte !== CLOSE_LIST)) break;
      const value = decimals === 0 ? mantissa : mantissa / (exactPowers[decimals] ?? 1);
      target[index++] = negative ? -value : value;
      end = at;
      if (byte === CLOSE_LIST) break;
      at++;
    }
    this.#at = end;
    return index - start;
  }

  /** NaN, Infinity and −Infinity are no JSON; golden files may hold them because Python writes them. */
  #nonFinite(): number {
    const start = this.#at;
    if (this.#bareNonFinite) {
      for (const [word, value] of nonFiniteWords) {
        if (this.#startsWith(word)) {
          this.#at += word.length;
          return value;
        }
      }
    }
    return this.fail(`expected a number at byte ${start}`);
  }

  #startsWith(word: string): boolean {
    for (let index = 0; index < word.length; index++) {
      if (this.#bytes[this.#at + index] !== word.charCodeAt(index)) return false;
    }
    return true;
  }

  /** An integer exactly as written; `2.0` and `1e3` count where a double holds them exactly. */
  integer(): bigint {
    this.peek();
    const start = this.#at;
    const value = this.number();
    if (Number.isSafeInteger(value)) return BigInt(value);
    const text = this.#decode(start, Math.min(this.#at, start + 32));
    if (!/^-?\d{1,20}$/.test(text)) this.fail(`expected a 64-bit integer at byte ${start}`);
    return BigInt(text);
  }

  boolean(): boolean {
    this.peek();
    if (this.#startsWith('true')) {
      this.#at += 4;
      return true;
    }
    if (this.#startsWith('false')) {
      this.#at += 5;
      return false;
    }
    return this.fail(`expected true or false at byte ${this.#at}`);
  }

  /** Any value as plain data, for parameters. */
  plain(depth = 0): JsonPlain {
    if (depth > depthMax) this.fail(`nested deeper than ${depthMax}`);
    switch (this.peek()) {
      case OPEN_LIST: {
        const values: JsonPlain[] = [];
        this.list(() => values.push(this.plain(depth + 1)));
        return values;
      }
      case OPEN_OBJECT: {
        const entries: [string, JsonPlain][] = [];
        this.object((key) => entries.push([key, this.plain(depth + 1)]));
        return Object.fromEntries(entries);
      }
      case QUOTE:
        return this.string();
      case 0x74:
      case 0x66:
        return this.boolean();
      case 0x6e:
        if (!this.#startsWith('null')) this.fail(`not JSON at byte ${this.#at}`);
        this.#at += 4;
        return null;
      default:
        return this.number();
    }
  }

  /** Steps over one value, which is still checked for being JSON. */
  skip(depth = 0): void {
    if (depth > depthMax) this.fail(`nested deeper than ${depthMax}`);
    const byte = this.peek();
    if (byte === OPEN_LIST) this.list(() => this.skip(depth + 1));
    else if (byte === OPEN_OBJECT) this.object(() => this.skip(depth + 1));
    else if (byte === QUOTE) this.string();
    else if (byte === MINUS || (byte >= ZERO && byte <= NINE)) this.number(true);
    else this.plain(depth);
  }
}

export const nonFiniteWords: readonly (readonly [string, number])[] = [
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
];

/** Reads one whole document; a fault of its syntax or content becomes a refusal with `code`. */
export function readWhole<T>(
  bytes: Uint8Array,
  code: ErrorCode,
  options: { bareNonFinite: boolean },
  read: (reader: JsonReader) => T,
): Result<T> {
  const reader = new JsonReader(bytes, options.bareNonFinite);
  try {
    const value = read(reader);
    reader.end();
    return ok(value);
  } catch (error) {
    if (error instanceof ReadFault) return refuse(code, error.message);
    throw error;
  }
}
