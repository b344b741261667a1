// Why: the agent without its shell: everything that decides and remembers, in the order that a device needs (what it
// has serves first, the network comes second), behind ports. The daemon runs it on the real machine, the simulator on
// a simulated one. Trusts: its place, locked for this process. Must never: wait for the network where it is enrolled,
// nor spend a claim before everything that can fail locally has succeeded.

import type { AgentBus, ConnectBusOptions } from '../shared/host/mqtt.ts';
import { isErrorCode } from '../shared/kernel/codes.ts';
import { asFleetError, FleetError } from '../shared/kernel/errors.ts';
import type { Clock, Deflate, Entropy, Log, Place, Rebuilder, Runtime } from '../shared/kernel/ports.ts';
import { type Refusal, refuse } from '../shared/kernel/result.ts';
import type { ClaimFile } from '../shared/wire/claim.ts';
import type { Assignment, Labels } from '../shared/wire/messages.ts';
import type { AssignedSampling } from '../shared/wire/sample-rules.ts';
import { enrol } from './bus/enrolment.ts';
import { fetchWhole } from './bus/fetcher.ts';
import { createRefusals, listRefusals } from './bus/refusals.ts';
import { type AgentInfo, startOf } from './bus/reports.ts';
import type { CapturedSample } from './inference/sampler.ts';
import { createMoving, type Moving } from './moving.ts';
import { fetcherWhen, goOnline, type Online, type OnlineParts } from './online.ts';
import { openState } from './state.ts';
import { type AgentStatus, attacksOf, reportedMove, statusSchemaVersion } from './status.ts';
import { openTelemetry } from './telemetry/open.ts';
import type { OutboxLimits } from './telemetry/outbox-port.ts';
import type { Telemetry } from './telemetry/telemetry.ts';
import { type Authority, openAuthority } from './trust/authority.ts';
import { type Identity, loadIdentity, pendingSeed } from './trust/identity.ts';
import { createMetadataSources } from './trust/refresh.ts';
import { certificateEndMs } from './trust/renewal.ts';
import { createUpdater, type Updater, type UpdaterParts } from './update/updater.ts';

/** What the core needs of whatever runs the models. */
export interface CoreRuntime extends Runtime {
  requests(): { answered: number; failed: number };
  /** Of which requests samples are kept; absent: it keeps none. */
  useSampling?(rules: readonly AssignedSampling[]): void;
  close(): Promise<void>;
}

/** What the runtime tells the core. None of it may block. */
export interface RuntimeEvents {
  onRequest(fact: { as: string; releaseId: string; code: string | null; latencyMs: number }): void;
  onSample(sample: CapturedSample): void;
  onServing(): void;
  onTrouble(fact: { as: string; manifestSha256: string; refusal: Refusal }): void;
}

/** What tests and the simulator make shorter or smaller than production has it. */
export interface CoreTerms {
  pollMs?: number;
  reportEveryMs?: number;
  fetchTimeoutMs?: number;
  statsEveryMs?: number;
  batchAgeMs?: number;
  timeAnswerMs?: number;
  telemetryAnswerMs?: number;
  carriedAnswerMs?: number;
  outbox?: Partial<OutboxLimits>;
  update?: NonNullable<UpdaterParts['limits']>;
}

export interface CoreOptions<Host extends CoreRuntime> {
  place: Place;
  claim?: ClaimFile;
  /** The device's own; the claim's win. */
  labels: Labels;
  /** Makes a new key and enrols again with the claim, though the device has an identity. */
  reEnroll: boolean;
  /** May know more of the device later: `infoChanged`. */
  info(): AgentInfo;
  timezone: string;
  clock: Clock;
  entropy: Entropy;
  deflate: Deflate;
  log: Log;
  /** Ends a start that waits for the registry, with the fault `interrupted`. */
  signal?: AbortSignal;
  connect(options: ConnectBusOptions): AgentBus;
  /** Downloads beside the bus; absent: there are none. */
  https?: NonNullable<OnlineParts['https']>;
  /** Makes files of smaller ones; absent: every file is fetched as it is. */
  rebuilder?: Rebuilder;
  /** All files of releases together; absent: as much as the disk has. */
  storageQuotaBytes?: number;
  runtime(events: RuntimeEvents): Host;
  /** Beside what the core does when another release serves. */
  onServing?(): void;
  /** The runtime answered a request. */
  onRequest?(): void;
  terms?: CoreTerms;
}

export interface Core<Host extends CoreRuntime> {
  runtime: Host;
  startedAtMs: number;
  record: Telemetry['record'];
  everyWindow: Telemetry['everyWindow'];
  status(): Promise<AgentStatus>;
  /** "Not now" for so long; null takes it back. Refusal: `defer-exhausted`. */
  defer: Updater['defer'];
  /** Something else is to be reported of the device. */
  infoChanged(): void;
  /**
   * Enrols where that is due, and goes online; resolves without waiting for a connection where the device has an
   * identity. Faults: `enrolment-required`, the refusals of an enrolment, `interrupted`.
   */
  join(): Promise<{ deviceId: string; region: string }>;
  /** Somebody saw it serve: `--re-enroll` with the same claim means another device from here on. */
  settle(): Promise<void>;
}

/**
 * Opens what the device remembers and serves what it was serving; resolves before any use of the network. What is to
 * be ended is pushed to `undo`, last started last. Faults: `state-newer`, `enrolment-required`, `disk-full`, `disk-io`.
 */
export async function openCore<Host extends CoreRuntime>(
  options: CoreOptions<Host>,
  undo: (() => Promise<void>)[],
): Promise<Core<Host>> {
  const { place, clock, entropy, deflate, log, info, timezone, terms = {} } = options;
  const disk = place.disk('.');
  const state = await openState(place, log);
  undo.push(() => state.close());
  const { keeper } = state;
  const { store } = keeper;
  const startedAtMs = clock.wall();
  const aborted = new AbortController();
  options.signal?.addEventListener('abort', () => aborted.abort(), { once: true });

  /** These come later than what needs them; until then the device is simply offline. */
  let identity = await loadIdentity(store);
  let authority: Authority | null = null;
  let online: Online | null = null;
  let telemetry: Pick<Telemetry, 'event'> | null = null;

  const reEnrol = mustEnrol(identity, options);
  const start = startOf(await keeper.booted(), entropy);
  const fetcher = fetcherWhen(() => online);
  const sources = createMetadataSources({
    fetch: (target, bytesMax) => fetchWhole(fetcher, target, bytesMax),
    deflate,
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
      proven: (assigned) => updater.isLastGood(assigned),
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
  const recording = await openTelemetry(place, {
    clock,
    entropy,
    deflate,
    log,
    onRefused: remember,
    begun: { chain: () => keeper.held().outbox, mark: keeper.outboxBegun },
    outbox: keeper.held().moves.outbox,
    ...(terms.statsEveryMs === undefined ? {} : { statsEveryMs: terms.statsEveryMs }),
    ...(terms.batchAgeMs === undefined ? {} : { batchAgeMs: terms.batchAgeMs }),
    ...(terms.telemetryAnswerMs === undefined ? {} : { answerMs: terms.telemetryAnswerMs }),
    ...(terms.outbox === undefined ? {} : { limits: terms.outbox }),
  });
  telemetry = recording;
  undo.push(() => recording.stop());
  recording.event('agent-started', null, { ...info() });
  const runtime = options.runtime({
    onRequest: (fact) => {
      recording.request(fact);
      options.onRequest?.();
    },
    onSample: (sample) => recording.sample(sample),
    onServing: () => options.onServing?.(),
    // Nothing serves before the updater has started.
    onTrouble: (fact) => updater.troubled(fact),
  });
  undo.push(() => runtime.close());
  const useRules = (assignment: Assignment | null): void => {
    recording.useMasking(assignment?.masking ?? null);
    runtime.useSampling?.(assignment?.samples ?? []);
  };
  const moving: Moving = createMoving({
    ...{ place, keeper, timezone, clock, entropy, deflate, log, remember },
    connect: options.connect,
    agent: info,
    telemetry: recording,
    useRules,
    authority: () => authority,
    identity: () => online?.identity() ?? identity,
    models: () => updater.models(),
    changed: () => online?.changed(),
    leave: () => leaveLine(),
    arrive: async (next) => {
      if (next !== null) {
        const trusted = await open(next);
        // Before anybody is told that it is of that region: what is recorded from then on is that region's.
        await moving.enter(next, trusted);
        identity = next;
        authority = trusted;
      }
      await enterLine();
    },
    terms,
  });
  undo.push(() => moving.stop());
  // An identity that is about to be replaced must not seal anything more.
  if (identity !== null && authority !== null && reEnrol === null) {
    // Of the region that it has just come to it may have no assignment in force yet.
    const assignment = authority.assignment() ?? moving.arrival();
    // Before the key: nothing is sealed under rules that are not known yet.
    useRules(assignment);
    await recording.useKey(identity.deviceId, identity.region, assignment?.telemetry ?? null);
    await moving.open();
  }

  const atStart = info();
  const updater = createUpdater({
    store,
    disk,
    clock,
    entropy,
    fetcher,
    runtime,
    log,
    trust: {
      agree: async (assigned) =>
        authority === null ? refuse('enrolment-required', 'not enrolled') : authority.agree(assigned),
    },
    onChange: () => {
      online?.changed();
      moving.look();
    },
    onTransition: ({ releaseId, ...transition }) => recording.event('update', releaseId, transition),
    onRefused: ({ code, detail }, update) => {
      if (isErrorCode(code)) remember({ code, detail: `${update}: ${detail}` }, `update ${update}`);
    },
    arch: atStart.arch,
    ...(atStart.memoryMiB === undefined ? {} : { memoryMiB: atStart.memoryMiB }),
    time: () => ({ signedMs: authority?.time.signed()?.nowMs ?? null, wallMs: clock.wall(), timezone }),
    journalLost: state.journalLost,
    ...(options.rebuilder === undefined ? {} : { rebuilder: options.rebuilder }),
    ...(options.storageQuotaBytes === undefined ? {} : { storageQuotaBytes: options.storageQuotaBytes }),
    ...(terms.update === undefined ? {} : { limits: terms.update }),
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
      agent: info(),
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
      timezone,
      deferral: updater.deferral(),
      requests: runtime.requests(),
      outbox: recording.counters(),
      delivery: updater.delivery(),
      telemetryOff: recording.off(),
      movedFrom: keeper.held().moves.movedFrom,
      move: reportedMove(keeper.held().moves) ?? null,
      carried: moving.carried()?.state() ?? [],
      refusals: kept,
    };
  };

  async function leaveLine(): Promise<void> {
    const left = online;
    online = null;
    await left?.stop();
  }

  /** Goes online as who the device is now. */
  async function enterLine(): Promise<void> {
    if (identity === null || authority === null) {
      throw new FleetError('enrolment-required', 'there is no identity');
    }
    online = await goOnline({
      identity,
      authority,
      keeper,
      sources,
      refusals,
      remember,
      updater,
      telemetry: recording,
      carried: moving.carried(),
      onMove: moving.ordered,
      move: () => reportedMove(keeper.held().moves),
      useRules,
      agent: info,
      timezone,
      start,
      startedAtMs,
      clock,
      entropy,
      log,
      connect: options.connect,
      ...(options.https === undefined ? {} : { https: options.https }),
      ...(terms.pollMs === undefined ? {} : { pollMs: terms.pollMs }),
      ...(terms.reportEveryMs === undefined ? {} : { reportEveryMs: terms.reportEveryMs }),
      ...(terms.fetchTimeoutMs === undefined ? {} : { fetchTimeoutMs: terms.fetchTimeoutMs }),
      ...(terms.timeAnswerMs === undefined ? {} : { timeAnswerMs: terms.timeAnswerMs }),
    });
  }

  async function join(): Promise<{ deviceId: string; region: string }> {
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
        agent: info(),
        connect: options.connect,
        clock,
        entropy,
        log,
        signal: aborted.signal,
      });
      identity = await keeper.enrolled(enrolled.identity, enrolled.roots);
      log.emit('info', 'agent.enrolled', { device: identity.deviceId, region: identity.region });
      authority = await open(identity);
    }
    if (identity === null) throw new FleetError('enrolment-required', 'there is no identity');
    const { deviceId, region } = identity;
    await enterLine();
    undo.push(leaveLine);
    // Ended before the line: a switch that is under way brings another one.
    undo.push(() => moving.stop());
    moving.resume();
    // The start that enrolled does not settle it: cut off a moment after, nobody may have seen it serve.
    if (!isNew) await keeper.settled();
    return { deviceId, region };
  }

  return {
    runtime,
    startedAtMs,
    record: recording.record,
    everyWindow: recording.everyWindow,
    status,
    defer: (forMs) => updater.defer(forMs),
    infoChanged: () => online?.changed(),
    join,
    settle: () => keeper.settled(),
  };
}

/** The claim to enrol with, or null where the identity that is held goes on. */
function mustEnrol(
  identity: Identity | null,
  options: { claim?: ClaimFile; reEnroll: boolean },
): ClaimFile | null {
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
