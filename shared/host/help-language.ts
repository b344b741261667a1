// Why: the command lines' help in the language of this process: how commander's texts are said, measured and broken.
// Trusts: commander for the layout. Must never: change the name of a command, flag or argument.

import { displayWidth, wrapCells } from '../wire/display-width.ts';
import { speaker } from './speech.ts';

/** What commander adds behind a description, in its words. */
const added = /^(.*?) ?\(((?:choices|default|preset|env): [^()]*)\)$/s;

/** `what it is (choices: "a", "b", default: "a")`. */
function saidDescription(text: string): string {
  const { say, word, language } = speaker();
  if (language === 'en') return text;
  // As it stands in the catalogue: a default may be a part of the description.
  const whole = word(text);
  const found = whole === text ? added.exec(text) : null;
  if (found === null) return whole === text ? say(text) : whole;
  const [, before = '', behind = ''] = found;
  const more = behind
    .split(/, (?=(?:default|preset|env): )/)
    .map((part) => {
      const at = part.indexOf(': ');
      return `${word(`${part.slice(0, at)}:`)}${say(part.slice(at + 2))}`;
    })
    .join('，');
  return `${saidDescription(before)}（${more}）`;
}

interface HelpLanguage {
  displayWidth(text: string): number;
  boxWrap(text: string, width: number): string;
  styleTitle(text: string): string;
  styleUsage(text: string): string;
  styleCommandDescription(text: string): string;
  styleOptionDescription(text: string): string;
  styleSubcommandDescription(text: string): string;
  styleArgumentDescription(text: string): string;
}

/** For `configureHelp`; commander's own in English. */
export function spokenHelp(): Partial<HelpLanguage> {
  const { language, word } = speaker();
  if (language === 'en') return {};
  return {
    displayWidth,
    boxWrap: (text, width) =>
      text
        .split('\n')
        .flatMap((line) => wrapCells(line, width))
        .join('\n'),
    styleTitle: word,
    styleUsage: (text) => text.replace(/\[(options|command)\]/g, (_whole, name: string) => `[${word(name)}]`),
    styleCommandDescription: saidDescription,
    styleOptionDescription: saidDescription,
    styleSubcommandDescription: saidDescription,
    styleArgumentDescription: saidDescription,
  };
}

/** What `addHelpText` adds; the help itself was said already. */
export function spokenHelpText(text: string): string {
  const { language, lines } = speaker();
  return language === 'en' || /\p{Script=Han}/u.test(text) ? text : lines(text);
}
