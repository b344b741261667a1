// Why: the device's half of the telemetry bench, on an event loop of its own as on a device of its own.
// Trusts: its parent for the line. Must never: count a record before the region signed for it.

import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import { outboxMigrations } from '../../agent/telemetry/outbox-tables.ts';
import { startSender } from '../../agent/telemetry/sender.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { TelemetryKey, TelemetryRecord } from '../../shared/wire/telemetry.ts';

export interface DeviceWork {
  folder: string;
  seed: Uint8Array;
  region: string;
  regionRoot: Uint8Array;
  key: TelemetryKey;
  records: number;
  recordsPerAppend: number;
}

/** A reading as a machine's application would record it. */
export function reading(number: number): TelemetryRecord {
  return {
    timeMs: 1_700_000_000_000 + number * 10,
    release: 'acme/wear@1.2.0',
    data: {
      machine: `press-${number % 7}`,
      temperature: 60 + ((number * 7_919) % 1_000) / 50,
      vibration: ((number * 104_729) % 10_000) / 1_000,
      current: 12 + ((number * 1_299_709) % 100) / 100,
      verdict: number % 97 === 0 ? 'worn' : 'healthy',
    },
  };
}

async function work(parts: DeviceWork, port: NonNullable<typeof parentPort>): Promise<void> {
  const signer = signerFromSeed(parts.seed, 'node');
  const deviceId = deviceIdOf(signer.publicKey);
  const store = await openStore(join(parts.folder, 'outbox.sqlite'), {
    synchronous: 'FULL',
    reclaim: true,
    migrations: outboxMigrations,
  });
  const silent = { emit: () => undefined };
  const base = { clock: systemClock, entropy: systemEntropy, log: silent };
  const outbox = await openOutbox({ ...base, store, deflate: systemDeflate });
  unwrap(await outbox.useKey({ deviceId, region: parts.region, key: parts.key }));
  const regionRoot = unwrap(parseRegionRoot(parts.regionRoot));
  let acknowledged: () => void = () => undefined;
  const sender = startSender({
    ...base,
    outbox,
    bus: {
      connected: () => true,
      publish: async (_topic, payload) => {
        const bytes = new Uint8Array(payload);
        port.postMessage(bytes, [bytes.buffer]);
      },
      subscribe: async () => ({ cancel: async () => undefined }),
    },
    signer,
    deviceId,
    region: parts.region,
    regionRoot: () => regionRoot,
    onRefused: (refusal) => port.postMessage({ refusal }),
    onAcknowledged: () => acknowledged(),
    batchAgeMs: 100,
  });
  port.on('message', (payload: Uint8Array) => sender.receive(payload));
  const groups: TelemetryRecord[][] = [];
  for (let at = 0; at < parts.records; at += parts.recordsPerAppend) {
    groups.push(Array.from({ length: parts.recordsPerAppend }, (_, index) => reading(at + index)));
  }
  port.postMessage({ ready: true });
  const startMs = systemClock.mono();
  for (const group of groups) {
    unwrap(await outbox.append('app', group));
    // One turn, as an application on the other side of a socket gives.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const appendedMs = systemClock.mono() - startMs;
  await new Promise<void>((resolve) => {
    acknowledged = () => {
      if (outbox.counters().acknowledgedRecords === parts.records) resolve();
    };
    acknowledged();
  });
  port.postMessage({ done: { appendedMs, syncedMs: systemClock.mono() - startMs } });
  await sender.stop();
  await outbox.close();
  await store.close();
  port.close();
}

if (parentPort !== null) await work(workerData as DeviceWork, parentPort);
