// Why: reads the catalogues and says English messages in another language; what no catalogue has stays English.
// Trusts: the files that were built with the program. Must never: be loaded by the agent's daemon, nor change a
// value: names, numbers and paths are put into the translation as they are.
// Source: Unicode MessageFormat 2.0 (CLDR 47) for the translations.

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { MessageFormat } from 'messageformat';
import { z } from 'zod';
import { FleetError } from '../kernel/errors.ts';
import { english, type Language, type Speaker } from '../wire/languages.ts';
import { escaped, Phrases } from '../wire/phrases.ts';

const catalogueSchema = z.record(z.string(), z.string());

export type Catalogue = ReadonlyMap<string, string>;

/** All files of a language as one. */
export function readCatalogue(language: Exclude<Language, 'en'>): Catalogue {
  const folder = fileURLToPath(new URL(`../languages/${language}/`, import.meta.url));
  const all = new Map<string, string>();
  for (const name of readdirSync(folder).filter((one) => one.endsWith('.json'))) {
    const parsed = catalogueSchema.safeParse(JSON.parse(readFileSync(`${folder}${name}`, 'utf8')));
    if (!parsed.success) throw new FleetError('internal', `the catalogue ${name} is no object of texts`);
    for (const [key, text] of Object.entries(parsed.data)) all.set(key, text);
  }
  return all;
}

/**
 * Translations have a space between Chinese and a value, which is Latin as a rule; where the value turned out to be
 * Chinese, or nothing at all, there is none.
 */
function meet(before: string, after: string): string {
  if (after === '') return before;
  if (before.endsWith(' ') && chineseSign.test(after[0] ?? '') && chineseSign.test(before.at(-2) ?? ''))
    return `${before.slice(0, -1)}${after}`;
  const meets = before === '' || chineseSign.test(before.at(-1) ?? '');
  if (after.startsWith(' ') && meets && chineseSign.test(after[1] ?? '')) return `${before}${after.slice(1)}`;
  return `${before}${after}`;
}

const chineseSign = /[\p{Script=Han}，。；：、！？（）《》“”…]/u;

/** How deep sentences stand inside sentences. */
const depthMax = 10;
/** Longer is no message. */
const charsMax = 4_000;
/** Texts that are looked up to say one; what is left then stays English. Anybody can ask for a long text. */
const lookupsMax = 100;
/** `TEXT: REST` and `ONE; TWO`: how the code joins messages. */
const joint = { within: ': ', between: '; ' };
const joinedMax = 64;

/** Speaks from a catalogue: keys are English templates, values are MessageFormat 2. */
export function speakerOf(language: Language, catalogue: Catalogue, marks: Marks = chinese): Speaker {
  const typed = new Map(
    [...catalogue].flatMap(([key, text]) => {
      const names = typedIn(text);
      return names.length === 0 ? [] : [[key, new Set(names)] as const];
    }),
  );
  const phrases = new Phrases(catalogue.keys(), new Set(typed.keys()));
  let lookups = 0;
  const formats = new Map<string, MessageFormat<'word'>>();

  const word = (text: string): string => catalogue.get(escaped(text)) ?? text;

  const format = (key: string, values: Record<string, string>): string => {
    let made = formats.get(key);
    if (made === undefined) {
      made = new MessageFormat<'word'>(language, catalogue.get(key) ?? key, {
        // Isolating marks are for what goes right to left; nothing here does.
        bidiIsolation: 'none',
        functions: {
          // `{$a :word}`: the value is one of our own words, such as a state.
          word: (_context, _options, input) => part(word(String(input))),
          // `{$a :typed}`: what a person typed, which nothing translates.
          typed: (_context, _options, input) => part(String(input)),
        },
      });
      formats.set(key, made);
    }
    const parts = made.formatToParts(values).map((part) => ('value' in part ? String(part.value) : ''));
    const said = parts.reduce(meet, '');
    return parts.at(-1) === '' ? said.trimEnd() : said;
  };

  /** ` (what stands in brackets)`, `; what follows` and `3 committed, 2 pending`; null where it is none of them. */
  const framed = (text: string, depth: number): string | null => {
    const brackets = /^ ?\((.*)\)$/s.exec(text);
    if (brackets !== null) {
      const inside = known(brackets[1] ?? '', depth + 1);
      return inside === null ? null : marks.brackets(inside);
    }
    const following = /^([;:]) (.*)$/s.exec(text);
    if (following !== null) {
      const rest = known(following[2] ?? '', depth + 1);
      return rest === null ? null : `${following[1] === ';' ? marks.between : marks.within}${rest}`;
    }
    if (/^ \S/.test(text)) return known(text.trimStart(), depth + 1);
    if (!/^\d+ [a-z-]+(, \d+ [a-z-]+)*$/.test(text)) return null;
    const counts = text.split(', ').map((part) => part.split(' '));
    if (!counts.every(([, state = '']) => catalogue.has(state))) return null;
    return counts.map(([count, state = '']) => `${count} ${word(state)}`).join(marks.listed);
  };

  const known = (text: string, depth: number): string | null => {
    if (depth > depthMax || text.length > charsMax || !/[A-Za-z]{2}/.test(text)) return null;
    lookups += 1;
    if (lookups > lookupsMax) return null;
    const found = phrases.recognise(text);
    if (found === null) return framed(text, depth) ?? joined(text, depth);
    const asTyped = typed.get(found.key);
    const values = Object.fromEntries(
      Object.entries(found.values).map(([name, value]) => {
        // One without a space is a name.
        if (!value.includes(' ')) return [name, value];
        // A region repeats what another said with the words of a person in it.
        const isTyped = asTyped?.has(name) === true && !typed.has(phrases.recognise(value)?.key ?? '');
        return [name, isTyped ? value : (known(value, depth + 1) ?? value)];
      }),
    );
    return format(found.key, values);
  };

  /** What was put together of several messages; null where not all of it has one. */
  const joined = (text: string, depth: number): string | null => {
    const at = text.indexOf(joint.within);
    const named = at < 1 ? '' : text.slice(at + joint.within.length);
    const parts = text.split(joint.between);
    const several = parts.length > 1 && parts.length <= joinedMax;
    // What stands before `: ` may be of all that follows, or of the first of several that are whole each by itself.
    const whole = several && parts.every((part) => phrases.recognise(part) !== null);
    if (!whole && named !== '' && phrases.recognise(named) !== null)
      return prefixed(text.slice(0, at), named, depth);
    if (several) {
      const said = parts.map((part) => known(part, depth + 1));
      if (said.some((part) => part !== null))
        return said.map((part, index) => part ?? parts[index]).join(marks.between);
    }
    return named === '' ? null : prefixed(text.slice(0, at), named, depth);
  };

  const prefixed = (before: string, after: string, depth: number): string | null => {
    const rest = known(after, depth + 1);
    if (rest === null) return null;
    return `${(before.includes(' ') ? known(before, depth + 1) : null) ?? before}${marks.within}${rest}`;
  };

  const say = (text: string): string => {
    lookups = 0;
    return known(text, 0) ?? text;
  };
  return {
    language,
    say,
    word,
    lines: (text) =>
      text
        .split('\n')
        .map((line) => {
          const [, before = '', middle = '', after = ''] = /^(\s*)(.*?)(\s*)$/.exec(line) ?? [];
          return middle === '' ? line : `${before}${say(middle)}${after}`;
        })
        .join('\n'),
  };
}

export interface Marks {
  within: string;
  between: string;
  listed: string;
  brackets: (text: string) => string;
}

const chinese: Marks = { within: '：', between: '；', listed: '，', brackets: (text) => `（${text}）` };

/** The values of a translation that a person typed. */
const typedIn = (text: string): string[] =>
  [...text.matchAll(/\{\$(\w+) :typed\}/g)].map(([, name = '']) => name);

/** What a function of a translation gives. */
function part(text: string) {
  return {
    type: 'word' as const,
    source: text,
    toString: () => text,
    toParts: () => [{ type: 'word' as const, value: text }],
  };
}

const loaded = new Map<Language, Speaker>();

/** The speaker of a language; its catalogue is read once, when it is first asked for. */
export function speakerFor(language: Language): Speaker {
  if (language === 'en') return english;
  let speaker = loaded.get(language);
  if (speaker === undefined) {
    speaker = speakerOf(language, readCatalogue(language));
    loaded.set(language, speaker);
  }
  return speaker;
}
