// Why: twenty devices and a registry that keeps dying: a rollout ends as if nothing had happened, and
// says at every moment how far it is.
// Trusts: light devices for everything but the models. Must never: end the registry kindly where it says kill -9.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { RolloutStatus } from '../../shared/wire/rollouts.ts';
import { modelCase } from '../support/cases.ts';
import { dataMissing } from '../support/data.ts';
import { makeClaim, pushModel, startRollout } from '../support/fleet.ts';
import { type LightDevice, startLightDevice } from '../support/light-fleet.ts';
import { rolloutNow } from '../support/looking.ts';
import {
  startTestRegistry,
  type TestRegistry,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';

const deviceCount = 20;
/** Where one device is off: the others are only there to go on. */
const deviceCountOff = 6;
const release = 'acme/digits@1.0.0';
/** How often is looked where a rollout waits for seconds. */
const lookEveryMs = 100;

async function fleetOf(place: Workplace, registry: TestRegistry, count: number): Promise<LightDevice[]> {
  const claim = await makeClaim(place, registry, 'fleet', ['--uses', String(count)]);
  const names = Array.from({ length: count }, (_, index) => `device-${index}`);
  return Promise.all(names.map((name) => startLightDevice(place, claim, name)));
}

async function status(registry: TestRegistry, id: string): Promise<RolloutStatus> {
  return (await registry.lepton(['rollout', 'status', id, '--json'])).json() as RolloutStatus;
}

/** Progress is computable: every device is counted once in its wave, in some state. */
function checkProgress(now: RolloutStatus, devices: number): void {
  const totals = now.waves.map((wave) => {
    const { total = 0, ...states } = wave.devices;
    assert.equal(
      Object.values(states).reduce((sum, count) => sum + count, 0),
      total,
      `wave ${wave.index}: ${JSON.stringify(wave.devices)}`,
    );
    return total;
  });
  assert.ok(totals.reduce((sum, total) => sum + total, 0) <= devices);
  assert.equal(new Set(now.devices.map((one) => one.id)).size, now.devices.length);
}

describe('a fleet of twenty', { skip: dataMissing }, () => {
  test('the registry is killed ten times during a rollout: the end is the same', async () => {
    const place = workplace('fleet-kill');
    try {
      const registry = await startTestRegistry(place, 'registry', [], false);
      await fleetOf(place, registry, deviceCount);
      await pushModel(registry, modelCase('mnist/digit4-opset8').modelPath, release);
      const waves = {
        waves: [
          { count: 1, soak: '1s' },
          { percent: 50, soak: '2s' },
          { percent: 100, soak: '1s' },
        ],
      };
      const id = await startRollout(place, registry, release, waves);
      let seed = 20_251;
      let killedWhileRunning = 0;
      for (let kill = 0; kill < 10; kill += 1) {
        seed = (seed * 48_271) % 2_147_483_647;
        await new Promise((resolve) => setTimeout(resolve, seed % 900));
        if ((await status(registry, id)).state === 'running') killedWhileRunning += 1;
        await registry.daemon.stop('SIGKILL');
        await registry.restart();
      }
      assert.ok(killedWhileRunning >= 5, `only ${killedWhileRunning} of 10 kills met a running rollout`);
      await registry.lepton(['rollout', 'watch', id]);
      const end = await status(registry, id);
      assert.equal(end.state, 'succeeded');
      assert.deepEqual(
        end.waves.map((wave) => [wave.state, wave.devices]),
        [
          ['passed', { total: 1, committed: 1 }],
          ['passed', { total: 9, committed: 9 }],
          ['passed', { total: 10, committed: 10 }],
        ],
      );
      assert.deepEqual(
        end.devices.map((one) => [one.state, one.release]),
        Array(deviceCount).fill(['committed', release]),
      );
    } finally {
      await place.close();
    }
  });

  for (const counts of ['ignore', 'wait'] as const) {
    test(`one device is off: unreachable counts ${counts}`, async () => {
      const place = workplace(`fleet-${counts}`);
      try {
        const registry = await startTestRegistry(place, 'registry', [], false);
        const devices = await fleetOf(place, registry, deviceCountOff);
        await pushModel(registry, modelCase('mnist/digit4-opset8').modelPath, release);
        const off = devices.at(-1);
        assert.ok(off);
        await off.stop();
        const id = await startRollout(place, registry, release, {
          waves: [{ percent: 50 }, { percent: 100 }],
          deadlines: { unreachable: { after: '12s', counts } },
        });
        await until(
          counts === 'ignore' ? 'the rollout ends' : 'the rollout says what it waits for',
          async () => {
            const now = await rolloutNow(registry, id);
            checkProgress(now, deviceCountOff);
            const one = now.devices.find((device) => device.id === off.id);
            const waits = one?.state === 'unreachable' && now.state === 'running';
            return counts === 'ignore' ? now.state === 'succeeded' : waits;
          },
          ...[120_000, lookEveryMs],
        );
        const reached = await status(registry, id);
        checkProgress(reached, deviceCountOff);
        assert.equal(reached.devices.find((one) => one.id === off.id)?.state, 'unreachable');
        if (counts === 'wait') {
          const wave = reached.waves.find((one) => one.state === 'running' || one.state === 'soaking');
          assert.match(`${reached.reason ?? ''} ${wave?.reason ?? ''}`, /unreachable/);
        }
        const wave = reached.devices.find((one) => one.id === off.id)?.wave;

        await off.restart();
        await until(
          'the late device has its release, in its wave',
          async () => {
            const now = await rolloutNow(registry, id);
            checkProgress(now, deviceCountOff);
            const one = now.devices.find((device) => device.id === off.id);
            return now.state === 'succeeded' && one?.state === 'committed';
          },
          ...[60_000, lookEveryMs],
        );
        const end = await status(registry, id);
        checkProgress(end, deviceCountOff);
        assert.equal(end.state, 'succeeded');
        assert.equal(end.devices.find((one) => one.id === off.id)?.wave, wave);
        assert.ok(end.devices.every((one) => one.release === release));
      } finally {
        await place.close();
      }
    });
  }
});
