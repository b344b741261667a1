// Why: tests that run `lepton` in a process which has loaded it once see what the program itself does.
// Trusts: the program. Must never: compare what both would say in any case.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runLoaded } from '../support/loaded-lepton.ts';
import { run, workplace } from '../support/processes.ts';

test('lepton that is loaded once says, writes and ends as a new one', async (t) => {
  const place = workplace('loaded');
  t.after(() => place.close());
  const key = place.path('alice.key');
  const pass = { ...place.env, LEPTON_PASSPHRASE: 'twelve letters and more' };
  const made = await runLoaded(['keys', 'create', key, '--holder', 'Alice'], pass);
  assert.deepEqual([made.code, made.stderr], [0, '']);
  const shown: [string[], Record<string, string>, number][] = [
    [['keys', 'show', key, '--json'], pass, 0],
    [['keys', 'create', key, '--holder', 'Alice'], pass, 1],
    // What the run before was given is gone.
    [
      ['keys', 'create', place.path('bob.key'), '--holder', 'Bob'],
      { ...place.env, LEPTON_PASSPHRASE: '' },
      2,
    ],
    [['keys', 'create', key, '--holder', 'Alice', '--lang', 'zh', '--json'], pass, 1],
    [['devices', 'list', '--nonsense'], place.env, 2],
    [['devices', '--help'], { ...place.env, LEPTON_LANG: 'zh' }, 0],
    [['devices', 'list', '--registry', 'http://127.0.0.1:9', '--token', 't'], place.env, 1],
    [['--version'], {}, 0],
  ];
  for (const [args, env, exit] of shown) {
    const own = await run('lepton', args, { env });
    assert.equal(own.code, exit, own.stderr);
    assert.deepEqual(await runLoaded(args, env), own, args.join(' '));
  }
});
