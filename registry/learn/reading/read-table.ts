// Why: a table of text becomes columns of numbers, times and texts, block by block. Pure.
// Trusts: nothing. Must never: hold the file as strings, or leave out of its report what it changed.

import { Parser } from 'csv-parse';
import { ok, type Refusal, type Result, refuse } from '../../../shared/kernel/result.ts';
import type { Table } from '../table.ts';
import { decimalOf, joinDates, type TypedColumn, typeColumn } from './columns.ts';
import { findDelimiter } from './delimiter.ts';
import { Decoding } from './encoding.ts';
import type { ReadingReport } from './report.ts';
import { Rows } from './rows.ts';

/** Nine bytes each while reading, and as much again when typed: about a gigabyte, what a small server has to spare. */
export const cellsMaxDefault = 50_000_000;
/** Enough for some hundred rows of a wide table. */
const sampleBytes = 262_144;
const blockBytes = 262_144;
/** A longer row is rather a quote that nobody closed. */
const rowBytesMax = 16_777_216;

const malformed = (detail: string): Refusal => refuse('data-malformed', detail).refusal;

/** csv-parse (RFC 4180) writes its rows to `rows` as they end; nothing is queued. */
class Grammar {
  readonly delimiter: ReadingReport['delimiter'];
  #parser: Parser;
  #failure: (Error & { code?: string }) | null = null;
  #failed = (error: Error | null | undefined): void => {
    this.#failure ??= error ?? null;
  };
  #rows: Rows;

  constructor(delimiter: ReadingReport['delimiter'], rows: Rows) {
    this.delimiter = delimiter;
    this.#rows = rows;
    this.#parser = new Parser({
      delimiter,
      record_delimiter: ['\r\n', '\n', '\r'],
      relax_column_count: true,
      trim: true,
      max_record_size: rowBytesMax,
      on_record: (fields: string[], { lines }) => {
        rows.take(fields, lines);
        return null;
      },
    });
    // The callbacks below tell of it first; an error event without a listener would end the process.
    this.#parser.on('error', this.#failed);
    this.#parser.resume(); // It ends only when it is read.
  }

  async push(block: Uint8Array): Promise<Refusal | null> {
    this.#failed(await new Promise((resolve) => this.#parser.write(block, resolve)));
    return this.#state();
  }

  async end(): Promise<Refusal | null> {
    this.#failed(await new Promise((resolve) => this.#parser.end(resolve)));
    return this.#state();
  }

  /** Frees what the parser holds. May be called twice. */
  close(): void {
    this.#parser.destroy();
  }

  /** A row that was refused stands before whatever the grammar found after it. */
  #state(): Refusal | null {
    if (this.#rows.refusal !== null || this.#failure === null) return this.#rows.refusal;
    const line = this.#rows.line;
    switch (this.#failure.code) {
      case 'CSV_QUOTE_NOT_CLOSED':
        return malformed(`a quote is opened in the row at line ${line} and never closed`);
      case 'CSV_INVALID_CLOSING_QUOTE':
      case 'CSV_NON_TRIMABLE_CHAR_AFTER_CLOSING_QUOTE':
        return malformed(
          `in the row at line ${line} text follows a closing quote; write a quote in quotes twice`,
        );
      case 'INVALID_OPENING_QUOTE':
        return malformed(`in the row at line ${line} a quote stands in a field that does not begin with one`);
      case 'CSV_MAX_RECORD_SIZE':
        return malformed(
          `the row at line ${line} is longer than ${rowBytesMax} characters; is a quote not closed?`,
        );
      default:
        throw this.#failure;
    }
  }
}

/** Blocks of bounded size, each with whether it is the last; there is always a last one. */
async function* blocksOf(
  chunks: AsyncIterable<Uint8Array>,
  onProgress: (bytes: number) => void,
): AsyncGenerator<{ block: Uint8Array; last: boolean }> {
  let bytes = 0;
  for await (const chunk of chunks) {
    // Copies: the parser keeps some bytes of a block, and a chunk may be a buffer that its reader fills again.
    for (let at = 0; at < chunk.length; at += blockBytes)
      yield { block: chunk.slice(at, at + blockBytes), last: false };
    bytes += chunk.length;
    onProgress(bytes);
  }
  yield { block: new Uint8Array(0), last: true };
}

/** Everything from bytes to cells. Owns the parser, which is made when enough was seen to know the delimiter. */
class Intake {
  readonly decoding = new Decoding();
  readonly rows: Rows;
  grammar: Grammar | null = null;
  #sample: Uint8Array[] = [];
  #sampled = 0;

  constructor(cellsMax: number) {
    this.rows = new Rows(cellsMax);
  }

  async push(block: Uint8Array, last: boolean): Promise<Refusal | null> {
    const text = this.decoding.push(block, last);
    if (!text.ok) return text.refusal;
    if (this.grammar !== null) {
      const refusal = await this.grammar.push(text.value);
      return refusal ?? (last ? await this.grammar.end() : null);
    }
    this.#sample.push(text.value);
    this.#sampled += text.value.length;
    if (this.#sampled < sampleBytes && !last) return null;
    return this.#begin(last);
  }

  async #begin(last: boolean): Promise<Refusal | null> {
    const decoder = new TextDecoder();
    const sample = this.#sample.map((bytes) => decoder.decode(bytes, { stream: true })).join('');
    const grammar = new Grammar(findDelimiter(sample, last), this.rows);
    this.grammar = grammar;
    for (const bytes of this.#sample.splice(0)) {
      const refusal = await grammar.push(bytes);
      if (refusal !== null) return refusal;
    }
    return last ? grammar.end() : null;
  }
}

/** The name of each column that is kept, by position; null for one with neither name nor value. */
function namesOf(header: string[], { columns }: Rows): { names: (string | null)[]; unnamed: number[] } {
  const unnamed: number[] = [];
  const taken = new Set(header);
  const names = header.map((name, index) => {
    if (name !== '') return name;
    const cells = columns[index];
    let empty = true;
    for (let at = 0; cells !== undefined && empty && at < cells.length; at += 1) empty = cells.isMissing(at);
    if (empty) return null;
    unnamed.push(index + 1);
    let made = `column ${index + 1}`;
    while (taken.has(made)) made += '’';
    taken.add(made);
    return made;
  });
  return { names, unnamed };
}

function tableOf(intake: Intake, header: string[]): { table: Table; report: ReadingReport } {
  const { rows, decoding } = intake;
  const delimiter = intake.grammar?.delimiter ?? ',';
  const decimal = decimalOf(rows.columns, delimiter);
  const { names, unnamed } = namesOf(header, rows);
  const typed: TypedColumn[] = [];
  const emptyColumns: number[] = [];
  const lines = rows.lines;
  for (const [index, name] of names.entries()) {
    // Cells are given up column by column, as they are copied into the table.
    const [cells] = rows.columns.splice(0, 1);
    if (name === null || cells === undefined) emptyColumns.push(index + 1);
    else typed.push(typeColumn(name, cells, decimal, lines));
  }
  const { columns, joined } = joinDates(typed);
  return {
    table: { rows: rows.rows, columns: columns.map(({ column }) => column) },
    report: {
      encoding: decoding.encoding,
      byteOrderMark: decoding.byteOrderMark,
      delimiter,
      decimal,
      rows: rows.rows,
      blankRows: rows.blankRows,
      raggedRows: { short: rows.short, long: rows.long },
      emptyColumns,
      unnamedColumns: unnamed,
      joinedColumns: joined,
      columns: columns.map(({ reading }) => reading),
    },
  };
}

/**
 * Reads CSV text (RFC 4180): delimiter, encoding, decimal sign and the kind of each column are found from the data,
 * and the report says what was found. The first line that is not blank must name the columns.
 * Memory: about twice nine bytes a cell, and each different text of a column once.
 * Refusals: `data-malformed` (with line and reason), `data-too-large` (with the limit). Errors of `chunks` are thrown.
 *
 * @param options.cellsMax Rows × columns of the file; reading stops at the first row beyond.
 * @param options.onProgress Bytes read so far, after each chunk.
 */
export async function readTable(
  chunks: AsyncIterable<Uint8Array>,
  options: { cellsMax?: number; onProgress?: (bytes: number) => void } = {},
): Promise<Result<{ table: Table; report: ReadingReport }>> {
  const intake = new Intake(options.cellsMax ?? cellsMaxDefault);
  try {
    for await (const { block, last } of blocksOf(chunks, options.onProgress ?? (() => undefined))) {
      const refusal = await intake.push(block, last);
      if (refusal !== null) return { ok: false, refusal };
    }
  } finally {
    intake.grammar?.close();
  }
  const { header, rows } = intake.rows;
  if (header === null) return refuse('data-malformed', 'the file is empty');
  if (rows === 0) return refuse('data-malformed', 'the file names columns and has no row below them');
  return ok(tableOf(intake, header));
}
