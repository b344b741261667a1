// Why: batches that wait to be stored: in order for each device, devices in turn, bounded for both.
// Trusts: the broker for who sent what. Must never: let one device take the turns or the memory of others.

import { telemetryLimits } from './limits.ts';

export interface Arrival {
  deviceId: string;
  payload: Uint8Array;
}

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
  const queues = new Map<string, Uint8Array[]>();
  let bytes = 0;

  return {
    push({ deviceId, payload }) {
      if (bytes + payload.length > bytesMax) return false;
      const queue = queues.get(deviceId);
      if (queue === undefined) queues.set(deviceId, [payload]);
      else if (queue.length >= telemetryLimits.waitingPerDeviceMax) return false;
      else queue.push(payload);
      bytes += payload.length;
      return true;
    },

    next() {
      for (const [deviceId, queue] of queues) {
        const payload = queue.shift();
        queues.delete(deviceId);
        if (payload === undefined) continue;
        if (queue.length > 0) queues.set(deviceId, queue);
        bytes -= payload.length;
        return { deviceId, payload };
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
