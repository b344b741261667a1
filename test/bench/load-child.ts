// Why: a load generator as lean as can be, in a process of its own: the same one for every server that is
// compared, so that its cost is the same too. Trusts: servers of this bench, which answer each request with a
// content length. Must never: count an answer that is not 200.

import { connect, type Socket } from 'node:net';
import type { LoadOptions, LoadResult } from './load.ts';

const statusLine = 'HTTP/1.1 200 ';
const headEnd = '\r\n\r\n';

function percentile(sorted: readonly number[], fraction: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? Number.NaN;
}

async function run(options: LoadOptions): Promise<LoadResult> {
  const url = new URL(options.url);
  const body = Buffer.from(options.bodyBase64, 'base64');
  const headers = Object.entries(options.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = `POST ${url.pathname} HTTP/1.1\r\nhost: ${url.host}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n${headers.join('')}\r\n`;
  const request = Buffer.concat([Buffer.from(head, 'latin1'), body]);
  const latenciesMs: number[] = [];
  let measuring = false;
  let stopping = false;
  let requests = 0;
  let errors = 0;

  const open = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket: Socket = connect({ host: url.hostname, port: Number(url.port), noDelay: true });
      let sentAtMs = 0;
      let missing = -1;
      let text = '';
      let bodyBytes = 0;
      const send = (): void => {
        missing = -1;
        text = '';
        sentAtMs = performance.now();
        socket.write(request);
      };
      socket.on('connect', send);
      socket.on('error', reject);
      socket.on('close', () => resolve());
      socket.on('data', (chunk: Buffer) => {
        if (missing < 0) {
          text += chunk.toString('latin1');
          const end = text.indexOf(headEnd);
          if (end < 0) return;
          const length = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, end + 2));
          bodyBytes = Number(length?.[1] ?? Number.NaN);
          missing = bodyBytes - (text.length - end - headEnd.length);
        } else missing -= chunk.length;
        if (missing > 0) return;
        if (measuring) {
          if (text.startsWith(statusLine) && missing === 0) requests += 1;
          else errors += 1;
          latenciesMs.push(performance.now() - sentAtMs);
        }
        if (stopping) socket.end();
        else send();
      });
    });

  const closed = Array.from({ length: options.connections }, open);
  await new Promise((resolve) => setTimeout(resolve, options.warmUpMs));
  measuring = true;
  const start = performance.now();
  await new Promise((resolve) => setTimeout(resolve, options.durationMs));
  measuring = false;
  const seconds = (performance.now() - start) / 1_000;
  stopping = true;
  await Promise.all(closed);
  const sorted = latenciesMs.sort((a, b) => a - b);
  return {
    requestsPerSecond: requests / seconds,
    errors,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
  };
}

process.once('message', (options) => {
  void run(options as LoadOptions).then((result) => {
    process.send?.(result);
    process.disconnect();
  });
});
