// Why: what the CLI prints: one JSON document with --json, else aligned text; logs and errors on stderr.
// Trusts: its caller. Must never: mix prose into stdout when --json is given.

export interface Output {
  json: boolean;
}

export function print(output: Output, document: unknown, text: () => string): void {
  process.stdout.write(output.json ? `${JSON.stringify(document)}\n` : `${text()}\n`);
}

/** Columns padded to their widest cell. */
export function table(head: string[], rows: string[][]): string {
  if (rows.length === 0) return '(none)';
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function when(timeMs: number | null): string {
  return timeMs === null ? '-' : new Date(timeMs).toISOString().replace('.000Z', 'Z');
}

export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = -1;
  do {
    value /= 1024;
    unit += 1;
  } while (value >= 1024 && unit < units.length - 1);
  return `${value.toFixed(1)} ${units[unit]}`;
}

/**
 * Writes to stdout at the pace of who reads it. False once nobody does any more (`… | head`), which is no
 * failure: there is nothing left to do.
 */
export function writeOut(text: string): Promise<boolean> {
  const { stdout } = process;
  return new Promise((resolve, reject) => {
    const settled = (error: NodeJS.ErrnoException | null | undefined): void => {
      stdout.off('error', settled);
      if (error === null || error === undefined) resolve(true);
      else if (error.code === 'EPIPE') {
        // Whatever is still buffered fails the same way.
        stdout.on('error', () => undefined);
        resolve(false);
      } else reject(error);
    };
    // Without a listener the stream's error would end the process before the callback is asked.
    stdout.on('error', settled);
    stdout.write(text, settled);
  });
}
