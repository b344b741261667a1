// Why: batches that wait to be stored: in order for each device, devices in turn, bounded for both.
// Trusts: the broker for who sent what. Must never: let one device take the turns or the memory of others.

import type { Envelope } from '../../shared/wire/messages.ts';
import { telemetryLimits } from './limits.ts';

export interface Arrival {
  deviceId: string;
  payload: Uint8Array;
  /** It came through another region. */
  carried?: {
    /** The enrolment that it is of. */
    epoch: number;
    done(outcome: CarryOutcome): void;
  };
}

/** `answer`: what the region signs for the device. `unusable`: nothing can be said to it. `again`: it was not looked at. */
export type CarryOutcome =
  | { kind: 'answer'; envelope: Envelope }
  | { kind: 'unusable'; code: string }
  | { kind: 'again' };

export interface Waiting {
  /** False where there is no room: the device gets no answer and sends it again. */
  push(arrival: Arrival): boolean;
  /** The next one, of the device whose turn it is. */
  next(): Arrival | null;
  isEmpty(): boolean;
  bytes(): number;
  clear(): void;
}

export function createWaiting(bytesMax: number = telemetryLimits.waitingBytesMax): Waiting {
  /** In order of turns. No entry is empty. */
  const queues = new Map<string, Arrival[]>();
  let bytes = 0;

  return {
    push(arrival) {
      const { deviceId, payload } = arrival;
      if (bytes + payload.length > bytesMax) return false;
      const queue = queues.get(deviceId);
      if (queue === undefined) queues.set(deviceId, [arrival]);
      else if (queue.length >= telemetryLimits.waitingPerDeviceMax) return false;
      else queue.push(arrival);
      bytes += payload.length;
      return true;
    },

    next() {
      for (const [deviceId, queue] of queues) {
        const arrival = queue.shift();
        queues.delete(deviceId);
        if (arrival === undefined) continue;
        if (queue.length > 0) queues.set(deviceId, queue);
        bytes -= arrival.payload.length;
        return arrival;
      }
      return null;
    },

    isEmpty: () => queues.size === 0,
    bytes: () => bytes,

    clear() {
      queues.clear();
      bytes = 0;
    },
  };
}
