// Why: a million records of a week in a registry's database: how long `telemetry query` and `drift` take over all of it.
// Trusts: the registry's own store, rollups and reader; only the bus and the batches' signatures are left out.
// Must never: ask a database that was filled in another way than ingest fills it.

import assert from 'node:assert/strict';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openRegistryStore, type RegistryStore } from '../../registry/store/open.ts';
import { createBatchStore } from '../../registry/telemetry/batches.ts';
import { createDrift } from '../../registry/telemetry/drift.ts';
import {
  openTelemetryKeys,
  type TelemetryKeys,
  telemetryKeyMigrations,
} from '../../registry/telemetry/keys.ts';
import type { OpenedRecord, SignedBatch } from '../../registry/telemetry/open-batch.ts';
import { createTelemetryRecords } from '../../registry/telemetry/records.ts';
import { createRollups } from '../../registry/telemetry/rollups.ts';
import { sealRecords, storageKey } from '../../registry/telemetry/sealed-records.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { ok } from '../../shared/kernel/result.ts';
import { addToSketch, createSketch, sketchToJson } from '../../shared/stats/sketch.ts';
import type { FeaturesStats } from '../../shared/wire/feature-stats.ts';
import type { ModelView } from '../../shared/wire/http.ts';
import { type Profile, profileSchema } from '../../shared/wire/profile.ts';
import type { BatchHead, TelemetryClass } from '../../shared/wire/telemetry.ts';
import { round } from './measure.ts';

const devices = 100;
const weekMs = 7 * 86_400_000;
/** Statistics each ten minutes, and eight records of the application in the same time. */
const windowMs = 600_000;
const windows = weekMs / windowMs;
const appPerWindow = 8;
/** A whole number of them makes a week. */
const windowsPerBatch = 126;
const features = 8;
const bins = 20;
const release = 'acme/pump@1.0.0';
const profileSha256 = 'ab'.repeat(32);

const none = new Uint8Array(0);

const profile: Profile = profileSchema.parse({
  schemaVersion: 1,
  features: Array.from({ length: features }, (_, index) => ({
    ...{ kind: 'numeric', role: 'input', tensor: 'sensors', index },
    edges: Array.from({ length: bins + 1 }, (_none, at) => at),
    counts: [0, ...Array<number>(bins).fill(1_000), 0],
    chunks: Array.from({ length: 10 }, (_none, part) => [
      0,
      ...Array.from({ length: bins }, (_one, at) => 100 + ((part * 7 + at * 3) % 11)),
      0,
    ]),
  })),
});

function statsAt(timeMs: number, turn: number): OpenedRecord[] {
  const data: FeaturesStats = {
    ...{ kind: 'features', model: 'pump', profileSha256, windowMs, rows: 600, seenRows: 600 },
    features: profile.features.map(({ role, tensor, index }) => ({
      ...{ role, tensor, index, of: 'value' as const, missing: 0 },
      counts: [0, ...Array.from({ length: bins }, (_, at) => 20 + ((turn + at * index) % 20)), 0],
    })),
  };
  const latency = createSketch();
  for (let at = 0; at < 20; at += 1) addToSketch(latency, 1 + ((turn + at * at) % 40) / 10);
  const errors = turn % 50 === 0 ? { 'infer-failed': 1 } : {};
  const requests = { kind: 'requests', model: 'pump', windowMs, requests: 600, errors };
  return [
    { timeMs, release, data: JSON.stringify(data) },
    { timeMs, release, data: JSON.stringify({ ...requests, latencySketch: sketchToJson(latency) }) },
  ];
}

interface Ground {
  store: RegistryStore;
  keys: TelemetryKeys;
  sinceMs: number;
}

/** One device's week, in batches as ingest hands them on: opened, sealed for the store, in their order. */
async function fillDevice({ store, keys, sinceMs }: Ground, deviceId: string): Promise<number> {
  const rollups = createRollups(store);
  const batches = createBatchStore(store, {
    addIn: (db, batch) => {
      if (batch.class === 'stats') rollups.addIn(db, batch.deviceId, batch.records);
    },
  });
  const named = keys.keyFor(deviceId, 1);
  const pair = named === null ? null : await keys.open(deviceId, 1, named.keyId);
  assert.ok(named !== null && pair !== null);
  const key = storageKey(pair.secretKey);
  let [sequence, stored, previousHeadSha256] = [0, 0, null as string | null];
  const add = async (kind: TelemetryClass, records: OpenedRecord[]): Promise<void> => {
    sequence += 1;
    const place = { deviceId, epoch: 1, sequence };
    const about = { keyId: named.keyId, key, deflate: systemDeflate, entropy: systemEntropy };
    const sealed = await sealRecords(records, place, about);
    const headSha256 = sha256Hex(Buffer.from(`${deviceId} ${sequence}`));
    const head: BatchHead = {
      ...{ ...place, schemaVersion: 1, region: 'eu', previousHeadSha256, class: kind },
      ...{ keyId: named.keyId, openedAtMs: 0 },
    };
    // What a batch store does not look at any more at this point is left empty.
    const message = { envelope: { payloadType: '', payload: '', signatures: [] }, wrap: none, body: none };
    const batch: SignedBatch = {
      ...{ deviceId, head, headBytes: none, headSha256, message },
      statement: {
        ...{ schemaVersion: 1, head: '', format: 'packed', recordCount: records.length },
        ...{ wrapSha256: headSha256, bodySha256: headSha256, plainBytes: 0 },
      },
    };
    const opened = ok({ records, sealed, erased: 0 });
    const { taken } = await store.tx((db) => batches.take(db, batch, opened, { nowMs: systemClock.wall() }));
    assert.equal(unwrap(taken).status, 'stored');
    previousHeadSha256 = headSha256;
    stored += records.length;
  };
  for (let from = 0; from < windows; from += windowsPerBatch) {
    const times = Array.from({ length: windowsPerBatch }, (_, at) => sinceMs + (from + at) * windowMs);
    await add(
      'stats',
      times.flatMap((timeMs, at) => statsAt(timeMs, from + at)),
    );
    await add(
      'app',
      times.flatMap((timeMs, at) =>
        Array.from({ length: appPerWindow }, (_, one) => ({
          timeMs: timeMs + one,
          release: null,
          data: JSON.stringify({ flow: 30 + ((at * 13 + one) % 17) / 10, open: one % 2 === 0 }),
        })),
      ),
    );
  }
  return stored;
}

/** With the process's own time beside it: what the machine does for others is not the registry's. */
async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; cpuMs: number; value: T }> {
  const cpu = process.cpuUsage();
  const before = performance.now();
  const value = await work();
  const ms = round(performance.now() - before);
  const { user, system } = process.cpuUsage(cpu);
  return { ms, cpuMs: round((user + system) / 1_000), value };
}

function enrolled(store: RegistryStore, deviceIds: readonly string[]): Promise<void> {
  return store.tx(({ sql }) => {
    for (const [at, deviceId] of deviceIds.entries())
      sql.run(
        `INSERT INTO devices (device_id, public_key, status, claim_id, labels, timezone, presence, presence_at_ms,
           agent, telemetry_epoch, report_counter, reported_epoch, verified_time_ms, refusal_id_last, enrolled_at_ms,
           certificate_expires_at_ms)
         VALUES (?, x'00', 'active', 'c', ?, 'UTC', 'online', 0, '{}', 1, 0, 0, 0, 0, 0, 0)`,
        deviceId,
        JSON.stringify({ site: `site-${at % 4}` }),
      );
  });
}

async function measured(ground: Ground, deviceId: string, records: number): Promise<object> {
  const { store, keys, sinceMs } = ground;
  const reader = createTelemetryRecords({ store, telemetryKeys: keys, deflate: systemDeflate });
  const query = (filter: object, limit: number | null = null) =>
    timed(async () => {
      let lines = 0;
      const found = unwrap(await reader.read({ sinceMs, ...filter }, { cursor: null, limit }));
      for await (const bytes of found)
        for (let at = bytes.indexOf(0x0a); at >= 0; at = bytes.indexOf(0x0a, at + 1)) lines += 1;
      return lines;
    });
  const file = { path: 'profile.json', role: 'profile' as const, sha256: profileSha256, bytes: 1 };
  const version: ModelView['versions'][number] = {
    ...{ version: '1.0.0', counter: 1, digest: profileSha256, bytes: 1, files: [file], signedBy: [] },
    ...{
      admitted: true,
      reason: null,
      deltas: [],
      compressedBytes: null,
      withdrawn: false,
      belowFloor: false,
    },
  };
  const shown = ok({ name: 'acme/pump', floor: 0, versions: [version] });
  const drift = createDrift(
    { store, releases: { show: async () => shown } },
    { rollups: createRollups(store), profiles: { of: async () => ({ sha256: profileSha256, profile }) } },
  );
  const asked = { model: 'acme/pump', fromMs: sinceMs, untilMs: sinceMs + weekMs };
  const ask = (more: object) => timed(async () => unwrap(await drift.report({ ...asked, ...more })));
  const fleet = await ask({});
  assert.equal(fleet.value.groups[0]?.rows, devices * windows * 600);
  const bySite = await ask({ by: 'site' });
  assert.equal(bySite.value.groups.length, 5);
  const everything = await query({});
  assert.equal(everything.value, records);
  const stats = await query({ class: 'stats', release }, 1_000);
  const ofDevice = await query({ device: deviceId });
  assert.equal(ofDevice.value, records / devices);
  const ofRelease = await query({ release });
  assert.equal(ofRelease.value, 2 * windows * devices);
  return {
    limitMs: 2_000,
    driftFleetMs: fleet.ms,
    driftFleetCpuMs: fleet.cpuMs,
    driftByLabelMs: bySite.ms,
    driftDeviceMs: (await ask({ device: deviceId })).ms,
    query1000OfClassAndReleaseMs: stats.ms,
    queryDeviceMs: ofDevice.ms,
    queryReleaseMs: ofRelease.ms,
    queryReleaseRecords: ofRelease.value,
    queryEverythingMs: everything.ms,
    queryEverythingCpuMs: everything.cpuMs,
  };
}

export async function benchEvidence(): Promise<object> {
  const folder = await mkdtemp(join(tmpdir(), 'lepton-bench-evidence-'));
  try {
    const file = join(folder, 'registry.sqlite');
    const store = await openRegistryStore(file);
    const keyStore = await openStore(':memory:', {
      synchronous: 'NORMAL',
      migrations: telemetryKeyMigrations,
    });
    const keys = await openTelemetryKeys({ store: keyStore, clock: systemClock, entropy: systemEntropy });
    const deviceIds = Array.from({ length: devices }, (_, at) =>
      sha256Hex(Buffer.from(`${at}`)).slice(0, 32),
    );
    await enrolled(store, deviceIds);
    await keys.ensure(deviceIds.map((deviceId) => ({ deviceId, epoch: 1 })));
    const ground = { store, keys, sinceMs: Date.UTC(2026, 0, 5) };
    const filled = await timed(async () => {
      let records = 0;
      for (const deviceId of deviceIds) records += await fillDevice(ground, deviceId);
      return records;
    });
    const found = await measured(ground, deviceIds[0] ?? '', filled.value);
    await store.close();
    await keyStore.close();
    const fileMiB = round((await stat(file)).size / (1024 * 1024));
    return { records: filled.value, devices, days: 7, fileMiB, filledMs: filled.ms, ...found };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
