// Why: a registry with a file and devices that may have it, in a process of its own, and beside it, in another one, the
// plainest HTTPS server of that file with the same certificate: what is measured is neither the clients nor each other.
// Trusts: its parent. Must never: outlive it.

import { createReadStream, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { startRegistry } from '../../registry/registry.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { addDevice, type DownloadingDevice, releaseWith } from '../support/downloading.ts';

export interface ServerOrder {
  folder: string;
  fileBytes: number;
  devices: number;
}

export interface Served {
  port: number;
  sha256: string;
  devices: DownloadingDevice[];
  /** For the plain server. */
  plain: { key: string; cert: string; ca: string; path: string };
}

const region = 'bench';
const releaseId = 'acme/big@1.0.0';
const silent = { emit: () => undefined };

async function serveRegistry({ folder, fileBytes, devices }: ServerOrder): Promise<Served> {
  const address = { host: '127.0.0.1', port: 0 };
  const registry = await startRegistry({
    ...{ dataFolder: join(folder, 'registry'), region, http: address, mqtt: address, version: '0.0.0-bench' },
    ...{ clock: systemClock, entropy: systemEntropy, log: silent, encoder: null },
  });
  process.once('disconnect', () => void registry.stop().then(() => process.exit(0)));
  const path = join(folder, 'file');
  const sha256 = await (async () => {
    const file = systemEntropy.bytes(fileBytes);
    writeFileSync(path, file);
    return releaseWith(registry, releaseId, file);
  })();
  const added: DownloadingDevice[] = [];
  for (let index = 0; index < devices; index += 1) added.push(await addDevice(registry, releaseId));
  const { key, cert, ca } = registry.parts.authorities.broker();
  return {
    port: Number(new URL(registry.mqttUrl).port),
    sha256,
    devices: added,
    plain: { key, cert, ca, path },
  };
}

async function servePlain({ key, cert, path }: Served['plain']): Promise<{ port: number }> {
  const server = createServer({ key, cert, minVersion: 'TLSv1.3', noDelay: true }, (_request, response) => {
    createReadStream(path).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  process.once('disconnect', () => process.exit(0));
  return { port: (server.address() as AddressInfo).port };
}

process.on('message', (order: ServerOrder | Served['plain'] | 'collect') => {
  if (order === 'collect') {
    // Where the bench asks for the memory at rest: garbage of the preparations is none of the downloads.
    (globalThis as { gc?: () => void }).gc?.();
    process.send?.('collected');
    return;
  }
  const answer: Promise<Served | { port: number }> =
    'cert' in order ? servePlain(order) : serveRegistry(order);
  void answer.then((served) => process.send?.(served));
});
