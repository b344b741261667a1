// Why: what the device's side of the bus needs of a driver: a connection to a broker that was judged, and an MQTT
// client on it. mqtt.ts has the real one, the simulator its own.
// Trusts: nothing. Must never: hold a decision of bus-line.ts.

import type { CertificateDates } from '../crypto/x509.ts';
import type { BusMessage, Clock } from '../kernel/ports.ts';
import type { BrokerAddress, BusCredentials } from './broker-socket.ts';

/** How a session begins: MQTT's CONNECT. */
export interface SessionStart {
  clientId: string;
  will: { topic: string; payload: Uint8Array; qos: 0 | 1; retain: boolean } | null;
}

export interface ClientEvents {
  /** CONNACK accepted it. */
  connected(): void;
  message(message: BusMessage): void;
  /** Why it will end; the first one counts. */
  failed(error: unknown): void;
  /** It ended. Nothing comes after. */
  closed(): void;
}

/** The MQTT client of one connection. Each callback comes once, and none after its connection was destroyed. */
export interface BusClient {
  /** From CONNACK to the end. */
  connected(): boolean;
  /** Answered by PUBACK at QoS 1, by the bytes handed over at QoS 0. */
  publish(
    topic: string,
    payload: Uint8Array,
    options: { qos: 0 | 1; retain: boolean },
    done: (error: Error | null) => void,
  ): void;
  /** An error where nobody answered; `granted` is false for SUBACK 128. */
  subscribe(filter: string, done: (error: Error | null, granted: boolean) => void): void;
  unsubscribe(filter: string, done: (error: Error | null) => void): void;
  /** With a DISCONNECT, or with `force` without. */
  end(force: boolean): void;
}

/** A connection to a broker that was judged, on which no MQTT was spoken yet. */
export interface BrokerChannel {
  dates: CertificateDates;
  start(session: SessionStart, on: ClientEvents): BusClient;
  destroy(): void;
}

export interface BusDrivers {
  /** Opens and judges. `opened` rejects with what ended the attempt; `destroy` ends it, however far it is. */
  dial(
    address: BrokerAddress,
    credentials: BusCredentials,
    clock: Clock,
  ): { opened: Promise<BrokerChannel>; destroy(): void };
}
