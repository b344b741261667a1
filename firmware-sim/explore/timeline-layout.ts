// Why: where things go in a timeline, apart from how they look. Trusts: its arguments.
// Must never: let two labels of one lane stand on each other.

export interface Box {
  at: number;
  width: number;
  text: string;
}

/** No font is at hand to measure with: somewhat wider than most letters are, twice for those of East Asia. */
export function textWidth(text: string, size: number): number {
  let ems = 0;
  for (const char of text) ems += (char.codePointAt(0) ?? 0) >= 0x1100 ? 1.05 : 0.58;
  return ems * size;
}

export function escapeXml(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: XML 1.0 does not allow these at all
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ud800-\udfff\ufffe\uffff]/gu, '\ufffd')
      .replaceAll('&', '&amp;')
      .replaceAll('<', '&lt;')
      .replaceAll('>', '&gt;')
      .replaceAll('"', '&quot;')
  );
}

/** Lines of at most so many characters, broken between words where there are any. */
export function wrapped(text: string, charsMax: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (const word of paragraph.trim().split(/\s+/)) {
      if (line !== '' && line.length + 1 + word.length > charsMax) {
        lines.push(line);
        line = '';
      }
      line = line === '' ? word : `${line} ${word}`;
      for (; line.length > charsMax; line = line.slice(charsMax)) lines.push(line.slice(0, charsMax));
    }
    if (line !== '') lines.push(line);
  }
  return lines;
}

export type Placed = Box & { row: number; anchorEnd: boolean };

/** Each box in the first row where it touches no other; one that would leave the picture stands before its place. */
export function placed(boxes: readonly Box[], from: number, to: number): { boxes: Placed[]; count: number } {
  const rows: { from: number; to: number }[][] = [];
  const done = boxes.map((box) => {
    const anchorEnd = box.at + box.width > to && box.at - box.width >= from;
    const span = anchorEnd
      ? { from: box.at - box.width, to: box.at }
      : { from: box.at, to: box.at + box.width };
    const free = rows.findIndex((taken) => taken.every((one) => span.to <= one.from || span.from >= one.to));
    const row = free < 0 ? rows.length : free;
    rows[row] = [...(rows[row] ?? []), span];
    return { ...box, row, anchorEnd };
  });
  return { boxes: done, count: rows.length };
}

const second = 1_000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;
const stepsMs = [
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500],
  ...[1, 2, 5, 10, 15, 30].map((n) => n * second),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * minute),
  ...[1, 2, 3, 6, 12].map((n) => n * hour),
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000].map((n) => n * day),
];

/** `1 h 30 min`, `12.5 s`, `3 d 4 h`: two units at most. */
export function timeText(ms: number): string {
  if (ms < second) return `${Math.round(ms)} ms`;
  if (ms < minute) return `${Number((ms / second).toFixed(1))} s`;
  const units: [number, string][] = [
    [day, 'd'],
    [hour, 'h'],
    [minute, 'min'],
    [second, 's'],
  ];
  const at = units.findIndex(([unit]) => ms >= unit);
  const [whole, name] = units[at] ?? [minute, 'min'];
  const [less, lessName] = units[at + 1] ?? [second, 's'];
  const rest = Math.floor((ms % whole) / less);
  return `${Math.floor(ms / whole)} ${name}${rest === 0 ? '' : ` ${rest} ${lessName}`}`;
}

/** At most a dozen round times from 0 on. */
export function timeTicks(spanMs: number): { atMs: number; text: string }[] {
  const step = stepsMs.find((ms) => spanMs / ms <= 11) ?? spanMs / 10;
  const count = Math.floor(spanMs / step);
  return Array.from({ length: count + 1 }, (_, index) => ({
    atMs: index * step,
    text: index === 0 ? '0' : timeText(index * step),
  }));
}
