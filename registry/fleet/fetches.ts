// Why: serves the bytes that devices ask for over the bus (DESIGN 7): metadata to all, blobs to whom they are assigned.
// Trusts: the broker for who asks. Must never: read more for one device than it takes, or serve it another's blobs.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { RegistryBus } from '../../shared/kernel/ports.ts';
import { type BulkFrame, encodeFrame, type FrameStatus } from '../../shared/wire/frames.ts';
import { type FetchRequest, fetchRequestSchema, parseMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import type { FleetEvents } from './events.ts';
import { fleetLimits } from './limits.ts';
import { type Parcels, parcelNamespacesMax } from './parcels.ts';

type FetchTarget = FetchRequest['target'];

export interface FetchCounters {
  requests: number;
  frames: number;
  bytes: number;
  denied: number;
  notFound: number;
  busy: number;
  invalid: number;
  /** The device went away or stopped reading. */
  abandoned: number;
}

export interface Fetches {
  /** A message on the device's `fetch` topic; answered by frames on `bytes`. */
  handle(bus: RegistryBus, deviceId: string, payload: Uint8Array): Promise<void>;
  counters(): FetchCounters;
  /** Ends what is under way after its present frame. */
  stop(): void;
}

/** A file that may be read: its size and a way to read a part of it. */
interface Source {
  totalBytes: number;
  read(offset: number, length: number): Promise<Uint8Array | null>;
}

export function createFetches(core: RegistryCore, parts: { events: FleetEvents; parcels: Parcels }): Fetches {
  const { store, repository, blobs, releases, log, region } = core;
  const { qb } = store;
  const counters: FetchCounters = {
    requests: 0,
    frames: 0,
    bytes: 0,
    denied: 0,
    notFound: 0,
    busy: 0,
    invalid: 0,
    abandoned: 0,
  };
  const underWay = new Map<string, number>();
  /** Digests of each release, by release id: a release never changes. Oldest first. */
  const digestsOf = new Map<string, ReadonlySet<string>>();
  let stopped = false;

  async function releaseDigests(releaseId: string): Promise<ReadonlySet<string>> {
    const known = digestsOf.get(releaseId);
    if (known !== undefined) return known;
    const release = await releases.find(releaseId);
    if (release === null) return new Set();
    const digests = new Set([release.manifestSha256, ...release.manifest.files.map((file) => file.sha256)]);
    digestsOf.set(releaseId, digests);
    for (const oldest of digestsOf.keys()) {
      if (digestsOf.size <= fleetLimits.releasesRemembered) break;
      digestsOf.delete(oldest);
    }
    return digests;
  }

  async function mayHave(deviceId: string, sha256: string): Promise<boolean> {
    const active = qb.selectFrom('devices').select('device_id').where('status', '=', 'active');
    const assigned = qb
      .selectFrom('desired')
      .select('release_id')
      .where('device_id', '=', deviceId)
      .where('device_id', 'in', active);
    // What it says it runs may have to be mended, where it was assigned it once: its word alone opens nothing.
    const running = qb
      .selectFrom('rollout_devices as m')
      .innerJoin('rollouts as o', 'o.rollout_id', 'm.rollout_id')
      .innerJoin('device_models as r', (join) =>
        join.onRef('r.device_id', '=', 'm.device_id').onRef('r.name', '=', 'o.as_name'),
      )
      .select('o.release_id')
      .where('m.device_id', '=', deviceId)
      .where('m.device_id', 'in', active)
      .where('m.epoch', '>', 0)
      .where((where) =>
        where.or([
          where('r.active', '=', where.ref('o.release_id')),
          where('r.last_good', '=', where.ref('o.release_id')),
        ]),
      );
    const desired = await store.tx((db) => db.all(assigned.union(running)));
    for (const { release_id } of desired) {
      if ((await releaseDigests(release_id)).has(sha256)) return true;
    }
    return false;
  }

  const sourceOf = (bytes: Uint8Array): Source => ({
    totalBytes: bytes.length,
    read: async (offset, length) => bytes.subarray(offset, offset + length),
  });

  async function find(
    deviceId: string,
    { target, offset, length }: FetchRequest,
  ): Promise<Source | 'denied' | 'not-found' | 'invalid' | 'failed'> {
    if (target.kind === 'refresh') {
      if (Object.keys(target.namespaces).length > parcelNamespacesMax) return 'invalid';
      const parcel = await parts.parcels.of(deviceId, target, { offset, length });
      // The one that it began with is gone: `failed` makes it begin again.
      return parcel === null ? 'failed' : sourceOf(parcel);
    }
    if (target.kind === 'metadata') {
      const bytes = await repository.file(target.name);
      return bytes === null ? 'not-found' : sourceOf(bytes);
    }
    if (target.kind === 'ways') return 'not-found';
    // Denied before it is looked up: nobody learns which digests exist.
    if (!(await mayHave(deviceId, target.sha256))) return 'denied';
    const totalBytes = await blobs.size(target.sha256);
    if (totalBytes === null) return 'not-found';
    return { totalBytes, read: (offset, length) => blobs.readRange(target.sha256, offset, length) };
  }

  async function serve(bus: RegistryBus, deviceId: string, payload: Uint8Array): Promise<void> {
    const parsed = parseMessage(fetchRequestSchema, payload);
    if (!parsed.ok) {
      // Without a request id there is nothing to answer to.
      counters.invalid += 1;
      log.emit('warn', 'fetch.refused', { deviceId, code: 'fetch-invalid', detail: parsed.refusal.detail });
      await parts.events.recordStranger({
        source: 'registry',
        subject: deviceId,
        code: 'fetch-invalid',
        detail: parsed.refusal.detail,
      });
      return;
    }
    const { requestId, target, offset } = parsed.value;
    const topic = deviceTopic(region, deviceId, 'bytes');
    const send = (frame: Omit<BulkFrame, 'requestId'>): Promise<boolean> =>
      bus.sendBulk(deviceId, topic, encodeFrame({ requestId, ...frame }));
    const end = (status: FrameStatus): Promise<boolean> =>
      send({ status, offset: 0, totalBytes: 0, payload: new Uint8Array(0) });

    const asked = underWay.get(deviceId) ?? 0;
    if (asked > limits.fetchesPerDeviceMax) {
      counters.busy += 1;
      // Even the answers wait for a device that does not read: beyond twice the bound it gets none.
      if (asked <= 2 * limits.fetchesPerDeviceMax) await end('busy');
      return;
    }
    try {
      const source = await find(deviceId, parsed.value);
      if (source === 'failed') {
        await end('failed');
        return;
      }
      if (source === 'denied' || source === 'not-found') {
        await refuseFetch(deviceId, target, source);
        await end(source);
        return;
      }
      if (source === 'invalid' || offset > source.totalBytes) {
        counters.invalid += 1;
        await end('invalid');
        return;
      }
      const length = Math.min(parsed.value.length, limits.fetchRangeBytesMax, source.totalBytes - offset);
      const sent = await sendRange(source, offset, length, send);
      if (sent === 'failed') await end('failed');
      if (sent === 'abandoned') counters.abandoned += 1;
      log.emit('debug', 'fetch.served', { deviceId, target, offset, length, outcome: sent });
    } catch (thrown) {
      await end('failed');
      throw asFleetError(thrown);
    }
  }

  /** At least one frame, also for an empty range: the device learns the size from it. */
  async function sendRange(
    source: Source,
    from: number,
    length: number,
    send: (frame: Omit<BulkFrame, 'requestId'>) => Promise<boolean>,
  ): Promise<'sent' | 'failed' | 'abandoned'> {
    const until = from + length;
    let offset = from;
    do {
      const chunk = await source.read(offset, Math.min(fleetLimits.fetchReadBytes, until - offset));
      if (chunk === null || (chunk.length === 0 && offset < until)) return 'failed';
      let at = 0;
      do {
        if (stopped) return 'abandoned';
        const payload = chunk.subarray(at, at + limits.bulkFramePayloadBytes);
        const taken = await send({
          status: 'data',
          offset: offset + at,
          totalBytes: source.totalBytes,
          payload,
        });
        if (!taken) return 'abandoned';
        counters.frames += 1;
        counters.bytes += payload.length;
        at += payload.length;
      } while (at < chunk.length);
      offset += chunk.length;
    } while (offset < until);
    return 'sent';
  }

  async function refuseFetch(
    deviceId: string,
    target: FetchTarget,
    why: 'denied' | 'not-found',
  ): Promise<void> {
    if (why === 'denied') counters.denied += 1;
    else counters.notFound += 1;
    const name =
      target.kind === 'blob' ? target.sha256 : target.kind === 'metadata' ? target.name : 'metadata';
    log.emit(why === 'denied' ? 'warn' : 'debug', 'fetch.refused', { deviceId, code: `fetch-${why}`, name });
    // Asking for the next root until there is none is how TUF finds it (§5.3): no event.
    if (target.kind !== 'blob') return;
    const detail = `blob ${name}`;
    await parts.events.recordStranger({
      source: 'registry',
      subject: deviceId,
      code: `fetch-${why}`,
      detail,
    });
  }

  return {
    async handle(bus, deviceId, payload) {
      counters.requests += 1;
      underWay.set(deviceId, (underWay.get(deviceId) ?? 0) + 1);
      try {
        await serve(bus, deviceId, payload);
      } finally {
        const left = (underWay.get(deviceId) ?? 1) - 1;
        if (left === 0) underWay.delete(deviceId);
        else underWay.set(deviceId, left);
      }
    },
    counters: () => ({ ...counters }),
    stop() {
      stopped = true;
    },
  };
}
