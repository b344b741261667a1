// Why: attacks on what a region says to its devices: its root, the time, the authorities; and on device keys.
// Trusts: keys made of names. Must never: need a broker; the same attacks over the wire are other rows.

import { signEnvelope } from '../../shared/crypto/dsse.ts';
import { checkPublicKey } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkAuthorities, signAuthorities } from '../../shared/trust/authorities.ts';
import { parseRegionRoot, type RegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { checkTime, signTime } from '../../shared/trust/time.ts';
import {
  type AuthoritiesStatement,
  type Envelope,
  encodeMessage,
  payloadTypes,
  type TimeStatement,
} from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow } from './direct-rows.ts';
import {
  dateOf,
  dayMs,
  encode,
  inside,
  type Json,
  keyTable,
  nowMs,
  signatureOf,
  signerNamed,
} from './hostile-repository.ts';

export const region = 'eu';
export const deviceId = 'd'.repeat(32);
export const otherDevice = 'e'.repeat(32);
export const roles = ['root', 'director', 'time', 'ack', 'command'] as const;
const rootKeys = ['region-1', 'region-2', 'region-3'].map(signerNamed);
export const mallory = signerNamed('mallory');

interface RootEdit {
  version?: number;
  change?: (signed: Json) => void;
  signers?: typeof rootKeys;
  rootKeys?: typeof rootKeys;
}

/** A region root's exact bytes; whatever it says. */
export function regionRootFile(edit: RootEdit = {}): Uint8Array {
  const own = edit.rootKeys ?? rootKeys;
  const keysOf = (role: string) => (role === 'root' ? own : [signerNamed(role)]);
  const signed: Json = {
    _type: 'root',
    spec_version: '1.0.34',
    version: edit.version ?? 1,
    expires: dateOf(nowMs + 300 * dayMs),
    consistent_snapshot: true,
    keys: keyTable(...roles.flatMap(keysOf)),
    roles: Object.fromEntries(
      roles.map((role) => [
        role,
        { keyids: keysOf(role).map((key) => key.keyId), threshold: role === 'root' ? 2 : 1 },
      ]),
    ),
    'x-lepton': { kind: 'region', region },
  };
  edit.change?.(signed);
  const signatures = (edit.signers ?? own).map((signer) => signatureOf(signer, signed));
  return encode(JSON.stringify({ signatures, signed }));
}

export const trusted: RegionRoot = unwrap(parseRegionRoot(regionRootFile()));

const nextRoot = (id: string, attack: string, code: ErrorCode, edit: RootEdit | Uint8Array): AttackCase =>
  directRow('fleet', `region-root-${id}`, attack, code, () => ({
    honest: updateRegionRoot(regionRootFile(), regionRootFile({ version: 2 })),
    forged: updateRegionRoot(
      regionRootFile(),
      edit instanceof Uint8Array ? edit : regionRootFile({ version: 2, ...edit }),
    ),
  }));

const strangers = ['evil-1', 'evil-2', 'evil-3'].map(signerNamed);

const regionRoots: AttackCase[] = [
  nextRoot('new-keys-only', 'a region root signed by its own new keys alone', 'metadata-signature-invalid', {
    rootKeys: strangers,
  }),
  nextRoot(
    'old-keys-only',
    'a region root that names other root keys, signed by the old alone',
    'metadata-signature-invalid',
    {
      rootKeys: strangers,
      signers: rootKeys,
    },
  ),
  nextRoot(
    'of-another-region',
    'another region’s root, signed by this region’s root keys too',
    'assignment-other-region',
    {
      change: (signed) => (signed['x-lepton'] = { kind: 'region', region: 'us' }),
    },
  ),
  nextRoot('skipped', 'a region root of version 3 where 2 must follow', 'metadata-version-invalid', {
    version: 3,
  }),
  nextRoot('older', 'the region root of before, again', 'metadata-version-invalid', { version: 1 }),
  nextRoot('is-catalogue', 'a catalogue root in the place of the region’s', 'metadata-malformed', {
    change: (signed) => delete signed['x-lepton'],
  }),
  nextRoot('without-director', 'a region root that names no director', 'metadata-malformed', {
    change: (signed) => delete inside(signed, 'roles')['director'],
  }),
  nextRoot('garbage', 'something that is no JSON as the next region root', 'metadata-malformed', encode('{')),
  directRow('fleet', 'region-root-torn', 'a stored region root that was cut', 'metadata-malformed', () => ({
    honest: updateRegionRoot(regionRootFile(), regionRootFile({ version: 2 })),
    forged: updateRegionRoot(regionRootFile().subarray(0, 200), regionRootFile({ version: 2 })),
  })),
  directRow(
    'fleet',
    'region-root-unsigned',
    'a region root that one of two needed keys has signed',
    'metadata-signature-invalid',
    () => ({
      honest: parseRegionRoot(regionRootFile()),
      forged: parseRegionRoot(regionRootFile({ signers: rootKeys.slice(0, 1) })),
    }),
  ),
  ...(
    [
      ['kind', 'a root of a kind that there is not, in the place of a region’s', { kind: 'galaxy', region }],
      ['name', 'a root of a region whose name is none', { kind: 'region', region: '../x' }],
    ] as const
  ).map(([id, attack, own]) =>
    directRow('fleet', `region-root-${id}`, attack, 'metadata-malformed', () => ({
      honest: parseRegionRoot(regionRootFile()),
      forged: parseRegionRoot(regionRootFile({ change: (signed) => (signed['x-lepton'] = own) })),
    })),
  ),
];

const nonce = 'a'.repeat(32);
const time: TimeStatement = { schemaVersion: 1, deviceId, region, nonce, timeMs: nowMs };
const judgeTime = (envelope: Envelope): Result<unknown> =>
  checkTime({ envelope, regionRoot: trusted, deviceId, region, nonce });
const told = (id: string, attack: string, code: ErrorCode, envelope: () => Envelope): AttackCase =>
  directRow('fleet', `time-${id}`, attack, code, () => ({
    honest: judgeTime(signTime(time, signerNamed('time'))),
    forged: judgeTime(envelope()),
  }));
const saying = (changes: Partial<TimeStatement>): Envelope =>
  signTime({ ...time, ...changes }, signerNamed('time'));

const times: AttackCase[] = [
  told('stranger', 'time signed by a key that the region does not name', 'time-signature-invalid', () =>
    signTime(time, mallory),
  ),
  told('of-director', 'time signed by the stolen director key', 'time-signature-invalid', () =>
    signTime(time, signerNamed('director')),
  ),
  told('replayed', 'an answer to another question, from before', 'time-replayed', () =>
    saying({ nonce: 'b'.repeat(32) }),
  ),
  told('other-device', 'the answer to another device', 'time-replayed', () =>
    saying({ deviceId: otherDevice }),
  ),
  told('other-region', 'another region’s answer', 'time-replayed', () => saying({ region: 'us' })),
  told('out-of-schema', 'a signed time before 1970', 'message-malformed', () => saying({ timeMs: -1 })),
  told('other-kind', 'an assignment of the time key in the place of the time', 'envelope-malformed', () =>
    signEnvelope(payloadTypes.assignment, encodeMessage(time), [signerNamed('time')]),
  ),
];

const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';
const authorities: AuthoritiesStatement = {
  schemaVersion: 1,
  region,
  issuedAtMs: nowMs,
  certificates: [pem],
};
const judgeAuthorities = (envelope: Envelope): Result<unknown> =>
  checkAuthorities({ envelope, regionRoot: trusted, region, heldIssuedAtMs: nowMs });
const listed = (
  id: string,
  attack: string,
  envelope: () => Envelope,
  code: ErrorCode = 'authorities-invalid',
): AttackCase =>
  directRow('fleet', `authorities-${id}`, attack, code, () => ({
    honest: judgeAuthorities(signAuthorities(authorities, signerNamed('command'))),
    forged: judgeAuthorities(envelope()),
  }));
const naming = (changes: Partial<AuthoritiesStatement>): Envelope =>
  signAuthorities({ ...authorities, ...changes }, signerNamed('command'));

const lists: AttackCase[] = [
  listed('stranger', 'a list of certificate authorities by a key that the region does not name', () =>
    signAuthorities(authorities, mallory),
  ),
  listed('other-region', 'another region’s list of authorities', () => naming({ region: 'us' })),
  listed('older', 'an older list, with an authority that was withdrawn since', () =>
    naming({ issuedAtMs: nowMs - 1 }),
  ),
  listed('two-in-one', 'an entry that holds a second certificate', () =>
    naming({ certificates: [pem + pem] }),
  ),
  listed('no-pem', 'an entry that is no certificate', () => naming({ certificates: ['x'] })),
  listed('empty', 'a list without an authority', () => naming({ certificates: [] })),
  listed(
    'other-kind',
    'the time in the place of the list',
    () => signEnvelope(payloadTypes.time, encodeMessage(authorities), [signerNamed('command')]),
    'envelope-malformed',
  ),
];

const bytesOf = (value: bigint): Uint8Array =>
  new Uint8Array(Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse());
const fieldPrime = (1n << 255n) - 19n;

/** What stands in a certificate request, before anybody is enrolled with it. */
const deviceKeys: AttackCase[] = (
  [
    ['short', 'a device key of 31 bytes', new Uint8Array(31).fill(9)],
    ['second-spelling', 'a device key spelled as y = p + 3', bytesOf(fieldPrime + 3n)],
    ['small-order', 'a device key of order 4, for which anybody can sign', bytesOf(0n)],
    ['off-curve', 'a device key that is no point of the curve', bytesOf(2n)],
  ] as const
).map(([id, attack, key]) =>
  directRow('fleet', `device-key-${id}`, attack, 'key-invalid', () => ({
    honest: checkPublicKey(mallory.publicKey),
    forged: checkPublicKey(key),
  })),
);

export const regionAttacks: AttackCase[] = [
  ...regionRoots,
  ...times,
  ...lists,
  ...deviceKeys.map((one) => ({ ...one, by: 'registry' as const })),
];
