// Why: telemetry keys in backups: they live for days, and a key that is erased is erased in them too, so that no copy within
// reach opens what somebody asked to be gone (DESIGN 8). A sealed backup seals each key by itself, so that this needs no passphrase.
// Trusts: the clock for days, its caller for which keys are erased. Must never: leave a folder of keys half changed.

import { type BackupFolder, digestOfFile } from '../../shared/host/backup-folder.ts';
import { nextTurn } from '../../shared/host/event-loop.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { type KeptKeys, keptKeysSchema } from '../../shared/wire/backup.ts';
import { lookInto } from './facts.ts';

export const keptKeysFolder = 'telemetry-keys';
export const keptKeysDatabase = 'telemetry-keys.sqlite';
const description = 'keys.json';

/** Where a file of a folder that is being made lies. */
export interface KeysDraft {
  path(inner: string): string;
  write(inner: string, bytes: string): Promise<void>;
}

/** The last file: without it there are no keys. */
export async function describeKeys(
  draft: KeysDraft,
  kept: { expiresAtMs: number; erased: number },
): Promise<KeptKeys> {
  const digest = await digestOfFile(draft.path(keptKeysDatabase));
  if (digest === null) throw new FleetError('disk-io', `${keptKeysDatabase} of the backup is gone`);
  const described: KeptKeys = { schemaVersion: 1, ...kept, file: digest };
  await draft.write(description, `${JSON.stringify(described)}\n`);
  return described;
}

/** `about` is which secret it is. */
export type ChangeSecret = (about: string, bytes: Uint8Array) => Uint8Array;

const keysAtOnce = 500;

/**
 * Writes each secret half, and the key of masking, as `change` gives it, over what is there. `path` is of a copy that nobody
 * else has; a cut leaves it half changed.
 */
export async function changeSecrets(path: string, change: ChangeSecret): Promise<void> {
  const copy = await openStore(path, { synchronous: 'FULL', overwrites: true });
  const some = (after: string): Promise<string | undefined> =>
    copy.tx((db) => {
      const rows = db.all<{ id: string; secret: Uint8Array }>(
        `SELECT key_id AS id, secret_key AS secret FROM telemetry_keys WHERE key_id > ? ORDER BY key_id LIMIT ${keysAtOnce}`,
        after,
      );
      for (const { id, secret } of rows)
        db.run(
          'UPDATE telemetry_keys SET secret_key = ? WHERE key_id = ?',
          ...[change(`telemetry-keys/${id}`, new Uint8Array(secret)), id],
        );
      return rows.at(-1)?.id;
    });
  try {
    for (let after = await some(''); after !== undefined; after = await some(after)) await nextTurn();
    await copy.tx((db) => {
      // An earlier version's file has no such table.
      if (db.get("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'masking'") === undefined)
        return;
      for (const { key } of db.all<{ key: Uint8Array }>('SELECT key FROM masking WHERE id = 1'))
        db.run('UPDATE masking SET key = ? WHERE id = 1', change('masking', new Uint8Array(key)));
    });
    await copy.settle();
  } finally {
    await copy.close();
  }
}

/** Null where there are none, or none any more. Fault: `backup-damaged`. */
export async function readKeptKeys(folder: BackupFolder, name: string): Promise<KeptKeys | null> {
  const bytes = await folder.read(name, `${keptKeysFolder}/${description}`);
  if (bytes === null) return null;
  let body: unknown = null;
  try {
    body = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    body = null;
  }
  const parsed = keptKeysSchema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new FleetError(
    'backup-damaged',
    `${keptKeysFolder}/${description} of ${name} is not what was written`,
  );
}

/** Of backups whose keys have lived their days: the folder goes. Ids of those that lost theirs. */
export async function expireKeptKeys(
  folder: BackupFolder,
  ends: ReadonlyMap<string, number>,
  nowMs: number,
): Promise<string[]> {
  const expired: string[] = [];
  for (const [name, expiresAtMs] of ends)
    if (expiresAtMs <= nowMs && (await folder.remove(name, keptKeysFolder))) expired.push(name);
  return expired;
}

/**
 * Deletes erased keys in a backup; how many went. Of one that is not what was written they go as well, and it stays that: what
 * `verify` finds is not hidden. Faults: `state-corrupt` (nothing can be read), `disk-full`, `disk-io`.
 */
export async function eraseKeptKeys(
  folder: BackupFolder,
  name: string,
  isErased: (keyId: string) => boolean,
): Promise<number> {
  await folder.mend(name, keptKeysFolder, description);
  const source = folder.path(name, `${keptKeysFolder}/${keptKeysDatabase}`);
  const digest = await digestOfFile(source);
  if (digest === null) return 0;
  const held = await lookInto(source, (db) =>
    db.all<{ id: string }>('SELECT key_id AS id FROM telemetry_keys'),
  );
  const gone = held.filter(({ id }) => isErased(id)).map(({ id }) => id);
  if (gone.length === 0) return 0;
  const kept = await readKeptKeys(folder, name).catch(() => null);
  const isWhole = kept?.file.bytes === digest.bytes && kept.file.sha256 === digest.sha256;
  const described = await folder.read(name, `${keptKeysFolder}/${description}`);
  await folder.replace(name, keptKeysFolder, async (draft) => {
    const original = await openStore(source, { synchronous: 'FULL', readOnly: true });
    await original.copyTo(draft.path(keptKeysDatabase)).finally(() => original.close());
    const copy = await openStore(draft.path(keptKeysDatabase), { synchronous: 'FULL', overwrites: true });
    try {
      await copy.tx((db) => {
        for (const id of gone) db.run('DELETE FROM telemetry_keys WHERE key_id = ?', id);
      });
      await copy.settle();
    } finally {
      await copy.close();
    }
    if (isWhole)
      await describeKeys(draft, { expiresAtMs: kept.expiresAtMs, erased: kept.erased + gone.length });
    else await draft.write(description, described ?? '');
  });
  return gone.length;
}
