// Why: devices download over HTTPS as well, on the broker's own port (ALPN): ranges of the files that they may have,
// by the same rights, turns and limits as over MQTT (DESIGN 7).
// Trusts: the broker for who holds a connection. Must never: answer anybody whom the broker would not let in now, wait
// for a client without end, or say that a digest exists to a device that may not have it.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Log } from '../../shared/kernel/ports.ts';
import type { BusIdentity } from '../../shared/wire/topics.ts';
import type { BlobSource, Downloads } from '../delivery/downloads.ts';
import { parseRange } from './byte-range.ts';
import { problemOf } from './problems.ts';

export interface DeviceBlobs {
  /** A connection after its handshake; the broker ends it when the device is ended. */
  accept(socket: TLSSocket, deviceId: string): void;
  requests(): ReadonlyMap<number, number>;
  /** Ends every connection. Idempotent. */
  close(): Promise<void>;
}

export interface DeviceBlobsParts {
  downloads: Downloads;
  mayConnect(identity: BusIdentity): Promise<boolean>;
  log: Log;
  /** A request's head must be there so soon; the idle time between two. */
  headMs?: number;
  idleMs?: number;
}

const blobPath = /^\/v1\/device\/blobs\/([0-9a-f]{64})$/;
const headBytesMax = 8 * 1024;
const retrySeconds = '1';

interface Asked {
  deviceId: string;
  sha256: string;
  request: IncomingMessage;
  response: ServerResponse;
}

/** Node's own: it is not left to a default that may change. */
function fenced(headMs: number, idleMs: number) {
  return {
    maxHeaderSize: headBytesMax,
    headersTimeout: headMs,
    requestTimeout: headMs,
    keepAliveTimeout: idleMs,
    connectionsCheckingInterval: Math.min(1_000, Math.ceil(headMs / 2)),
    noDelay: true,
  };
}

export function createDeviceBlobs(parts: DeviceBlobsParts): DeviceBlobs {
  const { downloads, log } = parts;
  const { headMs = limits.brokerConnectMs, idleMs = 30_000 } = parts;
  const holders = new WeakMap<object, string>();
  const open = new Set<TLSSocket>();
  const underWay = new Map<string, number>();
  const requests = new Map<number, number>();
  let closed = false;

  const server = createServer(fenced(headMs, idleMs), (request, response) => {
    const deviceId = holders.get(request.socket);
    response.once('close', () =>
      requests.set(response.statusCode, (requests.get(response.statusCode) ?? 0) + 1),
    );
    if (deviceId === undefined || closed) {
      request.socket.destroy();
      return;
    }
    void counted(deviceId, request, response).catch((thrown: unknown) => {
      const error = asFleetError(thrown);
      if (error.code === 'internal' || error.code.startsWith('disk-'))
        log.emit('error', 'http.failed', { path: request.url, code: error.code, detail: error.message });
      problem(response, error);
    });
  });
  server.maxHeadersCount = 64;
  // One that takes nothing for so long is not there any more.
  server.timeout = limits.bulkStallMs;
  server.on('clientError', (_error, socket) => socket.destroy());
  // It never listens itself, and only then looks at its timeouts.
  server.emit('listening');

  function problem(response: ServerResponse, error: FleetError, headers: Record<string, string> = {}): void {
    if (response.headersSent) {
      // In the middle of a body there is no other way to say that it is not whole.
      response.destroy();
      return;
    }
    const body = problemOf(error);
    const text = JSON.stringify(body);
    const retry = body.status === 503 || body.status === 429 ? { 'retry-after': retrySeconds } : {};
    response.writeHead(body.status, {
      'content-type': 'application/problem+json',
      'content-length': Buffer.byteLength(text),
      ...retry,
      ...headers,
    });
    response.end(text);
  }

  async function counted(
    deviceId: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const asked = (underWay.get(deviceId) ?? 0) + 1;
    if (asked > limits.fetchesPerDeviceMax) {
      request.resume();
      throw new FleetError('fetch-too-many', `${limits.fetchesPerDeviceMax} downloads are under way`);
    }
    underWay.set(deviceId, asked);
    try {
      await answer(deviceId, request, response);
    } finally {
      const left = (underWay.get(deviceId) ?? 1) - 1;
      if (left === 0) underWay.delete(deviceId);
      else underWay.set(deviceId, left);
    }
  }

  async function answer(deviceId: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A body is of no use here: it is not read, and the connection ends with the answer.
    if (request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined)
      response.setHeader('connection', 'close');
    if (!(await parts.mayConnect({ kind: 'device', deviceId }))) {
      request.socket.destroy();
      return;
    }
    const sha256 = blobPath.exec(request.url ?? '')?.[1];
    if (sha256 === undefined)
      throw new FleetError('not-found', `there is nothing at ${request.url?.slice(0, 200)}`);
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return problem(response, new FleetError('method-not-allowed', `${request.method}`), {
        allow: 'GET, HEAD',
      });
    const source = await downloads.find(deviceId, sha256);
    if (typeof source === 'string') {
      const code: ErrorCode = `fetch-${source}`;
      throw new FleetError(code, `blob ${sha256}`);
    }
    await sendRange({ deviceId, sha256, request, response }, source);
  }

  async function sendRange(asked: Asked, source: BlobSource): Promise<void> {
    const { deviceId, sha256, request, response } = asked;
    const { totalBytes } = source;
    const etag = `"${sha256}"`;
    const ifRange = request.headers['if-range'];
    const wanted = ifRange === undefined || ifRange === etag ? request.headers.range : undefined;
    const range = parseRange(wanted, totalBytes);
    if (range === 'unsatisfiable') {
      const error = new FleetError('fetch-range', `${wanted} of ${totalBytes} bytes`);
      return problem(response, error, { 'content-range': `bytes */${totalBytes}` });
    }
    const { from, until } = range ?? { from: 0, until: totalBytes };
    const head = {
      'content-type': 'application/octet-stream',
      'content-length': until - from,
      'accept-ranges': 'bytes',
      'cache-control': 'private, immutable',
      etag,
      ...(range === null ? {} : { 'content-range': `bytes ${from}-${until - 1}/${totalBytes}` }),
    };
    const status = range === null ? 200 : 206;
    if (request.method === 'HEAD' || from === until) {
      response.writeHead(status, head).end();
      return;
    }
    const outcome = await downloads.send({
      deviceId,
      source,
      from,
      until,
      send: (piece) => {
        if (!response.headersSent) response.writeHead(status, head);
        return write(response, piece);
      },
    });
    log.emit('debug', 'fetch.served', {
      deviceId,
      sha256,
      offset: from,
      length: until - from,
      outcome,
      over: 'https',
    });
    if (outcome === 'sent') response.end();
    else if (outcome === 'failed')
      problem(response, new FleetError('disk-io', `blob ${sha256} cannot be read`));
    else if (outcome === 'stopped')
      problem(response, new FleetError('registry-not-ready', 'the registry stops'));
    else problem(response, new FleetError('fetch-busy', `it is not the turn of this device (${outcome})`));
  }

  return {
    accept(socket, deviceId) {
      holders.set(socket, deviceId);
      open.add(socket);
      socket.once('close', () => open.delete(socket));
      server.emit('connection', socket);
    },
    requests: () => requests,
    async close() {
      closed = true;
      const ended = [...open].map(
        (socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())),
      );
      for (const socket of open) socket.destroy();
      await Promise.all(ended);
      server.close();
    },
  };
}

/** False where the device went away. */
function write(response: ServerResponse, piece: Uint8Array): Promise<boolean> {
  if (response.destroyed) return Promise.resolve(false);
  return new Promise((resolve) => {
    const gone = (): void => resolve(false);
    response.once('close', gone);
    response.write(piece, (error) => {
      response.off('close', gone);
      resolve((error === null || error === undefined) && !response.destroyed);
    });
  });
}
