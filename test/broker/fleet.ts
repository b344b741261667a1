// Why: a small fleet for the broker's tests: a CA, certificates, a broker, and real MQTT clients.
// Trusts: the code under test for certificates. Must never: wait for time to pass.

import { randomBytes } from 'node:crypto';
import { checkServerIdentity, connect as connectTls, type TLSSocket } from 'node:tls';
import { MqttClient } from 'mqtt';
import {
  type Broker,
  type BrokerOptions,
  type BrokerRefusal,
  startBroker,
} from '../../registry/broker/broker.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import {
  type CertificateAuthority,
  issueClaimCertificate,
  issueDeviceCertificate,
  issueServerCertificate,
  makeCertificateAuthority,
} from '../../shared/host/certificates.ts';
import { systemClock } from '../../shared/host/clock.ts';
import type { BusMessage, Log } from '../../shared/kernel/ports.ts';
import type { BusIdentity } from '../../shared/wire/topics.ts';

export const region = 'north';
const hourMs = 3_600_000;

export interface LogLine {
  level: string;
  event: string;
  fields: Record<string, unknown>;
}

export function recordingLog(): { log: Log; lines: LogLine[] } {
  const lines: LogLine[] = [];
  return { lines, log: { emit: (level, event, fields = {}) => void lines.push({ level, event, fields }) } };
}

export function randomSeed(): Uint8Array {
  return new Uint8Array(randomBytes(32));
}

function validity(from = -hourMs, to = 24 * hourMs): { notBeforeMs: number; notAfterMs: number } {
  const now = Date.now();
  return { notBeforeMs: now + from, notAfterMs: now + to };
}

export async function newAuthority(name = 'test fleet'): Promise<CertificateAuthority> {
  const seed = randomSeed();
  return {
    seed,
    certificatePem: await makeCertificateAuthority({ seed, name, ...validity(-48 * hourMs, 480 * hourMs) }),
  };
}

export interface Credentials {
  /** Device id, or claim id. */
  id: string;
  seed: Uint8Array;
  cert: string;
  key: string;
}

export async function newDevice(
  ca: CertificateAuthority,
  dates: { from?: number; to?: number } = {},
): Promise<Credentials> {
  const seed = randomSeed();
  const publicKey = publicKeyOf(seed);
  const id = deviceIdOf(publicKey);
  const cert = await issueDeviceCertificate({
    ca,
    deviceId: id,
    publicKey,
    ...validity(dates.from, dates.to),
  });
  return { id, seed, cert, key: pkcs8PemFromSeed(seed) };
}

export async function newClaim(
  ca: CertificateAuthority,
  dates: { from?: number; to?: number } = {},
): Promise<Credentials> {
  const seed = randomSeed();
  const id = randomBytes(10).toString('hex');
  const cert = await issueClaimCertificate({
    ca,
    claimId: id,
    publicKey: publicKeyOf(seed),
    ...validity(dates.from, dates.to),
  });
  return { id, seed, cert, key: pkcs8PemFromSeed(seed) };
}

/** Things that happened, which a test can wait for. */
export class Happenings<T> {
  readonly all: T[] = [];
  readonly #waiting = new Set<() => void>();

  push(one: T): void {
    this.all.push(one);
    for (const wake of [...this.#waiting]) wake();
  }

  /** The first that fits, now or later. */
  async until(fits: (one: T) => boolean): Promise<T> {
    for (;;) {
      const found = this.all.find(fits);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
      });
    }
  }
}

export interface TestBroker extends Broker {
  ca: CertificateAuthority;
  refusals: Happenings<BrokerRefusal>;
  connected: Happenings<BusIdentity>;
  disconnected: Happenings<BusIdentity>;
  messages: Happenings<BusMessage>;
  logLines: LogLine[];
  /** Subjects that `mayConnect` refuses. */
  barred: Set<string>;
}

export async function serverIdentity(
  ca: CertificateAuthority,
  hosts: string[] = ['localhost', '127.0.0.1'],
): Promise<{ key: string; cert: string }> {
  const seed = randomSeed();
  return {
    key: pkcs8PemFromSeed(seed),
    cert: await issueServerCertificate({ ca, seed, hosts, ...validity() }),
  };
}

export async function startTestBroker(
  options: Partial<BrokerOptions> & { ca?: CertificateAuthority } = {},
): Promise<TestBroker> {
  const ca = options.ca ?? (await newAuthority());
  const refusals = new Happenings<BrokerRefusal>();
  const connected = new Happenings<BusIdentity>();
  const disconnected = new Happenings<BusIdentity>();
  const messages = new Happenings<BusMessage>();
  const barred = new Set<string>();
  const { log, lines } = recordingLog();
  const broker = await startBroker({
    host: '127.0.0.1',
    port: 0,
    tls: { ...(await serverIdentity(ca)), ca: ca.certificatePem },
    region,
    log,
    clock: systemClock,
    mayConnect: (identity) => !barred.has(identity.kind === 'device' ? identity.deviceId : identity.claimId),
    onRefused: (refusal) => refusals.push(refusal),
    onConnected: (identity) => connected.push(identity),
    onDisconnected: (identity) => disconnected.push(identity),
    onMessage: (_identity, message) => messages.push(message),
    ...options,
  });
  return { ...broker, ca, refusals, connected, disconnected, messages, barred, logLines: lines };
}

export interface TestClient {
  mqtt: MqttClient;
  socket: TLSSocket;
  received: Happenings<{ topic: string; payload: string; retained: boolean }>;
  /** Return code of CONNACK, or 'closed' where the connection ended without one. */
  answer: Promise<number | 'closed'>;
  closed: Promise<void>;
  /** Granted QoS of each topic. */
  subscribe(...topics: string[]): Promise<number[]>;
  publish(
    topic: string,
    payload: string | Buffer,
    options?: { qos?: 0 | 1 | 2; retain?: boolean },
  ): Promise<void>;
  end(): Promise<void>;
  /** Breaks the connection without DISCONNECT. */
  kill(): Promise<void>;
}

/** A plain MQTT.js client with these credentials, without reconnect. */
export function newClient(
  port: number,
  ca: string,
  credentials: { cert?: string; key?: string },
  clientId: string,
  options: {
    will?: { topic: string; payload: Buffer; qos: 0 | 1 | 2; retain: boolean };
    clean?: boolean;
    /** By which the broker picks its certificate; that is checked against 127.0.0.1 then. */
    servername?: string;
  } = {},
): TestClient {
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    ca,
    servername: options.servername ?? 'localhost',
    checkServerIdentity: (_name, shown) =>
      checkServerIdentity(options.servername === undefined ? 'localhost' : '127.0.0.1', shown),
    minVersion: 'TLSv1.3',
    ...credentials,
  });
  socket.setNoDelay(true);
  const mqtt = new MqttClient(() => socket, {
    protocolVersion: 4,
    clientId,
    clean: options.clean ?? true,
    keepalive: 30,
    reconnectPeriod: 0,
    ...(options.will === undefined ? {} : { will: options.will }),
  });
  const received: TestClient['received'] = new Happenings();
  mqtt.on('message', (topic, payload, packet) => {
    received.push({ topic, payload: payload.toString(), retained: packet.retain });
  });
  const closed = new Promise<void>((resolve) => mqtt.once('close', () => resolve()));
  const answer = new Promise<number | 'closed'>((resolve) => {
    mqtt.once('connect', () => resolve(0));
    mqtt.on('error', (error) => {
      if ('code' in error && typeof error.code === 'number') resolve(error.code);
    });
    void closed.then(() => resolve('closed'));
  });
  return {
    mqtt,
    socket,
    received,
    answer,
    closed,
    subscribe: (...topics) =>
      new Promise((resolve, reject) => {
        mqtt.subscribe(topics, { qos: 1 }, (error, _granted, packet) => {
          if (packet === undefined) reject(error ?? new Error('no SUBACK'));
          else resolve(packet.granted.map(Number));
        });
      }),
    publish: async (topic, payload, { qos = 1, retain = false } = {}) => {
      const sent = mqtt.publishAsync(topic, payload, { qos, retain }).then(() => undefined);
      // A refused publication is never acknowledged; the connection ends instead.
      await Promise.race([sent, closed]);
    },
    end: async () => {
      await mqtt.endAsync(false);
    },
    kill: async () => {
      socket.destroy();
      await closed;
      mqtt.end(true);
    },
  };
}

/** Connects a device and waits until the broker has let it in. */
export async function joined(broker: TestBroker, credentials: Credentials): Promise<TestClient> {
  const client = newClient(broker.port, broker.ca.certificatePem, credentials, credentials.id);
  const code = await client.answer;
  if (code !== 0) throw new Error(`CONNACK ${code}`);
  return client;
}
