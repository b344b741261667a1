// Why: the cells of one column as they come, before anyone can know what the column is: nine bytes a cell and each
// different text once, from which every cell's text can be had again. Pure.
// Trusts: nothing. Must never: lose how a number was written ("007", "1.50") while its column may yet be one of texts.

/** A cell says in one of these that it has no value. Compared exactly, after trimming. */
export const missingTexts: ReadonlySet<string> = new Set([
  ...['', 'NA', 'N/A', 'NaN', 'nan', 'null', 'None', '?', '-'],
]);

/** More would not fit into one `Map` (2^24 entries), and teach nothing. */
export const textsMax = 8_000_000;

// How a cell was written. Of texts the value is a code into `texts`; a number in plain digits is its value and the
// count of its decimals; one written otherwise ("+5", "007", "1e-05") keeps its text.
const missing = 0;
const text = 1;
const otherNumber = 2;
const otherPoint = 3;
const otherComma = 4;
const plainPoint = 10; // + decimals, 0 to 100
const plainComma = 120; // + decimals, 1 to 100
const decimalsMax = 100; // of Number.prototype.toFixed

const isDigit = (code: number): boolean => code >= 48 && code <= 57;

function digitsEnd(cell: string, from: number): number {
  let at = from;
  while (at < cell.length && isDigit(cell.charCodeAt(at))) at += 1;
  return at;
}

/** How a cell is written: a number with a point, with a comma, or a text. */
function styleOf(cell: string): number {
  const first = cell.charCodeAt(0);
  const start = first === 43 || first === 45 ? 1 : 0;
  const wholeEnd = digitsEnd(cell, start);
  const separator = cell.charCodeAt(wholeEnd);
  const separated = separator === 44 || separator === 46;
  const end = separated ? digitsEnd(cell, wholeEnd + 1) : wholeEnd;
  const decimals = separated ? end - wholeEnd - 1 : 0;
  if (wholeEnd - start + decimals === 0) return text;
  const comma = separated && separator === 44;
  const other = comma ? otherComma : separated ? otherPoint : otherNumber;
  if (end < cell.length) {
    if ((cell.charCodeAt(end) | 32) !== 101) return text;
    const sign = cell.charCodeAt(end + 1);
    const digits = sign === 43 || sign === 45 ? end + 2 : end + 1;
    return digits < cell.length && digitsEnd(cell, digits) === cell.length ? other : text;
  }
  const leadingZero = wholeEnd - start > 1 && cell.charCodeAt(start) === 48;
  const plain = first !== 43 && wholeEnd > start && !leadingZero && (!separated || decimals > 0);
  if (!plain || decimals > decimalsMax) return other;
  return (comma ? plainComma : plainPoint) + decimals;
}

const isComma = (style: number): boolean => style === otherComma || style >= plainComma;
const isPoint = (style: number): boolean =>
  style === otherPoint || (style > plainPoint && style < plainComma);

export const isNumberText = (cell: string): boolean => styleOf(cell) !== text;

export class Cells {
  length = 0;
  /** Cells that are numbers with a decimal point, and with a decimal comma. */
  points = 0;
  commas = 0;
  #values = new Float64Array(16);
  #styles = new Uint8Array(16);
  #texts: string[] = [];
  #codes = new Map<string, number>();

  /** Different texts kept. */
  get texts(): number {
    return this.#texts.length;
  }

  /** @param cell Trimmed. */
  add(cell: string): void {
    if (this.length === this.#values.length) this.#grow();
    const at = this.length;
    this.length += 1;
    if (missingTexts.has(cell)) return; // The arrays begin as zeros, which say missing.
    let style = styleOf(cell);
    if (style !== text) {
      const value = Number(isComma(style) ? cell.replace(',', '.') : cell);
      if (!Number.isFinite(value)) style = text;
      else if (style >= plainPoint && writtenAs(value, style, cell)) this.#values[at] = value;
      else if (style >= plainPoint)
        style = isComma(style) ? otherComma : isPoint(style) ? otherPoint : otherNumber;
    }
    if (style < plainPoint) this.#values[at] = this.#code(cell);
    if (isComma(style)) this.commas += 1;
    else if (isPoint(style)) this.points += 1;
    this.#styles[at] = style;
  }

  isMissing(at: number): boolean {
    return this.#styles[at] === missing;
  }

  /** The number in a cell; NaN where it is missing or none. */
  number(at: number, decimal: '.' | ','): number {
    const style = this.#styles[at] as number;
    if (style <= text || (decimal === '.' ? isComma(style) : isPoint(style))) return Number.NaN;
    const value = this.#values[at] as number;
    if (style >= plainPoint) return value;
    const written = this.#texts[value] as string;
    return Number(style === otherComma ? written.replace(',', '.') : written);
  }

  /** The text of a cell that is not missing, as it stood in the file. */
  text(at: number): string {
    const style = this.#styles[at] as number;
    const value = this.#values[at] as number;
    if (style < plainPoint) return this.#texts[value] as string;
    if (style < plainComma) return value.toFixed(style - plainPoint);
    return value.toFixed(style - plainComma).replace('.', ',');
  }

  #code(cell: string): number {
    const known = this.#codes.get(cell);
    if (known !== undefined) return known;
    this.#codes.set(cell, this.#texts.length);
    return this.#texts.push(cell) - 1;
  }

  #grow(): void {
    const values = new Float64Array(this.#values.length * 2);
    values.set(this.#values);
    this.#values = values;
    const styles = new Uint8Array(this.#styles.length * 2);
    styles.set(this.#styles);
    this.#styles = styles;
  }
}

/** Whether the value and its decimals give the cell again. With 15 digits or fewer a double always does (IEEE 754). */
function writtenAs(value: number, style: number, cell: string): boolean {
  if (value === 0) return cell.charCodeAt(0) !== 45;
  if (cell.length <= 15) return true;
  if (style < plainComma) return value.toFixed(style - plainPoint) === cell;
  return value.toFixed(style - plainComma).replace('.', ',') === cell;
}
