// Why: the registry put together: what is opened in which order at start, and closed in the opposite one.
// Trusts: its data folder, which it holds locked. Must never: serve before what it serves is durable.

import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { openBackupFolder } from '../shared/host/backup-folder.ts';
import { systemDeflate } from '../shared/host/deflate.ts';
import { createDeltaEncoder } from '../shared/host/delta-encoder.ts';
import { systemHttpPost } from '../shared/host/http-post.ts';
import { lockFolder } from '../shared/host/lock.ts';
import { createModelTrial, hasRuntime } from '../shared/host/model-trial.ts';
import { folderPlace } from '../shared/host/place.ts';
import { asFleetError, FleetError } from '../shared/kernel/errors.ts';
import type { Clock, DeltaEncoder, Disk, Entropy, Log, Place, RegistryBus } from '../shared/kernel/ports.ts';
import type { Invitation } from '../shared/wire/regions.ts';
import { createAbroad } from './abroad.ts';
import { createApi } from './api/app.ts';
import type { RegistryParts } from './api/context.ts';
import { createDeviceBlobs } from './api/device-blobs.ts';
import { bracketed, type HttpListener, isLoopback, listenHttp, reachable } from './api/listen.ts';
import { type Backups, createBackups } from './backup/backups.ts';
import { startBroker } from './broker/broker.ts';
import { createTrial } from './catalog/admit.ts';
import type { RegistryCore } from './core.ts';
import { createFleet, type Fleet } from './fleet/fleet.ts';
import { type FleetLimits, fleetLimits } from './fleet/limits.ts';
import { joinBroker } from './join-broker.ts';
import { brokerTerms, goToWork, keepCertified, openRegistryCore, repeat } from './open-core.ts';
import { createWebhooks } from './outlets/webhooks.ts';
import { createRetention } from './policy/retention.ts';
import { openRegionSide } from './region-side.ts';
import type { RegionLimits } from './regions/limits.ts';
import { createRollouts } from './rollout/rollouts.ts';
import { createSettings, type Settings } from './store/settings.ts';

export interface ListenAddress {
  host: string;
  /** 0: a free one, picked at the first start and kept. */
  port: number;
}

export interface RegistryOptions {
  dataFolder: string;
  region: string;
  http: ListenAddress;
  mqtt: ListenAddress;
  /** `mqtts://HOST:PORT` of a broker of another maker; then there is none of our own and `mqtt` is not bound. */
  broker?: string;
  /** URLs under which people and devices reach this registry; what is bound where absent. */
  advertiseHttp?: string;
  advertiseMqtt?: string;
  /** Where other regions reach this one; absent: they do not, unless this one has joined some. */
  regions?: ListenAddress;
  /** `https://HOST:PORT` under which they do, where that differs from what is bound. */
  advertiseRegions?: string;
  /** At the first start of a region that joins others. */
  invitation?: Invitation;
  /** Where the home region is reached, where that differs from what the invitation says. */
  homeUrl?: string;
  /** By region, where its door is reached from here, where that differs from the list. */
  peers?: ReadonlyMap<string, string>;
  regionLimits?: Partial<RegionLimits>;
  /** PEM. Without it HTTP is plain, and only on loopback. */
  httpTls?: { cert: string; key: string };
  /** What the process of one model may take. */
  modelMemoryBytesMax?: number;
  /** Where backups are written; DATA/backups where absent. */
  backupFolder?: string;
  /** In the place of production's. */
  limits?: Partial<FleetLimits>;
  /** Another encoder than the real one; null: no smaller files are made. */
  encoder?: DeltaEncoder | null;
  version: string;
  clock: Clock;
  entropy: Entropy;
  log: Log;
}

export interface Registry {
  httpUrl: string;
  mqttUrl: string;
  adminToken: string;
  parts: RegistryParts;
  /** Drains and closes; idempotent. */
  stop(): Promise<void>;
}

/** Every name under which a device may look the broker up; the server certificate lists them. */
function brokerHosts(options: RegistryOptions): string[] {
  const hosts = new Set(['localhost', '127.0.0.1', '::1', reachable(options.mqtt.host), hostname()]);
  for (const url of [options.advertiseMqtt, options.broker]) {
    if (url !== undefined) hosts.add(new URL(url).hostname.replace(/^\[|\]$/g, ''));
  }
  return [...hosts];
}

async function adminToken(disk: Disk, ensure: (present: string | null) => Promise<string>): Promise<string> {
  const file = 'admin.token';
  const bytes = await disk.read(file);
  const present = bytes === null ? null : new TextDecoder().decode(bytes).trim();
  const token = await ensure(present);
  if (token !== present) {
    await disk.create(`${file}.new`);
    await disk.append(`${file}.new`, new TextEncoder().encode(`${token}\n`));
    await disk.fsync(`${file}.new`);
    await disk.rename(`${file}.new`, file);
    await disk.fsyncDir('.');
  }
  return token;
}

/**
 * Starts a registry on its data folder and goes on where it was: same keys, same ports, same devices.
 * Faults: `state-locked`, `state-corrupt`, `config-invalid` (another region's folder), `port-in-use`,
 * `listen-insecure`, `disk-full`, `disk-io`. What was opened before a fault is closed again.
 */
export async function startRegistry(options: RegistryOptions): Promise<Registry> {
  // Undone in the opposite order, whether the start fails half-way or the registry stops.
  const closers: (() => Promise<void>)[] = [];
  const closeAll = async (): Promise<void> => {
    const faults: unknown[] = [];
    for (let close = closers.pop(); close !== undefined; close = closers.pop()) {
      // One part that fails to close must not keep the others, and the folder's lock, open.
      await close().catch((thrown: unknown) => faults.push(thrown));
    }
    if (faults.length > 0) throw asFleetError(faults[0]);
  };
  try {
    return await start(options, closers, closeAll);
  } catch (thrown) {
    await closeAll().catch((fault: unknown) => {
      options.log.emit('error', 'registry.failed', { detail: asFleetError(fault).message });
    });
    throw thrown;
  }
}

interface OpenBus {
  bus: RegistryBus;
  /** Where devices find it. */
  url: string;
  /** Whether a broker of another maker is there; null where it is ours. */
  connected: (() => boolean) | null;
  /** The registry serves: who waits may come. */
  opened(): void;
}

/** Starts our own broker, or begins to connect to the one that is named. */
async function openBus(parts: {
  core: RegistryCore;
  fleet: Fleet;
  settings: Settings;
  options: RegistryOptions;
  closers: (() => Promise<void>)[];
}): Promise<OpenBus> {
  const { core, fleet, settings, options, closers } = parts;
  const { advertiseMqtt, mqtt } = options;
  if (options.broker !== undefined) {
    const url = options.broker;
    const external = await joinBroker({ core, fleet, settings, url, closers });
    return {
      bus: external.bus,
      url: advertiseMqtt ?? url,
      connected: external.connected,
      opened: () => undefined,
    };
  }
  const { options: forBroker, opened } = brokerTerms(core, fleet);
  const mqttPort = mqtt.port === 0 ? await settings.number('mqtt.port') : mqtt.port;
  const { downloads, mayConnect } = fleet;
  const deviceBlobs = createDeviceBlobs({ downloads, mayConnect, log: core.log });
  closers.push(() => deviceBlobs.close());
  const broker = await startBroker({
    host: mqtt.host,
    port: mqttPort ?? 0,
    ...forBroker,
    acceptHttp: deviceBlobs.accept,
  });
  keepCertified(core, broker, closers);
  await settings.set('mqtt.port', String(broker.port));
  const url = advertiseMqtt ?? `mqtts://${bracketed(reachable(mqtt.host))}:${broker.port}`;
  return { bus: broker.bus, url, connected: null, opened };
}

const backupsTidyEveryMs = 60 * 60_000;

function openBackups(core: RegistryCore, options: RegistryOptions, place: Place): Backups {
  const data = resolve(options.dataFolder);
  return createBackups({
    ...core,
    isErased: (keyId) => core.telemetryKeys.isErased(keyId),
    folder: openBackupFolder(options.backupFolder ?? join(data, 'backups')),
    source: {
      ...core,
      maskingRules: () => core.masking.view().rules,
      ...{ files: place.disk('.'), keys: place.disk('keys'), blobs: place.disk('blobs') },
      blobPath: (sha256) => join(data, 'blobs', sha256),
    },
  });
}

async function start(
  options: RegistryOptions,
  closers: (() => Promise<void>)[],
  closeAll: () => Promise<void>,
): Promise<Registry> {
  const { clock, log, region } = options;
  const httpTls = options.httpTls ?? null;
  if (httpTls === null && !isLoopback(options.http.host)) {
    throw new FleetError(
      'listen-insecure',
      `plain HTTP on ${options.http.host} would show tokens to the network`,
    );
  }
  const lock = await lockFolder(options.dataFolder);
  closers.push(() => lock.release());
  log.emit('info', 'registry.starting', { region, version: options.version });

  const workFolder = join(resolve(options.dataFolder), 'work');
  const modelTrial = createModelTrial(clock, { workFolder });
  if (!hasRuntime())
    log.emit('warn', 'registry.models.untried', { reason: 'onnxruntime-node is not installed' });
  const place = folderPlace(options.dataFolder);
  const blobPath = (sha256: string): string => join(resolve(options.dataFolder), 'blobs', sha256);
  const { encoder = createDeltaEncoder(clock, { workFolder }) } = options;
  const outside = await openRegionSide({ options, place, closers });
  const core = await openRegistryCore(
    {
      place,
      region,
      hosts: brokerHosts(options),
      version: options.version,
      trial: createTrial(modelTrial, blobPath),
      modelMemoryBytesMax: options.modelMemoryBytesMax,
      deflate: systemDeflate,
      joining: outside.joining,
      ...(encoder === null ? {} : { delta: { encoder, pathOf: blobPath } }),
      limits: { ...fleetLimits, ...options.limits },
      clock,
      entropy: options.entropy,
      log,
    },
    closers,
  );
  const token = await adminToken(place.disk('.'), core.access.ensureAdmin);
  const settings = createSettings(core.store);

  const fleet = createFleet(core);
  const rollouts = createRollouts(core, fleet);
  // Before anybody can connect: what a backup brought back is erased again.
  await fleet.erasures.replay();
  const { bus, url, connected, opened } = await openBus({ core, fleet, settings, options, closers });
  core.addresses.mqtt = url;

  let ready = false;
  const backups = openBackups(core, options, place);
  closers.push(() => backups.idle());
  closers.push(repeat({ clock, everyMs: backupsTidyEveryMs, work: backups.tidyKeys, log }));
  await backups.tidyKeys();
  fleet.erasures.onErased(() => void backups.tidyKeys());
  const webhooks = createWebhooks({ ...core, events: fleet.events, post: systemHttpPost });
  closers.push(() => webhooks.stop());
  const abroad = createAbroad(core, {
    ...{ fleet, rollouts, line: outside.line, door: outside.door, disk: place.disk('mirror') },
    ...{ overrides: options.peers ?? new Map(), limits: options.regionLimits ?? {} },
  });
  const { regions, regionRollouts } = abroad;
  outside.serve(regions.handler);
  const parts: RegistryParts = {
    ...{ ...core, bus, fleet, rollouts, webhooks, backups, regions, regionRollouts },
    brokerConnected: connected,
  };
  const api = createApi(parts, () => ready);
  const httpPort = options.http.port === 0 ? await settings.number('http.port') : options.http.port;
  const http: HttpListener = await listenHttp({
    host: options.http.host,
    port: httpPort ?? 0,
    tls: httpTls,
    fetch: api.fetch,
    clock,
  });
  closers.push(() => http.close());
  await settings.set('http.port', String(http.port));
  const scheme = httpTls === null ? 'http' : 'https';
  core.addresses.http =
    options.advertiseHttp ?? `${scheme}://${bracketed(reachable(options.http.host))}:${http.port}`;

  await goToWork(core, { fleet, rollouts, bus }, closers);
  const retention = createRetention({ ...core, events: fleet.events });
  const retentionEnds = repeat({ clock, log, everyMs: core.limits.retentionEveryMs, work: retention.run });
  closers.push(async () => void (await Promise.all([retention.stop(), retentionEnds()])));
  // A registry that is started every morning has to forget as well.
  retention.run().catch((thrown: unknown) => {
    const { code, message: detail } = asFleetError(thrown);
    log.emit('error', 'registry.failed', { while: 'deleting old telemetry', code, detail });
  });
  closers.push(async () => {
    const stopping = abroad.stop();
    // Whom this region asks now may not answer for long.
    outside.line.close();
    await stopping;
  });
  await outside.open(settings, await regions.members.list());
  await abroad.start();
  opened();
  webhooks.start();
  ready = true;
  const { addresses } = core;
  log.emit('info', 'registry.ready', { region, http: addresses.http, mqtt: addresses.mqtt });

  let stopped: Promise<void> | undefined;
  return {
    httpUrl: addresses.http,
    mqttUrl: addresses.mqtt,
    adminToken: token,
    parts,
    stop: () => {
      stopped ??= (async () => {
        ready = false;
        log.emit('info', 'registry.stopping', { region });
        modelTrial.stop();
        // Requests under way end first, while everything they use still works.
        await http.close();
        await closeAll();
      })();
      return stopped;
    },
  };
}
