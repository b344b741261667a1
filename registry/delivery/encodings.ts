// Why: encoded files as the registry keeps them: what was made of which file and which bases, within a bound, and what a
// device that holds certain files may be offered (DESIGN 7).
// Trusts: encoding.ts for what is in the files; devices check by digest what they make of them.
// Must never: remove a file of a release (those lie elsewhere), or offer what is no smaller than the file itself.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import type { Way } from '../../shared/wire/ways.ts';
import type { Removable } from '../catalog/blobs.ts';
import { fromColumn, toColumn } from '../fleet/columns.ts';
import type { FleetLimits } from '../fleet/limits.ts';
import type { EncodingsTable } from '../store/delivery-tables.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';

const dayMs = 24 * 3_600_000;

/** One file and those that it is to be made from. */
export interface EncodingKey {
  target: string;
  bases: readonly string[];
}

export interface Encodings {
  /** Where encoded files lie, under their own digests. */
  readonly files: Pick<Removable, 'size' | 'readRange'>;
  /** Removes what is of no use any more, as an end in mid-work leaves it. */
  open(): Promise<void>;
  find(key: EncodingKey): Promise<EncodingsTable | null>;
  /** What was made of the file from bases of these, the smallest first, and of which bases nothing was tried yet. */
  ways(target: string, held: ReadonlySet<string>): Promise<{ ways: Way[]; known: ReadonlySet<string> }>;
  /** The files that this encoded file was made for, with their sizes; empty where it is none. */
  madeFor(encodedSha256: string): Promise<{ sha256: string; bytes: number }[]>;
  keep(key: EncodingKey, targetBytes: number, encoded: Uint8Array): Promise<void>;
  keepNoSmaller(key: EncodingKey, targetBytes: number): Promise<void>;
  keepFailure(key: EncodingKey, targetBytes: number, why: Refusal): Promise<void>;
  /** When the next failure is to be tried again, Unix milliseconds; null where there is none. */
  nextRetryAtMs(): Promise<number | null>;
  /** Files and bytes that are kept. */
  kept(): Promise<{ files: number; bytes: number }>;
}

export function createEncodings(parts: {
  store: RegistryStore;
  files: Removable;
  limits: Pick<FleetLimits, 'encodingsBytesMax' | 'encodingRetryMs' | 'encodingUsedEveryMs'>;
  clock: Clock;
  log: Log;
}): Encodings {
  const { store, files, limits, clock, log } = parts;
  const { qb } = store;
  const made = qb.selectFrom('encodings').where('outcome', '=', 'made');

  const rowIn = (db: RegistryDb, { target, bases }: EncodingKey): EncodingsTable | undefined =>
    db.first(
      qb
        .selectFrom('encodings')
        .selectAll()
        .where('target_sha256', '=', target)
        .where('bases', '=', toColumn(bases)),
    );

  function writeIn(
    db: RegistryDb,
    { target, bases }: EncodingKey,
    row: Pick<EncodingsTable, 'target_bytes' | 'outcome'> & Partial<EncodingsTable>,
  ): void {
    const now = clock.wall();
    const key = { target_sha256: target, bases: toColumn(bases) };
    const blank = {
      encoded_sha256: null,
      bytes: null,
      code: null,
      detail: null,
      attempts: 1,
      retry_at_ms: null,
    };
    const values = { ...blank, made_at_ms: now, used_at_ms: now, ...row };
    db.run(
      qb
        .insertInto('encodings')
        .values({ ...key, ...values })
        .onConflict((conflict) => conflict.columns(['target_sha256', 'bases']).doUpdateSet(values)),
    );
  }

  function dropIn(db: RegistryDb, row: Pick<EncodingsTable, 'target_sha256' | 'bases'>): void {
    db.run(
      qb
        .updateTable('encodings')
        .set({ outcome: 'dropped', encoded_sha256: null, bytes: null })
        .where('target_sha256', '=', row.target_sha256)
        .where('bases', '=', row.bases),
    );
  }

  /** Makes room for the rest; files that no row names any more. */
  function evictIn(db: RegistryDb): string[] {
    const bytesOf = (): number =>
      db.first(made.select((eb) => eb.fn.sum<number | null>('bytes').as('n')))?.n ?? 0;
    const gone: string[] = [];
    for (let bytes = bytesOf(); bytes > limits.encodingsBytesMax; bytes = bytesOf()) {
      const oldest = db.first(made.selectAll().orderBy('used_at_ms').orderBy('made_at_ms').limit(1));
      if (oldest === undefined) break;
      dropIn(db, oldest);
      const { encoded_sha256: file } = oldest;
      if (file === null) continue;
      const another = db.first(made.select('target_sha256').where('encoded_sha256', '=', file).limit(1));
      if (another === undefined) gone.push(file);
    }
    return gone;
  }

  async function touch(rows: readonly EncodingsTable[]): Promise<void> {
    const now = clock.wall();
    const due = rows.filter((row) => now - row.used_at_ms >= limits.encodingUsedEveryMs);
    if (due.length === 0) return;
    await store.tx((db) => {
      for (const { target_sha256, bases } of due)
        db.run(
          qb
            .updateTable('encodings')
            .set({ used_at_ms: now })
            .where('target_sha256', '=', target_sha256)
            .where('bases', '=', bases),
        );
    });
  }

  return {
    files,

    async open() {
      const named = await store.tx((db) => db.all(made.selectAll()));
      const there = new Set(await files.list());
      const lost = named.filter((row) => row.encoded_sha256 === null || !there.has(row.encoded_sha256));
      if (lost.length > 0)
        await store.tx((db) => {
          for (const row of lost) dropIn(db, row);
        });
      const kept = new Set(named.map((row) => row.encoded_sha256));
      for (const sha256 of there) if (!kept.has(sha256)) await files.remove(sha256);
    },

    find: async (key) => (await store.tx((db) => rowIn(db, key))) ?? null,

    async ways(target, held) {
      const rows = await store.tx((db) =>
        db.all(qb.selectFrom('encodings').selectAll().where('target_sha256', '=', target)),
      );
      const fitting = rows.filter(
        (row) =>
          row.bytes !== null &&
          row.bytes < row.target_bytes &&
          fromColumn<string[]>(row.bases).every((base) => held.has(base)),
      );
      const ways = fitting.flatMap(({ encoded_sha256, bytes, bases }) =>
        encoded_sha256 === null || bytes === null
          ? []
          : [{ sha256: encoded_sha256, bytes, bases: fromColumn<string[]>(bases) }],
      );
      await touch(fitting);
      const now = clock.wall();
      const settled = rows.filter(
        ({ outcome, retry_at_ms }) =>
          outcome === 'made' ||
          outcome === 'no-smaller' ||
          (outcome === 'failed' && (retry_at_ms ?? 0) > now),
      );
      return {
        ways: ways.sort((a, b) => a.bytes - b.bytes),
        known: new Set(settled.map((row) => row.bases)),
      };
    },

    async madeFor(encodedSha256) {
      const rows = await store.tx((db) =>
        db.all(made.selectAll().where('encoded_sha256', '=', encodedSha256)),
      );
      await touch(rows);
      return rows.map((row) => ({ sha256: row.target_sha256, bytes: row.target_bytes }));
    },

    async keep(key, targetBytes, encoded) {
      const sha256 = sha256Hex(encoded);
      const put = await files.put(sha256, once(encoded));
      if (!put.ok) return this.keepFailure(key, targetBytes, put.refusal);
      const gone = await store.tx((db) => {
        const row = { target_bytes: targetBytes, encoded_sha256: sha256, bytes: encoded.length };
        writeIn(db, key, { ...row, outcome: 'made' });
        return evictIn(db);
      });
      for (const file of gone) {
        await files.remove(file);
        log.emit('info', 'encoding.dropped', { sha256: file });
      }
    },

    async keepNoSmaller(key, targetBytes) {
      await store.tx((db) => writeIn(db, key, { target_bytes: targetBytes, outcome: 'no-smaller' }));
    },

    async keepFailure(key, targetBytes, { code, detail }) {
      await store.tx((db) => {
        const attempts = (rowIn(db, key)?.attempts ?? 0) + 1;
        const afterMs = Math.min(dayMs, limits.encodingRetryMs * 2 ** Math.min(attempts - 1, 16));
        const retry_at_ms = clock.wall() + afterMs;
        const row = {
          target_bytes: targetBytes,
          code,
          detail: detail.slice(0, 2_000),
          attempts,
          retry_at_ms,
        };
        writeIn(db, key, { ...row, outcome: 'failed' });
      });
    },

    async nextRetryAtMs() {
      const failed = qb.selectFrom('encodings').where('outcome', '=', 'failed');
      const row = await store.tx((db) =>
        db.first(failed.select((eb) => eb.fn.min<number | null>('retry_at_ms').as('at'))),
      );
      return row?.at ?? null;
    },

    async kept() {
      const row = await store.tx((db) =>
        db.first(
          made.select((eb) => [
            eb.fn.countAll<number>().as('files'),
            eb.fn.sum<number | null>('bytes').as('bytes'),
          ]),
        ),
      );
      return { files: row?.files ?? 0, bytes: row?.bytes ?? 0 };
    },
  };
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
