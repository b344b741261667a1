// Why: a file of data on this machine becomes a table, with progress for whoever waits.
// Trusts: nothing in the file. Must never: read one that cannot fit, or leave a file open.

import { createReadStream, statSync } from 'node:fs';
import { sha256Stream } from '../../shared/crypto/digests.ts';
import { progress } from '../../shared/host/terminal.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { readTable } from '../learn/reading/read-table.ts';
import type { ReadingReport } from '../learn/reading/report.ts';
import type { Table } from '../learn/table.ts';

/** Text of this size is some hundred million numbers; what is held of it are a few copies of them. */
const dataBytesMax = 1024 * 1024 * 1024;

export interface DataFile {
  table: Table;
  report: ReadingReport;
  bytes: number;
  sha256: string;
}

/** Faults: `input-invalid` (no such file), `data-too-large`, and the codes of `readTable`. */
export async function readDataFile(path: string): Promise<DataFile> {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there === undefined || !there.isFile())
    throw new FleetError('input-invalid', `there is no file ${path}`, { hint: 'give a table of text (CSV)' });
  if (there.size > dataBytesMax)
    throw new FleetError(
      'data-too-large',
      `${path} has ${(there.size / 1024 ** 3).toFixed(1)} GiB; at most ${dataBytesMax / 1024 ** 3} GiB are read`,
    );
  const digest = sha256Stream();
  const bar = progress('read', there.size);
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for await (const chunk of createReadStream(path, {
      highWaterMark: 1024 * 1024,
    }) as AsyncIterable<Buffer>) {
      digest.update(chunk);
      bar.advance(chunk.length);
      yield chunk;
    }
  }
  try {
    const { table, report } = unwrap(await readTable(chunks()));
    return { table, report, bytes: there.size, sha256: digest.hex() };
  } finally {
    bar.stop();
  }
}
