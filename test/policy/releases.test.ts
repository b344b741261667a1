// Why: what a policy does not let in is refused where it is pushed, and where it is there already, where a rollout begins.
// Trusts: test/fleet/world.ts. Must never: stand in for a part that is under test.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { signPolicy } from '../../shared/trust/region-policy.ts';
import { openWorld } from '../fleet/world.ts';
import { pushWithCard } from './carded.ts';
import { policyOf } from './files.ts';

const ruleOf = <T>(result: Result<T>): string =>
  result.ok ? 'ok' : `${result.refusal.code} ${result.refusal.rule ?? '-'}`;

test('push, plan and start ask the policy; one that came before is refused at its next rollout', async (t) => {
  const world = await openWorld(t);
  await world.devices(1);
  const put = async (spec: string, version: number): Promise<void> => {
    const options = { by: 'admin', masking: world.core.masking };
    unwrap(await world.core.policies.put(signPolicy(policyOf(spec, { version })), options));
  };
  const free = '---\nlicence: MIT\n---\n# Pump\n';
  assert.equal(ruleOf(await pushWithCard(world, 'acme/pump@1.0.0', 1, '# Pump\n')), 'ok', 'no policy yet');
  await put('releases: {publishers: [acme], licences: [MIT]}', 1);
  assert.equal(
    ruleOf(await pushWithCard(world, 'acme/pump@1.1.0', 2, '# no licence\n')),
    'policy-denied releases/licences',
  );
  assert.equal(
    ruleOf(await pushWithCard(world, 'evil/pump@1.0.0', 1, free)),
    'policy-denied releases/publishers',
  );
  assert.equal(ruleOf(await pushWithCard(world, 'acme/pump@1.2.0', 2, free)), 'ok');

  const file = (release: string) =>
    unwrap(
      parseRolloutFile(
        `apiVersion: lepton/v1\nkind: Rollout\nmetadata: {name: r}\nspec: {release: ${release}, waves: [{percent: 100}]}`,
      ),
    );
  const begin = async (release: string) => ruleOf(await world.rollouts.begin(file(release), 'tester'));
  assert.equal(await begin('acme/pump@1.0.0'), 'policy-denied releases/licences');
  assert.equal(await begin('acme/pump@1.2.0'), 'ok');
  await put('releases: {requireCard: [intended-use]}', 2);
  assert.equal(await begin('acme/pump@1.2.0'), 'policy-denied releases/requireCard');
});
