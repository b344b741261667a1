// Why: waves are a stable choice: every device once, as many as said, the same in every run.
// Trusts: nothing. Must never: depend on the order in which devices are listed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { matches } from '../../registry/rollout/selector.ts';
import { cumulativeDevices, placeDevices } from '../../registry/rollout/waves.ts';
import type { Selector } from '../../shared/wire/rollout-file.ts';

const ids = (count: number): string[] => Array.from({ length: count }, (_, index) => `device-${index}`);
const place = (
  newcomers: string[],
  waves: { count?: number; percent?: number }[],
  members = new Map<string, number>(),
  from = 0,
) =>
  placeDevices({ name: 'r', waves: waves.map((wave) => ({ soak: 0, ...wave })), from, members, newcomers });

test('fills waves cumulatively and rounds up', () => {
  const placed = place(ids(10), [{ count: 1 }, { percent: 50 }, { percent: 100 }]);
  const sizes = [0, 1, 2].map((wave) => [...placed.values()].filter((at) => at === wave).length);
  assert.deepEqual(sizes, [1, 4, 5]);
  assert.equal(cumulativeDevices({ percent: 1, soak: 0 }, 10), 1);
  assert.equal(cumulativeDevices({ count: 20, soak: 0 }, 10), 10);
  // A single wave that is not everything leaves the others out.
  assert.equal(place(ids(10), [{ count: 3 }]).size, 3);
});

test('the same devices, whatever their order; a late one never joins a wave that has passed', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 60 }),
      fc.integer({ min: 0, max: 20 }),
      fc.integer(),
      (count, late, seed) => {
        const waves = [{ count: 2 }, { percent: 30 }, { percent: 100 }];
        const all = ids(count);
        const shuffled = [...all].sort(
          (a, b) => ((a.length * seed) % 7) - ((b.length * seed) % 7) || (a < b ? 1 : -1),
        );
        const placed = place(all, waves);
        assert.deepEqual(new Map([...place(shuffled, waves)].sort()), new Map([...placed].sort()));
        assert.equal(placed.size, count);
        const newcomers = Array.from({ length: late }, (_, index) => `late-${index}`);
        const joined = place(newcomers, waves, placed, 1);
        assert.equal(joined.size, late);
        for (const wave of joined.values()) assert.ok(wave >= 1);
      },
    ),
  );
});

const device = { region: 'eu', id: 'd1', agent: { version: '0.2.0', runtime: '1.27.0', arch: 'arm64' } };
const none = new Map<string, Selector>();

test('selectors mean what Kubernetes means', () => {
  const labels = { site: 'a', line: 'x' };
  const on = (key: string, operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist', values: string[] = []) =>
    matches({ matchLabels: {}, matchExpressions: [{ key, operator, values }] }, { ...device, labels }, none);
  assert.ok(matches({ matchLabels: {}, matchExpressions: [] }, { ...device, labels: {} }, none));
  assert.ok(matches({ matchLabels: { site: 'a' }, matchExpressions: [] }, { ...device, labels }, none));
  assert.ok(!matches({ matchLabels: { site: 'b' }, matchExpressions: [] }, { ...device, labels }, none));
  assert.ok(!matches({ matchLabels: { toString: 'a' }, matchExpressions: [] }, { ...device, labels }, none));
  assert.deepEqual(
    [on('line', 'In', ['x', 'y']), on('line', 'In', ['y']), on('none', 'In', ['x'])],
    [true, false, false],
  );
  assert.deepEqual(
    [on('line', 'NotIn', ['x']), on('line', 'NotIn', ['y']), on('none', 'NotIn', ['x'])],
    [false, true, true],
  );
  assert.deepEqual([on('line', 'Exists'), on('none', 'Exists')], [true, false]);
  assert.deepEqual([on('line', 'DoesNotExist'), on('none', 'DoesNotExist')], [false, true]);
});
