// Why: the storage of one simulated machine: plain files that forget what was not synced, and real SQLite databases in
// memory whose durable image is the last commit that their `synchronous` mode promises.
// Trusts: SQLite itself to be atomic. Must never: keep a commit that a power cut would have lost.

import { openStore, openStoreFromSnapshot, type SqliteStore } from '../../shared/host/sqlite.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Disk, Place, SqlTx, Store, StoreTerms } from '../../shared/kernel/ports.ts';
import { draw } from '../chance.ts';
import { createSimDisk, type SimDisk, type SimDiskOptions } from '../disk.ts';
import { type Incarnation, latencyMs, type World } from '../world.ts';

/** Everything that a disk holds: a backup of it, or what a thief took. */
export interface PlaceImage {
  files: ReadonlyMap<string, Uint8Array>;
  databases: ReadonlyMap<string, Uint8Array>;
}

export interface SimPlaceOptions extends SimDiskOptions {
  node: string;
  /** Databases that a power cut may tear. */
  tears?: (file: string) => boolean;
  /** After each commit, before its caller learns of it. */
  onCommit?: (file: string) => void;
}

export interface SimPlace {
  port(of: Incarnation): Place;
  files: SimDisk;
  /** The power failed. */
  cut(): void;
  /** The program ended by itself: what it wrote is in the system's hands and stays. */
  exit(): void;
  image(): PlaceImage;
  /** `first` is done to each of its databases when it is opened, as the command that brings a backup back would. */
  load(image: PlaceImage, first?: (file: string, db: SqlTx) => void): void;
  /** Looks into a database that is open, without an operation; null where it is not. */
  look<T>(file: string, work: (db: SqlTx) => T): T | null;
  /** A database was torn or lost since the last call. */
  wasTorn(file: string): boolean;
}

interface Database {
  image: Uint8Array | null;
  /** With `synchronous` NORMAL: what the last checkpoint wrote. */
  checkpoint: Uint8Array | null;
  inner: SqliteStore | null;
  /** When the last of its transactions ends: they are done one after the other, in the order of the calls. */
  busyUntilMs: number;
  terms: StoreTerms | null;
  torn: boolean;
  /** To be done when it is opened next. */
  first: ((db: SqlTx) => void) | null;
}

/** One that nobody has open. */
const holding = (image: Uint8Array | null): Database => ({
  ...{ image, checkpoint: null, inner: null, busyUntilMs: 0, terms: null, torn: false, first: null },
});

/** What `size` says of a database: the cores only ask whether it is small enough to be read through. */
const nominalBytes = 65_536;

/** By what they are opened with: applying the migrations takes longer than a world's whole first minute. */
const freshImages = new Map<string, Uint8Array>();

/** A database to which nothing happened but its migrations. */
async function freshImage(terms: StoreTerms): Promise<Uint8Array> {
  const name = JSON.stringify(terms);
  const known = freshImages.get(name);
  if (known !== undefined) return known;
  const store = await openStore(':memory:', terms);
  const image = store.snapshot();
  await store.close();
  freshImages.set(name, image);
  return image;
}

export function createSimPlace(world: World, options: SimPlaceOptions): SimPlace {
  const { node, tears = () => false } = options;
  const files = createSimDisk(world, options);
  let databases = new Map<string, Database>();
  const tornSince = new Set<string>();
  let calls = 0;

  const latency = (low: number, high: number): number => {
    calls += 1;
    return latencyMs(world, low, high, 'store', node, calls);
  };

  function inTurn(database: Database, ms: number): number {
    const now = world.nowMs();
    database.busyUntilMs = Math.max(now + ms, database.busyUntilMs + 1);
    return database.busyUntilMs - now;
  }

  function durableNow(database: Database): void {
    if (database.inner === null) return;
    const full = database.terms?.synchronous !== 'NORMAL';
    database.image = full ? database.inner.snapshot() : database.checkpoint;
    void database.inner.close();
    database.inner = null;
  }

  async function openInner(database: Database, terms: StoreTerms): Promise<SqliteStore> {
    if (database.inner !== null) throw new FleetError('state-locked', 'it is open already');
    if (database.torn) throw new FleetError('state-corrupt', 'simulated: the database is torn');
    const { image } = database;
    const inner = await openStoreFromSnapshot(image ?? (await freshImage(terms)), terms);
    if (database.first !== null) inner.now(database.first);
    database.first = null;
    database.inner = inner;
    database.terms = terms;
    database.checkpoint = terms.synchronous === 'NORMAL' ? inner.snapshot() : null;
    return inner;
  }

  /** A transaction fails as SQLite's do: at its end, with everything rolled back. */
  function attempted<T>(inner: SqliteStore, file: string, work: (db: SqlTx) => T): T {
    const full = world.fault('store.full', node, file);
    const broken = !full && world.fault('store.error', node, file);
    if (!full && !broken) return inner.now(work);
    return inner.now((db) => {
      work(db);
      throw full
        ? new FleetError('disk-full', `simulated: no space for ${file}`)
        : new FleetError('disk-io', `SQLITE_IOERR_WRITE: simulated, ${file}`);
    });
  }

  function committed(database: Database, file: string): void {
    const { inner, terms } = database;
    if (inner !== null && terms?.synchronous === 'NORMAL') {
      calls += 1;
      if (draw(world.seed, 'checkpoint', node, file, calls) < 0.3) database.checkpoint = inner.snapshot();
    }
    options.onCommit?.(file);
  }

  async function open(of: Incarnation, file: string, terms: StoreTerms): Promise<Store> {
    const database = databases.get(file) ?? holding(null);
    databases.set(file, database);
    const inner = await world.call(of, 'store.open', file, latency(1, 5), () => openInner(database, terms));
    return {
      tx: (work) =>
        world.call(of, 'store.tx', file, inTurn(database, latency(0, 15)), () => {
          const value = attempted(inner, file, work);
          committed(database, file);
          return value;
        }),
      // Every commit is in the image already.
      flushLog: () => world.call(of, 'store.flush', file, latency(0, 5), () => undefined),
      copyTo: (path) =>
        world.call(of, 'store.copy', file, inTurn(database, latency(5, 50)), () => {
          const image = inner.snapshot();
          databases.set(path, holding(image));
        }),
      close: () =>
        world.call(of, 'store.close', file, inTurn(database, latency(0, 2)), () => {
          if (database.inner !== inner) return;
          database.image = inner.snapshot();
          database.inner = null;
          void inner.close();
        }),
    };
  }

  /** The files of one folder; the databases are files of the place itself. */
  function disk(of: Incarnation, folder: string): Disk {
    const port = files.port(of);
    const inner = (path: string): string => {
      if (path === '.') return folder === '.' ? '' : folder;
      return folder === '.' ? path : `${folder}/${path}`;
    };
    const database = (path: string): Database | undefined => databases.get(inner(path));
    return {
      read: (path) => port.read(inner(path)),
      readRange: (path, offset, length) => port.readRange(inner(path), offset, length),
      size: (path) =>
        database(path) === undefined
          ? port.size(inner(path))
          : world.call(of, 'disk.size', inner(path), 0, () =>
              database(path) === undefined ? null : nominalBytes,
            ),
      create: (path) => port.create(inner(path)),
      append: (path, bytes) => port.append(inner(path), bytes),
      truncate: (path, bytes) => port.truncate(inner(path), bytes),
      fsync: (path) => port.fsync(inner(path)),
      rename: (from, to) =>
        database(from) === undefined
          ? port.rename(inner(from), inner(to))
          : world.call(of, 'disk.rename', `${inner(from)} ${inner(to)}`, 0, () => {
              databases.delete(inner(from));
            }),
      unlink: (path) => port.unlink(inner(path)),
      fsyncDir: (path) => port.fsyncDir(inner(path)),
      list: (path) => port.list(inner(path)),
      freeBytes: () => port.freeBytes(),
    };
  }

  return {
    files,
    port: (of) => ({
      disk: (folder) => disk(of, folder),
      openStore: (file, terms) => open(of, file, terms),
    }),
    cut: () => {
      files.cut();
      for (const [file, database] of databases) {
        const wasOpen = database.inner !== null;
        durableNow(database);
        if (!wasOpen || !tears(file) || !world.fault('store.torn', node, file)) continue;
        database.torn = true;
        tornSince.add(file);
      }
    },
    exit: () => {
      for (const database of databases.values()) {
        if (database.inner === null) continue;
        database.image = database.inner.snapshot();
        void database.inner.close();
        database.inner = null;
      }
    },
    image: () => ({
      files: files.image(),
      databases: new Map(
        [...databases].flatMap(([file, { inner, image, torn }]) => {
          const bytes = inner?.snapshot() ?? image;
          return bytes === null || torn ? [] : [[file, bytes]];
        }),
      ),
    }),
    load: (image, first) => {
      for (const { inner } of databases.values()) void inner?.close();
      files.load(image.files);
      databases = new Map(
        [...image.databases].map(([file, bytes]) => [
          file,
          {
            ...{ image: bytes, checkpoint: null, inner: null, busyUntilMs: 0, terms: null, torn: false },
            first: first === undefined ? null : (db) => first(file, db),
          },
        ]),
      );
    },
    look: (file, work) => {
      const inner = databases.get(file)?.inner ?? null;
      return inner === null ? null : inner.now(work);
    },
    wasTorn: (file) => tornSince.delete(file),
  };
}
