// Why: bytes of a file become UTF-8, whatever they were, before the grammar of the table is looked at. Pure.
// Trusts: nothing. Must never: guess between two encodings that both left traces in one file.

import { ok, type Result, refuse } from '../../../shared/kernel/result.ts';

export type Encoding = 'utf-8' | 'utf-16le' | 'utf-16be' | 'windows-1252';

/** Of windows-1252, the bytes 0x80 to 0x9f (WHATWG Encoding, "index-windows-1252"); all others are Latin-1. */
const windows1252 = [
  ...[0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d],
  ...[
    0x17d, 0x8f, 0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a,
  ],
  ...[0x153, 0x9d, 0x17e, 0x178],
];

/** The bounds of the second byte after a leading one, and how many bytes follow it (RFC 3629 §4). */
function sequence(lead: number): { length: number; from: number; to: number } | null {
  if (lead >= 0xc2 && lead <= 0xdf) return { length: 2, from: 0x80, to: 0xbf };
  if (lead >= 0xe0 && lead <= 0xef)
    return { length: 3, from: lead === 0xe0 ? 0xa0 : 0x80, to: lead === 0xed ? 0x9f : 0xbf };
  if (lead >= 0xf0 && lead <= 0xf4)
    return { length: 4, from: lead === 0xf0 ? 0x90 : 0x80, to: lead === 0xf4 ? 0x8f : 0xbf };
  return null;
}

/** How far the bytes are whole characters of UTF-8, and why it ends there. */
function scanUtf8(bytes: Uint8Array): {
  end: number;
  ended: 'all' | 'unfinished' | 'invalid';
  ascii: boolean;
} {
  let at = 0;
  let ascii = true;
  while (at < bytes.length) {
    const lead = bytes[at] as number;
    if (lead < 0x80) {
      at += 1;
      continue;
    }
    const expected = sequence(lead);
    if (expected === null) return { end: at, ended: 'invalid', ascii };
    for (let next = 1; next < expected.length; next += 1) {
      const byte = bytes[at + next];
      if (byte === undefined) return { end: at, ended: 'unfinished', ascii };
      const from = next === 1 ? expected.from : 0x80;
      const to = next === 1 ? expected.to : 0xbf;
      if (byte < from || byte > to) return { end: at, ended: 'invalid', ascii };
    }
    at += expected.length;
    ascii = false;
  }
  return { end: at, ended: 'all', ascii };
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.length === 0) return second;
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

function fromWindows1252(bytes: Uint8Array): Uint8Array {
  const units = new Uint16Array(bytes.length);
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] as number;
    units[at] = byte >= 0x80 && byte <= 0x9f ? (windows1252[byte - 0x80] as number) : byte;
  }
  // Not Node's own windows-1252: some versions that we run on read it as Latin-1.
  return new TextEncoder().encode(new TextDecoder('utf-16le', { ignoreBOM: true }).decode(units));
}

/**
 * UTF-8 with or without a byte-order mark, UTF-16 with one, and where bytes are no UTF-8, windows-1252. Which it is
 * may show only late in the file: up to there every byte must have been ASCII, which is the same in both.
 */
export class Decoding {
  encoding: Encoding = 'utf-8';
  byteOrderMark = false;
  #held: Uint8Array = new Uint8Array(0);
  #begun = false;
  #ascii = true;
  #utf16: InstanceType<typeof TextDecoder> | null = null;
  #line = 1;

  /**
   * The next bytes as UTF-8; a character cut by the end of the block is kept for the next one.
   * Refusal: `data-malformed` for a NUL (a binary file) and for bytes that are in no one encoding.
   */
  push(block: Uint8Array, last: boolean): Result<Uint8Array> {
    let bytes = joined(this.#held, block);
    this.#held = new Uint8Array(0);
    if (!this.#begun) {
      if (bytes.length < 3 && !last) {
        this.#held = bytes.slice();
        return ok(new Uint8Array(0));
      }
      bytes = this.#begin(bytes);
    }
    const text = this.#decode(bytes, last);
    if (!text.ok) return text;
    const nul = text.value.indexOf(0);
    if (nul === -1) {
      this.#line += linesIn(text.value);
      return text;
    }
    const line = this.#line + linesIn(text.value.subarray(0, nul));
    return refuse(
      'data-malformed',
      `line ${line} holds a NUL byte: this is a binary file, or UTF-16 without a byte-order mark; give CSV text`,
    );
  }

  #begin(bytes: Uint8Array): Uint8Array {
    this.#begun = true;
    const [a, b, c] = bytes;
    if (a === 0xef && b === 0xbb && c === 0xbf) {
      this.byteOrderMark = true;
      this.#ascii = false; // It says what it is: nothing else will be tried.
      return bytes.subarray(3);
    }
    if ((a === 0xff && b === 0xfe) || (a === 0xfe && b === 0xff)) {
      this.byteOrderMark = true;
      this.encoding = a === 0xff ? 'utf-16le' : 'utf-16be';
      this.#utf16 = new TextDecoder(this.encoding, { fatal: true, ignoreBOM: true });
      return bytes.subarray(2);
    }
    return bytes;
  }

  #decode(bytes: Uint8Array, last: boolean): Result<Uint8Array> {
    if (this.#utf16 !== null) {
      try {
        return ok(new TextEncoder().encode(this.#utf16.decode(bytes, { stream: !last })));
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        return refuse('data-malformed', `after line ${this.#line}: not valid ${this.encoding.toUpperCase()}`);
      }
    }
    if (this.encoding === 'windows-1252') return ok(fromWindows1252(bytes));
    const { end, ended, ascii } = scanUtf8(bytes);
    if (ended === 'unfinished' && !last) {
      this.#held = bytes.slice(end);
      this.#ascii &&= ascii;
      return ok(bytes.subarray(0, end));
    }
    if (ended === 'all') {
      this.#ascii &&= ascii;
      return ok(bytes);
    }
    if (this.#ascii && ascii) {
      this.encoding = 'windows-1252';
      return ok(fromWindows1252(bytes));
    }
    const line = this.#line + linesIn(bytes.subarray(0, end));
    return refuse(
      'data-malformed',
      `line ${line} holds bytes that are no UTF-8, though the file before them is; save it in one encoding`,
    );
  }
}

function linesIn(bytes: Uint8Array): number {
  let lines = 0;
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) lines += 1;
  return lines;
}
