// Why: what the CLI prints: one JSON document with --json, else aligned text; logs and errors on stderr.
// Trusts: its caller. Must never: mix prose into stdout when --json is given.

import { speaker } from '../../shared/host/speech.ts';
import { displayWidth, padCells } from '../../shared/wire/display-width.ts';
import type { Speaker } from '../../shared/wire/languages.ts';

export interface Output {
  json: boolean;
}

export function print(output: Output, document: unknown, text: () => string): void {
  process.stdout.write(output.json ? `${JSON.stringify(document)}\n` : `${spoken(text())}\n`);
}

/** What a person should know besides the result: on stderr. */
export function note(text: string): void {
  process.stderr.write(spoken(text));
}

/** Stands before lines that are not said once more, such as a table's: its cells were said one by one. */
const done = '\u2060';

/** A line of names, or one that was said already. */
export const saidLine = (line: string): string => (speaker().language === 'en' ? line : `${done}${line}`);

/** What is printed for a person, in the language of this process. */
export function spoken(text: string): string {
  const { language, lines } = speaker();
  if (language === 'en') return text;
  return text
    .split('\n')
    .map((line) => (line.startsWith(done) ? line.slice(done.length) : lines(line)))
    .join('\n');
}

/** What a person typed: shown as it is, also where the column holds words of ours. */
export interface Typed {
  typed: string;
}

export const asTyped = (text: string): Typed => ({ typed: text.replace(/\s+/g, ' ') });

export type Cell = string | Typed;

/** Columns whose cells are our own words and reasons; all others hold names and numbers. */
const saidColumns: ReadonlySet<string> = new Set([
  ...['STATE', 'STATUS', 'PRESENCE', 'STANDING', 'VERDICT', 'NOW', 'REASON', 'BECAUSE', 'WAITS FOR'],
  ...['DETAIL', 'WHAT', 'BECAME', 'APPROVED', 'WHY', 'WHERE', 'WAY', 'SOURCE', 'METADATA', 'MUST SIGN'],
  ...['UPDATE', 'ADMITTED', 'ROLLOUT', 'COMMITTED', 'MODEL SAYS', 'MACHINE', 'THIS ONE', 'AT LEAST'],
  ...['DEVICE HOLDS', 'FETCHES', 'LINE', 'OUTCOME', 'SAYS', 'KEPT', 'PART', 'DRIFT', 'BINS TOLD', 'DEVICES'],
  ...['GATE FAILED', 'LAST HEARD', 'ONLINE KEYS', 'OTHER REGIONS', 'NEWEST', 'CODES', 'FAILURES'],
  ...['REASONS', 'THRESHOLD', ''],
]);

/** `fetching 40%`, `failed: code`, `refused (code)`, one word, or a sentence. */
function saidCell(cell: string, { say, word }: Speaker): string {
  const share = /^([a-z-]+) (\d+%)$/.exec(cell);
  if (share !== null) return `${word(share[1] ?? '')} ${share[2]}`;
  const coded = /^([a-z-]+)(?:: ([a-z-]+)| \(([a-z-]+)\))$/.exec(cell);
  if (coded !== null) return `${word(coded[1] ?? '')}（${coded[2] ?? coded[3]}）`;
  if (!cell.includes(' ')) return word(cell);
  const said = say(cell);
  // A list of words and messages, where it is no message as a whole.
  if (said !== cell || !cell.includes(', ')) return said;
  return cell
    .split(', ')
    .map((part) => (part.includes(' ') ? say(part) : word(part)))
    .join('、');
}

/** Columns padded to their widest cell, as a terminal shows them. */
export function table(head: string[], rows: Cell[][]): string {
  if (rows.length === 0) return speaker().word('(none)');
  const voice = speaker();
  const isEnglish = voice.language === 'en';
  const shown = (cell: Cell, column: number): string => {
    if (isEnglish || typeof cell !== 'string') return typeof cell === 'string' ? cell : cell.typed;
    return saidColumns.has(head[column] ?? '') || /^\(.*\)$/.test(cell) ? saidCell(cell, voice) : cell;
  };
  const all = [head.map((name) => voice.word(name)), ...rows.map((row) => row.map(shown))];
  const widths = head.map((_, column) => Math.max(...all.map((row) => displayWidth(row[column] ?? ''))));
  return all
    .map((row) => {
      const line = row.map((cell, column) => padCells(cell, widths[column] ?? 0)).join('  ');
      return saidLine(line.trimEnd());
    })
    .join('\n');
}

/** Between releases that switch together. */
export const withWord = (): string => ` ${speaker().word('with')} `;

export function when(timeMs: number | null): string {
  return timeMs === null ? '-' : new Date(timeMs).toISOString().replace('.000Z', 'Z');
}

export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = -1;
  do {
    value /= 1024;
    unit += 1;
  } while (value >= 1024 && unit < units.length - 1);
  return `${value.toFixed(1)} ${units[unit]}`;
}

/**
 * Writes to stdout at the pace of who reads it. False once nobody does any more (`… | head`), which is no
 * failure: there is nothing left to do.
 */
export function writeOut(text: string): Promise<boolean> {
  const { stdout } = process;
  return new Promise((resolve, reject) => {
    const settled = (error: NodeJS.ErrnoException | null | undefined): void => {
      stdout.off('error', settled);
      if (error === null || error === undefined) resolve(true);
      else if (error.code === 'EPIPE') {
        // Whatever is still buffered fails the same way.
        stdout.on('error', () => undefined);
        resolve(false);
      } else reject(error);
    };
    // Without a listener the stream's error would end the process before the callback is asked.
    stdout.on('error', settled);
    stdout.write(text, settled);
  });
}
