// Why: who is let in, on what conditions, and what a client may publish once it is: the broker's own rules, beside
// those of shared/wire/topics.ts. The simulator's broker runs them unchanged.
// Trusts: identity.ts for who holds a connection, the registry (`mayConnect`) for whether it may still come.
// Must never: let the present holder of a client id go before every check of its successor is passed.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { limits } from '../../shared/kernel/limits.ts';
import { type BusIdentity, mayPublish } from '../../shared/wire/topics.ts';
import { identityOf, isExpired } from './connection.ts';
import type { CertificateIdentity } from './identity.ts';

/** A control message with its topic and headers. */
export const packetBytesMax = limits.busMessageBytesMax + 1024;
/** Presence is the one thing a device may have retained; its JSON is about 100 bytes. */
const deviceRetainedBytesMax = 4 * 1024;
/** Connections of one device at one time: the old one, its successor, and some that died half open. */
export const connectionsPerDeviceMax = 16;
/** Devices whose expiry was told; beyond it some are told again. */
const expiredRememberedMax = 10_000;

export interface ClientPublication {
  topic: string;
  payload: Uint8Array | string;
  qos: number;
  retain: boolean;
}

/** Why this client may not publish that, in words, or null where it may. */
export function publishDenial(
  identity: BusIdentity,
  region: string,
  packet: ClientPublication,
): string | null {
  if (!mayPublish(identity, region, packet.topic, packet.retain)) {
    return `${packet.retain ? 'retained message on' : 'message on'} ${packet.topic.slice(0, 200)}`;
  }
  if (packet.qos > 1) return `QoS 2 on ${packet.topic}`;
  if (packet.retain && packet.payload.length > deviceRetainedBytesMax) return `retained message too large`;
  return null;
}

/** A connection with a good certificate that asks to be let in. */
export interface Candidate {
  readonly holder: CertificateIdentity;
  readonly will: ClientPublication | null;
  readonly socket: { readonly destroyed: boolean; destroy(): void };
  /** Resolves when the broker is done with it. */
  readonly ended: Promise<void>;
}

/** MQTT 3.1.1 table 3.1: 2 identifier rejected, 3 unavailable, 5 not authorized. */
export interface ConnectDenial {
  returnCode: 2 | 3 | 5;
  message: string;
}

export interface Admission<C extends Candidate> {
  /** Who holds a client id, from the moment all checks are passed until the broker is done with it. */
  readonly holders: Map<string, C>;
  /** Passes every check or says how CONNACK refuses. The present holder of the id goes only at the end. */
  admit(clientId: string, candidate: C): Promise<ConnectDenial | null>;
}

export function createAdmission<C extends Candidate>(parts: {
  region: string;
  mayConnect(identity: BusIdentity): Promise<boolean> | boolean;
  refused(code: ErrorCode, holder: CertificateIdentity, detail: string): void;
  closing(): boolean;
  /** All checks are passed and it holds the client id now. */
  admitted(clientId: string, candidate: C, identity: BusIdentity): void;
}): Admission<C> {
  const { region, refused } = parts;
  const holders = new Map<string, C>();
  /** Devices that came with an expired certificate since they last came with a good one: told once. */
  const expired = new Set<string>();

  /** One event for a device whose certificate has expired, not one for each try. */
  const noteExpiry = (holder: CertificateIdentity): void => {
    if (holder.kind !== 'device') return;
    if (holder.expired !== true) expired.delete(holder.deviceId);
    else if (!expired.has(holder.deviceId)) {
      if (expired.size >= expiredRememberedMax) expired.clear();
      expired.add(holder.deviceId);
      refused('certificate-expired', holder, 'let in to renew it, and for nothing else');
    }
  };

  return {
    holders,
    async admit(clientId, candidate) {
      const { holder, socket, will } = candidate;
      const identity = identityOf(holder, clientId);
      if (identity === null) {
        refused('broker-client-id-borrowed', holder, `client id ${clientId.slice(0, 80)}`);
        return { returnCode: 2, message: 'the client id is not the certificate’s' };
      }
      const denied = will === null ? null : publishDenial(identity, region, will);
      if (denied !== null) {
        refused('broker-publish-denied', holder, `last will: ${denied}`);
        return { returnCode: 5, message: 'the last will is not allowed' };
      }
      if (!(await parts.mayConnect(identity))) {
        refused('broker-not-authorized', holder, 'the registry does not admit it');
        return { returnCode: 5, message: 'not admitted' };
      }
      // A device has one key: whoever still shows its expired certificate must not end the connection that shows
      // the new one. Where that one died half open, the keepalive ends it and the next try comes in.
      const present = holders.get(clientId);
      if (isExpired(holder) && present !== undefined && !isExpired(present.holder)) {
        return { returnCode: 3, message: 'the device is connected with its present certificate' };
      }
      noteExpiry(holder);
      // MQTT-3.1.4-2: a second connection replaces the first. Waiting for the broker to be done with the old one
      // matters: aedes forgets clients by id, and would forget the new one with the old.
      for (let old = holders.get(clientId); old !== undefined; old = holders.get(clientId)) {
        old.socket.destroy();
        await old.ended;
      }
      if (socket.destroyed || parts.closing()) return { returnCode: 3, message: 'closed' };
      holders.set(clientId, candidate);
      parts.admitted(clientId, candidate, identity);
      return null;
    },
  };
}
