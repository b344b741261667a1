// Why: a backup that was taken while the registry worked is whole, is checked, and becomes a registry again; what must not
// live long in it does not. Trusts: a real registry. Must never: check a backup by the code that wrote it alone.

import assert from 'node:assert/strict';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { Command } from 'commander';
import { keysEnds, listBackups } from '../../registry/backup/backups.ts';
import { expireKeptKeys } from '../../registry/backup/kept-keys.ts';
import { verifyBackup } from '../../registry/backup/verify.ts';
import { backupId, writeBackup } from '../../registry/backup/write.ts';
import { addBackupCommands } from '../../registry/cli/backup-commands.ts';
import { readErasureFiles } from '../../registry/cli/erasure-files.ts';
import { type RestoreWish, restoreBackup } from '../../registry/cli/restore-backup.ts';
import { type Registry, startRegistry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { openBackupFolder } from '../../shared/host/backup-folder.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { openDisk as diskOf } from '../../shared/host/disk.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { lockFolder } from '../../shared/host/lock.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { type BackupManifest, type BackupStatus, telemetryKeysBackupMs } from '../../shared/wire/backup.ts';
import type { Erasure } from '../../shared/wire/erasure.ts';
import type { MaskingRule } from '../../shared/wire/masking.ts';
import { type HeardLog, heardLog, identityModel, once, temporaryFolder } from '../registry-core/support.ts';

const loopback = { host: '127.0.0.1', port: 0 };
const passphrase = 'six words that nobody else knows';
const rules: MaskingRule[] = [{ do: 'drop', field: ['name'], classes: ['app'] }];

/** One for the whole file: starting it costs more than what is done with it. */
let shared: Promise<{ registry: Registry; data: string; log: HeardLog }> | null = null;
const folder = mkdtempSync(join(tmpdir(), 'lepton-backup-'));
after(async () => {
  await (await shared)?.registry.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function start(): Promise<{ registry: Registry; data: string; log: HeardLog }> {
  const data = join(folder, 'data');
  const log = heardLog();
  const registry = await startRegistry({
    ...{ dataFolder: data, region: 'north', http: loopback, mqtt: loopback, encoder: null },
    ...{ version: '0.0.0-test', clock: systemClock, entropy: systemEntropy, log },
  });
  const { blobs, masking } = registry.parts;
  const model = identityModel('a model');
  unwrap(await blobs.put(sha256Hex(model), once(model)));
  await masking.set(rules, false);
  return { registry, data, log };
}

function opened(): NonNullable<typeof shared> {
  shared ??= start();
  return shared;
}

async function taken(registry: Registry, passphrase: string | null = null): Promise<BackupStatus> {
  const { backups } = registry.parts;
  assert.ok(backups);
  const { id } = unwrap(await backups.start({ withTelemetryKeys: true, passphrase, user: 'ann' }));
  await backups.idle();
  const status = unwrap(await backups.status(id));
  assert.equal(status.state, 'done', status.failure ?? '');
  return status;
}

const quiet = { onTotal: () => undefined, onRead: () => undefined };
const wishFor = (from: string, data: string, more: Partial<RestoreWish> = {}): RestoreWish => ({
  ...{ from, data, erasures: null, noPeerErasures: true, withoutTelemetryKeys: false },
  ...{ passphrase: () => assert.fail('it is not sealed'), nowMs: systemClock.wall(), ...quiet },
  ...more,
});

const verified = (path: string, nowMs = systemClock.wall()) =>
  verifyBackup(openBackupFolder(dirname(path)), basename(path), { nowMs, ...quiet });

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'ok',
    (thrown: unknown) => (thrown instanceof FleetError ? thrown.code : String(thrown)),
  );
}

const filesUnder = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

test('taken while transactions go on: each of them is in it whole or not at all; files are shared, not copied', async () => {
  const { registry, data } = await opened();
  const { store } = registry.parts;
  await store.tx(({ sql }) => {
    sql.run('CREATE TABLE load (number INTEGER, half INTEGER, filler BLOB) STRICT');
    for (let row = 0; row < 800; row += 1) sql.run('INSERT INTO load VALUES (-1, 0, zeroblob(3000))');
  });
  let working = true;
  let committed = 0;
  const load = (async () => {
    for (; working; committed += 1) {
      await store.tx(({ sql }) => {
        sql.run('INSERT INTO load VALUES (?, 1, zeroblob(2000))', committed);
        sql.run('DELETE FROM load WHERE rowid = (SELECT min(rowid) FROM load WHERE number = -1)');
        sql.run('INSERT INTO load VALUES (?, 2, zeroblob(2000))', committed);
      });
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  const status = await taken(registry);
  working = false;
  await load;
  assert.ok(committed > 5, `only ${committed} transactions ran meanwhile`);

  const { problems, manifest } = await verified(status.path);
  assert.deepEqual(problems, []);
  assert.deepEqual([manifest.region, manifest.roots.region.version], ['north', 1]);
  assert.ok(!manifest.files.some(({ path }) => /encodings|admin\.token|lock/.test(path)));
  const copy = await openStore(join(status.path, 'registry.sqlite'), { synchronous: 'FULL', readOnly: true });
  const halves = await copy.tx((db) =>
    db.all<{ n: number }>('SELECT count(*) AS n FROM load WHERE number >= 0 GROUP BY number'),
  );
  const all = await copy.tx((db) => db.get<{ n: number }>('SELECT count(*) AS n FROM load'));
  await copy.close();
  assert.ok(halves.every(({ n }) => n === 2));
  assert.equal(all?.n, 800 + halves.length);

  const [blob = ''] = readdirSync(join(data, 'blobs'));
  const inodes = [join(data, 'blobs', blob), join(status.path, 'blobs', blob)].map(
    (path) => statSync(path).ino,
  );
  assert.equal(inodes[0], inodes[1]);
  for (const file of filesUnder(status.path)) assert.equal(statSync(file).mode & 0o077, 0, file);
  assert.equal(statSync(status.path).mode & 0o077, 0);
});

test('what was changed, cut or removed is found; what is damaged is not restored', async (t) => {
  const { registry } = await opened();
  const { path } = await taken(registry);
  const spoil = async (what: (copy: string) => void): Promise<string> => {
    const copy = join(temporaryFolder(t), basename(path));
    cpSync(path, copy, { recursive: true });
    what(copy);
    const data = join(dirname(copy), 'data');
    const refused = await restoreBackup(wishFor(copy, data)).catch((thrown: unknown) => thrown);
    assert.ok(refused instanceof FleetError);
    assert.equal(refused.code, 'backup-damaged');
    assert.equal(existsSync(data), false);
    return refused.message;
  };
  const edit = (file: string, change: (bytes: Buffer) => Buffer): void =>
    writeFileSync(file, change(readFileSync(file)));
  const flipped = (bytes: Buffer): Buffer => {
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    return bytes;
  };
  const blob = (copy: string): string => join(copy, 'blobs', readdirSync(join(copy, 'blobs'))[0] ?? '');
  assert.match(
    await spoil((copy) => edit(join(copy, 'registry.sqlite'), flipped)),
    /registry\.sqlite is not/,
  );
  assert.match(
    await spoil((copy) => edit(join(copy, 'registry.sqlite'), (bytes) => bytes.subarray(0, 8_192))),
    /registry\.sqlite/,
  );
  assert.match(await spoil((copy) => rmSync(blob(copy))), /blobs\/[0-9a-f]{64} is missing/);
  assert.match(await spoil((copy) => edit(blob(copy), flipped)), /is not what was written/);
  const keysCopy = (copy: string): string => join(copy, 'telemetry-keys', 'telemetry-keys.sqlite');
  assert.match(await spoil((copy) => edit(keysCopy(copy), flipped)), /telemetry-keys\.sqlite is not/);
  assert.match(await spoil((copy) => rmSync(keysCopy(copy))), /telemetry-keys\.sqlite is not/);
  assert.match(await spoil((copy) => edit(join(copy, 'keys', 'ack.pem'), flipped)), /keys\/ack\.pem is not/);
  assert.match(
    await spoil((copy) => edit(join(copy, 'telemetry-keys', 'keys.json'), flipped)),
    /telemetry-keys/,
  );
  const relabelled = (copy: string): void =>
    edit(join(copy, 'backup.json'), (bytes) => Buffer.from(bytes.toString().replace('"north"', '"south"')));
  assert.match(await spoil(relabelled), /is of region north, backup\.json of south/);

  assert.equal(await codeOf(verified(join(dirname(path), 'nothing'))), 'backup-malformed');
  const escaping = join(temporaryFolder(t), basename(path));
  cpSync(path, escaping, { recursive: true });
  edit(join(escaping, 'backup.json'), (bytes) =>
    Buffer.from(bytes.toString().replace('"registry.sqlite"', '"../registry.sqlite"')),
  );
  assert.equal(await codeOf(verified(escaping)), 'backup-malformed', 'no path leaves the folder');
  const newer = join(temporaryFolder(t), basename(path));
  cpSync(path, newer, { recursive: true });
  const store = await openStore(join(newer, 'registry.sqlite'), { synchronous: 'FULL' });
  await store.tx((db) => db.run("INSERT INTO migrations VALUES ('999-later.sql', '')"));
  await store.flushLog();
  await store.close();
  const manifest = JSON.parse(readFileSync(join(newer, 'backup.json'), 'utf8')) as BackupManifest;
  const bytes = readFileSync(join(newer, 'registry.sqlite'));
  const files = manifest.files.map((file) =>
    file.path === 'registry.sqlite' ? { ...file, bytes: bytes.length, sha256: sha256Hex(bytes) } : file,
  );
  writeFileSync(join(newer, 'backup.json'), JSON.stringify({ ...manifest, files, schema: '999-later.sql' }));
  const full = join(temporaryFolder(t), 'full');
  mkdirSync(full);
  assert.equal(await codeOf(restoreBackup(wishFor(newer, full))), 'state-newer');
  writeFileSync(join(full, 'file'), '');
  assert.equal(await codeOf(restoreBackup(wishFor(path, full))), 'conflict');
});

/** As one that was enrolled. */
const aDevice = `INSERT INTO devices (device_id, public_key, status, claim_id, labels, timezone, presence, presence_at_ms, agent,
    telemetry_epoch, report_counter, reported_epoch, verified_time_ms, refusal_id_last, enrolled_at_ms,
    certificate_expires_at_ms)
  VALUES (?, x'00', 'active', 'c', '{}', 'UTC', 'unknown', 0, '{}', 0, 0, 0, 0, 0, 0, 0)`;

interface HeldKey {
  id: string;
  device: string;
  secret: Buffer;
  masking: Buffer;
}

async function keysIn(path: string): Promise<HeldKey[]> {
  const keys = await openStore(path, { synchronous: 'FULL', readOnly: true });
  const rows = await keys.tx((db) =>
    db.all<HeldKey>(
      `SELECT key_id AS id, device_id AS device, secret_key AS secret, key AS masking
       FROM telemetry_keys, masking ORDER BY device_id`,
    ),
  );
  await keys.close();
  return rows;
}

test('a key that is erased is erased in every backup within reach, sealed or not; the passphrase brings back all else', async (t) => {
  const { registry, data, log } = await opened();
  const { telemetryKeys, backups, store } = registry.parts;
  const [gone, stays] = ['a'.repeat(32), 'b'.repeat(32)];
  await telemetryKeys.ensure([gone, stays].map((deviceId) => ({ deviceId, epoch: 0 })));
  const live = await keysIn(join(data, 'telemetry-keys.sqlite'));
  const [secret, kept] = live.map((row) => row.secret);
  assert.ok(secret && kept);
  const clear = await taken(registry);
  const [rotten, broken] = [await taken(registry), await taken(registry)];
  const sealed = await taken(registry, passphrase);
  assert.deepEqual([clear.sealed, sealed.sealed], [false, true]);
  assert.equal((await verified(sealed.path)).telemetryKeys, 'sealed');

  const names = readdirSync(join(data, 'keys'));
  const files = names.map((name) => readFileSync(join(data, 'keys', name)));
  // Certificates are for everybody, and stand in the database.
  const privateKeys = files.filter((_, at) => names[at]?.endsWith('.pem'));
  assert.ok(privateKeys.length > 8);
  const hidden: Buffer[] = [...privateKeys, secret, kept];
  for (const file of filesUnder(sealed.path)) {
    const bytes = readFileSync(file);
    assert.deepEqual(
      hidden.filter((one) => bytes.includes(one)),
      [],
      file,
    );
  }
  const holding = (bytes: Buffer): number =>
    [clear, rotten]
      .flatMap(({ path }) => filesUnder(path))
      .filter((file) => readFileSync(file).includes(bytes)).length;
  assert.deepEqual([holding(secret), holding(kept)], [2, 2]);

  writeFileSync(join(rotten.path, 'telemetry-keys', 'keys.json'), 'rotten');
  writeFileSync(join(broken.path, 'telemetry-keys', 'telemetry-keys.sqlite'), 'broken');
  await store.tx(({ sql }) => sql.run(aDevice, gone));
  const asked = { untilMs: null, requestedBy: 'ann', reason: null };
  unwrap(await registry.parts.fleet.erasures.erase(gone, asked));
  await backups?.idle();
  assert.deepEqual([holding(secret), holding(kept)], [0, 2]);
  for (const { path } of [clear, sealed]) {
    const { problems, keys } = await verified(path);
    assert.deepEqual([problems, keys?.erased], [[], 1]);
  }
  assert.match((await verified(rotten.path)).problems.join(), /keys\.json .* is not what was written/);
  assert.deepEqual(
    log.events.filter(({ event }) => event === 'backup.failed').map(({ fields }) => fields['id']),
    [broken.id],
    'and keeps the others from nothing',
  );
  const { entries } = await registry.parts.audit.list({ action: 'backups.write', limit: 100 });
  assert.deepEqual(
    entries.filter(({ detail }) => detail['id'] === sealed.id).map(({ actor, outcome }) => [actor, outcome]),
    [['job:backup', 'done']],
  );

  // Cut off between two names: the new one is taken, and what it replaced is gone.
  const folder = openBackupFolder(dirname(clear.path));
  const inner = (name: string): string => join(clear.path, name);
  cpSync(inner('telemetry-keys'), inner('.telemetry-keys.before'), { recursive: true });
  renameSync(inner('telemetry-keys'), inner('.telemetry-keys.next'));
  await folder.mend(clear.id, 'telemetry-keys', 'keys.json');
  assert.deepEqual(
    readdirSync(clear.path).filter((name) => name.includes('telemetry')),
    ['telemetry-keys'],
  );
  const target = join(temporaryFolder(t), 'data');
  const wrong = wishFor(sealed.path, target, { passphrase: () => 'other words' });
  assert.equal(await codeOf(restoreBackup(wrong)), 'passphrase-wrong');
  assert.deepEqual(readdirSync(dirname(target)), [], 'nothing is left');
  for (const { path } of [clear, sealed]) {
    const restored = join(target, basename(path));
    await restoreBackup(wishFor(path, restored, { passphrase: () => passphrase }));
    assert.deepEqual(
      await keysIn(join(restored, 'telemetry-keys.sqlite')),
      live.filter(({ device }) => device !== gone),
    );
    for (const [at, name] of names.entries())
      assert.deepEqual(readFileSync(join(restored, 'keys', name)), files[at], name);
  }
});

test('a folder of backups is one writer’s at a time, and what an end in between left is swept away', async (t) => {
  const { registry, data } = await opened();
  const path = join(temporaryFolder(t), 'backups');
  const folder = openBackupFolder(path);
  const { store, telemetryKeys } = registry.parts;
  const disks = { files: diskOf(data), keys: diskOf(join(data, 'keys')), blobs: diskOf(join(data, 'blobs')) };
  const source = {
    ...{ version: '0', store, telemetryKeys, maskingRules: () => [], ...disks },
    blobPath: (sha256: string) => join(data, 'blobs', sha256),
  };
  const wish = {
    ...{ withTelemetryKeys: false, passphrase: null, nowMs: systemClock.wall(), entropy: systemEntropy },
    onProgress: () => undefined,
  };
  const held = await folder.begin('20260101T000000Z-0000', []);
  const id = backupId(wish.nowMs, systemEntropy);
  assert.equal(await codeOf(writeBackup(source, folder, { ...wish, id })), 'state-locked');
  await held.end();
  mkdirSync(join(path, '.20260101T000000Z-1111.partial', 'keys'), { recursive: true });
  const changing = {
    ...source,
    store: {
      async copyTo(to: string) {
        await store.copyTo(to);
        writeFileSync(join(data, 'keys', 'extra.pem'), String(systemEntropy.u32()));
      },
    },
  };
  assert.equal(await codeOf(writeBackup(changing, folder, { ...wish, id })), 'conflict', 'keys change');
  assert.deepEqual(await folder.list(), []);
  await writeBackup(source, folder, { ...wish, id });
  assert.deepEqual(
    readdirSync(path).filter((name) => name !== '.lock'),
    [id],
  );
});

const erasureOf = (keys: readonly string[]): Erasure => ({
  statement: {
    ...{ schemaVersion: 1, erasureId: 'e', deviceId: 'e'.repeat(32), region: 'north', untilMs: 1 },
    keys: keys.map((keyId) => ({ keyId, epoch: 0, fromMs: 0, endsMs: 1 })),
    ...{ batches: 0, records: 0, requestedBy: 'ann', reason: null, doneAtMs: 1 },
  },
  certificate: {
    ...{ payload: 'e30=', payloadType: 'application/x', signatures: [{ keyid: 'a', sig: 'YmI=' }] },
  },
});

test('certificates are read as people keep them; what is none is said', async (t) => {
  const folder = temporaryFolder(t);
  const text = JSON.stringify(erasureOf([]));
  const write = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const read = (path: string): number => readErasureFiles([path]).length;
  const code = (path: string): string => {
    try {
      return String(read(path));
    } catch (thrown) {
      return thrown instanceof FleetError ? thrown.code : String(thrown);
    }
  };
  assert.equal(code(folder), 'input-invalid', 'a folder of none');
  assert.equal(code(write('one.json', text)), '1');
  assert.equal(code(write('list.txt', `[${text},${text}]`)), '2');
  assert.equal(code(write('erasures.jsonl', `${text}\n${text}\n${text.slice(0, 40)}`)), '2');
  assert.equal(code(write('empty.jsonl', '')), '0');
  assert.equal(code(write('wrong.jsonl', `${text}\n{}\n`)), 'input-invalid');
  assert.equal(code(write('words.txt', 'words')), 'input-invalid');
  assert.equal(code(folder), '3');
  assert.equal(code(join(folder, 'nothing')), 'input-invalid');
  // A registry's folder that never erased anything.
  const data = temporaryFolder(t);
  writeFileSync(join(data, 'registry.sqlite'), '');
  assert.equal(code(data), '0');
});

test('telemetry keys live seven days in a backup; masking rules outlive them', async (t) => {
  const { registry } = await opened();
  const { path, takenAtMs, telemetryKeysExpireAtMs } = await taken(registry);
  const endMs = takenAtMs + telemetryKeysBackupMs;
  assert.equal(telemetryKeysExpireAtMs, endMs);
  const folder = openBackupFolder(dirname(path));
  const expire = async (nowMs: number) => expireKeptKeys(folder, await keysEnds(folder), nowMs);
  const early = await expire(endMs - 1);
  assert.equal(early.includes(basename(path)), false);
  assert.equal((await verified(path, endMs)).telemetryKeys, 'expired');
  const late = join(temporaryFolder(t), 'late');
  const outcome = await restoreBackup(wishFor(path, late, { nowMs: endMs }));
  assert.equal(outcome.telemetryKeys, 'expired');
  assert.deepEqual(await expire(endMs), [basename(path)], 'those of before are gone already');
  assert.equal(existsSync(join(path, 'telemetry-keys')), false);
  assert.deepEqual((await verified(path, endMs)).problems, []);
  assert.equal((await listBackups(folder))[0]?.telemetryKeysExpireAtMs, null);

  await registry.stop();
  const again = await startRegistry({
    ...{ dataFolder: late, region: 'north', http: loopback, mqtt: loopback, encoder: null },
    ...{ version: '0.0.0-test', clock: systemClock, entropy: systemEntropy, log: heardLog() },
  });
  try {
    assert.deepEqual(again.parts.masking.view().rules, rules);
    assert.equal(again.parts.withholding.mayRead().ok, true, 'somebody said that nothing is missing');
    assert.notEqual(again.parts.incarnation, registry.parts.incarnation);
  } finally {
    await again.stop();
  }
});

/** The command line in this process; its one document. */
async function lepton(t: TestContext, args: readonly string[]): Promise<unknown> {
  const program = new Command().exitOverride();
  addBackupCommands(program);
  let text = '';
  const write = process.stdout.write.bind(process.stdout);
  // The runner of tests reports by the same stream, in bytes.
  const out = t.mock.method(process.stdout, 'write', (chunk: string | Uint8Array) => {
    if (typeof chunk !== 'string') return write(chunk);
    text += chunk;
    return true;
  });
  const told = t.mock.method(process.stderr, 'write', () => true);
  try {
    await program.parseAsync(['backup', ...args, '--json'], { from: 'user' });
  } finally {
    out.mock.restore();
    told.mock.restore();
  }
  return JSON.parse(text);
}

test('a registry that stands still is backed up by the command line, which also checks, lists, expires and restores', async (t) => {
  const { registry, data } = await opened();
  // Stopped by the test before this one.
  await registry.stop();
  const folder = temporaryFolder(t);
  const out = join(folder, 'backups');
  const code = (args: readonly string[]): Promise<string> => codeOf(lepton(t, args));
  assert.equal(await code(['create', '--out', out]), 'config-invalid');
  assert.equal(await code(['create', '--data', folder]), 'input-invalid');
  const lock = await lockFolder(data);
  assert.equal(await code(['create', '--data', data, '--out', out]), 'state-locked');
  await lock.release();
  const created = (await lepton(t, ['create', '--data', data, '--out', out])) as BackupStatus;
  assert.deepEqual(
    await lepton(t, ['list', '--folder', out]),
    [created].map((one) => ({ ...one })),
  );
  const checked = (await lepton(t, ['verify', created.path])) as { id: string; telemetryKeys: string };
  assert.deepEqual([checked.id, checked.telemetryKeys], [created.id, 'usable']);

  const held = await keysIn(join(data, 'telemetry-keys.sqlite'));
  assert.ok(held.length > 0);
  const certificate = join(folder, 'certificate.json');
  writeFileSync(certificate, JSON.stringify(erasureOf(held.map(({ id }) => id))));
  const expire = ['expire', '--folder', out, '--erasures', certificate];
  assert.deepEqual(await lepton(t, expire), { expired: [], erased: [{ id: created.id, keys: held.length }] });
  assert.deepEqual(await lepton(t, expire), { expired: [], erased: [] });
  const target = join(folder, 'restored');
  const restored = await lepton(t, ['restore', created.path, '--data', target]);
  assert.equal((restored as { waitsFor: string }).waitsFor, 'peers', 'where nobody says anything');
  assert.deepEqual(await keysIn(join(target, 'telemetry-keys.sqlite')), []);
  writeFileSync(join(created.path, 'telemetry-keys', 'telemetry-keys.sqlite'), 'broken');
  assert.equal(await code(expire), 'state-corrupt');
  writeFileSync(join(created.path, 'masking-rules.json'), '[]');
  assert.equal(await code(['verify', created.path]), 'backup-damaged');
});
