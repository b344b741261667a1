// Why: the device's side of the bus: MQTT 3.1.1 over TLS 1.3 with a client certificate, reconnecting by
// itself. Trusts: only a broker whose certificate the fleet's CA signed for the host that was asked for.
// Must never: queue without a bound, nor say that a message was delivered that nobody acknowledged.

import { connect as connectTls, type TLSSocket } from 'node:tls';
import { type IClientOptions, MqttClient } from 'mqtt';
import { writeToStream } from 'mqtt-packet';
import type { ErrorCode } from '../kernel/codes.ts';
import { FleetError } from '../kernel/errors.ts';
import { limits } from '../kernel/limits.ts';
import type { Bus, BusMessage, Clock, Entropy, Log, Subscription, Timer } from '../kernel/ports.ts';
import { filterMatches } from '../wire/topics.ts';

// At the first packet it would fill a cache of 65,536 buffers: several MiB that a small device does not have.
writeToStream.cacheNumbers = false;

/** `refused`: this attempt failed for a reason that has a code; the next attempt follows by itself. */
export type BusStatus = 'connected' | 'disconnected' | { refused: ErrorCode; detail: string };

export interface AgentBus extends Bus {
  /** True from the moment every subscription stands until the connection is lost. */
  connected(): boolean;
  /** Ends the connection with an MQTT DISCONNECT (so no last will) and stops reconnecting. */
  close(): Promise<void>;
}

export interface ConnectBusOptions {
  /** `mqtts://HOST:PORT`. */
  url: string;
  /** PEM of the fleet's CA, the only one trusted; of the client certificate and of its private key. */
  ca: string;
  cert: string;
  key: string;
  clientId: string;
  will?: { topic: string; payload: Uint8Array; qos: 0 | 1; retain: boolean };
  clock: Clock;
  entropy: Entropy;
  log: Log;
  onStatus(status: BusStatus): void;
  reconnectBaseMs?: number;
  reconnectMaxMs?: number;
}

const keepaliveSeconds = 30;
/** Publications that wait for their PUBACK at one time; more are refused with `bus-offline`. */
const unacknowledgedMax = 256;
/** A connection that stood this long was good: the next one is tried without delay built up before. */
const stableMs = 10_000;
/** How long `close` waits for the broker to take the DISCONNECT. */
const closeMs = 2_000;

/** What a failed connection means. Node and OpenSSL tell it by these codes only. */
function refusalOf(error: unknown): { code: ErrorCode; detail: string } {
  const detail = error instanceof Error ? error.message : String(error);
  const found = error instanceof Error && 'code' in error ? error.code : undefined;
  // CONNACK return codes, MQTT 3.1.1 table 3.1.
  if (found === 2) return { code: 'broker-client-id-borrowed', detail };
  if (found === 4 || found === 5) return { code: 'broker-not-authorized', detail };
  const name = String(found);
  if (name === 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED') return { code: 'broker-no-certificate', detail };
  if (/^ERR_SSL_.*ALERT_.*(CERTIFICATE|UNKNOWN_CA)/.test(name))
    return { code: 'broker-certificate-untrusted', detail };
  if (
    /^ERR_TLS_CERT_|^CERT_|_CERT|^HOSTNAME_MISMATCH$|^INVALID_CA$|^PATH_LENGTH_EXCEEDED$|^INVALID_PURPOSE$/.test(
      name,
    )
  ) {
    return { code: 'broker-server-untrusted', detail };
  }
  return { code: 'broker-unreachable', detail };
}

function offline(detail: string): FleetError {
  return new FleetError('bus-offline', detail);
}

/** One connection from its TCP handshake to its end. `ended` resolves when its socket is gone. */
interface Link {
  client: MqttClient;
  socket(): TLSSocket | null;
  ended: Promise<void>;
}

export function connectBus(options: ConnectBusOptions): AgentBus {
  const { clock, entropy, log } = options;
  const url = new URL(options.url);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port === '' ? 8883 : Number(url.port);
  const baseMs = options.reconnectBaseMs ?? limits.reconnectBaseMs;
  const maxMs = options.reconnectMaxMs ?? limits.reconnectMaxMs;

  const handlers = new Map<string, Set<(message: BusMessage) => void>>();
  /** Rejects what waits for an answer on the present connection. */
  const waiting = new Set<(error: FleetError) => void>();
  let link: Link | null = null;
  let pause: Timer | null = null;
  let ready = false;
  let closed = false;
  let failures = 0;
  let lastRefusal = '';

  const refused = (code: ErrorCode, detail: string): void => {
    // A device that is offline for a week must not fill its log with one and the same line.
    const level = lastRefusal === code ? 'debug' : 'warn';
    lastRefusal = code;
    log.emit(level, 'bus.refused', { code, detail, broker: `${host}:${port}` });
    options.onStatus({ refused: code, detail });
  };

  /** Sends one packet that is answered (or flushed); rejects when the connection goes first. */
  const answered = <T>(start: (done: (error: unknown, value: T) => void) => void): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      const lost = (error: FleetError): void => reject(error);
      waiting.add(lost);
      start((error, value) => {
        waiting.delete(lost);
        if (error === null || error === undefined) resolve(value);
        else reject(error);
      });
    });

  const requestSubscription = async (client: MqttClient, filter: string): Promise<void> => {
    const granted = await answered<boolean>((done) => {
      client.subscribe(filter, { qos: 1 }, (error, _subscriptions, packet) => {
        // SUBACK 128 arrives as an error that carries the packet; without one the connection was lost.
        if (packet === undefined && error !== null) done(offline(error.message), false);
        else done(null, packet?.granted.every((code) => Number(code) < 128) === true);
      });
    });
    if (!granted) throw new FleetError('broker-subscribe-denied', filter);
  };

  const onConnect = async (current: Link): Promise<void> => {
    const results = await Promise.allSettled(
      [...handlers.keys()].map((filter) => requestSubscription(current.client, filter)),
    );
    if (link !== current || closed) return;
    for (const result of results) {
      if (result.status === 'rejected' && result.reason instanceof FleetError) {
        if (result.reason.code === 'bus-offline') return;
        refused(result.reason.code, result.reason.message);
      }
    }
    ready = true;
    lastRefusal = '';
    log.emit('info', 'bus.connected', { broker: `${host}:${port}` });
    options.onStatus('connected');
  };

  const dispatch = (message: BusMessage): void => {
    for (const [filter, set] of handlers) {
      if (!filterMatches(filter, message.topic)) continue;
      for (const handler of [...set]) handler(message);
    }
  };

  const open = (): void => {
    let socket: TLSSocket | null = null;
    let failure: unknown = null;
    let accepted = false;
    let connectedAtMs = 0;
    const clientOptions: IClientOptions = {
      protocolVersion: 4,
      clientId: options.clientId,
      clean: true,
      keepalive: keepaliveSeconds,
      connectTimeout: limits.brokerConnectMs,
      // Each connection is a fresh client, so nothing is carried over and the pauses between are ours.
      reconnectPeriod: 0,
      resubscribe: false,
      queueQoSZero: false,
      timerVariant: 'native',
      ...(options.will === undefined
        ? {}
        : { will: { ...options.will, payload: Buffer.from(options.will.payload) } }),
    };
    const client = new MqttClient(() => {
      socket = connectTls({
        host,
        port,
        ca: options.ca,
        cert: options.cert,
        key: options.key,
        minVersion: 'TLSv1.3',
        // Without a server name (an address) Node checks the certificate's IP addresses against `host`.
        ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
      });
      socket.setNoDelay(true);
      socket.on('error', (error) => {
        failure ??= error;
      });
      return socket;
    }, clientOptions);
    client.on('error', (error) => {
      failure ??= error;
    });
    client.on('message', (topic, payload, packet) => {
      if (link === current && !closed) dispatch({ topic, payload, retained: packet.retain });
    });
    client.on('connect', () => {
      accepted = true;
      connectedAtMs = clock.mono();
      void onConnect(current);
    });
    const ended = new Promise<void>((resolve) => {
      client.once('close', () => resolve());
    });
    const current: Link = { client, socket: () => socket, ended };
    link = current;
    void ended.then(() => {
      client.end(true);
      if (link !== current) return;
      link = null;
      const wasReady = ready;
      ready = false;
      for (const lost of [...waiting]) lost(offline('the connection was lost'));
      waiting.clear();
      if (wasReady) {
        log.emit('info', 'bus.disconnected', { broker: `${host}:${port}` });
        options.onStatus('disconnected');
      }
      if (closed) return;
      if (!accepted) {
        const { code, detail } = refusalOf(failure ?? new Error('the broker closed the connection'));
        refused(code, detail);
      }
      failures = accepted && clock.mono() - connectedAtMs >= stableMs ? 0 : failures + 1;
      reconnectLater();
    });
  };

  const reconnectLater = (): void => {
    if (closed) return;
    // Full jitter: a broker that comes back is not met by its whole fleet at once.
    const ceilingMs = Math.min(maxMs, baseMs * 2 ** Math.min(failures, 20));
    const timer = clock.timer(Math.floor((entropy.u32() / 2 ** 32) * ceilingMs));
    pause = timer;
    void timer.done.then(() => {
      if (pause !== timer) return;
      pause = null;
      if (!closed) open();
    });
  };

  const present = (): MqttClient => {
    if (closed) throw offline('the bus is closed');
    if (link === null || !link.client.connected) throw offline('not connected to the broker');
    return link.client;
  };

  open();

  return {
    connected: () => ready,

    async publish(topic, payload, { qos, retain }) {
      const client = present();
      if (waiting.size >= unacknowledgedMax) throw offline('too many messages wait for an acknowledgement');
      await answered<void>((done) => {
        client.publish(
          topic,
          Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength),
          { qos, retain },
          (error) => done(error === undefined || error === null ? null : offline(error.message), undefined),
        );
      });
    },

    async subscribe(filter, handler): Promise<Subscription> {
      const set = handlers.get(filter) ?? new Set();
      const isNew = set.size === 0;
      handlers.set(filter, set.add(handler));
      const cancel = async (): Promise<void> => {
        if (!set.delete(handler) || set.size > 0) return;
        handlers.delete(filter);
        if (link?.client.connected !== true) return;
        const { client } = link;
        try {
          await answered<void>((done) =>
            client.unsubscribe(filter, (error) => done(error ?? null, undefined)),
          );
        } catch (error) {
          // The connection ended first, and the subscription with it.
          log.emit('debug', 'bus.disconnected', { filter, detail: String(error) });
        }
      };
      if (isNew && link?.client.connected === true) {
        try {
          await requestSubscription(link.client, filter);
        } catch (error) {
          // Lost on the way: it is asked for again with the next connection.
          if (error instanceof FleetError && error.code === 'bus-offline') return { cancel };
          set.delete(handler);
          if (set.size === 0) handlers.delete(filter);
          throw error;
        }
      }
      return { cancel };
    },

    async close() {
      if (closed) return;
      closed = true;
      ready = false;
      pause?.cancel();
      pause = null;
      const current = link;
      link = null;
      for (const lost of [...waiting]) lost(offline('the bus is closed'));
      waiting.clear();
      if (current === null) return;
      current.client.end(!current.client.connected);
      const guard = clock.timer(closeMs);
      await Promise.race([current.ended, guard.done]);
      guard.cancel();
      current.socket()?.destroy();
    },
  };
}
