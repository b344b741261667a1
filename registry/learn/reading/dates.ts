// Why: dates and times of day as people and programs write them become Unix milliseconds. Pure.
// Trusts: nothing. Must never: read a date that no calendar has, or mix two ways of writing in one column.

export interface DateReading {
  /** `DD/MM/YYYY HH.MM.SS`. */
  format: string;
  part: 'date' | 'clock' | 'both';
  /** No text told day from month. */
  dayFirstGuessed: boolean;
  /** Of each text, Unix milliseconds (to the microsecond); of a time of day alone, milliseconds since midnight. */
  times: Float64Array;
}

interface Way {
  date: string;
  pattern: RegExp;
  /** Which of the three numbers is year, month, day; null: the first two are told apart by what they are. */
  order: [number, number, number] | null;
}

const clock = '(\\d{1,2})([:.])(\\d{2})(?:\\5(\\d{2})(?:[.,](\\d{1,9}))?)?';
const zone = '( ?(?:Z|[+-]\\d{2}(?::?\\d{2})?))?';
const dated = (date: string, zoned = false): RegExp =>
  new RegExp(`^${date}(?:[T ]${clock}${zoned ? zone : ''})?$`, 'i');

const ways: Way[] = [
  // ISO 8601, and RFC 3339 with its space.
  { date: 'YYYY-MM-DD', pattern: dated('(\\d{4})-(\\d{1,2})-(\\d{1,2})', true), order: [0, 1, 2] },
  { date: 'YYYY/MM/DD', pattern: dated('(\\d{4})/(\\d{1,2})/(\\d{1,2})'), order: [0, 1, 2] },
  { date: 'DD/MM/YYYY', pattern: dated('(\\d{1,2})/(\\d{1,2})/(\\d{4})'), order: null },
  { date: 'DD.MM.YYYY', pattern: dated('(\\d{1,2})\\.(\\d{1,2})\\.(\\d{4})'), order: [2, 1, 0] },
  { date: '', pattern: new RegExp(`^()()()${clock}$`), order: [0, 1, 2] },
];

/** Days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant, "days_from_civil"); NaN for no such day. */
function daysOf(year: number, month: number, day: number): number {
  const leap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const long = month === 2 ? (leap ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31;
  if (month < 1 || month > 12 || day < 1 || day > long) return Number.NaN;
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

/** Groups 4, 6, 7 and 8 of a match, in milliseconds since midnight; 0 where it has no time of day. */
function clockOf(match: RegExpExecArray): number {
  if (match[4] === undefined) return 0;
  const [hours, minutes, seconds] = [Number(match[4]), Number(match[6]), Number(match[7] ?? 0)];
  if (hours > 23 || minutes > 59 || seconds > 59) return Number.NaN;
  const fraction = match[8] === undefined ? 0 : Math.round(Number(`0.${match[8]}`) * 1e6) / 1e3;
  return ((hours * 60 + minutes) * 60 + seconds) * 1000 + fraction;
}

function zoneOf(text: string | undefined): number {
  const match = /([+-])(\d{2}):?(\d{2})?/.exec(text ?? '');
  if (match === null) return 0;
  const [hours, minutes] = [Number(match[2]), Number(match[3] ?? 0)];
  if (hours > 23 || minutes > 59) return Number.NaN;
  return (match[1] === '-' ? -1 : 1) * (hours * 60 + minutes) * 60_000;
}

/** Day and month by a number above 12, over all texts; null where both numbers are above 12 somewhere. */
function dayAndMonth(
  texts: readonly string[],
  pattern: RegExp,
): { dayFirst: boolean; guessed: boolean } | null {
  let [first, second] = [0, 0];
  for (const text of texts) {
    const match = pattern.exec(text);
    first = Math.max(first, Number(match?.[1] ?? 0));
    second = Math.max(second, Number(match?.[2] ?? 0));
  }
  if (first > 12 && second > 12) return null;
  return { dayFirst: second <= 12, guessed: first <= 12 && second <= 12 };
}

/** What the texts of a column have besides a date. */
interface Seen {
  clock: boolean;
  seconds: boolean;
  fraction: boolean;
  zone: boolean;
  separator: string;
}

function formatOf(date: string, seen: Seen): string {
  if (!seen.clock) return date;
  const { separator } = seen;
  const seconds = seen.seconds ? `${separator}SS${seen.fraction ? '.f' : ''}` : '';
  return `${date} HH${separator}MM${seconds}${seen.zone ? ' and zone' : ''}`.trim();
}

/**
 * The texts as times, where every one is written in the same of these ways: ISO 8601 (with `T` or space, with or
 * without zone and fraction), `YYYY/M/D`, `DD/MM/YYYY` or `MM/DD/YYYY`, `DD.MM.YYYY`, each with or without a time of
 * day, or a time of day alone (`HH:MM:SS`, `HH.MM.SS`, `HH:MM`). Without a zone they are UTC. Null otherwise.
 */
export function readDates(texts: readonly string[]): DateReading | null {
  const way = ways.find(({ pattern }) => pattern.test(texts[0] ?? ''));
  if (way === undefined) return null;
  const told = way.order === null ? dayAndMonth(texts, way.pattern) : { dayFirst: true, guessed: false };
  if (told === null) return null;
  const [y, m, d] = way.order ?? (told.dayFirst ? [2, 1, 0] : [2, 0, 1]);
  const times = new Float64Array(texts.length);
  const seen: Seen = { clock: false, seconds: false, fraction: false, zone: false, separator: ':' };
  for (const [index, text] of texts.entries()) {
    const match = way.pattern.exec(text);
    if (match === null) return null;
    const days =
      way.date === '' ? 0 : daysOf(Number(match[1 + y]), Number(match[1 + m]), Number(match[1 + d]));
    const time = days * 86_400_000 + clockOf(match) - zoneOf(match[9]);
    if (Number.isNaN(time)) return null;
    times[index] = time;
    seen.clock ||= match[4] !== undefined;
    seen.seconds ||= match[7] !== undefined;
    seen.fraction ||= match[8] !== undefined;
    seen.zone ||= match[9] !== undefined;
    seen.separator = match[5] ?? seen.separator;
  }
  const date = way.order === null && !told.dayFirst ? 'MM/DD/YYYY' : way.date;
  return {
    format: formatOf(date, seen),
    part: way.date === '' ? 'clock' : seen.clock ? 'both' : 'date',
    dayFirstGuessed: told.guessed,
    times,
  };
}
