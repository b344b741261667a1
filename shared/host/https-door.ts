// Why: the driver of HTTPS downloads: GET on the broker's own port (ALPN `http/1.1`), with the device's certificate, over
// connections that are kept. Trusts: only a server whose certificate was judged as the broker's is (broker-socket.ts).
// Must never: decide what an answer means; that is agent/bus/https-fetcher.ts. Nor send a byte to a server not judged.

import { Agent, type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';
import type { CertificateDates } from '../crypto/x509.ts';
import { FleetError } from '../kernel/errors.ts';
import type { Clock } from '../kernel/ports.ts';
import { type BusCredentials, openBrokerSocket } from './broker-socket.ts';

export interface HttpsHead {
  status: number;
  contentRange: string | undefined;
  contentLength: string | undefined;
  retryAfter: string | undefined;
}

export interface HttpsAsk {
  path: string;
  /** First and last byte, as in a `Range` header. */
  first: number;
  last: number;
  /** False: its body is not wanted. */
  onHead(head: HttpsHead): boolean;
  onBody(chunk: Uint8Array): void;
}

export interface HttpsDoor {
  /** `done` resolves when the body has ended or was not wanted; rejects with what ended it before. */
  get(ask: HttpsAsk): { done: Promise<void>; cancel(): void };
  /** Ends every connection: their credentials are not those in force any more, or the program stops. */
  close(): void;
}

export interface HttpsDoorParts {
  /** `mqtts://HOST:PORT` of the broker. */
  brokerUrl(): string;
  credentials(): BusCredentials;
  /** Whether a server whose certificate has these dates is to be believed now. */
  trusts(dates: CertificateDates): boolean;
  clock: Clock;
}

/** One carries bytes while the next range is asked for on the other. */
const connectionsMax = 2;

export function createHttpsDoor(parts: HttpsDoorParts): HttpsDoor {
  let agent = newAgent();

  function newAgent(): Agent {
    const made = new Agent({ keepAlive: true, maxSockets: connectionsMax });
    return Object.assign(made, {
      createConnection: (_options: unknown, created: (error: Error | null, socket?: Socket) => void) => {
        dial().then(
          (socket) => created(null, socket),
          (error: unknown) => created(error instanceof Error ? error : new Error(String(error))),
        );
      },
    });
  }

  async function dial(): Promise<Socket> {
    const { hostname, port } = new URL(parts.brokerUrl());
    const address = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) };
    const opening = openBrokerSocket(address, parts.credentials(), parts.clock, ['http/1.1']);
    const { socket, dates } = await opening.secured;
    if (socket.alpnProtocol === 'http/1.1' && parts.trusts(dates)) return socket;
    socket.destroy();
    throw socket.alpnProtocol === 'http/1.1'
      ? new FleetError('broker-server-untrusted', 'its certificate is outside its dates')
      : new FleetError('not-implemented', 'the broker speaks no HTTPS');
  }

  return {
    get: ({ path, first, last, onHead, onBody }) => {
      const asked = request({ agent, path, method: 'GET', headers: { range: `bytes=${first}-${last}` } });
      const done = new Promise<void>((resolve, reject) => {
        asked.on('error', reject);
        asked.once('close', () => reject(new Error('the connection was lost')));
        asked.once('response', (response: IncomingMessage) => {
          const { headers, statusCode = 0 } = response;
          const wanted = onHead({
            status: statusCode,
            contentRange: headers['content-range'],
            contentLength: headers['content-length'],
            retryAfter: headers['retry-after'],
          });
          response.on('error', reject);
          response.once('end', resolve);
          if (wanted) response.on('data', (chunk: Buffer) => onBody(chunk));
          else response.resume();
        });
      });
      // Whoever cancelled does not listen any more.
      done.catch(() => undefined);
      asked.end();
      return { done, cancel: () => void asked.destroy() };
    },
    close: () => {
      agent.destroy();
      agent = newAgent();
    },
  };
}
