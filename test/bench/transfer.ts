// Why: what delivery costs: one device over MQTT and over HTTPS beside the plainest HTTPS download of the same file, and
// a hundred devices at once beside that one. Trusts: /proc for memory. Must never: compare numbers of two runs.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../shared/host/clock.ts';
import type { DownloadingDevice } from '../support/downloading.ts';
import { median, memoryMB, round } from './measure.ts';
import type { DownloadOrder } from './transfer-client.ts';
import type { Served } from './transfer-server.ts';

const MiB = 1024 * 1024;
const fileBytes = 32 * MiB;
const devices = 100;
const perProcess = 25;
const rounds = 9;

const program = (name: string): string => fileURLToPath(new URL(`./${name}.js`, import.meta.url));

async function ask<T>(child: ChildProcess, order: object | string): Promise<T> {
  const answered = once(child, 'message') as Promise<[T]>;
  child.send(order);
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('a server ended')));
  const [answer] = await Promise.race([answered, ended]);
  return answer;
}

async function said(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit').then((): [{ failed: string }] => [{ failed: 'a client ended' }]);
  const [message] = (await Promise.race([once(child, 'message'), ended])) as [{ failed?: string }];
  if (message.failed !== undefined) throw new Error(message.failed);
}

/** All of them at once; milliseconds until the last has its file. */
async function download(
  order: Omit<DownloadOrder, 'devices'>,
  who: readonly DownloadingDevice[],
): Promise<number> {
  const groups: DownloadingDevice[][] = [];
  for (let at = 0; at < who.length; at += perProcess) groups.push(who.slice(at, at + perProcess));
  const clients = groups.map(() => fork(program('transfer-client'), { execArgv: [] }));
  try {
    await Promise.all(
      clients.map((client, index) => {
        const ready = said(client);
        client.send({ ...order, devices: groups[index] } as DownloadOrder);
        return ready;
      }),
    );
    const startMs = systemClock.mono();
    await Promise.all(
      clients.map((client) => {
        const done = said(client);
        client.send('go');
        return done;
      }),
    );
    return systemClock.mono() - startMs;
  } finally {
    for (const client of clients) client.kill();
  }
}

/** The highest resident memory while something runs. */
async function watching<T>(pid: number, work: Promise<T>): Promise<{ result: T; highestMB: number }> {
  let highestMB = 0;
  let running = true;
  const ended = work.finally(() => {
    running = false;
  });
  const watch = (async () => {
    while (running) {
      highestMB = Math.max(highestMB, memoryMB(pid) ?? 0);
      await systemClock.timer(50).done;
    }
  })();
  const result = await ended;
  await watch;
  return { result, highestMB };
}

export async function benchTransfer(): Promise<object> {
  // In memory where the system has such a folder: the same disk is under all of them, and none waits for it.
  const folder = mkdtempSync(join(tmpdir(), 'lepton-transfer-'));
  const registry = fork(program('transfer-server'), { execArgv: ['--expose-gc'] });
  const plain = fork(program('transfer-server'), { execArgv: [] });
  try {
    const served = await ask<Served>(registry, { folder, fileBytes, devices });
    const { port: plainPort } = await ask<{ port: number }>(plain, served.plain);
    const { sha256, port } = served;
    const [one] = served.devices;
    if (one === undefined) throw new Error('no device');
    const about = { folder, sha256, fileBytes, warmUps: 3 };
    const times: Record<DownloadOrder['way'], number[]> = { mqtt: [], https: [], plain: [] };
    for (let at = 0; at < rounds; at += 1) {
      // In turn, so that a slower minute of the machine hits all of them.
      for (const way of ['plain', 'mqtt', 'https'] as const)
        times[way].push(await download({ ...about, way, port: way === 'plain' ? plainPort : port }, [one]));
    }
    const rate = (ms: number): number => round(fileBytes / MiB / (ms / 1_000));
    const [plainMs, mqttMs, httpsMs] = [median(times.plain), median(times.mqtt), median(times.https)];
    const pid = registry.pid ?? 0;
    const many: object[] = [];
    for (const way of ['mqtt', 'https'] as const) {
      await ask(registry, 'collect');
      const restMB = memoryMB(pid) ?? 0;
      const { result: tookMs, highestMB } = await watching(
        pid,
        download({ ...about, way, port }, served.devices),
      );
      const oneMs = way === 'mqtt' ? mqttMs : httpsMs;
      many.push({
        way,
        devices,
        tookMs: Math.round(tookMs),
        overOneDeviceRate: round(tookMs / (oneMs * devices)),
        overOneDeviceRateLimit: 2,
        grownMiB: round(((highestMB - restMB) * 1e6) / MiB),
        grownLimitMiB: 64,
      });
    }
    return {
      oneDevice: {
        plainMiBPerSecond: rate(plainMs),
        mqttMiBPerSecond: rate(mqttMs),
        httpsMiBPerSecond: rate(httpsMs),
        mqttOverPlain: round(plainMs / mqttMs),
        mqttOverPlainTarget: 0.5,
        httpsOverPlain: round(plainMs / httpsMs),
      },
      manyDevices: many,
    };
  } finally {
    for (const child of [registry, plain]) {
      const ended = once(child, 'exit');
      child.disconnect();
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  }
}
