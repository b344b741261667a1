// Why: how both command lines tell a person what went wrong, in one place: code, what happened, next step.
// Trusts: codes.ts. Must never: print a stack, nor more than one line, where a code says it all.

import { codes } from '../kernel/codes.ts';
import { asFleetError } from '../kernel/errors.ts';

export interface CliError {
  /** `lepton: <code>: <what happened>; <what to do>`, one line for stderr, without its line feed. */
  line: string;
  /** For stdout with `--json`. */
  json: { error: { code: string; message: string; hint: string; rule?: string } };
  /** 1 failure, 2 bad flags or an unparsable file (contract, section 11). */
  exit: 1 | 2;
}

const messageCharsMax = 2_000;

/** Control characters could move a terminal's cursor or forge a second line. */
function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
  const flat = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
  return flat.length <= messageCharsMax ? flat : `${flat.slice(0, messageCharsMax - 1)}…`;
}

/**
 * The one line, the JSON document and the exit code of anything that was thrown; `say` puts what is for people
 * into their language.
 */
export function formatError(thrown: unknown, say: (text: string) => string = (text) => text): CliError {
  const error = asFleetError(thrown);
  const message = oneLine(say(error.message));
  const hint = oneLine(say(error.hint));
  const what = message === '' || message === hint ? hint : `${message}; ${hint}`;
  return {
    line: `lepton: ${error.code}: ${what}`,
    json: {
      error: {
        code: error.code,
        message,
        hint,
        ...(error.rule === null ? {} : { rule: oneLine(error.rule) }),
      },
    },
    exit: codes[error.code].exit,
  };
}
