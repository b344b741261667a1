// Why: how many cells of a terminal a text takes: Chinese characters take two, combining marks none.
// Trusts: nothing. Must never: be used for more than alignment: terminals differ about emoji and ambiguous signs.
// Source: Unicode Standard Annex 11 (East Asian Width), classes W and F; ambiguous ones count as one.

/** First and last code points of blocks that are wide, in order. */
const wide: readonly (readonly [number, number])[] = [
  [0x1100, 0x115f], // Hangul Jamo
  [0x2e80, 0x303e], // radicals, CJK punctuation
  [0x3041, 0x33ff], // kana, bopomofo, CJK compatibility
  [0x3400, 0x4dbf], // CJK extension A
  [0x4e00, 0x9fff], // CJK
  [0xa000, 0xa4cf], // Yi
  [0xa960, 0xa97c], // Hangul Jamo extended A
  [0xac00, 0xd7a3], // Hangul
  [0xf900, 0xfaff], // CJK compatibility ideographs
  [0xfe10, 0xfe19], // vertical forms
  [0xfe30, 0xfe6f], // CJK compatibility forms
  [0xff01, 0xff60], // full-width forms
  [0xffe0, 0xffe6],
  [0x1f300, 0x1f64f], // pictographs
  [0x1f900, 0x1f9ff],
  [0x20000, 0x3fffd], // CJK extensions B and later
];

function isWide(codePoint: number): boolean {
  if (codePoint < 0x1100) return false;
  let low = 0;
  let high = wide.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const [first, last] = wide[middle] ?? [0, 0];
    if (codePoint < first) high = middle - 1;
    else if (codePoint > last) low = middle + 1;
    else return true;
  }
  return false;
}

const noCell = /^[\p{Mn}\p{Me}\p{Cf}\p{Cc}]$/u;

/** Cells of a terminal. */
export function displayWidth(text: string): number {
  let cells = 0;
  for (const sign of text) {
    const codePoint = sign.codePointAt(0) ?? 0;
    // Most of what is measured is ASCII.
    if (codePoint >= 0x20 && codePoint < 0x7f) cells += 1;
    else if (!noCell.test(sign)) cells += isWide(codePoint) ? 2 : 1;
  }
  return cells;
}

/** Spaces behind a text until it takes that many cells. */
export function padCells(text: string, cells: number): string {
  return text + ' '.repeat(Math.max(0, cells - displayWidth(text)));
}

/** What may not begin a line in Chinese typesetting, nor stand alone. */
const closing = /^[，。；：、！？）》」』】”’…]$/u;

const opening = /[（《「『【“‘]$/u;

/** Lines of at most that many cells: broken at spaces, and between wide characters. */
export function wrapCells(text: string, cells: number): string[] {
  const pieces: string[] = [];
  for (const sign of text) {
    const last = pieces.at(-1);
    const breaks = sign === ' ' || (isWide(sign.codePointAt(0) ?? 0) && !closing.test(sign));
    const after = last !== undefined && (last === ' ' || isWide(last.codePointAt(0) ?? 0));
    if (last === undefined || (!opening.test(last) && (breaks || (after && !closing.test(sign)))))
      pieces.push(sign);
    else pieces[pieces.length - 1] = last + sign;
  }
  const lines: string[] = [];
  let line = '';
  for (const piece of pieces) {
    if (line !== '' && displayWidth(line) + displayWidth(piece) > cells) {
      lines.push(line.trimEnd());
      line = piece === ' ' ? '' : piece;
    } else line += piece;
  }
  return [...lines, line.trimEnd()];
}
