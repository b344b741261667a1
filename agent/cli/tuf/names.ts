// Why: role names and target paths are chosen by strangers and become parts of URLs and names of files.
// Trusts: nothing. Must never: let one of them name another file, or a file outside its folder.

import { sha256Hex } from '../../../shared/crypto/digests.ts';
import { topLevelRoles } from '../../../shared/trust/tuf/format.ts';

/** Percent-encoding of everything but letters, digits and `_.-~`, as Python's `urllib.parse.quote(text, safe="")`. */
export function quote(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** File systems take names of 255 bytes; what is added to a name while it is written must fit too. */
const fileNameCharactersMax = 220;

/** `%` and a letter beyond F: no text is quoted like that, so such a name is never another text's name. */
function digestName(kind: 'role' | 'target', text: string): string {
  return `%${kind}-${sha256Hex(new TextEncoder().encode(text))}`;
}

/** Name of a delegated role's file. */
export function roleFileName(role: string): string {
  const quoted = quote(role);
  // Where case does not count, `Root.json` would be `root.json`.
  const isSafe = quoted.length <= fileNameCharactersMax && !topLevelRoles.has(quoted.toLowerCase());
  return `${isSafe ? quoted : digestName('role', role)}.json`;
}

/** Name of a target's file: one flat name for each path, the same on each download. */
export function targetFileName(path: string): string {
  const quoted = quote(path);
  // `.` and `..` are never quoted, and no names of files.
  const isSafe = quoted.length <= fileNameCharactersMax && !/^\.{0,2}$/.test(quoted);
  return isSafe ? quoted : digestName('target', path);
}

/** The base with one more relative path, whose parts are quoted already. */
function under(base: URL, path: string): URL {
  const url = new URL(base);
  url.pathname = `${base.pathname.replace(/\/*$/, '')}/${path}`;
  return url;
}

export function metadataUrl(base: URL, fileName: string): URL {
  return under(base, quote(fileName));
}

/**
 * Where a target is served (TUF 1.0.34 §5.7.3): with a digest, its file name has it in front. Null for a path
 * that would leave the base.
 */
export function targetUrl(base: URL, path: string, digest: string | null): URL | null {
  const parts = path.split('/');
  if (parts.some((part) => part === '.' || part === '..')) return null;
  const name = parts.pop() ?? '';
  const last = digest === null ? name : `${digest}.${name}`;
  return under(base, [...parts, last].map(quote).join('/'));
}
