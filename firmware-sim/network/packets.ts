// Why: what is said on one simulated connection, and how it shows in a trace. MQTT 3.1.1 without its bytes.
// Trusts: nothing. Must never: carry anything that the real protocol does not.

import type { SessionStart } from '../../shared/host/bus-drivers.ts';

export interface PublishPacket {
  cmd: 'publish';
  /** 0 at QoS 0. */
  id: number;
  topic: string;
  payload: Uint8Array;
  qos: 0 | 1;
  retain: boolean;
}

export type ClientPacket =
  /** The end of the TLS handshake, in which the client shows its certificate (PEM). */
  | { cmd: 'hello'; certificate: string }
  | ({ cmd: 'connect' } & SessionStart)
  | PublishPacket
  | { cmd: 'subscribe'; id: number; filter: string }
  | { cmd: 'unsubscribe'; id: number; filter: string }
  | { cmd: 'disconnect' };

export type ServerPacket =
  | { cmd: 'connack'; returnCode: 0 | 2 | 3 | 5 }
  | PublishPacket
  | { cmd: 'puback'; id: number }
  | { cmd: 'suback'; id: number; granted: boolean }
  | { cmd: 'unsuback'; id: number };

export type Packet = ClientPacket | ServerPacket;

/** Bytes on the wire, near enough for limits. */
export function bytesOf(packet: Packet): number {
  return packet.cmd === 'publish' ? packet.payload.length + packet.topic.length + 9 : 16;
}

export function describe(packet: Packet): string {
  switch (packet.cmd) {
    case 'publish':
      return `publish ${packet.topic} ${packet.payload.length}`;
    case 'connect':
      return `connect ${packet.clientId}`;
    case 'connack':
      return `connack ${packet.returnCode}`;
    case 'subscribe':
    case 'unsubscribe':
      return `${packet.cmd} ${packet.filter}`;
    default:
      return packet.cmd;
  }
}
