// Why: attacks on the assignment of one device, which decides what it runs.
// Trusts: keys made of names. Must never: need a broker; the same attacks over the wire are other rows.

import { openEnvelope, signEnvelope } from '../../shared/crypto/dsse.ts';
import { tufKeyId, tufKeyObject } from '../../shared/crypto/ed25519.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkAssignment, signAssignment } from '../../shared/trust/assignment.ts';
import { parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import { type Assignment, type Envelope, encodeMessage, payloadTypes } from '../../shared/wire/messages.ts';
import type { AttackCase } from './attack-case.ts';
import { directRow, withDuplicateKey } from './direct-rows.ts';
import { deviceId, mallory, otherDevice, region, regionRootFile, trusted } from './fleet-region.ts';
import { dayMs, encode, HostileRepository, inside, nowMs, signerNamed } from './hostile-repository.ts';
import { twoIds } from './repository-delegations.ts';

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

/** The payload's text changed after it was written, and signed by the director as it then is. */
const rewritten = (from: RegExp, to: string) => (): Result<unknown> => {
  const text = JSON.stringify(assignment);
  return judgeAssignment(byDirector(encode(text.replace(from, to))));
};

export const assignmentAttacks: AttackCase[] = [
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
      const one = new Uint8Array(32);
      one[0] = 1;
      const sig = new Uint8Array([...Buffer.from(`58${'66'.repeat(31)}`, 'hex'), ...one]);
      const root = regionRootFile({
        change: (signed) => {
          inside(signed, 'keys')[tufKeyId(neutral)] = tufKeyObject(neutral);
          inside(signed, 'roles', 'director')['keyids'] = [tufKeyId(neutral)];
        },
      });
      const parsed = unwrap(parseRegionRoot(root));
      const keyId = tufKeyId(neutral);
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
  assigned(
    'no-value',
    'a signed assignment in which a time has no value',
    'assignment-malformed',
    rewritten(/"issuedAtMs":\d+/, '"issuedAtMs":'),
  ),
  assigned(
    'infinite',
    'a signed assignment with the number 1e400',
    'assignment-malformed',
    rewritten(/}$/, ',"x-note":1e400}'),
  ),
  assigned(
    'requires-fraction',
    'a signed assignment with requirements that no publisher can sign',
    'assignment-malformed',
    rewritten(/"requires":{[^}]*}/, '"requires":{"opset":0.5}'),
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
