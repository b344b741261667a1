// Why: four eyes through the command line: who starts a rollout, who allows it, who may only look.
// Trusts: the real CLI, registry and agent. Must never: approve with the token of whoever started it.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { RolloutHistory, RolloutStatus } from '../../shared/wire/rollouts.ts';
import { identityModel } from '../registry-core/support.ts';
import { makeClaim, pushModel } from '../support/fleet.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

test('a rollout waits for approval, is paused and resumed, and its history says who did what', async () => {
  const place = workplace('approvals');
  try {
    const registry = await startTestRegistry(place);
    await startTestAgent(place, await makeClaim(place, registry));
    const model = place.path('echo.onnx');
    writeFileSync(model, identityModel('echo'));
    await pushModel(registry, model, 'acme/echo@1.0.0');
    const tokenOf = async (user: string, role: string): Promise<string[]> => {
      const made = await registry.lepton(['tokens', 'create', '--user', user, '--role', role, '--json']);
      return ['--token', (made.json() as { token: string }).token];
    };
    const olga = await tokenOf('olga', 'operator');
    const anna = await tokenOf('anna', 'approver');
    const file = place.path('rollout.yaml');
    writeFileSync(
      file,
      [
        'apiVersion: lepton/v1',
        'kind: Rollout',
        'metadata: {name: echo}',
        'spec:',
        '  release: acme/echo@1.0.0',
        '  waves: [{percent: 100}]',
        '  approvals: {required: 1}',
      ].join('\n'),
    );
    const started = await registry.lepton(['rollout', 'start', '-f', file, '--json', ...olga]);
    const { id } = started.json() as { id: string };
    const status = async (): Promise<RolloutStatus> =>
      (await registry.lepton(['rollout', 'status', id, '--json'])).json() as RolloutStatus;
    await until('it waits', async () => ((await status()).state === 'awaiting-approval' ? true : null));

    const explained = await registry.lepton(['rollout', 'explain', id]);
    assert.match(explained.stdout, /0\s+pending\s+-\s+1 approval/);
    const [waiting] = (await registry.lepton(['devices', 'list', '--json'])).json() as { id: string }[];
    const ofDevice = await registry.lepton(['rollout', 'explain', id, waiting?.id ?? '']);
    assert.match(ofDevice.stdout, /wave 0 waits for 1 more approval/);

    const fails = async (args: string[], words: RegExp): Promise<void> => {
      assert.match((await registry.lepton(['rollout', ...args], 1)).stderr, words);
    };
    await fails(['approve', id, ...olga], /role-forbidden/);
    await fails(['pause', id, ...anna], /role-forbidden/);
    await fails(['resume', id, ...olga], /rollout-state/);
    await registry.lepton(['rollout', 'pause', id, '--comment', 'not tonight', ...olga]);
    assert.equal((await status()).reason, 'paused by olga: not tonight');
    const allowed = await registry.lepton([
      'rollout',
      'approve',
      id,
      '--comment',
      'seen the numbers',
      ...anna,
    ]);
    assert.match(allowed.stdout, /wave 0\s+anna/);
    await fails(['approve', id, ...anna], /approval-repeated/);
    assert.equal((await status()).state, 'paused');
    await registry.lepton(['rollout', 'resume', id, ...olga]);
    await registry.lepton(['rollout', 'watch', id]);

    const history = (await registry.lepton(['rollout', 'history', id, '--json'])).json() as RolloutHistory;
    assert.deepEqual(
      history.filter(({ by }) => by !== null).map(({ what, by, reason }) => [what, by, reason]),
      [
        ['running', 'olga', null],
        ['paused', 'olga', 'paused by olga: not tonight'],
        ['approved', 'anna', 'seen the numbers'],
        ['running', 'olga', null],
      ],
    );
    assert.equal(history.at(-1)?.what, 'succeeded');
    assert.match((await registry.lepton(['rollout', 'history', id])).stdout, /wave 0\s+passed/);
    await fails(['approve', id, ...anna], /rollout-state/);
  } finally {
    await place.close();
  }
});
