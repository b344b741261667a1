// Why: which languages the programs speak, and which of them somebody asked for.
// Trusts: nothing that was asked. Must never: refuse a request for its language: English is always there.

import { type Result, refuse } from '../kernel/result.ts';

export const languages = ['en', 'zh'] as const;
export type Language = (typeof languages)[number];

export function isLanguage(text: string): text is Language {
  return languages.some((one) => one === text);
}

/** How texts of the code become what a person reads. */
export interface Speaker {
  language: Language;
  /** One message, as it stands in the code. */
  say(text: string): string;
  /** One word of a closed list: a state, a verdict, the head of a column. */
  word(text: string): string;
  /** What is printed, line by line; blanks at both ends of a line stay. */
  lines(text: string): string;
}

const same = (text: string): string => text;
export const english: Speaker = { language: 'en', say: same, word: same, lines: same };

/** `zh`, `zh-CN`, `zh-Hant-TW`, `zh_CN.UTF-8` are all Chinese; null for what is not spoken here. */
export function languageOf(tag: string): Language | null {
  const primary = /^[A-Za-z]+/.exec(tag)?.[0]?.toLowerCase() ?? '';
  return isLanguage(primary) ? primary : null;
}

export interface LanguageWish {
  tag: string;
  /** 0 to 1; 0 means: not this one. */
  weight: number;
}

/** RFC 9110 §12.5.4: the language with the highest weight; of equals, the one named first. */
export function negotiate(wishes: readonly LanguageWish[]): Language {
  let best: { language: Language; weight: number } = { language: 'en', weight: 0 };
  const refused = new Set(wishes.filter(({ weight }) => weight <= 0).map(({ tag }) => languageOf(tag)));
  for (const { tag, weight } of wishes) {
    const language = tag.trim() === '*' ? languages.find((one) => !refused.has(one)) : languageOf(tag);
    if (language !== null && language !== undefined && weight > best.weight) best = { language, weight };
  }
  return best.language;
}

/** Of the environment: `LEPTON_LANG`, else the locale that POSIX names; English for what is not spoken here. */
export function languageOfEnvironment(environment: Readonly<Record<string, string | undefined>>): Language {
  for (const name of ['LEPTON_LANG', 'LC_ALL', 'LC_MESSAGES', 'LANG']) {
    const value = environment[name];
    // The first that is set decides, as POSIX has it.
    if (value !== undefined && value !== '') return languageOf(value) ?? 'en';
  }
  return 'en';
}

export interface Chosen {
  language: Language;
  /** The command line without `--lang`. */
  words: string[];
}

/**
 * The language of a command line: `--lang` before or after the command, else the environment's. Refusal:
 * `config-invalid` for a language that is not spoken here.
 */
export function chooseLanguage(
  given: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Result<Chosen> {
  const words: string[] = [];
  let tag: string | null = null;
  for (let at = 0; at < given.length; at += 1) {
    const word = given[at] ?? '';
    if (word === '--') {
      words.push(...given.slice(at));
      break;
    }
    if (word === '--lang') {
      at += 1;
      tag = given[at] ?? '';
    } else if (word.startsWith('--lang=')) tag = word.slice('--lang='.length);
    else words.push(word);
  }
  if (tag === null) return { ok: true, value: { language: languageOfEnvironment(environment), words } };
  const language = languageOf(tag);
  if (language === null || !/^[A-Za-z]+([-_.@][A-Za-z0-9]+)*$/.test(tag))
    return refuse('config-invalid', `--lang takes ${languages.join(' or ')}, not ${JSON.stringify(tag)}`);
  return { ok: true, value: { language, words } };
}
