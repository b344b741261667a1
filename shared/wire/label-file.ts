// Why: files of labels as people have them: NDJSON, or CSV as spreadsheets write it.
// Trusts: nothing before the schema. Must never: import half of a file that has a wrong line.

import { ok, type Result, refuse } from '../kernel/result.ts';
import { describeIssues } from './messages.ts';
import { classText, type LabelLine, labelLineSchema } from './quality.ts';

/** Cells of one file (RFC 4180): quotes may hold commas, line feeds and doubled quotes. Null where a quote stays open. */
function cellsOf(text: string): { line: number; cells: string[] }[] | null {
  const rows: { line: number; cells: string[] }[] = [];
  let [cells, cell, line, from, quoted] = [[] as string[], '', 1, 1, false];
  for (let at = 0; at <= text.length; at += 1) {
    const letter = text[at];
    if (quoted) {
      if (letter === undefined) return null;
      if (letter === '\n') line += 1;
      if (letter !== '"') cell += letter;
      else if (text[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else quoted = false;
    } else if (letter === '"' && cell === '') quoted = true;
    else if (letter === ',') {
      cells.push(cell);
      cell = '';
    } else if (letter === '\n' || letter === undefined) {
      const row = [...cells, cell.replace(/\r$/, '')];
      if (row.length > 1 || row[0] !== '') rows.push({ line: from, cells: row });
      [cells, cell] = [[], ''];
      line += 1;
      from = line;
    } else cell += letter;
  }
  return rows;
}

function csvLines(text: string): Result<{ line: number; body: unknown }[]> {
  const rows = cellsOf(text);
  if (rows === null) return refuse('input-invalid', 'a quote is not closed');
  const [head, ...rest] = rows;
  const names = head?.cells.map((name) => name.trim()) ?? [];
  if (!names.includes('label') || !(names.includes('id') || names.includes('requestId')))
    return refuse('input-invalid', 'the first line of a CSV file must name id (or requestId) and label');
  return ok(
    rest.map(({ line, cells }) => ({
      line,
      body: Object.fromEntries(
        names.flatMap((name, at) => {
          const cell = cells[at]?.trim() ?? '';
          if (cell === '') return [];
          return [[name, name === 'time' && /^\d+$/.test(cell) ? Number(cell) : cell] as const];
        }),
      ),
    })),
  );
}

function jsonLines(text: string): Result<{ line: number; body: unknown }[]> {
  const lines: { line: number; body: unknown }[] = [];
  for (const [at, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    try {
      lines.push({ line: at + 1, body: JSON.parse(line) });
    } catch (error) {
      return refuse('input-invalid', `line ${at + 1}: ${error instanceof Error ? error.message : 'no JSON'}`);
    }
  }
  return ok(lines);
}

/** NDJSON where the first letter is a brace, else CSV. Refusal: `input-invalid`, naming the line. */
export function parseLabelFile(bytes: Uint8Array): Result<LabelLine[]> {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    return refuse('input-invalid', error instanceof Error ? error.message : 'no UTF-8 text');
  }
  const lines = text.trimStart().startsWith('{') ? jsonLines(text) : csvLines(text);
  if (!lines.ok) return lines;
  const labels: LabelLine[] = [];
  for (const { line, body } of lines.value) {
    const parsed = labelLineSchema.safeParse(body);
    if (!parsed.success) return refuse('input-invalid', `line ${line}: ${describeIssues(parsed.error)}`);
    const { id, requestId = id, label, time } = parsed.data;
    const timeMs = time === undefined ? null : typeof time === 'number' ? time : Date.parse(time);
    labels.push({ requestId: requestId ?? '', label: classText(label), timeMs });
  }
  return ok(labels);
}
