// Why: a registry's fleet and rollouts on a real store with real keys, a bus in memory and devices that obey or not.
// Trusts: test/registry-core/support.ts for the core. Must never: stand in for a part that is under test.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { openAudit } from '../../registry/audit/open-audit.ts';
import { openBlobs } from '../../registry/catalog/blobs.ts';
import type { RegistryCore } from '../../registry/core.ts';
import { createEncoding } from '../../registry/delivery/encoding.ts';
import { createEncodings } from '../../registry/delivery/encodings.ts';
import { createFleet, type Fleet } from '../../registry/fleet/fleet.ts';
import { type FleetLimits, fleetLimits } from '../../registry/fleet/limits.ts';
import { createAccess } from '../../registry/policy/access.ts';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { createRollouts, type Rollouts } from '../../registry/rollout/rollouts.ts';
import { openAuthorities } from '../../registry/signing/authorities.ts';
import { openErasureJournal } from '../../registry/telemetry/erasure-journal.ts';
import { openTelemetryKeys, telemetryKeyMigrations } from '../../registry/telemetry/keys.ts';
import { openMasking } from '../../registry/telemetry/masking.ts';
import { createSamplingPolicy } from '../../registry/telemetry/sample-rules.ts';
import { openWithholding } from '../../registry/telemetry/withholding.ts';
import type { JsonValue } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { publicKeyOf, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { deviceIdOf } from '../../shared/crypto/spki.ts';
import { makeDeviceRequest } from '../../shared/host/certificates.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import type { BusMessage, DeltaEncoder, RegistryBus } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import { signReport } from '../../shared/trust/report.ts';
import type { ClaimFile } from '../../shared/wire/claim.ts';
import { type BulkFrame, decodeFrame } from '../../shared/wire/frames.ts';
import type { DeviceView, FleetEvent } from '../../shared/wire/http.ts';
import {
  type AssignedRelease,
  type Assignment,
  type EnrolReply,
  encodeMessage,
  enrolReplySchema,
  type Labels,
  parseMessage,
  type Report,
  type ReportedModel,
  schemaVersion,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import {
  type DevicePublishChannel,
  type DeviceSubscribeChannel,
  deviceTopic,
  enrolReplyTopic,
  enrolRequestTopic,
} from '../../shared/wire/topics.ts';
import {
  type Bench,
  type BenchOptions,
  bench,
  countedEntropy,
  type Ending,
  hexOf,
  identityModel,
  once,
  preparePush,
  publisherKey,
} from '../registry-core/support.ts';

export const region = 'test';

const matchesFilter = (filter: string, topic: string): boolean => {
  const wanted = filter.split('/');
  const parts = topic.split('/');
  return wanted.length === parts.length && wanted.every((part, at) => part === '+' || part === parts[at]);
};

/** A bus in memory. `say` is a device's publish; what the registry published is in `retained` and `published`. */
export class MemoryBus implements RegistryBus {
  readonly retained = new Map<string, Uint8Array>();
  readonly published: BusMessage[] = [];
  readonly frames = new Map<string, BulkFrame[]>();
  readonly disconnected: string[] = [];
  /** Devices that do not read. */
  readonly stalled = new Set<string>();
  failing = false;
  private readonly handlers = new Set<{ filter: string; handler: (message: BusMessage) => void }>();

  async publish(topic: string, payload: Uint8Array, options: { qos: 0 | 1; retain: boolean }): Promise<void> {
    await Promise.resolve();
    if (this.failing) throw new FleetError('bus-offline', 'the bus takes nothing');
    this.published.push({ topic, payload, retained: options.retain });
    if (!options.retain) return;
    if (payload.length === 0) this.retained.delete(topic);
    else this.retained.set(topic, payload);
  }

  async subscribe(filter: string, handler: (message: BusMessage) => void) {
    const entry = { filter, handler };
    this.handlers.add(entry);
    return { cancel: async () => void this.handlers.delete(entry) };
  }

  async sendBulk(deviceId: string, _topic: string, frame: Uint8Array, body?: Uint8Array): Promise<boolean> {
    await Promise.resolve();
    if (this.stalled.has(deviceId)) return false;
    const whole = new Uint8Array(Buffer.concat([frame, body ?? new Uint8Array(0)]));
    this.frames.set(deviceId, [...(this.frames.get(deviceId) ?? []), unwrap(decodeFrame(whole))]);
    return true;
  }

  async disconnect(deviceId: string): Promise<void> {
    this.disconnected.push(deviceId);
  }

  say(topic: string, payload: Uint8Array): void {
    for (const { filter, handler } of this.handlers) {
      if (matchesFilter(filter, topic)) handler({ topic, payload, retained: false });
    }
  }
}

export interface World extends Bench {
  core: RegistryCore;
  fleet: Fleet;
  rollouts: Rollouts;
  bus: MemoryBus;
  /** Lets everything that is under way end; virtual time passes a little. */
  settle(): Promise<void>;
  /** Time passes in steps, as timers come due. */
  pass(ms: number): Promise<void>;
  /** Stops fleet and rollouts and starts new ones on the same store, as after a restart. */
  restart(): Promise<void>;
  /** Ends everything, so that its folder can be copied. Idempotent. */
  close(): Promise<void>;
  /** `requires`: as the publisher signs it. `model`: its one file; absent: a small one of its own. */
  push(releaseId: string, counter: number, requires?: JsonValue, model?: Uint8Array): Promise<void>;
  claim(options?: { labels?: Labels; uses?: number; ttlMs?: number }): Promise<ClaimFile>;
  enrol(claim: ClaimFile, device: Device, attempt?: string): Promise<EnrolReply['result']>;
  /** Enrols and connects that many new devices. */
  devices(count: number, labels?: Labels): Promise<Device[]>;
  start(file: string): Promise<string>;
  status(rolloutId: string): Promise<RolloutStatus>;
  view(device: Device): Promise<DeviceView>;
  events(code: string): Promise<FleetEvent[]>;
  /** What the registry published on a topic of the device after `ask`, waited for. */
  reply(device: Device, channel: DeviceSubscribeChannel, ask: () => void): Promise<Uint8Array>;
}

const idle: Omit<ReportedModel, 'name'> = {
  state: 'idle',
  active: null,
  activeSha256: null,
  candidate: null,
  lastGood: null,
  target: null,
  rolloutId: null,
  reason: null,
  progress: null,
  probe: null,
};

/** What an agent's machine would report for a release it was assigned. */
export type Behaviour = 'good' | { code: string; detail: string } | ReportedModel['state'];

/** A device with a real key that reports what the test wants. */
export class Device {
  readonly seed: Uint8Array;
  readonly id: string;
  counter = 0;
  epoch = 0;
  models = new Map<string, ReportedModel>();
  refusals: Report['refusals'] = [];
  /** Other words in its reports. */
  says: Partial<Report> = {};
  private world: World;

  constructor(world: World, name: string) {
    this.world = world;
    this.seed = countedEntropy(`device ${name}`).bytes(32);
    this.id = deviceIdOf(publicKeyOf(this.seed));
  }

  /** The same device at a registry that was started again, or restored. */
  moveTo(world: World): void {
    this.world = world;
  }

  say(channel: DevicePublishChannel, body: object): void {
    this.world.bus.say(deviceTopic(region, this.id, channel), encodeMessage(body));
  }

  /** Connected, as the broker and the device itself say. */
  online(): void {
    this.world.fleet.onConnected({ kind: 'device', deviceId: this.id });
    this.say('presence', { ...head(this.world), online: true });
  }

  offline(): void {
    this.say('presence', { ...head(this.world), online: false });
    this.world.fleet.onDisconnected({ kind: 'device', deviceId: this.id });
  }

  /** The assignment on its topic, checked as an agent checks it. */
  async assignment(): Promise<Assignment | null> {
    const payload = this.world.bus.retained.get(deviceTopic(region, this.id, 'desired'));
    if (payload === undefined) return null;
    const { envelope } = unwrap(parseMessage(signedMessageSchema, payload));
    const regionRoot = unwrap(parseRegionRoot(await this.world.repository.regionRoot()));
    const nowMs = this.world.clock.wall();
    return unwrap(checkAssignment({ envelope, regionRoot, deviceId: this.id, region, current: null, nowMs }))
      .assignment;
  }

  reportBody(): Report {
    this.counter += 1;
    return {
      schemaVersion,
      deviceId: this.id,
      region,
      counter: this.counter,
      boot: 1,
      session: this.id,
      sentAtMs: this.world.clock.wall(),
      verifiedTimeMs: this.world.clock.wall(),
      epoch: this.epoch,
      timezone: 'Europe/Vienna',
      agent: { version: '0.1.0', runtime: '1.30.0', arch: 'x64' },
      models: [...this.models.values()],
      refusals: this.refusals,
      outbox: null,
      held: null,
      clock: null,
      certificateExpiresAtMs: null,
      ...this.says,
    };
  }

  report(body: Report = this.reportBody(), seed: Uint8Array = this.seed): void {
    this.say('reported', { ...head(this.world), envelope: signReport(body, signerFromSeed(seed, 'node')) });
  }

  /** Takes the assignment on its topic, behaves and reports. */
  async obey(behaviour: Behaviour = 'good'): Promise<void> {
    const assignment = await this.assignment();
    if (assignment === null) return;
    this.epoch = assignment.epoch;
    const before = this.models;
    this.models = new Map(
      assignment.releases.map((release) => [
        release.as,
        this.next(before.get(release.as), release, behaviour),
      ]),
    );
    this.report();
  }

  private next(
    before: ReportedModel | undefined,
    release: AssignedRelease,
    behaviour: Behaviour,
  ): ReportedModel {
    const { as: name, releaseId, rolloutId } = release;
    const present: ReportedModel = before ?? { name, ...idle };
    // As the machine does: what was measured is of the target.
    const probe = present.target === releaseId ? present.probe : null;
    const about = { ...present, target: releaseId, rolloutId, reason: null, candidate: null, probe };
    if (present.active === releaseId && present.lastGood === releaseId)
      return { ...about, state: 'committed' };
    if (behaviour === 'good') return { ...about, state: 'committed', active: releaseId, lastGood: releaseId };
    if (typeof behaviour === 'object') return { ...about, state: 'idle', reason: behaviour };
    const active = behaviour === 'soaking' ? releaseId : present.active;
    return { ...about, state: behaviour, active, candidate: releaseId };
  }
}

export function head(world: World) {
  return { schemaVersion, messageId: 'm', sentAtMs: world.clock.wall() } as const;
}

export interface WorldOptions extends BenchOptions {
  limits?: Partial<FleetLimits>;
  /** Absent: no smaller files are made. */
  encoder?: DeltaEncoder;
}

export async function openWorld(t: Ending, options: WorldOptions = {}): Promise<World> {
  const base = await bench(t, options);
  const entropy = countedEntropy(`world ${options.chance ?? ''}`);
  const keyPath = options.folder === undefined ? ':memory:' : join(options.folder, 'telemetry-keys.sqlite');
  const keyStore = await openStore(keyPath, {
    synchronous: 'FULL',
    overwrites: true,
    migrations: telemetryKeyMigrations,
  });
  t.after(() => keyStore.close());
  const { folder } = base;
  const limits = { ...fleetLimits, ...options.limits };
  const files = await openBlobs({ disk: openDisk(join(folder, 'encodings')), entropy });
  const encodings = createEncodings({ ...base, files, limits });
  const encoding = createEncoding({
    ...{ ...base, encodings, limits },
    encoder: options.encoder ?? null,
    pathOf: (sha256) => join(folder, 'blobs', sha256),
  });
  t.after(() => encoding.stop());
  const audit = await openAudit({ ...base, region });
  const core: RegistryCore = {
    ...base,
    incarnation: 'first',
    encodings,
    encoding,
    authorities: await openAuthorities({
      ...base,
      disk: openDisk(join(base.folder, 'keys')),
      region,
      hosts: ['localhost'],
      entropy,
    }),
    telemetryKeys: await openTelemetryKeys({ store: keyStore, clock: base.clock, entropy }),
    journal: openErasureJournal(openDisk(folder)),
    withholding: await openWithholding({ ...base, audit }),
    masking: await openMasking({ store: keyStore, clock: base.clock, entropy }),
    sampling: createSamplingPolicy({ store: base.store, clock: base.clock }),
    deflate: systemDeflate,
    limits,
    region,
    version: '0.1.0',
    addresses: { http: 'http://127.0.0.1:1', mqtt: 'mqtts://127.0.0.1:2' },
    access: createAccess({ store: base.store, clock: base.clock, entropy }),
    audit,
    entropy,
  };
  const publisher = publisherKey('acme');
  let made = 0;

  const world: World = {
    ...base,
    core,
    ...started(core),
    bus: new MemoryBus(),

    async settle() {
      for (let round = 0; round < 12; round += 1) {
        for (let turn = 0; turn < 12; turn += 1) await new Promise((resolve) => setImmediate(resolve));
        base.clock.advance(60);
      }
    },

    async pass(ms) {
      for (let left = ms; left > 0; left -= 5_000) {
        base.clock.advance(Math.min(left, 5_000));
        await world.settle();
      }
    },

    async restart() {
      await world.rollouts.stop();
      await world.fleet.stop();
      world.bus = new MemoryBus();
      Object.assign(world, started(core));
      await world.fleet.start(world.bus);
      await world.rollouts.start();
      await world.settle();
    },

    async push(releaseId, counter, requires = null, model = identityModel(releaseId)) {
      const { namespace = '' } = parseReleaseId(releaseId) ?? {};
      if ((await base.repository.publisher(namespace)) === null) {
        unwrap(await base.repository.delegate(namespace, [hexOf(publisher)], 1));
      }
      const { metadataVersion } = (await base.repository.publisher(namespace)) ?? { metadataVersion: 0 };
      const push = preparePush({
        releaseId,
        model,
        current:
          metadataVersion === 0 ? null : await base.repository.file(`${metadataVersion}.${namespace}.json`),
        counter,
        signers: [publisher],
        requires,
        expiresAtMs: base.clock.wall() + 365 * 86_400_000,
      });
      unwrap(await base.blobs.put(sha256Hex(model), once(model)));
      const outcome = unwrap(await base.releases.push(push));
      assert.equal(outcome.status, 'accepted');
    },

    claim: ({ labels = {}, uses = 1, ttlMs = 86_400_000 } = {}) =>
      world.fleet.claims.create({ labels, uses, ttlMs, createdBy: 'tester' }),

    async enrol(claim, device, attempt = 'attempt1') {
      const csr = await makeDeviceRequest(device.seed);
      const agent = { version: '0.1.0', runtime: '1.30.0', arch: 'x64' };
      const body = { ...head(world), csr, labels: { own: 'yes', site: 'own' }, timezone: 'UTC', agent };
      return enrolWith(world, claim.claimId, attempt, encodeMessage(body));
    },

    async devices(count, labels = {}) {
      const claim = await world.claim({ labels, uses: count });
      const devices: Device[] = [];
      for (let index = 0; index < count; index += 1) {
        made += 1;
        const device = new Device(world, String(made));
        assert.equal((await world.enrol(claim, device)).status, 'accepted');
        device.online();
        devices.push(device);
      }
      await world.settle();
      return devices;
    },

    async start(file) {
      const { id } = unwrap(await world.rollouts.begin(unwrap(parseRolloutFile(file)), 'tester'));
      await world.settle();
      return id;
    },
    status: async (rolloutId) => unwrap(await world.rollouts.status(rolloutId)),
    async close() {
      await world.rollouts.stop();
      await world.fleet.stop();
      await base.store.close();
      await keyStore.close();
    },
    view: async (device) => unwrap(await world.fleet.devices.show(device.id)),
    events: (code) => world.fleet.events.list({ code, limit: 100 }),

    async reply(device, channel, ask) {
      const topic = deviceTopic(region, device.id, channel);
      const replies = () => world.bus.published.filter((message) => message.topic === topic);
      const before = replies().length;
      ask();
      // Certificates are made on other threads: a busy machine takes its time.
      for (const end = performance.now() + 30_000; performance.now() < end; ) {
        const reply = replies()[before];
        if (reply !== undefined) return reply.payload;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      throw new Error(`no answer on ${channel}`);
    },
  };
  await world.fleet.start(world.bus);
  await world.rollouts.start();
  t.after(() => world.close());
  return world;
}

function started(core: RegistryCore): { fleet: Fleet; rollouts: Rollouts } {
  const fleet = createFleet(core);
  return { fleet, rollouts: createRollouts(core, fleet) };
}

/** Sends any bytes as an enrolment request and gives the reply. */
export async function enrolWith(
  world: World,
  claimId: string,
  attempt: string,
  payload: Uint8Array,
): Promise<EnrolReply['result']> {
  const topic = enrolReplyTopic(region, claimId, attempt);
  const before = world.bus.published.filter((message) => message.topic === topic).length;
  world.bus.say(enrolRequestTopic(region, claimId, attempt), payload);
  // Certificates are made on other threads: a busy machine takes its time.
  for (const end = performance.now() + 30_000; performance.now() < end; ) {
    const replies = world.bus.published.filter((message) => message.topic === topic);
    const reply = replies[before];
    if (reply !== undefined) return unwrap(parseMessage(enrolReplySchema, reply.payload)).result;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  throw new Error('no enrolment reply');
}

/** The refusal of a result that must be one. */
export function refusalOf(result: Result<unknown>): string {
  assert.ok(!result.ok, 'expected a refusal');
  return result.refusal.code;
}

/** A rollout file with one wave of everything, unless `spec` says otherwise. */
export function rolloutFile(name: string, spec: Record<string, unknown>): string {
  const whole = { waves: [{ percent: 100 }], ...spec };
  return JSON.stringify({ apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name }, spec: whole });
}
