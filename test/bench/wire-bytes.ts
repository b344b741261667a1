// Why: bytes of a record on its way to the region, beside the same records as plain JSON over MQTT in the same run.
// Trusts: counters on both lines for every byte, both ways. Must never: count what TLS adds on one side alone.

import { createServer } from 'node:net';
import { Aedes } from 'aedes';
import { connectAsync } from 'mqtt';
import { openOutbox } from '../../agent/telemetry/outbox.ts';
import { outboxMigrations } from '../../agent/telemetry/outbox-tables.ts';
import { startSender } from '../../agent/telemetry/sender.ts';
import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { silent } from '../agent/hand-clock.ts';
import { until, type Workplace, workplace } from '../support/processes.ts';
import { openTestRegistry } from '../support/registry.ts';
import { openLoneDevice } from './lone-device.ts';
import { reading } from './telemetry-device.ts';

const batchSizes = [100, 1_000] as const;
const rounds = 8;

const records = (count: number, from: number): TelemetryRecord[] =>
  Array.from({ length: count }, (_, index) => reading(from + index));
const round = (value: number): number => Math.round(value * 10) / 10;

interface Side {
  /** Sends them as one batch and waits until they were acknowledged. */
  send(batch: TelemetryRecord[]): Promise<void>;
  /** Both ways, without what TLS adds; and with it, null where there is none. */
  bytes(): number;
  wireBytes: (() => number) | null;
}

async function ourSide(place: Workplace): Promise<Side> {
  const { registry } = await openTestRegistry(place);
  const device = await openLoneDevice(registry, place);
  const { deviceId, region, bus, meter } = device;
  const store = await openStore(place.path('outbox.sqlite'), {
    synchronous: 'FULL',
    reclaim: true,
    migrations: outboxMigrations,
  });
  const base = { clock: systemClock, entropy: systemEntropy, log: silent };
  const outbox = await openOutbox({ ...base, store, deflate: systemDeflate });
  const regionRoot = unwrap(parseRegionRoot(device.roots.region));
  const { store: stored, telemetryKeys } = registry.parts;
  const key = await until('there is a key', async () => {
    const row = await stored.tx(({ sql }) =>
      sql.get<{ epoch: number }>(
        'SELECT telemetry_epoch AS epoch FROM devices WHERE device_id = ?',
        deviceId,
      ),
    );
    return row === undefined ? null : telemetryKeys.keyFor(deviceId, row.epoch);
  });
  unwrap(await outbox.useKey({ deviceId, region, key }));
  const sender = startSender({
    ...base,
    ...{ outbox, deviceId, region },
    bus,
    signer: signerFromSeed(device.seed, 'node'),
    regionRoot: () => regionRoot,
    onRefused: ({ code, detail }) => {
      throw new Error(`${code}: ${detail}`);
    },
    // Closed as soon as it was appended.
    batchAgeMs: 1,
  });
  place.onClose(async () => {
    await sender.stop();
    await outbox.close();
    await store.close();
  });
  await bus.subscribe(deviceTopic(region, deviceId, 'telemetry/ack'), ({ payload }) =>
    sender.receive(payload),
  );
  await device.online;
  let sent = 0;
  return {
    async send(batch) {
      unwrap(await outbox.append('app', batch));
      sent += batch.length;
      await until('acknowledged', async () => (outbox.counters().acknowledgedRecords === sent ? true : null));
    },
    bytes: () => meter.bytes().up + meter.bytes().down,
    wireBytes: meter.wireBytes,
  };
}

/** As most write it: QoS 1 to a broker, without TLS, a message for each record or an array in one. */
async function plainSide(place: Workplace, each: boolean): Promise<Side> {
  const broker = await Aedes.createBroker();
  let bytes = 0;
  const server = createServer((socket) => {
    broker.handle(socket);
    socket.on('close', () => {
      bytes += socket.bytesRead + socket.bytesWritten;
      open.delete(socket);
    });
    open.add(socket);
  });
  const open = new Set<{ bytesRead: number; bytesWritten: number }>();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address !== 'object') throw new Error('no port');
  const client = await connectAsync(`mqtt://127.0.0.1:${address.port}`);
  place.onClose(async () => {
    await client.endAsync();
    broker.close();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
  const topic = deviceTopic('eu-west', 'a'.repeat(32), 'telemetry');
  return {
    async send(batch) {
      const messages = each ? batch.map((one) => JSON.stringify(one)) : [JSON.stringify(batch)];
      await Promise.all(messages.map((message) => client.publishAsync(topic, message, { qos: 1 })));
    },
    bytes: () => [...open].reduce((sum, socket) => sum + socket.bytesRead + socket.bytesWritten, bytes),
    wireBytes: null,
  };
}

/** Bytes a record, batch by batch. */
async function measure(side: Side, size: number): Promise<{ bytes: number; wireBytes: number | null }> {
  await side.send(records(size, 0));
  const before = { bytes: side.bytes(), wire: side.wireBytes?.() ?? 0 };
  for (let at = 0; at < rounds; at += 1) await side.send(records(size, (at + 1) * size));
  const count = rounds * size;
  return {
    bytes: round((side.bytes() - before.bytes) / count),
    wireBytes: side.wireBytes === null ? null : round((side.wireBytes() - before.wire) / count),
  };
}

/** By the records of a batch. */
export async function benchWireBytes(): Promise<object> {
  const place = workplace('bench-wire');
  try {
    const sides = {
      ours: await ourSide(place),
      plainEach: await plainSide(place, true),
      plainArray: await plainSide(place, false),
    };
    const rows: [string, object][] = [];
    for (const size of batchSizes) {
      const ours = await measure(sides.ours, size);
      const plainEach = await measure(sides.plainEach, size);
      const plainArray = await measure(sides.plainArray, size);
      const ratio = (to: { bytes: number }): number => Math.round((ours.bytes / to.bytes) * 1_000) / 1_000;
      rows.push([
        `batch${size}`,
        {
          ...{ oursBytes: ours.bytes, oursWithTlsBytes: ours.wireBytes },
          ...{ plainMessageEachBytes: plainEach.bytes, plainArrayBytes: plainArray.bytes },
          ...{ ratioToMessageEach: ratio(plainEach), ratioToArray: ratio(plainArray) },
        },
      ]);
    }
    return { record: 'a reading of five fields', rounds, ...Object.fromEntries(rows) };
  } finally {
    await place.close();
  }
}
