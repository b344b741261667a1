// Why: the registry without its shell: keys, catalogue, fleet and rollouts behind ports, opened in order. The program runs
// it on a real machine with a broker and HTTP, the simulator on a simulated one.
// Trusts: its place, locked for this process. Must never: serve before what it serves is durable.

import { asFleetError, FleetError } from '../shared/kernel/errors.ts';
import type {
  Clock,
  Deflate,
  DeltaEncoder,
  Entropy,
  Log,
  Place,
  RegistryBus,
} from '../shared/kernel/ports.ts';
import { openAudit } from './audit/open-audit.ts';
import type { Broker, BrokerOptions } from './broker/broker.ts';
import type { Trial } from './catalog/admit.ts';
import { openBlobs } from './catalog/blobs.ts';
import { createReleases } from './catalog/releases.ts';
import type { RegistryCore } from './core.ts';
import { createEncoding } from './delivery/encoding.ts';
import { createEncodings } from './delivery/encodings.ts';
import type { Fleet } from './fleet/fleet.ts';
import { type FleetLimits, fleetLimits } from './fleet/limits.ts';
import { createAccess } from './policy/access.ts';
import { openRegionPolicies } from './policy/region-policies.ts';
import { createReleaseAdmission } from './policy/release-admission.ts';
import { type BeginJoining, joinRegions } from './regions/joining.ts';
import type { Rollouts } from './rollout/rollouts.ts';
import { openAuthorities } from './signing/authorities.ts';
import { openKeyring } from './signing/keys.ts';
import { openRepository } from './signing/repository.ts';
import { createRoleFiles } from './signing/role-files.ts';
import { openStoreIn } from './store/open.ts';
import { createSettings } from './store/settings.ts';
import { openErasureJournal } from './telemetry/erasure-journal.ts';
import { openTelemetryKeys, telemetryKeyMigrations } from './telemetry/keys.ts';
import { openMasking } from './telemetry/masking.ts';
import { createSamplingPolicy } from './telemetry/sample-rules.ts';
import { openWithholding } from './telemetry/withholding.ts';

export interface CoreParts {
  place: Place;
  region: string;
  /** Names and addresses under which devices reach the broker. */
  hosts: string[];
  version: string;
  /** How models are tried; absent: they are only read. */
  trial?: Trial;
  /** What the process of one model may take. */
  modelMemoryBytesMax?: number | undefined;
  deflate: Deflate;
  /** At the first start of a region that joins others; the others are not asked again for it. */
  joining?: BeginJoining | null;
  /** Makes smaller files of files, and where blobs lie for it; absent: none are made. */
  delta?: { encoder: DeltaEncoder; pathOf(sha256: string): string };
  /** Production's where absent. */
  limits?: FleetLimits;
  clock: Clock;
  entropy: Entropy;
  log: Log;
}

/**
 * Opens it and goes on where it was. What is to be closed is pushed to `closers`. Faults: `state-corrupt`,
 * `config-invalid` (another region's place), `disk-full`, `disk-io`.
 */
export async function openRegistryCore(
  parts: CoreParts,
  closers: (() => Promise<void>)[],
): Promise<RegistryCore> {
  const { place, region, hosts, version, trial, modelMemoryBytesMax, deflate, clock, entropy, log } = parts;
  const store = await openStoreIn(place);
  closers.push(() => store.close());
  const settings = createSettings(store);
  const storedRegion = await settings.keep('region', region);
  if (storedRegion !== region) {
    throw new FleetError(
      'config-invalid',
      `this is the registry of region ${storedRegion}, not of ${region}`,
      {
        hint: 'give that region, or another --data folder',
      },
    );
  }
  const signed = await store.tx((db) =>
    db.first(store.qb.selectFrom('metadata_roles').select('role').where('role', '=', 'region/root').limit(1)),
  );
  const incarnation = await settings.keep('incarnation', Buffer.from(entropy.bytes(8)).toString('hex'));
  const joining = parts.joining ?? null;
  const keys = place.disk('keys');
  const keyring = await openKeyring({
    disk: keys,
    mayCreate: signed === undefined,
    joins: joining !== null,
    region,
    hosts,
    clock,
    entropy,
    log,
  });
  const authorities = await openAuthorities({
    disk: keys,
    store,
    keyring,
    region,
    hosts,
    clock,
    entropy,
    log,
  });
  if (joining !== null) {
    const files = createRoleFiles({ qb: store.qb, keyring, region });
    await joinRegions(joining, { store, files, region, clock, log, settings });
  }
  const blobs = await openBlobs({ disk: place.disk('blobs'), entropy });
  const repository = await openRepository({ store, keyring, region, clock, log });
  const policies = await openRegionPolicies({ store, region, keyring, clock, log });
  const policy = createReleaseAdmission({ blobs, policies });
  const admission = { trial, modelMemoryBytesMax };
  const releases = createReleases({ store, repository, blobs, admission, policy, clock, log });
  const limits = parts.limits ?? fleetLimits;
  // A store of their own: what is removed there can never be a file of a release, even where it is the same bytes.
  const files = await openBlobs({ disk: place.disk('encodings'), entropy });
  const encodings = createEncodings({ store, files, limits, clock, log });
  await encodings.open();
  const encoding = createEncoding({
    ...{ store, releases, blobs, encodings, limits, clock, log },
    encoder: parts.delta?.encoder ?? null,
    pathOf: (sha256) => parts.delta?.pathOf(sha256) ?? sha256,
  });
  closers.push(() => encoding.stop());
  const access = createAccess({ store, clock, entropy });
  const audit = await openAudit({ store, region, repository, keyring, clock });
  // A file of its own: its backups are kept for days, those of the registry for years.
  const keyStore = await place.openStore('telemetry-keys.sqlite', {
    synchronous: 'FULL',
    overwrites: true,
    migrations: telemetryKeyMigrations,
  });
  closers.push(() => keyStore.close());
  const telemetryKeys = await openTelemetryKeys({ store: keyStore, clock, entropy });
  const masking = await openMasking({ store: keyStore, clock, entropy });
  masking.require(policies.inForce()?.spec.masking ?? []);
  const addresses = { http: '', mqtt: '' };
  return {
    region,
    incarnation,
    version,
    addresses,
    store,
    keyring,
    authorities,
    repository,
    blobs,
    releases,
    encodings,
    encoding,
    access,
    audit,
    policies,
    telemetryKeys,
    journal: openErasureJournal(place.disk('.')),
    withholding: await openWithholding({ store, audit, clock }),
    masking,
    sampling: createSamplingPolicy({ store, clock }),
    deflate,
    limits,
    clock,
    entropy,
    log,
  };
}

/** How often is looked whether something must be signed again; what is signed lives for days. */
const resignEveryMs = 60 * 60_000;

/** Calls `work` every `everyMs` until stopped; a failure is logged and tried again. */
export function repeat(options: {
  clock: Clock;
  everyMs: number;
  work: () => Promise<unknown>;
  log: Log;
}): () => Promise<void> {
  let stopped = false;
  let timer = options.clock.timer(options.everyMs);
  let wake: () => void = () => undefined;
  const stop = new Promise<void>((resolve) => {
    wake = resolve;
  });
  const loop = async (): Promise<void> => {
    for (;;) {
      await Promise.race([timer.done, stop]);
      if (stopped) return;
      try {
        await options.work();
      } catch (thrown) {
        const error = asFleetError(thrown);
        options.log.emit('error', 'registry.failed', { code: error.code, detail: error.message });
      }
      timer = options.clock.timer(options.everyMs);
    }
  };
  const running = loop();
  return async () => {
    stopped = true;
    timer.cancel();
    wake();
    await running;
  };
}

/** What a broker is told of this registry; who connects at once waits until `opened` was called. */
export function brokerTerms(core: RegistryCore, fleet: Fleet) {
  const { authorities, region, log, clock } = core;
  let opened: () => void = () => undefined;
  const listening = new Promise<void>((resolve) => {
    opened = resolve;
  });
  const options: Omit<BrokerOptions, 'host' | 'port'> = {
    tls: authorities.broker(),
    region,
    log,
    clock,
    mayConnect: async (identity) => {
      await listening;
      return fleet.mayConnect(identity);
    },
    onRefused: (refusal) => fleet.onRefused(refusal),
    onConnected: (identity) => fleet.onConnected(identity),
    onDisconnected: (identity) => fleet.onDisconnected(identity),
  };
  return { options, opened: () => opened() };
}

/** The broker shows the certificates in force, which are renewed in time; it is closed with the rest. */
export function keepCertified(
  core: RegistryCore,
  broker: Pick<Broker, 'useTls' | 'close'>,
  closers: (() => Promise<void>)[],
): void {
  const { authorities, limits, clock, log } = core;
  closers.push(() => broker.close());
  const unhook = authorities.onChange(() => broker.useTls(authorities.broker()));
  closers.push(async () => void unhook());
  const everyMs = limits.serverCertificateEveryMs;
  closers.push(repeat({ clock, everyMs, work: authorities.renewBroker, log }));
}

/** Fleet and rollouts come up on a bus; what is to be ended is pushed to `closers`. */
export async function goToWork(
  core: RegistryCore,
  parts: { fleet: Fleet; rollouts: Rollouts; bus: RegistryBus },
  closers: (() => Promise<void>)[],
): Promise<void> {
  const { clock, log, repository, audit, limits } = core;
  const { fleet, rollouts, bus } = parts;
  await repository.resign(clock.wall());
  closers.push(repeat({ clock, everyMs: resignEveryMs, work: () => repository.resign(clock.wall()), log }));
  closers.push(repeat({ clock, everyMs: limits.auditHeadEveryMs, work: () => audit.heads.sign(), log }));
  // A start that fails half-way is stopped as well.
  closers.push(() => fleet.stop());
  await fleet.start(bus);
  closers.push(() => rollouts.stop());
  await rollouts.start();
  core.encoding.start();
}
