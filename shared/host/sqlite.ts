// Why: SQLite behind the Store port: one synchronous function is one transaction, durable when its
// promise resolves. Trusts: SQLite's journal. Must never: apply an edited migration, nor run two
// transactions into each other.

import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { FleetError, invariant } from '../kernel/errors.ts';
import type { Migration, SqlTx, SqlValue, Store, StoreTerms } from '../kernel/ports.ts';
import { createRecent } from '../kernel/recent.ts';

export type { Migration } from '../kernel/ports.ts';

import { diskFault, errnoOf } from './disk-fault.ts';
import { makeFolders } from './folders.ts';

export interface StoreOptions extends StoreTerms {
  /** For a look at another process's file: nothing is written, no migration is applied. */
  readOnly?: boolean;
}

export interface SqliteStore extends Store {
  /** The whole database as bytes, as of the last commit; `openStoreFromSnapshot` opens them. */
  snapshot(): Uint8Array;
  /** Empties the log and leaves one file, to be read from now on. */
  settle(): Promise<void>;
  /** One transaction at once, for whoever stands outside the program: the simulator and its witnesses. */
  now<T>(work: (db: SqlTx) => T): T;
}

/** Waiting for another process's write transaction, then `state-locked`. */
const busyTimeoutMs = 5_000;
/** Statements kept compiled. The cores use fewer; a query builder may make more. */
const statementsMax = 512;

/** SQLite's error as a fault with our code; anything else is passed on as it is. */
function sqliteFault(error: unknown): unknown {
  if (!(error instanceof Database.SqliteError)) return error;
  const { code } = error;
  const options = { cause: error };
  if (code === 'SQLITE_FULL') return new FleetError('disk-full', error.message, options);
  if (code === 'SQLITE_NOTADB' || code.startsWith('SQLITE_CORRUPT')) {
    return new FleetError('state-corrupt', error.message, options);
  }
  if (code.startsWith('SQLITE_BUSY') || code === 'SQLITE_LOCKED') {
    return new FleetError('state-locked', error.message, options);
  }
  if (
    code.startsWith('SQLITE_IOERR') ||
    code.startsWith('SQLITE_CANTOPEN') ||
    code.startsWith('SQLITE_READONLY')
  ) {
    return new FleetError('disk-io', `${code}: ${error.message}`, options);
  }
  if (code === 'SQLITE_CONSTRAINT_UNIQUE' || code === 'SQLITE_CONSTRAINT_PRIMARYKEY') {
    return new FleetError('conflict', error.message, options);
  }
  return error;
}

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw sqliteFault(error);
  }
}

function sqlOf(database: Database.Database): SqlTx {
  const statements = new Map<string, Database.Statement<SqlValue[]>>();
  const prepared = (sql: string): Database.Statement<SqlValue[]> => {
    const known = statements.get(sql);
    if (known) {
      // Last used goes last, so that the first is the one to forget.
      statements.delete(sql);
      statements.set(sql, known);
      return known;
    }
    const fresh = database.prepare<SqlValue[]>(sql);
    statements.set(sql, fresh);
    const oldest = statements.keys().next();
    if (statements.size > statementsMax && oldest.done !== true) statements.delete(oldest.value);
    return fresh;
  };
  return {
    run: (sql, ...params) => guarded(() => ({ changes: prepared(sql).run(...params).changes })),
    // The row's shape is the caller's word for its own SQL; SQLite itself gives no types.
    get: <Row>(sql: string, ...params: SqlValue[]) =>
      guarded(
        () =>
          prepared(sql)
            .raw(false)
            .get(...params) as Row | undefined,
      ),
    all: <Row>(sql: string, ...params: SqlValue[]) =>
      guarded(
        () =>
          prepared(sql)
            .raw(false)
            .all(...params) as Row[],
      ),
    values: (sql, ...params) =>
      guarded(
        () =>
          prepared(sql)
            .raw(true)
            .all(...params) as SqlValue[][],
      ),
  };
}

type Transact = <T>(work: () => T) => T;

/** Both statements are compiled once. */
function transactions(database: Database.Database, begin: string): Transact {
  const opening = database.prepare(begin);
  const closing = database.prepare('COMMIT');
  return (work) => transact(database, opening, closing, work);
}

function transact<T>(
  database: Database.Database,
  opening: Database.Statement,
  closing: Database.Statement,
  work: () => T,
): T {
  invariant(!database.inTransaction, 'a transaction was begun inside another');
  guarded(() => opening.run());
  try {
    const value = work();
    invariant(!(value instanceof Promise), 'a transaction must be one synchronous function');
    guarded(() => closing.run());
    return value;
  } catch (error) {
    // SQLite may have rolled back by itself (disk full).
    if (database.inTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

const digests = createRecent<string>(256);

/** Of a migration's text, which is a part of the program and the same at every opening. */
function digestOf(text: string): string {
  const sha256 = digests.get(text) ?? createHash('sha256').update(text).digest('hex');
  digests.set(text, sha256);
  return sha256;
}

function migrate(
  database: Database.Database,
  sql: SqlTx,
  transact: Transact,
  migrations: readonly Migration[],
): void {
  database.exec('CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL) STRICT');
  const applied = new Map(
    sql
      .all<{ name: string; sha256: string }>('SELECT name, sha256 FROM migrations')
      .map((row) => [row.name, row.sha256]),
  );
  const names = new Set(migrations.map((migration) => migration.name));
  invariant(names.size === migrations.length, 'two migrations with one name');
  for (const name of applied.keys()) {
    if (!names.has(name))
      throw new FleetError('state-newer', `migration ${name} is not known to this version`);
  }
  for (const { name, sql: text } of migrations) {
    const sha256 = digestOf(text);
    const before = applied.get(name);
    if (before === sha256) continue;
    if (before !== undefined)
      throw new FleetError('migration-edited', `${name} was applied with another text`);
    transact(() => {
      database.exec(text);
      sql.run('INSERT INTO migrations (name, sha256) VALUES (?, ?)', name, sha256);
    });
  }
}

/** Pages copied at once; others work between two such steps. */
const copiedPages = 256;

/** By SQLite's own backup, in steps: what this connection writes meanwhile is in the copy as well. */
async function copyOf(database: Database.Database, path: string): Promise<void> {
  try {
    makeFolders(dirname(path), 0o700);
    closeSync(openSync(path, 'wx', 0o600));
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') throw new FleetError('conflict', `${path} exists`, { cause: error });
    throw diskFault(error, `make ${path}`);
  }
  try {
    await database.backup(path, { progress: () => copiedPages });
    const copy = new Database(path);
    // A database with a log beside it would leave files wherever it is looked at.
    copy.pragma('journal_mode = DELETE');
    copy.close();
    const file = openSync(path, 'r+');
    fsyncSync(file);
    closeSync(file);
  } catch (error) {
    for (const end of ['', '-wal', '-shm', '-journal']) rmSync(`${path}${end}`, { force: true });
    const fault = sqliteFault(error);
    throw fault instanceof FleetError ? fault : diskFault(error, `copy the database to ${path}`);
  }
}

function storeOf(database: Database.Database, options: StoreOptions): SqliteStore {
  const readOnly = options.readOnly === true;
  const sql = sqlOf(database);
  let transact: Transact;
  try {
    guarded(() => {
      // Before the first page is written: later it would take a whole VACUUM.
      if (!readOnly && options.reclaim === true) database.pragma('auto_vacuum = INCREMENTAL');
      if (!readOnly && !database.memory) database.pragma('journal_mode = WAL');
      if (!readOnly && options.overwrites === true) database.pragma('secure_delete = ON');
      database.pragma(`synchronous = ${options.synchronous}`);
      database.pragma('foreign_keys = ON');
      database.pragma('trusted_schema = OFF');
    });
    const made = transactions(database, readOnly ? 'BEGIN' : 'BEGIN IMMEDIATE');
    const { migrations } = options;
    if (!readOnly && migrations !== undefined) guarded(() => migrate(database, sql, made, migrations));
    transact = made;
  } catch (error) {
    database.close();
    throw error;
  }
  return {
    // An async function so that a throw rejects; the work itself runs before the first await.
    tx: async (work) => transact(() => work(sql)),
    flushLog: async () => {
      guarded(() => database.pragma('wal_checkpoint(TRUNCATE)'));
    },
    copyTo: (path) => copyOf(database, path),
    settle: async () => {
      guarded(() => database.pragma('journal_mode = DELETE'));
    },
    now: (work) => transact(() => work(sql)),
    close: async () => {
      database.close();
    },
    snapshot: () => {
      const bytes = new Uint8Array(database.serialize());
      // Header bytes 18 and 19 say WAL (2), which a database in memory cannot open; 1 is the rollback journal.
      if (bytes.length >= 100) bytes.set([1, 1], 18);
      return bytes;
    },
  };
}

/**
 * Opens or makes a database file (0600, its folders 0700) or one in memory, and applies what is missing
 * of `migrations`. Faults: `state-corrupt`, `state-locked`, `state-newer`, `disk-full`, `disk-io`.
 */
export async function openStore(path: string, options: StoreOptions): Promise<SqliteStore> {
  const readonly = options.readOnly === true;
  if (path !== ':memory:' && !readonly) {
    try {
      makeFolders(dirname(path), 0o700);
      // SQLite gives its -wal and -shm files the mode of the database file.
      closeSync(openSync(path, 'a', 0o600));
    } catch (error) {
      throw diskFault(error, `open ${path}`);
    }
  }
  const database = guarded(() => new Database(path, { timeout: busyTimeoutMs, readonly }));
  return storeOf(database, options);
}

/** A database in memory with the content of a snapshot. */
export async function openStoreFromSnapshot(bytes: Uint8Array, options: StoreOptions): Promise<SqliteStore> {
  const database = guarded(() => new Database(Buffer.from(bytes), { timeout: busyTimeoutMs }));
  return storeOf(database, options);
}

/** The `*.sql` files of a folder in the order of their names (`001-catalogue.sql`, …). */
export function readMigrations(folder: string): Migration[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith('.sql'))
      .sort()
      .map((name) => ({ name, sql: readFileSync(join(folder, name), 'utf8') }));
  } catch (error) {
    throw diskFault(error, `read migrations from ${folder}`);
  }
}
