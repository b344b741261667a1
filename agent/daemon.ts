// Why: the agent on a real machine: the core (core.ts) with its state folder, its children, its HTTP and its line.
// Trusts: its state folder, which it locks for this process. Must never: decide anything that the core decides.

import { resolve } from 'node:path';
import { systemDeflate } from '../shared/host/deflate.ts';
import { createHttpsDoor } from '../shared/host/https-door.ts';
import { collectWhenIdle } from '../shared/host/idle-collection.ts';
import { lockFolder } from '../shared/host/lock.ts';
import { type AgentBus, type ConnectBusOptions, connectBus } from '../shared/host/mqtt.ts';
import { folderPlace } from '../shared/host/place.ts';
import { createRebuilder } from '../shared/host/rebuilder.ts';
import { asFleetError } from '../shared/kernel/errors.ts';
import { limits } from '../shared/kernel/limits.ts';
import type { Clock, Entropy, Log } from '../shared/kernel/ports.ts';
import { isTimeZone } from '../shared/kernel/windows.ts';
import type { ClaimFile } from '../shared/wire/claim.ts';
import { encodeMessage, type Labels } from '../shared/wire/messages.ts';
import { startAgentHttp } from './api/http.ts';
import { openSources, type StreamSources } from './api/stream-sources.ts';
import type { AgentInfo } from './bus/reports.ts';
import type { TransportMode } from './bus/transport.ts';
import { type CoreTerms, openCore } from './core.ts';
import { createInferenceHost, type InferenceHost, type InferenceHostOptions } from './inference/host.ts';
import { deviceMemoryBytes } from './inference/memory-watch.ts';
import { type ProviderSurvey, surveyProviders } from './inference/providers.ts';
import { runtimeVersion } from './inference/runtime-version.ts';
import { statusSchemaVersion } from './status.ts';
import { writeWhole } from './trust/whole-file.ts';

export { agentMigrations } from './state.ts';

export interface StartAgentOptions extends CoreTerms {
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
  /** All files of releases together; absent: as much as the disk has. */
  storageQuotaBytes?: number;
  /** IANA name of the zone in which windows are told; the machine's own (`TZ`) where absent. */
  timezone?: string;
  /** By which way files come; `auto` where absent. */
  transport?: TransportMode;
  /** Ends a start that waits for the registry, with the fault `interrupted`. */
  signal?: AbortSignal;
  /** The simulator's and tests' seam; the real bus where absent. */
  connect?(options: ConnectBusOptions): AgentBus;
  /** A stand-in for the models, for fleets of light devices; the real host where absent. */
  inference?(options: InferenceHostOptions): InferenceHost;
  /** `mqtt://127.0.0.1:PORT` of a broker on the device, for streams that come over it. */
  streamBroker?: string;
}

export interface RunningAgent {
  deviceId: string;
  httpUrl: string;
  stop(): Promise<void>;
}

/** Of the machine; UTC where it names one that the engine does not know. */
function ownTimezone(): string {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  return isTimeZone(timeZone) ? timeZone : 'UTC';
}

/** File in the state folder by which `lepton-agent status` finds the running daemon. */
export const whereFile = 'agent.json';
export function agentInfo(version: string): AgentInfo {
  const memoryMiB = Math.floor(deviceMemoryBytes() / 1_048_576);
  return { version, runtime: runtimeVersion(), arch: process.arch, memoryMiB };
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
    const running = await compose(options, stateFolder, undo);
    return {
      deviceId: running.deviceId,
      httpUrl: running.httpUrl,
      stop: async () => {
        log.emit('info', 'agent.stopping', { device: running.deviceId });
        await running.settle().catch((error: unknown) => {
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

/** After the start, which is for serving, and once: what it finds does not change while the device is on. */
function surveyLater(clock: Clock, found: (providers: string[]) => void): () => Promise<void> {
  let survey: ProviderSurvey | null = null;
  const timer = clock.timer(limits.providersAskedAfterMs);
  let ended = false;
  void timer.done.then(async () => {
    if (ended) return;
    survey = surveyProviders(clock);
    const providers = await survey.done;
    if (providers !== null && !ended) found(providers);
  });
  return async () => {
    ended = true;
    timer.cancel();
    survey?.stop();
  };
}

async function compose(
  options: StartAgentOptions,
  stateFolder: string,
  undo: (() => Promise<void>)[],
): Promise<Omit<RunningAgent, 'stop'> & { settle(): Promise<void> }> {
  const { clock, entropy, log } = options;
  const place = folderPlace(stateFolder);
  const disk = place.disk('.');
  const idle = collectWhenIdle(clock);
  undo.push(async () => idle.stop());
  let streams: StreamSources | null = null;
  const rebuilder = createRebuilder(clock, {
    root: stateFolder,
    memoryBytesMax: Math.floor(deviceMemoryBytes() * limits.childMemoryShare),
  });
  undo.push(() => rebuilder.stop());
  let info = agentInfo(options.version);
  const core = await openCore(
    {
      place,
      labels: options.labels,
      reEnroll: options.reEnroll,
      info: () => info,
      timezone: options.timezone ?? ownTimezone(),
      clock,
      entropy,
      deflate: systemDeflate,
      log,
      connect: options.connect ?? connectBus,
      rebuilder,
      // A simulated bus has no HTTPS beside it.
      ...(options.connect === undefined
        ? { https: { mode: options.transport ?? 'auto', open: createHttpsDoor } }
        : {}),
      ...(options.storageQuotaBytes === undefined ? {} : { storageQuotaBytes: options.storageQuotaBytes }),
      runtime: ({ onSample, ...events }) =>
        (options.inference ?? createInferenceHost)({
          ...events,
          sampling: { entropy, onSample },
          clock,
          log,
          disk,
          stateFolder,
          deadlineMs: limits.inferDeadlineMs,
          queueMax: limits.inferQueueMax,
        }),
      onServing: () => streams?.reconcile(),
      onRequest: () => idle.worked(),
      terms: options,
      ...(options.claim === undefined ? {} : { claim: options.claim }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    },
    undo,
  );
  const { runtime: inference, startedAtMs } = core;
  core.everyWindow(() => inference.takeWindow());
  streams = openSources({
    inference,
    clock,
    log,
    stateFolder,
    ...(options.streamBroker === undefined ? {} : { brokerUrl: options.streamBroker }),
  });
  const opened = streams;
  undo.push(() => opened.close());
  // What serves already.
  opened.reconcile();
  const http = await startAgentHttp({
    host: options.http.host,
    port: options.http.port,
    ...(options.token === undefined ? {} : { token: options.token }),
    inference,
    status: core.status,
    record: core.record,
    defer: core.defer,
    version: options.version,
    ...(options.server?.name === undefined ? {} : { serverName: options.server.name }),
    ...(options.server?.extensions === undefined ? {} : { serverExtensions: options.server.extensions }),
    clock,
    log,
  });
  undo.push(() => http.close());
  const where = { schemaVersion: statusSchemaVersion, pid: process.pid, http: http.url, startedAtMs };
  await writeWhole(disk, whereFile, encodeMessage(where));
  undo.push(() => disk.unlink(whereFile));

  if (options.inference === undefined)
    undo.push(
      surveyLater(clock, (providers) => {
        info = { ...info, providers };
        log.emit('info', 'agent.providers', { providers });
        // Of what every device has nobody need hear at once: it goes with the next report.
        if (providers.length > 1) core.infoChanged();
      }),
    );
  const { deviceId, region } = await core.join();
  log.emit('info', 'agent.ready', { device: deviceId, http: http.url, region });
  return { deviceId, httpUrl: http.url, settle: core.settle };
}
