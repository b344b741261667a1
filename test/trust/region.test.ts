// Why: whose root a region's root is, and what may follow it. Trusts: shared/crypto.
// Must never: accept a root that its predecessor did not sign.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseRegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { codeOf, forge, Repository, role, signerNamed } from './catalogue-fixture.ts';
import { device, director, other, regionKeys, regionRoot, trusted } from './region-fixture.ts';

describe('a region’s root', () => {
  it('names the online keys of the region', () => {
    const root = trusted();
    assert.equal(root.region, 'eu');
    assert.equal(root.version, 1);
    assert.deepEqual(
      root.roles.director.keys.map((key) => key.publicKey),
      [director.publicKey],
    );
  });

  const refused: [string, Uint8Array, string][] = [
    ['one signature of two', regionRoot({ signers: regionKeys.slice(0, 1) }), 'metadata-signature-invalid'],
    ['signatures of strangers', regionRoot({ signers: [other, device] }), 'metadata-signature-invalid'],
    [
      'a change after signing',
      forge(regionRoot(), (file) => (file.signed['version'] = 2)),
      'metadata-signature-invalid',
    ],
    ['a catalogue’s root', new Repository().firstRoot, 'metadata-malformed'],
    [
      'no director',
      forge(
        regionRoot(),
        (file) => delete (file.signed['roles'] as Record<string, unknown>)['director'],
        regionKeys,
      ),
      'metadata-malformed',
    ],
    [
      'no region',
      forge(regionRoot(), (file) => delete file.signed['x-lepton'], regionKeys),
      'metadata-malformed',
    ],
    ['something else', new TextEncoder().encode('{}'), 'metadata-malformed'],
  ];
  for (const [what, bytes, code] of refused) {
    it(`with ${what}: ${code}`, () => assert.equal(codeOf(parseRegionRoot(bytes)), code));
  }

  const evil = ['evil-1', 'evil-2'].map(signerNamed);
  const next = ['next-1', 'next-2'].map(signerNamed);
  const updates: [string, Uint8Array, string][] = [
    ['a new director', regionRoot({ version: 2, director: role(1, other) }), 'ok'],
    [
      'new root keys, signed by both',
      regionRoot({ version: 2, root: role(2, ...next), signers: [...regionKeys, ...next] }),
      'ok',
    ],
    [
      'new root keys, signed by the old only',
      regionRoot({ version: 2, root: role(2, ...next) }),
      'metadata-signature-invalid',
    ],
    [
      'new root keys, signed by the new only',
      regionRoot({ version: 2, root: role(2, ...evil), signers: evil }),
      'metadata-signature-invalid',
    ],
    ['the same version', regionRoot(), 'metadata-version-invalid'],
    ['a skipped version', regionRoot({ version: 3 }), 'metadata-version-invalid'],
    ['another region', regionRoot({ version: 2, region: 'us' }), 'assignment-other-region'],
    ['bytes that are none', new Uint8Array(), 'metadata-malformed'],
  ];
  for (const [what, bytes, code] of updates) {
    it(`followed by ${what}: ${code}`, () =>
      assert.equal(codeOf(updateRegionRoot(regionRoot(), bytes)), code));
  }
});
