// Why: one TLS connection to the broker, whose certificate is judged before a byte of MQTT is sent.
// Trusts: broker-certificate.ts for the certificate, the caller for its dates.
// Must never: hand out a socket to a server that was not judged, nor wait for one without a limit.

import { connect, type TLSSocket } from 'node:tls';
import type { CertificateDates } from '../crypto/x509.ts';
import { FleetError } from '../kernel/errors.ts';
import { limits } from '../kernel/limits.ts';
import type { Clock } from '../kernel/ports.ts';
import { checkBrokerCertificate } from './broker-certificate.ts';

export interface BrokerAddress {
  host: string;
  port: number;
}

/** What a device shows, and whom it believes. */
export interface BusCredentials {
  /** PEM of the fleet's authorities, the only ones trusted; of the client certificate and of its private key. */
  ca: string;
  cert: string;
  key: string;
  /** TLS server name to send: which authority is trusted (`authorityServerName`). It never names the host. */
  serverName?: string;
}

export interface BrokerSocket {
  /** Resolves when the server was judged good; rejects with what ended the attempt. */
  secured: Promise<{ socket: TLSSocket; dates: CertificateDates }>;
  /** Ends it, however far it is. */
  destroy(): void;
}

export function openBrokerSocket(
  address: BrokerAddress,
  credentials: BusCredentials,
  clock: Clock,
  protocols: string[] = [],
): BrokerSocket {
  const { host, port } = address;
  const { ca, cert, key, serverName } = credentials;
  // Without a server name (an address) none is sent.
  const named = serverName ?? (/^[\d.]+$|:/.test(host) ? undefined : host);
  const socket = connect({
    host,
    port,
    ca,
    cert,
    key,
    minVersion: 'TLSv1.3',
    // MQTT is what a broker speaks to whoever names nothing.
    ...(protocols.length === 0 ? {} : { ALPNProtocols: protocols }),
    // The check is below: it can tell a wrong date from a wrong certificate, and runs in every case.
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
    ...(named === undefined ? {} : { servername: named }),
  });
  socket.setNoDelay(true);
  const secured = new Promise<{ socket: TLSSocket; dates: CertificateDates }>((resolve, reject) => {
    const timer = clock.timer(limits.brokerConnectMs);
    void timer.done.then(() => socket.destroy(new Error(`no answer in ${limits.brokerConnectMs} ms`)));
    // For its whole life: an error that nobody hears would end the process.
    socket.on('error', reject);
    socket.once('close', () => {
      timer.cancel();
      reject(new Error('the broker closed the connection'));
    });
    socket.once('secureConnect', () => {
      timer.cancel();
      const shown = {
        certificate: socket.getPeerX509Certificate(),
        // Declared as an Error; it is OpenSSL's code as a text, or null.
        error: socket.authorized ? null : String(socket.authorizationError),
      };
      const checked = checkBrokerCertificate(shown, ca, host);
      if (checked.ok) {
        resolve({ socket, dates: checked.value });
        return;
      }
      reject(new FleetError(checked.refusal.code, checked.refusal.detail));
      socket.destroy();
    });
  });
  // Whoever gave up does not listen any more.
  secured.catch(() => undefined);
  return { secured, destroy: () => socket.destroy() };
}
