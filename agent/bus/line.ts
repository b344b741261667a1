// Why: this device's one connection: its topics, its presence and last will, and what its state means.
// Trusts: the identity from enrolment. Must never: publish or subscribe outside the device's own topics.

import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import type { AgentBus, BusStatus, ConnectBusOptions } from '../../shared/host/mqtt.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type { BusMessage, Clock, Entropy, Log, Subscription } from '../../shared/kernel/ports.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic, tufTimestampTopic } from '../../shared/wire/topics.ts';
import type { Identity } from '../trust/identity.ts';
import { messageHead } from './message.ts';

export interface LineParts {
  identity: Identity;
  connect(options: ConnectBusOptions): AgentBus;
  onBytes(message: BusMessage): void;
  onDesired(message: BusMessage): void;
  onTimestamp(message: BusMessage): void;
  onTelemetryAnswer(message: BusMessage): void;
  onUp(): void;
  onDown(): void;
  /** The broker refused this device, for a reason that is not the network's. Once until it is up again. */
  onRefused(code: ErrorCode, detail: string): void;
  clock: Clock;
  entropy: Entropy;
  log: Log;
}

export interface Line {
  bus: AgentBus;
  /** Why the broker refuses this device at present, or null. */
  refusedBy(): ErrorCode | null;
  /** How often the connection came up so far. */
  ups(): number;
  /** Makes the broker send the retained `desired` again. */
  askForDesired(): Promise<void>;
  /** Says goodbye and ends the connection. */
  close(): Promise<void>;
}

/** How long a goodbye may take before the connection is ended without it. */
const goodbyeMs = 1_000;

export async function openLine(parts: LineParts): Promise<Line> {
  const { identity, clock, entropy, log } = parts;
  const { region, deviceId } = identity;
  const presenceTopic = deviceTopic(region, deviceId, 'presence');
  const presence = (online: boolean): Uint8Array => encodeMessage({ ...messageHead(clock, entropy), online });
  let refusal: ErrorCode | null = null;
  let ups = 0;

  const sayOnline = async (bus: AgentBus): Promise<void> => {
    try {
      await bus.publish(presenceTopic, presence(true), { qos: 1, retain: true });
    } catch (error) {
      // The next connection says it.
      log.emit('debug', 'bus.disconnected', { detail: asFleetError(error).message });
    }
  };

  const onStatus = (status: BusStatus): void => {
    if (status === 'connected') {
      refusal = null;
      ups += 1;
      void sayOnline(bus);
      parts.onUp();
    } else if (status === 'disconnected') parts.onDown();
    else if (status.refused !== 'broker-unreachable' && status.refused !== refusal) {
      refusal = status.refused;
      parts.onRefused(status.refused, status.detail);
    }
  };

  const bus = parts.connect({
    url: identity.brokerUrl,
    ca: identity.fleetCa,
    cert: identity.certificate,
    key: pkcs8PemFromSeed(identity.seed),
    clientId: deviceId,
    will: { topic: presenceTopic, payload: presence(false), qos: 1, retain: true },
    clock,
    entropy,
    log,
    // A status never comes before `connect` has returned: a connection takes at least one turn.
    onStatus,
  });
  await bus.subscribe(deviceTopic(region, deviceId, 'bytes'), parts.onBytes);
  await bus.subscribe(tufTimestampTopic(region), parts.onTimestamp);
  await bus.subscribe(deviceTopic(region, deviceId, 'telemetry/ack'), parts.onTelemetryAnswer);
  const desiredTopic = deviceTopic(region, deviceId, 'desired');
  let desired: Subscription = await bus.subscribe(desiredTopic, parts.onDesired);

  return {
    bus,
    refusedBy: () => refusal,
    ups: () => ups,
    askForDesired: async () => {
      await desired.cancel();
      desired = await bus.subscribe(desiredTopic, parts.onDesired);
    },
    close: async () => {
      if (bus.connected()) {
        const timer = clock.timer(goodbyeMs);
        const goodbye = bus.publish(presenceTopic, presence(false), { qos: 1, retain: true });
        await Promise.race([goodbye, timer.done]).catch((error: unknown) => {
          log.emit('debug', 'bus.disconnected', { detail: asFleetError(error).message });
        });
        timer.cancel();
      }
      await bus.close();
    },
  };
}
