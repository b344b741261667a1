// Why: attacks with what regions tell each other and what their holders sign for them: the list of regions, cells, policies.
// Trusts: keys made of names. Must never: need a registry; over real doors the same is in test/regions and test/cells.

import assert from 'node:assert/strict';
import { signEnvelope } from '../../shared/crypto/dsse.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkCell, signCell } from '../../shared/trust/cells.ts';
import { followRegionList, openRegionList, signRegionList } from '../../shared/trust/region-list.ts';
import {
  checkPolicy,
  policyBytes,
  policySigners,
  signPolicy,
  withPolicySignature,
} from '../../shared/trust/region-policy.ts';
import type { CellStatement } from '../../shared/wire/cells.ts';
import { type Envelope, encodeMessage, payloadTypes } from '../../shared/wire/messages.ts';
import { type RegionPolicy, regionPolicySchema } from '../../shared/wire/region-policy.ts';
import type { RegionEntry, RegionList } from '../../shared/wire/regions.ts';
import type { AttackCase } from './attack-case.ts';
import { type Attempt, directRow, withDuplicateKey } from './direct-rows.ts';
import { mallory, region, trusted } from './fleet-region.ts';
import { decode, encode, nowMs, signerNamed } from './hostile-repository.ts';

const row = (id: string, attack: string, code: ErrorCode, attempt: () => Attempt): AttackCase =>
  directRow('region', id, attack, code, attempt);

const roleOf = (...signers: Signer[]) => ({
  keys: signers.map(({ keyId, publicKey }) => ({ keyId, publicKey })),
  threshold: 1,
});

const entry = (name: string, changes: Partial<RegionEntry> = {}): RegionEntry => ({
  ...{ region: name, url: 'https://127.0.0.1:1', publicKey: signerHex(name) },
  ...{ regionRootSha256: 'a'.repeat(64), joinedAtMs: nowMs },
  ...changes,
});
const signerHex = (name: string): string => Buffer.from(signerNamed(name).publicKey).toString('hex');

const list = (changes: Partial<RegionList> = {}): RegionList => ({
  ...{ schemaVersion: 1, version: 5, home: 'eu', issuedAtMs: nowMs },
  ...{ regions: [entry('eu'), entry('us')], removed: ['asia'] },
  ...changes,
});
const home = signerNamed('snapshot');
const catalogueRoot = { roles: new Map([['snapshot', roleOf(home)]]) };

const listed = (id: string, attack: string, code: ErrorCode, forged: () => Envelope, root = catalogueRoot) =>
  row(`region-list-${id}`, attack, code, () => ({
    honest: openRegionList(signRegionList(list(), home), catalogueRoot),
    forged: openRegionList(forged(), root),
  }));

const follow = (next: Partial<RegionList>, sameHome = true): Result<unknown> =>
  followRegionList(list(), list({ version: 6, ...next }), sameHome);
const following = (id: string, attack: string, code: ErrorCode, next: Partial<RegionList>, sameHome = true) =>
  row(`region-list-${id}`, attack, code, () => ({
    // Regions go and come, doors move, and a home that took over counts from where it stood.
    honest: follow(
      { version: 4, regions: [entry('eu', { url: 'https://[::1]:2' }), entry('asia-2')], removed: ['us'] },
      false,
    ),
    forged: follow(next, sameHome),
  }));

const stolen = { publicKey: signerHex('mallory') };
const lists: AttackCase[] = [
  listed('stranger', 'a list of regions that a region signed which is not home', 'region-list-invalid', () =>
    signRegionList(list(), mallory),
  ),
  listed(
    'without-home',
    'a list of regions under a root that names nobody for it',
    'region-list-invalid',
    () => signRegionList(list(), home),
    { roles: new Map() },
  ),
  listed(
    'other-kind',
    'what the home signed as something else is shown as its list',
    'envelope-malformed',
    () => signEnvelope(payloadTypes.deviceMove, encodeMessage(list()), [home]),
  ),
  listed('two-readings', 'a list that two readers would read differently', 'region-list-invalid', () =>
    signEnvelope(payloadTypes.regionList, withDuplicateKey(encodeMessage(list()), 'home'), [home]),
  ),
  listed('door-elsewhere', 'a list in which a door is no address over TLS', 'region-list-invalid', () =>
    signRegionList(list({ regions: [entry('eu', { url: 'http://127.0.0.1:1' })] }), home),
  ),
  following('older', 'an older list, in which a region is that was taken out since', 'region-list-old', {
    version: 4,
    regions: [entry('eu'), entry('us'), entry('africa')],
  }),
  following('twice', 'a list that names a region twice, with two keys', 'region-list-invalid', {
    regions: [entry('eu'), entry('us'), entry('us', stolen)],
  }),
  ...[true, false].map((sameHome) =>
    following(
      sameHome ? 'other-key' : 'other-key-new-home',
      `a list${sameHome ? '' : ' of another home'} that gives the name of a region to another key`,
      'region-key-changed',
      { regions: [entry('eu'), entry('us', stolen)] },
      sameHome,
    ),
  ),
  following(
    'name-again',
    'a list that gives the name of a region that was taken out to another key',
    'region-key-changed',
    { regions: [entry('eu'), entry('us'), entry('asia', stolen)], removed: [] },
  ),
];

const cell: CellStatement = {
  ...{ schemaVersion: 1, region, day: 20_000, kind: 'release', subject: 'acme/detector@1.0.0' },
  ...{ devicesMin: 5, dominancePercent: 50, devicesAtLeast: 5, answered: 900, failed: null },
  ...{ errors: null, latency: null, energy: [], features: null },
};
/** The region changed its `ack` key since: what the first one signed stays good. */
const ack = signerNamed('ack');
const acks = () => [roleOf(ack), roleOf(signerNamed('ack-2'))];
const celled = (
  id: string,
  attack: string,
  forged: () => Envelope,
  code: ErrorCode = 'cells-invalid',
  by = acks,
) =>
  row(`cell-${id}`, attack, code, () => ({
    honest: checkCell(signCell(cell, ack), region, acks()),
    forged: checkCell(forged(), region, by()),
  }));

const cells: AttackCase[] = [
  celled('stranger', 'numbers of a region that somebody else made up', () => signCell(cell, mallory)),
  celled('director', 'numbers of a region, signed by its stolen director key', () =>
    signCell(cell, signerNamed('director')),
  ),
  celled(
    'other-region',
    'numbers of another region under this one’s name, by a region that has both keys',
    () => signCell({ ...cell, region: 'us' }, ack),
  ),
  celled(
    'unknown-region',
    'numbers of a region of which no root is known',
    () => signCell(cell, ack),
    'cells-invalid',
    () => [],
  ),
  celled(
    'other-kind',
    'what a region signed as something else is shown as its numbers',
    () => signEnvelope(payloadTypes.auditHead, encodeMessage(cell), [ack]),
    'envelope-malformed',
  ),
  celled('two-readings', 'numbers that two readers would read differently', () =>
    signEnvelope(payloadTypes.cell, withDuplicateKey(encodeMessage(cell), 'failed'), [ack]),
  ),
  celled('of-nobody', 'numbers that say themselves that they may be of no device', () =>
    signCell({ ...cell, devicesMin: 0 }, ack),
  ),
  celled('subject', 'numbers of all releases under the name of one', () =>
    signCell({ ...cell, subject: 'acme/detector' }, ack),
  ),
];

const policy: RegionPolicy = regionPolicySchema.parse({
  apiVersion: 'lepton/v1',
  kind: 'RegionPolicy',
  metadata: { region, name: 'strict', version: 3 },
  spec: {
    flows: [
      { id: 'none', classes: ['sample'], destinations: ['*'], allow: false, because: 'they are faces' },
    ],
  },
});
/** Two of three root keys of the region. */
const holders = ['region-1', 'region-2'].map(signerNamed);
const signed = (changes: Partial<RegionPolicy['metadata']>, signers: readonly Signer[] = holders): Envelope =>
  signPolicy({ ...policy, metadata: { ...policy.metadata, ...changes } }, signers);
const spelled = (bytes: Uint8Array): Envelope => signEnvelope(payloadTypes.regionPolicy, bytes, holders);

const ruled = (id: string, attack: string, code: ErrorCode, forged: () => Envelope): AttackCase =>
  row(`policy-${id}`, attack, code, () => ({
    honest: checkPolicy(signed({}), trusted),
    forged: checkPolicy(forged(), trusted),
  }));

const policies: AttackCase[] = [
  ruled('one-key', 'a stolen root key of a region loosens its policy alone', 'policy-signature-invalid', () =>
    signed({}, [...holders.slice(0, 1), ...holders.slice(0, 1)]),
  ),
  ruled(
    'other-root',
    'the policy of a region, signed by the root keys of another one',
    'policy-signature-invalid',
    () => signed({}, ['us-1', 'us-2', 'us-3'].map(signerNamed)),
  ),
  ruled('by-online', 'a policy that the region’s online keys signed', 'policy-signature-invalid', () =>
    signed({}, ['director', 'command', 'ack'].map(signerNamed)),
  ),
  ruled('unsigned', 'a policy that nobody has signed', 'policy-signature-invalid', () => signed({}, [])),
  ruled(
    'borrowed-signature',
    'signatures of an older policy under a newer one',
    'policy-signature-invalid',
    () => ({
      ...signed({ version: 4 }),
      signatures: signed({}).signatures,
    }),
  ),
  ruled(
    'other-region',
    'the genuine policy of another region with the same holders',
    'policy-other-region',
    () => signed({ region: 'us' }),
  ),
  ruled(
    'other-kind',
    'what the holders signed as something else is shown as a policy',
    'policy-file-invalid',
    () => signEnvelope(payloadTypes.deviceMove, policyBytes(policy), holders),
  ),
  ruled('two-readings', 'a policy that two readers would read differently', 'policy-file-invalid', () =>
    spelled(withDuplicateKey(policyBytes(policy), 'kind')),
  ),
  ruled(
    'two-spellings',
    'a policy whose bytes are not those that its digest is known by',
    'policy-file-invalid',
    () => spelled(encode(`${decode(policyBytes(policy))}\n`)),
  ),
  ruled('out-of-schema', 'a signed policy with a rule that no registry knows', 'policy-file-invalid', () =>
    spelled(encode(decode(policyBytes(policy)).replace('"allow"', '"allowed"'))),
  ),
  row(
    'policy-signed-twice',
    'a holder signs a policy twice and is counted as two',
    'policy-signature-invalid',
    () => {
      const by = (...names: Signer[]): Envelope =>
        names.reduce((envelope, holder) => withPolicySignature(envelope, holder), signed({}, []));
      const [first = mallory] = holders;
      const { signatures } = by(first, first);
      const forged = { ...by(first), signatures: [...signatures, ...signatures] };
      assert.deepEqual(policySigners(forged, trusted), [first.keyId]);
      return { honest: checkPolicy(by(...holders), trusted), forged: checkPolicy(forged, trusted) };
    },
  ),
];

const byRegistry = (one: AttackCase): AttackCase => ({ ...one, by: 'registry' });
export const regionWordAttacks: readonly AttackCase[] = [...lists, ...cells, ...policies].map(byRegistry);
