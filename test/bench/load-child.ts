// Why: a client as lean as can be, in a process of its own: the same one for every server that is compared, so that
// its cost is the same too and none of it is the server's. Trusts: servers of this bench, which answer each request
// with a content length. Must never: take an answer for good that is not 200.

import { connect, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { LoadCommand, LoadResult } from './load.ts';
import { percentiles } from './measure.ts';

const statusLine = 'HTTP/1.1 200 ';
const headEnd = '\r\n\r\n';
/** Into one memory again and again: a megabyte of an answer should cost no more than fetching it from the system. */
const readBytes = 1024 * 1024;

/** One kept connection with at most one request under way. */
interface Lane {
  /** Milliseconds from the first byte sent to the last one received. */
  request(): Promise<number>;
  close(): void;
}

function requestBytes({ url, bodyBase64, headers = {} }: LoadCommand): Buffer {
  const { pathname, host } = new URL(url);
  const body = Buffer.from(bodyBase64, 'base64');
  const lines = Object.entries({
    host,
    'content-type': 'application/json',
    'content-length': body.length,
    ...headers,
  });
  const head = `POST ${pathname} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
  return Buffer.concat([Buffer.from(head, 'latin1'), body]);
}

function openLane(url: string, bytes: Buffer): Promise<Lane> {
  const { hostname, port } = new URL(url);
  let settle: (tookMs: number) => void = () => undefined;
  let fail: (error: Error) => void = () => undefined;
  let sentAtMs = 0;
  let head = '';
  /** Of the body; −1 while its head is not complete. */
  let missing = -1;
  let usualBytes = 0;
  const came = (chunk: Buffer): void => {
    // As long as the one before and good: nothing about it is worth parsing.
    if (
      missing < 0 &&
      head === '' &&
      chunk.length === usualBytes &&
      chunk.toString('latin1', 0, statusLine.length) === statusLine
    ) {
      settle(performance.now() - sentAtMs);
      return;
    }
    if (missing < 0) {
      if (head === '') usualBytes = 0;
      head += chunk.toString('latin1');
      const end = head.indexOf(headEnd);
      if (end < 0) return;
      const length = /\r\ncontent-length: (\d+)/i.exec(head.slice(0, end + 2))?.[1];
      missing = Number(length ?? Number.NaN) - (head.length - end - headEnd.length);
    } else missing -= chunk.length;
    if (missing > 0) return;
    if (head.length === chunk.length) usualBytes = chunk.length;
    if (missing === 0 && head.startsWith(statusLine)) settle(performance.now() - sentAtMs);
    else fail(new Error(`not 200 with a length: ${head.slice(0, 200)}`));
  };
  const socket: Socket = connect({
    host: hostname,
    port: Number(port),
    noDelay: true,
    onread: {
      buffer: Buffer.allocUnsafeSlow(readBytes),
      callback: (count, buffer) => {
        came(Buffer.from(buffer.buffer, buffer.byteOffset, count));
        return true;
      },
    },
  });
  socket.on('error', (error) => fail(error));
  const lane: Lane = {
    request: () =>
      new Promise((resolve, reject) => {
        settle = resolve;
        fail = reject;
        head = '';
        missing = -1;
        sentAtMs = performance.now();
        socket.write(bytes);
      }),
    close: () => socket.destroy(),
  };
  return new Promise((resolve, reject) => {
    fail = reject;
    socket.once('connect', () => resolve(lane));
  });
}

async function load(lanes: readonly Lane[], warmUpMs: number, durationMs: number): Promise<LoadResult> {
  const timesMs: number[] = [];
  const startMs = performance.now() + warmUpMs;
  const endMs = startMs + durationMs;
  let lastMs = endMs;
  const drive = async (lane: Lane): Promise<void> => {
    for (let nowMs = 0; nowMs < endMs; ) {
      const tookMs = await lane.request();
      nowMs = performance.now();
      if (nowMs - tookMs >= startMs && nowMs < endMs) timesMs.push(tookMs);
      lastMs = nowMs;
    }
  };
  await Promise.all(lanes.map(drive));
  const seconds = (Math.min(lastMs, endMs) - startMs) / 1_000;
  return { requestsPerSecond: timesMs.length / seconds, ...percentiles(timesMs) };
}

let ready: Promise<Lane[]> = Promise.resolve([]);

async function obey(command: LoadCommand | 'once'): Promise<LoadResult | number> {
  if (command === 'once') {
    const [lane] = await ready;
    if (lane === undefined) throw new Error('no connection is open');
    return lane.request();
  }
  for (const lane of await ready) lane.close();
  const bytes = requestBytes(command);
  ready = Promise.all(Array.from({ length: command.connections }, () => openLane(command.url, bytes)));
  return load(await ready, command.warmUpMs, command.durationMs);
}

process.on('message', (command) => {
  obey(command as LoadCommand | 'once').then(
    (result) => process.send?.({ result }),
    (error: Error) => process.send?.({ failed: error.message }),
  );
});
