// Why: holds what the real disk, store, lock and log promise behind their ports.
// Trusts: a temporary folder on a local file system. Must never: leave files behind.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../../shared/host/clock.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { makeFolders } from '../../shared/host/folders.ts';
import { lockFolder } from '../../shared/host/lock.ts';
import { openLog } from '../../shared/host/log.ts';
import { openStore, openStoreFromSnapshot, readMigrations } from '../../shared/host/sqlite.ts';
import { isFleetError } from '../broker/fault.ts';

const root = mkdtempSync(join(tmpdir(), 'lepton-host-'));
after(() => rmSync(root, { recursive: true, force: true }));

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8);

test('folders: each missing one is made, once; what cannot be made is a fault and not tried for ever', () => {
  const at = (...parts: string[]): string => join(root, 'folders', ...parts);
  assert.deepEqual(makeFolders(at('a', 'b'), 0o700), [at(), at('a'), at('a', 'b')]);
  for (const path of [at(), at('a'), at('a', 'b')]) assert.equal(modeOf(path), '700');
  assert.deepEqual(makeFolders(at('a', 'b')), []);
  writeFileSync(at('file'), '');
  const impossible = [at('file'), at('file', 'x'), ...(existsSync('/proc') ? ['/proc/nowhere/x'] : [])];
  for (const path of impossible) assert.throws(() => makeFolders(path), isFleetError('disk-io'));
});

test('disk: files grow, shrink, move and vanish; absent ones are null', async () => {
  const disk = openDisk(join(root, 'disk'));
  assert.equal(await disk.read('a'), null);
  assert.equal(await disk.size('blobs/a'), null);
  assert.equal(await disk.readRange('blobs/a', 0, 10), null);
  assert.deepEqual(await disk.list('blobs'), []);
  await disk.create('blobs/a');
  await disk.append('blobs/a', bytes('hello '));
  await disk.append('blobs/a', bytes('world'));
  await disk.fsync('blobs/a');
  assert.equal(await disk.size('blobs/a'), 11);
  assert.deepEqual(await disk.readRange('blobs/a', 6, 100), bytes('world'));
  assert.deepEqual(await disk.readRange('blobs/a', 20, 5), bytes(''));
  await disk.truncate('blobs/a', 5);
  await disk.create('blobs/b');
  await disk.rename('blobs/a', 'blobs/b');
  await disk.fsyncDir('blobs');
  await disk.fsyncDir('.');
  assert.deepEqual(await disk.read('blobs/b'), bytes('hello'));
  assert.deepEqual(await disk.list('blobs'), ['b']);
  assert.equal(await disk.size('blobs'), null);
  await disk.create('blobs/b');
  assert.equal(await disk.size('blobs/b'), 0);
  await disk.unlink('blobs/b');
  await disk.unlink('blobs/b');
  assert.deepEqual(await disk.list('blobs'), []);
});

test('disk: files are 0600, folders 0700', { skip: process.platform === 'win32' }, async () => {
  const disk = openDisk(join(root, 'private'));
  await disk.create('deep/er/file');
  assert.equal(modeOf(join(root, 'private')), '700');
  assert.equal(modeOf(join(root, 'private/deep/er')), '700');
  assert.equal(modeOf(join(root, 'private/deep/er/file')), '600');
});

test('disk: nothing leaves the root, faults have codes', async () => {
  const disk = openDisk(join(root, 'closed'));
  for (const path of ['../x', '/etc/passwd', 'a/../../x', 'a//b', '', 'a/./b', 'a\\b', 'a\0b']) {
    await assert.rejects(disk.create(path), isFleetError('internal'), JSON.stringify(path));
  }
  await assert.rejects(disk.fsync('missing'), isFleetError('disk-io'));
  await assert.rejects(disk.rename('missing', 'x'), isFleetError('disk-io'));
  await disk.create('file');
  await assert.rejects(disk.append('file/under', bytes('x')), isFleetError('disk-io'));
});

test('disk: a full device is disk-full', { skip: process.platform !== 'linux' }, async () => {
  const disk = openDisk('/dev');
  await assert.rejects(disk.append('full', bytes('x')), isFleetError('disk-full'));
});

test('store: a transaction is whole or nothing, and its result comes back', async () => {
  const path = join(root, 'store', 'state.sqlite');
  const options = {
    synchronous: 'FULL' as const,
    migrations: [{ name: '1', sql: 'CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER) STRICT' }],
  };
  const store = await openStore(path, options);
  assert.equal(modeOf(path), '600');
  assert.equal(
    await store.tx((db) => db.run('INSERT INTO t VALUES (?, ?)', 'a', 1_700_000_000_000).changes),
    1,
  );
  await assert.rejects(
    store.tx((db) => {
      db.run('INSERT INTO t VALUES (?, ?)', 'b', 2);
      throw new Error('changed my mind');
    }),
    /changed my mind/,
  );
  await assert.rejects(
    store.tx((db) => db.run('INSERT INTO t VALUES (?, ?)', 'a', 3)),
    isFleetError('conflict'),
  );
  await assert.rejects(
    store.tx(async (db) => db.run('INSERT INTO t VALUES (?, ?)', 'c', 3)),
    isFleetError('internal'),
  );
  assert.deepEqual(await store.tx((db) => db.all('SELECT k, v FROM t')), [{ k: 'a', v: 1_700_000_000_000 }]);
  await store.close();
  const again = await openStore(path, options);
  assert.deepEqual(await again.tx((db) => db.get('SELECT v FROM t WHERE k = ?', 'a')), {
    v: 1_700_000_000_000,
  });
  assert.equal(await again.tx((db) => db.get('SELECT v FROM t WHERE k = ?', 'z')), undefined);
  const other = await openStore(path, { synchronous: 'FULL', readOnly: true });
  assert.equal((await other.tx((db) => db.all('SELECT * FROM t'))).length, 1);
  await assert.rejects(
    other.tx((db) => db.run('DELETE FROM t')),
    isFleetError('disk-io'),
  );
  await other.close();
  await again.close();
});

test('store: bytes go in and come out', async () => {
  const store = await openStore(':memory:', {
    synchronous: 'NORMAL',
    migrations: [{ name: '1', sql: 'CREATE TABLE b (x BLOB)' }],
  });
  const blob = systemEntropy.bytes(1000);
  await store.tx((db) => db.run('INSERT INTO b VALUES (?)', blob.subarray(10, 500)));
  const row = await store.tx((db) => db.get<{ x: Uint8Array }>('SELECT x FROM b'));
  assert.deepEqual(new Uint8Array(row?.x ?? []), blob.slice(10, 500));
  await store.close();
});

test('store: migrations are applied once, in order, and never edited', async () => {
  const path = join(root, 'migrated.sqlite');
  const one = {
    name: '001-a',
    sql: 'CREATE TABLE a (x INTEGER); CREATE TABLE log (t TEXT); INSERT INTO log VALUES (1)',
  };
  const two = { name: '002-b', sql: 'ALTER TABLE a ADD COLUMN y INTEGER; INSERT INTO log VALUES (2)' };
  await (await openStore(path, { synchronous: 'NORMAL', migrations: [one] })).close();
  const store = await openStore(path, { synchronous: 'NORMAL', migrations: [one, two] });
  assert.deepEqual(await store.tx((db) => db.all('SELECT t FROM log')), [{ t: '1' }, { t: '2' }]);
  await store.close();
  const edited = { ...one, sql: `${one.sql};` };
  await assert.rejects(
    openStore(path, { synchronous: 'NORMAL', migrations: [edited, two] }),
    isFleetError('migration-edited'),
  );
  await assert.rejects(
    openStore(path, { synchronous: 'NORMAL', migrations: [one] }),
    isFleetError('state-newer'),
  );
  // A migration that fails leaves nothing of itself.
  const bad = { name: '003-c', sql: 'CREATE TABLE c (x); CREATE TABLE a (x)' };
  await assert.rejects(openStore(path, { synchronous: 'NORMAL', migrations: [one, two, bad] }));
  const after = await openStore(path, { synchronous: 'NORMAL', migrations: [one, two] });
  assert.deepEqual(await after.tx((db) => db.all("SELECT name FROM sqlite_schema WHERE name = 'c'")), []);
  await after.close();
});

test('store: a file that is no database is state-corrupt', async () => {
  const path = join(root, 'no-database.sqlite');
  writeFileSync(path, 'x'.repeat(4096));
  await assert.rejects(
    openStore(path, { synchronous: 'FULL', migrations: [] }),
    isFleetError('state-corrupt'),
  );
});

test('store: a snapshot holds what was committed, from memory and from a WAL file', async () => {
  for (const path of [':memory:', join(root, 'snapshot.sqlite')]) {
    const store = await openStore(path, {
      synchronous: 'FULL',
      migrations: [{ name: '1', sql: 'CREATE TABLE t (x)' }],
    });
    await store.tx((db) => db.run('INSERT INTO t VALUES (1)'));
    const image = store.snapshot();
    await store.tx((db) => db.run('INSERT INTO t VALUES (2)'));
    const past = await openStoreFromSnapshot(image, {
      synchronous: 'FULL',
      migrations: [{ name: '1', sql: 'CREATE TABLE t (x)' }],
    });
    assert.deepEqual(await past.tx((db) => db.all('SELECT x FROM t')), [{ x: 1 }]);
    await past.tx((db) => db.run('INSERT INTO t VALUES (3)'));
    const further = await openStoreFromSnapshot(past.snapshot(), { synchronous: 'FULL' });
    assert.deepEqual(await further.tx((db) => db.all('SELECT x FROM t')), [{ x: 1 }, { x: 3 }]);
    await Promise.all([store.close(), past.close(), further.close()]);
  }
});

test('readMigrations: the SQL files of a folder by name', async () => {
  const disk = openDisk(join(root, 'sql'));
  for (const name of ['002-b.sql', '001-a.sql', 'notes.txt']) {
    await disk.create(name);
    await disk.append(name, bytes(name));
  }
  assert.deepEqual(readMigrations(join(root, 'sql')), [
    { name: '001-a.sql', sql: '001-a.sql' },
    { name: '002-b.sql', sql: '002-b.sql' },
  ]);
  assert.throws(() => readMigrations(join(root, 'absent')), isFleetError('disk-io'));
});

test('lock: one holder, also against this process, and kill -9 frees it', async () => {
  const folder = join(root, 'locked');
  const lock = await lockFolder(folder);
  assert.equal(modeOf(folder), '700');
  await assert.rejects(lockFolder(folder), isFleetError('state-locked'));
  await lock.release();
  const module = new URL('../../shared/host/lock.js', import.meta.url).href;
  const script = `const { lockFolder } = await import(${JSON.stringify(module)});
    await lockFolder(${JSON.stringify(folder)}); console.log('held'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  await assert.rejects(lockFolder(folder), isFleetError('state-locked'));
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
  await (await lockFolder(folder)).release();
});

test('log: one JSON line an event, secrets hidden, levels kept', () => {
  const lines: string[] = [];
  const log = openLog({ level: 'info', destination: { write: (line) => void lines.push(line) } });
  log.emit('debug', 'bus.connected', {});
  log.emit('warn', 'bus.refused', {
    code: 'bus-offline',
    token: 'sesame',
    error: new Error('why'),
    big: 10n,
  });
  assert.equal(lines.length, 1);
  const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  assert.equal(line['level'], 'warn');
  assert.equal(line['event'], 'bus.refused');
  assert.equal(line['code'], 'bus-offline');
  assert.equal(line['big'], '10');
  assert.match(String(line['time']), /^\d{4}-\d\d-\d\dT/);
  assert.ok(!lines[0]?.includes('sesame'));
  assert.match(JSON.stringify(line['error']), /why/);
});

test('clock: a timer fires after its time, a cancelled one never', async () => {
  const began = systemClock.mono();
  const cancelled = systemClock.timer(1);
  let fired = false;
  void cancelled.done.then(() => {
    fired = true;
  });
  cancelled.cancel();
  await systemClock.timer(20).done;
  assert.ok(systemClock.mono() - began >= 19);
  assert.equal(fired, false);
  // Longer than setTimeout can: it must not fire at once.
  const long = systemClock.timer(2 ** 40);
  let early = false;
  void long.done.then(() => {
    early = true;
  });
  await systemClock.timer(5).done;
  assert.equal(early, false);
  long.cancel();
  assert.ok(Math.abs(systemClock.wall() - Date.now()) < 1_000);
});

test('entropy: as many bytes as asked, on a buffer of their own', () => {
  const drawn = systemEntropy.bytes(32);
  assert.equal(drawn.length, 32);
  assert.equal(drawn.buffer.byteLength, 32);
  assert.notDeepEqual(drawn, systemEntropy.bytes(32));
  const word = systemEntropy.u32();
  assert.ok(Number.isInteger(word) && word >= 0 && word < 2 ** 32);
});

test('progress: nothing is written where stderr is no terminal', async () => {
  const module = new URL('../../shared/host/terminal.js', import.meta.url).href;
  const script = `const { progress } = await import(${JSON.stringify(module)});
    const bar = progress('push', 100); bar.advance(50); bar.stop(); bar.stop();`;
  const out = join(root, 'progress.txt');
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let written = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (written += chunk.toString()));
  const [code] = await once(child, 'exit');
  writeFileSync(out, written);
  assert.equal(code, 0);
  assert.equal(readFileSync(out, 'utf8'), '');
});
