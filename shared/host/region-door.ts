// Why: the line between regions: HTTPS in which each end shows a certificate of its own key, and is believed for that key
// alone. Both ends of it, since neither makes sense without the other.
// Trusts: TLS 1.3 to prove the key. Must never: send a byte to, or answer, a connection whose key was not proven.

import { Agent, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { connect, TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import { pkcs8PemFromSeed, publicKeyFromSpki } from '../crypto/spki.ts';
import { asFleetError, FleetError } from '../kernel/errors.ts';
import type {
  Clock,
  DoorAnswer,
  DoorAsk,
  DoorHandler,
  DoorPeer,
  Entropy,
  Log,
  RegionLine,
} from '../kernel/ports.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { makeRegionCertificate } from './certificates.ts';

export interface RegionIdentity {
  certificatePem: string;
  privateKeyPem: string;
}

const dayMs = 86_400_000;
/** The key is what counts; dates only keep libraries content. */
const certificateLifeMs = 20 * 366 * dayMs;
const clockSkewMs = 400 * dayMs;

const bodyBytesMax = 256 * 1024;
/** Smaller answers are not worth it. */
const gzipFromBytes = 1_024;
/** Models hardly shrink. */
const rawPath = /^\/regions\/v1\/blobs\//;
const connectionsMax = 4;
const connectMs = 10_000;
/** Of everybody together: strangers cannot take the process's descriptors. */
const doorConnectionsMax = 1_024;
const drainMs = 2_000;

const zip = promisify(gzip);
const unzip = promisify(gunzip);

export async function regionIdentity(parts: {
  seed: Uint8Array;
  region: string;
  clock: Clock;
  entropy: Entropy;
}): Promise<RegionIdentity> {
  const nowMs = parts.clock.wall();
  const certificatePem = await makeRegionCertificate({
    seed: parts.seed,
    region: parts.region,
    serial: parts.entropy.bytes(16),
    notBeforeMs: nowMs - clockSkewMs,
    notAfterMs: nowMs + certificateLifeMs,
  });
  return { certificatePem, privateKeyPem: pkcs8PemFromSeed(parts.seed) };
}

/** The Ed25519 key that the other end has proven, hex; null where it showed none. */
function provenKey(socket: TLSSocket): string | null {
  const spki = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' });
  if (spki === undefined) return null;
  const key = publicKeyFromSpki(new Uint8Array(spki));
  return key.ok ? Buffer.from(key.value).toString('hex') : null;
}

export interface RegionDoor {
  port: number;
  /** Takes no new requests, lets running ones end for a moment. Idempotent. */
  close(): Promise<void>;
}

async function readBody(incoming: IncomingMessage): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of incoming as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > bodyBytesMax) throw new FleetError('body-too-large', `more than ${bodyBytesMax} bytes`);
    parts.push(part);
  }
  return new Uint8Array(Buffer.concat(parts));
}

async function answer(handler: DoorHandler, incoming: IncomingMessage, outgoing: ServerResponse) {
  const { socket } = incoming;
  const publicKey = socket instanceof TLSSocket ? provenKey(socket) : null;
  if (publicKey === null) {
    // A stranger without a certificate learns nothing, not even what there is.
    socket.destroy();
    return;
  }
  const url = new URL(incoming.url ?? '/', 'https://door.invalid');
  const { status, bytes } = await handler({
    publicKey,
    method: incoming.method ?? 'GET',
    path: url.pathname,
    query: url.searchParams,
    body: await readBody(incoming),
  });
  const packs = bytes.length >= gzipFromBytes && !rawPath.test(url.pathname);
  const body = packs ? await zip(bytes) : bytes;
  outgoing.writeHead(status, {
    'content-type': 'application/octet-stream',
    'content-length': String(body.length),
    ...(packs ? { 'content-encoding': 'gzip' } : {}),
  });
  outgoing.end(body);
}

/** Faults: `port-in-use`, `config-invalid`. Port 0 picks a free one. */
export async function openRegionDoor(options: {
  host: string;
  port: number;
  identity: RegionIdentity;
  handler: DoorHandler;
  clock: Clock;
  log: Log;
}): Promise<RegionDoor> {
  const { host, port, identity, clock, log } = options;
  const server = createServer(
    {
      cert: identity.certificatePem,
      key: identity.privateKeyPem,
      requestCert: true,
      // Certificates are of their own keys: which key it is decides, in the handler.
      rejectUnauthorized: false,
      minVersion: 'TLSv1.3',
    },
    (incoming, outgoing) => {
      answer(options.handler, incoming, outgoing).catch((thrown: unknown) => {
        const error = asFleetError(thrown);
        log.emit('warn', 'regions.door.failed', { code: error.code, detail: error.message });
        outgoing.destroy();
      });
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const code = error.code === 'EADDRINUSE' ? 'port-in-use' : 'config-invalid';
      const words =
        code === 'port-in-use'
          ? `another program listens on ${host}:${port}`
          : `cannot listen on ${host}:${port} (${error.code ?? error.message})`;
      reject(new FleetError(code, words, { cause: error }));
    });
    server.listen(port, host, () => resolve());
  });
  // A stranger that opens connections and says nothing holds them no longer than this.
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  server.maxConnections = doorConnectionsMax;
  // TLS errors of strangers are theirs.
  server.on('tlsClientError', () => undefined);
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    const pause = clock.timer(drainMs);
    await Promise.race([closed, pause.done]);
    pause.cancel();
    server.closeAllConnections();
    await closed;
  };
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

async function read(response: IncomingMessage, bytesMax: number): Promise<Result<DoorAnswer>> {
  const parts: Buffer[] = [];
  let wireBytes = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    wireBytes += part.length;
    if (wireBytes > bytesMax) {
      response.destroy();
      return refuse('region-answer-invalid', `more than ${bytesMax} bytes`);
    }
    parts.push(part);
  }
  const body = Buffer.concat(parts);
  if (response.complete === false) return refuse('region-unreachable', 'the answer broke off');
  const status = response.statusCode ?? 0;
  if (response.headers['content-encoding'] !== 'gzip') {
    return ok({ status, bytes: new Uint8Array(body), wireBytes });
  }
  try {
    return ok({ status, bytes: new Uint8Array(await unzip(body, { maxOutputLength: bytesMax })), wireBytes });
  } catch {
    return refuse('region-answer-invalid', 'it does not unpack to what was asked for');
  }
}

/** Connections are kept by peer; a peer that changes its address or key gets new ones. Once closed it asks nothing. */
export function createRegionLine(parts: { identity: RegionIdentity; clock: Clock }): RegionLine & {
  close(): void;
} {
  const agents = new Map<string, Agent>();
  const dialled = new Set<TLSSocket>();
  let closed = false;

  async function dial(peer: DoorPeer): Promise<Socket> {
    const { hostname, port } = new URL(peer.url);
    const host = hostname.replace(/^\[|\]$/g, '');
    const socket = connect({
      host,
      port: port === '' ? 443 : Number(port),
      cert: parts.identity.certificatePem,
      key: parts.identity.privateKeyPem,
      // Judged below, by its key.
      rejectUnauthorized: false,
      minVersion: 'TLSv1.3',
    });
    dialled.add(socket);
    socket.once('close', () => dialled.delete(socket));
    // A host that is away may swallow everything: the system would wait for minutes.
    const patience = parts.clock.timer(connectMs);
    void patience.done.then(() => socket.destroy(new Error(`no connection within ${connectMs} ms`)));
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('secureConnect', resolve);
        socket.once('error', reject);
        socket.once('close', () => reject(new Error('the connection was closed')));
      });
    } finally {
      patience.cancel();
    }
    if (provenKey(socket) === peer.publicKey) {
      socket.setNoDelay(true);
      return socket;
    }
    socket.destroy();
    throw new FleetError('region-untrusted', `another key than the region’s answers at ${peer.url}`);
  }

  function agentOf(peer: DoorPeer): Agent {
    const key = `${peer.url} ${peer.publicKey}`;
    const kept = agents.get(key);
    if (kept !== undefined) return kept;
    const agent = Object.assign(new Agent({ keepAlive: true, maxSockets: connectionsMax }), {
      createConnection: (_options: unknown, created: (error: Error | null, socket?: Socket) => void) => {
        dial(peer).then(
          (socket) => created(null, socket),
          (error: unknown) => created(error instanceof Error ? error : new Error(String(error))),
        );
      },
    });
    agents.set(key, agent);
    return agent;
  }

  function once(peer: DoorPeer, ask: DoorAsk): Promise<Result<DoorAnswer>> {
    return new Promise((resolve, reject) => {
      const timer = parts.clock.timer(ask.timeoutMs);
      const asked = request({
        agent: agentOf(peer),
        path: ask.path,
        method: ask.method,
        headers: ask.body === undefined ? {} : { 'content-length': String(ask.body.length) },
      });
      void timer.done.then(() => asked.destroy(new Error(`no answer within ${ask.timeoutMs} ms`)));
      asked.once('error', reject);
      asked.once('response', (response) => read(response, ask.bytesMax).then(resolve, reject));
      asked.once('close', () => timer.cancel());
      asked.end(ask.body);
    });
  }

  return {
    async ask(peer, ask) {
      if (closed) return refuse('interrupted', 'the registry stops');
      try {
        return await once(peer, ask);
      } catch (thrown) {
        if (thrown instanceof FleetError && thrown.code === 'region-untrusted')
          return refuse(thrown.code, thrown.message);
        const words = thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
        return refuse('region-unreachable', `${peer.url} does not answer (${words})`);
      }
    },
    close() {
      closed = true;
      for (const socket of dialled) socket.destroy();
      for (const agent of agents.values()) agent.destroy();
      agents.clear();
    },
  };
}
