// Why: the HTTP listener: plain on loopback, TLS elsewhere; it drains before it closes.
// Trusts: the operator's certificate files. Must never: speak plain HTTP to another machine.

import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { createAdaptorServer, type ServerType } from '@hono/node-server';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Clock } from '../../shared/kernel/ports.ts';
import type { RegistryApi } from './app.ts';

export interface HttpListener {
  port: number;
  /** Takes no new requests, lets running ones end for `drainMs`, then closes what is left. Idempotent. */
  close(): Promise<void>;
}

const drainMs = 5_000;
const drainStepMs = 50;
/** A connection on which nothing moves for this long is closed; an upload may take as long as it moves. */
const idleMs = 120_000;

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** As it stands in a URL. */
export const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** A host that others can use for an address that was bound. */
export function reachable(host: string): string {
  return host === '0.0.0.0' || host === '::' ? hostname() : host;
}

/** A failed listen as a fault: `port-in-use`, or `config-invalid` where the address is not ours. */
export function listenFault(error: unknown, host: string, port: number): FleetError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'EADDRINUSE') {
    return new FleetError('port-in-use', `another program listens on ${host}:${port}`, { cause: error });
  }
  if (code === 'EACCES' || code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
    return new FleetError('config-invalid', `cannot listen on ${host}:${port} (${code})`, { cause: error });
  }
  if (error instanceof FleetError) return error;
  return new FleetError('internal', `cannot listen on ${host}:${port}: ${String(error)}`, { cause: error });
}

function serverFor(fetch: RegistryApi['fetch'], tls: { cert: string; key: string } | null): ServerType {
  // The runtime's own Request and Response stay as they are: other code in this process uses them.
  if (tls === null) return createAdaptorServer({ fetch, overrideGlobalObjects: false });
  try {
    return createAdaptorServer({
      fetch,
      overrideGlobalObjects: false,
      createServer: createHttpsServer,
      serverOptions: { cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' },
    });
  } catch (error) {
    throw new FleetError('config-invalid', `the HTTPS certificate or key is unusable: ${String(error)}`, {
      cause: error,
    });
  }
}

/** Faults: `listen-insecure`, `port-in-use`, `config-invalid`. Port 0 picks a free one. */
export async function listenHttp(options: {
  host: string;
  port: number;
  tls: { cert: string; key: string } | null;
  fetch: RegistryApi['fetch'];
  clock: Clock;
}): Promise<HttpListener> {
  const { host, port, tls, clock } = options;
  if (tls === null && !isLoopback(host)) {
    throw new FleetError('listen-insecure', `plain HTTP on ${host} would show tokens to the network`);
  }
  const server = serverFor(options.fetch, tls);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenFault(error, host, port)));
    server.listen(port, host, () => resolve());
  });
  const address = server.address() as AddressInfo;
  // Node would cut every request after five minutes; a large model over a thin line takes longer.
  if ('requestTimeout' in server) server.requestTimeout = 0;
  if ('timeout' in server) server.timeout = idleMs;
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => {
      server.close(() => resolve());
    });
    let open = true;
    void closed.then(() => {
      open = false;
    });
    for (let waitedMs = 0; open && waitedMs < drainMs; waitedMs += drainStepMs) {
      // A connection whose last request has ended would otherwise be kept alive for seconds.
      if ('closeIdleConnections' in server) server.closeIdleConnections();
      const pause = clock.timer(drainStepMs);
      await Promise.race([closed, pause.done]);
      pause.cancel();
    }
    if ('closeAllConnections' in server) server.closeAllConnections();
    await closed;
  };
  return {
    port: address.port,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}
