// Why: finds which message of the catalogues an English text is, and with which values, so that it can be said in
// another language wherever it comes from: this process, the database, a device's report, a registry of another version.
// Trusts: the catalogues' keys. Must never: take time that grows faster than text times keys: texts come from anyone.

type Piece = { text: string } | { hole: string };

interface Phrase {
  key: string;
  /** Text before the first value, between values, and after the last. */
  literals: string[];
  holes: string[];
  /** Letters of its own, and more for a label; the more, the less likely it is met by chance. */
  weight: number;
  /** Characters of its own. */
  length: number;
}

export interface Recognised {
  key: string;
  values: Record<string, string>;
}

/** A line of a description, as `agent     0.1.0 on x64`: told by its label alone. */
const label = /^\p{L}+ {2,}/u;

/** Below this, values must be names: `{$a} of {$b}` fits half of all sentences. */
const weightMin = 8;
/** One that begins with such a word is told by it, and its last value may be more. */
const openingMin = 4;

const lettersOf = (text: string): number => text.replace(/[^\p{L}]/gu, '').length;

/** Between words of one sentence stands no second sentence, nor the end of a first one. */
const twoSentences = /: |; |\n/;

/** `\{` is a brace of the text, `{$a}` the place of a value. */
function piecesOf(key: string): Piece[] {
  const pieces: Piece[] = [];
  let text = '';
  for (let at = 0; at < key.length; at += 1) {
    const sign = key[at] ?? '';
    const hole = sign === '{' ? /^\{\$(\w+)\}/.exec(key.slice(at, at + 16)) : null;
    if (sign === '\\' && at + 1 < key.length) {
      at += 1;
      text += key[at];
    } else if (hole !== null) {
      pieces.push({ text }, { hole: hole[1] ?? '' });
      text = '';
      at += hole[0].length - 1;
    } else text += sign;
  }
  return [...pieces, { text }];
}

function phraseOf(key: string): Phrase {
  const pieces = piecesOf(key);
  const literals = pieces.flatMap((piece) => ('text' in piece ? [piece.text] : []));
  const holes = pieces.flatMap((piece) => ('hole' in piece ? [piece.hole] : []));
  const own = literals.join('');
  const weight = lettersOf(own) + (label.test(literals[0] ?? '') ? weightMin : 0);
  return { key, literals, holes, weight, length: own.length };
}

/** No bracket of it is closed that it did not open, nor left open. */
function isBalanced(value: string): boolean {
  let open = 0;
  for (const sign of value) {
    if (sign === '(') open += 1;
    else if (sign === ')') open -= 1;
    if (open < 0) return false;
  }
  return open === 0;
}

/** A name, or a list of names. */
const names = /^\S*(, \S+)*$/;

/** Leftmost place of every literal, the last one at the end: complete for such patterns, and linear. */
function valuesOf(phrase: Phrase, text: string, whole: ReadonlySet<string>): Record<string, string> | null {
  const { literals, holes } = phrase;
  const first = literals[0] ?? '';
  const last = literals.at(-1) ?? '';
  if (!text.startsWith(first) || !text.endsWith(last) || text.length < first.length + last.length)
    return null;
  const end = text.length - last.length;
  const values: Record<string, string> = {};
  let from = first.length;
  for (const [index, hole] of holes.entries()) {
    const literal = literals[index + 1] ?? '';
    const isLast = index === holes.length - 1;
    const to = isLast ? end : text.indexOf(literal, from);
    if (to < from || to + (isLast ? 0 : literal.length) > end) return null;
    const value = text.slice(from, to);
    const ends = isLast && lettersOf(literal) === 0;
    const inBrackets = literal.startsWith(')') && (literals[index] ?? '').endsWith('(');
    if (inBrackets && !isBalanced(value)) return null;
    const inQuotes = literal.startsWith('”') && (literals[index] ?? '').endsWith('“');
    if (inQuotes && value.includes('”')) return null;
    if (!ends && twoSentences.test(value) && !whole.has(value)) return null;
    const closed = literal !== '' || !value.includes(', ') || (literals[index] ?? '').endsWith(': ');
    const tail = ends && closed && lettersOf(first) >= openingMin;
    if (phrase.weight < weightMin && !tail && !names.test(value)) return null;
    values[hole] = value;
    from = to + (isLast ? 0 : literal.length);
  }
  return values;
}

export class Phrases {
  readonly #whole = new Set<string>();
  readonly #patterns: Phrase[] = [];

  /** `first` are looked at before all others: what a person typed stands in them, and may read like any message. */
  constructor(keys: Iterable<string>, first: ReadonlySet<string> = new Set()) {
    for (const key of keys) {
      const phrase = phraseOf(key);
      if (phrase.holes.length === 0) this.#whole.add(phrase.literals[0] ?? '');
      else this.#patterns.push(phrase);
    }
    // The one that says most itself first.
    const rank = ({ key }: Phrase): number => (first.has(key) ? 1 : 0);
    this.#patterns.sort(
      (a, b) => rank(b) - rank(a) || b.weight - a.weight || b.length - a.length || (a.key < b.key ? -1 : 1),
    );
  }

  recognise(text: string): Recognised | null {
    if (this.#whole.has(text)) return { key: escaped(text), values: {} };
    for (const phrase of this.#patterns) {
      const values = valuesOf(phrase, text, this.#whole);
      if (values !== null) return { key: phrase.key, values };
    }
    return null;
  }
}

/** A text without values as a key. */
export function escaped(text: string): string {
  return text.replace(/[\\{}]/g, '\\$&');
}
