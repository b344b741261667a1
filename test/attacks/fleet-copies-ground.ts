// Why: a device that is switched off, as bytes, and what a start makes of them: the ground of attacks on what it may never
// forget. Trusts: agent/state.ts, on files in memory. Must never: be made when the module loads; a mutant may not let it.

import assert from 'node:assert/strict';
import { agentMigrations, openState } from '../../agent/state.ts';
import type { Keeper } from '../../agent/trust/keeper.ts';
import { copyFile } from '../../agent/trust/second-copy.ts';
import type { HeldAssignment } from '../../agent/trust/trust-store.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { openStore, openStoreFromSnapshot, type SqliteStore } from '../../shared/host/sqlite.ts';
import type { Disk, Place, SqlTx } from '../../shared/kernel/ports.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { region, regionRootFile } from './fleet-region.ts';
import { deviceId } from './fleet-reports.ts';
import { decode, encode, HostileRepository, nowMs, signerNamed } from './hostile-repository.ts';

function memoryDisk(files: Map<string, Uint8Array>): Disk {
  const nothing = async (): Promise<void> => undefined;
  const at = (path: string): Uint8Array => files.get(path) ?? new Uint8Array();
  return {
    read: async (path) => files.get(path) ?? null,
    readRange: async (path, from, length) => files.get(path)?.subarray(from, from + length) ?? null,
    size: async (path) => files.get(path)?.length ?? null,
    create: async (path) => void files.set(path, new Uint8Array()),
    append: async (path, bytes) => void files.set(path, new Uint8Array(Buffer.concat([at(path), bytes]))),
    truncate: async (path, bytes) => void files.set(path, at(path).slice(0, bytes)),
    rename: async (from, to) => {
      files.set(to, at(from));
      files.delete(from);
    },
    unlink: async (path) => void files.delete(path),
    list: async () => [...files.keys()].sort(),
    freeBytes: async () => null,
    fsync: nothing,
    fsyncDir: nothing,
  };
}

/** What lies on a device that is switched off. */
interface Image {
  /** Null: there is none. */
  database: Uint8Array | null;
  files: Map<string, Uint8Array>;
}

interface Started {
  keeper: Keeper;
  counter: number;
  /** What the start logged: nothing, where both copies were whole. */
  heard: string[];
  stop(): Promise<Image>;
}

export const options = { synchronous: 'NORMAL', migrations: agentMigrations } as const;

export async function start({ database, files }: Image): Promise<Started> {
  let [store, left]: [SqliteStore | null, Uint8Array | null] = [null, database];
  const place: Place = {
    disk: () => memoryDisk(files),
    // What is broken is set aside; the next one is new.
    openStore: async () => {
      store = await (left === null ? openStore(':memory:', options) : openStoreFromSnapshot(left, options));
      left = null;
      return store;
    },
  };
  const heard: string[] = [];
  const state = await openState(place, { emit: (_level, code) => void heard.push(code) });
  const { counter } = await state.keeper.store.tx(
    (db) => db.get<{ counter: number }>('SELECT counter FROM report_counter') ?? { counter: -1 },
  );
  return {
    keeper: state.keeper,
    counter,
    heard,
    stop: async () => {
      const image = { database: store?.snapshot() ?? null, files };
      await state.close();
      return image;
    },
  };
}

export const fresh = (): Image => ({ database: null, files: new Map() });
const firstRoot = (): Uint8Array => new HostileRepository().bytes('root');

export const assigned = (epoch: number) => ({
  ...({ schemaVersion: 1, deviceId, region, epoch, issuedAtMs: nowMs, expiresAtMs: nowMs + 1 } as const),
  ...{ labels: {}, releases: [], telemetry: null, authoritiesSha256: null },
});
export const director = signerNamed('director');
export function held(epoch: number, signer: Signer = director): HeldAssignment {
  const envelope = signAssignment(assigned(epoch), signer);
  const payloadSha256 = sha256Hex(Buffer.from(envelope.payload, 'base64'));
  return { epoch, payloadSha256, envelope: JSON.stringify(envelope) };
}

export const countersUsed = 2_000;

export interface Made {
  now: Image;
  /** The same device at its first start. */
  before: Image;
}
let made: Promise<Made> | null = null;

/** A device that runs what epoch 5 says, was moved once, and has used some numbers. */
export async function make(): Promise<Made> {
  const first = await start(fresh());
  const identity = {
    ...{ seed: new Uint8Array(32).fill(7), deviceId, certificate: '', region, brokerUrl: '', fleetCa: '' },
    ...{ labels: {}, telemetryEpoch: 1, claimId: 'c'.repeat(20) },
  };
  await first.keeper.enrolled(identity, { catalogue: firstRoot(), region: regionRootFile() });
  await first.keeper.booted();
  await first.keeper.assignment(held(3));
  const { database, files } = await first.stop();
  const before = { database, files: new Map(files) };
  const second = await start({ database, files });
  for (let boots = 0; boots < 3; boots += 1) await second.keeper.booted();
  await second.keeper.assignment(held(5));
  await second.keeper.moves((moves) => ({ ...moves, lastMoveId: '2'.repeat(24), lastIssuedAtMs: nowMs + 1 }));
  await second.keeper.store.tx((db) => db.run('UPDATE report_counter SET counter = ?', countersUsed));
  // Refusals have numbers of their own, which are lower.
  await second.keeper.reserve(countersUsed);
  await second.keeper.reserve(5);
  return { now: await second.stop(), before };
}

export interface Damage {
  store?: (db: SqlTx) => void;
  /** Of the copy, whose digest is made anew. */
  copy?: (copy: Record<string, unknown>) => void;
  /** Bytes that were in the place of the copy's. */
  bytes?: (copy: Uint8Array, before: Uint8Array) => Uint8Array | null;
  lost?: true;
  older?: true;
}

export async function edited(database: Uint8Array | null, work: (db: SqlTx) => void): Promise<Uint8Array> {
  assert.ok(database);
  const store = await openStoreFromSnapshot(database, options);
  await store.tx(work);
  const bytes = store.snapshot();
  await store.close();
  return bytes;
}

export async function damaged(damage: Damage, own: Made | null = null): Promise<Image> {
  made ??= make();
  const { now, before } = own ?? (await made);
  const files = new Map(now.files);
  const copy = files.get(copyFile) ?? new Uint8Array();
  const text = decode(copy);
  if (damage.copy !== undefined) {
    const body: Record<string, unknown> = JSON.parse(text.slice(text.indexOf('\n') + 1));
    damage.copy(body);
    const changed = JSON.stringify(body);
    files.set(copyFile, encode(`${sha256Hex(encode(changed))}\n${changed}`));
  }
  const bytes = damage.bytes?.(copy, before.files.get(copyFile) ?? new Uint8Array());
  if (bytes === null) files.delete(copyFile);
  else if (bytes !== undefined) files.set(copyFile, bytes);
  let { database } = damage.older === true ? before : now;
  if (damage.lost === true) database = null;
  else if (damage.store !== undefined) database = await edited(database, damage.store);
  return { database, files };
}
