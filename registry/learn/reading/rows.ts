// Why: rows of fields, one after another, become a header and cells by column. Pure.
// Trusts: that fields were cut by the grammar of CSV. Must never: keep a row as strings, or drop a value uncounted.

import { type Refusal, refuse } from '../../../shared/kernel/result.ts';
import { Cells, isNumberText, textsMax } from './cells.ts';

/** A row of more would be no table of measurements; each column costs some hundred bytes. */
export const columnsMax = 16_384;

export class Rows {
  header: string[] | null = null;
  columns: Cells[] = [];
  rows = 0;
  blankRows = 0;
  short = 0;
  long = 0;
  /** The first thing that was wrong; what follows is ignored. */
  refusal: Refusal | null = null;
  /** Where the next row begins. */
  line = 1;
  #cellsMax: number;
  #lines = new Int32Array(64);
  #linesSeen = 0;

  constructor(cellsMax: number) {
    this.#cellsMax = cellsMax;
  }

  /** Of each row, the line on which it began. */
  get lines(): Int32Array {
    return this.#lines.subarray(0, this.rows);
  }

  /** @param linesSeen What the parser counted as lines up to the end of this row. */
  take(fields: string[], linesSeen: number): void {
    if (this.refusal !== null) return;
    const line = this.line;
    let passed = linesSeen - this.#linesSeen;
    this.#linesSeen = linesSeen;
    // In quotes the parser counts CR LF as two lines.
    if (passed > 1) for (const field of fields) passed -= field.split('\r\n').length - 1;
    this.line += passed;
    let width = fields.length;
    for (let at = 0; at < fields.length; at += 1) fields[at] = (fields[at] as string).trim();
    while (width > 0 && fields[width - 1] === '') width -= 1;
    if (width === 0) this.blankRows += 1;
    else if (this.header === null) this.#takeHeader(fields, line);
    else this.#takeRow(fields, width, this.header.length, line);
  }

  #takeHeader(header: string[], line: number): void {
    this.header = header;
    const names = header.filter((name) => name !== '');
    const seen = new Set<string>();
    const twice = names.find((name) => seen.size === seen.add(name).size);
    if (header.length > columnsMax)
      this.#refuse(
        'data-too-large',
        `line ${line} names ${header.length} columns; the limit is ${columnsMax}`,
      );
    else if (names.every(isNumberText))
      this.#refuse('data-malformed', `line ${line} holds numbers only; the first line must name the columns`);
    else if (twice !== undefined)
      this.#refuse('data-malformed', `line ${line} names two columns "${twice}"; each needs its own name`);
    else this.columns = header.map(() => new Cells());
  }

  #takeRow(fields: string[], width: number, expected: number, line: number): void {
    if (width > expected) {
      this.#refuse('data-malformed', `line ${line} has ${width} fields, the header names ${expected}`);
      return;
    }
    if ((this.rows + 1) * expected > this.#cellsMax) {
      this.#refuse('data-too-large', `more than ${this.#cellsMax} cells, at line ${line}; that is the limit`);
      return;
    }
    if (fields.length < expected) this.short += 1;
    if (fields.length > expected) this.long += 1;
    for (const [at, column] of this.columns.entries()) {
      column.add(fields[at] ?? '');
      if (column.texts <= textsMax) continue;
      const name = this.header?.[at];
      this.#refuse('data-too-large', `column "${name}" has more than ${textsMax} different texts`);
      return;
    }
    this.#keepLine(line);
    this.rows += 1;
  }

  #keepLine(line: number): void {
    if (this.rows === this.#lines.length) {
      const lines = new Int32Array(this.#lines.length * 2);
      lines.set(this.#lines);
      this.#lines = lines;
    }
    this.#lines[this.rows] = line;
  }

  #refuse(code: 'data-malformed' | 'data-too-large', detail: string): void {
    this.refusal = refuse(code, detail).refusal;
  }
}
