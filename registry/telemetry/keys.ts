// Why: the region's keys for telemetry: a random X25519 pair for each device, enrolment and period, in a
// database of their own (DESIGN 8), so that deleting a key erases what was sealed to it.
// Trusts: the permissions of that file. Must never: derive a key, log one, or publish one before it is durable.

import { boxKeyPairFromSeed } from '../../shared/crypto/sealed-box.ts';
import type { Migration } from '../../shared/host/sqlite.ts';
import type { Clock, Entropy, Store } from '../../shared/kernel/ports.ts';
import type { TelemetryKey } from '../../shared/wire/telemetry.ts';
import { telemetryLimits } from './limits.ts';

export const telemetryKeyMigrations: readonly Migration[] = [
  {
    name: 'telemetry-keys-001',
    sql: `
      CREATE TABLE telemetry_keys (
        key_id TEXT PRIMARY KEY,
        device_id TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        public_key BLOB NOT NULL,
        secret_key BLOB NOT NULL,
        made_at_ms INTEGER NOT NULL,
        -- The device is given another key from here on; this one still opens what was sealed to it.
        ends_at_ms INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX telemetry_keys_by_device ON telemetry_keys (device_id, epoch, ends_at_ms);
    `,
  },
  {
    name: 'telemetry-keys-002',
    sql: `
      -- One row, once rules were set.
      CREATE TABLE masking (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        -- Of the digests that stand in the place of values.
        key BLOB NOT NULL,
        key_made_at_ms INTEGER NOT NULL,
        -- JSON array.
        rules TEXT NOT NULL,
        -- 1 until every assignment was signed again with them.
        pending INTEGER NOT NULL
      ) STRICT;
    `,
  },
  {
    name: 'telemetry-keys-003',
    sql: `
      -- What is left of a key that was deleted: that it was.
      CREATE TABLE erased_keys (
        key_id TEXT PRIMARY KEY,
        erasure_id TEXT NOT NULL,
        device_id TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        made_at_ms INTEGER NOT NULL,
        ends_at_ms INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX erased_keys_by_erasure ON erased_keys (erasure_id);
    `,
  },
];

export interface DeviceEpoch {
  deviceId: string;
  epoch: number;
}

export interface TelemetryKeys {
  /** Makes a durable key for each device that has none of this epoch and period. Idempotent. */
  ensure(devices: readonly DeviceEpoch[]): Promise<void>;
  /** What the director writes into an assignment: the newest key of this epoch, null before `ensure`. */
  keyFor(deviceId: string, epoch: number): TelemetryKey | null;
  /** Devices whose key's period has ended. */
  ended(): string[];
  /** The pair that a batch names, null where there is none of this device and epoch. */
  open(
    deviceId: string,
    epoch: number,
    keyId: string,
  ): Promise<{ publicKey: Uint8Array; secretKey: Uint8Array } | null>;
  /** Whether this key was deleted, and with it what is sealed to it. */
  isErased(keyId: string): boolean;
  /**
   * Deletes the device's keys that were made before `untilMs`; gone from the database and its log when it resolves.
   * The same erasure again deletes nothing more and gives the same keys.
   */
  erase(erasure: { id: string; deviceId: string; untilMs: number }): Promise<ErasedKey[]>;
  /**
   * Keys that erasures of before deleted and that a backup brought back: gone when it resolves, however many. What comes
   * late under them counts as erased. How many were there.
   */
  eraseAgain(
    erasures: readonly { id: string; deviceId: string; keys: readonly ErasedKey[] }[],
  ): Promise<number>;
  /** Keys of a device without their secret halves, those that were deleted as well; oldest first. */
  ofDevice(deviceId: string): Promise<DeviceKey[]>;
  /** As the Store's: all of them, with the masking rules. */
  copyTo(path: string): Promise<void>;
}

export interface DeviceKey extends ErasedKey {
  /** Hex; null where it was deleted. */
  publicKey: string | null;
  erasureId: string | null;
}

export interface ErasedKey {
  keyId: string;
  epoch: number;
  madeAtMs: number;
  endsAtMs: number;
}

interface KeyRow {
  key_id: string;
  device_id: string;
  epoch: number;
  public_key: Uint8Array;
  ends_at_ms: number;
}

/** What is known without asking the database: public halves only. */
interface Present {
  epoch: number;
  endsAtMs: number;
  key: TelemetryKey;
}

const presentOf = (row: KeyRow): Present => ({
  epoch: row.epoch,
  endsAtMs: row.ends_at_ms,
  key: { epoch: row.epoch, keyId: row.key_id, publicKey: Buffer.from(row.public_key).toString('hex') },
});

/** Opens the keys in a store that has `telemetryKeyMigrations`. */
export async function openTelemetryKeys(parts: {
  store: Store;
  clock: Clock;
  entropy: Entropy;
}): Promise<TelemetryKeys> {
  const { store, clock, entropy } = parts;
  const present = new Map<string, Present>();
  const rows = await store.tx((db) =>
    db.all<KeyRow>(
      'SELECT key_id, device_id, epoch, public_key, ends_at_ms FROM telemetry_keys ORDER BY epoch, ends_at_ms',
    ),
  );
  for (const row of rows) present.set(row.device_id, presentOf(row));
  const gone = await store.tx((db) => db.all<{ key_id: string }>('SELECT key_id FROM erased_keys'));
  const erased = new Set(gone.map((row) => row.key_id));

  const isGood = ({ deviceId, epoch }: DeviceEpoch, nowMs: number): boolean => {
    const known = present.get(deviceId);
    if (known === undefined || known.epoch < epoch) return false;
    // Of an enrolment that was replaced while somebody still asked for it: nobody will seal to it.
    return known.epoch > epoch || known.endsAtMs > nowMs;
  };

  return {
    async ensure(devices) {
      const nowMs = clock.wall();
      const missing = devices.filter((device) => !isGood(device, nowMs));
      if (missing.length === 0) return;
      const fresh = missing.map(({ deviceId, epoch }) => ({
        keyId: Buffer.from(entropy.bytes(12)).toString('hex'),
        deviceId,
        epoch,
        pair: boxKeyPairFromSeed(entropy.bytes(32)),
        endsAtMs: nowMs + telemetryLimits.keyPeriodMs,
      }));
      await store.tx((db) => {
        for (const { keyId, deviceId, epoch, pair, endsAtMs } of fresh) {
          db.run(
            `INSERT INTO telemetry_keys (key_id, device_id, epoch, public_key, secret_key, made_at_ms, ends_at_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?)`,
            keyId,
            deviceId,
            epoch,
            pair.publicKey,
            pair.secretKey,
            nowMs,
            endsAtMs,
          );
        }
      });
      for (const { keyId, deviceId, epoch, pair, endsAtMs } of fresh) {
        const publicKey = Buffer.from(pair.publicKey).toString('hex');
        const known = present.get(deviceId);
        if (known === undefined || known.epoch <= epoch) {
          present.set(deviceId, { epoch, endsAtMs, key: { epoch, keyId, publicKey } });
        }
        pair.secretKey.fill(0);
      }
    },

    keyFor(deviceId, epoch) {
      const known = present.get(deviceId);
      return known?.epoch === epoch ? known.key : null;
    },

    ended() {
      const nowMs = clock.wall();
      return [...present].filter(([, { endsAtMs }]) => endsAtMs <= nowMs).map(([deviceId]) => deviceId);
    },

    async open(deviceId, epoch, keyId) {
      const row = await store.tx((db) =>
        db.get<{ public_key: Uint8Array; secret_key: Uint8Array }>(
          'SELECT public_key, secret_key FROM telemetry_keys WHERE key_id = ? AND device_id = ? AND epoch = ?',
          keyId,
          deviceId,
          epoch,
        ),
      );
      if (row === undefined) return null;
      return { publicKey: new Uint8Array(row.public_key), secretKey: new Uint8Array(row.secret_key) };
    },

    isErased: (keyId) => erased.has(keyId),

    async eraseAgain(erasures) {
      const again = await store.tx((db) => {
        let deleted = 0;
        for (const { id, deviceId, keys } of erasures)
          for (const { keyId, epoch, madeAtMs, endsAtMs } of keys) {
            if (!erased.has(keyId))
              db.run(
                `INSERT INTO erased_keys (key_id, erasure_id, device_id, epoch, made_at_ms, ends_at_ms)
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
                ...[keyId, id, deviceId, epoch, madeAtMs, endsAtMs],
              );
            deleted += db.run(
              'DELETE FROM telemetry_keys WHERE key_id = ? AND device_id = ?',
              keyId,
              deviceId,
            ).changes;
          }
        return deleted;
      });
      if (again > 0) await store.flushLog();
      for (const { deviceId, keys } of erasures) {
        for (const { keyId } of keys) erased.add(keyId);
        const known = present.get(deviceId);
        if (known !== undefined && erased.has(known.key.keyId)) present.delete(deviceId);
      }
      return again;
    },

    ofDevice: (deviceId) =>
      store.tx((db) =>
        db.all<DeviceKey>(
          `SELECT key_id AS keyId, epoch, made_at_ms AS madeAtMs, ends_at_ms AS endsAtMs,
             lower(hex(public_key)) AS publicKey, NULL AS erasureId
           FROM telemetry_keys WHERE device_id = ?
           UNION ALL
           SELECT key_id, epoch, made_at_ms, ends_at_ms, NULL, erasure_id FROM erased_keys WHERE device_id = ?
           ORDER BY 3, 1`,
          deviceId,
          deviceId,
        ),
      ),

    copyTo: (path) => store.copyTo(path),

    async erase({ id, deviceId, untilMs }) {
      const keys = await store.tx((db) => {
        const done = 'SELECT 1 FROM erased_keys WHERE erasure_id = ?';
        // Keys that were made since are of records that nobody asked to erase.
        if (db.get(done, id) === undefined) {
          const which = 'device_id = ? AND made_at_ms < ?';
          db.run(
            `INSERT INTO erased_keys (key_id, erasure_id, device_id, epoch, made_at_ms, ends_at_ms)
             SELECT key_id, ?, device_id, epoch, made_at_ms, ends_at_ms FROM telemetry_keys WHERE ${which}`,
            id,
            deviceId,
            untilMs,
          );
          db.run(`DELETE FROM telemetry_keys WHERE ${which}`, deviceId, untilMs);
        }
        return db.all<ErasedKey>(
          `SELECT key_id AS keyId, epoch, made_at_ms AS madeAtMs, ends_at_ms AS endsAtMs
           FROM erased_keys WHERE erasure_id = ? ORDER BY made_at_ms, key_id`,
          id,
        );
      });
      // Their pages are overwritten (secure_delete); the log still holds them as they were.
      await store.flushLog();
      for (const { keyId } of keys) erased.add(keyId);
      const known = present.get(deviceId);
      if (known !== undefined && erased.has(known.key.keyId)) present.delete(deviceId);
      return keys;
    },
  };
}
