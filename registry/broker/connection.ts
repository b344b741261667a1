// Why: one TLS connection of a known holder, from its handshake until aedes is done with it.
// Trusts: identity.ts for the holder. Must never: take a client id that the certificate does not give.

import type { TLSSocket } from 'node:tls';
import type { BusIdentity } from '../../shared/wire/topics.ts';
import type { CertificateIdentity } from './identity.ts';
import type { Session } from './session.ts';

export interface Connection {
  readonly holder: CertificateIdentity;
  readonly socket: TLSSocket;
  will: { topic: string; payload: Uint8Array | string; qos: number; retain: boolean } | null;
  /** Set when every check is passed. */
  identity: BusIdentity | null;
  session: Session | null;
  /** aedes knows the client by its id and will tell when it is done with it. */
  registered: boolean;
  /** CONNACK has accepted it. */
  ready: boolean;
  readonly ended: Promise<void>;
  /** Resolves `ended`. Idempotent. */
  end(): void;
}

export function newConnection(holder: CertificateIdentity, socket: TLSSocket): Connection {
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  return {
    holder,
    socket,
    will: null,
    identity: null,
    session: null,
    registered: false,
    ready: false,
    ended,
    end,
  };
}

/** Whether nothing but the time is wrong with the device's certificate. */
export function isExpired(holder: CertificateIdentity): boolean {
  return holder.kind === 'device' && holder.expired === true;
}

const attemptPattern = /^[a-z0-9]{8,32}$/;

/** The identity that this client id claims, or null where the certificate does not allow it. */
export function identityOf(holder: CertificateIdentity, clientId: string): BusIdentity | null {
  if (holder.kind === 'device') return clientId === holder.deviceId ? holder : null;
  const prefix = `${holder.claimId}.`;
  const attempt = clientId.slice(prefix.length);
  if (!clientId.startsWith(prefix) || !attemptPattern.test(attempt)) return null;
  return { kind: 'claim', claimId: holder.claimId, attempt };
}
