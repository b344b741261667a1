// Why: puts the agent together, in the order that a device needs: what it has serves first, the network
// comes second. Trusts: its state folder, locked for this process. Must never: wait for the network where
// it is enrolled, nor spend a claim before everything that can fail locally has succeeded.

import { X509Certificate } from 'node:crypto';
import { join, resolve } from 'node:path';
import { signerFromSeed } from '../shared/crypto/ed25519.ts';
import { deviceIdOf, publicKeyFromSpki } from '../shared/crypto/spki.ts';
import { openDisk } from '../shared/host/disk.ts';
import { lockFolder } from '../shared/host/lock.ts';
import { type AgentBus, type ConnectBusOptions, connectBus } from '../shared/host/mqtt.ts';
import { openStore } from '../shared/host/sqlite.ts';
import { isErrorCode } from '../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../shared/kernel/errors.ts';
import { limits } from '../shared/kernel/limits.ts';
import type { Clock, Disk, Entropy, Fetcher, Log, Store } from '../shared/kernel/ports.ts';
import { type Refusal, refuse } from '../shared/kernel/result.ts';
import type { ClaimFile } from '../shared/wire/claim.ts';
import { encodeMessage, type Labels } from '../shared/wire/messages.ts';
import { startAgentHttp } from './api/http.ts';
import { type Desired, followDesired } from './bus/desired.ts';
import { enrol } from './bus/enrolment.ts';
import { type BusFetcher, createFetcher, fetchMetadata } from './bus/fetcher.ts';
import { type Line, openLine } from './bus/line.ts';
import { createRefusals, listRefusals, refusalMigrations } from './bus/refusals.ts';
import { type AgentInfo, createReporter, type Reporter, reportMigrations } from './bus/reports.ts';
import { createInferenceHost, type InferenceHost, type InferenceHostOptions } from './inference/host.ts';
import { runtimeVersion } from './inference/runtime-version.ts';
import { type AgentStatus, statusSchemaVersion } from './status.ts';
import { openTelemetry, outboxFile } from './telemetry/open.ts';
import { type Authority, openAuthority } from './trust/authority.ts';
import {
  completeEnrolment,
  type Identity,
  identityMigrations,
  loadIdentity,
  pendingSeed,
  settleIdentity,
} from './trust/identity.ts';
import { trustMigrations } from './trust/trust-store.ts';
import { updateMigrations } from './update/journal.ts';
import { createUpdater } from './update/updater.ts';

export interface StartAgentOptions {
  stateFolder: string;
  http: { host: string; port: number };
  /** Needed where `http.host` is not loopback. */
  token?: string;
  claim?: ClaimFile;
  /** The device's own; the claim's win. */
  labels: Labels;
  /** Makes a new key and enrols again with the claim, though the device has an identity. */
  reEnroll: boolean;
  clock: Clock;
  entropy: Entropy;
  log: Log;
  version: string;
  /** Ends a start that waits for the registry, with the fault `interrupted`. */
  signal?: AbortSignal;
  /** The simulator's and tests' seam; the real bus where absent. */
  connect?(options: ConnectBusOptions): AgentBus;
  /** A stand-in for the models, for fleets of light devices; the real host where absent. */
  inference?(options: InferenceHostOptions): InferenceHost;
  /** Shorter in tests. */
  pollMs?: number;
  reportEveryMs?: number;
  fetchTimeoutMs?: number;
  statsEveryMs?: number;
  batchAgeMs?: number;
}

export interface RunningAgent {
  deviceId: string;
  httpUrl: string;
  stop(): Promise<void>;
}

/** Of all rooms that keep something in `state.sqlite`; the order never changes, new ones go last. */
export const agentMigrations = [
  ...identityMigrations,
  ...trustMigrations,
  ...refusalMigrations,
  ...reportMigrations,
  ...updateMigrations,
];

/** File in the state folder by which `lepton-agent status` finds the running daemon. */
export const whereFile = 'agent.json';
const stopMs = 5_000;

/** Whether the certificate is this key's and the fleet's authority signed it. */
function certifies(certificate: string, publicKey: Uint8Array, authority: string): boolean {
  let read: X509Certificate;
  try {
    read = new X509Certificate(certificate);
  } catch {
    return false;
  }
  const held = publicKeyFromSpki(new Uint8Array(read.publicKey.export({ format: 'der', type: 'spki' })));
  if (!held.ok || Buffer.compare(held.value, publicKey) !== 0) return false;
  return (
    read.subject === `CN=${deviceIdOf(publicKey)}` && read.verify(new X509Certificate(authority).publicKey)
  );
}

/** Replaces a small file so that a reader sees the old one or the new one. */
async function writeWhole(disk: Disk, path: string, body: object): Promise<void> {
  const partial = `${path}.partial`;
  await disk.create(partial);
  await disk.append(partial, encodeMessage(body));
  await disk.fsync(partial);
  await disk.rename(partial, path);
}

export function agentInfo(version: string): AgentInfo {
  return { version, runtime: runtimeVersion(), arch: process.arch };
}

/**
 * Starts the agent; resolves when it is enrolled and listening, with or without a network or a model.
 * Faults: `state-locked`, `state-corrupt`, `enrolment-required`, the refusals of an enrolment,
 * `port-in-use`, `listen-insecure`, `interrupted`.
 */
export async function startAgent(options: StartAgentOptions): Promise<RunningAgent> {
  const { log } = options;
  const stateFolder = resolve(options.stateFolder);
  /** What to end, last started first. */
  const undo: (() => Promise<void>)[] = [];
  const unwind = async (): Promise<void> => {
    for (let end = undo.pop(); end !== undefined; end = undo.pop()) {
      try {
        await end();
      } catch (error) {
        const fault = asFleetError(error);
        log.emit('error', 'agent.failed', { while: 'stopping', code: fault.code, detail: fault.message });
      }
    }
  };
  try {
    const lock = await lockFolder(stateFolder);
    undo.push(() => lock.release());
    const store = await openStore(join(stateFolder, 'state.sqlite'), {
      synchronous: 'FULL',
      migrations: agentMigrations,
    });
    undo.push(() => store.close());
    const running = await compose(options, stateFolder, store, undo);
    return {
      ...running,
      stop: async () => {
        log.emit('info', 'agent.stopping', { device: running.deviceId });
        await unwind();
      },
    };
  } catch (error) {
    await unwind();
    throw error;
  }
}

async function compose(
  options: StartAgentOptions,
  stateFolder: string,
  store: Store,
  undo: (() => Promise<void>)[],
): Promise<Omit<RunningAgent, 'stop'>> {
  const { clock, entropy, log } = options;
  const info = agentInfo(options.version);
  const startedAtMs = clock.wall();
  const disk = openDisk(stateFolder);
  const aborted = new AbortController();
  options.signal?.addEventListener('abort', () => aborted.abort(), { once: true });

  /** These come later than what needs them; until then the device is simply offline. */
  let identity = await loadIdentity(store);
  let authority: Authority | null = null;
  let fetcher: BusFetcher | null = null;
  let line: Line | null = null;
  let reporter: Reporter | null = null;
  let desired: Desired | null = null;

  const reEnrol = mustEnrol(identity, options);
  const offlineUntilThen: Fetcher = {
    range: async (target, offset, length) =>
      fetcher === null ? refuse('bus-offline', 'not connected yet') : fetcher.range(target, offset, length),
  };
  const open = (held: Identity): Promise<Authority> =>
    openAuthority({
      store,
      region: held.region,
      deviceId: held.deviceId,
      fetcher: offlineUntilThen,
      fetchMetadata,
      clock,
      log,
    });
  if (identity !== null) authority = await open(identity);

  const telemetry = await openTelemetry(join(stateFolder, outboxFile), {
    clock,
    entropy,
    log,
    onRefused: (refusal, fingerprint) => remember(refusal, fingerprint),
    ...(options.statsEveryMs === undefined ? {} : { statsEveryMs: options.statsEveryMs }),
    ...(options.batchAgeMs === undefined ? {} : { batchAgeMs: options.batchAgeMs }),
  });
  undo.push(() => telemetry.stop());
  telemetry.event('agent-started', null, { ...info });
  const inference = (options.inference ?? createInferenceHost)({
    clock,
    log,
    disk,
    stateFolder,
    deadlineMs: limits.inferDeadlineMs,
    queueMax: limits.inferQueueMax,
    onRequest: telemetry.request,
  });
  undo.push(() => inference.close());
  const refusals = createRefusals({
    store,
    clock,
    onRecorded: ({ code, detail }) => {
      telemetry.event('refusal', null, { code, detail });
      reporter?.changed();
    },
  });
  const remember = (refusal: Refusal, fingerprint: string): void => {
    refusals.record(refusal, fingerprint).catch((error: unknown) => {
      log.emit('error', 'agent.failed', {
        while: 'recording a refusal',
        detail: asFleetError(error).message,
      });
    });
  };
  // An identity that is about to be replaced must not seal anything more.
  if (identity !== null && reEnrol === null) {
    const key = authority?.assignment()?.telemetry ?? null;
    await telemetry.useKey(identity.deviceId, identity.region, key);
  }

  const updater = createUpdater({
    store,
    disk,
    clock,
    entropy,
    fetcher: offlineUntilThen,
    runtime: inference,
    log,
    trust: {
      agree: async (assigned) =>
        authority === null ? refuse('enrolment-required', 'not enrolled') : authority.agree(assigned),
    },
    onChange: () => reporter?.changed(),
    onTransition: ({ releaseId, ...transition }) => telemetry.event('update', releaseId, transition),
    onRefused: ({ code, detail }, update) => {
      if (isErrorCode(code)) remember({ code, detail: `${update}: ${detail}` }, `update ${update}`);
    },
    arch: info.arch,
  });
  undo.push(() => updater.stop());
  // The last good release serves before anything asks the network.
  await updater.start();

  const http = await startAgentHttp({
    host: options.http.host,
    port: options.http.port,
    ...(options.token === undefined ? {} : { token: options.token }),
    inference,
    status: async (): Promise<AgentStatus> => ({
      schemaVersion: statusSchemaVersion,
      device: identity?.deviceId ?? null,
      region: identity?.region ?? null,
      broker: identity?.brokerUrl ?? null,
      labels: authority?.assignment()?.labels ?? identity?.labels ?? options.labels,
      agent: info,
      startedAtMs,
      connected: line?.bus.connected() ?? false,
      refusedBy: line?.refusedBy() ?? null,
      epoch: authority?.epoch() ?? 0,
      verifiedTimeMs: authority?.verifiedTimeMs() ?? 0,
      models: updater.models(),
      requests: inference.requests(),
      outbox: telemetry.counters(),
      refusals: await store.tx(listRefusals),
    }),
    record: telemetry.record,
    version: info.version,
    clock,
    log,
  });
  undo.push(() => http.close());
  await writeWhole(disk, whereFile, {
    schemaVersion: statusSchemaVersion,
    pid: process.pid,
    http: http.url,
    startedAtMs,
  });
  undo.push(() => disk.unlink(whereFile));

  if (reEnrol !== null) {
    const seed = await pendingSeed(store, entropy);
    log.emit('info', 'agent.starting', {
      enrolling: true,
      claim: reEnrol.claimId,
      broker: reEnrol.brokerUrl,
    });
    const enrolled = await enrol({
      claim: reEnrol,
      seed,
      labels: options.labels,
      timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
      agent: info,
      connect: options.connect ?? connectBus,
      certifies,
      clock,
      entropy,
      log,
      signal: aborted.signal,
    });
    await completeEnrolment(store, enrolled.identity, enrolled.roots);
    log.emit('info', 'agent.enrolled', {
      device: enrolled.identity.deviceId,
      region: enrolled.identity.region,
    });
    identity = { ...enrolled.identity, settled: false };
    authority = await open(identity);
  }
  if (identity === null || authority === null) {
    throw new FleetError('enrolment-required', `${stateFolder} holds no identity`);
  }
  await joinBus(identity, authority);
  if (!identity.settled) await settleIdentity(store);
  log.emit('info', 'agent.ready', { device: identity.deviceId, http: http.url, region: identity.region });
  return { deviceId: identity.deviceId, httpUrl: http.url };

  async function joinBus(held: Identity, judge: Authority): Promise<void> {
    const opened = await openLine({
      identity: held,
      connect: options.connect ?? connectBus,
      onBytes: (message) => fetcher?.receive(message),
      onDesired: (message) => desired?.receive(message.payload),
      onTimestamp: (message) => desired?.doorbell(message.payload),
      onTelemetryAnswer: (message) => telemetry.receive(message.payload),
      onUp: () => {
        updater.retryNow();
        desired?.connected();
        reporter?.changed();
        telemetry.connected();
      },
      onDown: () => fetcher?.offline(),
      onRefused: (code, detail) => remember({ code, detail }, `broker ${startedAtMs} ${line?.ups() ?? 0}`),
      clock,
      entropy,
      log,
    });
    line = opened;
    const parts = { bus: opened.bus, region: held.region, deviceId: held.deviceId, clock, entropy, log };
    fetcher = createFetcher({
      ...parts,
      ...(options.fetchTimeoutMs === undefined ? {} : { timeoutMs: options.fetchTimeoutMs }),
    });
    const following = followDesired({
      authority: judge,
      refusals,
      assign: async (assignment) => {
        await updater.assign(assignment);
        await telemetry.useKey(held.deviceId, held.region, assignment.telemetry);
      },
      online: () => opened.bus.connected(),
      askAgain: () => opened.askForDesired(),
      onAccepted: () => reporter?.changed(),
      clock,
      entropy,
      log,
      ...(options.pollMs === undefined ? {} : { pollMs: options.pollMs }),
    });
    desired = following;
    const signer = signerFromSeed(held.seed, 'node');
    const reporting = createReporter({
      ...parts,
      store,
      signer,
      agent: info,
      timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
      models: () => updater.models(),
      outbox: () => telemetry.counters(),
      trust: () => ({ epoch: judge.epoch(), verifiedTimeMs: judge.verifiedTimeMs() }),
      ...(options.reportEveryMs === undefined ? {} : { everyMs: options.reportEveryMs }),
    });
    reporter = reporting;
    telemetry.join({
      ...parts,
      signer,
      regionRoot: () => judge.regionRoot(),
      onAcknowledged: () => reporting.changed(),
    });
    undo.push(() => following.stop());
    undo.push(async () => {
      // A registry that does not acknowledge must not hold the end up.
      const timer = clock.timer(stopMs);
      const lastWord = reporting.stop();
      await Promise.race([lastWord, timer.done]);
      timer.cancel();
      await opened.close();
      fetcher?.offline();
      await lastWord;
    });
  }
}

/** The claim to enrol with, or null where the identity that is held goes on. */
function mustEnrol(identity: Identity | null, options: StartAgentOptions): ClaimFile | null {
  const { claim } = options;
  if (identity === null) {
    if (claim === undefined)
      throw new FleetError('enrolment-required', 'this state folder holds no identity');
    return claim;
  }
  if (!options.reEnroll) return null;
  if (claim === undefined) throw new FleetError('enrolment-required', '--re-enroll needs a claim');
  // An enrolment with this very claim that was cut off before it served: it is done, go on with it.
  return identity.claimId === claim.claimId && !identity.settled ? null : claim;
}
