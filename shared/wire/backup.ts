// Why: what stands in a backup of a region, and how the registry speaks of its backups.
// Trusts: nothing before the schemas. Must never: hold a secret, or a path that leaves the backup's folder.

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { scryptSchema } from './key-file.ts';
import { nameSchema } from './messages.ts';

const timeMs = z.number().int().nonnegative();
const count = z.number().int().nonnegative();
const digest = z.string().regex(sha256Pattern);

export const backupManifestFile = 'backup.json';
/** Keys of telemetry live in backups for so long at most (DESIGN 8): what was erased is gone everywhere then. */
export const telemetryKeysBackupMs = 7 * 86_400_000;

/** One file or one folder deep; never upwards. */
export const backupPathSchema = z
  .string()
  .max(255)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)?$/);

export const backupIdSchema = z.string().regex(/^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4,16}$/);

const rootSchema = z.object({ version: count, sha256: digest });

/** `backup.json`, written last. */
export const backupManifestSchema = z.object({
  schemaVersion: z.literal(1),
  kind: z.literal('lepton-backup'),
  id: backupIdSchema,
  region: nameSchema,
  /** Of the registry that was backed up; a restore begins another one. */
  incarnation: z.string(),
  /** Of the program that wrote it. */
  version: z.string(),
  takenAtMs: timeMs,
  /** The last migration of registry.sqlite. */
  schema: z.string(),
  roots: z.object({ catalogue: rootSchema, region: rootSchema }),
  /** How `*.sealed` files and telemetry keys are opened; null: they lie in clear. */
  seal: z.object({ kdf: scryptSchema }).nullable(),
  /** Null where they were left out. Their file is described beside it: it changes when a device is erased, and goes. */
  telemetryKeys: z.object({ expiresAtMs: timeMs }).nullable(),
  files: z.array(z.object({ path: backupPathSchema, bytes: count, sha256: digest })).max(10_000_000),
  bytes: count,
});
export type BackupManifest = z.infer<typeof backupManifestSchema>;

/** `telemetry-keys/keys.json`, written last. */
export const keptKeysSchema = z.object({
  schemaVersion: z.literal(1),
  expiresAtMs: timeMs,
  /** Of `telemetry-keys.sqlite` beside it. Where the backup is sealed, so is each secret half in it, by itself. */
  file: z.object({ bytes: count, sha256: digest }),
  /** Of devices that were erased after the backup was taken: keys that were deleted in it since. */
  erased: count,
});
export type KeptKeys = z.infer<typeof keptKeysSchema>;

/** `POST /api/v1/backups` */
export const backupRequestSchema = z.object({
  withoutTelemetryKeys: z.boolean().optional(),
  /** Seals the online keys and those of telemetry. */
  passphrase: z.string().min(1).max(1_024).optional(),
});

export const backupStatusSchema = z.object({
  id: backupIdSchema,
  /** On the registry's machine. */
  path: z.string(),
  state: z.enum(['running', 'done', 'failed']),
  doneBytes: count,
  totalBytes: count,
  takenAtMs: timeMs,
  sealed: z.boolean(),
  /** Null where there are none, or none any more. */
  telemetryKeysExpireAtMs: timeMs.nullable(),
  failure: z.string().nullable(),
});
export type BackupStatus = z.infer<typeof backupStatusSchema>;

/** `GET /api/v1/restored` */
export const restoredViewSchema = z.object({
  backup: z.string(),
  takenAtMs: timeMs,
  restoredAtMs: timeMs,
  heard: z.array(z.string()),
  settled: z.object({ atMs: timeMs, by: z.string() }).nullable(),
});
