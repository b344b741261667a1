// Why: `lepton backup`: taking backups of a region while it runs or stands still, checking them, and coming back from one.
// Trusts: the registry for its own folder, verify.ts for any other. Must never: take a passphrase from a flag, or say that a
// backup is good which nobody checked.

import { existsSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { z } from 'zod';
import { openBackupFolder } from '../../shared/host/backup-folder.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { lockFolder } from '../../shared/host/lock.ts';
import { progress } from '../../shared/host/terminal.ts';
import { isErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type BackupStatus, backupStatusSchema, restoredViewSchema } from '../../shared/wire/backup.ts';
import { listBackups, tidyKeptKeys } from '../backup/backups.ts';
import { connect } from './client.ts';
import { collect, connected, type GlobalFlags } from './flags.ts';
import { note, print, size, table, when } from './output.ts';
import { newPassphrase, passphraseOf } from './passphrase.ts';
import { programVersion } from './version.ts';

const apiPath = '/api/v1/backups';
const pollMs = 250;

interface CreateFlags extends GlobalFlags {
  data?: string;
  out?: string;
  /** Commander's form of `--without-telemetry-keys`. */
  withoutTelemetryKeys?: boolean;
  passphraseFile?: string;
}

function warnOfKeys(sealed: boolean): void {
  if (sealed) return;
  note(
    'this backup holds the registry’s online keys in clear: whoever reads it can sign for the region; seal it with --passphrase-file\n',
  );
}

function shown(status: BackupStatus): string {
  return [
    `backup ${status.id}: ${size(status.totalBytes)} in ${status.path}`,
    `online keys ${status.sealed ? 'sealed' : 'in clear'}, telemetry keys ${
      status.telemetryKeysExpireAtMs === null ? 'left out' : `until ${when(status.telemetryKeysExpireAtMs)}`
    }`,
  ].join('\n');
}

function failed(status: BackupStatus): FleetError {
  const [code = '', ...words] = (status.failure ?? '').split(': ');
  return new FleetError(isErrorCode(code) ? code : 'internal', words.join(': ') || 'the backup failed');
}

/** A bar of what is done of a total that is known a little later. */
function countingBar() {
  const state: { bar: ReturnType<typeof progress> | null; told: number } = { bar: null, told: 0 };
  return {
    show(done: number, total: number): void {
      if (total > 0) state.bar ??= progress('backup', total);
      state.bar?.advance(done - state.told);
      state.told = done;
    },
    stop: (): void => state.bar?.stop(),
  };
}

async function createOnline(flags: CreateFlags, passphrase: string | null): Promise<BackupStatus> {
  const client = connect(flags);
  const wish = {
    withoutTelemetryKeys: flags.withoutTelemetryKeys === true,
    ...(passphrase === null ? {} : { passphrase }),
  };
  let status = await client.send('POST', apiPath, wish, backupStatusSchema);
  const bar = countingBar();
  while (status.state === 'running') {
    await systemClock.timer(pollMs).done;
    status = await client.get(`${apiPath}/${status.id}`, backupStatusSchema);
    bar.show(status.doneBytes, status.totalBytes);
  }
  bar.stop();
  if (status.state === 'failed') throw failed(status);
  return status;
}

async function createOffline(
  data: string,
  flags: CreateFlags,
  passphrase: string | null,
): Promise<BackupStatus> {
  const { openOfflineSource } = await import('../backup/offline.ts');
  const { backupId, writeBackup } = await import('../backup/write.ts');
  if (!existsSync(join(data, 'registry.sqlite')))
    throw new FleetError('input-invalid', `${data} is no data folder of a registry`);
  const lock = await lockFolder(data);
  const bar = countingBar();
  try {
    const source = await openOfflineSource(data, programVersion());
    try {
      const nowMs = Date.now();
      const withTelemetryKeys = flags.withoutTelemetryKeys !== true;
      const { manifest, path } = await writeBackup(
        source,
        openBackupFolder(flags.out ?? join(data, 'backups')),
        {
          ...{ id: backupId(nowMs, systemEntropy), withTelemetryKeys, passphrase, nowMs },
          entropy: systemEntropy,
          onProgress: bar.show,
        },
      );
      return {
        ...{ id: manifest.id, path, state: 'done', doneBytes: manifest.bytes, totalBytes: manifest.bytes },
        ...{ takenAtMs: nowMs, sealed: manifest.seal !== null, failure: null },
        telemetryKeysExpireAtMs: manifest.telemetryKeys?.expiresAtMs ?? null,
      };
    } finally {
      await source.close();
    }
  } finally {
    bar.stop();
    await lock.release();
  }
}

async function create(flags: CreateFlags): Promise<void> {
  const { data, out } = flags;
  if (data === undefined && out !== undefined)
    throw new FleetError('config-invalid', '--out is for the folder of a registry that does not run', {
      hint: 'a running one writes where `lepton serve --backup-folder` says; or give --data',
    });
  const passphrase = flags.passphraseFile === undefined ? null : newPassphrase('the backup');
  const status =
    data === undefined
      ? await createOnline(flags, passphrase)
      : await createOffline(resolve(data), flags, passphrase);
  warnOfKeys(status.sealed);
  print({ json: flags.json === true }, status, () => shown(status));
}

async function list(flags: GlobalFlags & { folder?: string }): Promise<void> {
  const found =
    flags.folder === undefined
      ? await connect(flags).get(apiPath, z.array(backupStatusSchema))
      : await listBackups(openBackupFolder(flags.folder));
  print({ json: flags.json === true }, found, () =>
    table(
      ['MADE', 'BACKUP', 'STATE', 'SIZE', 'ONLINE KEYS', 'TELEMETRY KEYS UNTIL'],
      found.map((one) => [
        when(one.takenAtMs),
        one.id,
        one.state,
        size(one.totalBytes),
        one.sealed ? 'sealed' : 'in clear',
        when(one.telemetryKeysExpireAtMs),
      ]),
    ),
  );
}

async function expire(flags: GlobalFlags & { folder: string; erasures?: string[] }): Promise<void> {
  const { readErasureFiles } = await import('./erasure-files.ts');
  const named = flags.erasures === undefined ? [] : readErasureFiles(flags.erasures);
  const gone = new Set(named.flatMap(({ statement }) => statement.keys.map(({ keyId }) => keyId)));
  const isErased = (keyId: string): boolean => gone.has(keyId);
  const { expired, erased, failed } = await tidyKeptKeys(openBackupFolder(flags.folder), {
    ...{ nowMs: Date.now(), isErased },
  });
  const [first] = failed;
  if (first !== undefined)
    throw new FleetError(
      first.fault.code,
      `in ${failed.map(({ id }) => id).join(', ')} keys could not be deleted, elsewhere they were: ${first.fault.message}`,
      {
        hint: 'remove the folder telemetry-keys of that backup: what was recorded until then will not open from it',
      },
    );
  print({ json: flags.json === true }, { expired, erased }, () =>
    [
      ...(expired.length === 0 ? [] : [`deleted the telemetry keys of ${expired.join(', ')}`]),
      ...erased.map(({ id, keys }) => `deleted ${keys} erased key(s) in ${id}`),
      ...(expired.length + erased.length === 0 ? ['nothing to delete'] : []),
    ].join('\n'),
  );
}

/** A bar whose length is known once the manifest was read. */
function readingBar(label: string) {
  let bar: ReturnType<typeof progress> | null = null;
  return {
    onTotal(bytes: number): void {
      bar = progress(label, bytes);
    },
    onRead: (bytes: number): void => bar?.advance(bytes),
    stop: (): void => bar?.stop(),
  };
}

async function verify(folder: string, flags: GlobalFlags): Promise<void> {
  const { verifyBackup } = await import('../backup/verify.ts');
  const path = resolve(folder);
  const bar = readingBar('verify');
  const verified = await verifyBackup(openBackupFolder(dirname(path)), basename(path), {
    ...bar,
    nowMs: Date.now(),
  }).finally(bar.stop);
  const { manifest, problems, telemetryKeys } = verified;
  const { id, region, takenAtMs, roots, files, bytes } = manifest;
  if (problems.length > 0)
    throw new FleetError('backup-damaged', `${path}: ${problems.slice(0, 5).join('; ')}`);
  if (telemetryKeys === 'expired')
    note('its telemetry keys have lived their days: `lepton backup expire` deletes them\n');
  print(
    { json: flags.json === true },
    {
      id,
      region,
      takenAtMs,
      roots,
      files: files.length,
      bytes,
      sealed: manifest.seal !== null,
      telemetryKeys,
    },
    () =>
      [
        `backup ${id} of region ${region}, taken ${when(takenAtMs)}: ${files.length} files, ${size(bytes)}, all as written`,
        `catalogue root ${roots.catalogue.version}, region root ${roots.region.version}; telemetry keys ${telemetryKeys}`,
      ].join('\n'),
  );
}

interface RestoreFlags extends GlobalFlags {
  data: string;
  erasures?: string[];
  peerErasures: boolean;
  withoutTelemetryKeys?: boolean;
}

const waits = {
  given: 'its first start erases again what the named certificates say',
  none: 'nothing was erased since, by your word',
  peers:
    'telemetry stays closed until every other region gave back what it knows, or an admin runs lepton backup confirm-erasures',
} as const;

async function restore(folder: string, flags: RestoreFlags): Promise<void> {
  const { restoreBackup } = await import('./restore-backup.ts');
  const { readErasureFiles } = await import('./erasure-files.ts');
  const bar = readingBar('restore');
  const { manifest, data, telemetryKeys, erasures, waitsFor } = await restoreBackup({
    from: folder,
    data: flags.data,
    erasures: flags.erasures === undefined ? null : readErasureFiles(flags.erasures),
    noPeerErasures: !flags.peerErasures,
    withoutTelemetryKeys: flags.withoutTelemetryKeys === true,
    passphrase: () => passphraseOf(`the backup ${folder}`),
    nowMs: Date.now(),
    ...bar,
  }).finally(bar.stop);
  const { id, region, takenAtMs } = manifest;
  print(
    { json: flags.json === true },
    { id, region, takenAtMs, data, telemetryKeys, erasures, waitsFor },
    () =>
      [
        `${data} is region ${region} as of ${when(takenAtMs)} (backup ${id}); telemetry keys ${telemetryKeys}`,
        `${erasures} certificate(s) of erasures; ${waits[waitsFor]}`,
        'tokens and devices that were revoked since then are let in again: revoke them once more',
        `start it with: lepton serve --data ${data} --region ${region} …`,
      ].join('\n'),
  );
}

async function confirm(flags: GlobalFlags): Promise<void> {
  const path = '/api/v1/restored/erasures-confirmed';
  const view = await connect(flags).send('POST', path, {}, restoredViewSchema);
  print(
    { json: flags.json === true },
    view,
    () =>
      `telemetry is readable since ${when(view.settled?.atMs ?? null)}, by the word of ${view.settled?.by ?? '-'}`,
  );
}

export function addBackupCommands(program: Command): void {
  const backup = program.command('backup').description('backups of a region, and coming back from one');

  connected(backup.command('create'))
    .description(
      'take a backup of a running registry, in its own folder; with --data of one that stands still',
    )
    .option('--data <folder>', 'data folder of a registry that does not run')
    .option('--out <folder>', 'with --data: where backups lie (default: DATA/backups)')
    .option('--without-telemetry-keys', 'what was recorded until now will not open after a restore')
    .option('--passphrase-file <file>', 'seals the online keys and those of telemetry')
    .action((flags: CreateFlags) => create(flags));

  connected(backup.command('list'))
    .description('backups of a running registry, or in a folder')
    .option('--folder <folder>', 'on this machine')
    .action((flags: GlobalFlags & { folder?: string }) => list(flags));

  backup
    .command('verify')
    .description('check every digest, both databases, the region and its roots')
    .argument('<backup>', 'folder that holds backup.json')
    .option('--json', 'one JSON document on stdout')
    .action((folder: string, flags: GlobalFlags) => verify(folder, flags));

  backup
    .command('expire')
    .description(
      'delete telemetry keys that are older than 7 days; a running registry does so in its own folder',
    )
    .requiredOption('--folder <folder>', 'where backups lie')
    .option(
      '--erasures <path>',
      'and the keys that these certificates say were erased: a file or folder; repeatable',
      collect,
    )
    .option('--json', 'one JSON document on stdout')
    .action((flags: GlobalFlags & { folder: string; erasures?: string[] }) => expire(flags));

  backup
    .command('restore')
    .description('make a data folder of a backup')
    .argument('<backup>', 'folder that holds backup.json')
    .requiredOption('--data <folder>', 'new data folder')
    .option(
      '--erasures <path>',
      'certificates of what was erased since: a file or folder; repeatable',
      collect,
    )
    .option('--no-peer-erasures', 'nothing was erased since: wait for no other region')
    .option('--without-telemetry-keys', 'leave them out; what was recorded until then does not open')
    .option('--passphrase-file <file>', 'of a sealed backup')
    .option('--json', 'one JSON document on stdout')
    .action((folder: string, flags: RestoreFlags) => restore(folder, flags));

  connected(backup.command('confirm-erasures'))
    .description('say that no erasure is missing after a restore; telemetry is readable from then on')
    .action((flags: GlobalFlags) => confirm(flags));
}
