// Why: a device that waits for its window is no failed one, no rollout waits for ever, and what goes back is not held.
// Trusts: shared/kernel/windows.ts. Must never: believe a device's word about how long it may wait.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceFact, Member, RolloutFact } from '../../registry/rollout/facts.ts';
import { goingBack } from '../../registry/rollout/fitness.ts';
import { isRestored, outcomeOf, policyOf } from '../../registry/rollout/members.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Reason } from '../../shared/wire/messages.ts';
import { rolloutFileSchema } from '../../shared/wire/rollout-file.ts';
import { rolloutFile } from '../fleet/world.ts';
import { onRelease1, v2, world2 } from './ground.ts';

const hourMs = 3_600_000;
const weekly = { activate: [{ days: ['sun'], from: '02:00', to: '05:00' }], deferMax: '2h' };
const nightly = { download: [{ from: '22:00', to: '05:00' }], deferMax: '0s' };
const release = {
  releaseId: v2,
  manifestSha256: 'a'.repeat(64),
  manifestBytes: 9,
  counter: 2,
  requires: null,
};
const member: Member = {
  wave: 0,
  state: 'probing',
  reason: null,
  step: 'assigned',
  epoch: 5,
  stepAtMs: 0,
  previous: null,
};

function scene(
  windows: object | undefined,
  reason: Reason | null,
): { rollout: RolloutFact; device: DeviceFact } {
  const { spec } = rolloutFileSchema.parse({
    apiVersion: 'lepton/v1',
    kind: 'Rollout',
    metadata: { name: 'r' },
    spec: { release: v2, waves: [{ percent: 100 }], ...(windows === undefined ? {} : { windows }) },
  });
  const rollout: RolloutFact = {
    id: 'r1',
    number: 1,
    name: 'r',
    as: 'digits',
    release,
    spec,
    priority: 0,
    createdBy: 'olga',
    waves: spec.waves ?? [],
    state: 'running',
    reason: null,
    endsAs: null,
    endedAtMs: null,
  };
  const policy = policyOf(spec, spec.waves?.[0]);
  const desired = { ...release, rolloutId: 'r1', policy };
  const model = { state: 'probing', active: null, candidate: v2, lastGood: null, target: v2 } as const;
  const device: DeviceFact = {
    id: 'd',
    active: true,
    online: true,
    presenceAtMs: 0,
    reportedEpoch: 5,
    agent: { version: '0.1.0', arch: 'x64' },
    model: { ...model, rolloutId: 'r1', reason },
    desired,
    desiredNumber: 1,
    desiredPriority: 0,
    desiredOpen: false,
    behind: null,
    site: '',
    busyElsewhere: false,
    proven: desired,
    member,
  };
  return { rollout, device };
}

const waits: Reason = { code: 'window-closed', detail: 'x', untilMs: 9 };
/** Until when the device is waited for. */
const patience = (windows: object | undefined, reason: Reason | null): number => {
  const { rollout, device } = scene(windows, reason);
  const { untilMs } = outcomeOf(rollout, device, member, 0);
  assert.ok(untilMs !== null);
  assert.equal(outcomeOf(rollout, device, member, untilMs - 1).kind, 'working');
  assert.equal(outcomeOf(rollout, device, member, untilMs).kind, 'failed', 'nothing waits for ever');
  return untilMs;
};

test('who waits for a window is waited for as long as the windows are apart, and no longer', () => {
  const plain = patience(undefined, null);
  // Closed for 165 hours, open for three: two of them deferred and one for the clock's change, and that hour again.
  assert.equal(patience(weekly, waits) - plain, (165 + 1 + 2) * hourMs);
  // The hour that fetching may take, and one for the clock's change, fit into one night.
  assert.equal(patience(nightly, waits) - plain, (17 + 1) * hourMs);
  assert.equal(patience(nightly, null), patience(nightly, waits), 'a lost report costs nobody the rollout');
});

test('a device may defer where the file says nothing, and says so', () => {
  const plain = patience(undefined, null);
  assert.equal(patience(undefined, { code: 'update-deferred', detail: 'x' }) - plain, 4 * hourMs);
  assert.equal(patience(undefined, waits), plain);
});

test('the way back has its deadlines alone, and no windows', () => {
  const plain = scene(undefined, null);
  const held = scene(weekly, null);
  const back: Member = { ...member, step: 'reverted', previous: null };
  const untilOf = ({ rollout, device }: typeof plain) => isRestored(rollout, device, back, 0).untilMs;
  assert.equal(untilOf(held), untilOf(plain));
  const previous = held.device.proven;
  assert.ok(previous?.policy.windows !== undefined);
  assert.equal(goingBack({}, held.device, previous).release?.policy.windows, undefined);
});

test('explain names the window that a device waits for, and until when; a file with windows is assigned', async (t) => {
  const world = await world2(t);
  const devices = await world.devices(1);
  await onRelease1(world, devices);
  const [device] = devices;
  assert.ok(device);
  const id = await world.start(rolloutFile('digits-2', { release: v2, windows: weekly }));
  await world.settle();
  const policy = (await device.assignment())?.releases[0]?.policy;
  assert.deepEqual(policy?.windows, { activate: weekly.activate, deferMaxMs: 2 * hourMs });
  const explained = async (reason: Reason) => {
    await device.obey('probing');
    const model = device.models.get('digits');
    assert.ok(model);
    device.models.set('digits', { ...model, reason });
    device.report();
    await world.settle();
    const said = unwrap(await world.rollouts.explain(id, device.id)).devices[0];
    assert.ok(said);
    const { state, because, waitsFor, untilMs } = said;
    return { state, because, waitsFor, untilMs };
  };
  const detail = 'activation window sun 02:00–05:00 (Europe/Vienna) opens sun 2026-03-29 03:00';
  assert.deepEqual(await explained({ code: 'window-closed', detail, untilMs: 1_774_746_000_000 }), {
    state: 'probing',
    because: `window-closed: ${detail}`,
    waitsFor: 'its window to open, in its own time zone',
    untilMs: 1_774_746_000_000,
  });
  const deferred = await explained({ code: 'update-deferred', detail: 'deferred at the device', untilMs: 7 });
  assert.deepEqual([deferred.untilMs, /defer --clear/.test(deferred.waitsFor ?? '')], [7, true]);
});
