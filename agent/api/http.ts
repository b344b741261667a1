// Why: the device's own HTTP: the Open Inference Protocol (V2 REST) for applications, and the status.
// Plain node:http, because a framework would cost the device memory for a dozen routes.
// Trusts: nothing; every request is bounded. Must never: listen beyond loopback without a token, or
// answer with numbers that a refused request did not earn.

import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, isIP } from 'node:net';
import { watchLoopDelay } from '../../shared/host/loop-delay.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { type Result, refuse } from '../../shared/kernel/result.ts';
import type { InferenceHost } from '../inference/host.ts';
import { createSequences } from '../inference/sequences.ts';
import type { AgentStatus } from '../status.ts';
import type { Answer, RouteParts } from './answer.ts';
import { type BodyLimits, createBodyReader } from './body.ts';
import { fastInference } from './fast-inference.ts';
import { createFastPath } from './fast-path.ts';
import { routeRequest } from './routes.ts';
import { createBrokenRequests, refusalAnswer, send } from './send.ts';

export interface AgentHttpOptions {
  host: string;
  port: number;
  /** Needed where `host` is not loopback; where it is given, every request but health needs it. */
  token?: string;
  inference: InferenceHost;
  status: () => Promise<AgentStatus>;
  /** Takes an application's records (NDJSON); the number of them once they are durable. */
  record?: RouteParts['record'];
  defer?: RouteParts['defer'];
  clock: Clock;
  log: Log;
  /** The agent's version, for `GET /v2`. */
  version?: string;
  /** What `GET /v2` says instead of its own name and extensions. */
  serverName?: string;
  serverExtensions?: readonly string[];
  body?: Partial<BodyLimits>;
  /** How long `close` lets requests finish. */
  drainMs?: number;
}

export interface AgentHttp {
  /** `http://HOST:PORT` with the port that was bound. */
  url: string;
  /** Takes no new requests, lets those under way finish for `drainMs`, then ends them. Idempotent. */
  close(): Promise<void>;
}

const bodyDefaults: BodyLimits = {
  bytesMax: limits.inferBodyBytesMax,
  timeoutMs: 30_000,
  totalBytesMax: 4 * limits.inferBodyBytesMax,
};
const recordsBodyDefaults: BodyLimits = {
  bytesMax: limits.recordsBodyBytesMax,
  timeoutMs: 30_000,
  totalBytesMax: 8 * limits.recordsBodyBytesMax,
};
/** As Triton spells them. Loading is not among them: models come by rollouts. */
const serverExtensionsDefault = [
  'binary_tensor_data',
  'model_repository',
  'model_repository(index)',
  'parameters',
  'statistics',
];
const serverNameDefault = 'lepton-agent';
const drainDefaultMs = 10_000;
/** Connections at once; a device serves a few applications, and each costs memory. */
const connectionsMax = 256;
const headersTimeoutMs = 10_000;
/** Longer than the pools of usual clients, so that they close first and no request meets a closing door. */
const keepAliveMs = 30_000;

export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  if (bare === 'localhost' || bare === '::1') return true;
  return isIP(bare) === 4 && bare.startsWith('127.');
}

const digest = (text: string): Buffer => createHash('sha256').update(text, 'utf8').digest();

/** `Bearer TOKEN`; for browsers `Basic`, with the token as its password under any name. */
function givenToken(authorization: string): string | undefined {
  const bearer = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  if (bearer !== undefined) return bearer;
  const basic = /^Basic +([A-Za-z0-9+/=]+)$/i.exec(authorization)?.[1];
  if (basic === undefined) return undefined;
  const pair = Buffer.from(basic, 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  return colon < 0 ? undefined : pair.slice(colon + 1);
}

function createGate(token: string | undefined): RouteParts['mayEnter'] {
  if (token === undefined) return () => true;
  const expected = digest(token);
  return ({ authorization }) => {
    const given = givenToken(authorization ?? '');
    // Digests have one length, so that the comparison tells nothing about the token.
    return given !== undefined && timingSafeEqual(digest(given), expected);
  };
}

function listen(server: Server, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: Error & { code?: string }) => {
      const known = error.code === 'EADDRINUSE' || error.code === 'EACCES';
      reject(
        new FleetError(known ? 'port-in-use' : 'config-invalid', `${host}:${port}: ${error.message}`, {
          cause: error,
        }),
      );
    });
    server.listen({ host, port }, () => {
      const address = server.address();
      if (address === null || typeof address === 'string')
        reject(new FleetError('internal', 'no address was bound'));
      else resolve(address);
    });
  });
}

/** Faults: `listen-insecure`, `port-in-use`, `config-invalid`. */
export async function startAgentHttp(options: AgentHttpOptions): Promise<AgentHttp> {
  const { host, port, inference, clock, log } = options;
  if (!isLoopback(host) && (options.token ?? '') === '') {
    throw new FleetError('listen-insecure', `${host} is reachable from outside and there is no token`, {
      hint: 'give --token T, or listen on 127.0.0.1',
    });
  }
  if (options.token === '') throw new FleetError('config-invalid', 'the token is empty');
  const mayEnter = createGate(options.token);
  let closing = false;
  const loopDelay = watchLoopDelay();
  const parts: RouteParts = {
    inference,
    sequences: createSequences(inference, clock),
    streams: { open: 0 },
    status: options.status,
    server: {
      name: options.serverName ?? serverNameDefault,
      version: options.version ?? 'unknown',
      extensions: options.serverExtensions ?? serverExtensionsDefault,
    },
    ...(options.record === undefined ? {} : { record: options.record }),
    ...(options.defer === undefined ? {} : { defer: options.defer }),
    body: createBodyReader(clock, { ...bodyDefaults, ...options.body }),
    recordsBody: createBodyReader(clock, recordsBodyDefaults),
    loopDelay,
    clock,
    closing: () => closing,
    mayEnter,
  };

  /** What `work` answers, or the refusal that it ends in; never rejects. */
  const answerOf = async (
    path: string,
    work: () => Result<Answer> | Promise<Result<Answer>>,
  ): Promise<Answer> => {
    try {
      const routed = await work();
      if (routed.ok) return routed.value;
      const answer = refusalAnswer(routed.refusal);
      if (answer.status >= 500)
        log.emit('warn', 'inference.request.failed', { path, code: routed.refusal.code });
      return answer;
    } catch (thrown) {
      const { code, message } = asFleetError(thrown);
      log.emit('error', 'http.failed', { path, code, message });
      return refusalAnswer({ code, detail: 'the agent failed to answer; its log says more' });
    }
  };
  /** The answer itself could not be sent. */
  const sendFailed = (thrown: unknown, path: string): void => {
    const { code, message } = asFleetError(thrown);
    log.emit('error', 'http.failed', { path, code, message });
  };

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const withoutHost = request.headers.host === undefined && request.httpVersion === '1.1';
    const answer = await answerOf(pathOf(request), () =>
      withoutHost
        ? refuse('input-invalid', 'HTTP/1.1 without the header Host')
        : routeRequest(request, response, parts),
    );
    const last = closing ? { ...answer, headers: { ...answer.headers, connection: 'close' } } : answer;
    await send(request, response, last, clock);
  };

  const broken = createBrokenRequests(clock);
  const server = createServer(
    {
      noDelay: true,
      keepAlive: true,
      headersTimeout: headersTimeoutMs,
      requestTimeout: 0,
      connectionsCheckingInterval: 2_000,
      // Checked above, with an answer that says so.
      requireHostHeader: false,
    },
    (request, response) => {
      broken.answering(request.socket, response);
      handle(request, response).catch((thrown: unknown) => {
        sendFailed(thrown, pathOf(request));
        // Half an answer is worse than none.
        response.destroy();
      });
    },
  );
  // Every connection begins on the fast path; what is not for it goes to where all went before.
  const nodeTakes = server.listeners('connection');
  server.removeAllListeners('connection');
  const fast = createFastPath({
    clock,
    ...fastInference(parts, answerOf),
    closing: () => closing,
    toNode: (socket) => {
      for (const take of nodeTakes) take.call(server, socket);
    },
    refuse: broken.refuse,
    failed: sendFailed,
    silentMs: headersTimeoutMs,
    idleMs: keepAliveMs,
  });
  server.on('connection', fast.take);
  server.on('clientError', broken.refuse);
  server.maxConnections = connectionsMax;
  server.keepAliveTimeout = keepAliveMs;
  const address = await listen(server, host, port);
  server.on('error', (error) => log.emit('error', 'http.failed', { message: error.message }));
  const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address;

  let closed: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    closing = true;
    const ended = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    fast.end('idle');
    const patience = clock.timer(options.drainMs ?? drainDefaultMs);
    await Promise.race([ended, patience.done]);
    patience.cancel();
    server.closeAllConnections();
    fast.end('all');
    loopDelay.stop();
    await ended;
  };
  return {
    url: `http://${shown}:${address.port}`,
    close: () => {
      closed ??= close();
      return closed;
    },
  };
}

/** For the log: without the query, which is not ours. */
function pathOf(request: IncomingMessage): string {
  return (request.url ?? '').split('?', 1)[0] ?? '';
}
