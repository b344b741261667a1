// Why: the device's real authority and metadata fetcher with everything else left out: no broker, no files, so
// that a row takes milliseconds. Trusts: agent/trust and agent/bus. Must never: decide anything itself.

import { fetchWhole } from '../../agent/bus/fetcher.ts';
import { agentMigrations } from '../../agent/state.ts';
import { type Authority, openAuthority } from '../../agent/trust/authority.ts';
import { type Held, nothingHeld } from '../../agent/trust/held.ts';
import { createKeeper } from '../../agent/trust/keeper.ts';
import { createMetadataSources } from '../../agent/trust/refresh.ts';
import { loadTrust, pinRoots } from '../../agent/trust/trust-store.ts';
import { isSameRelease } from '../../agent/update/machine-state.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { openStore, openStoreFromSnapshot, type SqliteStore } from '../../shared/host/sqlite.ts';
import type { Clock, Fetcher } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { makeRegionRoot } from '../../shared/trust/region.ts';
import type { AssignedRelease } from '../../shared/wire/messages.ts';
import type { Bench, Lab, Trick } from './attack-case.ts';
import { dayMs, HostileRepository, nowMs, signerNamed } from './hostile-repository.ts';

export const region = 'attacked';
export const deviceId = 'd'.repeat(32);
const director = signerNamed('director');

const roleOf = (name: string) => ({ keys: [signerNamed(name).publicKey], threshold: 1 });
export const regionRoot = makeRegionRoot({
  region,
  version: 1,
  expiresAtMs: nowMs + 365 * dayMs,
  roles: {
    root: roleOf('region-root'),
    director: roleOf('director'),
    time: roleOf('time'),
    ack: roleOf('ack'),
    command: roleOf('command'),
  },
  signers: [signerNamed('region-root')],
});

const baseline = new HostileRepository();
const rangeBytesMax = 1024 * 1024;
let migrated: Promise<Uint8Array> | null = null;

/** A database with the agent's tables and the pinned roots, made once and copied for each lab. */
async function freshStore(): Promise<SqliteStore> {
  const options = { synchronous: 'NORMAL', migrations: agentMigrations } as const;
  migrated ??= openStore(':memory:', options).then(async (store) => {
    const catalogue = baseline.files.get('1.root.json') ?? new Uint8Array();
    await store.tx((db) => pinRoots(db, { catalogue, region: regionRoot }));
    const bytes = store.snapshot();
    await store.close();
    return bytes;
  });
  return openStoreFromSnapshot(await migrated, options);
}

export const directBench: Bench = {
  kind: 'direct',
  open: openDirectLab,
  close: async () => undefined,
};

export interface DirectLab extends Lab {
  authority(): Authority;
  /** From now on this release serves, or none. */
  serving(path: string | null): void;
  /** From now on exactly this is the last good release, or none is. */
  proven(release: AssignedRelease | null): void;
}

export async function openDirectLab(): Promise<DirectLab> {
  const store = await freshStore();
  const honest = baseline.fork();
  let served = honest;
  let tricks: Readonly<Record<string, Trick>> = {};
  let wallMs: number | null = null;
  let epoch = 0;
  let running: string | null = null;
  let lastGood: AssignedRelease | null = null;
  const clock: Clock = { ...systemClock, wall: () => wallMs ?? nowMs };

  const fetcher: Fetcher = {
    range: async (target, offset, length) => {
      if (target.kind !== 'metadata') return refuse('fetch-not-found', target.kind);
      const trick = tricks[target.name];
      if (trick === 'silent') return refuse('fetch-timeout', target.name);
      if (trick === 'endless') return ok({ bytes: new Uint8Array(length), totalBytes: 2 ** 45 });
      const whole = served.files.get(target.name);
      if (whole === undefined) return refuse('fetch-not-found', target.name);
      const bytes = whole.subarray(offset, offset + Math.min(length, rangeBytesMax));
      return ok({ bytes, totalBytes: whole.length });
    },
  };
  const log = { emit: () => undefined };
  // The second copy in memory: what is attacked here is what is verified, not how it is kept.
  let held: Held = nothingHeld;
  const keeper = createKeeper(store, {
    held: () => held,
    save: async (change) => {
      held = { ...held, ...(typeof change === 'function' ? change(held) : change) };
    },
    close: async () => undefined,
  });
  const open = (): Promise<Authority> =>
    openAuthority({
      keeper,
      region,
      deviceId,
      sources: createMetadataSources({
        fetch: (target, bytesMax) => fetchWhole(fetcher, target, bytesMax),
        deflate: systemDeflate,
        log,
      }),
      giveBack: () => undefined,
      runs: (assigned) => assigned.manifestSha256 === running,
      proven: (assigned) => lastGood !== null && isSameRelease(lastGood, assigned),
      clock,
      log,
    });
  let authority = await open();

  const lab: DirectLab = {
    honest,
    authority: () => authority,
    serving: (path) => {
      running = path === null ? null : served.assignmentOf(path).manifestSha256;
    },
    proven: (release) => {
      lastGood = release;
    },
    serve: (repository, with_ = {}) => {
      served = repository;
      tricks = with_;
    },
    update: (...paths) => lab.assign(paths.map((path) => served.assignmentOf(path))),
    assign: async (releases) => {
      epoch += 1;
      const assignment = {
        schemaVersion: 1 as const,
        deviceId,
        region,
        epoch,
        issuedAtMs: nowMs,
        expiresAtMs: nowMs + 100 * 365 * dayMs,
        labels: {},
        releases: [...releases],
        telemetry: null,
        authoritiesSha256: null,
      };
      const considered = await authority.consider(signAssignment(assignment, director));
      return considered.ok ? 'accepted' : considered.refusal.code;
    },
    held: async () => {
      const record = await loadTrust(store);
      if (record === null) throw new Error('the device holds no roots');
      return record.catalogue;
    },
    edit: async (work) => {
      await store.tx(work);
      authority = await open();
    },
    setClock: (ms) => {
      wallMs = ms;
    },
    close: () => store.close(),
  };
  return lab;
}
