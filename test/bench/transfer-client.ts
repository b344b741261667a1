// Why: devices that download, many to a process: over MQTT with the agent's own bus and fetcher, or over HTTPS, to a file
// each. Trusts: its parent for where and what. Must never: count a file whose digest is not the one that was asked for.

import { createWriteStream } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createFetcher } from '../../agent/bus/fetcher.ts';
import { sha256Stream } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { connectBus } from '../../shared/host/mqtt.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { DownloadingDevice } from '../support/downloading.ts';

export interface DownloadOrder {
  way: 'mqtt' | 'https' | 'plain';
  port: number;
  folder: string;
  sha256: string;
  fileBytes: number;
  devices: DownloadingDevice[];
  /** Downloads before the one that counts: code that ran before is compiled, connections have found their window. */
  warmUps: number;
}

const region = 'bench';
const common = { clock: systemClock, entropy: systemEntropy, log: { emit: () => undefined } };
/** Ranges under way: the fetcher lets no more through. */
const rangesAhead = limits.fetchesPerDeviceMax - 1;

/** Writes in order and digests; what it gives is checked at the end. */
async function toDisk(
  order: DownloadOrder,
  device: DownloadingDevice,
  fill: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const path = join(order.folder, `${order.way}-${device.id}`);
  const file: FileHandle = await open(path, 'w');
  const digest = sha256Stream();
  try {
    await fill(async (bytes) => {
      digest.update(bytes);
      await file.write(bytes);
    });
  } finally {
    await file.close();
  }
  await unlink(path);
  if (digest.hex() !== order.sha256) throw new Error(`${order.way}: other bytes`);
}

interface Ready {
  download(): Promise<void>;
  close(): Promise<void>;
}

async function overMqtt(order: DownloadOrder, device: DownloadingDevice): Promise<Ready> {
  const deviceId = device.id;
  let up: () => void = () => undefined;
  const online = new Promise<void>((resolve) => {
    up = resolve;
  });
  const bus = connectBus({
    url: `mqtts://127.0.0.1:${order.port}`,
    clientId: deviceId,
    ...{ ca: device.authority, cert: device.cert, key: device.key },
    serverName: authorityServerName(device.authority),
    ...common,
    onStatus: (status) => {
      if (status === 'connected') up();
    },
  });
  const fetcher = createFetcher({ bus, region, deviceId, ...common });
  await bus.subscribe(deviceTopic(region, deviceId, 'bytes'), (message) => fetcher.receive(message));
  await online;
  const range = async (from: number): Promise<Uint8Array> => {
    const target = { kind: 'blob', sha256: order.sha256 } as const;
    const until = Math.min(from + limits.fetchRangeBytesMax, order.fileBytes);
    const parts: Uint8Array[] = [];
    for (let at = from; at < until; ) {
      const answer = await fetcher.range(target, at, until - at);
      // Another device's turn: asked again.
      if (!answer.ok && answer.refusal.code !== 'fetch-busy') throw new Error(answer.refusal.detail);
      if (!answer.ok) continue;
      parts.push(answer.value.bytes);
      at += answer.value.bytes.length;
    }
    return parts.length === 1 ? (parts[0] ?? new Uint8Array(0)) : Buffer.concat(parts);
  };
  return {
    download: () =>
      toDisk(order, device, async (write) => {
        const ahead: Promise<Uint8Array>[] = [];
        let asked = 0;
        for (let done = 0; done < order.fileBytes; ) {
          for (; asked < order.fileBytes && ahead.length < rangesAhead; asked += limits.fetchRangeBytesMax)
            ahead.push(range(asked));
          const bytes = await ahead.shift();
          if (bytes === undefined) break;
          await write(bytes);
          done += bytes.length;
        }
      }),
    close: () => bus.close(),
  };
}

function overHttps(order: DownloadOrder, device: DownloadingDevice): Ready {
  const tls = {
    ...{ host: '127.0.0.1', port: order.port, servername: 'localhost', ca: device.authority },
    ...(order.way === 'https' ? { cert: device.cert, key: device.key, ALPNProtocols: ['http/1.1'] } : {}),
  };
  /** As anybody would: piped to the file; bytes that came. */
  const from = (offset: number, path: string, digest: ReturnType<typeof sha256Stream>): Promise<number> =>
    new Promise((resolve, reject) => {
      const headers = offset === 0 ? {} : { range: `bytes=${offset}-` };
      const asked = request(
        { ...tls, path: `/v1/device/blobs/${order.sha256}`, headers, agent: false },
        (response) => {
          const good = response.statusCode === 200 || response.statusCode === 206;
          let bytes = 0;
          if (good)
            response.on('data', (chunk: Buffer) => {
              digest.update(chunk);
              bytes += chunk.length;
            });
          const file = createWriteStream(good ? path : '/dev/null', { flags: offset === 0 ? 'w' : 'a' });
          // Cut off in the middle, or not its turn: the rest is asked for.
          pipeline(response, file).then(
            () => resolve(bytes),
            () => resolve(bytes),
          );
        },
      );
      asked.on('error', reject);
      asked.end();
    });
  return {
    download: async () => {
      const path = join(order.folder, `${order.way}-${device.id}`);
      const digest = sha256Stream();
      for (let done = 0; done < order.fileBytes; ) done += await from(done, path, digest);
      await unlink(path);
      if (digest.hex() !== order.sha256) throw new Error(`${order.way}: other bytes`);
    },
    close: async () => undefined,
  };
}

async function obey(order: DownloadOrder): Promise<void> {
  const ready = await Promise.all(
    order.devices.map((device) =>
      order.way === 'mqtt' ? overMqtt(order, device) : overHttps(order, device),
    ),
  );
  for (let done = 0; done < order.warmUps; done += 1) await Promise.all(ready.map((one) => one.download()));
  process.send?.({ ready: true });
  await new Promise<void>((resolve) => process.once('message', () => resolve()));
  await Promise.all(ready.map((one) => one.download()));
  process.send?.({ done: true });
  await Promise.all(ready.map((one) => one.close()));
}

process.once('message', (order: DownloadOrder) => {
  obey(order).then(
    () => process.disconnect?.(),
    (error: Error) => {
      process.send?.({ failed: error.message });
      process.disconnect?.();
    },
  );
});
