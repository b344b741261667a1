// Why: an enrolled device on the bus of a real registry with a meter on its line, for benches of one part of an agent.
// Trusts: the agent's own enrolment and bus. Must never: speak past the meter.

import { enrol } from '../../agent/bus/enrolment.ts';
import type { Registry } from '../../registry/registry.ts';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { type AgentBus, connectBus } from '../../shared/host/mqtt.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { silent } from '../agent/hand-clock.ts';
import { type TlsMeter, tlsMeter } from '../agent/tls-meter.ts';
import type { Workplace } from '../support/processes.ts';

export interface LoneDevice {
  bus: AgentBus;
  /** Resolves when the bus is up. */
  online: Promise<void>;
  seed: Uint8Array;
  deviceId: string;
  region: string;
  roots: Awaited<ReturnType<typeof enrol>>['roots'];
  meter: TlsMeter;
}

const dayMs = 86_400_000;

/** Ended with the place. */
export async function openLoneDevice(registry: Registry, place: Workplace): Promise<LoneDevice> {
  const ends: (() => Promise<void>)[] = [];
  place.onClose(async () => {
    for (const end of ends) await end();
  });
  const meter = await tlsMeter({ after: (end) => ends.push(end) }, Number(new URL(registry.mqttUrl).port));
  const claim = await registry.parts.fleet.claims.create({
    labels: {},
    uses: 1,
    ttlMs: dayMs,
    createdBy: 'bench',
  });
  const common = { clock: systemClock, entropy: systemEntropy, log: silent };
  const seed = systemEntropy.bytes(32);
  const { identity, roots } = await enrol({
    claim,
    seed,
    labels: {},
    timezone: 'UTC',
    agent: { version: '0.0.0', runtime: '0.0.0', arch: 'x64' },
    connect: connectBus,
    ...common,
    signal: new AbortController().signal,
  });
  const { deviceId, region } = identity;
  let connected: () => void = () => undefined;
  const online = new Promise<void>((resolve) => {
    connected = resolve;
  });
  const bus = connectBus({
    url: `mqtts://127.0.0.1:${meter.port}`,
    clientId: deviceId,
    ca: identity.fleetCa,
    cert: identity.certificate,
    key: pkcs8PemFromSeed(seed),
    serverName: authorityServerName(identity.fleetCa),
    ...common,
    onStatus: (status) => {
      if (status === 'connected') connected();
    },
  });
  ends.unshift(() => bus.close());
  return { bus, online, seed, deviceId, region, roots, meter };
}
