// Why: a wave goes on, waits or fails by what its devices measured, and ten requests decide nothing.
// Trusts: the rollups, filled as ingest fills them. Must never: let a gate pass for lack of evidence.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  increase,
  judgeEvidence,
  quantileBounds,
  type WaveEvidence,
  wilson,
} from '../../registry/rollout/evidence-gates.ts';
import { addToSketch, createSketch, type Sketch, sketchToJson } from '../../shared/stats/sketch.ts';
import { type RolloutSpec, rolloutFileSchema } from '../../shared/wire/rollout-file.ts';
import { type Device, rolloutFile, type World } from '../fleet/world.ts';
import { openIngestWorld } from '../telemetry/ingest-world.ts';
import { even, pushProfiled, shifted, windowRecord } from '../telemetry/profiled.ts';
import { all, assigned, onRelease1, v1, v2, world2 } from './ground.ts';

function sketchOf(values: readonly number[]): Sketch {
  const sketch = createSketch();
  for (const value of values) addToSketch(sketch, value);
  return sketch;
}

const json = (values: readonly number[]) => sketchToJson(sketchOf(values));

function specOf(gates: object): RolloutSpec {
  return rolloutFileSchema.parse({
    ...{ apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name: 'r' } },
    spec: { release: v2, gates },
  }).spec;
}

const nothing: WaveEvidence = {
  ...{ devices: 0, requests: 0, errors: 0, latency: null, active: null, memoryBytes: [], memoryRatios: [] },
  drift: { devices: 0, rows: 0, features: [] },
};
const judged = (gates: object, evidence: Partial<WaveEvidence>, counted = 3): string[] =>
  judgeEvidence(specOf(gates), 0, { ...nothing, ...evidence }, counted).map(({ gate, reason }) =>
    `${gate.verdict} ${gate.value ?? '-'} ${reason}`.trim(),
  );
const times = (count: number, value: number): number[] => Array.from({ length: count }, () => value);

test('gates on evidence: pass, fail and wait, each with its reason', () => {
  const rate = { errorRate: 0.05 };
  assert.deepEqual(judged(rate, {}), [
    'waiting - gate errorRate of wave 0: 0 of 1 devices needed have told anything',
  ]);
  // One of ten is twice the limit and decides nothing.
  assert.match(
    judged(rate, { devices: 1, requests: 10, errors: 1 })[0] ?? '',
    /^waiting 0.1 .*10 of 100 requests/,
  );
  // All of ten is beyond doubt.
  assert.match(
    judged(rate, { devices: 1, requests: 10, errors: 10 })[0] ?? '',
    /^fail 1 .*10 of 10 requests failed/,
  );
  assert.equal(judged(rate, { devices: 1, requests: 200, errors: 2 })[0], 'pass 0.01');
  assert.match(judged(rate, { devices: 1, requests: 200, errors: 12 })[0] ?? '', /^waiting 0.06 .*too near/);
  assert.match(judged(rate, { devices: 1, requests: 2_000, errors: 200 })[0] ?? '', /^fail 0.1 /);
  assert.match(
    judged({ ...rate, minDevices: 2 }, { devices: 1, requests: 200 })[0] ?? '',
    /^waiting 0 .*1 of 2 devices/,
  );
  // No more than there are.
  assert.equal(judged({ ...rate, minDevices: 9 }, { devices: 3, requests: 200 })[0], 'pass 0');
  assert.equal(judged({ ...rate, minRequests: 5 }, { devices: 1, requests: 5 })[0], 'pass 0');
  assert.equal(judged(rate, {}, 0)[0], 'pass -');

  const slow = { latencyP95Ms: 50 };
  assert.match(judged(slow, { devices: 1 })[0] ?? '', /^waiting - .*0 of 100 answers/);
  assert.match(judged(slow, { devices: 1, latency: json(times(150, 20)) })[0] ?? '', /^pass /);
  assert.match(
    judged(slow, { devices: 1, latency: json(times(150, 90)) })[0] ?? '',
    /^fail .*the limit is 50 ms/,
  );
  const some = json([...times(112, 20), ...times(8, 90)]);
  assert.match(judged(slow, { devices: 1, latency: some })[0] ?? '', /^waiting .*too near/);

  const large = { memoryMiB: 100 };
  assert.match(judged(large, {})[0] ?? '', /^waiting - /);
  assert.equal(judged(large, { memoryBytes: [50 * 1_048_576] })[0], 'pass 50');
  assert.match(
    judged(large, { memoryBytes: [1, 200 * 1_048_576] })[0] ?? '',
    /^fail 200 .*a device took 200 MiB/,
  );

  const larger = { memoryRatio: 1.2, minDevices: 2 };
  assert.match(judged(larger, { memoryRatios: [1] })[0] ?? '', /^waiting 1 .*1 of 2 devices needed/);
  // One that was restarted in between is not the release's fault: the middle one counts.
  assert.equal(judged(larger, { memoryRatios: [1.1, 3, 1.05] })[0], 'pass 1.1');
  assert.match(judged(larger, { memoryRatios: [1.5, 1.4] })[0] ?? '', /^fail 1.5 .*1.5 times the memory/);

  const drift = { driftPsi: 0.25 };
  assert.match(judged(drift, { drift: null })[0] ?? '', /^waiting - .*no reference profile/);
  const features = (psi: number | null) => ({
    devices: 2,
    rows: 500,
    features: [{ name: 'input x[0]', count: 500, psi }],
  });
  assert.match(
    judged(drift, { drift: features(null) })[0] ?? '',
    /^waiting - .*no feature has enough values/,
  );
  assert.equal(judged(drift, { drift: features(0.1) })[0], 'pass 0.1');
  assert.match(judged(drift, { drift: features(0.4) })[0] ?? '', /^fail 0.4 .*PSI 0.4 of input x\[0\]/);
});

test('Wilson’s interval holds the true rate about 95 times of a hundred, and narrows', () => {
  // Values of a textbook (Newcombe 1998, table I, method 3).
  const near = (value: number, wanted: number): void =>
    assert.ok(Math.abs(value - wanted) < 5e-4, `${value}`);
  near(wilson(81, 263).low, 0.2553);
  near(wilson(81, 263).high, 0.3662);
  near(wilson(0, 20).high, 0.1611);
  near(wilson(1, 29).low, 0.0061);
  near(wilson(1, 29).high, 0.1718);
  assert.deepEqual(wilson(0, 0), { low: 0, high: 1 });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10_000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (count, share) => {
        const hits = Math.round(share * count);
        const { low, high } = wilson(hits, count);
        assert.ok(low <= hits / count + 1e-12 && hits / count <= high + 1e-12);
        const more = wilson(hits * 4, count * 4);
        assert.ok(more.high - more.low <= high - low);
      },
    ),
  );
  const values = Array.from({ length: 1_000 }, (_, at) => at + 1);
  const bounds = quantileBounds(sketchOf(values), 0.95);
  // A bucket of the sketch is two percent wide.
  assert.ok(bounds !== null && bounds.low <= bounds.value && bounds.value <= bounds.high);
  assert.ok(bounds.low > 900 && bounds.low < 960 && bounds.high > 955, JSON.stringify(bounds));
  assert.equal(quantileBounds(createSketch(), 0.95), null);
});

test('gates that compare with what the same devices ran before', () => {
  const counted = (requests: number, errors: number, latency: number[] = []) => ({
    ...{ devices: 1, requests, errors },
    latency: latency.length === 0 ? null : json(latency),
  });
  const slower = { latencyP95Ratio: 1.5 };
  const than = (now: number[], before: number[] | null): string =>
    judged(slower, { ...counted(0, 0, now), active: before === null ? null : counted(0, 0, before) })[0] ??
    '';
  assert.match(than(times(150, 20), null), /^waiting - .*0 of 1 devices needed .* of the release before/);
  assert.match(than(times(150, 20), times(40, 20)), /^waiting 1 .*40 of 100 answers of the release before/);
  assert.match(than(times(40, 20), times(150, 20)), /^waiting 1 .*40 of 100 answers needed/);
  assert.match(than(times(150, 21), times(150, 20)), /^pass 1\.0/);
  assert.match(
    than(times(150, 60), times(150, 20)),
    /^fail 3\.?\d* .*times that of the release before, the limit is 1.5/,
  );
  // Eight answers of 120 are slow: that may be chance.
  assert.match(than([...times(112, 20), ...times(8, 90)], times(150, 20)), /^waiting 4.* too near/);

  const worse = { errorRateIncrease: 0.05 };
  const failing = (now: [number, number], before: [number, number] | null): string =>
    judged(worse, { ...counted(...now), active: before === null ? null : counted(...before) })[0] ?? '';
  assert.match(failing([200, 0], null), /^waiting - .* of the release before/);
  assert.match(failing([200, 2], [50, 0]), /^waiting .*50 of 100 requests of the release before/);
  // Both fail as often: a fixed limit would stop what is no worse than what there is.
  assert.equal(failing([2_000, 400], [2_000, 400]), 'pass 0');
  assert.match(
    failing([2_000, 600], [2_000, 400]),
    /^fail 0.1 .*600 of 2000 requests failed, 400 of 2000 before/,
  );
  assert.match(failing([120, 8], [120, 0]), /^waiting 0.0666\d* .*too near/);
});

test('the bounds of a difference are those of the literature', () => {
  // Newcombe 1998 (differences), table II, method 10.
  const near = (value: number, wanted: number): void =>
    assert.ok(Math.abs(value - wanted) < 5e-4, `${value}`);
  const first = increase({ hits: 56, count: 70 }, { hits: 48, count: 80 });
  near(first.low, 0.0524);
  near(first.high, 0.3339);
  const second = increase({ hits: 9, count: 10 }, { hits: 3, count: 10 });
  near(second.low, 0.1705);
  near(second.high, 0.809);
  const nobody = increase({ hits: 0, count: 10 }, { hits: 0, count: 20 });
  near(nobody.low, -0.1611);
  near(nobody.high, 0.2775);
});

const waves = [{ count: 1 }, { percent: 100 }];

/** As ingest adds a batch of class `stats` of this device. */
async function tell(
  world: World,
  device: Device,
  requests: number[],
  errors: Record<string, number> = {},
  release = v2,
): Promise<void> {
  const failed = Object.values(errors).reduce((sum, count) => sum + count, 0);
  const data = {
    ...{ kind: 'requests', model: 'digits', windowMs: 60_000, requests: requests.length + failed, errors },
    latencySketch: requests.length === 0 ? null : json(requests),
  };
  const record = { timeMs: world.clock.wall(), release, data: JSON.stringify(data) };
  await world.store.tx((db) => void world.fleet.evidence.rollups.addIn(db, device.id, [record]));
  await world.pass(30_000);
  await world.settle();
}

async function canaryOf(world: World, devices: Device[]): Promise<Device> {
  let canary: Device | undefined;
  // A profile is read from a real disk before the first step.
  for (let turn = 0; canary === undefined && turn < 200; turn += 1) {
    await world.settle();
    canary = devices[(await all(devices, assigned)).indexOf(v2)];
  }
  assert.ok(canary);
  await canary.obey();
  await world.settle();
  return canary;
}

test('a release that is too slow on live requests stops at the canary; one that is not goes through', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(4);
  await onRelease1(world, devices);
  const file = (name: string) =>
    rolloutFile(name, { release: v2, waves, gates: { latencyP95Ms: 50, errorRate: 0.02 } });
  const slow = await world.start(file('slow'));
  const canary = await canaryOf(world, devices);
  const waiting = await world.status(slow);
  assert.deepEqual([waiting.state, waiting.waves[0]?.state], ['running', 'soaking']);
  assert.match(waiting.reason ?? '', /gate latencyP95Ms of wave 0: 0 of 1 devices needed/);
  // What a device of another wave says about the release is no evidence of this one.
  for (const device of devices) if (device !== canary) await tell(world, device, times(300, 400));
  await tell(world, canary, times(60, 20));
  assert.equal((await world.status(slow)).state, 'running');
  await tell(world, canary, times(120, 400));
  await all(devices, (device) => device.obey());
  await world.settle();
  const stopped = await world.status(slow);
  assert.equal(stopped.state, 'failed');
  assert.match(stopped.reason ?? '', /^gate latencyP95Ms of wave 0: p95 \d+/);
  assert.deepEqual(
    stopped.gates.filter(({ wave }) => wave === 0).map(({ gate, verdict }) => [gate, verdict]),
    [
      ['probe', 'pass'],
      ['latencyP95Ms', 'fail'],
      ['errorRate', 'pass'],
    ],
  );
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1, v1]);
});

test('a release that is slower than what the devices ran before stops at the canary, whatever its own limit', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  for (const device of devices) await tell(world, device, times(150, 10), {}, v1);
  const gates = { latencyP95Ms: 500, latencyP95Ratio: 2 };
  const id = await world.start(rolloutFile('slower', { release: v2, waves, gates }));
  const canary = await canaryOf(world, devices);
  await tell(world, canary, times(150, 40));
  await all(devices, (device) => device.obey());
  await world.settle();
  const stopped = await world.status(id);
  assert.equal(stopped.state, 'failed');
  assert.match(stopped.reason ?? '', /^gate latencyP95Ratio of wave 0: p95 \d+/);
  // The hour in which a wave begins counts whole.
  await world.pass(2 * 3_600_000);
  const again = await world.start(rolloutFile('as-fast', { release: v2, waves, gates }));
  const other = await canaryOf(world, devices);
  await tell(world, other, times(150, 11));
  await all(devices, (device) => device.obey());
  await world.settle();
  for (const device of devices) if (device !== other) await tell(world, device, times(150, 11));
  await world.settle();
  assert.equal((await world.status(again)).state, 'succeeded');
});

test('errors for which clients are to blame do not stop a release; its own do', async (t) => {
  for (const [code, state] of [
    ['infer-invalid', 'succeeded'],
    ['model-crashed', 'failed'],
  ] as const) {
    const world = await world2(t);
    const devices = await world.devices(2);
    await onRelease1(world, devices);
    const id = await world.start(rolloutFile('errors', { release: v2, waves, gates: { errorRate: 0.02 } }));
    const canary = await canaryOf(world, devices);
    await tell(world, canary, times(150, 5), { [code]: 20 });
    await all(devices, (device) => device.obey());
    await world.settle();
    for (const device of devices) if (device !== canary) await tell(world, device, times(150, 5));
    await world.settle();
    assert.equal((await world.status(id)).state, state, code);
    await world.close();
  }
});

test('a release that sees what it was not made for stops at the canary, and says of which feature', async (t) => {
  const world = await openIngestWorld(t);
  const devices = await world.devices(3);
  await pushProfiled(world, v1, 1);
  await onRelease1(world, devices);
  const profileSha256 = await pushProfiled(world, v2, 2);
  const id = await world.start(rolloutFile('drifts', { release: v2, waves, gates: { driftPsi: 0.25 } }));
  const canary = await canaryOf(world, devices);
  const count = async (x: number[]): Promise<void> => {
    const { timeMs, release, data } = windowRecord({
      ...{ release: v2, profileSha256, timeMs: world.clock.wall(), counts: { x } },
    });
    const record = { timeMs, release, data: JSON.stringify(data) };
    await world.store.tx((db) => void world.fleet.evidence.rollups.addIn(db, canary.id, [record]));
    await world.pass(30_000);
    await world.settle();
  };
  await count(even(4));
  assert.match((await world.status(id)).reason ?? '', /driftPsi of wave 0: 40 of 100 rows/);
  await count(shifted(40));
  await all(devices, (device) => device.obey());
  await world.settle();
  const { state, reason } = await world.status(id);
  assert.equal(state, 'failed');
  assert.match(reason ?? '', /^gate driftPsi of wave 0: PSI \d\.\d+ of input x\[0\] over 440 rows/);
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1]);
});

/** Its last report again, with what the probe took of its memory. */
async function measured(world: World, device: Device, memoryMiB: number): Promise<void> {
  const cases = { goldenCases: 0, goldenPassed: 0, firstFailure: null, latencyP50Ms: 1, latencyP95Ms: 1 };
  const probe = { ...cases, memoryBytesPeak: memoryMiB * 1_048_576 };
  device.models = new Map([...device.models].map(([name, model]) => [name, { ...model, probe }]));
  device.report();
  await world.settle();
}

test('a release that takes more memory than what the devices ran before stops at the canary', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(3);
  await onRelease1(world, devices);
  for (const device of devices) await measured(world, device, 100);
  const gates = { memoryMiB: 400, memoryRatio: 1.2 };
  const id = await world.start(rolloutFile('larger', { release: v2, waves, gates }));
  const canary = await canaryOf(world, devices);
  assert.match((await world.status(id)).reason ?? '', /gate memoryMiB of wave 0: 0 of 1 devices/);
  await measured(world, canary, 150);
  await all(devices, (device) => device.obey());
  await world.settle();
  const stopped = await world.status(id);
  assert.equal(stopped.state, 'failed');
  assert.match(stopped.reason ?? '', /^gate memoryRatio of wave 0: it takes 1.5 times the memory/);
  assert.deepEqual(await all(devices, assigned), [v1, v1, v1]);

  await all(devices, (device) => device.obey());
  for (const device of devices) await measured(world, device, 100);
  const again = await world.start(rolloutFile('as-large', { release: v2, waves, gates }));
  await measured(world, await canaryOf(world, devices), 110);
  await world.settle();
  assert.equal((await world.status(again)).waves[0]?.state, 'passed');
});
