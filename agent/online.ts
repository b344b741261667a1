// Why: what an enrolled device does on its line: it follows its director, fetches, reports, sends telemetry, asks
// the time and renews its certificate. Trusts: the parts, each for its own room.
// Must never: hold up what serves, nor let one part's refusal end another.

import { signerFromSeed } from '../shared/crypto/ed25519.ts';
import type { HttpsDoor, HttpsDoorParts } from '../shared/host/https-door.ts';
import { type AgentBus, type ConnectBusOptions, connectBus } from '../shared/host/mqtt.ts';
import type { Clock, Entropy, Fetcher, Log } from '../shared/kernel/ports.ts';
import { type Refusal, refuse } from '../shared/kernel/result.ts';
import type { Assignment, Envelope, Report } from '../shared/wire/messages.ts';
import { type Desired, followDesired } from './bus/desired.ts';
import { type BusFetcher, createFetcher, fetchWhole } from './bus/fetcher.ts';
import { createGiveBack, type GiveBack } from './bus/give-back.ts';
import { createHttpsFetcher } from './bus/https-fetcher.ts';
import { type Line, openLine } from './bus/line.ts';
import type { Refusals } from './bus/refusals.ts';
import { createRenewing, type Renewing } from './bus/renewing.ts';
import { type AgentInfo, createReporter, type Reporter, type Start } from './bus/reports.ts';
import { createTimeAsker, type TimeAsker } from './bus/time.ts';
import { chooseTransport, createTransport, type TransportMode } from './bus/transport.ts';
import type { Carried } from './telemetry/carried.ts';
import type { Telemetry } from './telemetry/telemetry.ts';
import type { Authority } from './trust/authority.ts';
import type { Identity } from './trust/identity.ts';
import type { Keeper } from './trust/keeper.ts';
import type { MetadataSources } from './trust/refresh.ts';
import { certificateEndMs } from './trust/renewal.ts';
import type { Updater } from './update/updater.ts';

export interface OnlineParts {
  identity: Identity;
  authority: Authority;
  keeper: Keeper;
  sources: MetadataSources;
  refusals: Refusals;
  /** Records a refusal; returns at once. */
  remember(refusal: Refusal, fingerprint: string): void;
  updater: Updater;
  telemetry: Pick<Telemetry, 'receive' | 'connected' | 'counters' | 'useKey' | 'join'>;
  /** What waits for regions that the device left; null where there is nothing. */
  carried: Carried | null;
  /** An order to another region came, unchecked; returns at once. */
  onMove(envelope: Envelope): void;
  /** How far it is with one. */
  move(): Report['move'] | undefined;
  /** Masking and sampling of the assignment in force. */
  useRules(assignment: Assignment): void;
  agent(): AgentInfo;
  timezone: string;
  start: Start;
  startedAtMs: number;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  connect?(options: ConnectBusOptions): AgentBus;
  /** Downloads beside the bus; absent: there are none. */
  https?: { mode: TransportMode; open(parts: HttpsDoorParts): HttpsDoor };
  pollMs?: number;
  reportEveryMs?: number;
  fetchTimeoutMs?: number;
  timeAnswerMs?: number;
}

export interface Online {
  fetcher: Fetcher;
  connected(): boolean;
  refusedBy(): string | null;
  renewalRefusedBy(): string | null;
  identity(): Identity;
  /** Something that a report says has changed. */
  changed(): void;
  giveBack: GiveBack['give'];
  stop(): Promise<void>;
}

const stopMs = 5_000;

/** What comes later than the line that needs it; until then the device is simply offline. */
interface Parts {
  fetcher: BusFetcher;
  desired: Desired;
  reporter: Reporter;
  time: TimeAsker;
  renewing: Renewing;
  giveBack: GiveBack;
}

export async function goOnline(parts: OnlineParts): Promise<Online> {
  const { authority, keeper, updater, telemetry, remember, clock, entropy, log } = parts;
  const { region, deviceId } = parts.identity;
  let identity = parts.identity;
  let running: Parts | null = null;

  const save = async (next: Identity): Promise<void> => {
    await keeper.identity(next);
    identity = next;
  };
  /** The credentials before the renewal are of no use any more. */
  const forgetProven = (): void => {
    save({ ...identity, proven: null }).catch((error: unknown) => {
      log.emit('warn', 'certificate.refused', { while: 'keeping the renewed one', detail: String(error) });
    });
  };

  const line: Line = await openLine({
    identity: () => identity,
    time: authority.time,
    connect: parts.connect ?? connectBus,
    onBytes: (message) => running?.fetcher.receive(message),
    onDesired: (message) => running?.desired.receive(message.payload),
    onTimestamp: (message) => running?.desired.doorbell(message.payload),
    onTelemetryAnswer: (message) => telemetry.receive(message.payload),
    onTimeAnswer: (message) => running?.time.receive(message.payload),
    onRenewal: (message) => running?.renewing.receive(message.payload),
    onUp: () => {
      parts.sources.connected();
      running?.giveBack.connected();
      running?.time.connected();
      updater.retryNow();
      running?.desired.connected();
      running?.reporter.changed();
      running?.renewing.look();
      telemetry.connected();
      parts.carried?.connected();
    },
    onDown: () => {
      running?.fetcher.offline();
      running?.time.offline();
      running?.renewing.offline();
    },
    onLimited: async (session, { denied }) => {
      if (running === null) return { next: 'later', renewed: false };
      const { time, renewing } = running;
      if (session === 'time') return { next: (await time.ask()).ok ? 'now' : 'later', renewed: false };
      const signed = authority.time.signed();
      const isOver = signed !== null && signed.nowMs > certificateEndMs(identity.certificate);
      // Denied once, with a certificate that may be good: tried again before another one is asked for.
      if (!isOver && denied < 2) return { next: 'now', renewed: false };
      if (!isOver && renewing.renewedLately()) return { next: 'later', renewed: false };
      if (signed === null) void time.ask();
      const renewed = await renewing.renew();
      if (renewed.ok) return { next: 'now', renewed: true };
      const restMs = renewing.restMs();
      return { next: restMs > 0 ? { afterMs: restMs } : 'later', renewed: false };
    },
    onProven: forgetProven,
    onRefused: (code, detail) =>
      remember({ code, detail }, `broker ${parts.startedAtMs} ${line?.ups() ?? 0}`),
    clock,
    entropy,
    log,
  });

  const common = { bus: line.bus, region, deviceId, clock, entropy, log };
  const patience = parts.fetchTimeoutMs === undefined ? {} : { timeoutMs: parts.fetchTimeoutMs };
  const fetcher = createFetcher({ ...common, ...patience });
  const door = parts.https?.open({
    brokerUrl: () => identity.brokerUrl,
    credentials: line.credentials,
    trusts: line.trusts,
    clock,
  });
  const files = door === undefined ? fetcher : transportOf(door);
  function transportOf(opened: HttpsDoor): Fetcher {
    const https = createHttpsFetcher({ door: opened, clock, entropy, ...patience });
    const choice = chooseTransport(parts.https?.mode ?? 'mqtt');
    return createTransport({ ways: { mqtt: fetcher, https }, choice, online: line.bus.connected, log });
  }
  const signer = signerFromSeed(identity.seed, 'node');
  const reporter = createReporter({
    ...common,
    store: keeper.store,
    signer,
    agent: parts.agent,
    timezone: parts.timezone,
    models: () => updater.models(),
    outbox: () => telemetry.counters(),
    move: parts.move,
    start: parts.start,
    reserve: (number) => keeper.reserve(number),
    trust: () => ({
      epoch: authority.epoch(),
      verifiedTimeMs: authority.time.floorMs(),
      clockSource: authority.time.source(),
      held: authority.held(),
      certificateExpiresAtMs: certificateEndMs(identity.certificate),
    }),
    ...(parts.reportEveryMs === undefined ? {} : { everyMs: parts.reportEveryMs }),
  });
  const renewing = createRenewing({
    ...common,
    identity: () => identity,
    save,
    onRenewed: () => {
      line.renewed();
      door?.close();
      reporter.changed();
    },
    onRefused: remember,
    assignment: () => authority.assignment(),
    regionRoot: () => authority.regionRoot(),
    time: authority.time,
  });
  const desired = followDesired({
    authority,
    refusals: parts.refusals,
    assign: async (assignment) => {
      parts.useRules(assignment);
      await updater.assign(assignment);
      await telemetry.useKey(deviceId, region, assignment.telemetry);
    },
    onMove: parts.onMove,
    online: () => line.bus.connected(),
    askAgain: () => line.askForDesired(),
    onAccepted: () => {
      reporter.changed();
      renewing.look();
    },
    clock,
    entropy,
    log,
    ...(parts.pollMs === undefined ? {} : { pollMs: parts.pollMs }),
  });
  /** That the time is signed by now. */
  let clockIsTold = false;
  const time = createTimeAsker({
    ...common,
    time: authority.time,
    regionRoot: () => authority.regionRoot(),
    onRefused: remember,
    onVerified: () => {
      line.timeVerified();
      desired.clockVerified();
      updater.timeTold();
      renewing.look();
      // Once: the report that follows a connection says it again, and a thin link pays for each.
      if (!clockIsTold) reporter.changed();
      clockIsTold = true;
    },
    ...(parts.timeAnswerMs === undefined ? {} : { answerMs: parts.timeAnswerMs }),
  });
  const giveBack = createGiveBack(common);
  running = { fetcher, desired, reporter, time, renewing, giveBack };
  telemetry.join({
    ...common,
    signer,
    regionRoot: () => authority.regionRoot(),
    onAcknowledged: () => reporter.changed(),
    giveBack: (bytes) => giveBack.give('acknowledgement', bytes),
  });
  await parts.carried?.join({
    ...{ bus: line.bus, signer, deviceId, region },
    regionRoot: () => authority.regionRoot(),
    fetch: (name, bytesMax) => fetchWhole(fetcher, { kind: 'metadata', name }, bytesMax),
  });

  return {
    fetcher: files,
    connected: () => line.bus.connected(),
    refusedBy: () => line.refusedBy(),
    renewalRefusedBy: () => renewing.refusedBy(),
    identity: () => identity,
    changed: () => reporter.changed(),
    giveBack: (file, bytes) => giveBack.give(file, bytes),
    stop: async () => {
      await desired.stop();
      await time.stop();
      await renewing.stop();
      await parts.carried?.leave();
      // A registry that does not acknowledge must not hold the end up.
      const timer = clock.timer(stopMs);
      const lastWord = reporter.stop();
      await Promise.race([lastWord, timer.done]);
      timer.cancel();
      await line.close();
      fetcher.offline();
      door?.close();
      await lastWord;
      await giveBack.idle();
    },
  };
}

/** For what wants to fetch before there is a line. */
export function fetcherWhen(online: () => Online | null): Fetcher {
  return {
    range: async (target, offset, length, onPiece) => {
      const fetcher = online()?.fetcher ?? null;
      return fetcher === null
        ? refuse('bus-offline', 'not connected yet')
        : fetcher.range(target, offset, length, onPiece);
    },
    tooSlow: () => online()?.fetcher.tooSlow?.(),
  };
}
