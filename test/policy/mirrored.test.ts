// Why: a region takes of the catalogue what its policy lets in, by a card that it has to fetch first; and gives what its policy
// lets go. Trusts: test/regions/support.ts. Must never: go past the doors.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { signPolicy } from '../../shared/trust/region-policy.ts';
import { installable, joinRegion, type Region, startRegion, until } from '../regions/support.ts';
import { pushWithCard } from './carded.ts';
import { policyOf } from './files.ts';

async function put({ registry, name }: Region, spec: string, version = 1): Promise<void> {
  const { policies, masking } = registry.parts;
  const envelope = signPolicy(policyOf(spec, { region: name, version }));
  unwrap(await policies.put(envelope, { by: 'admin', masking }));
}

test('what a region’s policy does not let in is not mirrored, until it does; what goes is metered at its source', async (t) => {
  const home = await startRegion(t, 'home');
  const west = await joinRegion(t, home, 'west');
  await put(west, 'releases: {licences: [MIT]}');
  const push = async (version: string, counter: number, licence: string) =>
    unwrap(
      await pushWithCard(
        home.registry.parts,
        `acme/pump@${version}`,
        counter,
        `---\nlicence: ${licence}\n---\n`,
      ),
    );
  await push('1.0.0', 1, 'MIT');
  await push('1.1.0', 2, 'GPL-3.0-only');
  await until('the one is here', async () => (await installable(west)).length === 1);
  await until('the other is refused', async () => (await west.status()).catalogue.refused.length === 1);
  const [refused] = (await west.status()).catalogue.refused;
  assert.deepEqual([refused?.releaseId, refused?.code], ['acme/pump@1.1.0', 'policy-denied']);
  assert.match(refused?.detail ?? '', /GPL-3\.0-only/);
  await put(west, 'releases: {licences: [MIT, GPL-3.0-only]}', 2);
  await until('the other too', async () => (await installable(west)).length === 2);

  const { store } = home.registry.parts;
  const counts = await store.tx((db) =>
    db.all(store.qb.selectFrom('flow_counts').selectAll().where('flow', '=', 'catalogue')),
  );
  assert.deepEqual(
    [...new Set(counts.map((one) => `${one.destination} ${one.rule}`))],
    ['west default/catalogue'],
  );
  assert.ok(counts.every(({ bytes, requests }) => bytes > 0 && requests > 1));

  await put(
    home,
    "flows: [{id: nothing, classes: [catalogue], destinations: ['*'], allow: false, because: closed}]",
  );
  await push('1.2.0', 3, 'MIT');
  await until('home refused', async () => {
    const events = await home.registry.parts.fleet.events.list({ code: 'policy-denied', limit: 1 });
    return events[0]?.detail.includes('flows/nothing') === true;
  });
  assert.equal((await installable(west)).length, 2);
});
