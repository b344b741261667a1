// Why: `lepton telemetry`: the records that devices sent, as a table, as NDJSON, or into a file.
// Trusts: the registry's answers, line by line validated. Must never: hold all records in memory, or leave
// a file that looks whole and is not.

import { open, rename, rm } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import { z } from 'zod';
import { speaker } from '../../shared/host/speech.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { padCells } from '../../shared/wire/display-width.ts';
import { telemetryLostSchema } from '../../shared/wire/http.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import { type StoredRecord, storedRecordSchema, telemetryClasses } from '../../shared/wire/telemetry.ts';
import { connect } from './client.ts';
import { addErasureCommands } from './erasure-commands.ts';
import { connected, duration, type GlobalFlags, positive } from './flags.ts';
import { print, table, when, writeOut } from './output.ts';

interface RecordFlags extends GlobalFlags {
  device?: string;
  class?: string;
  since?: number;
  release?: string;
  limit?: number;
  cursor?: string;
  to?: string;
}

function filtered(command: Command): Command {
  return connected(command)
    .option('--device <id>', 'of one device')
    .addOption(new Option('--class <class>', 'of one class').choices([...telemetryClasses]))
    .option('--since <duration>', 'not older than, e.g. 1h, by the device’s clock', duration)
    .option('--release <ns/name@version>', 'about one release')
    .option('--limit <n>', 'at most so many', positive)
    .option('--cursor <record>', 'go on after DEVICE:EPOCH:SEQUENCE:INDEX');
}

function pathOf(flags: RecordFlags): string {
  const query = new URLSearchParams();
  for (const name of ['device', 'class', 'release', 'cursor', 'to'] as const) {
    const value = flags[name];
    if (value !== undefined) query.set(name, value);
  }
  if (flags.since !== undefined) query.set('since', String(Math.max(0, Date.now() - flags.since)));
  if (flags.limit !== undefined) query.set('limit', String(flags.limit));
  return `/api/v1/telemetry?${query}`;
}

function recordOf(line: string): StoredRecord {
  let body: unknown;
  try {
    body = JSON.parse(line);
  } catch (cause) {
    throw new FleetError('registry-answer-invalid', 'a record is no JSON', { cause });
  }
  const parsed = storedRecordSchema.safeParse(body);
  if (!parsed.success) throw new FleetError('registry-answer-invalid', describeIssues(parsed.error));
  return parsed.data;
}

function decoded(decoder: InstanceType<typeof TextDecoder>, bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes, { stream: true });
  } catch (cause) {
    throw new FleetError('registry-answer-invalid', 'the answer is no UTF-8 text', { cause });
  }
}

/** Whole lines of the answer as they come, some at a time. */
async function* lineBlocks(flags: RecordFlags): AsyncGenerator<string[]> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest = '';
  for await (const bytes of connect(flags).stream(pathOf(flags))) {
    const lines = (rest + decoded(decoder, bytes)).split('\n');
    rest = lines.pop() ?? '';
    if (lines.length > 0) yield lines;
  }
  if (rest !== '')
    throw new FleetError('registry-answer-invalid', 'the answer ends in the middle of a record');
}

/** Widths are fixed: the first line is shown before the last one is known. */
function row(time: string, device: string, kind: string, release: string, data: string): string {
  return `${padCells(time, 24)}  ${padCells(device, 32)}  ${padCells(kind, 6)}  ${padCells(release, 20)}  ${data}\n`;
}

async function query(flags: RecordFlags): Promise<void> {
  const { word } = speaker();
  let count = 0;
  for await (const lines of lineBlocks(flags)) {
    const records = lines.map(recordOf);
    const text = flags.json
      ? `${lines.join('\n')}\n`
      : records
          .map((one) =>
            row(when(one.timeMs), one.device, one.class, one.release ?? '-', JSON.stringify(one.data)),
          )
          .join('');
    const head =
      count === 0 && !flags.json
        ? row(word('TIME'), word('DEVICE'), word('CLASS'), word('RELEASE'), word('DATA'))
        : '';
    count += records.length;
    if (!(await writeOut(head + text))) return;
  }
  if (count === 0 && !flags.json) await writeOut(`${word('(none)')}\n`);
}

async function queryLost(flags: RecordFlags): Promise<void> {
  const only = flags.device === undefined ? '' : `?device=${encodeURIComponent(flags.device)}`;
  const list = await connect(flags).get(`/api/v1/telemetry/lost${only}`, z.array(telemetryLostSchema));
  if (flags.json) {
    for (const one of list) await writeOut(`${JSON.stringify(one)}\n`);
    return;
  }
  print({ json: false }, list, () =>
    table(
      ['RESTORED', 'DEVICE', 'ENROLMENT', 'BATCHES'],
      list.map((one) => [
        when(one.atMs),
        one.device,
        String(one.epoch),
        `${one.firstSequence} to ${one.lastSequence}`,
      ]),
    ),
  );
}

const csvHead = 'device,epoch,sequence,index,class,time,release,data\r\n';

/** RFC 4180: `data` is JSON, whose quotes are doubled; nothing else can hold a comma. */
function csvLine(one: StoredRecord): string {
  const time = new Date(one.timeMs).toISOString();
  const data = JSON.stringify(one.data).replaceAll('"', '""');
  return `${[one.device, one.epoch, one.sequence, one.index, one.class, time, one.release ?? '', `"${data}"`].join()}\r\n`;
}

async function exportTo(file: string, format: 'ndjson' | 'csv', flags: RecordFlags): Promise<number> {
  const part = `${file}.part`;
  const fault = (cause: unknown): FleetError =>
    new FleetError('disk-io', `cannot write ${file}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
      hint: 'check the folder, its permissions and the space left',
    });
  // Records may be about people: for the owner's eyes, like the token they were read with.
  const handle = await open(part, 'w', 0o600).catch((cause: unknown) => {
    throw fault(cause);
  });
  let count = 0;
  try {
    const write = (text: string): Promise<void> =>
      handle.writeFile(text).catch((cause: unknown) => {
        throw fault(cause);
      });
    if (format === 'csv') await write(csvHead);
    for await (const lines of lineBlocks(flags)) {
      const records = lines.map(recordOf);
      count += records.length;
      await write(format === 'csv' ? records.map(csvLine).join('') : `${lines.join('\n')}\n`);
    }
    await handle.sync();
    await handle.close();
    await rename(part, file);
  } catch (thrown) {
    await handle.close();
    await rm(part, { force: true });
    throw thrown instanceof FleetError ? thrown : fault(thrown);
  }
  return count;
}

export function addTelemetryCommands(program: Command): void {
  const telemetry = program.command('telemetry').description('the records that devices sent');

  filtered(telemetry.command('query'))
    .description('stored records in the order of storing; with --json one JSON document a line')
    .option('--lost', 'instead: batches that were acknowledged and lost in a restore')
    .action((flags: RecordFlags & { lost?: boolean }) =>
      flags.lost === true ? queryLost(flags) : query(flags),
    );

  filtered(telemetry.command('export'))
    .description('write stored records to a file')
    .requiredOption('--out <file>', 'the file; replaced when all is written')
    .option('--to <region>', 'region to which the file is taken; the policy must let it go')
    .addOption(
      new Option('--format <format>', 'one JSON document a line, or a table with the data as JSON')
        .choices(['ndjson', 'csv'])
        .default('ndjson'),
    )
    .action(async (flags: RecordFlags & { out: string; format: 'ndjson' | 'csv' }) => {
      const records = await exportTo(flags.out, flags.format, flags);
      print(
        { json: flags.json === true },
        { file: flags.out, records },
        () => `${records} records in ${flags.out}`,
      );
    });

  addErasureCommands(telemetry);
}
