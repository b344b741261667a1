// Why: a backup becomes the data folder of a registry again: checked, laid whole or not at all, and marked, so that its
// first start erases again what was erased since.
// Trusts: verify.ts for what is in the backup. Must never: lay telemetry keys that have lived their days, or write into a
// folder that holds anything.

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { stretchBeside } from '../../shared/crypto/key-seal.ts';
import { openStored } from '../../shared/crypto/stored-seal.ts';
import { linkOrCopy, openBackupFolder, syncPath, syncTree } from '../../shared/host/backup-folder.ts';
import { diskFault } from '../../shared/host/disk-fault.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { makeFolders } from '../../shared/host/folders.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { BackupManifest } from '../../shared/wire/backup.ts';
import type { Erasure } from '../../shared/wire/erasure.ts';
import { maskingRuleSchema } from '../../shared/wire/masking.ts';
import { type ChangeSecret, changeSecrets, keptKeysDatabase, keptKeysFolder } from '../backup/kept-keys.ts';
import { type VerifiedBackup, verifyBackup } from '../backup/verify.ts';
import { maskingRulesFile, registryCopy, sealedEnd } from '../backup/write.ts';
import { registryMigrations } from '../store/open.ts';
import { erasuresFile } from '../telemetry/erasure-journal.ts';
import { telemetryKeyMigrations } from '../telemetry/keys.ts';
import { type Restored, restoredSetting } from '../telemetry/withholding.ts';

export interface RestoreWish {
  /** The backup's folder. */
  from: string;
  /** The new data folder: not there, or empty. */
  data: string;
  /** What was erased since; null where nothing was named. */
  erasures: readonly Erasure[] | null;
  /** Somebody says that nothing was erased since, or that no other region is to be waited for. */
  noPeerErasures: boolean;
  withoutTelemetryKeys: boolean;
  /** Asked for only where the backup is sealed. */
  passphrase(): string;
  nowMs: number;
  onTotal(bytes: number): void;
  onRead(bytes: number): void;
}

export interface RestoreOutcome {
  manifest: BackupManifest;
  data: string;
  telemetryKeys: VerifiedBackup['telemetryKeys'];
  /** What its first start erases again, at most. */
  erasures: number;
  waitsFor: Restored['erasures'];
}

interface Opened {
  /** A file of the backup, opened where it is sealed. */
  file(path: string): Uint8Array;
  /** Opens a secret among the telemetry keys; null where they lie in clear. */
  secret: ChangeSecret | null;
}

/** Fault: `passphrase-wrong`, here and where anything is opened. */
async function opener(backup: VerifiedBackup, wish: RestoreWish): Promise<Opened> {
  const { seal } = backup.manifest;
  const read = (path: string): Uint8Array => new Uint8Array(readFileSync(join(backup.path, path)));
  if (seal === null) return { file: read, secret: null };
  const key = await stretchBeside(wish.passphrase(), seal.kdf);
  const secret: ChangeSecret = (about, bytes) => {
    const plain = openStored(key, bytes, new TextEncoder().encode(about));
    if (plain === null) throw new FleetError('passphrase-wrong', `the passphrase does not open ${about}`);
    return plain;
  };
  return {
    file: (path) =>
      path.endsWith(sealedEnd) ? secret(path.slice(0, -sealedEnd.length), read(path)) : read(path),
    secret,
  };
}

/** Masking goes on without its keys' file; digests from now on are made with another key. */
async function layMaskingRules(folder: string, opened: Opened, nowMs: number): Promise<void> {
  const text = new TextDecoder().decode(opened.file(maskingRulesFile));
  const rules = maskingRuleSchema.array().parse(JSON.parse(text));
  if (rules.length === 0) return;
  const store = await openStore(join(folder, keptKeysDatabase), {
    synchronous: 'FULL',
    overwrites: true,
    migrations: telemetryKeyMigrations,
  });
  const insert = 'INSERT INTO masking (id, key, key_made_at_ms, rules, pending) VALUES (1, ?, ?, ?, 1)';
  await store.tx((db) => db.run(insert, systemEntropy.bytes(32), nowMs, JSON.stringify(rules)));
  await store.close();
}

async function layFiles(backup: VerifiedBackup, folder: string, wish: RestoreWish): Promise<void> {
  const opened = await opener(backup, wish);
  const withKeys =
    !wish.withoutTelemetryKeys && (backup.telemetryKeys === 'usable' || backup.telemetryKeys === 'sealed');
  for (const inner of ['keys', 'blobs']) mkdirSync(join(folder, inner), { mode: 0o700 });
  for (const { path } of backup.manifest.files) {
    if (path.startsWith('blobs/')) await linkOrCopy(join(backup.path, path), join(folder, path));
    else if (path.startsWith('keys/'))
      writeFileSync(join(folder, path.replace(/\.sealed$/, '')), opened.file(path), { mode: 0o600 });
    else if (path === registryCopy) copyFileSync(join(backup.path, path), join(folder, path));
  }
  if (withKeys) {
    const path = join(folder, keptKeysDatabase);
    writeFileSync(path, opened.file(`${keptKeysFolder}/${keptKeysDatabase}`), { mode: 0o600 });
    if (opened.secret !== null) await changeSecrets(path, opened.secret);
  } else await layMaskingRules(folder, opened, wish.nowMs);
}

/** Those of the backup first; the registry passes over what it knows. */
function layErasures(backup: VerifiedBackup, folder: string, named: readonly Erasure[]): number {
  const there = join(backup.path, erasuresFile);
  const before = existsSync(there) ? readFileSync(there, 'utf8') : '';
  const whole = before.slice(0, before.lastIndexOf('\n') + 1);
  const lines = named.map((one) => `${JSON.stringify(one)}\n`).join('');
  if (whole + lines !== '') writeFileSync(join(folder, erasuresFile), whole + lines, { mode: 0o600 });
  return (whole + lines).split('\n').length - 1;
}

async function mark(folder: string, restored: Omit<Restored, 'heard' | 'settled' | 'told'>): Promise<void> {
  const store = await openStore(join(folder, registryCopy), { synchronous: 'FULL' });
  await store.tx((db) => {
    // The next start makes another: lists to other regions begin anew.
    db.run("DELETE FROM settings WHERE key = 'incarnation'");
    db.run(
      'INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value',
      restoredSetting,
      JSON.stringify(restored),
    );
  });
  await store.close();
}

function checkTarget(data: string): void {
  if (!existsSync(data)) return;
  if (readdirSync(data).length === 0) return;
  throw new FleetError('conflict', `${data} is not empty`, { hint: 'name a new folder by --data' });
}

/** Faults: `backup-malformed`, `backup-damaged`, `state-newer`, `conflict`, `passphrase-…`, `disk-full`, `disk-io`. */
export async function restoreBackup(wish: RestoreWish): Promise<RestoreOutcome> {
  const data = resolve(wish.data);
  checkTarget(data);
  const from = resolve(wish.from);
  const backup = await verifyBackup(openBackupFolder(dirname(from)), basename(from), wish);
  const { manifest, problems } = backup;
  if (problems.length > 0)
    throw new FleetError('backup-damaged', `${from}: ${problems.slice(0, 3).join('; ')}`);
  if (!registryMigrations().some(({ name }) => name === manifest.schema))
    throw new FleetError(
      'state-newer',
      `it was written with schema ${manifest.schema}, unknown to this version`,
    );
  makeFolders(dirname(data), 0o700);
  const made = join(dirname(data), `.${basename(data)}-restoring`);
  rmSync(made, { recursive: true, force: true });
  const waitsFor = wish.erasures !== null ? 'given' : wish.noPeerErasures ? 'none' : 'peers';
  try {
    mkdirSync(made, { mode: 0o700 });
    await layFiles(backup, made, wish);
    const erasures = layErasures(backup, made, wish.erasures ?? []);
    await mark(made, {
      ...{ backup: manifest.id, takenAtMs: manifest.takenAtMs, restoredAtMs: wish.nowMs },
      erasures: waitsFor,
    });
    await syncTree(made);
    renameSync(made, data);
    await syncPath(dirname(data));
    return { manifest, data, telemetryKeys: backup.telemetryKeys, erasures, waitsFor };
  } catch (thrown) {
    rmSync(made, { recursive: true, force: true });
    throw diskFault(thrown, `restore to ${data}`);
  }
}
