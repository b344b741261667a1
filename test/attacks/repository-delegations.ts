// Why: attacks by and on publishers: who may speak for which namespace (TUF 1.0.34 §5.6.7, and the house's
// narrower use of it). Trusts: the hostile repository. Must never: let a row pass because a file was missing.

import assert from 'node:assert/strict';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { tufKeyObject } from '../../shared/crypto/ed25519.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { AttackCase } from './attack-case.ts';
import { malware, onRepository, withLab } from './attack-case.ts';
import {
  canonical,
  encode,
  type HostileRepository,
  inside,
  type Json,
  signerNamed,
} from './hostile-repository.ts';
import { goBeyond } from './repository-healing.ts';

const mallory = signerNamed('mallory');
const refusedNamespace = { keeps: true, heals: goBeyond } as const;

/** Targets, well signed by a stolen targets key (or by a careless ceremony), with these changed delegations. */
function delegations(id: string, attack: string, change: (signed: Json, roles: Json[]) => void): AttackCase {
  return onRepository(`delegation-${id}`, attack, 'metadata-malformed', (evil) => {
    evil.publish('acme', { alone: true });
    evil.list('acme');
    evil.publish('targets', {
      change: (signed) => change(signed, inside(signed, 'delegations')['roles'] as Json[]),
    });
  });
}

/** A second role beside the honest ones, of that name, by the attacker's key, for these paths. */
function anotherRole(name: unknown, paths: string[], more: Json = {}): (signed: Json, roles: Json[]) => void {
  return (signed, roles) => {
    inside(signed, 'delegations', 'keys')[mallory.keyId] = tufKeyObject(mallory.publicKey);
    roles.unshift({ name, keyids: [mallory.keyId], threshold: 1, terminating: true, paths, ...more });
  };
}

function setOnAcme(members: Json): (signed: Json, roles: Json[]) => void {
  return (_signed, roles) => {
    for (const role of roles) if (role['name'] === 'acme') Object.assign(role, members);
  };
}

/** One key under two ids that are both digests of a key object: the second object has one member more. */
export function twoIds(name: string): { keys: Json; keyids: string[]; ids: [string, string] } {
  const key = signerNamed(name);
  const plain: Json = tufKeyObject(key.publicKey);
  const other: Json = { ...plain, 'x-name': 'the same key' };
  const otherId = sha256Hex(encode(canonical(other)));
  return {
    keys: { [key.keyId]: plain, [otherId]: other },
    keyids: [key.keyId, otherId],
    ids: [key.keyId, otherId],
  };
}

/** Adds this role's one signature again, under the key's second id. */
const signAgain = (otherId: string) => ({
  signatures: (list: { keyid: string; sig: string }[]): void => {
    list.push({ keyid: otherId, sig: list[0]?.sig ?? '' });
  },
});

const roleNames: [string, string, unknown][] = [
  ['traversal', 'leads out of the metadata folder (`../x`)', '../x'],
  ['proto', 'is `__proto__`', '__proto__'],
  ['root', 'is a TUF role (`root`)', 'root'],
  ['timestamp', 'is a TUF role (`timestamp`)', 'timestamp'],
  ['snapshot', 'is a TUF role (`snapshot`)', 'snapshot'],
  ['targets', 'is its own delegator, a cycle (`targets`)', 'targets'],
  ['mirrors', 'is a TUF role (`mirrors`)', 'mirrors'],
  ['empty', 'is empty', ''],
  ['long', 'has 10,000 characters', 'a'.repeat(10_000)],
  ['null', 'is no text', null],
  ['capitals', 'is spelled in capitals, like another on a disk that ignores case', 'ACME'],
];

function manyRoles(evil: HostileRepository, count: number): void {
  evil.publish('targets', {
    change: (signed) => {
      const roles = inside(signed, 'delegations')['roles'] as Json[];
      const { keyId } = signerNamed('acme');
      for (let index = roles.length; index < count; index += 1) {
        const name = `crowd-${index}`;
        roles.push({ name, keyids: [keyId], threshold: 1, terminating: true, paths: [`${name}/*/*`] });
      }
    },
  });
}

export const delegationAttacks: AttackCase[] = [
  onRepository(
    'publisher-outside-path',
    'a publisher lists a release of another namespace in its own file',
    'target-unknown',
    (evil) => {
      const assigned = evil.addRelease('beta/voice/6.6.6');
      delete inside(evil.current('beta'), 'targets')['beta/voice/6.6.6'];
      evil.publish('acme', {
        change: (signed) => {
          inside(signed, 'targets')['beta/voice/6.6.6'] = {
            length: assigned.manifestBytes,
            hashes: { sha256: assigned.manifestSha256 },
            custom: { counter: assigned.counter, requires: assigned.requires },
          };
        },
      });
    },
    { ...refusedNamespace, asks: 'beta/voice/6.6.6' },
  ),
  onRepository(
    'publisher-of-another-namespace',
    'two publishers sign the file of a third',
    'metadata-signature-invalid',
    (evil) => void evil.publish('acme', { signers: evil.role('beta').keys }),
    refusedNamespace,
  ),
  onRepository(
    'publisher-by-top-level',
    'a stolen targets key signs a publisher’s file',
    'metadata-signature-invalid',
    (evil) => void evil.publish('acme', { signers: evil.role('targets').keys }),
    refusedNamespace,
  ),
  onRepository(
    'publisher-below-threshold',
    'one of two keys that a namespace needs signs its file',
    'metadata-signature-invalid',
    (evil) => evil.release('beta/voice/6.6.6', { signers: evil.role('beta').keys.slice(0, 1) }),
    { ...refusedNamespace, asks: 'beta/voice/6.6.6' },
  ),
  onRepository(
    'publisher-delegates-further',
    'a publisher delegates to somebody else, whose file names the release',
    'target-unknown',
    (evil) => {
      const { targets } = evil.current('acme');
      const entry = (targets as Json)[malware];
      delete (targets as Json)[malware];
      evil.roles['friend'] = { keys: [mallory], threshold: 1 };
      evil.signed['friend'] = {
        _type: 'targets',
        spec_version: '1.0.34',
        version: 0,
        targets: { [malware]: entry },
      };
      evil.publish('friend', { alone: true });
      evil.list('friend');
      evil.publish('acme', {
        change: (signed) => {
          evil.delegate(signed, 'friend');
          (inside(signed, 'delegations')['roles'] as Json[])[0] = {
            name: 'friend',
            keyids: [mallory.keyId],
            threshold: 1,
            terminating: false,
            paths: ['acme/*/*'],
          };
        },
      });
    },
    {
      keeps: true,
      heals: (honest, evil) => {
        goBeyond(honest, evil);
        honest.roles['friend'] = evil.role('friend');
        honest.signed['friend'] = evil.current('friend');
        honest.publish('friend', { alone: true });
        honest.list('friend');
      },
    },
  ),
  onRepository(
    'targets-name-a-release',
    'a stolen targets key names a release itself',
    'metadata-malformed',
    (evil) => {
      evil.publish('targets', {
        change: (signed) => {
          inside(signed, 'targets')[malware] = inside(evil.current('acme'), 'targets')[malware];
        },
      });
    },
  ),
  onRepository(
    'targets-drop-a-namespace',
    'stolen online and targets keys drop a namespace and its publisher',
    'target-unknown',
    (evil) => {
      evil.publish('acme', { alone: true });
      evil.list('acme');
      evil.publish('targets', { change: (signed) => evil.delegate(signed, 'beta') });
    },
    {
      keeps: true,
      heals: (honest, evil) => goBeyond(honest, evil),
    },
  ),
  delegations('open', 'a delegation that lets the search go on', setOnAcme({ terminating: false })),
  delegations('wider', 'a delegation of one namespace with the path of all', setOnAcme({ paths: ['*/*/*'] })),
  delegations(
    'second-path',
    'a delegation with a second path, into another namespace',
    setOnAcme({ paths: ['acme/*/*', 'beta/*/*'] }),
  ),
  delegations('no-path', 'a delegation without paths', setOnAcme({ paths: [] })),
  delegations(
    'hash-prefixes',
    'a delegation by hash prefixes, which cover every path',
    setOnAcme({ paths: undefined, path_hash_prefixes: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'] }),
  ),
  delegations(
    'both-bindings',
    'a delegation by path and by hash prefixes, of which a reader may take either',
    setOnAcme({ path_hash_prefixes: [''] }),
  ),
  delegations(
    'diamond',
    'a second role, by another key, for a namespace that has one',
    anotherRole('mallory', ['acme/*/*']),
  ),
  delegations(
    'twice',
    'one role name twice, with different keys, the attacker’s first',
    anotherRole('acme', ['acme/*/*']),
  ),
  delegations('threshold-zero', 'a delegation with a threshold of zero', setOnAcme({ threshold: 0 })),
  delegations('threshold-negative', 'a delegation with a threshold of −1', setOnAcme({ threshold: -1 })),
  delegations(
    'duplicate-key-id',
    'a delegation that lists one key id twice',
    setOnAcme({ keyids: [signerNamed('acme').keyId, signerNamed('acme').keyId] }),
  ),
  ...roleNames.map(([id, words, name]) =>
    delegations(`name-${id}`, `a delegated role whose name ${words}`, anotherRole(name, [`${name}/*/*`])),
  ),
  onRepository(
    'delegation-threshold-unreachable',
    'a delegation that needs more signatures than it names keys',
    'metadata-signature-invalid',
    (evil) => {
      evil.publish('targets', {
        change: (signed) =>
          setOnAcme({ threshold: 2 })(signed, inside(signed, 'delegations')['roles'] as Json[]),
        alone: true,
      });
      evil.list('targets');
      evil.publish('acme');
    },
    refusedNamespace,
  ),
  onRepository(
    'two-ids-delegation',
    'one publisher’s key under two ids meets a threshold of two',
    'metadata-signature-invalid',
    (evil) => {
      const { keys, keyids, ids } = twoIds('acme');
      evil.publish('targets', {
        change: (signed) => {
          Object.assign(inside(signed, 'delegations', 'keys'), keys);
          setOnAcme({ keyids, threshold: 2 })(signed, inside(signed, 'delegations')['roles'] as Json[]);
        },
        alone: true,
      });
      evil.list('targets');
      evil.publish('acme', signAgain(ids[1]));
    },
    refusedNamespace,
  ),
  onRepository(
    'two-ids-snapshot',
    'one snapshot key under two ids meets a threshold of two',
    'metadata-signature-invalid',
    (evil) => {
      const { keys, keyids, ids } = twoIds('snapshot');
      evil.publishRoot({
        change: (signed) => {
          Object.assign(inside(signed, 'keys'), keys);
          Object.assign(inside(signed, 'roles', 'snapshot'), { keyids, threshold: 2 });
        },
      });
      evil.publish('acme', { alone: true });
      evil.list('acme');
      evil.publish('snapshot', signAgain(ids[1]));
    },
    {
      heals: (honest, evil) => {
        honest.files.set('2.root.json', evil.bytes('root'));
        honest.current('root')['version'] = 2;
        honest.publishRoot();
      },
    },
  ),
  onRepository(
    'two-ids-root',
    'one stolen root key under two ids meets the root’s threshold of two',
    'metadata-signature-invalid',
    (evil) => {
      const { keys, keyids, ids } = twoIds('evil-1');
      evil.publishRoot({
        change: (signed) => {
          Object.assign(inside(signed, 'keys'), keys);
          Object.assign(inside(signed, 'roles', 'root'), { keyids, threshold: 2 });
        },
        signers: [signerNamed('evil-1'), ...evil.role('root').keys],
        ...signAgain(ids[1]),
      });
    },
  ),
  {
    id: 'targets-drop-a-held-namespace',
    group: 'repository',
    attack: 'a namespace whose file the device holds is dropped: what is held vouches for nothing any more',
    code: 'target-unknown',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        const both = ['acme/detector/1.0.0', 'beta/voice/1.0.0'];
        assert.equal(await lab.update(...both), 'accepted', 'both publishers are trusted');
        lab.honest.publish('targets', { change: (signed) => lab.honest.delegate(signed, 'acme') });
        assert.equal(await lab.update('acme/detector/1.0.0'), 'accepted', 'the other publisher goes on');
        return lab.update('beta/voice/1.0.0');
      }),
  },
  {
    id: 'namespace-constructor',
    group: 'repository',
    attack: 'a release of the namespace `constructor`, which every JavaScript object has',
    code: 'target-unknown',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        const assigned = lab.honest.assignmentOf('acme/detector/1.0.0');
        return lab.assign([{ ...assigned, releaseId: 'constructor/detector@1.0.0' }]);
      }),
  },
  {
    id: 'target-version-odd',
    group: 'repository',
    attack: 'an assignment of a release whose version no publisher could have signed',
    code: 'target-unknown',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        const assigned = lab.honest.assignmentOf('acme/detector/1.0.0');
        return lab.assign([{ ...assigned, releaseId: 'acme/detector@1.0.0.0' }]);
      }),
  },
  {
    id: 'target-path-traversal',
    group: 'repository',
    attack: 'an assignment whose release id leads out of its namespace',
    code: 'assignment-malformed',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        const assigned = lab.honest.assignmentOf('acme/detector/1.0.0');
        return lab.assign([{ ...assigned, releaseId: 'acme/../beta@1.0.0' }]);
      }),
  },
  onRepository(
    'delegations-10001',
    'targets with one delegated role more than the limit of 10,000',
    'metadata-malformed',
    (evil) => manyRoles(evil, limits.delegationsMax + 1),
    { before: (honest) => manyRoles(honest, limits.delegationsMax) },
  ),
];
