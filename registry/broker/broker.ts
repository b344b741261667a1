// Why: the region's MQTT broker: aedes behind TLS 1.3 with client certificates, everything denied that
// shared/wire/topics.ts does not allow (DESIGN 3 and 4).
// Trusts: the fleet's CA for who a client is, the registry (`mayConnect`) for whether it may still come.
// Must never: let a client id, a will or a wildcard reach past its certificate, nor send through aedes'
// emitter, where a few clients that stopped reading hold up everybody (DESIGN 1).

import type { TLSSocket } from 'node:tls';
import { Aedes, type AuthenticateError, type Client } from 'aedes';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { BusMessage, Clock, Log, RegistryBus } from '../../shared/kernel/ports.ts';
import { type BusIdentity, filterMatches, maySubscribe } from '../../shared/wire/topics.ts';
import {
  type ConnectDenial,
  connectionsPerDeviceMax,
  createAdmission,
  packetBytesMax,
  publishDenial,
} from './admission.ts';
import { type Connection, isExpired, newConnection } from './connection.ts';
import { FanOut } from './fan-out.ts';
import { type CertificateIdentity, identityCheck, subjectOf } from './identity.ts';
import { guardPackets } from './packet-guard.ts';
import { CleanSessionPersistence, type RetainedMessage, retainedStore } from './retained.ts';
import { Session } from './session.ts';
import { type BrokerTls, createTlsFront, speaksHttp } from './tls.ts';

export interface BrokerRefusal {
  code: ErrorCode;
  /** Device id, `claim:<id>`, or null where no certificate of ours names anybody. */
  subject: string | null;
  detail: string;
}

export interface BrokerOptions {
  host: string;
  port: number;
  /** The server's key and certificates, and the fleet's authorities, which alone may issue clients. */
  tls: BrokerTls;
  region: string;
  log: Log;
  clock: Clock;
  /** Asked last, after certificate, client id and will: false for revoked, quarantined or unknown. */
  mayConnect(identity: BusIdentity): Promise<boolean> | boolean;
  onRefused(refusal: BrokerRefusal): void;
  onConnected(identity: BusIdentity): void;
  onDisconnected(identity: BusIdentity): void;
  /**
   * A device's connection that speaks HTTP on the same port, after the same checks; it is ended like the others when
   * the device is. Absent: there is none.
   */
  acceptHttp?(socket: TLSSocket, deviceId: string): void;
  /** Every message that a client was allowed to publish, before the subscribers get it. */
  onMessage?(identity: BusIdentity, message: BusMessage): void;
}

export interface Broker {
  bus: RegistryBus;
  port: number;
  /** Takes other certificates from now on; ends the connections of authorities that are no longer named. */
  useTls(tls: BrokerTls): void;
  /** Ids of the devices that are connected now, without those whose certificate has expired. */
  connectedDevices(): string[];
  /** Bytes that a device has not read yet, as far as they are in this process; 0 where it is not connected. */
  waitingBytes(deviceId: string): number;
  /** Ends every connection without further callbacks. */
  close(): Promise<void>;
}

function connack({ returnCode, message }: ConnectDenial): AuthenticateError {
  return Object.assign(new Error(message), { returnCode });
}

/**
 * Starts the broker; resolves when it accepts connections. `port` 0 takes a free one.
 * Faults: `port-in-use`, `config-invalid` (the CA is no certificate).
 */
export async function startBroker(options: BrokerOptions): Promise<Broker> {
  const { clock, log, region } = options;
  let check = identityCheck(options.tls.ca);
  const retained = retainedStore();
  const connections = new WeakMap<Client, Connection>();
  /** Every connection with a good certificate, by its subject. */
  const open = new Map<string, Set<Connection>>();
  const fanOut = new FanOut(retained, clock);
  const handlers = new Set<{ filter: string; handler(message: BusMessage): void }>();
  let closing = false;

  const refused = (code: ErrorCode, holder: CertificateIdentity | null, detail: string): void => {
    const subject = holder === null ? null : subjectOf(holder);
    log.emit('warn', 'broker.refused', { code, subject, detail });
    if (!closing) options.onRefused({ code, subject, detail });
  };

  // ---- what clients publish

  const deliver = (identity: BusIdentity, message: BusMessage): void => {
    if (closing) return;
    options.onMessage?.(identity, message);
    for (const { filter, handler } of [...handlers]) {
      if (filterMatches(filter, message.topic)) handler(message);
    }
  };

  // ---- connecting

  const { holders, admit } = createAdmission<Connection>({
    region,
    mayConnect: (identity) => options.mayConnect(identity),
    refused,
    closing: () => closing,
    admitted: (clientId, connection, identity) => {
      const { holder, socket } = connection;
      connection.identity = identity;
      connection.session = new Session({ clientId, identity: holder, socket, clock, log });
    },
  });

  const aedes = await Aedes.createBroker({
    persistence: new CleanSessionPersistence(retained),
    connectTimeout: limits.brokerConnectMs,
    preConnect: (client, packet, done) => {
      // No session outlives its connection here; CONNACK says so with its session-present flag.
      packet.clean = true;
      const connection = connections.get(client);
      if (connection === undefined || closing) {
        done(new Error('closed'), false);
        return;
      }
      // A device whose clock is wrong does not know that its certificate has expired and brings its usual will:
      // it is let in without, for such a connection never counts as the device being there.
      if (isExpired(connection.holder)) delete packet.will;
      const { will } = packet;
      connection.will =
        will === undefined
          ? null
          : { topic: will.topic, payload: will.payload, qos: will.qos ?? 0, retain: will.retain ?? false };
      done(null, true);
    },
    authenticate: (client, _username, _password, done) => {
      const connection = connections.get(client);
      if (connection === undefined) {
        done(connack({ returnCode: 5, message: 'unknown connection' }), null);
        return;
      }
      admit(client.id, connection).then(
        (denial) => done(denial === null ? null : connack(denial), denial === null),
        (error: unknown) => {
          log.emit('error', 'broker.message.failed', { clientId: client.id, error: asFleetError(error) });
          done(connack({ returnCode: 3, message: 'the registry failed' }), null);
        },
      );
    },
    authorizePublish: (client, packet, done) => {
      const connection = client === null ? undefined : connections.get(client);
      if (connection === undefined || connection.identity === null) {
        done(new Error('no identity'));
        return;
      }
      const { identity } = connection;
      const denied = publishDenial(identity, region, packet);
      if (denied !== null) {
        refused('broker-publish-denied', connection.holder, denied);
        // aedes ends a connection whose publication is refused; 3.1.1 has no answer that says no.
        done(new Error('publish denied'));
        return;
      }
      try {
        deliver(identity, { topic: packet.topic, payload: Buffer.from(packet.payload), retained: false });
        done(null);
      } catch (error) {
        // A subscriber's bug on one device's message must not end the broker for all the others.
        log.emit('error', 'broker.message.failed', { topic: packet.topic, error: asFleetError(error) });
        done(new Error('not processed'));
      }
    },
    authorizeSubscribe: (client, subscription, done) => {
      const connection = connections.get(client);
      const identity = connection?.identity ?? null;
      if (
        connection !== undefined &&
        identity !== null &&
        maySubscribe(identity, region, subscription.topic)
      ) {
        done(null, subscription);
        return;
      }
      refused('broker-subscribe-denied', connection?.holder ?? null, subscription.topic.slice(0, 200));
      // No subscription: SUBACK 128 (MQTT 3.1.1 §3.9.3).
      done(null, null);
    },
    // Nothing goes out through the emitter; session.ts writes to each client itself.
    authorizeForward: () => null,
  });

  aedes.on('client', (client) => {
    const connection = connections.get(client);
    // aedes also registers a client that left while it was being admitted, and never mentions it again.
    if (connection !== undefined && !client.closed) connection.registered = true;
  });
  aedes.on('clientReady', (client) => {
    const connection = connections.get(client);
    if (connection === undefined || connection.identity === null || client.closed || closing) return;
    connection.ready = true;
    log.emit('info', 'broker.connected', { clientId: client.id });
    options.onConnected(connection.identity);
  });
  aedes.on('clientDisconnect', (client) => {
    const connection = connections.get(client);
    if (connection !== undefined) finish(connection);
  });
  for (const event of ['clientError', 'connectionError'] as const) {
    aedes.on(event, (client, error) => {
      log.emit('debug', 'broker.disconnected', { clientId: client.id, detail: error.message });
    });
  }
  aedes.on('subscribe', (subscriptions, client) => {
    const session = connections.get(client)?.session ?? null;
    if (session === null || client.closed) return;
    for (const { topic, qos } of subscriptions) {
      // 128 is what was refused above.
      if (Number(qos) <= 2) fanOut.subscribe(session, topic, qos === 0 ? 0 : 1);
    }
  });
  aedes.on('unsubscribe', (topics, client) => {
    const session = connections.get(client)?.session ?? null;
    if (session !== null) for (const topic of topics) fanOut.unsubscribe(session, topic);
  });

  const finish = (connection: Connection): void => {
    const { holder, session, identity, ready } = connection;
    if (session !== null) {
      fanOut.remove(session);
      if (holders.get(session.clientId) === connection) holders.delete(session.clientId);
    }
    const same = open.get(subjectOf(holder));
    same?.delete(connection);
    if (same?.size === 0) open.delete(subjectOf(holder));
    connection.ready = false;
    connection.end();
    if (!ready || identity === null) return;
    log.emit('info', 'broker.disconnected', { clientId: session?.clientId });
    if (!closing) options.onDisconnected(identity);
  };

  /** For downloads alone: who may only renew a certificate, or only enrol, does that over MQTT. */
  const takeHttp = (connection: Connection): void => {
    const { holder, socket } = connection;
    socket.once('close', () => finish(connection));
    if (options.acceptHttp === undefined || holder.kind !== 'device' || isExpired(holder)) {
      refused('broker-not-authorized', holder, 'no downloads over HTTPS for it');
      socket.destroy();
      return;
    }
    options.acceptHttp(socket, holder.deviceId);
  };

  const accept = (socket: TLSSocket): void => {
    socket.setNoDelay(true);
    // For a peer that vanished without MQTT keepalive.
    socket.setKeepAlive(true, 60_000);
    socket.on('error', (error) => log.emit('debug', 'broker.disconnected', { detail: error.message }));
    const found = check.identify(socket.getPeerX509Certificate(), clock.wall());
    if (!found.ok) {
      refused(found.refusal.code, null, `${found.refusal.detail} (${socket.remoteAddress})`);
      socket.destroy();
      return;
    }
    const holder = found.value;
    const subject = subjectOf(holder);
    const same = open.get(subject) ?? new Set();
    const alike = [...same].filter((one) => isExpired(one.holder) === isExpired(holder));
    if (holder.kind === 'device' && alike.length >= connectionsPerDeviceMax) {
      refused('broker-not-authorized', holder, `more than ${connectionsPerDeviceMax} connections`);
      socket.destroy();
      return;
    }
    const connection = newConnection(holder, socket);
    open.set(subject, same.add(connection));
    if (speaksHttp(socket)) {
      takeHttp(connection);
      return;
    }
    // Before aedes listens, so that `registered` still tells whether `clientDisconnect` will follow.
    socket.once('close', () => {
      if (!connection.registered) finish(connection);
    });
    guardPackets(socket, packetBytesMax, () => {
      refused('broker-publish-denied', holder, `a packet of more than ${packetBytesMax} bytes`);
    });
    connections.set(aedes.handle(socket), connection);
  };

  const front = createTlsFront({
    ...options,
    accept,
    clientError: (error) => log.emit('debug', 'broker.refused', { detail: error.message }),
    failed: (error) => log.emit('error', 'broker.message.failed', { error }),
  });
  const port = await front.listen().catch((thrown: unknown) => {
    aedes.close();
    throw thrown;
  });

  const deviceSession = (deviceId: string): Session | null => {
    const connection = holders.get(deviceId);
    return connection?.ready === true && !isExpired(connection.holder) ? connection.session : null;
  };

  const bus: RegistryBus = {
    async publish(topic, payload, { qos, retain }) {
      if (closing) throw new FleetError('bus-offline', 'the broker is closed');
      // A copy: the caller may reuse its buffer while a slow client still waits for it.
      const message: RetainedMessage = { topic, payload: Buffer.from(payload), qos };
      if (retain) retained.set(message);
      fanOut.publish(message);
    },

    async subscribe(filter, handler) {
      const entry = { filter, handler };
      handlers.add(entry);
      for (const { topic, payload } of retained.matching(filter)) handler({ topic, payload, retained: true });
      return {
        cancel: async () => {
          handlers.delete(entry);
        },
      };
    },

    async sendBulk(deviceId, topic, frame, body) {
      const session = deviceSession(deviceId);
      if (session === null || !session.topics.has(topic)) return false;
      return session.sendBulk(topic, frame, body);
    },

    async disconnect(deviceId) {
      // Also those that are still being admitted: they may have passed a check that no longer holds.
      const found = [...(open.get(deviceId) ?? [])];
      for (const { socket } of found) socket.destroy();
      await Promise.all(found.map(({ ended }) => ended));
    },
  };

  return {
    bus,
    port,
    connectedDevices: () =>
      [...holders.values()].flatMap(({ identity, ready }) =>
        ready && identity?.kind === 'device' && identity.expired !== true ? [identity.deviceId] : [],
      ),
    useTls(tls) {
      check = identityCheck(tls.ca);
      front.use(tls);
      for (const { socket } of [...open.values()].flatMap((same) => [...same])) {
        if (!check.identify(socket.getPeerX509Certificate(), clock.wall()).ok) socket.destroy();
      }
    },
    waitingBytes: (deviceId) => deviceSession(deviceId)?.socket.writableLength ?? 0,
    async close() {
      if (closing) return;
      closing = true;
      await front.close();
      await new Promise<void>((resolve) => aedes.close(resolve));
    },
  };
}
