// Why: backups of a registry that works: begun by an operator, one at a time, watched until it is done, and stripped of
// telemetry keys once those have lived their days.
// Trusts: write.ts for what is in one. Must never: keep telemetry keys in the folder past the time that stands beside them.

import type { BackupFolder } from '../../shared/host/backup-folder.ts';
import { asFleetError, type FleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Entropy, Log } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  type BackupManifest,
  type BackupStatus,
  backupManifestFile,
  backupManifestSchema,
} from '../../shared/wire/backup.ts';
import type { Audit } from '../audit/audit.ts';
import { eraseKeptKeys, expireKeptKeys, readKeptKeys } from './kept-keys.ts';
import { type BackupSource, backupId, writeBackup } from './write.ts';

export interface BackupOrder {
  withTelemetryKeys: boolean;
  /** Seals what is secret; null leaves it in clear. */
  passphrase: string | null;
  user: string;
}

export interface Backups {
  /** Begins one; `status` tells how far it is. Refusal: `conflict` (one is under way). */
  start(wish: BackupOrder): Promise<Result<BackupStatus>>;
  /** Refusal: `not-found`. */
  status(id: string): Promise<Result<BackupStatus>>;
  /** Whole ones, and the one under way; newest first. */
  list(): Promise<BackupStatus[]>;
  /** Telemetry keys that have lived their days go, and those that were erased since. Idempotent. */
  tidyKeys(): Promise<void>;
  /** Resolves when none is under way. */
  idle(): Promise<void>;
}

/** Null where the folder holds no backup of this kind. */
export async function readManifest(folder: BackupFolder, name: string): Promise<BackupManifest | null> {
  const bytes = await folder.read(name, backupManifestFile);
  if (bytes === null) return null;
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
  const parsed = backupManifestSchema.safeParse(body);
  return parsed.success ? parsed.data : null;
}

export async function listBackups(folder: BackupFolder): Promise<BackupStatus[]> {
  const found: BackupStatus[] = [];
  for (const name of (await folder.list()).reverse()) {
    const manifest = await readManifest(folder, name);
    if (manifest === null) continue;
    const kept = await readKeptKeys(folder, name).catch(() => null);
    found.push({
      ...{ id: manifest.id, path: `${folder.folder}/${name}`, state: 'done', failure: null },
      ...{ doneBytes: manifest.bytes, totalBytes: manifest.bytes, takenAtMs: manifest.takenAtMs },
      sealed: manifest.seal !== null,
      telemetryKeysExpireAtMs: kept?.expiresAtMs ?? null,
    });
  }
  return found;
}

/** By name, of whole backups alone: what says nothing of itself is left to whoever put it there. */
export async function keysEnds(folder: BackupFolder): Promise<Map<string, number>> {
  const ends = new Map<string, number>();
  for (const name of await folder.list()) {
    const manifest = await readManifest(folder, name);
    if (manifest !== null && manifest.telemetryKeys !== null)
      ends.set(name, manifest.telemetryKeys.expiresAtMs);
  }
  return ends;
}

export interface TidiedKeys {
  expired: string[];
  erased: { id: string; keys: number }[];
  /** Backups in which erased keys could not be deleted; they keep the others from nothing. */
  failed: { id: string; fault: FleetError }[];
}

/** Telemetry keys that have lived their days go, and those that were erased. Idempotent. Fault: `state-locked`. */
export async function tidyKeptKeys(
  folder: BackupFolder,
  { nowMs, isErased }: { nowMs: number; isErased(keyId: string): boolean },
): Promise<TidiedKeys> {
  const ends = await keysEnds(folder);
  const done: TidiedKeys = { expired: [], erased: [], failed: [] };
  if (ends.size === 0) return done;
  return folder.alone(async () => {
    done.expired = await expireKeptKeys(folder, ends, nowMs);
    for (const id of ends.keys()) {
      if (done.expired.includes(id)) continue;
      try {
        const keys = await eraseKeptKeys(folder, id, isErased);
        if (keys > 0) done.erased.push({ id, keys });
      } catch (thrown) {
        done.failed.push({ id, fault: asFleetError(thrown) });
      }
    }
    return done;
  });
}

export function createBackups(parts: {
  source: BackupSource;
  folder: BackupFolder;
  /** Of a telemetry key, by its id. */
  isErased(keyId: string): boolean;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  audit: Pick<Audit, 'append'>;
}): Backups {
  const { source, folder, clock, entropy, log } = parts;
  let current: BackupStatus | null = null;
  let work: Promise<void> = Promise.resolve();
  let tidying: Promise<void> = Promise.resolve();

  /** The entry of the request says that it was begun; this one, what came of it. */
  async function note(user: string, status: BackupStatus, code: string | null): Promise<void> {
    await parts.audit.append({
      ...{ actor: 'job:backup', via: 'job', action: 'backups.write', subject: null, reason: null },
      ...{ outcome: code === null ? 'done' : 'failed', code, rule: null, address: null },
      detail: { id: status.id, bytes: status.totalBytes, sealed: status.sealed, requestedBy: user },
    });
  }

  async function write(status: BackupStatus, wish: BackupOrder): Promise<string | null> {
    try {
      const { manifest, path } = await writeBackup(source, folder, {
        ...{ id: status.id, nowMs: status.takenAtMs, entropy },
        ...{ withTelemetryKeys: wish.withTelemetryKeys, passphrase: wish.passphrase },
        onProgress: (doneBytes, totalBytes) => Object.assign(status, { doneBytes, totalBytes }),
      });
      const { bytes, telemetryKeys } = manifest;
      Object.assign(status, { state: 'done', path, doneBytes: bytes, totalBytes: bytes });
      status.telemetryKeysExpireAtMs = telemetryKeys?.expiresAtMs ?? null;
      log.emit('info', 'backup.finished', { id: status.id, path, bytes, sealed: status.sealed });
      return null;
    } catch (thrown) {
      const { code, message } = asFleetError(thrown);
      Object.assign(status, { state: 'failed', failure: `${code}: ${message}` });
      log.emit('error', 'backup.failed', { id: status.id, code, detail: message });
      return code;
    }
  }

  async function run(status: BackupStatus, wish: BackupOrder): Promise<void> {
    const code = await write(status, wish);
    await note(wish.user, status, code).catch((thrown: unknown) => {
      // The backup is what it is; that the record lacks it must be seen.
      const { code: why, message } = asFleetError(thrown);
      log.emit('error', 'backup.failed', { id: status.id, while: 'auditing', code: why, detail: message });
    });
  }

  async function tidy(): Promise<void> {
    const { isErased } = parts;
    const { expired, erased, failed } = await tidyKeptKeys(folder, { nowMs: clock.wall(), isErased });
    for (const id of expired) log.emit('info', 'backup.expired', { id });
    for (const { id, keys } of erased) log.emit('info', 'backup.keys.erased', { id, keys });
    for (const { id, fault } of failed)
      log.emit('error', 'backup.failed', {
        ...{ id, while: 'erasing keys', code: fault.code, detail: fault.message },
      });
  }

  /** One after the other; what fails is tried again within the hour. */
  function tidyKeys(): Promise<void> {
    tidying = tidying.then(tidy).catch((thrown: unknown) => {
      const { code, message } = asFleetError(thrown);
      log.emit('error', 'backup.failed', { while: 'looking after keys', code, detail: message });
    });
    return tidying;
  }

  return {
    async start(wish) {
      if (current?.state === 'running')
        return refuse('conflict', `the backup ${current.id} is under way; wait for it`);
      const nowMs = clock.wall();
      const id = backupId(nowMs, entropy);
      const status: BackupStatus = {
        ...{ id, path: `${folder.folder}/${id}`, state: 'running', doneBytes: 0, totalBytes: 0 },
        ...{ takenAtMs: nowMs, sealed: wish.passphrase !== null, telemetryKeysExpireAtMs: null },
        failure: null,
      };
      current = status;
      log.emit('info', 'backup.started', { id, user: wish.user });
      // What was erased while it was taken is in its copy of the keys.
      work = run(status, wish).then(tidyKeys);
      return ok({ ...status });
    },
    async status(id) {
      if (current?.id === id) return ok({ ...current });
      const found = (await listBackups(folder)).find((one) => one.id === id);
      return found === undefined ? refuse('not-found', `there is no backup ${id}`) : ok(found);
    },
    async list() {
      const whole = await listBackups(folder);
      const shown = current !== null && !whole.some(({ id }) => id === current?.id) ? [{ ...current }] : [];
      return [...shown, ...whole];
    },
    tidyKeys,
    async idle() {
      await work;
      await tidying;
    },
  };
}
