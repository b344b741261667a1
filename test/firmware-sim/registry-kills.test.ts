// Why: a registry that is killed again and again during a rollout brings its fleet to the same end as one that never is.
// Trusts: firmware-sim for the world, its oracles for every invariant on the way. Must never: kill one that has nothing to do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFleetWorld, type FleetWorld } from '../../firmware-sim/fleet-world/fleet.ts';
import type { ReleaseKind } from '../../firmware-sim/fleet-world/publisher.ts';
import { drawTerms } from '../../firmware-sim/fleet-world/terms.ts';
import { guarded } from '../../firmware-sim/guard.ts';
import { disagreement } from '../../firmware-sim/oracle/agreement.ts';
import { fleetLimits } from '../../registry/fleet/limits.ts';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { registryMigrations } from '../../registry/store/open.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { chance } from '../support/chance.ts';

/** `npm run sim:kills` has 200. */
const devices = Number(process.env['LEPTON_KILL_DEVICES'] ?? 20);
const minuteMs = 60_000;
const waves = [
  { count: 1, soak: '10m' },
  { percent: 10, soak: '10m' },
  { percent: 50, soak: '10m' },
  { percent: 100, soak: '10m' },
];
const disruption = { label: 'site', maxUnavailable: Math.ceil(devices / 10) };

function worldOf(): FleetWorld {
  const terms = drawTerms(1);
  const { assignmentMs, assignmentRenewBeforeMs, renewEveryMs, deviceCertificateMs } = fleetLimits;
  const longLived = { assignmentMs, assignmentRenewBeforeMs, renewEveryMs, deviceCertificateMs };
  return createFleetWorld(
    1,
    {
      ...terms,
      devices,
      models: ['alpha'],
      encodes: false,
      recordEveryMs: 600 * minuteMs,
      device: {
        ...terms.device,
        pollMs: 15 * minuteMs,
        reportEveryMs: 15 * minuteMs,
        statsEveryMs: 600 * minuteMs,
      },
      registry: { ...terms.registry, ...longLived, downloadsMax: 50 },
    },
    { only: [], trace: false },
  );
}

/** Passes until it holds, a minute at a time. */
async function until(
  fleet: FleetWorld,
  what: string,
  holds: () => boolean | Promise<boolean>,
): Promise<void> {
  const { world } = fleet;
  for (const endMs = world.nowMs() + 600 * minuteMs; !(await holds()); ) {
    assert.equal(world.violation(), null);
    assert.ok(world.nowMs() < endMs, `${what} took more than ten hours`);
    await world.run(world.nowMs() + minuteMs);
  }
}

const row = <T>(fleet: FleetWorld, sql: string, ...values: string[]): T[] =>
  fleet.registry.place.look('registry.sqlite', (db) => db.all<T>(sql, ...values)) ?? [];
const stateOf = (fleet: FleetWorld, id: string): string =>
  row<{ state: string }>(fleet, 'SELECT state FROM rollouts WHERE rollout_id = ?', id)[0]?.state ?? 'unknown';

/** Pushed and begun at once, before anything is killed. */
async function begin(fleet: FleetWorld, kind: ReleaseKind, spec: object): Promise<string> {
  let id: string | null = null;
  await until(fleet, 'the registry', () => fleet.registry.up() !== null);
  const up = fleet.registry.up();
  assert.ok(up);
  const pushing = fleet.publisher.push(up, { model: 'alpha', kind }).then(async (pushed) => {
    const { releaseId } = unwrap(pushed);
    const metadata = { name: `alpha-${fleet.publisher.signed().length}` };
    const body = {
      apiVersion: 'lepton/v1',
      kind: 'Rollout',
      metadata,
      spec: { release: releaseId, ...spec },
    };
    id = unwrap(await up.rollouts.begin(unwrap(parseRolloutFile(JSON.stringify(body))), 'operator')).id;
  });
  await until(fleet, 'the start of a rollout', () => id !== null);
  await pushing;
  assert.ok(id !== null);
  return id;
}

/** How it ended, without what each run draws for itself. */
function endOf(fleet: FleetWorld, id: string) {
  const [rollout] = row<{ state: string; release: string }>(
    fleet,
    'SELECT state, release_id AS release FROM rollouts WHERE rollout_id = ?',
    id,
  );
  const ofWaves = row<{ state: string }>(
    fleet,
    'SELECT state FROM rollout_waves WHERE rollout_id = ? ORDER BY wave_index',
    id,
  ).map(({ state }) => state);
  const members = row<object>(
    fleet,
    `SELECT m.device_id AS id, m.wave_index AS wave, m.state, m.step, r.active, r.last_good AS lastGood
     FROM rollout_devices m LEFT JOIN device_models r ON r.device_id = m.device_id AND r.name = 'alpha'
     WHERE m.rollout_id = ? ORDER BY m.device_id`,
    id,
  );
  return { rollout, waves: ofWaves, members };
}

interface End {
  good: ReturnType<typeof endOf>;
  bad: ReturnType<typeof endOf>;
  killed: number;
  served: Record<string, number>;
}

async function live(kills: number): Promise<End> {
  const fleet = worldOf();
  const { world, registry } = fleet;
  registry.boot();
  for (let index = 0; index < devices; index += 1) fleet.addDevice({ site: `s${index % 4}` });
  const enrolled = (): number => row(fleet, `SELECT 1 FROM devices WHERE presence = 'online'`).length;
  await until(fleet, 'enrolment', () => enrolled() === devices);
  const first = await begin(fleet, 'good', { waves: [{ percent: 100 }] });
  await until(fleet, 'release 1', () => stateOf(fleet, first) === 'succeeded');

  const good = await begin(fleet, 'good', { waves, disruption });
  const next = chance(77);
  let killed = 0;
  /** Only while there is a rollout to disturb. */
  const kill = (): void => {
    if (killed === kills) return;
    if (registry.up() !== null && !['succeeded', 'failed'].includes(stateOf(fleet, good))) {
      killed += 1;
      registry.fail(next() < 0.5 ? 'cut' : 'exit', 500 + Math.floor(next() * 10_000));
    }
    world.later(1_000 + Math.floor(next() * 45_000), kill);
  };
  kill();
  await until(fleet, 'release 2', () => registry.up() !== null && stateOf(fleet, good) === 'succeeded');
  const bad = await begin(fleet, 'bad-golden', { waves, disruption });
  await until(fleet, 'release 3', () => stateOf(fleet, bad) === 'failed');
  const at = (): string | null => disagreement(registry, fleet.devices, fleet.publisher);
  await until(fleet, 'agreement', () => at() === null);
  const served: Record<string, number> = {};
  for (const { oracle } of fleet.devices)
    for (const { active } of oracle.machines().values()) {
      const name = active?.releaseId ?? 'nothing';
      served[name] = (served[name] ?? 0) + 1;
    }
  assert.equal(world.violation(), null);
  return { good: endOf(fleet, good), bad: endOf(fleet, bad), killed, served };
}

test(`${devices} devices, a registry killed 50 times during the rollout: the same end as without`, async () => {
  registryMigrations();
  const undisturbed = await guarded(() => live(0));
  const killed = await guarded(() => live(50));
  assert.equal(killed.killed, 50);
  assert.deepEqual(undisturbed.served, { 'acme/alpha@2.0.0': devices });
  assert.deepEqual(undisturbed.good.waves, ['passed', 'passed', 'passed', 'passed']);
  assert.deepEqual(undisturbed.bad.waves, ['failed', 'pending', 'pending', 'pending']);
  assert.deepEqual({ ...killed, killed: 0 }, undisturbed);
});
