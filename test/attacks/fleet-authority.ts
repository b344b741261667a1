// Why: attacks on the device's authority where no assignment is at hand: its own refresh, its store, and the
// question before an install. Trusts: the direct bench. Must never: need a broker.

import assert from 'node:assert/strict';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { makeRegionRoot } from '../../shared/trust/region.ts';
import type { AttackCase } from './attack-case.ts';
import { type DirectLab, openDirectLab, region } from './direct-bench.ts';
import { codeOf } from './direct-rows.ts';
import { dayMs, nowMs, signerNamed } from './hostile-repository.ts';

type Row = Omit<AttackCase, 'group' | 'where' | 'run'> & { work(lab: DirectLab): Promise<string> };

function onAuthority({ work, ...row }: Row): AttackCase {
  return {
    ...row,
    group: 'fleet',
    where: 'direct',
    run: async () => {
      const lab = await openDirectLab();
      try {
        assert.equal(await lab.update('acme/detector/1.0.0'), 'accepted', 'the honest assignment before');
        return await work(lab);
      } finally {
        await lab.close();
      }
    },
  };
}

const code = async (result: Promise<Result<unknown>>): Promise<string> => codeOf(await result);

/** A next region root that names the attacker as director, signed by the attacker alone. */
function forgedRegionRoot(): Uint8Array {
  const mallory = { keys: [signerNamed('mallory').publicKey], threshold: 1 };
  const roles = { root: mallory, director: mallory, time: mallory, ack: mallory, command: mallory };
  const expiresAtMs = nowMs + 300 * dayMs;
  return makeRegionRoot({ region, version: 2, expiresAtMs, roles, signers: [signerNamed('mallory')] });
}

export const authorityAttacks: AttackCase[] = [
  onAuthority({
    id: 'refresh-region-root-forged',
    attack: 'the registry offers a next region root that the attacker signed',
    code: 'metadata-signature-invalid',
    work: async (lab) => {
      const evil = lab.honest.fork();
      evil.files.set('region/2.root.json', forgedRegionRoot());
      lab.serve(evil);
      const observed = await code(lab.authority().refresh());
      assert.equal(lab.authority().regionRoot().version, 1);
      lab.serve(lab.honest);
      assert.equal(await code(lab.authority().refresh()), 'accepted', 'the honest refresh afterwards');
      return observed;
    },
  }),
  onAuthority({
    id: 'refresh-timestamp-forged',
    attack: 'a refresh by poll or doorbell meets a timestamp that the attacker signed',
    code: 'metadata-signature-invalid',
    work: async (lab) => {
      const evil = lab.honest.fork();
      evil.publish('timestamp', { signers: [signerNamed('mallory')] });
      lab.serve(evil);
      return code(lab.authority().refresh());
    },
  }),
  onAuthority({
    id: 'install-other-bytes',
    attack: 'an update that waited is about to install other bytes than the catalogue names by now',
    code: 'target-digest-mismatch',
    work: async (lab) => {
      const assigned = lab.honest.assignmentOf('acme/detector/1.0.0');
      assert.equal(await code(lab.authority().agree(assigned)), 'accepted');
      return code(lab.authority().agree({ ...assigned, manifestSha256: 'a'.repeat(64) }));
    },
  }),
  onAuthority({
    id: 'install-withdrawn',
    attack:
      'a release that its publisher took back is assigned anew; whoever runs it already goes on running it',
    code: 'release-withdrawn',
    work: async (lab) => {
      const { counter } = lab.honest.assignmentOf('acme/detector/1.0.0');
      lab.honest.publish('acme', {
        change: (signed) => (signed['x-lepton'] = { withdrawn: { detector: [counter] } }),
      });
      lab.serving('acme/detector/1.0.0');
      assert.equal(await lab.update('acme/detector/1.0.0'), 'accepted', 'where it runs');
      lab.serving(null);
      return lab.update('acme/detector/1.0.0');
    },
  }),
  onAuthority({
    id: 'install-forgotten',
    attack:
      'a release that the catalogue does not name any more is assigned anew; where exactly it is proven it may be gone back to',
    code: 'target-unknown',
    work: async (lab) => {
      const assigned = lab.honest.assignmentOf('acme/detector/1.0.0');
      lab.honest.publish('acme', { change: (signed) => (signed.targets = {}) });
      lab.proven(assigned);
      assert.equal(await lab.assign([assigned]), 'accepted', 'where it is proven');
      for (const change of [{ counter: assigned.counter + 1 }, { requires: { opset: 99 } }])
        assert.equal(
          await lab.assign([{ ...assigned, ...change }]),
          'target-unknown',
          JSON.stringify(change),
        );
      lab.proven(null);
      return lab.assign([assigned]);
    },
  }),
  onAuthority({
    id: 'replay-after-restart',
    attack: 'a timestamp that only was signed anew is forgotten by a restart, and an older one is replayed',
    code: 'metadata-rollback',
    work: async (lab) => {
      const yesterday = lab.honest.fork();
      lab.honest.publish('timestamp');
      assert.equal(await lab.update('acme/detector/1.0.0'), 'accepted', 'the newer timestamp');
      await lab.edit((db) => {
        // Each refresh keeps the root; it is there once.
        assert.equal(db.all("SELECT 1 FROM trust_roots WHERE kind = 'catalogue'").length, 1);
      });
      lab.serve(yesterday);
      return lab.update('acme/detector/1.0.0');
    },
  }),
  ...(
    [
      ['torn', 'no envelope', '{}'],
      ['garbage', 'no JSON', '{'],
    ] as const
  ).map(([id, what, left]) =>
    onAuthority({
      id: `stored-assignment-${id}`,
      attack: `the stored assignment is ${what} any more, and an older one is replayed after the restart`,
      code: 'assignment-replayed',
      work: async (lab) => {
        await lab.edit((db) => {
          db.run('UPDATE trust_assignment SET envelope = ?, epoch = 9 WHERE id = 1', left);
        });
        assert.equal(lab.authority().assignment(), null);
        return lab.update('acme/detector/1.0.0');
      },
    }),
  ),
  onAuthority({
    id: 'stored-region-root-torn',
    attack: 'the stored region root and its second copy were cut: the device believes nobody any more',
    code: 'state-corrupt',
    work: async (lab) => {
      try {
        await lab.edit((db) => {
          db.run("UPDATE trust_files SET bytes = x'7b' WHERE name = 'region-root'");
          db.run("UPDATE trust_roots SET bytes = x'7b' WHERE kind = 'region'");
        });
      } catch (error) {
        if (error instanceof FleetError) return error.code;
        throw error;
      }
      return 'accepted';
    },
  }),
];
