// Why: what telemetry costs: an append beside the same row in bare SQLite, and the whole way of a batch from
// the device's outbox into the region's store. Trusts: both sides' own counters.
// Must never: compare numbers of two different runs.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import { outboxMigrations } from '../../agent/telemetry/outbox-tables.ts';
import { openRegistryStore } from '../../registry/store/open.ts';
import { createIngest } from '../../registry/telemetry/ingest.ts';
import { openTelemetryKeys, telemetryKeyMigrations } from '../../registry/telemetry/keys.ts';
import { createRollups } from '../../registry/telemetry/rollups.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { boxKeyPairFromSeed } from '../../shared/crypto/sealed-box.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { recordLine } from '../../shared/trust/telemetry.ts';
import { signerNamed } from '../trust/catalogue-fixture.ts';
import { regionRoot } from '../trust/region-fixture.ts';
import { type DeviceWork, reading } from './telemetry-device.ts';

const region = 'eu';
const silent = { emit: () => undefined };
const base = { clock: systemClock, entropy: systemEntropy, log: silent };

const median = (values: number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** Records a second, one durable append a call, beside the same lines one transaction each. In turns. */
async function benchAppend(folder: string): Promise<object> {
  const store = await openStore(join(folder, 'append.sqlite'), {
    synchronous: 'FULL',
    reclaim: true,
    migrations: outboxMigrations,
  });
  const bare = await openStore(join(folder, 'bare.sqlite'), {
    synchronous: 'FULL',
    reclaim: true,
    migrations: [
      { name: 'bare', sql: 'CREATE TABLE rows (id INTEGER PRIMARY KEY, line BLOB NOT NULL) STRICT;' },
    ],
  });
  const outbox = await openOutbox({ ...base, store, deflate: systemDeflate });
  const { publicKey } = boxKeyPairFromSeed(systemEntropy.bytes(32));
  const key = { epoch: 1, keyId: 'k', publicKey: Buffer.from(publicKey).toString('hex') };
  unwrap(await outbox.useKey({ deviceId: 'a'.repeat(32), region, key }));
  const appends: number[] = [];
  const inserts: number[] = [];
  const count = 1_000;
  for (let round = 0; round < 9; round += 1) {
    const records = Array.from({ length: count }, (_, index) => reading(round * count + index));
    let startMs = systemClock.mono();
    for (const record of records) unwrap(await outbox.append('app', [record]));
    appends.push((count * 1_000) / (systemClock.mono() - startMs));
    startMs = systemClock.mono();
    for (const record of records) {
      const line = recordLine(record);
      await bare.tx((db) => db.run('INSERT INTO rows (line) VALUES (?)', line));
    }
    inserts.push((count * 1_000) / (systemClock.mono() - startMs));
  }
  await outbox.close();
  await store.close();
  await bare.close();
  const ratio = median(appends.map((rate, index) => rate / (inserts[index] ?? Number.NaN)));
  return {
    appendsPerSecond: median(appends),
    bareInsertsPerSecond: median(inserts),
    ratio,
    ratioTarget: 0.3,
  };
}

/** Seal, sync and store: the device on a thread of its own, the region on this one, both on real files. */
async function benchSync(folder: string, records: number): Promise<object> {
  const store = await openRegistryStore(join(folder, 'registry.sqlite'));
  const keyStore = await openStore(join(folder, 'keys.sqlite'), {
    synchronous: 'FULL',
    migrations: telemetryKeyMigrations,
  });
  const keys = await openTelemetryKeys({ ...base, store: keyStore });
  const seed = systemEntropy.bytes(32);
  const device = signerFromSeed(seed, 'node');
  const deviceId = deviceIdOf(device.publicKey);
  await store.tx(({ sql }) =>
    sql.run(
      `INSERT INTO devices (device_id, public_key, status, claim_id, labels, timezone, presence, presence_at_ms,
         agent, telemetry_epoch, report_counter, reported_epoch, verified_time_ms, refusal_id_last, enrolled_at_ms,
         certificate_expires_at_ms)
       VALUES (?, ?, 'active', 'c', '{}', 'UTC', 'online', 0, '{}', 1, 0, 0, 0, 0, 0, 0)`,
      deviceId,
      device.publicKey,
    ),
  );
  await keys.ensure([{ deviceId, epoch: 1 }]);
  const key = keys.keyFor(deviceId, 1);
  assert.ok(key);
  const work: DeviceWork = {
    folder,
    seed,
    region,
    regionRoot: regionRoot(),
    key,
    records,
    recordsPerAppend: 1_000,
  };
  const worker = new Worker(new URL('./telemetry-device.js', import.meta.url), { workerData: work });
  const rollups = createRollups(store);
  const ingest = createIngest({
    evidence: {
      addIn: (db, { deviceId: from, records: some }) => void rollups.addIn(db, from, some),
      stored: () => undefined,
    },
    ...base,
    region,
    store,
    keys,
    signer: signerNamed('ack'),
    deflate: systemDeflate,
    answer: async (_deviceId, message) => worker.postMessage(message),
    refused: async (_deviceId, refusal) => assert.fail(`${refusal.code}: ${refusal.detail}`),
    cloned: async () => assert.fail('cloned'),
  });
  let bytes = 0;
  const before = process.cpuUsage();
  const done = await new Promise<{ appendedMs: number; syncedMs: number }>((resolve, reject) => {
    worker.on('error', reject);
    worker.on('message', (message: unknown) => {
      if (message instanceof Uint8Array) {
        bytes += message.length;
        ingest.receive(deviceId, message);
      } else if (isDone(message)) resolve(message.done);
      else if (typeof message === 'object' && message !== null && 'refusal' in message) {
        reject(new Error(JSON.stringify(message)));
      }
    });
  });
  const { user, system } = process.cpuUsage(before);
  const counted = ingest.counters();
  assert.equal(counted.records, records);
  const stored = await store.tx(({ sql }) =>
    sql.get<{ n: number }>('SELECT sum(records) AS n FROM telemetry_batches'),
  );
  assert.equal(stored?.n, records);
  await ingest.stop();
  await store.close();
  await keyStore.close();
  return {
    records,
    batches: counted.batches,
    bytesPerRecordSent: bytes / records,
    appendedPerSecond: (records * 1_000) / done.appendedMs,
    recordsPerSecond: (records * 1_000) / done.syncedMs,
    recordsPerSecondTarget: 60_000,
    cpuMicrosecondsPerRecord: (user + system) / records,
  };
}

function isDone(message: unknown): message is { done: { appendedMs: number; syncedMs: number } } {
  return typeof message === 'object' && message !== null && 'done' in message;
}

/** Throughputs, each beside its baseline or target. */
export async function benchTelemetry(): Promise<object> {
  const folder = await mkdtemp(join(tmpdir(), 'lepton-bench-telemetry-'));
  try {
    const append = await benchAppend(folder);
    const sync = await benchSync(folder, 300_000);
    return { append, sync };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
