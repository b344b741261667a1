// Why: signatures need one spelling of a JSON value (OLPC canonical JSON, as TUF uses it) and one reading
// of a JSON text. JSON.parse takes the last of two equal keys; another reader takes the first.
// Trusts: nothing. Must never: give two values one spelling, or one text two meanings.

import type { ErrorCode } from '../kernel/codes.ts';
import { FleetError } from '../kernel/errors.ts';
import { ok, type Refusal, type Result, refuse } from '../kernel/result.ts';

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Matches only surrogates without their other half: with the u flag a pair is one code point. */
const loneSurrogate = /\p{Surrogate}/u;

/**
 * The value's only canonical bytes: keys in order of their code points, no space, escapes only for `"` and
 * `\`, integers only. Throws `input-invalid` for a fraction, an unsafe integer or half a surrogate pair,
 * none of which has a canonical form.
 */
export function canonicalJson(value: JsonValue): Uint8Array {
  return encoder.encode(spell(value));
}

function spell(value: JsonValue): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return spellNumber(value);
  if (typeof value === 'string') return spellString(value);
  if (Array.isArray(value)) return `[${value.map(spell).join(',')}]`;
  const members = Object.entries(value).sort(([a], [b]) => compareCodePoints(a, b));
  return `{${members.map(([key, member]) => `${spellString(key)}:${spell(member)}`).join(',')}}`;
}

function spellNumber(value: number): string {
  if (!Number.isSafeInteger(value)) throw new FleetError('input-invalid', 'canonical JSON has integers only');
  return value === 0 ? '0' : String(value);
}

function spellString(value: string): string {
  if (loneSurrogate.test(value))
    throw new FleetError('input-invalid', 'a string holds half a surrogate pair');
  return `"${value.replace(/[\\"]/g, '\\$&')}"`;
}

/** JavaScript compares UTF-16 units, where U+FFFF sorts above U+10000; code points need a look at the pair. */
function compareCodePoints(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  for (let index = 0; index < shorter; index += 1) {
    if (a.charCodeAt(index) !== b.charCodeAt(index)) {
      return wholeCodePoint(a, index) - wholeCodePoint(b, index);
    }
  }
  return a.length - b.length;
}

function wholeCodePoint(text: string, index: number): number {
  const unit = text.charCodeAt(index);
  const isSecondHalf = unit >= 0xdc00 && unit <= 0xdfff;
  return text.codePointAt(isSecondHalf ? index - 1 : index) ?? 0;
}

export interface StrictJsonOptions {
  /** Code of the refusal; `input-invalid` where absent. */
  code?: ErrorCode;
  /** Refuse numbers with a fraction, an exponent, a minus zero or beyond 2^53: canonical JSON has none. */
  integersOnly?: boolean;
}

const depthMax = 64;

/**
 * Reads one JSON value (RFC 8259) from UTF-8 bytes: no byte order mark, no duplicate keys, no half surrogate
 * pairs, at most 64 levels deep. A key named `__proto__` is a plain key.
 */
export function parseStrictJson(bytes: Uint8Array, options: StrictJsonOptions = {}): Result<JsonValue> {
  const code = options.code ?? 'input-invalid';
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    return refuse(code, 'not valid UTF-8');
  }
  try {
    return ok(new Reader(text, code, options.integersOnly ?? false).document());
  } catch (stop) {
    if (stop instanceof Stopped) return { ok: false, refusal: stop.refusal };
    throw stop;
  }
}

/** Carries a refusal out of the reader's recursion; it never leaves parseStrictJson. */
class Stopped extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.detail);
    this.refusal = refusal;
  }
}

const number = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const integer = /^(?:0|-?[1-9][0-9]*)$/;
const words: readonly [string, JsonValue][] = [
  ['true', true],
  ['false', false],
  ['null', null],
];

class Reader {
  readonly #text: string;
  readonly #code: ErrorCode;
  readonly #integersOnly: boolean;
  #at = 0;

  constructor(text: string, code: ErrorCode, integersOnly: boolean) {
    this.#text = text;
    this.#code = code;
    this.#integersOnly = integersOnly;
  }

  document(): JsonValue {
    const value = this.#value(0);
    if (this.#at !== this.#text.length) this.#stop('something follows the value');
    return value;
  }

  #stop(what: string): never {
    const { refusal } = refuse(this.#code, `JSON at character ${this.#at}: ${what}`);
    throw new Stopped(refusal);
  }

  #match(pattern: RegExp): string | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found === undefined) return null;
    this.#at += found.length;
    return found;
  }

  #skipSpace(): void {
    for (;;) {
      const unit = this.#text.charCodeAt(this.#at);
      if (unit !== 0x20 && unit !== 0x09 && unit !== 0x0a && unit !== 0x0d) return;
      this.#at += 1;
    }
  }

  /** Takes the punctuation if it is next, and the space after it. */
  #take(punctuation: string): boolean {
    if (this.#text[this.#at] !== punctuation) return false;
    this.#at += 1;
    this.#skipSpace();
    return true;
  }

  #value(depth: number): JsonValue {
    if (depth > depthMax) this.#stop(`more than ${depthMax} levels deep`);
    this.#skipSpace();
    const value = this.#bareValue(depth);
    this.#skipSpace();
    return value;
  }

  #bareValue(depth: number): JsonValue {
    if (this.#take('{')) return this.#object(depth);
    if (this.#take('[')) return this.#array(depth);
    if (this.#text[this.#at] === '"') return this.#string();
    for (const [word, value] of words) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #object(depth: number): JsonValue {
    const members: { [key: string]: JsonValue } = {};
    if (this.#take('}')) return members;
    do {
      const key = this.#string();
      if (Object.hasOwn(members, key)) this.#stop('a key stands twice in one object');
      this.#skipSpace();
      if (!this.#take(':')) this.#stop('a colon is missing');
      const value = this.#value(depth + 1);
      // Assigning to `__proto__` would change the object's prototype instead of adding a member.
      if (key === '__proto__')
        Object.defineProperty(members, key, { value, enumerable: true, configurable: true, writable: true });
      else members[key] = value;
    } while (this.#take(','));
    if (!this.#take('}')) this.#stop('an object does not end');
    return members;
  }

  #array(depth: number): JsonValue {
    const items: JsonValue[] = [];
    if (this.#take(']')) return items;
    do items.push(this.#value(depth + 1));
    while (this.#take(','));
    if (!this.#take(']')) this.#stop('an array does not end');
    return items;
  }

  #string(): string {
    if (this.#text[this.#at] !== '"') this.#stop('a string is missing');
    const start = this.#at;
    const end = this.#endOfString(start + 1);
    this.#at = end;
    const inside = this.#text.slice(start + 1, end - 1);
    const value = inside.includes('\\') ? this.#unescape(this.#text.slice(start, end)) : inside;
    if (loneSurrogate.test(value)) this.#stop('a string holds half a surrogate pair');
    return value;
  }

  /** Index after the closing quote. */
  #endOfString(from: number): number {
    for (let index = from; index < this.#text.length; index += 1) {
      const unit = this.#text.charCodeAt(index);
      if (unit === 0x22) return index + 1;
      if (unit < 0x20) this.#stop('a string holds a control character');
      if (unit === 0x5c) index += 1;
    }
    return this.#stop('a string does not end');
  }

  /** JSON.parse has one reading of a lone string, so its escapes may be left to it. */
  #unescape(literal: string): string {
    try {
      return String(JSON.parse(literal));
    } catch {
      return this.#stop('a string holds an unknown escape');
    }
  }

  #number(): number {
    const found = this.#match(number);
    if (found === null) this.#stop('no JSON value');
    const value = Number(found);
    if (!Number.isFinite(value)) this.#stop('a number is out of range');
    if (this.#integersOnly && !(integer.test(found) && Number.isSafeInteger(value))) {
      this.#stop('a number is not a plain integer below 2^53');
    }
    return value;
  }
}

/** Whether both are the same bytes as canonical JSON. */
export function isSameJson(a: JsonValue, b: JsonValue): boolean {
  return Buffer.compare(canonicalJson(a), canonicalJson(b)) === 0;
}
