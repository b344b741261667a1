// Why: this device's one connection: its topics, its presence and last will, what each session may be used for,
// and with which credentials it is tried. Trusts: the identity from enrolment; signed time for dates.
// Must never: publish or subscribe outside the device's own topics, nor take a session for more than its broker
// could prove.

import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import type { CertificateDates } from '../../shared/crypto/x509.ts';
import type {
  AgentBus,
  BusCredentials,
  BusStatus,
  ConnectBusOptions,
  Restart,
  SessionScope,
} from '../../shared/host/mqtt.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { asFleetError } from '../../shared/kernel/errors.ts';
import type { BusMessage, Clock, Entropy, Log, Subscription } from '../../shared/kernel/ports.ts';
import { authorityServerName } from '../../shared/trust/authorities.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import { deviceTopic, tufTimestampTopic } from '../../shared/wire/topics.ts';
import { admitBroker, admitSelf, type OwnStanding } from '../trust/admission.ts';
import type { TrustedClock } from '../trust/clock.ts';
import type { DeviceCredentials, Identity } from '../trust/identity.ts';
import { certificateEndMs } from '../trust/renewal.ts';
import { messageHead } from './message.ts';

export interface LineParts {
  identity(): Identity;
  time: TrustedClock;
  connect(options: ConnectBusOptions): AgentBus;
  onBytes(message: BusMessage): void;
  onDesired(message: BusMessage): void;
  onTimestamp(message: BusMessage): void;
  onTelemetryAnswer(message: BusMessage): void;
  onTimeAnswer(message: BusMessage): void;
  onRenewal(message: BusMessage): void;
  onUp(): void;
  onDown(): void;
  /** Uses a session for time, or for time and a renewal, and says when the next connection may be tried. */
  onLimited(
    session: 'time' | 'renewal',
    standing: Readonly<OwnStanding>,
  ): Promise<{ next: Restart; renewed: boolean }>;
  /** The first full connection with renewed credentials stands. */
  onProven(): void;
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
  /** What the device shows at present, and whether a server with these dates is believed for everything. */
  credentials(): BusCredentials;
  trusts(dates: CertificateDates): boolean;
  /** The clock was verified: a broker whose certificate does not hold by it is left. */
  timeVerified(): void;
  /** The credentials changed: they are used from here on. */
  renewed(): void;
  /** Says goodbye and ends the connection. */
  close(): Promise<void>;
}

/** How long a goodbye may take before the connection is ended without it. */
const goodbyeMs = 1_000;
/** Refusals that other credentials may cure. */
const ofCredentials: ReadonlySet<ErrorCode> = new Set([
  'broker-certificate-untrusted',
  'broker-no-certificate',
  'broker-server-untrusted',
  'broker-not-authorized',
]);

export async function openLine(parts: LineParts): Promise<Line> {
  const { time, clock, entropy, log } = parts;
  const { region, deviceId, brokerUrl, seed } = parts.identity();
  const topicOf = (channel: Parameters<typeof deviceTopic>[2]): string =>
    deviceTopic(region, deviceId, channel);
  const presenceTopic = topicOf('presence');
  const presence = (online: boolean): Uint8Array => encodeMessage({ ...messageHead(clock, entropy), online });
  const timeOnly: SessionScope = { only: new Set([topicOf('time'), topicOf('time/reply')]) };
  const renewalOnly: SessionScope = {
    only: new Set([...timeOnly.only, topicOf('renew'), topicOf('renew/reply')]),
  };

  const standing: OwnStanding = { denied: 0, renewalFailed: false };
  let session: 'full' | 'time' | 'renewal' = 'full';
  let dates: CertificateDates | null = null;
  let refusal: ErrorCode | null = null;
  let ups = 0;
  /** Whether the renewed credentials are tried now, where they are not proven yet. */
  let tryingRenewed = true;

  const held = (): DeviceCredentials => {
    const identity = parts.identity();
    return tryingRenewed || identity.proven === null ? identity : identity.proven;
  };
  const credentials = (): BusCredentials => {
    const { fleetCa, certificate } = held();
    return {
      ca: fleetCa,
      cert: certificate,
      key: pkcs8PemFromSeed(seed),
      serverName: authorityServerName(fleetCa),
    };
  };

  const admit = (shown: CertificateDates): SessionScope | null => {
    dates = shown;
    const signed = time.signed();
    const broker = admitBroker({ dates: shown, wallMs: clock.wall(), signed });
    if (broker === 'refused') return null;
    session =
      broker === 'time'
        ? 'time'
        : admitSelf({ notAfterMs: certificateEndMs(held().certificate), signed, standing });
    return session === 'full' ? 'full' : session === 'time' ? timeOnly : renewalOnly;
  };

  const sayOnline = async (): Promise<void> => {
    try {
      await bus.publish(presenceTopic, presence(true), { qos: 1, retain: true });
    } catch (error) {
      // The next connection says it.
      log.emit('debug', 'bus.disconnected', { detail: asFleetError(error).message });
    }
  };

  const useLimited = async (kind: 'time' | 'renewal'): Promise<void> => {
    const { next, renewed } = await parts.onLimited(kind, standing);
    if (kind === 'renewal') standing.renewalFailed = !renewed;
    if (renewed) standing.denied = 0;
    bus.restart(next);
  };

  const onFailed = (code: ErrorCode, detail: string): void => {
    const { proven } = parts.identity();
    if (code === 'broker-not-authorized' || code === 'broker-subscribe-denied') {
      if (session === 'full') {
        standing.denied += 1;
        standing.renewalFailed = false;
      } else standing.renewalFailed = true;
    }
    // Renewed credentials that do not work take turns with those that did.
    if (proven !== null && ofCredentials.has(code)) {
      tryingRenewed = !tryingRenewed;
      bus.use(credentials());
    }
    if (code === 'broker-unreachable' || code === refusal) return;
    refusal = code;
    parts.onRefused(code, detail);
  };

  const onStatus = (status: BusStatus): void => {
    if (status === 'connected') {
      refusal = null;
      ups += 1;
      standing.denied = 0;
      standing.renewalFailed = false;
      void sayOnline();
      if (tryingRenewed && parts.identity().proven !== null) parts.onProven();
      parts.onUp();
    } else if (status === 'limited') {
      if (session !== 'full') void useLimited(session);
    } else if (status === 'disconnected') {
      // A full attempt follows one for a renewal that brought none.
      if (session === 'full') standing.renewalFailed = false;
      parts.onDown();
    } else onFailed(status.refused, status.detail);
  };

  const bus = parts.connect({
    url: brokerUrl,
    ...credentials(),
    clientId: deviceId,
    will: { topic: presenceTopic, payload: presence(false), qos: 1, retain: true },
    clock,
    entropy,
    log,
    admit,
    // A status never comes before `connect` has returned: a connection takes at least one turn.
    onStatus,
  });
  await bus.subscribe(topicOf('bytes'), parts.onBytes);
  await bus.subscribe(tufTimestampTopic(region), parts.onTimestamp);
  await bus.subscribe(topicOf('telemetry/ack'), parts.onTelemetryAnswer);
  await bus.subscribe(topicOf('time/reply'), parts.onTimeAnswer);
  await bus.subscribe(topicOf('renew/reply'), parts.onRenewal);
  const desiredTopic = topicOf('desired');
  let desired: Subscription = await bus.subscribe(desiredTopic, parts.onDesired);

  const trusts = (shown: CertificateDates): boolean =>
    admitBroker({ dates: shown, wallMs: clock.wall(), signed: time.signed() }) === 'full';

  return {
    bus,
    credentials,
    trusts,
    refusedBy: () => refusal,
    ups: () => ups,
    askForDesired: async () => {
      await desired.cancel();
      desired = await bus.subscribe(desiredTopic, parts.onDesired);
    },
    timeVerified: () => {
      if (!bus.connected() || dates === null) return;
      if (trusts(dates)) return;
      onFailed('broker-server-untrusted', 'its certificate is outside its dates by signed time');
      bus.restart('later');
    },
    renewed: () => {
      tryingRenewed = true;
      bus.use(credentials());
      // A limited session ends by itself, in its own time.
      if (bus.connected()) bus.restart('now');
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
