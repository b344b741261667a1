// Why: every upload attack is refused with its own code and leaves the catalogue as it was.
// Trusts: upload-cases.ts. Must never: pass because nothing at all is taken.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { closeUploadWorld, uploadCases, uploadWorld } from './upload-cases.ts';

describe('what an upload may not do', () => {
  after(closeUploadWorld);
  let honest = '';

  test('an honest one is taken', async () => {
    const world = await uploadWorld();
    const publisher = await world.publisher();
    assert.equal(await publisher.step(publisher.next()), 'accepted');
    const other = await world.publisher();
    assert.equal(await other.push(await other.honest()), 'accepted');
    honest = `${other.namespace}/echo`;
    const { token } = await world.token('publisher', publisher.namespace);
    assert.equal(await publisher.step(publisher.next({ version: publisher.version + 2 }), token), 'accepted');
  });

  test('every case has a name of its own', () => {
    assert.equal(new Set(uploadCases.map(({ id }) => id)).size, uploadCases.length);
    assert.ok(uploadCases.length >= 45, `${uploadCases.length} cases`);
  });

  for (const { id, attack, code, run } of uploadCases) {
    test(`${id}: ${attack}`, async () => {
      const { registry } = await uploadWorld();
      const releases = async () =>
        (await registry.parts.releases.list()).map((model) => [model.name, model.versions.length]);
      assert.equal(await run(), code);
      // Each case has its own namespaces with the two honest releases in them, and never more.
      assert.ok((await releases()).every(([name, count]) => count === (name === honest ? 3 : 2)));
    });
  }
});
