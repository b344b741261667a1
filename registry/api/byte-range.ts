// Why: one byte range of a request for a file (RFC 9110 §14). Pure.
// Trusts: nothing. Must never: give out a range beyond the file.

/** Bytes `[from, until)`. */
export interface ByteRange {
  from: number;
  until: number;
}

/**
 * The range that the header asks for; null where it asks for the whole: no header, another unit, several ranges or what
 * cannot be read, all of which a server may ignore.
 */
export function parseRange(
  header: string | undefined,
  totalBytes: number,
): ByteRange | 'unsatisfiable' | null {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/i.exec(header?.trim() ?? '');
  if (match === null) return null;
  const [, first = '', last = ''] = match;
  if (first === '') {
    if (last === '') return null;
    const suffix = Number(last);
    if (suffix === 0 || totalBytes === 0) return 'unsatisfiable';
    return { from: Math.max(0, totalBytes - suffix), until: totalBytes };
  }
  const from = Number(first);
  const until = last === '' ? totalBytes : Math.min(Number(last) + 1, totalBytes);
  if (last !== '' && Number(last) < from) return null;
  return from >= totalBytes ? 'unsatisfiable' : { from, until };
}
