// Why: which character stands between the fields, found from the first lines. Pure.
// Trusts: nothing. Must never: count what stands in quotes.

import type { ReadingReport } from './report.ts';

type Delimiter = ReadingReport['delimiter'];

/** The comma last: it also stands in numbers, so of two that fit alike it is the weaker sign. */
const candidates: Delimiter[] = [';', '\t', '|', ','];

/** Fields of each row by each candidate, rows without text left out. A row cut off at the end is not counted. */
function countFields(sample: string, whole: boolean, rowsMax: number): number[][] {
  const rows: number[][] = [];
  let fields = candidates.map(() => 1);
  let quoted = false;
  let blank = true;
  for (const character of sample) {
    if (character === '"') quoted = !quoted;
    if (!quoted && (character === '\n' || character === '\r')) {
      if (!blank) rows.push(fields);
      if (rows.length === rowsMax) return rows;
      fields = candidates.map(() => 1);
      blank = true;
      continue;
    }
    const which = quoted ? -1 : candidates.indexOf(character as Delimiter);
    if (which !== -1) fields[which] = (fields[which] as number) + 1;
    else if (character.trim() !== '') blank = false;
  }
  // Of one long row the beginning must do.
  if (!blank && (whole || rows.length === 0)) rows.push(fields);
  return rows;
}

/**
 * The candidate that cuts the most rows into as many fields as the header; of equal ones that which makes more fields.
 * A comma where none cuts the header: the table has one column.
 *
 * @param sample The beginning of the file; `whole` says that it is all of it.
 */
export function findDelimiter(sample: string, whole: boolean): Delimiter {
  const [header, ...rows] = countFields(sample, whole, 200);
  let best: { delimiter: Delimiter; alike: number; fields: number } | null = null;
  for (const [index, delimiter] of candidates.entries()) {
    const fields = header?.[index] ?? 1;
    if (fields < 2) continue;
    const alike = rows.filter((row) => row[index] === fields).length;
    if (best === null || alike > best.alike || (alike === best.alike && fields > best.fields))
      best = { delimiter, alike, fields };
  }
  return best?.delimiter ?? ',';
}
