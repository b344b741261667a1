// Why: the signed list of regions says who is a region: what may be signed, by whom, and what may follow what.
// Trusts: shared/trust for signatures. Must never: pass where a check was taken out.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawBytes } from '../../firmware-sim/chance.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { followRegionList, openRegionList, signRegionList } from '../../shared/trust/region-list.ts';
import type { RootFile } from '../../shared/trust/tuf/format.ts';
import type { RegionEntry, RegionList } from '../../shared/wire/regions.ts';

const signer = (name: string): Signer => signerFromSeed(drawBytes(32, 1, name), 'node');
const rootOf = (one: Signer): Pick<RootFile, 'roles'> => ({
  roles: new Map([
    ['snapshot', { keys: [{ keyId: one.keyId, publicKey: one.publicKey }], threshold: 1 }],
    ['timestamp', { keys: [], threshold: 1 }],
  ]),
});
const entry = (region: string, key = region): RegionEntry => ({
  region,
  url: `https://${region}.example:8444`,
  publicKey: Buffer.from(signer(key).publicKey).toString('hex'),
  regionRootSha256: '0'.repeat(64),
  joinedAtMs: 1,
});
const list = (version: number, ...regions: RegionEntry[]): RegionList => ({
  ...{ schemaVersion: 1, version, home: 'home', issuedAtMs: 1, regions },
  removed: [],
});
const codeOf = (result: Result<unknown>): string => (result.ok ? 'ok' : result.refusal.code);

test('only the key that the root names for the snapshot signs a list', () => {
  const [home, other] = [signer('home'), signer('other')];
  const signed = signRegionList(list(1, entry('home')), home);
  assert.equal(codeOf(openRegionList(signed, rootOf(home))), 'ok');
  assert.equal(codeOf(openRegionList(signed, rootOf(other))), 'region-list-invalid');
  assert.equal(codeOf(openRegionList(signed, { roles: new Map() })), 'region-list-invalid');
  const another = { ...signed, payloadType: 'application/vnd.lepton.time.v1+json' };
  assert.equal(codeOf(openRegionList(another, rootOf(home))), 'envelope-malformed');
  const text = Buffer.from(signed.payload, 'base64').toString().replace('home.example', 'evil.example');
  const changed = { ...signed, payload: Buffer.from(text).toString('base64') };
  assert.equal(codeOf(openRegionList(changed, rootOf(home))), 'region-list-invalid');
});

test('a list that is older, changes a key, or names a region twice does not follow', () => {
  const held = list(5, entry('home'), entry('west'));
  assert.equal(codeOf(followRegionList(null, held, false)), 'ok');
  assert.equal(codeOf(followRegionList(held, list(6, entry('home')), true)), 'ok');
  assert.equal(codeOf(followRegionList(held, list(5, entry('home')), true)), 'ok');
  assert.equal(codeOf(followRegionList(held, list(4, entry('home')), true)), 'region-list-old');
  // Another home counts on from where it stood.
  assert.equal(codeOf(followRegionList(held, list(4, entry('home')), false)), 'ok');
  const stolen = list(6, entry('home'), entry('west', 'thief'));
  assert.equal(codeOf(followRegionList(held, stolen, true)), 'region-key-changed');
  assert.equal(codeOf(followRegionList(held, stolen, false)), 'region-key-changed');
  const twice = list(6, entry('west'), entry('west', 'thief'));
  assert.equal(codeOf(followRegionList(null, twice, false)), 'region-list-invalid');
});
