// Why: serves the bytes that devices ask for over the bus (DESIGN 7): metadata to all, blobs to whom they are assigned.
// Trusts: the broker for who asks. Must never: read more for one device than it takes, or serve it another's blobs.

import { asFleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { RegistryBus } from '../../shared/kernel/ports.ts';
import { encodeFrameHead, type FrameStatus } from '../../shared/wire/frames.ts';
import { type FetchRequest, fetchRequestSchema, parseMessage } from '../../shared/wire/messages.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import type { RegistryCore } from '../core.ts';
import type { BlobSource, Downloads } from '../delivery/downloads.ts';
import type { Rights } from '../delivery/rights.ts';
import type { WaysDesk } from '../delivery/ways.ts';
import type { FleetEvents } from './events.ts';
import { type Parcels, parcelNamespacesMax } from './parcels.ts';

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
}

export function createFetches(
  core: RegistryCore,
  parts: { events: FleetEvents; parcels: Parcels; rights: Rights; downloads: Downloads; ways: WaysDesk },
): Fetches {
  const { repository, blobs, store, log, region } = core;
  const { qb } = store;
  const { rights, downloads } = parts;
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

  /** What needs no turn: metadata keeps a fleet safe and is small. */
  const sourceOf = (bytes: Uint8Array): BlobSource => ({
    totalBytes: bytes.length,
    read: async (offset) => bytes.subarray(offset),
    small: true,
    targetBytes: null,
  });

  /** For a device that came from there and has not been told yet which keys that region has now. */
  async function rootOfPeer(name: string): Promise<Uint8Array | null> {
    const [, peer, version] = /^regions\/([^/]+)\/(\d+)\.root\.json$/.exec(name) ?? [];
    if (peer === undefined) return null;
    const row = await store.tx((db) =>
      db.first(
        qb
          .selectFrom('region_roots')
          .select('bytes')
          .where('region', '=', peer)
          .where('version', '=', Number(version)),
      ),
    );
    return row === undefined ? null : new Uint8Array(row.bytes);
  }

  async function find(
    deviceId: string,
    { target, offset, length }: FetchRequest,
  ): Promise<BlobSource | 'denied' | 'not-found' | 'invalid' | 'failed'> {
    if (target.kind === 'blob') return downloads.find(deviceId, target.sha256);
    if (target.kind === 'refresh') {
      if (Object.keys(target.namespaces).length > parcelNamespacesMax) return 'invalid';
      const parcel = await parts.parcels.of(deviceId, target, { offset, length });
      // The one that it began with is gone: `failed` makes it begin again.
      return parcel === null ? 'failed' : sourceOf(parcel);
    }
    if (target.kind === 'metadata') {
      const bytes = (await repository.file(target.name)) ?? (await rootOfPeer(target.name));
      if (bytes !== null) return sourceOf(bytes);
      // Asking for the next root until there is none is how TUF finds it (§5.3): no event.
      counters.notFound += 1;
      log.emit('debug', 'fetch.refused', { deviceId, code: 'fetch-not-found', name: target.name });
      return 'not-found';
    }
    // As for the blob itself.
    const allowed = (await rights.mayHave(deviceId, target.sha256))
      ? await blobs.size(target.sha256)
      : await downloads.find(deviceId, target.sha256);
    if (typeof allowed === 'number')
      return sourceOf(await parts.ways.answer(deviceId, target.sha256, allowed, target.held));
    return allowed === 'denied' ? 'denied' : 'not-found';
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
    const end = (status: FrameStatus): Promise<boolean> =>
      bus.sendBulk(deviceId, topic, encodeFrameHead({ requestId, status, offset: 0, totalBytes: 0 }));

    const asked = underWay.get(deviceId) ?? 0;
    if (asked > limits.fetchesPerDeviceMax) {
      counters.busy += 1;
      // Even the answers wait for a device that does not read: beyond twice the bound it gets none.
      if (asked <= 2 * limits.fetchesPerDeviceMax) await end('busy');
      return;
    }
    try {
      const source = await find(deviceId, parsed.value);
      if (source === 'failed' || source === 'denied' || source === 'not-found') {
        await end(source);
        return;
      }
      if (source === 'invalid' || offset > source.totalBytes) {
        counters.invalid += 1;
        await end('invalid');
        return;
      }
      const length = Math.min(parsed.value.length, limits.fetchRangeBytesMax, source.totalBytes - offset);
      const { totalBytes } = source;
      const outcome = await downloads.send({
        deviceId,
        source,
        from: offset,
        until: offset + length,
        send: (piece, at) => {
          const head = encodeFrameHead({ requestId, status: 'data', offset: at, totalBytes });
          return bus.sendBulk(deviceId, topic, head, piece);
        },
      });
      if (outcome === 'failed') await end('failed');
      // It has lost its turn, or waited in vain: what came before counts, and it asks again.
      if (outcome === 'busy' || outcome === 'over' || outcome === 'slow') {
        counters.busy += 1;
        await end('busy');
      }
      log.emit('debug', 'fetch.served', { deviceId, target, offset, length, outcome });
    } catch (thrown) {
      await end('failed');
      throw asFleetError(thrown);
    }
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
    counters: () => {
      const { pieces, bytes, denied, notFound, abandoned } = downloads.counters();
      return {
        ...counters,
        frames: pieces,
        bytes,
        denied: counters.denied + denied,
        notFound: counters.notFound + notFound,
        abandoned,
      };
    },
  };
}
