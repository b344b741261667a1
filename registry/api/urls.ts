// Why: a token belongs into a header; in a URL it lands in the logs of everything between here and there.
// Trusts: nothing. Must never: show a token that somebody put into a URL, however it was escaped.

import { FleetError } from '../../shared/kernel/errors.ts';
import { holdsToken, withoutTokens } from '../policy/access.ts';

const decodingsMax = 3;
const secretNames = /^(?:(?:access|auth|bearer|api)[_-]?)?(?:token|key)$|^authorization$/i;

/** The text as it stands, and as what reads it after one or more rounds of unescaping would. */
function readings(text: string): string[] {
  const all = [text];
  for (let round = 0; round < decodingsMax; round += 1) {
    const before = all.at(-1) ?? '';
    let next: string;
    try {
      next = decodeURIComponent(before);
    } catch {
      // Not escaped by the rules: nobody unescapes it further.
      return all;
    }
    if (next === before) return all;
    all.push(next);
  }
  return all;
}

/** A path, or a part of a URL, as logs, answers and entries may show it. */
export function shownPath(text: string): string {
  const found = readings(text).findLast(holdsToken);
  return found === undefined ? text : withoutTokens(found);
}

/** Throws `token-in-url` where a token stands in the path or the query. */
export function refuseTokenInUrl(path: string, query: Readonly<Record<string, string[]>>): void {
  const parts = [path, ...Object.keys(query), ...Object.values(query).flat()];
  const named = Object.keys(query).some((name) => secretNames.test(name));
  if (named || parts.some((part) => readings(part).some(holdsToken)))
    throw new FleetError('token-in-url', 'a token stands in the URL');
}
