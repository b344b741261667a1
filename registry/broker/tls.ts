// Why: the TLS side of the broker while authorities change: each device is shown a certificate of the authority
// that it trusts, which it names by the server name (shared/trust/authorities.ts), and all of it can be replaced
// while connections stay. Trusts: its caller's keys and certificates.
// Must never: take the TLS library's verdict for the check of clients; that is identity.ts.

import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  createSecureContext,
  createServer,
  type SecureContext,
  type SecureContextOptions,
  type TLSSocket,
} from 'node:tls';
import { FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';

export interface BrokerTls {
  /** PEM. */
  key: string;
  /** Shown to whoever names no authority of `named`, or none at all. */
  cert: string;
  /** Authorities whose clients are taken, PEM. */
  ca: string;
  /** Certificates for the same key, by TLS server name. */
  named?: ReadonlyMap<string, string>;
}

/** What a client may speak here (RFC 7301). One that names nothing speaks MQTT. */
const protocols = ['mqtt', 'http/1.1'];

export function speaksHttp(socket: TLSSocket): boolean {
  return socket.alpnProtocol === 'http/1.1';
}

export interface TlsFront {
  /** The port that was bound; 0 takes a free one. Faults: `port-in-use`, `config-invalid`. */
  listen(): Promise<number>;
  /** Ends every connection, also those in mid-handshake. */
  close(): Promise<void>;
  /** For new connections from now on. */
  use(tls: BrokerTls): void;
}

function contextOf(tls: BrokerTls, cert: string): SecureContextOptions {
  return {
    key: tls.key,
    cert,
    ca: tls.ca,
    minVersion: 'TLSv1.3',
    // Every connection shows its certificate; nobody resumes a session.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

export function createTlsFront(parts: {
  tls: BrokerTls;
  host: string;
  port: number;
  /** A connection after its handshake. */
  accept(socket: TLSSocket): void;
  clientError(error: Error): void;
  failed(error: Error): void;
}): TlsFront {
  const { tls: first, host, port } = parts;
  let fallback: SecureContext;
  let named: ReadonlyMap<string, SecureContext>;
  const prepare = (tls: BrokerTls): void => {
    fallback = createSecureContext(contextOf(tls, tls.cert));
    named = new Map(
      [...(tls.named ?? [])].map(([name, cert]) => [name, createSecureContext(contextOf(tls, cert))]),
    );
  };
  prepare(first);
  const server = createServer({
    ...contextOf(first, first.cert),
    requestCert: true,
    ALPNProtocols: protocols,
    // The check is identity.ts: it can tell who was refused and why, and knows expired claims and devices.
    rejectUnauthorized: false,
    handshakeTimeout: limits.brokerConnectMs,
    noDelay: true,
    SNICallback: (name, done) => done(null, named.get(name) ?? fallback),
  });
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('secureConnection', parts.accept);
  server.on('tlsClientError', parts.clientError);

  return {
    async listen() {
      await new Promise<void>((resolve, reject) => {
        server.once('error', (error: NodeJS.ErrnoException) => {
          reject(
            error.code === 'EADDRINUSE'
              ? new FleetError('port-in-use', `MQTT ${host}:${port}`, { cause: error })
              : new FleetError('config-invalid', `cannot listen on ${host}:${port}: ${error.message}`, {
                  cause: error,
                }),
          );
        });
        server.listen(port, host, resolve);
      });
      server.on('error', parts.failed);
      const address = server.address();
      return address !== null && typeof address === 'object' ? address.port : port;
    },

    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },

    use(tls) {
      prepare(tls);
      // For whoever sends no server name at all.
      server.setSecureContext(contextOf(tls, tls.cert));
    },
  };
}
