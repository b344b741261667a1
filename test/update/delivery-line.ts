// Why: a stand-in for the registry's files and offers, and a device's disk, for tests of how a file gets here.
// Trusts: the real Disk, the real codec in its real process. Must never: leave its folder behind.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type BlobLimits, type BlobRef, type Blobs, openBlobs } from '../../agent/update/fetch.ts';
import { drawBytes } from '../../firmware-sim/chance.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { createRebuilder } from '../../shared/host/rebuilder.ts';
import { systemZstd } from '../../shared/host/zstd.ts';
import type { LogEvent } from '../../shared/kernel/events.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Disk, Fetcher, FetchTarget, Rebuilder } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { encodeDelta } from '../../shared/onnx/delta/encode.ts';
import { encodeMessage } from '../../shared/wire/messages.ts';
import type { Way, Ways } from '../../shared/wire/ways.ts';

export const refOf = (bytes: Uint8Array): BlobRef => ({ sha256: sha256Hex(bytes), bytes: bytes.length });

/** Two files of one kind: the second is the first with a stretch of it changed. */
export function twoVersions(bytes: number, seed: number): [Uint8Array, Uint8Array] {
  const first = drawBytes(bytes, seed, 'version');
  const second = first.slice();
  const changed = Math.floor(bytes / 10);
  second.set(drawBytes(changed, seed, 'change'), Math.floor(bytes / 3));
  return [first, second];
}

export function encoded(target: Uint8Array, ...bases: Uint8Array[]): { bytes: Uint8Array; way: Way } {
  const base = bases.map((bytes) => ({ path: 'file', bytes }));
  const bytes = encodeDelta({ base, target: { path: 'file', bytes: target }, zstd: systemZstd });
  return { bytes, way: { ...refOf(bytes), bases: bases.map(sha256Hex) } };
}

export interface DeliveryLine {
  readonly blobs: Blobs;
  disk: Disk;
  folder: string;
  events: { event: LogEvent; fields: Record<string, unknown> }[];
  /** What can be had. */
  files: Map<string, Uint8Array>;
  /** Offers by target; a list is given one after the other, the last one again and again. */
  offers: Map<string, Partial<Ways>[]>;
  sentBytes: number;
  asked: FetchTarget[];
  /** In the place of an answer; null: the usual one. */
  instead: (target: FetchTarget, offset: number) => Result<never> | null;
  names(): string[];
  restart(): void;
  put(bytes: Uint8Array): BlobRef;
}

export interface LineTerms {
  disk?: (disk: Disk) => Disk;
  rebuilder?: (real: Rebuilder) => Rebuilder | null;
  limits?: Partial<BlobLimits>;
}

export function deliveryLine(context: TestContext, terms: LineTerms = {}): DeliveryLine {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-delivery-'));
  const process = createRebuilder(systemClock, { root: folder });
  context.after(async () => {
    await process.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const disk = (terms.disk ?? ((one) => one))(openDisk(folder));
  const offersOf = (sha256: string): Ways | null => {
    const list = line.offers.get(sha256);
    const next = list !== undefined && list.length > 1 ? list.shift() : list?.[0];
    const bytes = line.files.get(sha256)?.length ?? 0;
    return next === undefined
      ? null
      : { schemaVersion: 1, sha256, bytes, ways: [], retryAfterMs: null, ...next };
  };
  const fetcher: Fetcher = {
    range: async (target, offset, length) => {
      line.asked.push(target);
      const instead = line.instead(target, offset);
      if (instead !== null) return instead;
      if (target.kind === 'ways') {
        const offer = offersOf(target.sha256);
        if (offer === null) return refuse('fetch-not-found', 'no ways');
        const body = encodeMessage(offer);
        return ok({ bytes: body, totalBytes: body.length });
      }
      const file = target.kind === 'blob' ? line.files.get(target.sha256) : undefined;
      if (file === undefined) return refuse('fetch-not-found', 'no such file');
      const bytes = file.slice(offset, offset + length);
      line.sentBytes += bytes.length;
      return ok({ bytes, totalBytes: file.length });
    },
  };
  const rebuilder = terms.rebuilder === undefined ? process : terms.rebuilder(process);
  const open = (): Blobs =>
    openBlobs({
      disk,
      clock: systemClock,
      fetcher,
      log: { emit: (_level, event, fields = {}) => line.events.push({ event, fields }) },
      limits: { ...limits, ...terms.limits },
      ...(rebuilder === null ? {} : { rebuilder }),
    });
  let blobs = open();
  const line: DeliveryLine = {
    get blobs() {
      return blobs;
    },
    disk,
    folder,
    events: [],
    files: new Map(),
    offers: new Map(),
    sentBytes: 0,
    asked: [],
    instead: () => null,
    names: () => readdirSync(join(folder, 'blobs')).sort(),
    restart: () => {
      blobs = open();
    },
    put: (bytes) => {
      line.files.set(sha256Hex(bytes), bytes);
      return refOf(bytes);
    },
  };
  return line;
}

export const contentOf = (line: DeliveryLine, ref: BlobRef): Uint8Array =>
  new Uint8Array(readFileSync(join(line.folder, 'blobs', ref.sha256)));
