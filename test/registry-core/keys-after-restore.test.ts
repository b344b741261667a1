// Why: a ceremony after a restore gives a publisher's metadata no version that devices may hold with other bytes.
// Trusts: test/support/ceremony.ts for the holders' side. Must never: judge by anything but codes and versions.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { Change } from '../../shared/trust/ceremony/change.ts';
import { readPublisherTargets, restoreLostMax } from '../../shared/trust/tuf/publisher.ts';
import { type KeyBundle, keyBundleSchema, keyPlanSchema } from '../../shared/wire/key-plan.ts';
import { bundleFrom, holder, signedBy } from '../support/ceremony.ts';
import { bench, dayMs, hexOf, identityModel, preparePush, publisherKey } from './support.ts';

const olga = holder('olga');
const replaced: Change = { kind: 'replace', keyId: publisherKey('acme').keyId, by: olga.key };
const code = (result: Result<unknown>): string => (result.ok ? 'accepted' : result.refusal.code);

/** A registry with development keys, and acme's first version. */
async function registry(t: TestContext) {
  const { repository, clock } = await bench(t);
  unwrap(await repository.delegate('acme', [hexOf(publisherKey('acme'))], 1));
  const { metadata } = preparePush({
    releaseId: 'acme/echo@1.0.0',
    model: identityModel('1'),
    current: null,
    counter: 1,
    signers: [publisherKey('acme')],
    expiresAtMs: clock.wall() + 365 * dayMs,
  });
  unwrap(await repository.acceptPublisherMetadata('acme', metadata));
  const plan = async () =>
    keyPlanSchema.parse(JSON.parse(JSON.stringify(await repository.keys.plan({ newOnline: false }))));
  return {
    repository,
    plan,
    bundle: async (changes: Change[], more: { leaveUnsigned?: string[]; renewPublishers?: string[] } = {}) =>
      signedBy(bundleFrom(await plan(), changes, { nowMs: clock.wall(), ...more }), olga),
    install: (bundle: KeyBundle) =>
      repository.keys.install(keyBundleSchema.parse(JSON.parse(JSON.stringify(bundle)))),
    version: async () => (await repository.publisher('acme'))?.metadataVersion,
  };
}

test('a bundle made before the registry learned of lost versions is refused; the next one goes above them', async (t) => {
  const { repository, bundle, install, version } = await registry(t);
  const early = await bundle([replaced]);
  unwrap(await repository.raiseVersionFloor('acme', 6));
  assert.equal(code(await install(early)), 'metadata-version-invalid');
  assert.equal(await version(), 1);
  unwrap(await install(await bundle([replaced])));
  assert.equal(await version(), 7);
  const served = await repository.file('7.acme.json');
  assert.ok(served);
  assert.equal(unwrap(readPublisherTargets(new Uint8Array(served))).targets.size, 1);
});

test('a publisher who was left unsigned signs again above the lost versions', async (t) => {
  const { repository, bundle, install, version } = await registry(t);
  unwrap(await repository.raiseVersionFloor('acme', 6));
  unwrap(await install(await bundle([replaced], { leaveUnsigned: ['acme'] })));
  assert.equal(await version(), 1);
  unwrap(await install(await bundle([], { renewPublishers: ['acme'] })));
  assert.equal(await version(), 7);
});

test('no holder signs a version beyond what a restore can have lost', async (t) => {
  const { repository, plan, bundle } = await registry(t);
  unwrap(await repository.raiseVersionFloor('acme', 2 + restoreLostMax));
  await assert.rejects(bundle([replaced]), { code: 'metadata-version-invalid' });
  // A plan of a registry that does not know of floors has none.
  const { publishers, ...rest } = await plan();
  const older = publishers.map(({ versionFloor: _versionFloor, ...publisher }) => publisher);
  assert.equal(keyPlanSchema.parse({ ...rest, publishers: older }).publishers[0]?.versionFloor, 0);
});
