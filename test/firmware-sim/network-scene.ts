// Why: a small fleet on the simulated network for its tests: one authority, devices, registries, and what they heard.
// Trusts: the code under test for certificates, made before the world runs. Must never: let real time in.

import { createFaults, type FaultId, type Faults } from '../../firmware-sim/faults.ts';
import { createNetwork, type Network, type SimBroker } from '../../firmware-sim/network/network.ts';
import {
  type Cut,
  createWorld,
  type Incarnation,
  type Operation,
  type World,
} from '../../firmware-sim/world.ts';
import type { BrokerTls } from '../../registry/broker/tls.ts';
import { publicKeyOf } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf, pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import {
  type CertificateAuthority,
  issueClaimCertificate,
  issueDeviceCertificate,
  issueServerCertificate,
  makeCertificateAuthority,
} from '../../shared/host/certificates.ts';
import type { AgentBus, BusStatus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import type { BusMessage, Clock, Log } from '../../shared/kernel/ports.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { everyDeviceFilter } from '../../shared/wire/topics.ts';

export const region = 'north';
export const dayMs = 86_400_000;
/** What every clock of these worlds shows at their beginning. */
export const startMs = 1_800_000_000_000;
const brokerSeed = new Uint8Array(32).fill(3);
const brokerHost = 'broker.example';

export interface TestDevice {
  id: string;
  seed: Uint8Array;
  cert: string;
  key: string;
}

export async function newAuthority(seedByte = 1): Promise<CertificateAuthority> {
  const seed = new Uint8Array(32).fill(seedByte);
  const validity = { notBeforeMs: startMs - 100 * dayMs, notAfterMs: startMs + 1_000 * dayMs };
  return {
    seed,
    certificatePem: await makeCertificateAuthority({ seed, name: `fleet ${seedByte}`, ...validity }),
  };
}

export async function newDevice(
  ca: CertificateAuthority,
  seedByte: number,
  notAfterMs = startMs + 90 * dayMs,
) {
  const seed = new Uint8Array(32).fill(seedByte);
  const publicKey = publicKeyOf(seed);
  const id = deviceIdOf(publicKey);
  const notBeforeMs = startMs - 50 * dayMs;
  const cert = await issueDeviceCertificate({ ca, deviceId: id, publicKey, notBeforeMs, notAfterMs });
  return { id, seed, cert, key: pkcs8PemFromSeed(seed) };
}

/** Its id is the claim's. */
export async function newClaim(ca: CertificateAuthority, seedByte: number): Promise<TestDevice> {
  const seed = new Uint8Array(32).fill(seedByte);
  const id = `claim${seedByte}`.padEnd(20, '0');
  const validity = { notBeforeMs: startMs - dayMs, notAfterMs: startMs + dayMs };
  const cert = await issueClaimCertificate({ ca, claimId: id, publicKey: publicKeyOf(seed), ...validity });
  return { id, seed, cert, key: pkcs8PemFromSeed(seed) };
}

export async function brokerTls(ca: CertificateAuthority): Promise<BrokerTls> {
  const validity = { notBeforeMs: startMs - 50 * dayMs, notAfterMs: startMs + 90 * dayMs };
  const cert = await issueServerCertificate({
    ca,
    seed: brokerSeed,
    hosts: [brokerHost, 'localhost'],
    ...validity,
  });
  const named = new Map([[authorityServerName(ca.certificatePem), cert]]);
  return { key: pkcs8PemFromSeed(brokerSeed), cert, ca: ca.certificatePem, named };
}

export interface Heard {
  atMs: number;
  topic: string;
  text: string;
}

export interface SceneRegistry {
  of: Incarnation;
  broker: SimBroker;
  heard: Heard[];
  refused: string[];
  /** `+id` and `-id`. */
  presence: string[];
}

export interface SceneDevice {
  of: Incarnation;
  bus: AgentBus;
  status: { atMs: number; status: BusStatus }[];
  /** Codes and states, without details. */
  states(): string[];
}

export interface Scene {
  world: World;
  network: Network;
  cuts: Incarnation[];
  barred: Set<string>;
  registry(tls: BrokerTls, node?: string, onMessage?: (message: BusMessage) => void): Promise<SceneRegistry>;
  device(
    identity: TestDevice,
    ca: string,
    overrides?: Partial<ConnectBusOptions> & { node?: string },
  ): SceneDevice;
  clock(of: Incarnation): Clock;
  log(of: Incarnation): Log;
}

export interface SceneOptions {
  seed?: number;
  /** Exactly these faults; `swarm`: whatever the seed draws. */
  faults?: readonly FaultId[] | 'swarm';
  cutAt?: (operation: Operation) => Cut | null;
}

export const textOf = (payload: Uint8Array): string => Buffer.from(payload).toString();
export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

export function createScene(options: SceneOptions = {}): Scene {
  const { seed = 1, faults = [] } = options;
  const cuts: Incarnation[] = [];
  const barred = new Set<string>();
  const chosen: Faults = faults === 'swarm' ? createFaults(seed) : createFaults(seed, faults);
  const world = createWorld({
    seed,
    operationsMax: 1_000_000,
    cutAt: options.cutAt ?? (() => null),
    onCut: (of) => {
      cuts.push(of);
      network.cut(of);
    },
    faults: chosen,
    clockOf: (of) => ({ wallMs: (nowMs) => startMs + nowMs, monoMs: (nowMs) => nowMs - of.bootedAtMs }),
  });
  const network = createNetwork({ world });
  const log = (of: Incarnation): Log => ({
    emit: (level, event, fields) =>
      world.note(`${of.node} ${level} ${event} ${JSON.stringify(fields ?? {})}`),
  });
  return {
    world,
    network,
    cuts,
    barred,
    clock: (of) => world.clock(of),
    log,
    registry: async (tls, node = 'registry', onMessage = () => undefined) => {
      const of = world.boot(node);
      const made: Omit<SceneRegistry, 'broker'> = { of, heard: [], refused: [], presence: [] };
      const idOf = (identity: { kind: string; deviceId?: string }) => identity.deviceId ?? identity.kind;
      const broker = network.openBroker(of, {
        tls,
        region,
        clock: world.clock(of),
        log: log(of),
        mayConnect: (identity) => world.call(of, 'test.admit', '', 3, () => !barred.has(idOf(identity))),
        onMessage: (_identity, message) => onMessage(message),
        onRefused: ({ code }) => made.refused.push(code),
        onConnected: (identity) => made.presence.push(`+${idOf(identity)}`),
        onDisconnected: (identity) => made.presence.push(`-${idOf(identity)}`),
      });
      for (const channel of ['reported', 'presence', 'renew', 'fetch'] as const) {
        void broker.bus.subscribe(everyDeviceFilter(region, channel), ({ topic, payload }) => {
          made.heard.push({ atMs: world.nowMs(), topic, text: textOf(payload) });
        });
      }
      return Object.assign(made, { broker });
    },
    device: (identity, ca, overrides = {}) => {
      const { node = 'device-1', ...rest } = overrides;
      const of = world.boot(node);
      const status: SceneDevice['status'] = [];
      const bus = network.connect(of)({
        url: `mqtts://${brokerHost}:8883`,
        ca,
        cert: identity.cert,
        key: identity.key,
        serverName: authorityServerName(ca),
        clientId: identity.id,
        clock: world.clock(of),
        entropy: world.entropy(of),
        log: log(of),
        onStatus: (one) => status.push({ atMs: world.nowMs(), status: one }),
        ...rest,
      });
      const states = () => status.map(({ status: one }) => (typeof one === 'object' ? one.refused : one));
      return { of, bus, status, states };
    },
  };
}

export const once = { qos: 0, retain: false } as const;
export const acknowledged = { qos: 1, retain: false } as const;
export const kept = { qos: 1, retain: true } as const;
export const minuteMs = 60_000;

/** What became of a promise, without waiting for it. */
export function fate(work: Promise<unknown>): { is: string } {
  const told = { is: 'open' };
  work.then(
    () => {
      told.is = 'done';
    },
    (error: unknown) => {
      told.is = error instanceof Error && 'code' in error ? String(error.code) : 'failed';
    },
  );
  return told;
}
