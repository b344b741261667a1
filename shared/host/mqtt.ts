// Why: the driver of the device's side of the bus: MQTT 3.1.1 over TLS 1.3 with a client certificate.
// Trusts: only a broker whose certificate the fleet's CA signed for the host that was asked for (broker-socket.ts).
// Must never: decide anything; when to connect, with what and for what is bus-line.ts.

import type { TLSSocket } from 'node:tls';
import { type IClientOptions, MqttClient } from 'mqtt';
import { writeToStream } from 'mqtt-packet';
import { limits } from '../kernel/limits.ts';
import { openBrokerSocket } from './broker-socket.ts';
import type { BusClient, BusDrivers, ClientEvents, SessionStart } from './bus-drivers.ts';
import { type AgentBus, type ConnectBusOptions, connectBusOver } from './bus-line.ts';

export type { BusCredentials } from './broker-socket.ts';
export type { AgentBus, BusStatus, ConnectBusOptions, Restart, SessionScope } from './bus-line.ts';

// At the first packet it would fill a cache of 65,536 buffers: several MiB that a small device does not have.
writeToStream.cacheNumbers = false;

const keepaliveSeconds = 30;

/** Connects and goes on connecting, until closed. */
export function connectBus(options: ConnectBusOptions): AgentBus {
  return connectBusOver(overTls, options);
}

const overTls: BusDrivers = {
  dial: (address, credentials, clock) => {
    const { secured, destroy } = openBrokerSocket(address, credentials, clock);
    const opened = secured.then(({ socket, dates }) => ({
      dates,
      start: (session: SessionStart, on: ClientEvents) => startClient(socket, session, on),
      destroy: () => void socket.destroy(),
    }));
    // Whoever gave up does not listen any more.
    opened.catch(() => undefined);
    return { opened, destroy };
  },
};

/** The MQTT client on a socket whose server was judged. */
function startClient(socket: TLSSocket, session: SessionStart, on: ClientEvents): BusClient {
  const { clientId, will } = session;
  const options: IClientOptions = {
    protocolVersion: 4,
    clientId,
    clean: true,
    keepalive: keepaliveSeconds,
    connectTimeout: limits.brokerConnectMs,
    // Each connection is a fresh client, so nothing is carried over and the pauses between are ours.
    reconnectPeriod: 0,
    resubscribe: false,
    queueQoSZero: false,
    timerVariant: 'native',
    ...(will === null ? {} : { will: { ...will, payload: Buffer.from(will.payload) } }),
  };
  const client = new MqttClient(() => socket, options);
  // Whichever of the two hears it first knows the better code.
  for (const source of [socket, client]) source.on('error', on.failed);
  client.on('connect', () => on.connected());
  client.on('message', (topic, payload, packet) => on.message({ topic, payload, retained: packet.retain }));
  client.once('close', () => on.closed());
  return {
    connected: () => client.connected,
    publish: (topic, payload, sending, done) => {
      const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
      client.publish(topic, bytes, sending, (error) => done(error ?? null));
    },
    subscribe: (filter, done) => {
      client.subscribe(filter, { qos: 1 }, (error, _subscriptions, packet) => {
        // SUBACK 128 arrives as an error that carries the packet; without one the connection was lost.
        if (packet === undefined && error !== null) done(error, false);
        else done(null, packet?.granted.every((code) => Number(code) < 128) === true);
      });
    },
    unsubscribe: (filter, done) => {
      client.unsubscribe(filter, (error) => done(error ?? null));
    },
    end: (force) => {
      client.end(force);
    },
  };
}
