// Why: rollups hold what the raw records hold: nothing twice, nothing lost, whatever the order and the grouping.
// Trusts: ingest-world.ts for batches and store. Must never: compute the expected sums with the code under test.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createRollups, hourMs } from '../../registry/telemetry/rollups.ts';
import {
  addFeatures,
  createFeaturesSummer,
  type FeaturesSum,
  featuresFromText,
  featuresOf,
  featuresToText,
  noFeatures,
} from '../../shared/stats/rollup.ts';
import {
  addToSketch,
  createSketch,
  sketchFromJson,
  sketchQuantile,
  sketchToJson,
} from '../../shared/stats/sketch.ts';
import { type EnergyMethod, energySources } from '../../shared/wire/energy.ts';
import type { FeaturesStats } from '../../shared/wire/feature-stats.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { openIngestWorld } from './ingest-world.ts';

const release = 'acme/pump@1.0.0';
const profileSha256 = 'ab'.repeat(32);
const startMs = Date.UTC(2026, 0, 5, 10);

function featuresRecord(
  timeMs: number,
  counts: number[],
  more: Partial<FeaturesStats> = {},
): TelemetryRecord {
  const rows = counts.reduce((sum, one) => sum + one, 0);
  const data: FeaturesStats = {
    kind: 'features',
    model: 'pump',
    profileSha256,
    windowMs: 60_000,
    rows,
    seenRows: rows + 1,
    features: [{ role: 'input', tensor: 'x', index: 0, of: 'value', counts, missing: 1 }],
    ...more,
  };
  return { timeMs, release, data };
}

function requestsRecord(
  timeMs: number,
  latenciesMs: number[],
  errors: Record<string, number>,
): TelemetryRecord {
  const sketch = createSketch();
  for (const ms of latenciesMs) addToSketch(sketch, ms);
  const failed = Object.values(errors).reduce((sum, one) => sum + one, 0);
  return {
    timeMs,
    release,
    data: {
      kind: 'requests',
      model: 'pump',
      windowMs: 60_000,
      requests: latenciesMs.length + failed,
      errors,
      latencyMs: null,
      latencySketch: latenciesMs.length === 0 ? null : sketchToJson(sketch),
    },
  };
}

function energyRecord(method: EnergyMethod, requests: number, joules: number | null): TelemetryRecord {
  const data = {
    kind: 'energy',
    model: 'pump',
    windowMs: 60_000,
    requests,
    source: energySources[method],
    method,
  };
  return { timeMs: startMs, release, data: { ...data, joules, cpuMs: method === 'none' ? null : 20 } };
}

const scope = { release, fromMs: startMs, untilMs: startMs + 100 * hourMs };
const countsIn = (sum: FeaturesSum | undefined): number[] | undefined =>
  [...(sum?.features.values() ?? [])][0]?.counts;

test('rollups: batches add up by release, device and hour, a repeated batch adds nothing', async (t) => {
  const world = await openIngestWorld(t);
  const rollups = createRollups(world.store);
  const [one, two] = [await world.sender(), await world.sender()];
  const batch = await one.maker.make(
    [
      featuresRecord(startMs, [1, 2, 3]),
      featuresRecord(startMs + 60_000, [10, 20, 30]),
      featuresRecord(startMs + hourMs, [100, 200, 300]),
      requestsRecord(startMs, [1, 2, 3], { 'infer-failed': 2 }),
      requestsRecord(startMs + 60_000, [100], { 'infer-failed': 1, 'infer-queue-full': 4 }),
      // Nothing of ours: an app may call its record as it likes, and a newer agent too.
      { timeMs: startMs, release, data: { kind: 'energy', joules: 3 } },
      energyRecord('rapl', 10, 5),
      energyRecord('rapl', 30, 4),
      energyRecord('cpu-time', 50, 100),
      energyRecord('none', 7, null),
      { timeMs: startMs, release: null, data: featuresRecord(startMs, [7, 7, 7]).data },
    ],
    { class: 'stats' },
  );
  const [stored] = await one.exchange(batch.message);
  assert.deepEqual(stored, { status: 'stored', records: 11 });
  await one.exchange(batch.message);
  await one.exchange((await one.maker.make([energyRecord('rapl', 60, 11)], { class: 'stats' })).message);
  await two.exchange(
    (await two.maker.make([featuresRecord(startMs, [1000, 0, 0])], { class: 'stats' })).message,
    // Of class `app`, whatever it holds, is what an application says and no statistics of the agent.
    (await two.maker.make([featuresRecord(startMs, [5, 5, 5])], { class: 'app' })).message,
  );

  const firstHour = await rollups.features({ ...scope, profileSha256, untilMs: startMs + 1 });
  const byDevice = new Map(firstHour.map(({ device, sum }) => [device, sum]));
  assert.deepEqual(countsIn(byDevice.get(one.id)), [11, 22, 33]);
  assert.deepEqual(countsIn(byDevice.get(two.id)), [1000, 0, 0]);
  assert.equal(byDevice.get(one.id)?.rows, 66);
  assert.equal(byDevice.get(one.id)?.seenRows, 68);
  const whole = await rollups.features({ ...scope, profileSha256 });
  assert.deepEqual(countsIn(whole.find(({ device }) => device === one.id)?.sum), [111, 222, 333]);
  assert.deepEqual(await rollups.features({ ...scope, profileSha256: 'cd'.repeat(32) }), []);
  const later = await rollups.features({ ...scope, profileSha256, fromMs: startMs + hourMs, device: one.id });
  assert.deepEqual(countsIn(later[0]?.sum), [100, 200, 300]);

  const hour = Math.floor(startMs / hourMs);
  const [energy, ...others] = await rollups.energy.releases({
    model: 'acme/pump',
    fromHour: hour,
    untilHour: hour,
  });
  assert.deepEqual(others, []);
  const rows = energy?.methods.map(({ method, source, requests, joules, joulesPer1000, cpuMsPer1000 }) => [
    ...[method, source, requests, joules, joulesPer1000, cpuMsPer1000],
  ]);
  assert.deepEqual(rows?.sort(), [
    ['cpu-time', 'modelled', 50, 100, 2000, 400],
    ['none', 'unknown', 7, null, null, null],
    ['rapl', 'measured', 100, 20, 200, 600],
  ]);
  // A name that begins like the other one's.
  assert.deepEqual(await rollups.energy.releases({ model: 'acme/pum', fromHour: hour, untilHour: hour }), []);

  const requests = await rollups.requests(scope);
  assert.equal(requests.requests, 3 + 2 + 1 + 5);
  assert.deepEqual(requests.errors, { 'infer-failed': 3, 'infer-queue-full': 4 });
  assert.ok(requests.latency);
  const latency = sketchFromJson(requests.latency);
  assert.equal(latency.count, 4);
  assert.equal(latency.max, 100);
  assert.ok((sketchQuantile(latency, 0.5) ?? 0) >= 2);
});

test('rollups: a batch that is refused leaves no count', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const made = await sender.maker.make([featuresRecord(startMs, [1, 2, 3])], {
    class: 'stats',
    recordCount: 2,
  });
  const [answer] = await sender.exchange(made.message);
  assert.equal(answer?.status, 'refused');
  assert.deepEqual(await createRollups(world.store).features({ ...scope, profileSha256 }), []);
});

test('rollups: counts of bins that do not fit are nobody’s, and change nothing', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const records = [featuresRecord(startMs, [1, 2, 3]), featuresRecord(startMs, [4, 4])];
  await sender.exchange((await sender.maker.make(records, { class: 'stats' })).message);
  const [row] = await createRollups(world.store).features({ ...scope, profileSha256 });
  assert.deepEqual(countsIn(row?.sum), [1, 2, 3]);
});

const feature = fc.record({
  tensor: fc.constantFrom('x', 'y'),
  index: fc.integer({ min: 0, max: 1 }),
  counts: fc.array(fc.nat(50), { minLength: 3, maxLength: 3 }),
  missing: fc.nat(5),
  other: fc.option(fc.nat(5), { nil: undefined }),
});
const window = fc.array(feature, { maxLength: 4 }).map((features) => {
  const data: FeaturesStats = {
    kind: 'features',
    model: 'm',
    profileSha256,
    windowMs: 1,
    rows: features.length,
    seenRows: features.length,
    features: features.map(({ other, ...one }) => ({
      role: 'output',
      of: 'value',
      ...one,
      ...(other === undefined ? {} : { other }),
    })),
  };
  return featuresOf(data);
});
const plain = (sum: FeaturesSum) => ({ ...sum, features: new Map([...sum.features].sort()) });

test('sums of counts do not depend on order and grouping, and survive their text', () => {
  fc.assert(
    fc.property(fc.array(window, { minLength: 1, maxLength: 6 }), fc.nat(), (windows, cut) => {
      const sum = (some: FeaturesSum[]): FeaturesSum => some.reduce((a, b) => addFeatures(a, b), noFeatures);
      const at = cut % windows.length;
      const forwards = plain(sum(windows));
      assert.deepEqual(plain(sum([...windows].reverse())), forwards);
      assert.deepEqual(plain(addFeatures(sum(windows.slice(0, at)), sum(windows.slice(at)))), forwards);
      const summer = createFeaturesSummer();
      for (const one of windows) summer.add(one);
      assert.deepEqual(plain(summer.sum()), forwards);
      assert.deepEqual(featuresFromText(featuresToText(forwards.features)), forwards.features);
    }),
  );
});
