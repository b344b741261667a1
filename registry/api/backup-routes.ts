// Why: the routes of backups, and of what a restored registry still waits for.
// Trusts: requireAccess for who may; backup/ for what happens. Must never: answer with a byte of a backup, or keep a passphrase.

import { createRoute, z } from '@hono/zod-openapi';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  backupIdSchema,
  backupRequestSchema,
  backupStatusSchema,
  restoredViewSchema,
} from '../../shared/wire/backup.ts';
import type { Backups } from '../backup/backups.ts';
import { type Api, problemResponse, type RegistryParts, requireAccess } from './context.ts';
import { body, json } from './documents.ts';

const createBackup = createRoute({
  method: 'post',
  path: '/api/v1/backups',
  summary: 'Begin a backup of this region on the registry’s machine; it goes on working meanwhile',
  request: body(backupRequestSchema),
  responses: { 202: json(backupStatusSchema, 'It has begun.'), default: problemResponse },
});
const listBackups = createRoute({
  method: 'get',
  path: '/api/v1/backups',
  summary: 'Backups in the registry’s folder',
  responses: { 200: json(z.array(backupStatusSchema), 'Newest first.'), default: problemResponse },
});
const showBackup = createRoute({
  method: 'get',
  path: '/api/v1/backups/{id}',
  summary: 'How far a backup is',
  request: { params: z.object({ id: backupIdSchema }) },
  responses: { 200: json(backupStatusSchema, 'The backup.'), default: problemResponse },
});
const showRestored = createRoute({
  method: 'get',
  path: '/api/v1/restored',
  summary: 'The backup that this registry was restored from, and whether erasures since then are known',
  responses: {
    200: json(restoredViewSchema.nullable(), 'Null where it never was.'),
    default: problemResponse,
  },
});
const confirmErasures = createRoute({
  method: 'post',
  path: '/api/v1/restored/erasures-confirmed',
  summary: 'Say that no erasure is missing after a restore: telemetry is readable from now on',
  responses: { 200: json(restoredViewSchema, 'As it is now.'), default: problemResponse },
});

export function registerBackupRoutes(api: Api, parts: RegistryParts): void {
  const { withholding, log } = parts;

  function backups(): Backups {
    if (parts.backups === undefined)
      throw new FleetError('not-implemented', 'this registry has no folder for backups');
    return parts.backups;
  }

  api.openapi(createBackup, async (c) => {
    const { user } = requireAccess(c, 'backups.write');
    const { withoutTelemetryKeys = false, passphrase = null } = c.req.valid('json');
    const wish = { withTelemetryKeys: !withoutTelemetryKeys, passphrase, user };
    return c.json(unwrap(await backups().start(wish)), 202);
  });

  api.openapi(listBackups, async (c) => {
    requireAccess(c, 'backups.write');
    return c.json(await backups().list(), 200);
  });

  api.openapi(showBackup, async (c) => {
    requireAccess(c, 'backups.write');
    return c.json(unwrap(await backups().status(c.req.valid('param').id)), 200);
  });

  api.openapi(showRestored, async (c) => {
    requireAccess(c, 'telemetry.read');
    return c.json(withholding.view(), 200);
  });

  api.openapi(confirmErasures, async (c) => {
    const { user } = requireAccess(c, 'telemetry.erase');
    if (await withholding.confirm(user)) log.emit('warn', 'erasure.confirmed', { user });
    const view = withholding.view();
    if (view === null) throw new FleetError('not-found', 'this registry was not restored from a backup');
    return c.json(view, 200);
  });
}
