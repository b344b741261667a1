// Why: attacks on what a region says to its devices: root, assignment, time, authorities, acknowledgement.
// Trusts: keys made of names. Must never: need a broker; the same attacks over the wire are other rows.

import { openEnvelope, signEnvelope } from '../../shared/crypto/dsse.ts';
import { tufKeyObject } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkAssignment, signAssignment } from '../../shared/trust/assignment.ts';
import { checkAuthorities, signAuthorities } from '../../shared/trust/authorities.ts';
import { parseRegionRoot, type RegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { checkTime, signTime } from '../../shared/trust/time.ts';
import {
  type Assignment,
  type AuthoritiesStatement,
  type Envelope,
  encodeMessage,
  payloadTypes,
  type TimeStatement,
} from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow, withDuplicateKey } from './direct-rows.ts';
import {
  dateOf,
  dayMs,
  encode,
  HostileRepository,
  inside,
  type Json,
  keyTable,
  nowMs,
  signatureOf,
  signerNamed,
} from './hostile-repository.ts';
import { twoIds } from './repository-delegations.ts';

export const region = 'eu';
export const deviceId = 'd'.repeat(32);
const otherDevice = 'e'.repeat(32);
export const roles = ['root', 'director', 'time', 'ack', 'command'] as const;
const rootKeys = ['region-1', 'region-2', 'region-3'].map(signerNamed);
const mallory = signerNamed('mallory');

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
];

const assignment: Assignment = {
  schemaVersion: 1,
  deviceId,
  region,
  epoch: 7,
  issuedAtMs: nowMs,
  expiresAtMs: nowMs + dayMs,
  labels: {},
  releases: [new HostileRepository().assignmentOf('acme/detector/1.0.0')],
  telemetry: null,
  authoritiesSha256: null,
};

type Sealed = (payload: Uint8Array) => Envelope;
const byDirector: Sealed = (payload) =>
  signEnvelope(payloadTypes.assignment, payload, [signerNamed('director')]);

function judgeAssignment(
  envelope: Envelope,
  changes: {
    root?: RegionRoot;
    current?: { epoch: number; payloadSha256: string };
    nowMs?: number;
    deviceId?: string;
  } = {},
): Result<unknown> {
  return checkAssignment({
    envelope,
    regionRoot: changes.root ?? trusted,
    deviceId: changes.deviceId ?? deviceId,
    region,
    current: changes.current ?? null,
    nowMs: changes.nowMs ?? nowMs,
  });
}

const assigned = (id: string, attack: string, code: ErrorCode, forged: () => Result<unknown>): AttackCase =>
  directRow('fleet', `assignment-${id}`, attack, code, () => ({
    honest: judgeAssignment(signAssignment(assignment, signerNamed('director'))),
    forged: forged(),
  }));

const changed = (changes: Partial<Assignment>): Envelope =>
  signAssignment({ ...assignment, ...changes }, signerNamed('director'));

/** Other bytes that decode to the same: the last digit holds bits that base64 does not use. */
function secondSpelling(base64: string): string {
  const at = base64.replace(/=+$/, '').length - 1;
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
  const other = digits[digits.indexOf(base64[at] ?? 'A') ^ 1] ?? 'A';
  return base64.slice(0, at) + other + base64.slice(at + 1);
}

const assignments: AttackCase[] = [
  assigned(
    'stranger',
    'an assignment signed by a key that the region does not name',
    'assignment-signature-invalid',
    () => judgeAssignment(signAssignment(assignment, mallory)),
  ),
  assigned(
    'borrowed-key-id',
    'the attacker’s signature under the director’s key id',
    'assignment-signature-invalid',
    () => judgeAssignment(signAssignment(assignment, { ...mallory, keyId: signerNamed('director').keyId })),
  ),
  assigned(
    'edited',
    'a genuine assignment with another epoch written into it',
    'assignment-signature-invalid',
    () => {
      const envelope = signAssignment(assignment, signerNamed('director'));
      const payload = Buffer.from(encodeMessage({ ...assignment, epoch: 99 })).toString('base64');
      return judgeAssignment({ ...envelope, payload });
    },
  ),
  assigned(
    'other-kind',
    'a time statement of the director’s key in the place of an assignment',
    'envelope-malformed',
    () =>
      judgeAssignment(signEnvelope(payloadTypes.time, encodeMessage(assignment), [signerNamed('director')])),
  ),
  assigned(
    'kind-renamed',
    'the same with the type renamed after signing',
    'assignment-signature-invalid',
    () => ({
      ...judgeAssignment({
        ...signEnvelope(payloadTypes.time, encodeMessage(assignment), [signerNamed('director')]),
        payloadType: payloadTypes.assignment,
      }),
    }),
  ),
  assigned('payload-spelling', 'a payload in a second spelling of base64', 'envelope-malformed', () => {
    const odd = byDirector(
      encode(`${JSON.stringify(assignment)}${' '.repeat(3 - ((JSON.stringify(assignment).length + 1) % 3))}`),
    );
    return judgeAssignment({ ...odd, payload: secondSpelling(odd.payload) });
  }),
  assigned(
    'signature-spelling',
    'a signature in a second spelling of base64',
    'assignment-signature-invalid',
    () => {
      const envelope = signAssignment(assignment, signerNamed('director'));
      const signatures = envelope.signatures.map((one) => ({ ...one, sig: secondSpelling(one.sig) }));
      return judgeAssignment({ ...envelope, signatures });
    },
  ),
  assigned(
    'one-key-twice',
    'one director key under two ids meets a threshold of two',
    'assignment-signature-invalid',
    () => {
      const { keys, keyids } = twoIds('director');
      const root = regionRootFile({
        change: (signed) => {
          Object.assign(inside(signed, 'keys'), keys);
          Object.assign(inside(signed, 'roles', 'director'), { keyids, threshold: 2 });
        },
      });
      const envelope = signAssignment(assignment, signerNamed('director'));
      const signatures = keyids.map((keyid) => ({ keyid, sig: envelope.signatures[0]?.sig ?? '' }));
      return judgeAssignment({ ...envelope, signatures }, { root: unwrap(parseRegionRoot(root)) });
    },
  ),
  assigned(
    'weak-director',
    'a director key of order 1, for which anybody can sign',
    'assignment-signature-invalid',
    () => {
      const neutral = new Uint8Array(32);
      neutral[0] = 1;
      const weak = { ...signerNamed('director'), publicKey: neutral };
      const one = new Uint8Array(32);
      one[0] = 1;
      const sig = new Uint8Array([...Buffer.from(`58${'66'.repeat(31)}`, 'hex'), ...one]);
      const root = regionRootFile({
        change: (signed) => (inside(signed, 'keys')[weak.keyId] = tufKeyObject(neutral)),
      });
      const parsed = unwrap(parseRegionRoot(root));
      const { keyId } = { keyId: signerOf(neutral) };
      return judgeAssignment(signAssignment(assignment, { publicKey: neutral, keyId, sign: () => sig }), {
        root: parsed,
      });
    },
  ),
  assigned(
    'duplicate-key',
    'a signed assignment in which the device id stands twice',
    'assignment-malformed',
    () => judgeAssignment(byDirector(withDuplicateKey(encodeMessage(assignment), 'deviceId'))),
  ),
  assigned('out-of-schema', 'a signed assignment with epoch 0', 'assignment-malformed', () =>
    judgeAssignment(changed({ epoch: 0 })),
  ),
  assigned(
    'one-slot-twice',
    'a signed assignment of two releases under one name',
    'assignment-malformed',
    () => judgeAssignment(changed({ releases: [...assignment.releases, ...assignment.releases] })),
  ),
  assigned(
    'other-device',
    'another device’s genuine assignment with a higher epoch',
    'assignment-other-device',
    () => judgeAssignment(changed({ deviceId: otherDevice, epoch: 99 })),
  ),
  assigned(
    'other-region',
    'an assignment of another region, signed by a director of both',
    'assignment-other-region',
    () => judgeAssignment(changed({ region: 'us' })),
  ),
  assigned('foreign-root', 'an assignment judged by another region’s root', 'assignment-other-region', () => {
    const foreign = regionRootFile({
      change: (signed) => (signed['x-lepton'] = { kind: 'region', region: 'us' }),
    });
    return judgeAssignment(changed({}), { root: unwrap(parseRegionRoot(foreign)) });
  }),
  assigned('replayed', 'an older assignment of this very device', 'assignment-replayed', () =>
    judgeAssignment(changed({}), { current: { epoch: 8, payloadSha256: 'a'.repeat(64) } }),
  ),
  assigned('epoch-reused', 'another assignment with the epoch in force', 'assignment-epoch-reused', () =>
    judgeAssignment(changed({}), { current: { epoch: 7, payloadSha256: 'a'.repeat(64) } }),
  ),
  assigned('expired', 'an assignment whose time is over', 'assignment-expired', () =>
    judgeAssignment(changed({}), { nowMs: nowMs + 2 * dayMs }),
  ),
  assigned('root-expired', 'an assignment under a region root that is over', 'metadata-expired', () =>
    judgeAssignment(changed({ expiresAtMs: nowMs + 999 * dayMs }), { nowMs: nowMs + 400 * dayMs }),
  ),
  directRow(
    'fleet',
    'threshold-zero',
    'a role that would need no signature at all',
    'envelope-malformed',
    () => {
      const envelope = signAssignment(assignment, signerNamed('director'));
      const open = (threshold: number) =>
        openEnvelope(
          { ...envelope, signatures: [] },
          payloadTypes.assignment,
          [signerNamed('director').publicKey],
          threshold,
        );
      return { honest: judgeAssignment(envelope), forged: open(0) };
    },
  ),
];

function signerOf(publicKey: Uint8Array): string {
  return Object.keys(keyTable({ ...mallory, publicKey, keyId: '' }))[0] ?? '';
}

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

export const regionAttacks: AttackCase[] = [...regionRoots, ...assignments, ...times, ...lists];
