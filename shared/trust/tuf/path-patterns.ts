// Why: which target paths a delegated role is trusted for (TUF 1.0.34 §4.5: paths, path_hash_prefixes).
// Trusts: nothing. Must never: let a wildcard reach over a `/`, into another folder than was delegated.

import { sha256Hex } from '../../crypto/digests.ts';
import type { DelegatedRole } from './format.ts';

/** Whether the role may speak about this target path, by the words of whoever delegates to it. */
export function isDelegatedPath(
  role: Pick<DelegatedRole, 'paths' | 'pathHashPrefixes'>,
  path: string,
): boolean {
  if (role.paths !== null) return role.paths.some((pattern) => matchesPathPattern(pattern, path));
  const digest = sha256Hex(new TextEncoder().encode(path));
  return (role.pathHashPrefixes ?? []).some((prefix) => digest.startsWith(prefix));
}

/**
 * The specification's glob: `*` is any characters, `?` is one, neither is a `/`; everything else stands for
 * itself. The number of segments must be the same.
 */
export function matchesPathPattern(pattern: string, path: string): boolean {
  const patterns = pattern.split('/');
  const segments = path.split('/');
  return (
    patterns.length === segments.length &&
    patterns.every((one, index) => matchesSegment([...one], [...(segments[index] ?? '')]))
  );
}

/** By code points. Goes back to the last `*` only, so the time is at most pattern length × segment length. */
function matchesSegment(pattern: readonly string[], segment: readonly string[]): boolean {
  let at = 0;
  let star = -1;
  let starMatched = 0;
  let index = 0;
  while (index < segment.length) {
    if (pattern[at] === '*') {
      star = at;
      starMatched = index;
      at += 1;
    } else if (at < pattern.length && (pattern[at] === '?' || pattern[at] === segment[index])) {
      at += 1;
      index += 1;
    } else if (star >= 0) {
      // The last star takes one character more.
      starMatched += 1;
      index = starMatched;
      at = star + 1;
    } else {
      return false;
    }
  }
  return pattern.slice(at).every((one) => one === '*');
}
