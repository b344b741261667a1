// Why: one rollout file through several regions: real registries over their doors, light devices in each, the real CLI.
// Trusts: nothing it did not start. Must never: go past doors, API and CLI.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import { startAgent } from '../../agent/daemon.ts';
import { createLightHost, goodEvidence } from '../../firmware-sim/load/light-host.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { openLog } from '../../shared/host/log.ts';
import {
  type RegionRolloutStatus,
  regionRolloutExplanationSchema,
  regionRolloutStatusSchema,
} from '../../shared/wire/region-rollouts.ts';
import { rolloutStartedSchema, rolloutSummarySchema } from '../../shared/wire/rollouts.ts';
import { temporaryFolder } from '../registry-core/support.ts';
import { run } from '../support/processes.ts';
import { joinRegion, publisher, type Region, startRegion, until } from './support.ts';

const fast = {
  limits: { rolloutStepEveryMs: 300 },
  regionLimits: { roundEveryMs: 300, roundEveryMaxMs: 600, askTimeoutMs: 3_000, refusedRetryMs: 500 },
};

/** A device of the region; `passes` says how its probe of a release ends, once it does. */
async function device(
  t: TestContext,
  region: Region,
  passes: (releaseId: string) => boolean | Promise<boolean>,
): Promise<string> {
  const { fleet } = region.registry.parts;
  const claim = await fleet.claims.create({
    labels: { secret: 'label' },
    uses: 1,
    ttlMs: 60_000,
    createdBy: 'tester',
  });
  const agent = await startAgent({
    stateFolder: temporaryFolder(t),
    http: { host: '127.0.0.1', port: 0 },
    ...{ claim, labels: {}, reEnroll: false, version: '0.0.0-light' },
    clock: systemClock,
    entropy: systemEntropy,
    log: openLog({ level: 'silent' }),
    inference: ({ clock }) =>
      createLightHost({
        ...{ clock, loadMs: 20 },
        probe: async (releaseId) =>
          (await passes(releaseId))
            ? goodEvidence
            : { ...goodEvidence, goldenPassed: 0, firstFailure: 'case 0' },
      }),
    reportEveryMs: 2_000,
  });
  t.after(() => agent.stop());
  return agent.deviceId;
}

/** The CLI at a region. */
async function lepton(region: Region, args: string[], expected = 0): Promise<string> {
  const { httpUrl, adminToken } = region.registry;
  const done = await run('lepton', args, { env: { LEPTON_REGISTRY: httpUrl, LEPTON_TOKEN: adminToken } });
  assert.equal(done.code, expected, done.stderr + done.stdout);
  return done.stdout;
}

function rolloutFile(t: TestContext, spec: object): string {
  const file = join(temporaryFolder(t), 'rollout.json');
  const body = { apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name: 'wide' }, spec };
  writeFileSync(file, JSON.stringify(body));
  return file;
}

async function api(region: Region, path: string, body?: object): Promise<{ status: number; body: unknown }> {
  const { httpUrl, adminToken } = region.registry;
  const response = await fetch(`${httpUrl}/api/v1/rollouts${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
}

async function start(t: TestContext, region: Region, spec: object): Promise<string> {
  const file = readFileSync(rolloutFile(t, spec), 'utf8');
  return rolloutStartedSchema.parse((await api(region, '', { file })).body).id;
}

const statusOf = async (region: Region, id: string): Promise<RegionRolloutStatus> =>
  regionRolloutStatusSchema.parse((await api(region, `/${id}`)).body);
const states = async (region: Region, id: string): Promise<Record<string, string>> =>
  Object.fromEntries((await statusOf(region, id)).regions.map((part) => [part.region, part.state]));

test('one file goes region by region; a gate that fails pauses the others; what restarts goes on', async (t) => {
  const home = await startRegion(t, 'home', fast);
  const acme = publisher('acme');
  for (const version of ['1.0.0', '2.0.0', '3.0.0']) await acme.push(home, `acme/one@${version}`);
  const west = await joinRegion(t, home, 'west', fast);
  const east = await joinRegion(t, home, 'east', fast);
  const regions = [home, west, east];
  // Of 2.0.0 east says no, and west takes its time until the test has seen what becomes of that.
  let westGoesOn: () => void = () => undefined;
  const westWaits = new Promise<boolean>((resolve) => {
    westGoesOn = () => resolve(true);
  });
  t.after(westGoesOn);
  const ids = await Promise.all(
    regions.map((region) =>
      device(t, region, (releaseId) => {
        if (releaseId !== 'acme/one@2.0.0' || region === home) return true;
        return region === west ? westWaits : false;
      }),
    ),
  );
  const runs = async (region: Region): Promise<string | null> => {
    const list = await region.registry.parts.rollouts.list();
    const last = list[0] === undefined ? null : await region.registry.parts.rollouts.status(list[0].id);
    return last?.ok === true ? (last.value.devices[0]?.release ?? null) : null;
  };
  await until('east hears of west', async () => (await east.status()).regions.length === 3);

  // Good: home, then both others.
  const stages = [{ names: ['home'], soak: '1s' }, ['west', 'east']];
  const good = {
    release: 'acme/one@1.0.0',
    regions: stages,
    waves: [{ percent: 100 }],
    gates: { success: 1 },
  };
  const plan = JSON.parse(await lepton(home, ['rollout', 'plan', '-f', rolloutFile(t, good), '--json']));
  assert.deepEqual(plan.stages, [
    { index: 0, soakMs: 1_000, regions: [{ region: 'home', devices: 1 }] },
    {
      ...{ index: 1, soakMs: 0 },
      regions: ['west', 'east'].map((region) => ({ region, devices: null })),
    },
  ]);
  const started = await lepton(home, ['rollout', 'start', '-f', rolloutFile(t, good), '--json']);
  const { id: first } = rolloutStartedSchema.parse(JSON.parse(started));
  const watched = (await lepton(home, ['rollout', 'watch', first, '--json'])).trim().split('\n');
  for (const line of watched) {
    const { regions: parts } = regionRolloutStatusSchema.parse(JSON.parse(line));
    const [own, ...others] = parts;
    if (own?.state !== 'succeeded')
      assert.ok(
        others.every((part) => part.rollout === null),
        line,
      );
  }
  const done = regionRolloutStatusSchema.parse(JSON.parse(watched.at(-1) ?? ''));
  assert.equal(done.state, 'succeeded');
  for (const part of done.regions) {
    assert.deepEqual(part.waves[0]?.devices, { total: 1, committed: 1 });
    assert.equal(
      part.gates.every(({ verdict }) => verdict === 'pass'),
      true,
    );
  }
  assert.deepEqual(await Promise.all(regions.map(runs)), Array(3).fill('acme/one@1.0.0'));
  // Nothing of a device has left its region.
  const said = JSON.stringify(
    await home.registry.parts.store.tx((db) =>
      db.all(home.registry.parts.store.qb.selectFrom('region_rollout_parts').selectAll()),
    ),
  );
  for (const id of ids) assert.equal(said.includes(id), false);
  assert.equal(said.includes('secret'), false);
  const [own] = await west.registry.parts.rollouts.list();
  assert.equal(own?.createdBy, 'region:home/admin');
  const list = z.array(rolloutSummarySchema).parse((await api(home, '')).body);
  assert.deepEqual(
    list.map(({ id, state }) => [id.length, state]),
    // The part of this region began after the whole.
    [
      [17, 'succeeded'],
      [18, 'succeeded'],
    ],
  );

  // The gate of east fails while west is at work.
  const bad = { ...good, release: 'acme/one@2.0.0' };
  const second = await start(t, home, { ...bad, regions: [['west', 'east'], ['home']] });
  const out = await lepton(home, ['rollout', 'watch', second], 1);
  assert.match(out, /east failed: wave 0: gate probe is 0, limit 1/);
  const failed = await statusOf(home, second);
  assert.equal(failed.state, 'paused');
  assert.deepEqual(failed.failed, ['east']);
  assert.deepEqual(await states(home, second), { west: 'paused', east: 'failed', home: 'waiting' });
  const explained = regionRolloutExplanationSchema.parse((await api(home, `/${second}/explanation`)).body);
  assert.match(
    explained.regions.find(({ region }) => region === 'east')?.waitsFor[0] ?? '',
    /--without east/,
  );
  assert.equal((await api(home, `/${second}/approve`, {})).status, 409);
  westGoesOn();
  await lepton(home, ['rollout', 'resume', second, '--without', 'east']);
  await until('it succeeds without east', async () => (await statusOf(home, second)).state === 'succeeded');
  assert.deepEqual(await states(home, second), { west: 'succeeded', east: 'left-out', home: 'succeeded' });
  assert.deepEqual(await Promise.all(regions.map(runs)), [
    ...['acme/one@2.0.0', 'acme/one@2.0.0', 'acme/one@1.0.0'],
  ]);

  // West is stopped in the middle: it goes on by itself when it is back, and east waits for it.
  const third = await start(t, home, {
    ...{ release: 'acme/one@3.0.0', waves: [{ percent: 100, soak: '1s' }], regions: ['west', 'east'] },
  });
  await until('west runs', async () => (await states(home, third))['west'] === 'running');
  await west.stop();
  await until('home sees that west is away', async () =>
    (await statusOf(home, third)).regions.some(
      (part) => part.region === 'west' && part.unreachableSinceMs !== null,
    ),
  );
  assert.deepEqual(await states(home, third), { west: 'running', east: 'waiting' });
  await home.stop();
  await home.start();
  await west.start();
  await until('it succeeds', async () => (await statusOf(home, third)).state === 'succeeded', 30_000);
  for (const [region, count] of [
    [home, 2],
    [west, 3],
    [east, 3],
  ] as const)
    assert.equal((await region.registry.parts.rollouts.list()).length, count);

  // Another region than home orders nothing elsewhere.
  const refused = await start(t, west, { ...good, regions: [['west'], ['east']] });
  await until('east refuses', async () => (await statusOf(west, refused)).state === 'paused');
  const [, part] = (await statusOf(west, refused)).regions;
  assert.deepEqual(
    [part?.state, part?.code, part?.rule],
    ['refused', 'policy-denied', 'default/others-order-nothing'],
  );
  assert.equal((await api(west, `/${refused}/abort`, {})).status, 200);
  assert.equal((await statusOf(west, refused)).state, 'aborted');
  const nowhere = readFileSync(rolloutFile(t, { ...good, regions: ['north'] }), 'utf8');
  assert.equal((await api(west, '', { file: nowhere })).status, 404);
});
