// Why: the small form of `npm run chaos`. Trusts: chaos.ts. Must never: pass without a kill of each kind and a cut.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chaos } from './chaos.ts';

test('agents and registry killed, links cut: each answered record is stored once', async () => {
  const { agentKills, registryKills, cuts, answered, lost, duplicated, dropped } = await chaos({
    ...{ agents: 2, records: 6_000, recordsPerRequest: 25, kills: 7, killEveryMs: 1_500, seed: 5 },
    broker: 'embedded',
  });
  assert.ok(agentKills > 0 && registryKills > 0 && cuts > 0, `${agentKills} ${registryKills} ${cuts}`);
  assert.ok(answered >= 6_000);
  assert.deepEqual([lost, duplicated, dropped], [0, 0, 0]);
});
