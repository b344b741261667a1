// Why: the offline half of `lepton keys` at a shell: no registry is reached, files are never replaced, and every
// refusal is one line with a code and what to do.
// Trusts: a plan made by a registry's own code in this process. Must never: leave a network for the CLI to use.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pkcs8PemFromSeed } from '../../shared/crypto/spki.ts';
import type { ErrorCode } from '../../shared/kernel/codes.ts';
import type { KeyPlan } from '../../shared/wire/key-plan.ts';
import { bench, countedEntropy, hexOf, publisherKey } from '../registry-core/support.ts';
import { runLoaded } from '../support/loaded-lepton.ts';
import type { Finished } from '../support/processes.ts';

describe('lepton keys without a registry', () => {
  let folder = '';
  const at = (name: string): string => join(folder, name);
  // Nobody listens on port 9: a command that asked a registry would say `registry-unreachable`.
  const env = {
    LEPTON_REGISTRY: 'http://127.0.0.1:9',
    LEPTON_TOKEN: 'none',
    LEPTON_PASSPHRASE: 'twelve letters and more',
  };
  const lepton = (args: string[], more: Record<string, string> = {}): Promise<Finished> =>
    runLoaded(args, { ...env, XDG_CONFIG_HOME: at('config'), ...more });

  async function done(args: string[], more: Record<string, string> = {}): Promise<string> {
    const finished = await lepton(args, more);
    assert.equal(finished.code, 0, `${args.join(' ')}\n${finished.stdout}\n${finished.stderr}`);
    return finished.stdout;
  }

  async function refused(
    args: string[],
    code: ErrorCode,
    words: RegExp,
    more: Record<string, string> = {},
  ): Promise<void> {
    const finished = await lepton([...args, '--json'], more);
    assert.notEqual(finished.code, 0, `${args.join(' ')}\n${finished.stdout}`);
    const { error } = JSON.parse(finished.stdout.trim().split('\n').at(-1) ?? '') as {
      error: { code: string; message: string; hint: string };
    };
    assert.equal(error.code, code, error.message);
    assert.match(`${error.message}; ${error.hint}`, words);
  }

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'lepton-cli-keys-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  test('create, show, and never a key over another', async () => {
    await done(['keys', 'create', at('alice.key'), '--holder', 'Alice B.']);
    assert.equal(statSync(at('alice.key')).mode & 0o777, 0o600);
    const secret = JSON.parse(readFileSync(at('alice.key'), 'utf8')) as { publicKey: string; keyId: string };
    const shown = JSON.parse(
      await done(['keys', 'show', at('alice.key'), '--json'], { LEPTON_PASSPHRASE: '' }),
    ) as object;
    assert.deepEqual(shown, {
      file: at('alice.key'),
      holder: 'Alice B.',
      publicKey: secret.publicKey,
      keyId: secret.keyId,
    });
    assert.match(await done(['keys', 'show', at('alice.key.pub')]), new RegExp(secret.keyId));
    const before_ = readFileSync(at('alice.key'));
    await refused(['keys', 'create', at('alice.key'), '--holder', 'x'], 'conflict', /never replaced/);
    rmSync(at('alice.key'));
    await refused(['keys', 'create', at('alice.key'), '--holder', 'x'], 'conflict', /alice\.key\.pub/);
    writeFileSync(at('alice.key'), before_, { mode: 0o600 });
    await refused(['keys', 'create', at('none.key'), '--holder', 'two\nlines'], 'input-invalid', /holder/);
    await refused(['keys', 'create', at('none.key'), '--holder', 'x'], 'passphrase-missing', /empty/, {
      LEPTON_PASSPHRASE: '',
    });
    const short = await lepton(['keys', 'create', at('short.key'), '--holder', 'x'], {
      LEPTON_PASSPHRASE: 'short',
    });
    assert.match(short.stderr, /only 5 characters/);
  });

  test('a plan becomes a bundle, and the bundle is signed, by sealed keys and by PEM', async (t) => {
    const { repository, clock } = await bench(t);
    const acme = publisherKey('acme');
    await repository.delegate('acme', [hexOf(acme)], 1);
    // The CLI signs by the real clock.
    clock.advance(Date.now() - clock.wall());
    await repository.resign(clock.wall());
    const plan: KeyPlan = await repository.keys.plan({ newOnline: false });
    writeFileSync(at('plan.json'), JSON.stringify(plan));
    await done(['keys', 'create', at('bob.key'), '--holder', 'bob']);
    writeFileSync(at('targets.pem'), pkcs8PemFromSeed(countedEntropy('targets').bytes(32)));

    const ceremony = [
      ...[
        'keys',
        'ceremony',
        '--plan',
        at('plan.json'),
        '--root',
        at('alice.key.pub'),
        '--root',
        at('bob.key.pub'),
      ],
      ...['--targets', at('targets.pem'), '--out', at('bundle.json')],
    ];
    const words = await done(ceremony);
    assert.match(words, /\+ Alice B\. \([0-9a-f]{16}\)/);
    assert.match(words, /root: 2 of Alice B\. .*, bob/);
    assert.match(words, /the registry adds .*: root, region-root/);

    await refused(
      ['keys', 'sign', at('bundle.json'), '--key', at('alice.key')],
      'passphrase-wrong',
      /alice\.key/,
      {
        LEPTON_PASSPHRASE: 'twelve other letters',
      },
    );
    await refused(
      ['keys', 'sign', at('bundle.json'), '--key', at('short.key')],
      'key-not-needed',
      /keys show/,
      {
        LEPTON_PASSPHRASE: 'short',
      },
    );
    await refused(
      ['keys', 'sign', at('bundle.json'), '--key', at('bob.key.pub')],
      'key-file-malformed',
      /public/,
    );
    // The flag goes before the variable.
    writeFileSync(at('passphrase'), 'twelve letters and more\n');
    const signed = await done(
      ['keys', 'sign', at('bundle.json'), '--key', at('alice.key'), '--passphrase-file', at('passphrase')],
      { LEPTON_PASSPHRASE: 'wrong' },
    );
    assert.match(signed, /signed: root, region-root/);
    assert.match(signed, /root: 1 of bob/);
    assert.match(
      await done(['keys', 'sign', at('bundle.json'), '--key', at('alice.key')]),
      /signed it all before/,
    );
    await done(['keys', 'sign', at('bundle.json'), '--key', at('bob.key')]);
    const last = JSON.parse(
      await done(['keys', 'sign', at('bundle.json'), '--key', at('targets.pem'), '--json']),
    ) as { signed: string[]; missing: string[]; addedAtInstall: string[] };
    assert.deepEqual(last.signed, ['targets']);
    assert.deepEqual(last.missing, []);
    assert.deepEqual(last.addedAtInstall, ['root', 'region-root']);
    assert.match(await done(['keys', 'show', at('bundle.json')]), /next: lepton keys install/);
    const result = await repository.keys.install(JSON.parse(readFileSync(at('bundle.json'), 'utf8')));
    assert.equal(result.ok ? result.value.status : result.refusal.detail, 'installed');
    writeFileSync(at('plan.json'), JSON.stringify(await repository.keys.plan({ newOnline: false })));
  });

  test('changes that cannot work say why and what to do', async () => {
    const rotate = ['keys', 'rotate', '--plan', at('plan.json'), '--out', at('never.json')];
    await refused(rotate, 'input-invalid', /nothing would change/);
    await refused([...rotate, '--remove', 'bob'], 'threshold-unreachable', /root: 2 of 1/);
    await refused([...rotate, '--add', `root=${at('bob.key.pub')}`], 'key-duplicate', /twice/);
    await refused([...rotate, '--replace', `nobody=${at('short.key.pub')}`], 'key-unknown', /keys status/);
    await refused([...rotate, '--replace', 'bob'], 'config-invalid', /equals/);
    await refused([...rotate, '--threshold', 'root=many'], 'config-invalid', /whole number/);
    await refused([...rotate, '--threshold', 'root=9'], 'threshold-unreachable', /9 of 2/);
    await refused([...rotate, '--add', `director=${at('short.key.pub')}`], 'input-invalid', /--online/);
    await refused([...rotate, '--online'], 'keys-not-held', /--new-online/);
    await refused([...rotate, '--renew-publisher', 'acme'], 'input-invalid', /published nothing/);
    const { online } = JSON.parse(readFileSync(at('plan.json'), 'utf8')) as KeyPlan;
    const small = `root=${'01'.padEnd(64, '0')}`;
    await refused([...rotate, '--add', small], 'key-invalid', /small order/);
    await refused([...rotate, '--add', `root=${online.director}`], 'key-duplicate', /online role director/);
    await refused(
      ['keys', 'revoke', 'bob', '--plan', at('plan.json'), '--out', at('never.json')],
      'threshold-unreachable',
      /root/,
    );
    await refused(
      ['keys', 'rotate', '--plan', at('bundle.json'), '--renew', '--out', at('never.json')],
      'key-plan-malformed',
      /keys plan/,
    );
    await refused(
      ['keys', 'sign', at('plan.json'), '--key', at('bob.key')],
      'key-bundle-malformed',
      /rotate/,
    );
    await refused(['keys', 'show', at('absent')], 'input-invalid', /absent/);
    await refused(['keys', 'ceremony', '--plan', at('plan.json')], 'config-invalid', /--root/);
    await refused(['keys', 'ceremony', 'nonsense'], 'config-invalid', /first/);
    await refused(
      ['keys', 'ceremony', '--holder', 'a', '--threshold', '2'],
      'threshold-unreachable',
      /2 of 1/,
    );
    await refused(['keys', 'ceremony', '--holder', 'A', '--holder', 'a'], 'input-invalid', /differ/);
    await refused(
      ['publishers', 'add', 'acme', '--key', at('bob.key.pub'), '--plan', at('plan.json')],
      'config-invalid',
      /--out/,
    );
    await refused(
      [
        'publishers',
        'add',
        'targets',
        '--key',
        at('bob.key.pub'),
        '--plan',
        at('plan.json'),
        '--out',
        at('x'),
      ],
      'input-invalid',
      /namespace/,
    );
    await refused(['keys', 'status'], 'registry-unreachable', /127\.0\.0\.1:9/);
  });

  test('revoke takes a publisher’s key and an offline one, with another in its place', async () => {
    const { publishers } = JSON.parse(readFileSync(at('plan.json'), 'utf8')) as KeyPlan;
    assert.deepEqual(
      publishers.map((one) => one.namespace),
      ['acme'],
    );
    const revoke = (key: string): string[] => [
      ...['keys', 'revoke', key, '--plan', at('plan.json'), '--out', at('revoke.json')],
      ...['--replace-with', at('short.key.pub')],
    ];
    assert.match(
      await done(revoke(publisherKey('acme').keyId.slice(0, 8))),
      /publisher:acme: 1 of 1 must sign/,
    );
    assert.match(await done(revoke(at('bob.key.pub'))), /- bob .*\n.*\+ x /);
    const stage = ['publishers', 'add', 'duo', '--key', at('bob.key.pub'), '--key', at('short.key.pub')];
    const staged = await done([
      ...stage,
      '--threshold',
      '2',
      '--plan',
      at('plan.json'),
      '--out',
      at('duo.json'),
    ]);
    assert.match(staged, /publisher:duo: 2 of 2 must sign, new/);
  });

  test('every topic prints whole commands for the names that were given', async () => {
    const commands = async (...args: string[]): Promise<string[]> =>
      (await done(['keys', 'ceremony', ...args])).split('\n').filter((line) => line.startsWith('$ '));
    const first = await commands('first', '--holder', "Dana O'Neil", '--holder', 'Erin', '--threshold', '1');
    assert.ok(first.includes("$ lepton keys create dana-o-neil.key --holder 'Dana O'\\''Neil'"));
    assert.equal(first.filter((line) => line.startsWith('$ lepton keys sign')).length, 2);
    for (const topic of ['publisher', 'lost-root', 'stolen-online', 'renew']) {
      const lines = await commands(topic);
      assert.ok(lines.length >= 5, topic);
      // Nothing to fill in.
      assert.deepEqual(
        lines.filter((line) => /[<>[\]…]|FILE|DIR/.test(line)),
        [],
      );
    }
    const { steps } = JSON.parse(await done(['keys', 'ceremony', 'renew', '--json'])) as { steps: object[] };
    assert.ok(steps.length > 3);
  });

  test('every command says what it does', async () => {
    for (const name of [
      'create',
      'show',
      'plan',
      'ceremony',
      'rotate',
      'revoke',
      'sign',
      'install',
      'status',
    ]) {
      const help = await done(['keys', name, '--help']);
      assert.match(help, /Usage: lepton keys/);
      assert.match(help, /--json/);
    }
    // A sealed key works wherever a private key is given.
    for (const args of [
      ['models', 'push'],
      ['models', 'sign'],
      ['publishers', 'key'],
      ['keys', 'sign'],
    ]) {
      assert.match(await done([...args, '--help']), /--passphrase-file/);
    }
    const key = await done(['publishers', 'key', 'acme', '--key', at('bob.key')]);
    assert.equal(
      key.trim(),
      (JSON.parse(readFileSync(at('bob.key'), 'utf8')) as { publicKey: string }).publicKey,
    );
  });
});
