// Why: the promise about time zones: devices in Auckland, Berlin and Denver switch in their own night, also in the night
// in which their clock is changed. Real agent and registry cores on virtual time, without faults.
// Trusts: the calendar, written down here in UTC. Must never: compute the expected times.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFleetWorld } from '../../firmware-sim/fleet-world/fleet.ts';
import { createOperator } from '../../firmware-sim/fleet-world/operator.ts';
import type { Act, RolloutChoice } from '../../firmware-sim/fleet-world/scenario.ts';
import { drawTerms, type WorldTerms } from '../../firmware-sim/fleet-world/terms.ts';
import { guarded } from '../../firmware-sim/guard.ts';
import { registryFile } from '../../firmware-sim/oracle/registry-oracle.ts';
import { registryMigrations } from '../../registry/store/open.ts';

const seed = 7;
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const zones = ['Pacific/Auckland', 'Europe/Berlin', 'America/Denver'] as const;
const night = { activate: [{ from: '02:00', to: '05:00' }], deferMax: 0 };

interface Night {
  change: string;
  /** Noon of the day on which the first release is pushed, at 20:00. */
  origin: string;
  /** Of each zone, when its window opens after each of three daily releases. UTC. */
  opens: { [Z in (typeof zones)[number]]: [string, string, string] };
}

const nights: Night[] = [
  {
    change: 'Denver leaves 02:00 to 03:00 of 8 March out',
    origin: '2026-03-06T12:00Z',
    opens: {
      'Pacific/Auckland': ['2026-03-07T13:00Z', '2026-03-08T13:00Z', '2026-03-09T13:00Z'],
      'Europe/Berlin': ['2026-03-07T01:00Z', '2026-03-08T01:00Z', '2026-03-09T01:00Z'],
      // 02:00, then 03:00 because there is no 02:00, then 02:00 of summer.
      'America/Denver': ['2026-03-07T09:00Z', '2026-03-08T09:00Z', '2026-03-09T08:00Z'],
    },
  },
  {
    change: 'Berlin leaves 02:00 to 03:00 of 29 March out',
    origin: '2026-03-27T12:00Z',
    opens: {
      'Pacific/Auckland': ['2026-03-28T13:00Z', '2026-03-29T13:00Z', '2026-03-30T13:00Z'],
      'Europe/Berlin': ['2026-03-28T01:00Z', '2026-03-29T01:00Z', '2026-03-30T00:00Z'],
      'America/Denver': ['2026-03-28T08:00Z', '2026-03-29T08:00Z', '2026-03-30T08:00Z'],
    },
  },
  {
    change: 'Auckland repeats 02:00 to 03:00 of 5 April',
    origin: '2026-04-02T12:00Z',
    opens: {
      'Pacific/Auckland': ['2026-04-03T13:00Z', '2026-04-04T13:00Z', '2026-04-05T14:00Z'],
      'Europe/Berlin': ['2026-04-03T00:00Z', '2026-04-04T00:00Z', '2026-04-05T00:00Z'],
      'America/Denver': ['2026-04-03T08:00Z', '2026-04-04T08:00Z', '2026-04-05T08:00Z'],
    },
  },
];

function termsOf(originMs: number): WorldTerms {
  const drawn = drawTerms(seed);
  return {
    ...drawn,
    ...{ devices: zones.length, windowed: true, originMs, zones, models: ['alpha'] },
    device: { ...drawn.device, pollMs: hourMs, reportEveryMs: hourMs, statsEveryMs: 6 * hourMs },
    recordEveryMs: 6 * hourMs,
  };
}

async function live({ origin, opens }: Night): Promise<void> {
  const originMs = Date.parse(origin);
  const fleet = createFleetWorld(seed, termsOf(originMs), { only: [], trace: true });
  const { world } = fleet;
  const operator = createOperator(fleet);
  fleet.registry.boot();
  for (const _ of zones) fleet.addDevice({ site: 'north' });
  const rollout: RolloutChoice = {
    waves: [{ percent: 100, soakMs: 60_000 }],
    shadow: false,
    success: null,
    onGateFailure: 'rollback',
    site: null,
    unreachable: 'wait',
    deadlineMs: { fetching: 20 * minuteMs, probing: 5 * minuteMs, shadowing: 6 * minuteMs },
    disruption: null,
    growth: null,
    priority: 0,
    queue: false,
    together: false,
    approvals: null,
    windows: night,
  };
  for (const day of [0, 1, 2]) {
    const act: Act = { kind: 'release', model: 'alpha', release: 'good', rollout };
    const atMs = (8 + 24 * day) * hourMs;
    world.later(atMs, () => operator.take({ number: day, atMs, act }));
  }
  await world.run(80 * hourMs);
  assert.equal(world.violation(), null);

  for (const [index, zone] of zones.entries()) {
    const switched = world
      .marks()
      .filter(({ node, text }) => node === `device-${index + 1}` && text === 'alpha switching')
      .map(({ atMs }) => originMs + atMs);
    assert.equal(switched.length, 3, `${zone} switches each night`);
    for (const [at, ms] of switched.entries()) {
      const opensMs = Date.parse(opens[zone][at] ?? '');
      const lateMs = ms - opensMs;
      const said = `${zone}: ${new Date(ms).toISOString()}, the window opens ${opens[zone][at]}`;
      // Its clock is the region's, as exact as the way of a question there and back.
      assert.ok(lateMs > -5_000 && lateMs < 2 * minuteMs, said);
    }
  }
  const states = fleet.registry.place.look(registryFile, (db) =>
    db.all<{ state: string }>('SELECT state FROM rollouts ORDER BY number').map(({ state }) => state),
  );
  assert.deepEqual(states, ['succeeded', 'succeeded', 'succeeded']);
}

for (const one of nights)
  test(one.change, async () => {
    registryMigrations();
    await guarded(() => live(one));
  });
