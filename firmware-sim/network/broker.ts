// Why: the region's broker on the simulated network: the real rules of registry/broker on connections that the world
// owns, in the place of aedes and TLS.
// Trusts: the real identity check, admission, access rules, fan-out and retained messages.
// Must never: be kinder or stricter to a client than registry/broker/broker.ts is, nor outlive its registry's life.

import {
  type Candidate,
  connectionsPerDeviceMax,
  createAdmission,
  packetBytesMax,
  publishDenial,
} from '../../registry/broker/admission.ts';
import type { Broker, BrokerOptions } from '../../registry/broker/broker.ts';
import { isExpired } from '../../registry/broker/connection.ts';
import { FanOut, type Listener } from '../../registry/broker/fan-out.ts';
import { type CertificateIdentity, identityCheck, subjectOf } from '../../registry/broker/identity.ts';
import { retainedStore } from '../../registry/broker/retained.ts';
import { sessionBytesMax } from '../../registry/broker/session.ts';
import type { BrokerTls } from '../../registry/broker/tls.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { BusMessage, RegistryBus } from '../../shared/kernel/ports.ts';
import { type BusIdentity, filterMatches, maySubscribe } from '../../shared/wire/topics.ts';
import type { Incarnation, World } from '../world.ts';
import type { Certificates } from './certificates.ts';
import { bytesOf, type ClientPacket, type PublishPacket } from './packets.ts';
import { takeTurns } from './turns.ts';
import type { ServerEnd } from './wire.ts';

export type SimBrokerOptions = Omit<BrokerOptions, 'host' | 'port'>;
export type SimBroker = Omit<Broker, 'port'>;

/** What the network does with it. */
export interface ListeningBroker extends SimBroker {
  readonly of: Incarnation;
  /** The certificate (PEM) for this TLS server name. */
  shown(serverName: string | undefined): string;
  /** A connection on which TLS is under way. */
  take(end: ServerEnd): void;
}

interface Connection extends Candidate {
  readonly end: ServerEnd;
  readonly certificate: string;
  readonly holder: CertificateIdentity;
  will: PublishPacket | null;
  clientId: string;
  identity: BusIdentity | null;
  session: Listener | null;
  ready: boolean;
  /** It said DISCONNECT: no will. */
  goodbye: boolean;
  done(): void;
}

export interface SimBrokerParts {
  world: World;
  of: Incarnation;
  certificates: Certificates;
}

export function openSimBroker(parts: SimBrokerParts, options: SimBrokerOptions): ListeningBroker {
  const { world, of, certificates } = parts;
  /** Faults: Node's own, for a key that is not the certificate's. */
  const checkTls = ({ key, cert, named }: BrokerTls): void => {
    for (const pem of [cert, ...(named?.values() ?? [])]) certificates.checkKey(pem, key);
  };
  const { clock, log, region } = options;
  let { tls } = options;
  checkTls(tls);
  let check = identityCheck(tls.ca);
  const retained = retainedStore();
  const fanOut = new FanOut(retained, clock);
  /** Every connection with a good certificate, by its subject. */
  const open = new Map<string, Set<Connection>>();
  const handlers = new Set<{ filter: string; handler(message: BusMessage): void }>();
  const turns = takeTurns(world, of, `broker ${of.number}`);
  const ends = new Set<ServerEnd>();
  let messageIds = 0;
  let closing = false;

  const refused = (code: ErrorCode, holder: CertificateIdentity | null, detail: string): void => {
    const subject = holder === null ? null : subjectOf(holder);
    log.emit('warn', 'broker.refused', { code, subject, detail });
    if (!closing) options.onRefused({ code, subject, detail });
  };

  const { holders, admit } = createAdmission<Connection>({
    region,
    mayConnect: (identity) => options.mayConnect(identity),
    refused,
    closing: () => closing,
    admitted: (clientId, connection, identity) => {
      connection.clientId = clientId;
      connection.identity = identity;
      connection.session = listenerOf(connection);
    },
  });

  const drop = (connection: Connection, reason: string): void => {
    const { clientId, end } = connection;
    log.emit('warn', 'broker.stalled', { clientId, reason, waitingBytes: end.waitingBytes });
    end.close();
  };

  /** What session.ts does on a socket. */
  const listenerOf = (connection: Connection): Listener => {
    const { end } = connection;
    return {
      topics: new Map(),
      send: ({ topic, payload, qos, retain }) => {
        if (!end.open) return false;
        if (end.waitingBytes + payload.length > sessionBytesMax) {
          if (qos === 1) drop(connection, 'too many bytes wait');
          return false;
        }
        messageIds += qos;
        end.send({ cmd: 'publish', id: qos === 1 ? messageIds : 0, topic, payload, qos, retain });
        return true;
      },
    };
  };

  const deliver = (identity: BusIdentity, message: BusMessage): void => {
    if (closing) return;
    options.onMessage?.(identity, message);
    for (const { filter, handler } of [...handlers]) {
      if (filterMatches(filter, message.topic)) handler(message);
    }
  };

  /** What a client publishes, its last will too. False where the connection cannot go on. */
  const accept = (connection: Connection, packet: PublishPacket): boolean => {
    const { identity, holder } = connection;
    if (identity === null) return false;
    const { topic, qos, retain } = packet;
    const denied = publishDenial(identity, region, packet);
    if (denied !== null) {
      refused('broker-publish-denied', holder, denied);
      return false;
    }
    const payload = Buffer.from(packet.payload);
    try {
      deliver(identity, { topic, payload, retained: false });
    } catch (error) {
      log.emit('error', 'broker.message.failed', { topic, error: asFleetError(error) });
      return false;
    }
    if (retain) retained.set({ topic, payload: Buffer.from(payload), qos });
    return true;
  };

  const connect = async (connection: Connection, clientId: string): Promise<void> => {
    const { end } = connection;
    const denial = await admit(clientId, connection).catch((error: unknown) => {
      log.emit('error', 'broker.message.failed', { clientId, error: asFleetError(error) });
      return { returnCode: 3 as const };
    });
    end.send({ cmd: 'connack', returnCode: denial?.returnCode ?? 0 });
    if (denial !== null) {
      end.close();
      return;
    }
    if (!end.open || closing || connection.identity === null) return;
    connection.ready = true;
    log.emit('info', 'broker.connected', { clientId });
    options.onConnected(connection.identity);
  };

  const take = (connection: Connection, packet: ClientPacket): void => {
    const { end, holder, identity, session } = connection;
    if (bytesOf(packet) > packetBytesMax) {
      refused('broker-publish-denied', holder, `a packet of more than ${packetBytesMax} bytes`);
      end.close();
      return;
    }
    if (packet.cmd === 'connect') {
      // As broker.ts: an expired certificate is let in without a will.
      const will = isExpired(holder) ? null : packet.will;
      connection.will = will === null ? null : { cmd: 'publish', id: 0, ...will };
      void connect(connection, packet.clientId);
    } else if (packet.cmd === 'publish') {
      if (!accept(connection, packet)) end.close();
      else if (packet.qos === 1) end.send({ cmd: 'puback', id: packet.id });
    } else if (packet.cmd === 'subscribe') {
      const granted = identity !== null && maySubscribe(identity, region, packet.filter);
      if (!granted) refused('broker-subscribe-denied', holder, packet.filter.slice(0, 200));
      end.send({ cmd: 'suback', id: packet.id, granted });
      if (granted && session !== null) fanOut.subscribe(session, packet.filter, 1);
    } else if (packet.cmd === 'unsubscribe') {
      if (session !== null) fanOut.unsubscribe(session, packet.filter);
      end.send({ cmd: 'unsuback', id: packet.id });
    } else if (packet.cmd === 'disconnect') {
      connection.goodbye = true;
      end.close();
    }
  };

  const finish = (connection: Connection): void => {
    const { holder, session, clientId, identity, ready, will } = connection;
    if (session !== null) fanOut.remove(session);
    if (ready && will !== null && !connection.goodbye) accept(connection, will);
    if (holders.get(clientId) === connection) holders.delete(clientId);
    const same = open.get(subjectOf(holder));
    same?.delete(connection);
    if (same?.size === 0) open.delete(subjectOf(holder));
    connection.ready = false;
    connection.done();
    if (!ready || identity === null) return;
    log.emit('info', 'broker.disconnected', { clientId });
    if (!closing) options.onDisconnected(identity);
  };

  /** The handshake is done: who is it? */
  const hello = (end: ServerEnd, certificate: string): void => {
    const found = check.identify(certificates.read(certificate), clock.wall());
    if (!found.ok) {
      refused(found.refusal.code, null, found.refusal.detail);
      end.close();
      return;
    }
    const holder = found.value;
    const subject = subjectOf(holder);
    const same = open.get(subject) ?? new Set();
    const alike = [...same].filter((one) => isExpired(one.holder) === isExpired(holder));
    if (holder.kind === 'device' && alike.length >= connectionsPerDeviceMax) {
      refused('broker-not-authorized', holder, `more than ${connectionsPerDeviceMax} connections`);
      end.close();
      return;
    }
    const connection = newConnection(end, holder, certificate);
    open.set(subject, same.add(connection));
    end.onClose(() => {
      ends.delete(end);
      finish(connection);
    });
    end.listen((packet) => take(connection, packet));
  };

  const closeAll = (): void => {
    for (const end of [...ends]) end.close();
  };
  const forget = (): void => {
    for (const message of retained.matching('#')) {
      retained.set({ ...message, payload: Buffer.alloc(0) });
    }
    closeAll();
  };

  const readySession = (deviceId: string): Connection | null => {
    const connection = holders.get(deviceId);
    return connection?.ready === true && !isExpired(connection.holder) ? connection : null;
  };

  const bus: RegistryBus = {
    async publish(topic, payload, { qos, retain }) {
      if (closing) throw new FleetError('bus-offline', 'the broker is closed');
      const message = { topic, payload: Buffer.from(payload), qos };
      await turns('bus.publish', `${topic} ${payload.length}`, () => {
        if (retain) retained.set(message);
        fanOut.publish(message);
        if (world.fault('broker.forget', of.node)) forget();
      });
    },

    subscribe: (filter, handler) =>
      turns('bus.subscribe', filter, () => {
        const entry = { filter, handler };
        handlers.add(entry);
        for (const { topic, payload } of retained.matching(filter))
          handler({ topic, payload, retained: true });
        return {
          cancel: async () => {
            handlers.delete(entry);
          },
        };
      }),

    async sendBulk(deviceId, topic, frame, body = new Uint8Array(0)) {
      const end = readySession(deviceId)?.end;
      if (end === undefined) return false;
      const payload = Buffer.concat([frame, body]);
      // One frame may always be on its way, however large, or it never could.
      const roomBytes = Math.max(0, limits.bulkInFlightBytesMax - payload.length);
      if (!(await roomWithin(end, roomBytes))) return false;
      return turns('bus.bulk', `${topic} ${payload.length}`, () => {
        const connection = readySession(deviceId);
        if (connection?.end !== end || connection.session?.topics.has(topic) !== true) return false;
        end.send({ cmd: 'publish', id: 0, topic, payload, qos: 0, retain: false });
        return true;
      });
    },

    disconnect: (deviceId) =>
      turns('bus.disconnect', deviceId, () => {
        for (const { end } of [...(open.get(deviceId) ?? [])]) end.close();
      }),
  };

  /** Whether there is room before the client counts as one that does not read. */
  const roomWithin = async (end: ServerEnd, bytes: number): Promise<boolean> => {
    if (end.waitingBytes <= bytes) return end.open;
    const stall = clock.timer(limits.bulkStallMs);
    void stall.done.then(() => end.close());
    const room = await end.room(bytes);
    stall.cancel();
    return room;
  };

  return {
    of,
    bus,
    connectedDevices: () =>
      [...holders.values()].flatMap(({ identity, ready }) =>
        ready && identity?.kind === 'device' && identity.expired !== true ? [identity.deviceId] : [],
      ),
    waitingBytes: (deviceId) => readySession(deviceId)?.end.waitingBytes ?? 0,
    useTls: (next) => {
      checkTls(next);
      tls = next;
      check = identityCheck(next.ca);
      for (const { end, certificate } of [...open.values()].flatMap((same) => [...same])) {
        if (!check.identify(certificates.read(certificate), clock.wall()).ok) end.close();
      }
    },
    close: async () => {
      closing = true;
      closeAll();
    },
    shown: (serverName) => (serverName === undefined ? undefined : tls.named?.get(serverName)) ?? tls.cert,
    take: (end) => {
      ends.add(end);
      end.onClose(() => ends.delete(end));
      end.listen((packet) => {
        if (packet.cmd === 'hello') hello(end, packet.certificate);
      });
    },
  };
}

function newConnection(end: ServerEnd, holder: CertificateIdentity, certificate: string): Connection {
  let done = (): void => undefined;
  const ended = new Promise<void>((resolve) => {
    done = resolve;
  });
  return {
    end,
    holder,
    certificate,
    socket: {
      get destroyed() {
        return !end.open;
      },
      destroy: () => end.close(),
    },
    will: null,
    clientId: '',
    identity: null,
    session: null,
    ready: false,
    goodbye: false,
    ended,
    done,
  };
}
