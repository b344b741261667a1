// Why: downloads of blobs, the same over MQTT and HTTPS: rights, turns, rates, reading and counting in one place.
// Trusts: its caller for who asks. Must never: say of a digest that it exists to a device that may not have it.

import { limits as fixed } from '../../shared/kernel/limits.ts';
import type { RegistryCore } from '../core.ts';
import type { FleetEvents } from '../fleet/events.ts';
import { createReader } from './reader.ts';
import type { Rights } from './rights.ts';
import { freeLease, type Source, type TransferEnd, transfer } from './transfer.ts';
import { createTurns, type TurnCounters } from './turns.ts';

const pieceBytesMin = 4 * 1024;

export interface DownloadCounters extends TurnCounters {
  denied: number;
  notFound: number;
  bytes: number;
  pieces: number;
  abandoned: number;
  /** What devices did not have to fetch because they fetched an encoded file in the place of another. */
  savedBytes: number;
  /** Now. */
  downloading: number;
  waiting: number;
}

export interface BlobSource extends Source {
  /** A file that is one piece waits for nobody. */
  small: boolean;
  /** Of the file that it was made for; null where it is that file. */
  targetBytes: number | null;
}

export interface Downloads {
  /** The blob, where the device may have it: a file of its releases, or one that was encoded for such a file. */
  find(deviceId: string, sha256: string): Promise<BlobSource | 'denied' | 'not-found'>;
  /** Sends a range when it is the device's turn. `busy`: it is to ask again. */
  send(order: {
    deviceId: string;
    source: BlobSource;
    from: number;
    until: number;
    send(piece: Uint8Array, offset: number): Promise<boolean>;
  }): Promise<TransferEnd | 'busy'>;
  counters(): DownloadCounters;
  /** Ends what is under way after its present piece. */
  stop(): void;
}

export function createDownloads(
  core: RegistryCore,
  parts: { events: FleetEvents; rights: Rights },
): Downloads {
  const { blobs, encodings, limits, log, clock } = core;
  const { events, rights } = parts;
  const turns = createTurns(clock, limits);
  const reader = createReader({ partBytes: limits.fetchReadBytes, cacheBytesMax: limits.readCacheBytesMax });
  const counters = { denied: 0, notFound: 0, bytes: 0, pieces: 0, abandoned: 0, savedBytes: 0 };
  // Something goes at least every second, also at a low rate: a device that hears nothing asks again.
  const rate = limits.deviceBytesPerSecondMax;
  const frameBytes = fixed.bulkFramePayloadBytes;
  const pieceBytes = rate === 0 ? frameBytes : Math.min(frameBytes, Math.max(pieceBytesMin, rate));
  let stopped = false;

  async function refused(deviceId: string, sha256: string, why: 'denied' | 'not-found') {
    counters[why === 'denied' ? 'denied' : 'notFound'] += 1;
    const code = `fetch-${why}` as const;
    log.emit(why === 'denied' ? 'warn' : 'debug', 'fetch.refused', { deviceId, code, name: sha256 });
    await events.recordStranger({ source: 'registry', subject: deviceId, code, detail: `blob ${sha256}` });
    return why;
  }

  function sourceOf(
    files: Pick<RegistryCore['blobs'], 'readRange'>,
    sha256: string,
    totalBytes: number,
    targetBytes: number | null,
  ): BlobSource {
    const read = (offset: number) => reader.read(files, sha256, offset);
    return { totalBytes, read, small: totalBytes <= frameBytes, targetBytes };
  }

  /** Made for a file that the device may have. */
  async function findEncoded(deviceId: string, sha256: string): Promise<BlobSource | null> {
    for (const target of await encodings.madeFor(sha256)) {
      if (!(await rights.mayHave(deviceId, target.sha256))) continue;
      const bytes = await encodings.files.size(sha256);
      if (bytes !== null) return sourceOf(encodings.files, sha256, bytes, target.bytes);
    }
    return null;
  }

  return {
    async find(deviceId, sha256) {
      // Denied before it is looked up: nobody learns which digests exist.
      if (!(await rights.mayHave(deviceId, sha256)))
        return (await findEncoded(deviceId, sha256)) ?? refused(deviceId, sha256, 'denied');
      const bytes = await blobs.size(sha256);
      if (bytes === null) return refused(deviceId, sha256, 'not-found');
      return sourceOf(blobs, sha256, bytes, null);
    },

    async send({ deviceId, source, from, until, send }) {
      const turn = source.small ? null : await turns.enter(deviceId);
      if (turn === null && !source.small) return stopped ? 'stopped' : 'busy';
      try {
        const end = await transfer({
          source,
          from,
          until,
          pieceBytes,
          lease: turn ?? freeLease(limits.fetchWindowBytes, () => stopped),
          send,
          sent: (bytes) => {
            counters.bytes += bytes;
            counters.pieces += 1;
          },
        });
        if (end === 'abandoned' || end === 'stopped') counters.abandoned += 1;
        if (end === 'sent' && until === source.totalBytes && source.targetBytes !== null)
          counters.savedBytes += Math.max(0, source.targetBytes - source.totalBytes);
        return end;
      } finally {
        turn?.leave();
      }
    },

    counters: () => ({
      ...counters,
      ...turns.counters(),
      downloading: turns.downloading(),
      waiting: turns.waiting(),
    }),

    stop() {
      stopped = true;
      turns.stop();
    },
  };
}
