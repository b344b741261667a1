// Why: what publishers do with `lepton`, as two people with two keys do it: nobody signs what was not asked.
// Trusts: the real program and a registry in this process. Must never: sign by anything but the program, but
// for what an attacker would send.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { publisherKey } from '../../registry/cli/publisher-key.ts';
import type { Registry } from '../../registry/registry.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { nextPublisherTargets, readPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import { type ModelView, modelSchema } from '../../shared/wire/http.ts';
import { identityModel } from '../registry-core/support.ts';
import { type LeptonRunner, type Workplace, workplace } from '../support/processes.ts';
import { openTestRegistry } from '../support/registry.ts';

describe('publishers at the command line', () => {
  let place: Workplace;
  let registry: Registry;
  let lepton: LeptonRunner;

  before(async () => {
    place = workplace('publisher-steps');
    ({ registry, lepton } = await openTestRegistry(place, { loaded: true }));
  });
  after(async () => place.close());

  const keyFile = (name: string): string => place.path(`${name}.key`);

  /** A namespace whose keys are files here. */
  async function namespace(name: string, keys: string[], threshold: number): Promise<void> {
    const named = keys.flatMap((key) => ['--key', publisherKey(name, keyFile(key), true).publicKeyHex]);
    await lepton(['publishers', 'add', name, ...named, '--threshold', `${threshold}`]);
  }

  async function push(release: string, key: string, expectedExit = 0): Promise<string> {
    const [model = '', version = ''] = release.split('@');
    const file = place.path('model.onnx');
    writeFileSync(file, identityModel(release));
    const args = ['models', 'push', file, '--name', model, '--version', version, '--key', keyFile(key)];
    const done = await lepton([...args, '--json'], expectedExit);
    return done.stdout + done.stderr;
  }

  const show = async (model: string): Promise<ModelView> =>
    modelSchema.parse((await lepton(['models', 'show', model, '--json'])).json());

  async function refused(args: string[], exit: 1 | 2, code: string): Promise<string> {
    const done = await lepton(args, exit);
    assert.match(done.stderr, new RegExp(`^lepton: ${code}: `, 'm'), done.stderr);
    return done.stderr;
  }

  async function current(name: string): Promise<Uint8Array> {
    const version = (await registry.parts.repository.publisher(name))?.metadataVersion ?? 0;
    const bytes = await registry.parts.repository.file(`${version}.${name}.json`);
    assert.ok(bytes);
    return bytes;
  }

  /** What a publisher's key can be made to sign by another program than this. */
  async function sendByHand(
    name: string,
    key: string,
    parts: Partial<Parameters<typeof nextPublisherTargets>[0]>,
  ): Promise<void> {
    const metadata = unwrap(
      nextPublisherTargets({
        namespace: name,
        current: await current(name),
        add: [],
        expiresAtMs: Date.now() + 365 * 86_400_000,
        signers: [publisherKey(name, keyFile(key), false).signer],
        ...parts,
      }),
    );
    unwrap(await registry.parts.releases.takeStep({ namespace: name, metadata, pushedBy: 'by hand' }));
  }

  test('one key: a floor, a withdrawal, a renewal, and what cannot be', async () => {
    await namespace('solo', ['solo'], 1);
    const key = ['--key', keyFile('solo')];
    for (const version of ['1.0.0', '1.1.0', '1.2.0']) await push(`solo/echo@${version}`, 'solo');
    await lepton(['models', 'floor', 'solo/echo', '--release', '1.1.0', ...key]);
    await lepton(['models', 'withdraw', 'solo/echo@1.2.0', ...key]);
    const view = await show('solo/echo');
    assert.equal(view.floor, 2);
    assert.deepEqual(
      view.versions.map((one) => [one.version, one.withdrawn, one.belowFloor]),
      [
        ['1.2.0', true, false],
        ['1.1.0', false, false],
        ['1.0.0', false, true],
      ],
    );
    assert.match((await lepton(['models', 'show', 'solo/echo'])).stdout, /1\.2\.0 +3 +withdrawn/);
    assert.match((await lepton(['models', 'list'])).stdout, /solo\/echo +1\.2\.0, withdrawn +3 +1 +2 /);
    const verified = (await lepton(['models', 'verify', 'solo/echo@1.0.0', '--json'])).json();
    assert.deepEqual(
      Object.entries(verified as object).filter(([field]) => field === 'withdrawn' || field === 'belowFloor'),
      [
        ['withdrawn', false],
        ['belowFloor', true],
      ],
    );
    // Said again, for instance after an answer that was lost: nothing more is signed.
    const again = await lepton(['models', 'withdraw', 'solo/echo@1.2.0', ...key, '--json']);
    assert.equal((again.json() as { status: string }).status, 'unchanged');
    await lepton(['models', 'floor', 'solo/echo', '--counter', '2', ...key]);
    const before_ = unwrap(readPublisherTargets(await current('solo')));
    assert.equal(before_.version, 5);

    await refused(['models', 'floor', 'solo/echo', '--counter', '1', ...key], 1, 'metadata-rollback');
    await refused(['models', 'floor', 'solo/echo', '--counter', '5', ...key], 2, 'input-invalid');
    await refused(['models', 'floor', 'solo/echo', ...key], 2, 'config-invalid');
    await refused(
      ['models', 'floor', 'solo/echo', '--release', '1.0.0', '--counter', '2'],
      2,
      'config-invalid',
    );
    await refused(['models', 'floor', 'solo/none', '--counter', '1', ...key], 1, 'not-found');
    await refused(['models', 'withdraw', 'solo/echo@9.0.0', ...key], 1, 'release-unknown');
    await refused(['models', 'withdraw', 'nobody/echo@9.0.0', ...key], 1, 'namespace-unknown');
    publisherKey('solo', keyFile('stranger'), true);
    await refused(['publishers', 'renew', 'solo', '--key', keyFile('stranger')], 1, 'publisher-key-unknown');

    await lepton(['publishers', 'renew', 'solo', ...key]);
    const renewed = unwrap(readPublisherTargets(await current('solo')));
    assert.equal(renewed.version, 6);
    assert.deepEqual([...renewed.targets], [...before_.targets]);
    assert.deepEqual([renewed.floors, renewed.withdrawn], [before_.floors, before_.withdrawn]);
    // The next release is above everything that was given out.
    assert.match(await push('solo/echo@1.3.0', 'solo'), /"counter":4/);
  });

  test('two keys: the second person sees what the step does, and signs that and nothing else', async () => {
    await namespace('duo', ['ann', 'bob'], 2);
    const [ann, bob] = [
      ['--key', keyFile('ann')],
      ['--key', keyFile('bob')],
    ];
    await push('duo/echo@1.0.0', 'ann');
    await lepton(['models', 'sign', 'duo/echo@1.0.0', ...bob]);
    assert.match(await push('duo/echo@1.1.0', 'ann'), /awaiting-signatures/);

    const withdrawal = await lepton(['models', 'withdraw', 'duo/echo@1.0.0', ...ann, '--json']);
    const { stepId, does, replaced } = withdrawal.json() as Record<string, string> & {
      does: string[];
      replaced: string[];
    };
    assert.deepEqual(does, ['withdraws duo/echo@1.0.0 (counter 1)']);
    assert.match(replaced[0] ?? '', /^adds duo\/echo@1\.1\.0 /);
    assert.match(withdrawal.stderr, /no longer waits .* adds duo\/echo@1\.1\.0/);

    await refused(['models', 'sign', 'duo/echo@1.1.0', ...bob], 1, 'release-unknown');
    await refused(['models', 'sign', 'duo/echo@1.0.0', ...bob], 1, 'release-unknown');
    const shown = await refused(['publishers', 'sign', 'duo', ...bob], 2, 'input-invalid');
    assert.match(shown, /withdraws duo\/echo@1\.0\.0 \(counter 1\)/);
    await refused(['publishers', 'sign', 'duo', '--step', '0'.repeat(32), ...bob], 1, 'conflict');
    const pending = (await lepton(['publishers', 'pending', 'duo', '--json'])).json();
    assert.deepEqual((pending as { does: string[]; stepId: string }).does, does);
    assert.equal((await show('duo/echo')).versions[0]?.withdrawn, false);
    // A key that counts for nothing is told so, instead of being taken without effect.
    publisherKey('duo', keyFile('mallory'), true);
    const mallory = ['--key', keyFile('mallory')];
    await refused(
      ['publishers', 'sign', 'duo', '--step', stepId ?? '', ...mallory],
      1,
      'publisher-key-unknown',
    );
    await lepton(['publishers', 'sign', 'duo', '--step', stepId ?? '', ...bob]);
    assert.equal((await show('duo/echo')).versions[0]?.withdrawn, true);
    await refused(['publishers', 'pending', 'duo'], 1, 'not-found');

    // Two people who ask for the same have both signed it.
    await lepton(['models', 'floor', 'duo/echo', '--counter', '2', ...ann]);
    await lepton(['models', 'floor', 'duo/echo', '--counter', '2', ...bob]);
    assert.equal((await show('duo/echo')).floor, 2);
  });

  test('a waiting release with something beside it is not signed', async () => {
    await namespace('pair', ['eve', 'kim'], 2);
    await push('pair/echo@1.0.0', 'eve');
    const kim = ['--key', keyFile('kim')];
    await lepton(['models', 'sign', 'pair/echo@1.0.0', ...kim]);
    const release = parseReleaseId('pair/echo@1.1.0');
    const manifest = Buffer.from('{}');
    assert.ok(release);
    // Put there past every check of the registry, as one that is not honest would.
    const metadata = unwrap(
      nextPublisherTargets({
        namespace: 'pair',
        current: await current('pair'),
        add: [{ release, entry: { sha256: 'ab'.repeat(32), bytes: 9, counter: 2, requires: null } }],
        floors: new Map([['echo', 2]]),
        expiresAtMs: Date.now() + 365 * 86_400_000,
        signers: [publisherKey('pair', keyFile('eve'), false).signer],
      }),
    );
    const { store } = registry.parts;
    const row = { release_id: 'pair/echo@1.1.0', metadata, manifest, pushed_by: 'eve', updated_at_ms: 0 };
    await store.tx((db) =>
      db.run(store.qb.insertInto('publisher_steps').values({ namespace: 'pair', ...row })),
    );
    const words = await refused(['models', 'sign', 'pair/echo@1.1.0', ...kim], 2, 'input-invalid');
    assert.match(words, /raises the floor of pair\/echo from 0 to 2: 1\.0\.0 may not be assigned/);
    const kept = await store.tx((db) => db.first(store.qb.selectFrom('publisher_steps').selectAll()));
    assert.deepEqual(new Uint8Array(kept?.metadata ?? []), metadata);
    await refused(['publishers', 'sign', 'pair', ...kim], 2, 'input-invalid');
  });

  test('expired metadata is renewed by the key that signed it', async () => {
    await namespace('late', ['late'], 1);
    const key = ['--key', keyFile('late')];
    await push('late/echo@1.0.0', 'late');
    const expiresAtMs = Date.now() + 2_000;
    await sendByHand('late', 'late', { expiresAtMs });
    while (Date.now() < expiresAtMs) await new Promise((resolve) => setTimeout(resolve, 50));
    await refused(['models', 'verify', 'late/echo@1.0.0'], 1, 'metadata-expired');
    const renewed = await lepton(['publishers', 'renew', 'late', ...key]);
    assert.match(renewed.stderr, /has expired/);
    await lepton(['models', 'verify', 'late/echo@1.0.0']);
    assert.equal((await registry.parts.repository.publisher('late'))?.metadataVersion, 3);
  });

  test('after a restore the next push starts above what was lost, within reason', async () => {
    await namespace('lost', ['lost'], 1);
    await push('lost/echo@1.0.0', 'lost');
    const { repository } = registry.parts;
    unwrap(await repository.raiseVersionFloor('lost', 40));
    unwrap(await repository.raiseCounterFloor({ namespace: 'lost', name: 'echo' }, 12));
    assert.match(await push('lost/echo@1.1.0', 'lost'), /"counter":13/);
    assert.equal((await repository.publisher('lost'))?.metadataVersion, 41);
    // A registry that wants to use the numbers up.
    unwrap(await repository.raiseCounterFloor({ namespace: 'lost', name: 'echo' }, 12_000));
    assert.match(await push('lost/echo@1.2.0', 'lost', 1), /"code":"conflict"/);
    unwrap(await repository.raiseVersionFloor('lost', 900_000_000));
    await refused(['publishers', 'renew', 'lost', '--key', keyFile('lost')], 1, 'metadata-version-invalid');
    assert.equal((await repository.publisher('lost'))?.metadataVersion, 41);
  });
});
