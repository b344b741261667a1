// Why: puts the agent together, in the order that a device needs: what it has serves first, the network
// comes second. Trusts: its state folder, locked for this process. Must never: wait for the network where
// it is enrolled, nor spend a claim before everything that can fail locally has succeeded.

import { join, resolve } from 'node:path';
import { systemDeflate } from '../shared/host/deflate.ts';
import { openDisk } from '../shared/host/disk.ts';
import { collectWhenIdle } from '../shared/host/idle-collection.ts';
import { lockFolder } from '../shared/host/lock.ts';
import { type AgentBus, type ConnectBusOptions, connectBus } from '../shared/host/mqtt.ts';
import { isErrorCode } from '../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../shared/kernel/errors.ts';
import { limits } from '../shared/kernel/limits.ts';
import type { Clock, Disk, Entropy, Log } from '../shared/kernel/ports.ts';
import { type Refusal, refuse } from '../shared/kernel/result.ts';
import type { ClaimFile } from '../shared/wire/claim.ts';
import { encodeMessage, type Labels } from '../shared/wire/messages.ts';
import { startAgentHttp } from './api/http.ts';
import { openSources, type StreamSources } from './api/stream-sources.ts';
import { enrol } from './bus/enrolment.ts';
import { fetchWhole } from './bus/fetcher.ts';
import { createRefusals, listRefusals } from './bus/refusals.ts';
import type { AgentInfo } from './bus/reports.ts';
import { createInferenceHost, type InferenceHost, type InferenceHostOptions } from './inference/host.ts';
import { runtimeVersion } from './inference/runtime-version.ts';
import { fetcherWhen, goOnline, type Online } from './online.ts';
import { type OpenedState, openState } from './state.ts';
import { type AgentStatus, attacksOf, statusSchemaVersion } from './status.ts';
import { openTelemetry, outboxFile } from './telemetry/open.ts';
import type { Telemetry } from './telemetry/telemetry.ts';
import { type Authority, openAuthority } from './trust/authority.ts';
import { type Identity, loadIdentity, pendingSeed } from './trust/identity.ts';
import { createMetadataSources } from './trust/refresh.ts';
import { certificateEndMs } from './trust/renewal.ts';
import { writeWhole } from './trust/whole-file.ts';
import { createUpdater } from './update/updater.ts';

export { agentMigrations } from './state.ts';

export interface StartAgentOptions {
  stateFolder: string;
  http: { host: string; port: number };
  /** Needed where `http.host` is not loopback. */
  token?: string;
  /** What `GET /v2` says instead of the agent's own name and extensions. */
  server?: { name?: string; extensions?: readonly string[] };
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
  /** `mqtt://127.0.0.1:PORT` of a broker on the device, for streams that come over it. */
  streamBroker?: string;
  /** Shorter in tests. */
  pollMs?: number;
  reportEveryMs?: number;
  fetchTimeoutMs?: number;
  statsEveryMs?: number;
  batchAgeMs?: number;
  timeAnswerMs?: number;
}

export interface RunningAgent {
  deviceId: string;
  httpUrl: string;
  stop(): Promise<void>;
}

/** File in the state folder by which `lepton-agent status` finds the running daemon. */
export const whereFile = 'agent.json';
export function agentInfo(version: string): AgentInfo {
  return { version, runtime: runtimeVersion(), arch: process.arch };
}

/**
 * Starts the agent; resolves when it is enrolled and listening, with or without a network or a model.
 * Faults: `state-locked`, `enrolment-required`, the refusals of an enrolment,
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
    const disk = openDisk(stateFolder);
    const state = await openState(stateFolder, disk, log);
    undo.push(() => state.close());
    const running = await compose(options, stateFolder, disk, state, undo);
    return {
      ...running,
      stop: async () => {
        log.emit('info', 'agent.stopping', { device: running.deviceId });
        // Somebody saw it serve: `--re-enroll` with the same claim means another device from here on.
        await state.keeper.settled().catch((error: unknown) => {
          log.emit('error', 'agent.failed', { while: 'stopping', detail: asFleetError(error).message });
        });
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
  disk: Disk,
  state: OpenedState,
  undo: (() => Promise<void>)[],
): Promise<Omit<RunningAgent, 'stop'>> {
  const { clock, entropy, log } = options;
  const { keeper } = state;
  const { store } = keeper;
  const info = agentInfo(options.version);
  const timezone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const startedAtMs = clock.wall();
  const aborted = new AbortController();
  options.signal?.addEventListener('abort', () => aborted.abort(), { once: true });

  /** These come later than what needs them; until then the device is simply offline. */
  let identity = await loadIdentity(store);
  let authority: Authority | null = null;
  let online: Online | null = null;
  let telemetry: Telemetry | null = null;
  let streams: StreamSources | null = null;

  const reEnrol = mustEnrol(identity, options);
  const boot = await keeper.booted();
  const fetcher = fetcherWhen(() => online);
  const sources = createMetadataSources({
    fetch: (target, bytesMax) => fetchWhole(fetcher, target, bytesMax),
    deflate: systemDeflate,
    log,
  });
  const open = (held: Identity): Promise<Authority> =>
    openAuthority({
      keeper,
      region: held.region,
      deviceId: held.deviceId,
      sources,
      giveBack: (file, bytes) => online?.giveBack(file, bytes),
      // Asked only once the bus is joined, long after the updater is there.
      runs: ({ as, manifestSha256 }) =>
        updater.models().some((model) => model.name === as && model.activeSha256 === manifestSha256),
      clock,
      log,
    });
  if (identity !== null) authority = await open(identity);

  const refusals = createRefusals({
    store,
    clock,
    onRecorded: ({ code, detail }) => {
      telemetry?.event('refusal', null, { code, detail });
      online?.changed();
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
  const recording = await openTelemetry(join(stateFolder, outboxFile), {
    disk,
    clock,
    entropy,
    log,
    onRefused: remember,
    begun: { chain: () => keeper.held().outbox, mark: keeper.outboxBegun },
    ...(options.statsEveryMs === undefined ? {} : { statsEveryMs: options.statsEveryMs }),
    ...(options.batchAgeMs === undefined ? {} : { batchAgeMs: options.batchAgeMs }),
  });
  telemetry = recording;
  undo.push(() => recording.stop());
  recording.event('agent-started', null, { ...info });
  const idle = collectWhenIdle(clock);
  undo.push(async () => idle.stop());
  const inference = (options.inference ?? createInferenceHost)({
    clock,
    log,
    disk,
    stateFolder,
    deadlineMs: limits.inferDeadlineMs,
    queueMax: limits.inferQueueMax,
    onRequest: (fact) => {
      recording.request(fact);
      idle.worked();
    },
    onServing: () => streams?.reconcile(),
    // Nothing serves before the updater has started.
    onTrouble: (fact) => updater.troubled(fact),
  });
  undo.push(() => inference.close());
  streams = openSources({
    inference,
    clock,
    log,
    stateFolder,
    ...(options.streamBroker === undefined ? {} : { brokerUrl: options.streamBroker }),
  });
  undo.push(() => streams?.close() ?? Promise.resolve());
  // An identity that is about to be replaced must not seal anything more.
  if (identity !== null && reEnrol === null) {
    const key = authority?.assignment()?.telemetry ?? null;
    await recording.useKey(identity.deviceId, identity.region, key);
  }

  const updater = createUpdater({
    store,
    disk,
    clock,
    entropy,
    fetcher,
    runtime: inference,
    log,
    trust: {
      agree: async (assigned) =>
        authority === null ? refuse('enrolment-required', 'not enrolled') : authority.agree(assigned),
    },
    onChange: () => online?.changed(),
    onTransition: ({ releaseId, ...transition }) => recording.event('update', releaseId, transition),
    onRefused: ({ code, detail }, update) => {
      if (isErrorCode(code)) remember({ code, detail: `${update}: ${detail}` }, `update ${update}`);
    },
    arch: info.arch,
    journalLost: state.journalLost,
  });
  undo.push(() => updater.stop());
  // The last good release serves before anything asks the network.
  await updater.start();

  const status = async (): Promise<AgentStatus> => {
    const now = online?.identity() ?? identity;
    const kept = await store.tx(listRefusals);
    return {
      schemaVersion: statusSchemaVersion,
      device: now?.deviceId ?? null,
      region: now?.region ?? null,
      broker: now?.brokerUrl ?? null,
      labels: authority?.assignment()?.labels ?? now?.labels ?? options.labels,
      agent: info,
      startedAtMs,
      connected: online?.connected() ?? false,
      refusedBy: online?.refusedBy() ?? null,
      epoch: authority?.epoch() ?? 0,
      verifiedTimeMs: authority?.time.floorMs() ?? 0,
      clock: {
        source: authority?.time.source() ?? 'wall',
        nowMs: authority?.time.nowMs() ?? null,
        floorMs: authority?.time.floorMs() ?? 0,
      },
      certificate:
        now === null
          ? null
          : {
              expiresAtMs: certificateEndMs(now.certificate),
              renewalRefusedBy: online?.renewalRefusedBy() ?? null,
            },
      held: authority?.held() ?? null,
      attacks: attacksOf(kept),
      models: updater.models(),
      requests: inference.requests(),
      outbox: recording.counters(),
      telemetryOff: recording.off(),
      refusals: kept,
    };
  };
  const http = await startAgentHttp({
    host: options.http.host,
    port: options.http.port,
    ...(options.token === undefined ? {} : { token: options.token }),
    inference,
    status,
    record: recording.record,
    version: info.version,
    ...(options.server?.name === undefined ? {} : { serverName: options.server.name }),
    ...(options.server?.extensions === undefined ? {} : { serverExtensions: options.server.extensions }),
    clock,
    log,
  });
  undo.push(() => http.close());
  const where = { schemaVersion: statusSchemaVersion, pid: process.pid, http: http.url, startedAtMs };
  await writeWhole(disk, whereFile, encodeMessage(where));
  undo.push(() => disk.unlink(whereFile));

  const isNew = reEnrol !== null;
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
      timezone,
      agent: info,
      connect: options.connect ?? connectBus,
      clock,
      entropy,
      log,
      signal: aborted.signal,
    });
    identity = await keeper.enrolled(enrolled.identity, enrolled.roots);
    log.emit('info', 'agent.enrolled', { device: identity.deviceId, region: identity.region });
    authority = await open(identity);
  }
  if (identity === null || authority === null) {
    throw new FleetError('enrolment-required', `${stateFolder} holds no identity`);
  }
  const { deviceId, region } = identity;
  const joined = await goOnline({
    identity,
    authority,
    keeper,
    sources,
    refusals,
    remember,
    updater,
    telemetry: recording,
    agent: info,
    timezone,
    boot,
    startedAtMs,
    clock,
    entropy,
    log,
    ...(options.connect === undefined ? {} : { connect: options.connect }),
    ...(options.pollMs === undefined ? {} : { pollMs: options.pollMs }),
    ...(options.reportEveryMs === undefined ? {} : { reportEveryMs: options.reportEveryMs }),
    ...(options.fetchTimeoutMs === undefined ? {} : { fetchTimeoutMs: options.fetchTimeoutMs }),
    ...(options.timeAnswerMs === undefined ? {} : { timeAnswerMs: options.timeAnswerMs }),
  });
  online = joined;
  undo.push(() => joined.stop());
  // The start that enrolled does not settle it: cut off a moment after, nobody may have seen it serve.
  if (!isNew) await keeper.settled();
  log.emit('info', 'agent.ready', { device: deviceId, http: http.url, region });
  return { deviceId, httpUrl: http.url };
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
