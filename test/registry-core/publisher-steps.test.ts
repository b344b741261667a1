// Why: floors, withdrawals and renewals come into the catalogue like releases do: checked, signed by enough,
// at most one waiting, and what they bar is barred in the same transaction.
// Trusts: shared/trust for signatures. Must never: judge by the words that are shown to people.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Barring } from '../../registry/catalog/barred.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { nextPublisherTargets, readPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import { addSignature } from '../../shared/trust/tuf/repository.ts';
import {
  type Bench,
  bench,
  dayMs,
  hexOf,
  identityModel,
  once,
  preparePush,
  publisherKey,
} from './support.ts';

const [a, b, c] = [publisherKey('a'), publisherKey('b'), publisherKey('c')];

async function current({ repository }: Bench, namespace: string): Promise<Uint8Array | null> {
  const version = (await repository.publisher(namespace))?.metadataVersion ?? 0;
  return version === 0 ? null : repository.file(`${version}.${namespace}.json`);
}

async function push(made: Bench, releaseId: string, counter: number, signers: Signer[]) {
  const namespace = releaseId.slice(0, releaseId.indexOf('/'));
  const prepared = preparePush({
    releaseId,
    model: identityModel(releaseId),
    current: await current(made, namespace),
    counter,
    signers,
    expiresAtMs: made.clock.wall() + 365 * dayMs,
  });
  unwrap(await made.blobs.put(sha256Hex(prepared.model), once(prepared.model)));
  return unwrap(await made.releases.push(prepared));
}

type Change = Partial<Parameters<typeof nextPublisherTargets>[0]>;
async function next(made: Bench, namespace: string, change: Change): Promise<Uint8Array> {
  return unwrap(
    nextPublisherTargets({
      namespace,
      current: await current(made, namespace),
      add: [],
      expiresAtMs: made.clock.wall() + 365 * dayMs,
      signers: [a],
      ...change,
    }),
  );
}

const take = (made: Bench, metadata: Uint8Array, namespace = 'acme') =>
  made.releases.takeStep({ namespace, metadata, pushedBy: 'tester' });
const codeOf = (result: Awaited<ReturnType<typeof take>>): string =>
  result.ok ? result.value.status : result.refusal.code;

async function acme(t: Parameters<typeof bench>[0]): Promise<Bench> {
  const made = await bench(t);
  unwrap(await made.repository.delegate('acme', [hexOf(a)], 1));
  for (const [version, counter] of [
    ['1.0.0', 1],
    ['1.1.0', 2],
    ['1.2.0', 3],
  ] as const)
    await push(made, `acme/echo@${version}`, counter, [a]);
  return made;
}

test('a floor and a withdrawal bar releases, in the transaction that serves them', async (t) => {
  const made = await acme(t);
  const { releases, store } = made;
  const heard: Barring[] = [];
  let told = 0;
  const quiet = releases.onBarred({
    within: (db, barring) => {
      heard.push(barring);
      const rows = db.all(
        store.qb.selectFrom('releases').select('release_id').where('release_id', 'in', barring.releaseIds),
      );
      assert.equal(rows.length, barring.releaseIds.length);
    },
    after: () => {
      told += 1;
    },
  });
  assert.equal(
    codeOf(await take(made, await next(made, 'acme', { floors: new Map([['echo', 2]]) }))),
    'accepted',
  );
  const withdrawal = await next(made, 'acme', { withdrawn: new Map([['echo', new Set([2])]]) });
  assert.equal(codeOf(await take(made, withdrawal)), 'accepted');
  const view = unwrap(await releases.show('acme/echo'));
  assert.equal(view.floor, 2);
  assert.deepEqual(
    view.versions.map((one) => [one.version, one.withdrawn, one.belowFloor]),
    [
      ['1.2.0', false, false],
      ['1.1.0', true, false],
      ['1.0.0', false, true],
    ],
  );
  assert.equal((await releases.find('acme/echo@1.0.0'))?.barred?.code, 'release-below-floor');
  assert.equal((await releases.find('acme/echo@1.1.0'))?.barred?.code, 'release-withdrawn');
  assert.equal((await releases.find('acme/echo@1.2.0'))?.barred, null);
  assert.deepEqual(
    heard.map((one) => [one.code, one.releaseIds]),
    [
      ['release-below-floor', ['acme/echo@1.0.0']],
      ['release-withdrawn', ['acme/echo@1.1.0']],
    ],
  );
  assert.equal(told, 2);
  // A renewal bars nothing; a throw of whoever listens leaves nothing of the step.
  quiet();
  const failing = releases.onBarred({
    within: () => {
      throw new Error('stop');
    },
  });
  const third = await next(made, 'acme', { withdrawn: new Map([['echo', new Set([3])]]) });
  await assert.rejects(take(made, third), /stop/);
  assert.equal((await releases.find('acme/echo@1.2.0'))?.barred, null);
  failing();
  assert.equal(codeOf(await take(made, third)), 'accepted');
});

test('the same step again is the same answer; an old one, a stranger’s and one with a release are refused', async (t) => {
  const made = await acme(t);
  const renewal = await next(made, 'acme', {});
  const first = unwrap(await take(made, renewal));
  assert.deepEqual([first.status, first.version], ['accepted', 4]);
  assert.deepEqual(unwrap(await take(made, renewal)), first);
  const floored = await next(made, 'acme', { floors: new Map([['echo', 1]]) });
  assert.equal(codeOf(await take(made, floored)), 'accepted');
  // The answer to the one before was lost, and somebody else's step came since.
  assert.deepEqual(unwrap(await take(made, renewal)), first);

  assert.equal(codeOf(await take(made, addSignature(renewal, b))), 'metadata-version-invalid');
  assert.equal(codeOf(await take(made, await next(made, 'acme', { signers: [b] }))), 'publisher-key-unknown');
  assert.equal(codeOf(await take(made, renewal, 'nobody')), 'namespace-unknown');
  assert.equal(
    codeOf(await take(made, await next(made, 'acme', { expiresAtMs: made.clock.wall() }))),
    'metadata-expired',
  );
  const adding = preparePush({
    releaseId: 'acme/echo@9.0.0',
    model: identityModel('9'),
    current: await current(made, 'acme'),
    counter: 9,
    signers: [a],
    expiresAtMs: made.clock.wall() + dayMs,
  });
  assert.equal(codeOf(await take(made, adding.metadata)), 'input-invalid');
});

test('one step waits in a namespace: another replaces it and says so, the same one gathers signatures', async (t) => {
  const made = await bench(t);
  const { repository, releases } = made;
  unwrap(await repository.delegate('trio', [hexOf(a), hexOf(b), hexOf(c)], 3));
  await push(made, 'trio/echo@1.0.0', 1, [a, b, c]);
  const waiting = await push(made, 'trio/echo@1.1.0', 2, [a]);
  assert.equal(waiting.status, 'awaiting-signatures');
  assert.equal((await releases.pending('trio'))?.releaseId, 'trio/echo@1.1.0');

  const floored = await next(made, 'trio', { floors: new Map([['echo', 1]]) });
  const replacing = unwrap(await take(made, floored, 'trio'));
  assert.deepEqual([replacing.signatures, replacing.threshold, replacing.replaced?.length], [1, 3, 1]);
  assert.match(replacing.replaced?.[0] ?? '', /^adds trio\/echo@1\.1\.0 /);
  const pending = await releases.pending('trio');
  assert.deepEqual([pending?.releaseId, pending?.manifest, pending?.stepId], [null, null, replacing.stepId]);

  // Both took what waited at the same time; neither knows the other's signature.
  const [byB, byC] = [addSignature(floored, b), addSignature(floored, c)];
  const second = unwrap(await take(made, byB, 'trio'));
  assert.deepEqual(
    [second.status, second.signatures, second.replaced],
    ['awaiting-signatures', 2, undefined],
  );
  assert.equal(unwrap(await take(made, byC, 'trio')).status, 'accepted');
  assert.equal(await releases.pending('trio'), null);
  assert.equal(unwrap(await releases.show('trio/echo')).floor, 1);
});

test('a step that was accepted says what waited in its place', async (t) => {
  const made = await bench(t);
  unwrap(await made.repository.delegate('duo', [hexOf(a), hexOf(b)], 2));
  await push(made, 'duo/echo@1.0.0', 1, [a, b]);
  await take(made, await next(made, 'duo', { floors: new Map([['echo', 1]]) }), 'duo');
  const renewed = unwrap(await take(made, await next(made, 'duo', { signers: [a, b] }), 'duo'));
  assert.deepEqual([renewed.status, renewed.replaced?.length], ['accepted', 1]);
  assert.equal(await made.releases.pending('duo'), null);
});

test('versions and counters go on above what a restore lost, and never fall', async (t) => {
  const made = await acme(t);
  const { repository } = made;
  unwrap(await repository.raiseVersionFloor('acme', 9));
  unwrap(await repository.raiseVersionFloor('acme', 5));
  unwrap(await repository.raiseCounterFloor({ namespace: 'acme', name: 'echo' }, 6));
  unwrap(await repository.raiseCounterFloor({ namespace: 'acme', name: 'echo' }, 4));
  unwrap(await repository.raiseCounterFloor({ namespace: 'acme', name: 'lost' }, 2));
  const publisher = await repository.publisher('acme');
  assert.deepEqual(
    [publisher?.metadataVersion, publisher?.versionFloor, publisher?.counterFloors],
    [3, 9, { echo: 6, lost: 2 }],
  );
  const unknown = await repository.raiseVersionFloor('nobody', 1);
  assert.equal(unknown.ok ? 'raised' : unknown.refusal.code, 'namespace-unknown');

  assert.equal(codeOf(await take(made, await next(made, 'acme', {}))), 'metadata-version-invalid');
  const prepare = (counter: number) =>
    current(made, 'acme').then((bytes) =>
      preparePush({
        releaseId: 'acme/echo@2.0.0',
        model: identityModel('2'),
        current: bytes,
        counter,
        signers: [a],
        expiresAtMs: made.clock.wall() + dayMs,
        versionFloor: 9,
      }),
    );
  const { model } = await prepare(6);
  unwrap(await made.blobs.put(sha256Hex(model), once(model)));
  const low = await made.releases.push(await prepare(6));
  assert.equal(low.ok ? 'accepted' : low.refusal.code, 'conflict');
  assert.equal(unwrap(await made.releases.push(await prepare(7))).status, 'accepted');
  assert.equal((await repository.publisher('acme'))?.metadataVersion, 10);
  // Changing the keys does not forget the floor, and the floor's model has no floor of its publisher's.
  unwrap(await repository.delegate('acme', [hexOf(a), hexOf(b)], 1));
  assert.equal((await repository.publisher('acme'))?.versionFloor, 9);
  assert.equal(unwrap(await made.releases.show('acme/echo')).floor, 0);
  const after = await next(made, 'acme', { floors: new Map([['echo', 7]]) });
  assert.equal(unwrap(readPublisherTargets(after)).version, 11);
  assert.equal(codeOf(await take(made, after)), 'accepted');
  assert.deepEqual((await repository.publisher('acme'))?.counterFloors, { echo: 6, lost: 2 });
});
