// Why: a backup of a region is taken while it works: a consistent copy of its database, its keys, its files; what is made
// again is left out, and what must not live long lies apart.
// Trusts: the Store to copy one moment. Must never: give a backup its name before every byte of it is durable, or hold up
// those who work meanwhile.

import { newStretching, stretchBeside } from '../../shared/crypto/key-seal.ts';
import { sealStored, storedNonceBytes } from '../../shared/crypto/stored-seal.ts';
import { type BackupDraft, type BackupFolder, digestOfFile } from '../../shared/host/backup-folder.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Disk, Entropy, Store } from '../../shared/kernel/ports.ts';
import { sha256Pattern } from '../../shared/kernel/releases.ts';
import { type BackupManifest, backupManifestFile, telemetryKeysBackupMs } from '../../shared/wire/backup.ts';
import type { MaskingRule } from '../../shared/wire/masking.ts';
import { erasuresFile } from '../telemetry/erasure-journal.ts';
import { factsOfCopy } from './facts.ts';
import {
  type ChangeSecret,
  changeSecrets,
  describeKeys,
  keptKeysDatabase,
  keptKeysFolder,
} from './kept-keys.ts';

/** What is backed up: a registry that works, or the folder of one that does not. */
export interface BackupSource {
  version: string;
  store: Pick<Store, 'copyTo'>;
  telemetryKeys: Pick<Store, 'copyTo'>;
  maskingRules(): readonly MaskingRule[];
  /** The place itself, its keys and its blobs. */
  files: Disk;
  keys: Disk;
  blobs: Disk;
  blobPath(sha256: string): string;
}

export interface BackupWish {
  id: string;
  withTelemetryKeys: boolean;
  passphrase: string | null;
  nowMs: number;
  entropy: Entropy;
  /** Bytes that are done of all that there are. */
  onProgress(done: number, total: number): void;
}

export const registryCopy = 'registry.sqlite';
export const maskingRulesFile = 'masking-rules.json';
export const sealedEnd = '.sealed';

/** A name that sorts by time and is not there twice. */
export function backupId(nowMs: number, entropy: Entropy): string {
  const time = new Date(nowMs).toISOString().replace(/[-:]|\.\d+/g, '');
  return `${time}-${Buffer.from(entropy.bytes(4)).toString('hex')}`;
}

type KeyFiles = ReadonlyMap<string, Uint8Array>;

async function filesOf(disk: Disk): Promise<KeyFiles> {
  const files = new Map<string, Uint8Array>();
  for (const name of await disk.list('.')) {
    const bytes = (await disk.size(name)) === null ? null : await disk.read(name);
    // A file that is being written has another name until it is whole.
    if (bytes !== null && !/\.new$/.test(name)) files.set(name, bytes);
  }
  return files;
}

const isSame = (one: KeyFiles, other: KeyFiles): boolean =>
  one.size === other.size &&
  [...one].every(([name, bytes]) => Buffer.compare(bytes, other.get(name) ?? new Uint8Array(0)) === 0);

/** Keys and the database that names them, of one moment: a rotation in between would part them. */
async function copyWithKeys(source: BackupSource, draft: BackupDraft): Promise<KeyFiles> {
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const before = await filesOf(source.keys);
    await source.store.copyTo(draft.path(registryCopy));
    const after = await filesOf(source.keys);
    if (isSame(before, after)) return after;
    await draft.remove(registryCopy);
  }
  throw new FleetError('conflict', 'online keys change again and again while the backup is taken', {
    hint: 'wait until the rotation is done, then take the backup again',
  });
}

/** `about` is a file's path in the backup, or a key's name. */
async function sealOf(
  wish: BackupWish,
): Promise<{ seal: BackupManifest['seal']; sealed: ChangeSecret | null }> {
  if (wish.passphrase === null) return { seal: null, sealed: null };
  const kdf = newStretching(wish.entropy.bytes(32));
  const key = await stretchBeside(wish.passphrase, kdf);
  return {
    seal: { kdf },
    sealed: (about, bytes) =>
      sealStored(key, wish.entropy.bytes(storedNonceBytes), bytes, new TextEncoder().encode(about)),
  };
}

/** Faults: `conflict`, `state-locked` (another backup into that folder), `disk-full`, `disk-io`. */
export async function writeBackup(
  source: BackupSource,
  folder: BackupFolder,
  wish: BackupWish,
): Promise<{ manifest: BackupManifest; path: string }> {
  const inner = ['keys', 'blobs', ...(wish.withTelemetryKeys ? [keptKeysFolder] : [])];
  const draft = await folder.begin(wish.id, inner);
  try {
    return await fill(source, draft, wish);
  } finally {
    await draft.end();
  }
}

async function fill(
  source: BackupSource,
  draft: BackupDraft,
  wish: BackupWish,
): Promise<{ manifest: BackupManifest; path: string }> {
  const files: BackupManifest['files'] = [];
  const blobs = (await source.blobs.list('.')).filter((name) => sha256Pattern.test(name));
  const sizes = await Promise.all(blobs.map((name) => source.blobs.size(name)));
  const databaseBytes = (await source.files.size(registryCopy)) ?? 0;
  const total = databaseBytes + sizes.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0);
  let done = 0;
  const advance = (bytes: number): void => {
    done = Math.min(total, done + bytes);
    wish.onProgress(done, total);
  };
  async function listed(path: string): Promise<void> {
    const digest = await digestOfFile(draft.path(path));
    if (digest === null) throw new FleetError('disk-io', `${path} of the backup is gone`);
    files.push({ path, ...digest });
  }
  async function write(path: string, bytes: Uint8Array | string): Promise<void> {
    await draft.write(path, bytes);
    await listed(path);
  }

  const { seal, sealed } = await sealOf(wish);
  const keys = await copyWithKeys(source, draft);
  await listed(registryCopy);
  advance(databaseBytes);
  for (const [name, bytes] of keys) {
    const path = `keys/${name}`;
    if (sealed === null) await write(path, bytes);
    else await write(path + sealedEnd, sealed(path, bytes));
  }
  // After the database: each key that it names is there, but for what was erased in between.
  const expiresAtMs = wish.nowMs + telemetryKeysBackupMs;
  if (wish.withTelemetryKeys) {
    const inKeys = (inner: string): string => draft.path(`${keptKeysFolder}/${inner}`);
    await source.telemetryKeys.copyTo(inKeys(keptKeysDatabase));
    // Over what was copied: no clear page is left in the file, and no such file was there under the backup's name.
    if (sealed !== null) await changeSecrets(inKeys(keptKeysDatabase), sealed);
    await describeKeys(
      { path: inKeys, write: (inner, bytes) => draft.write(`${keptKeysFolder}/${inner}`, bytes) },
      { expiresAtMs, erased: 0 },
    );
  }
  // They stand beside the telemetry keys, which do not live as long: a restore without those still masks.
  await write(maskingRulesFile, `${JSON.stringify(source.maskingRules())}\n`);
  const erasures = await source.files.read(erasuresFile);
  if (erasures !== null) await write(erasuresFile, erasures);
  for (const [at, name] of blobs.entries()) {
    await draft.take(`blobs/${name}`, source.blobPath(name));
    // Its name is its digest; `verify` reads it.
    files.push({ path: `blobs/${name}`, bytes: sizes[at] ?? 0, sha256: name });
    advance(sizes[at] ?? 0);
  }

  const manifest: BackupManifest = {
    ...{ schemaVersion: 1, kind: 'lepton-backup', id: wish.id, version: source.version },
    ...(await factsOfCopy(draft.path(registryCopy))),
    takenAtMs: wish.nowMs,
    seal,
    telemetryKeys: wish.withTelemetryKeys ? { expiresAtMs } : null,
    files,
    bytes: files.reduce((sum, file) => sum + file.bytes, 0),
  };
  const text = `${JSON.stringify(manifest, null, 1)}\n`;
  await draft.write(backupManifestFile, text);
  return { manifest, path: await draft.finish() };
}
