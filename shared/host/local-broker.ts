// Why: samples may come over a broker on the device itself, which knows nothing of the fleet: MQTT without TLS.
// Trusts: whoever reaches that broker, for samples alone. Must never: be used for what is signed or sealed.

import { connect } from 'mqtt';
import { FleetError } from '../kernel/errors.ts';

export interface LocalBroker {
  /** The handler is called in order of arrival. Subscribes again after each reconnect. */
  subscribe(filter: string, handler: (topic: string, payload: Uint8Array) => void): { cancel(): void };
  /** QoS 0; dropped while there is no connection. */
  publish(topic: string, payload: Uint8Array): void;
  close(): Promise<void>;
}

const reconnectMs = 2_000;

/** `mqtt://127.0.0.1:1883`. Fault: `config-invalid` for anything but a loopback address. */
export function parseLocalBroker(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  const loopback = url !== null && /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(url.hostname);
  if (url?.protocol !== 'mqtt:' || !loopback || url.username !== '' || url.password !== '') {
    throw new FleetError('config-invalid', `${JSON.stringify(text)} is no broker of this device`, {
      hint: 'give mqtt://127.0.0.1:PORT; what is not encrypted must not leave the device',
    });
  }
  return url.href;
}

/** Connects in the background, again and again. */
export function connectLocalBroker(
  url: string,
  options: {
    clientId: string;
    onStatus(connected: boolean): void;
    matches(filter: string, topic: string): boolean;
  },
): LocalBroker {
  const client = connect(parseLocalBroker(url), {
    clientId: options.clientId,
    clean: true,
    reconnectPeriod: reconnectMs,
    queueQoSZero: false,
    // Ours subscribe by name below.
    resubscribe: false,
  });
  const handlers = new Map<string, (topic: string, payload: Uint8Array) => void>();
  client.on('connect', () => {
    for (const filter of handlers.keys()) client.subscribe(filter, { qos: 0 }, () => undefined);
    options.onStatus(true);
  });
  client.on('close', () => options.onStatus(false));
  // Each failure is followed by `close` and the next attempt.
  client.on('error', () => undefined);
  client.on('message', (topic, payload) => {
    for (const [filter, handler] of handlers) if (options.matches(filter, topic)) handler(topic, payload);
  });
  return {
    subscribe: (filter, handler) => {
      handlers.set(filter, handler);
      if (client.connected) client.subscribe(filter, { qos: 0 }, () => undefined);
      return {
        cancel: () => {
          if (handlers.get(filter) !== handler) return;
          handlers.delete(filter);
          if (client.connected) client.unsubscribe(filter, () => undefined);
        },
      };
    },
    publish: (topic, payload) => {
      if (client.connected) client.publish(topic, Buffer.from(payload), { qos: 0 }, () => undefined);
    },
    close: () => new Promise((resolve) => client.end(true, {}, () => resolve())),
  };
}
