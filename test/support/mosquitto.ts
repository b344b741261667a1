// Why: tests on a broker of another maker start the real one, with the files that `lepton broker files` prints.
// Trusts: Debian's mosquitto. Must never: change what was printed, but for whom it runs as.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import { connect as connectTcp, createServer } from 'node:net';
import { until, type Workplace } from './processes.ts';

const program = ['mosquitto', '/usr/sbin/mosquitto'].find(
  (path) => spawnSync(path, ['-h'], { encoding: 'utf8' }).stdout?.startsWith('mosquitto version 2') === true,
);

/** Why tests with mosquitto do not run here, false where they do. */
export const mosquittoMissing: string | false =
  program === undefined ? 'mosquitto 2 is not installed (Debian: apt-get install mosquitto)' : false;

export interface Mosquitto {
  log(): string;
  /** Lets it read its rules, lists and certificates again. */
  reload(): Promise<void>;
  start(): Promise<void>;
  kill(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp({ port, host: '127.0.0.1' });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** Starts it with the settings in this folder, which name this port; ended with the place. */
export async function startMosquitto(place: Workplace, folder: string, port: number): Promise<Mosquitto> {
  const conf = `${folder}/mosquitto.conf`;
  let child: ChildProcess | null = null;
  let log = '';
  const kill = async (): Promise<void> => {
    const ended = child;
    child = null;
    if (ended === null || ended.exitCode !== null || ended.signalCode !== null) return;
    const closed = new Promise<void>((resolve) => ended.once('close', () => resolve()));
    ended.kill('SIGKILL');
    await closed;
  };
  const mosquitto: Mosquitto = {
    log: () => log,
    async reload() {
      const before = log.length;
      child?.kill('SIGHUP');
      await until('mosquitto reads its files again', () => /[Rr]eload/.test(log.slice(before)));
    },
    async start() {
      // As root it would become another user, who may not enter this folder.
      const isNamed = readFileSync(conf, 'utf8').includes('\nuser root\n');
      if (process.getuid?.() === 0 && !isNamed) appendFileSync(conf, '\nuser root\n');
      const started = spawn(program ?? 'mosquitto', ['-c', conf], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      child = started;
      started.stderr.setEncoding('utf8').on('data', (text: string) => {
        log += text;
      });
      await until('mosquitto listens', async () => {
        if (started.exitCode !== null) throw new Error(`mosquitto ended\n${log}`);
        return listens(port);
      });
    },
    kill,
  };
  place.onClose(kill);
  await mosquitto.start();
  return mosquitto;
}
