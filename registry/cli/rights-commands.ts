// Why: `lepton rights export`: everything that a region holds about a device, as a folder that its person can read.
// Trusts: the registry's answer, line by line validated. Must never: leave a folder that looks whole and is not, or one that
// others on this machine can read.

import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { makeFolders } from '../../shared/host/folders.ts';
import { speaker } from '../../shared/host/speech.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { deviceSchema } from '../../shared/wire/http.ts';
import {
  type RightsIndex,
  type RightsLine,
  type RightsSection,
  rightsLineSchema,
} from '../../shared/wire/rights.ts';
import { connect, type RegistryClient } from './client.ts';
import { connected, type GlobalFlags, label } from './flags.ts';
import { print, table } from './output.ts';
import { rightsReadme } from './rights-readme.ts';
import { checkFree } from './whole-folder.ts';

interface ExportFlags extends GlobalFlags {
  device?: string;
  label?: Record<string, string>;
  out: string;
}

type FileEntry = RightsIndex['devices'][number]['files'][number];

async function devicesOf(
  client: RegistryClient,
  flags: ExportFlags,
): Promise<{ ids: string[]; region: string }> {
  const all = await client.get('/api/v1/devices', z.array(deviceSchema));
  const region = all[0]?.region ?? '';
  const { device, label: labels } = flags;
  if (device !== undefined && labels === undefined) return { ids: [device], region };
  if (device !== undefined || labels === undefined)
    throw new FleetError('config-invalid', 'give --device, or --label for every device that has it');
  const having = all.filter((one) =>
    Object.entries(labels).every(([key, value]) => one.labels[key] === value),
  );
  if (having.length === 0) throw new FleetError('not-found', 'no device has these labels');
  return { ids: having.map(({ id }) => id), region };
}

function lineOf(text: string): RightsLine {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (cause) {
    throw new FleetError('registry-answer-invalid', 'a line of the export is no JSON', { cause });
  }
  const parsed = rightsLineSchema.safeParse(body);
  if (!parsed.success)
    throw new FleetError('registry-answer-invalid', 'a line of the export has no known section');
  return parsed.data;
}

/** One file for each section that has anything. */
class SectionFiles {
  readonly entries = new Map<RightsSection, FileEntry>();
  private readonly folder: string;
  private readonly prefix: string;
  private readonly open = new Map<
    RightsSection,
    { file: FileHandle; digest: ReturnType<typeof createHash> }
  >();

  constructor(folder: string, prefix: string) {
    this.folder = folder;
    this.prefix = prefix;
  }

  async add(section: RightsSection, data: object): Promise<void> {
    let sink = this.open.get(section);
    if (sink === undefined) {
      sink = {
        file: await open(join(this.folder, `${section}.ndjson`), 'wx', 0o600),
        digest: createHash('sha256'),
      };
      this.open.set(section, sink);
      const path = `${this.prefix}${section}.ndjson`;
      this.entries.set(section, { path, section, entries: 0, bytes: 0, sha256: '' });
    }
    const bytes = Buffer.from(`${JSON.stringify(data)}\n`);
    sink.digest.update(bytes);
    await sink.file.write(bytes);
    const entry = this.entries.get(section);
    if (entry !== undefined)
      Object.assign(entry, { entries: entry.entries + 1, bytes: entry.bytes + bytes.length });
  }

  async close(): Promise<void> {
    for (const [section, { file, digest }] of this.open) {
      await file.close();
      const entry = this.entries.get(section);
      if (entry !== undefined) entry.sha256 = digest.digest('hex');
    }
    this.open.clear();
  }
}

async function exportOne(client: RegistryClient, device: string, folder: string): Promise<FileEntry[]> {
  await mkdir(folder, { mode: 0o700 });
  const files = new SectionFiles(folder, `${device}/`);
  let counts: Record<string, number> | null = null;
  try {
    const decoder = new TextDecoder('utf-8', { fatal: true });
    let rest = '';
    for await (const bytes of client.stream(`/api/v1/rights/export?device=${encodeURIComponent(device)}`)) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines.map(lineOf)) {
        if ('counts' in line) counts = line.counts;
        else await files.add(line.section, line.data);
      }
    }
  } finally {
    await files.close();
  }
  if (counts === null) throw new FleetError('registry-unreachable', 'the export broke off before its end');
  for (const [section, count] of Object.entries(counts))
    if ((files.entries.get(section as RightsSection)?.entries ?? 0) !== count)
      throw new FleetError('registry-answer-invalid', `the export lacks entries of ${section}`);
  return [...files.entries.values()];
}

async function exportRights(flags: ExportFlags): Promise<void> {
  const out = resolve(flags.out);
  checkFree(out, false);
  const client = connect(flags);
  const { ids, region } = await devicesOf(client, flags);
  makeFolders(dirname(out));
  const made = join(dirname(out), `.${basename(out)}-exporting`);
  await rm(made, { recursive: true, force: true });
  try {
    await mkdir(made, { mode: 0o700 });
    const index: RightsIndex = { schemaVersion: 1, region, exportedAtMs: Date.now(), devices: [] };
    for (const device of ids)
      index.devices.push({ device, files: await exportOne(client, device, join(made, device)) });
    await writeFile(join(made, 'index.json'), `${JSON.stringify(index, null, 1)}\n`, { mode: 0o600 });
    await writeFile(join(made, 'README.md'), rightsReadme(index, speaker()), { mode: 0o600 });
    await rename(made, out);
    print({ json: flags.json === true }, { folder: out, ...index }, () =>
      [
        table(
          ['DEVICE', 'SECTION', 'ENTRIES'],
          index.devices.flatMap(({ device, files }) =>
            files.map(({ section, entries }) => [device, section, String(entries)]),
          ),
        ),
        `written to ${out}; README.md explains it`,
      ].join('\n'),
    );
  } catch (thrown) {
    await rm(made, { recursive: true, force: true });
    if (thrown instanceof FleetError) throw thrown;
    throw new FleetError('disk-io', `cannot write ${out}: ${String(thrown)}`, {
      cause: thrown,
      hint: 'check the folder, its permissions and the space left',
    });
  }
}

export function addRightsCommands(program: Command): void {
  const rights = program.command('rights').description('what people may ask for about themselves');

  connected(rights.command('export'))
    .description('everything that the region holds about a device, as files that its person can read')
    .option('--device <id>', 'of one device')
    .option('--label <k=v>', 'instead: of every device with it, such as subject=…; repeatable', label)
    .requiredOption('--out <folder>', 'a new folder')
    .action((flags: ExportFlags) => exportRights(flags));
}
