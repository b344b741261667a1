// Why: the registry's database. Kysely builds typed queries, the Store port runs them synchronously
// inside one transaction, so that a transaction is one function and nothing runs between its queries.
// Trusts: the migrations folder of this installation. Must never: run a query outside a transaction.

import { fileURLToPath } from 'node:url';
import {
  type Compilable,
  type CompiledQuery,
  DummyDriver,
  Kysely,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely';
import { openStore, readMigrations } from '../../shared/host/sqlite.ts';
import { invariant } from '../../shared/kernel/errors.ts';
import type { Migration, Place, SqlTx, SqlValue, Store } from '../../shared/kernel/ports.ts';
import type { Tables } from './tables.ts';

export { sql } from 'kysely';

/** The database inside one transaction. Everything is synchronous. */
export interface RegistryDb {
  /** Runs an insert, update or delete. */
  run(query: Compilable<unknown>): { changes: number };
  all<Row>(query: Compilable<Row>): Row[];
  first<Row>(query: Compilable<Row>): Row | undefined;
  /** Many rows, each made by `row` of its values in the order in which the query names them. */
  values<Row>(query: Compilable<unknown>, row: (values: readonly SqlValue[]) => Row): Row[];
  /** For the rare statement that the builder cannot say. */
  sql: SqlTx;
}

export type RegistryQueries = Kysely<Tables>;

export interface RegistryStore {
  /**
   * Runs `work` in one transaction; resolves when the commit is durable. A throw rolls back and
   * rejects. Transactions run one after the other.
   */
  tx<T>(work: (db: RegistryDb) => T): Promise<T>;
  /** Builds queries; it cannot run them by itself. */
  qb: RegistryQueries;
  /** As the Store's. */
  flushLog(): Promise<void>;
  /** As the Store's. */
  copyTo(path: string): Promise<void>;
  close(): Promise<void>;
}

/** Migrations stand in the sources and in the package, beside `dist/`. */
export const migrationsFolder = fileURLToPath(
  new URL('../../../registry/store/migrations/', import.meta.url),
);

/** Stands for a parameter while a `fixed` query is built. */
class Blank {
  readonly at: number;
  constructor(at: number) {
    this.at = at;
  }
}

function toSqlValue(value: unknown): SqlValue {
  if (value === null || typeof value === 'string' || typeof value === 'bigint') return value;
  if (typeof value === 'number' || value instanceof Uint8Array) return value;
  if (typeof value === 'boolean') return value ? 1 : 0;
  invariant(false, `a query parameter of type ${typeof value} cannot be stored`);
}

/**
 * A query that is built once and asked with other values each time: building takes half of a short query's time.
 * `build` gets blanks in place of the values, so it may hand them to the builder and do nothing else with them.
 */
export function fixed<Values extends readonly SqlValue[], Row>(
  build: (qb: RegistryQueries, ...values: Values) => Compilable<Row>,
): (qb: RegistryQueries, ...values: Values) => Compilable<Row> {
  let built: CompiledQuery<Row> | null = null;
  return (qb, ...values) => ({
    compile: () => {
      if (built === null) {
        // The builder carries a value to its place, whatever it is.
        const blanks: unknown = values.map((_, at) => new Blank(at));
        built = build(qb, ...(blanks as Values)).compile();
      }
      const parameters = built.parameters.map((one) => (one instanceof Blank ? values[one.at] : one));
      return { ...built, parameters };
    },
  });
}

function compile(query: Compilable<unknown>): [text: string, params: SqlValue[]] {
  const compiled = query.compile();
  return [compiled.sql, compiled.parameters.map(toSqlValue)];
}

function registryDb(tx: SqlTx): RegistryDb {
  return {
    run(query) {
      const [text, params] = compile(query);
      return tx.run(text, ...params);
    },
    all<Row>(query: Compilable<Row>) {
      const [text, params] = compile(query);
      return tx.all<Row>(text, ...params);
    },
    values(query, row) {
      const [text, params] = compile(query);
      return tx.values(text, ...params).map(row);
    },
    first<Row>(query: Compilable<Row>) {
      const [text, params] = compile(query);
      return tx.get<Row>(text, ...params);
    },
    sql: tx,
  };
}

/** Wraps any Store that has the registry's tables. */
export function registryStore(store: Store): RegistryStore {
  const qb = new Kysely<Tables>({
    dialect: {
      createAdapter: () => new SqliteAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new SqliteIntrospector(db),
      createQueryCompiler: () => new SqliteQueryCompiler(),
    },
  });
  return {
    tx: (work) => store.tx((tx) => work(registryDb(tx))),
    qb,
    flushLog: () => store.flushLog(),
    copyTo: (path) => store.copyTo(path),
    close: () => store.close(),
  };
}

const registryFile = 'registry.sqlite';

/** The registry's database in its place. */
export async function openStoreIn(place: Place): Promise<RegistryStore> {
  const migrations = registryMigrations();
  return registryStore(await place.openStore(registryFile, { synchronous: 'FULL', migrations }));
}

let known: readonly Migration[] | null = null;
/** Read once: they are part of the program. */
export function registryMigrations(): readonly Migration[] {
  known ??= readMigrations(migrationsFolder);
  return known;
}

/** Opens (and makes or migrates) the registry's database; `:memory:` for tests. */
export async function openRegistryStore(path: string): Promise<RegistryStore> {
  const migrations = registryMigrations();
  return registryStore(await openStore(path, { synchronous: 'FULL', migrations }));
}
