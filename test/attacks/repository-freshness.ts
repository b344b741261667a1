// Why: attacks that move a device back, forward, or hold it where it is (TUF 1.0.34 §1.5.2: rollback, freeze,
// fast-forward, mix-and-match). Trusts: the hostile repository.
// Must never: count a freeze as harmless before it ended with an expiry.

import assert from 'node:assert/strict';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { verifyStoredCatalogue } from '../../shared/trust/tuf/client.ts';
import { type AttackCase, assertStillUpdates, malware, onRepository, withLab } from './attack-case.ts';
import { dayMs, type HostileRepository, inside, type Json, nowMs } from './hostile-repository.ts';
import { followRoots, goBeyond, rotate } from './repository-healing.ts';

const highest = Number.MAX_SAFE_INTEGER;

/** Leaves only the version in a listing, which TUF allows: then the version alone must bind. */
function versionOnly(meta: Json): void {
  delete meta['length'];
  delete meta['hashes'];
}

/**
 * The attacker holds these keys, uses the highest number there is, and is thrown out by a root that replaces
 * the online keys. Observed: what the device says to the honest repository before that root came.
 */
function fastForward(name: string, stolen: string, publish: (evil: HostileRepository) => void): AttackCase {
  return {
    id: `fast-forward-${name}`,
    group: 'repository',
    attack: `${stolen} used once to sign ${name} with the highest version there is; a root rotation heals it`,
    code: 'metadata-rollback',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        const { honest } = lab;
        honest.release('acme/detector/1.1.0');
        const evil = honest.fork();
        publish(evil);
        lab.serve(evil);
        assert.equal(await lab.update('acme/detector/1.1.0'), 'accepted', 'the stolen keys do sign');
        // Higher than the attacker's own numbers, but for the one that was driven to its end.
        for (let times = 0; times < 3; times += 1) honest.publish('snapshot');
        lab.serve(honest);
        const observed = await lab.update('acme/detector/1.1.0');
        rotate(honest, 'timestamp', 'snapshot', 'targets');
        honest.publish('targets', { alone: true });
        honest.list('targets');
        honest.release('acme/detector/1.2.0');
        assert.equal(await lab.update('acme/detector/1.2.0'), 'accepted', 'the rotation heals it');
        return observed;
      }),
  };
}

const dates: [string, string, string][] = [
  ['february', 'the 31st of February', '2099-02-31T00:00:00Z'],
  ['lower-case', 'lower-case letters', '2099-01-01t00:00:00z'],
  ['offset', 'an offset', '2099-01-01T00:00:00+00:00'],
  ['fraction', 'a fraction of a second', '2099-01-01T00:00:00.5Z'],
  ['five-digits', 'a year of five digits', '20990-01-01T00:00:00Z'],
  ['month-13', 'a thirteenth month', '2099-13-01T00:00:00Z'],
  ['month-0', 'a month zero', '2099-00-01T00:00:00Z'],
  ['hour-24', 'hour 24', '2099-01-01T24:00:00Z'],
  ['minute-60', 'minute 60', '2099-01-01T00:60:00Z'],
  ['second-60', 'second 60', '2099-01-01T00:00:60Z'],
];

export const freshnessAttacks: AttackCase[] = [
  onRepository(
    'timestamp-older',
    'an older, well-signed timestamp is replayed',
    'metadata-rollback',
    (evil) => {
      evil.publish('acme');
      evil.publish('timestamp', { version: 1 });
    },
  ),
  onRepository(
    'snapshot-older',
    'a stolen timestamp key lists an older snapshot in a newer timestamp',
    'metadata-rollback',
    (evil) => {
      const old = evil.files.get('1.snapshot.json') ?? new Uint8Array();
      const listed = { version: 1, length: old.length, hashes: { sha256: sha256Hex(old) } };
      evil.publish('timestamp', { change: (signed) => (signed['meta'] = { 'snapshot.json': listed }) });
    },
  ),
  onRepository(
    'stolen-timestamp-freezes',
    'a stolen timestamp key signs the old snapshot again and again: nothing is added',
    'target-unknown',
    (evil) => void evil.publish('timestamp'),
    { keeps: true, heals: goBeyond },
  ),
  onRepository(
    'stolen-timestamp-adds',
    'a stolen timestamp key lists a snapshot that the attacker signed',
    'metadata-signature-invalid',
    (evil) => {
      evil.role('snapshot').keys = evil.role('timestamp').keys;
      evil.publish('acme');
    },
  ),
  onRepository(
    'stolen-online-keys-add',
    'stolen timestamp and snapshot keys list a publisher’s file that the attacker signed',
    'metadata-signature-invalid',
    (evil) => {
      evil.role('acme').keys = evil.role('timestamp').keys;
      evil.publish('acme');
    },
    { keeps: true, heals: goBeyond },
  ),
  onRepository(
    'stolen-online-keys-roll-back',
    'stolen timestamp and snapshot keys list an older file of a publisher',
    'metadata-rollback',
    (evil) => {
      evil.publish('snapshot', {
        change: (signed) => (inside(signed, 'meta')['acme.json'] = { version: 1 }),
      });
    },
    { asks: 'acme/detector/1.0.0' },
  ),
  onRepository(
    'delegated-dropped',
    'stolen timestamp and snapshot keys list a publisher’s file no longer',
    'metadata-rollback',
    (evil) => {
      evil.publish('snapshot', { change: (signed) => delete inside(signed, 'meta')['acme.json'] });
    },
  ),
  onRepository(
    'targets-rolled-back',
    'stolen timestamp and snapshot keys list older targets',
    'metadata-rollback',
    (evil) => {
      evil.publish('snapshot', {
        change: (signed) => (inside(signed, 'meta')['targets.json'] = { version: 1 }),
      });
    },
    { before: (honest) => void honest.publish('targets') },
  ),
  ...(['timestamp', 'snapshot', 'targets', 'acme'] as const).map((name) =>
    onRepository(
      `expired-${name === 'acme' ? 'delegated' : name}`,
      `a well-signed ${name === 'acme' ? 'publisher’s file' : name} that is over`,
      'metadata-expired',
      (evil) => {
        if (name !== 'acme') evil.publish('acme', { alone: true });
        if (name !== 'acme') evil.list('acme');
        evil.publish(name, { expiresAtMs: nowMs - 1_000 });
      },
      name === 'acme' ? { keeps: true, heals: goBeyond } : {},
    ),
  ),
  ...dates.map(([id, words, date]) =>
    onRepository(
      `date-${id}`,
      `a well-signed timestamp whose expiry has ${words}`,
      'metadata-malformed',
      (evil) => {
        evil.publish('acme');
        evil.publish('timestamp', { change: (signed) => (signed['expires'] = date) });
      },
    ),
  ),
  fastForward('timestamp', 'a stolen timestamp key', (evil) => {
    evil.publish('timestamp', { version: highest });
  }),
  fastForward('snapshot', 'stolen timestamp and snapshot keys', (evil) => {
    evil.publish('snapshot', { version: highest });
  }),
  fastForward('targets', 'stolen targets, snapshot and timestamp keys', (evil) => {
    evil.publish('targets', { version: highest });
  }),
  fastForward('delegated', 'stolen publisher, snapshot and timestamp keys', (evil) => {
    evil.publish('acme', { version: highest });
  }),
  onRepository(
    'mix-old-snapshot',
    'yesterday’s snapshot served in the place of today’s',
    'metadata-digest-mismatch',
    (evil, honest) => {
      evil.publish('acme', { alone: true });
      evil.list('acme');
      evil.publish('snapshot', { served: () => honest.bytes('snapshot') });
    },
  ),
  onRepository(
    'mix-old-targets',
    'targets of yesterday served beside a snapshot of today',
    'metadata-digest-mismatch',
    (evil, honest) => {
      evil.publish('acme', { alone: true });
      evil.list('acme');
      evil.publish('targets', { served: () => honest.bytes('targets') });
    },
  ),
  onRepository(
    'mix-old-delegated',
    'a publisher’s file of yesterday served beside a snapshot of today',
    'metadata-digest-mismatch',
    (evil, honest) => void evil.publish('acme', { served: () => honest.bytes('acme') }),
    { keeps: true, heals: goBeyond },
  ),
  onRepository(
    'mix-snapshot-by-version',
    'a timestamp that lists a version without a digest, and an older snapshot under its name',
    'metadata-version-invalid',
    (evil, honest) => {
      evil.publish('snapshot', { listed: versionOnly, served: () => honest.bytes('snapshot') });
    },
  ),
  onRepository(
    'mix-targets-by-version',
    'a snapshot that lists a version without a digest, and older targets under its name',
    'metadata-version-invalid',
    (evil, honest) => {
      evil.publish('targets', { listed: versionOnly, served: () => honest.bytes('targets') });
    },
  ),
  onRepository(
    'mix-delegated-by-version',
    'a snapshot that lists a version without a digest, and a publisher’s older file under its name',
    'metadata-version-invalid',
    (evil, honest) => void evil.publish('acme', { listed: versionOnly, served: () => honest.bytes('acme') }),
    { keeps: true, heals: goBeyond, asks: 'acme/detector/1.1.0' },
  ),
  onRepository(
    'rotation-hides-targets',
    'after a rotation of the snapshot key, a snapshot that lists no targets at all',
    'metadata-malformed',
    (evil) => {
      rotate(evil, 'snapshot');
      evil.publish('snapshot', { change: (signed) => delete inside(signed, 'meta')['targets.json'] });
    },
    { heals: followRoots },
  ),
  onRepository(
    'rotation-hides-publisher',
    'after a rotation of the snapshot key, a snapshot that lists nothing of a publisher',
    'target-unknown',
    (evil) => {
      rotate(evil, 'snapshot');
      evil.publish('snapshot', { change: (signed) => delete inside(signed, 'meta')['acme.json'] });
    },
    {
      keeps: true,
      heals: (honest, evil) => {
        goBeyond(honest, evil);
        followRoots(honest, evil);
      },
    },
  ),
  {
    id: 'freeze',
    group: 'repository',
    attack: 'the registry shows the same files until they are over',
    code: 'metadata-expired',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        lab.setClock(nowMs + 6 * dayMs);
        assert.equal(await lab.update('acme/detector/1.0.0'), 'accepted', 'on the sixth day');
        lab.setClock(nowMs + 8 * dayMs);
        const observed = await lab.update('acme/detector/1.0.0');
        lab.setClock(null);
        await assertStillUpdates(lab, lab.honest);
        return observed;
      }),
  },
  {
    id: 'clock-1970',
    group: 'repository',
    attack: 'a clock set back to 1970, so that metadata which is over looks fresh',
    code: 'metadata-expired',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        lab.honest.release('acme/detector/1.1.0');
        assert.equal(await lab.update('acme/detector/1.1.0'), 'accepted', 'the device learns the time');
        lab.setClock(0);
        const evil = lab.honest.fork();
        evil.addRelease(malware);
        evil.publish('acme', { alone: true });
        evil.list('acme');
        evil.publish('snapshot', { alone: true });
        evil.list('snapshot');
        evil.publish('timestamp', { expiresAtMs: nowMs - dayMs });
        lab.serve(evil);
        const observed = await lab.update(malware);
        await assertStillUpdates(lab, evil);
        return observed;
      }),
  },
  {
    id: 'clock-2099',
    group: 'repository',
    attack: 'a clock set to 2099: everything is over, what runs goes on, and a right clock heals it',
    code: 'metadata-expired',
    where: 'wire',
    run: (bench) =>
      withLab(bench, async (lab) => {
        lab.honest.release('acme/detector/1.1.0');
        assert.equal(await lab.update('acme/detector/1.1.0'), 'accepted', 'the honest update before');
        lab.setClock(Date.UTC(2099, 0, 1));
        lab.honest.release('acme/detector/1.1.1');
        const observed = await lab.update('acme/detector/1.1.1');
        assert.ok(verifyStoredCatalogue(await lab.held()).ok, 'what it runs is still vouched for');
        lab.setClock(null);
        await assertStillUpdates(lab, lab.honest);
        return observed;
      }),
  },
];
