// Why: whether what a card says of its licence is among those that a policy lists.
// Trusts: nothing in the card. Must never: find a licence allowed that nobody listed.
// Source: SPDX specification 2.3, annex D, for `OR`, `AND` and the comparison without regard to case.

/**
 * `A OR B`: one of them is enough, for who takes it may choose; `A AND B`: all. What mixes both, or has brackets, is
 * listed as a whole or not at all.
 */
export function isListed(expression: string, listed: readonly string[]): boolean {
  const names = new Set(listed.map((one) => one.toLowerCase()));
  const text = expression.trim().replace(/\s+/g, ' ').toLowerCase();
  if (names.has(text)) return true;
  if (/[()]/.test(text)) return false;
  const [some, all] = [text.split(' or '), text.split(' and ')];
  if (some.length > 1 && all.length > 1) return false;
  return some.length > 1 ? some.some((one) => names.has(one)) : all.every((one) => names.has(one));
}

/** Often met; a name that is not here may still be right, and may be a slip of the finger. */
const common: ReadonlySet<string> = new Set(
  [
    ...[
      '0BSD',
      'AFL-3.0',
      'AGPL-3.0-only',
      'AGPL-3.0-or-later',
      'Apache-2.0',
      'Artistic-2.0',
      'BSD-2-Clause',
    ],
    ...['BSD-3-Clause', 'BSL-1.0', 'CC0-1.0', 'CC-BY-4.0', 'CC-BY-SA-4.0', 'CC-BY-NC-4.0', 'CC-BY-NC-SA-4.0'],
    ...[
      'CDLA-Permissive-1.0',
      'CDLA-Permissive-2.0',
      'CDLA-Sharing-1.0',
      'EPL-2.0',
      'EUPL-1.2',
      'GPL-2.0-only',
    ],
    ...['GPL-2.0-or-later', 'GPL-3.0-only', 'GPL-3.0-or-later', 'ISC', 'LGPL-2.1-only', 'LGPL-2.1-or-later'],
    ...[
      'LGPL-3.0-only',
      'LGPL-3.0-or-later',
      'MIT',
      'MIT-0',
      'MPL-2.0',
      'MulanPSL-2.0',
      'ODbL-1.0',
      'ODC-By-1.0',
    ],
    ...['PDDL-1.0', 'PostgreSQL', 'Unlicense', 'Zlib'],
  ].map((one) => one.toLowerCase()),
);

export const isCommonLicence = (name: string): boolean => common.has(name.toLowerCase());
