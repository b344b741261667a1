// Why: the fleet as one part of the registry: who enrolled, what each device runs, should run and may fetch.
// Trusts: the broker for who published on a device's topic; reports prove themselves by signature.
// Must never: decide what a release is worth; that is rollout/.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { RegistryBus, Subscription } from '../../shared/kernel/ports.ts';
import type { Refusal } from '../../shared/kernel/result.ts';
import {
  type BusIdentity,
  type DevicePublishChannel,
  deviceTopic,
  everyDeviceFilter,
  everyEnrolRequestFilter,
  parseTopic,
  tufTimestampTopic,
} from '../../shared/wire/topics.ts';
import type { Barring } from '../catalog/barred.ts';
import type { RegistryCore } from '../core.ts';
import { createDownloads, type DownloadCounters, type Downloads } from '../delivery/downloads.ts';
import { createRights } from '../delivery/rights.ts';
import { createWaysDesk } from '../delivery/ways.ts';
import { createArrivals } from '../moves/arrivals.ts';
import { createMoves, type Moves } from '../moves/moves.ts';
import { createMoveOrders } from '../moves/orders.ts';
import type { RegistryDb } from '../store/open.ts';
import { createErasures, type Erasures } from '../telemetry/erasure.ts';
import { createEvidence, type Evidence } from '../telemetry/evidence.ts';
import { createIngest, type IngestCounters } from '../telemetry/ingest.ts';
import { createDeviceCertificates } from './certificates.ts';
import { type Claims, createClaims } from './claims.ts';
import { createDevices, type Devices } from './devices.ts';
import { createDirector, type Director } from './director.ts';
import { createEnrolment } from './enrolment.ts';
import { createFleetEvents, type FleetEvents } from './events.ts';
import { createFetches, type FetchCounters } from './fetches.ts';
import { createParcels } from './parcels.ts';
import { createPresence } from './presence.ts';
import { createRenewal } from './renewal.ts';
import { createReports } from './reports.ts';
import { createRestore } from './restore.ts';
import { createRevocation, type Revocation } from './revocation.ts';
import { type AuthorityRotation, createRotation } from './rotation.ts';
import { createTasks } from './tasks.ts';
import { createTime } from './time.ts';

/** `member`: a device joined, left, or changed its labels or standing. */
export interface FleetChange {
  kind: 'report' | 'presence' | 'member';
  deviceId: string;
}

export interface Fleet {
  claims: Claims;
  devices: Devices;
  events: FleetEvents;
  director: Director;
  authorities: AuthorityRotation;
  revocation: Revocation;
  erasures: Erasures;
  downloads: Downloads;
  evidence: Evidence;
  /** Devices that come from other regions or go there. */
  moves: Moves;
  /** For the broker, after its own checks: a device must be enrolled and active; any claim may ask. */
  mayConnect(identity: BusIdentity): Promise<boolean>;
  /** For the broker: counted as a fleet event, within bounds. */
  onRefused(refusal: { code: ErrorCode; subject: string | null; detail: string }): void;
  onConnected(identity: BusIdentity): void;
  onDisconnected(identity: BusIdentity): void;
  /** The broker is gone, and with it all that is known of who is there. */
  forgetPresence(): void;
  /** Called after the change is durable. Returns how to stop. */
  onChange(listener: (change: FleetChange) => void): () => void;
  /**
   * Listens to the devices, publishes every retained topic again (`desired` of each device and
   * `tuf/timestamp`, the latter also whenever the repository signs a new one), renews assignments.
   */
  start(bus: RegistryBus): Promise<void>;
  /** A sealed batch, as it came on the device's topic. */
  receiveTelemetry(deviceId: string, payload: Uint8Array): void;
  /** Resolves when no batch of telemetry waits to be stored, nor a window to be judged. */
  telemetryIdle(): Promise<void>;
  /** Stops listening and waits for what is under way. Idempotent. */
  stop(): Promise<void>;
  counters(): {
    fetches: FetchCounters;
    downloads: DownloadCounters;
    telemetry: IngestCounters;
    eventsDropped: number;
    /** By code. */
    attacks: ReadonlyMap<string, number>;
  };
}

/** Whether this connection is the device being there; one that may only renew its certificate is not. */
function counts(identity: BusIdentity): identity is BusIdentity & { kind: 'device' } {
  return identity.kind === 'device' && identity.expired !== true;
}

export function createFleet(core: RegistryCore): Fleet {
  const { region, store, repository, releases, clock, log } = core;
  const { qb } = store;
  const tasks = createTasks(log);
  const listeners = new Set<(change: FleetChange) => void>();
  const changed = (change: FleetChange): void => {
    for (const listener of listeners) listener(change);
  };

  let bus: RegistryBus | null = null;
  let stopping: Promise<void> | null = null;
  const subscriptions: Subscription[] = [];
  const ends: (() => void)[] = [];

  const events = createFleetEvents({ store, clock });
  const director = createDirector(core, tasks);
  const devices = createDevices(core, {
    events,
    director,
    changed,
    disconnect: async (deviceId) => bus?.disconnect(deviceId),
  });
  const orders = createMoveOrders(core, {
    events,
    director,
    tasks,
    changed,
    disconnect: async (deviceId) => bus?.disconnect(deviceId),
  });
  const arrivals = createArrivals(core, { events });
  const claims = createClaims(core);
  const presence = createPresence(core, { changed, tasks });
  const certificates = createDeviceCertificates(core);
  const { standing } = devices;
  const restore = createRestore(core, { events, director, tasks, standing });
  /** Two devices use this key: both stay out until somebody decides. */
  const cloned = async (deviceId: string, refusal: Refusal): Promise<void> => {
    await devices.quarantine(deviceId, refusal);
  };
  const reports = createReports(core, {
    events,
    certificates,
    arrivals,
    orders,
    changed,
    cloned,
    suspect: restore.suspect,
    republish: (deviceId) => director.publish([deviceId]),
  });
  const enrolment = createEnrolment(core, { events, director, certificates, arrivals, changed });
  const time = createTime(core, { standing });
  const renewal = createRenewal(core, { events, certificates });
  const parcels = createParcels(core);
  parcels.onBehind((deviceId, what) =>
    tasks.run('restore', () => restore.suspect(deviceId, `it holds a newer ${what.join(', ')}`)),
  );
  const rights = createRights(core);
  const downloads = createDownloads(core, { events, rights });
  const ways = createWaysDesk(core, rights);
  const fetches = createFetches(core, { events, parcels, rights, downloads, ways });
  const evidence = createEvidence(core, { events, tasks });
  const ingest = createIngest({
    ...core,
    evidence,
    keys: core.telemetryKeys,
    signer: core.keyring.signer('ack'),
    answer: async (deviceId, message) =>
      bus?.publish(deviceTopic(region, deviceId, 'telemetry/ack'), message, { qos: 1, retain: false }),
    refused: (deviceId, refusal) =>
      events.recordStranger({ source: 'registry', subject: deviceId, ...refusal }),
    cloned,
  });

  const moves = createMoves(core, { arrivals, orders, events, tasks, ingest });
  listeners.add(({ kind, deviceId }) => {
    // What was answered while it was away; a device that is gone gets nothing, and asks again by sending.
    if (kind === 'presence') tasks.run('carried answers', () => moves.deliver(deviceId));
  });
  const erasures = createErasures({
    ...core,
    signer: core.keyring.signer('ack'),
    eraseIn: (db, erased) => {
      evidence.eraseIn(db, erased);
      moves.eraseIn(db, erased);
    },
    equip: (deviceIds) => director.equip(deviceIds),
    background: (what, work) => tasks.run(what, work),
  });

  async function listen(
    on: RegistryBus,
    channel: DevicePublishChannel,
    handler: (deviceId: string, payload: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const subscription = await on.subscribe(everyDeviceFilter(region, channel), ({ topic, payload }) => {
      const parsed = parseTopic(topic);
      if (parsed?.kind !== 'device') return;
      tasks.run(channel, () => handler(parsed.deviceId, payload));
    });
    subscriptions.push(subscription);
  }

  function publishTimestamp(on: RegistryBus, bytes: Uint8Array): void {
    tasks.run('tuf/timestamp', () => on.publish(tufTimestampTopic(region), bytes, { qos: 1, retain: true }));
  }

  /** What a publisher took back, and whom that concerns: those who run it keep it, so somebody must decide. */
  function recordBarring(db: RegistryDb, { code, detail, releaseIds }: Barring): void {
    const running = releaseIds.length === 0 ? 0 : runningIn(db, releaseIds);
    const devices = running === 1 ? '1 device runs' : `${running} devices run`;
    const kept = running === 0 ? 'no device runs what it bars' : `${devices} what it bars and may keep it`;
    events.recordIn(db, { source: 'registry', subject: null, code, detail: `${detail}; ${kept}` });
  }

  function runningIn(db: RegistryDb, releaseIds: readonly string[]): number {
    const barred = new Set(releaseIds);
    const rows = db.all(qb.selectFrom('device_models').select(['device_id', 'active']));
    return new Set(
      rows.filter(({ active }) => active !== null && barred.has(active)).map((row) => row.device_id),
    ).size;
  }

  /** MQTT has one return code for everybody who is not let in; the operator wants to know which it was. */
  async function whyBarred(deviceId: string): Promise<ErrorCode> {
    const standing = await devices.standing(deviceId);
    if (standing === null) return 'device-unknown';
    return standing === 'active' ? 'broker-not-authorized' : `device-${standing}`;
  }

  async function stop(): Promise<void> {
    for (const end of ends.splice(0)) end();
    director.stop();
    presence.stop();
    restore.stop();
    downloads.stop();
    await Promise.all(subscriptions.splice(0).map((subscription) => subscription.cancel()));
    await moves.stop();
    await ingest.stop();
    await tasks.idle();
  }

  return {
    claims,
    devices,
    events,
    director,
    authorities: createRotation(core, { events, director }),
    revocation: createRevocation(core),
    erasures,
    downloads,
    evidence,
    moves,

    async mayConnect(identity) {
      // Whether a claim still holds is answered on its own topic, with a code that says why.
      return identity.kind === 'claim' || (await devices.standing(identity.deviceId)) === 'active';
    },
    onRefused({ code, subject, detail }) {
      if (stopping !== null) return;
      tasks.run('broker event', async () => {
        const named = code === 'broker-not-authorized' && subject !== null ? await whyBarred(subject) : code;
        await events.recordStranger({ source: 'broker', subject, code: named, detail });
      });
    },
    onConnected(identity) {
      if (stopping !== null || !counts(identity)) return;
      tasks.run('connected', () => presence.connected(identity.deviceId));
    },
    onDisconnected(identity) {
      // The broker closes after the fleet: at the next start nobody is known to be there anyway.
      if (stopping !== null || !counts(identity)) return;
      tasks.run('disconnected', () => presence.disconnected(identity.deviceId));
    },
    forgetPresence() {
      if (stopping === null) tasks.run('broker lost', () => presence.forgetAll());
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },

    async start(on) {
      bus = on;
      // A backup may have brought back what was erased: nothing is done with it before it is gone again.
      await erasures.replay();
      await presence.forgetAll();
      await certificates.takeUpOlder();
      await restore.start();
      ends.push(repository.onTimestamp((bytes) => publishTimestamp(on, bytes)));
      ends.push(releases.onBarred({ within: recordBarring }));
      const timestamp = await repository.file('timestamp.json');
      if (timestamp !== null)
        await on.publish(tufTimestampTopic(region), timestamp, { qos: 1, retain: true });
      await director.start(on);
      await erasures.resume();
      moves.start(on);
      await listen(on, 'reported', reports.handle);
      await listen(on, 'presence', presence.handle);
      for (const [channel, { handle }] of [
        ['fetch', fetches],
        ['time', time],
        ['renew', renewal],
        ['result', restore],
      ] as const) {
        await listen(on, channel, (deviceId, payload) => handle(on, deviceId, payload));
      }
      subscriptions.push(
        await on.subscribe(everyDeviceFilter(region, 'telemetry'), ({ topic, payload }) => {
          const parsed = parseTopic(topic);
          if (parsed?.kind === 'device') ingest.receive(parsed.deviceId, payload);
        }),
        await on.subscribe(everyDeviceFilter(region, 'carried'), ({ topic, payload }) => {
          const parsed = parseTopic(topic);
          if (parsed?.kind === 'device') moves.receive(parsed.deviceId, payload);
        }),
        await on.subscribe(everyEnrolRequestFilter(region), ({ topic, payload }) => {
          const parsed = parseTopic(topic);
          if (parsed?.kind !== 'enrol' || parsed.direction !== 'request') return;
          tasks.run('enrolment', () => enrolment.handle(on, parsed, payload));
        }),
      );
    },
    receiveTelemetry: (deviceId, payload) => ingest.receive(deviceId, payload),
    async telemetryIdle() {
      await moves.idle();
      await ingest.idle();
      await evidence.watch.idle();
    },
    stop() {
      stopping ??= stop();
      return stopping;
    },
    counters: () => ({
      fetches: fetches.counters(),
      downloads: downloads.counters(),
      telemetry: ingest.counters(),
      eventsDropped: events.dropped(),
      attacks: events.attacks(),
    }),
  };
}
