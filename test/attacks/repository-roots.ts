// Why: attacks on the catalogue's root: who may name the keys of everything else (TUF 1.0.34 §5.3, §6.1).
// Trusts: the hostile repository for making what it is told. Must never: leave open which keys the attacker holds.

import { limits } from '../../shared/kernel/limits.ts';
import { type AttackCase, onRepository } from './attack-case.ts';
import { inside, keyTable, nowMs, signerNamed } from './hostile-repository.ts';
import { followRoots, rotate } from './repository-healing.ts';

const strangers = ['evil-1', 'evil-2', 'evil-3'].map(signerNamed);

/** After a rotation the old key of this role, which leaked later, signs what brings the malware in. */
function rotatedOut(name: 'timestamp' | 'snapshot' | 'targets'): AttackCase {
  return onRepository(
    `rotated-out-${name}`,
    `the ${name} key that a root has replaced signs once more`,
    'metadata-signature-invalid',
    (evil, honest) => {
      rotate(honest, name);
      evil.files.set('2.root.json', honest.bytes('root'));
      if (name === 'targets') evil.publish('targets', { alone: true });
      if (name === 'targets') evil.list('targets');
      evil.publish('acme');
      honest.publish('targets');
    },
  );
}

export const rootAttacks: AttackCase[] = [
  onRepository(
    'root-new-keys-only',
    'a root that names the attacker’s keys, signed by those alone',
    'metadata-signature-invalid',
    (evil) => {
      evil.role('root').keys = [...strangers];
      evil.publishRoot();
    },
  ),
  onRepository(
    'root-old-keys-only',
    'a root that names other root keys, signed by the old ones alone',
    'metadata-signature-invalid',
    (evil, honest) => {
      evil.role('root').keys = [...strangers];
      evil.publishRoot({ signers: honest.role('root').keys });
    },
  ),
  onRepository(
    'root-below-old-threshold',
    'one stolen root key of two needed signs a root that names the attacker’s',
    'metadata-signature-invalid',
    (evil, honest) => {
      evil.role('root').keys = [...strangers];
      evil.publishRoot({ alsoBy: honest.role('root').keys.slice(0, 1) });
    },
  ),
  onRepository(
    'root-below-new-threshold',
    'a root that one of its own two needed new keys has signed',
    'metadata-signature-invalid',
    (evil, honest) => {
      evil.role('root').keys = [...strangers];
      evil.publishRoot({ signers: [...honest.role('root').keys, ...strangers.slice(0, 1)] });
    },
  ),
  onRepository(
    'root-skipped-version',
    'a well-signed root of version 3 where 2 must follow',
    'metadata-version-invalid',
    (evil) => {
      evil.publishRoot({ version: 3 });
      evil.files.set('2.root.json', evil.bytes('root'));
    },
  ),
  onRepository(
    'root-same-version',
    'another well-signed root of the version that the device has, under the next name',
    'metadata-version-invalid',
    (evil) => {
      evil.role('timestamp').keys = [signerNamed('evil-1')];
      evil.publishRoot({ version: 1 });
      evil.files.set('2.root.json', evil.bytes('root'));
    },
  ),
  onRepository(
    'root-chain-endless',
    'more root rotations in one refresh than the limit',
    'metadata-too-large',
    (evil) => {
      for (let count = 0; count <= limits.rootRotationsMax; count += 1) evil.publishRoot();
    },
  ),
  ...(['timestamp', 'snapshot', 'targets'] as const).map(rotatedOut),
  onRepository(
    'root-without-role',
    'a well-signed root that names nobody for snapshot',
    'metadata-malformed',
    (evil) => {
      evil.publishRoot({ change: (signed) => delete inside(signed, 'roles')['snapshot'] });
    },
  ),
  onRepository(
    'root-inconsistent',
    'a well-signed root that turns consistent snapshots off',
    'metadata-malformed',
    (evil) => {
      evil.publishRoot({ change: (signed) => (signed['consistent_snapshot'] = false) });
    },
  ),
  onRepository(
    'root-of-a-region',
    'a region’s root, signed by the catalogue’s root keys too, as the next catalogue root',
    'metadata-malformed',
    (evil) => {
      evil.publishRoot({ change: (signed) => (signed['x-lepton'] = { kind: 'region', region: 'eu' }) });
    },
  ),
  onRepository(
    'root-of-half-a-region',
    'a root that says it is a region’s and not whose',
    'metadata-malformed',
    (evil) => {
      evil.publishRoot({ change: (signed) => (signed['x-lepton'] = { kind: 'region' }) });
    },
  ),
  ...(
    [
      ['zero', 0],
      ['negative', -1],
      ['in-words', '1'],
    ] as const
  ).map(([name, threshold]) =>
    onRepository(
      `root-threshold-${name}`,
      `a well-signed root whose timestamp role has a threshold of ${JSON.stringify(threshold)}`,
      'metadata-malformed',
      (evil) => {
        evil.publishRoot({
          change: (signed) => (inside(signed, 'roles', 'timestamp')['threshold'] = threshold),
        });
        evil.publish('timestamp', { signers: [] });
      },
    ),
  ),
  onRepository(
    'root-threshold-fraction',
    'a well-signed root whose timestamp role has a threshold of 0.5',
    'metadata-malformed',
    (evil) => {
      evil.role('timestamp').threshold = 777;
      evil.publishRoot({ text: (text) => text.replace('"threshold":777', '"threshold":0.5') });
      evil.publish('acme', { alone: true });
    },
  ),
  onRepository(
    'root-threshold-unreachable',
    'a root that needs more root signatures than it names keys',
    'metadata-signature-invalid',
    (evil) => {
      evil.role('root').threshold = 4;
      evil.publishRoot();
    },
  ),
  onRepository(
    'root-duplicate-key-id',
    'a root that lists one timestamp key twice to meet a threshold of two',
    'metadata-malformed',
    (evil) => {
      evil.publishRoot({
        change: (signed) => {
          const role = inside(signed, 'roles', 'timestamp');
          const ids = role['keyids'] as string[];
          Object.assign(role, { keyids: [...ids, ...ids], threshold: 1 });
        },
      });
    },
  ),
  onRepository(
    'root-duplicate-signature',
    'a root key id that signs twice to meet a threshold of two',
    'metadata-malformed',
    (evil) => {
      evil.publishRoot({ signatures: (list) => list.push(...list.slice(0, 1)) });
    },
  ),
  onRepository(
    'root-unknown-key',
    'a root whose timestamp role lists a key id that has no key',
    'metadata-signature-invalid',
    (evil) => {
      const [lost] = strangers;
      evil.publishRoot({
        change: (signed) => (inside(signed, 'roles', 'timestamp')['keyids'] = [lost?.keyId]),
      });
      evil.publish('acme');
    },
    { heals: followRoots },
  ),
  onRepository(
    'root-too-many-keys',
    'a role of more keys than the limit, each of which a device would have to try',
    'metadata-malformed',
    (evil) => {
      const crowd = Array.from({ length: limits.keysPerRoleMax + 1 }, (_, index) => `crowd-${index}`);
      evil.publishRoot({
        change: (signed) => {
          const role = inside(signed, 'roles', 'timestamp');
          role['keyids'] = [...(role['keyids'] as string[]), ...crowd.slice(1)];
        },
      });
    },
  ),
  onRepository(
    'targets-as-root',
    'the targets file, signed by the root keys too, served as the next root',
    'metadata-malformed',
    (evil, honest) => {
      evil.publish('targets', { version: 2, signers: honest.role('root').keys, alone: true });
      evil.files.set('2.root.json', evil.bytes('targets'));
    },
  ),
  onRepository(
    'wrong-key-id',
    'a root that lists the attacker’s timestamp key under an id that is not its digest',
    'metadata-malformed',
    (evil) => {
      const id = 'a'.repeat(64);
      evil.publishRoot({
        change: (signed) => {
          const keys = inside(signed, 'keys');
          keys[id] = Object.values(keyTable(signerNamed('evil-1')))[0];
          inside(signed, 'roles', 'timestamp')['keyids'] = [id];
        },
      });
      const mallory = { ...signerNamed('evil-1'), keyId: id };
      evil.role('timestamp').keys = [mallory];
      evil.publish('acme');
    },
  ),
  onRepository(
    'root-expired',
    'a well-signed root that is over: the attacker holds back the one after it',
    'metadata-expired',
    (evil) => {
      evil.publishRoot({ expiresAtMs: nowMs - 1_000 });
    },
    { heals: followRoots },
  ),
];
