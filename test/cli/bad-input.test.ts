// Why: bad input to the real CLI prints one line with a code and a remedy, and the right exit code.
// Trusts: a real registry. Must never: accept a stack trace where a line is promised.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { codes, type ErrorCode } from '../../shared/kernel/codes.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { pushModel } from '../support/fleet.ts';
import { runLoaded } from '../support/loaded-lepton.ts';
import {
  run,
  startTestRegistry,
  type TestRegistry,
  type Workplace,
  workplace,
} from '../support/processes.ts';

describe('bad input to lepton', () => {
  let place: Workplace;
  let registry: TestRegistry;

  before(async () => {
    place = workplace('cli');
    registry = await startTestRegistry(place);
  });
  after(async () => place.close());

  const env = (): Record<string, string> => ({
    ...place.env,
    LEPTON_REGISTRY: registry.http,
    LEPTON_TOKEN: registry.token,
  });
  // Nothing here takes long; what hangs is ended and has no exit code.
  const timeoutMs = 60_000;

  /** With --json the line for people stands on stderr as without, and the document on stdout; both name the code. */
  async function refused(args: string[], code: ErrorCode, exit: 1 | 2, words?: RegExp): Promise<void> {
    const done = await runLoaded([...args, '--json'], env());
    assert.equal(done.code, exit, `${args.join(' ')}\n${done.stdout}\n${done.stderr}`);
    const lines = done.stderr.trim().split('\n');
    assert.equal(lines.length, 1, done.stderr);
    assert.match(done.stderr, new RegExp(`^lepton: ${code}: .{10,}`));
    if (words) assert.match(done.stderr, words);
    const { error } = JSON.parse(done.stdout) as { error: { code: string; message: string; hint: string } };
    assert.equal(error.code, code);
    assert.ok(error.message.length > 0);
    assert.ok(error.hint.length > 0, codes[code].hint);
  }

  test('without --json: the same line, and nothing on stdout', async () => {
    for (const [args, exit] of [
      [['devices', 'list', '--token', 'lpt_wrong'], 1],
      [['models', 'push', 'x.onnx', '--name', 'Acme', '--version', '1.0.0'], 2],
    ] as const) {
      const text = await run('lepton', [...args], { env: env(), timeoutMs });
      const json = await run('lepton', [...args, '--json'], { env: env(), timeoutMs });
      assert.deepEqual([text.code, text.stdout, text.stderr], [exit, '', json.stderr]);
    }
  });

  test('no registry there', async () => {
    await refused(['devices', 'list', '--registry', 'http://127.0.0.1:9'], 'registry-unreachable', 1);
  });

  test('something else there', async () => {
    // The broker's port speaks TLS and MQTT, not HTTP.
    const { port } = new URL(registry.mqtt);
    await refused(['devices', 'list', '--registry', `http://127.0.0.1:${port}`], 'registry-unreachable', 1);
  });

  test('a wrong token', async () => {
    await refused(['devices', 'list', '--token', 'lpt_wrong'], 'token-invalid', 1);
  });

  test('a token whose role does not allow it', async () => {
    const made = await registry.lepton(['tokens', 'create', '--user', 'eve', '--role', 'viewer', '--json']);
    const { token } = made.json() as { token: string };
    await refused(
      ['claims', 'create', '--out', place.path('no.json'), '--token', token],
      'role-forbidden',
      1,
    );
  });

  test('a token of another namespace may not push', async () => {
    const made = await registry.lepton([
      ...['tokens', 'create', '--user', 'bob', '--role', 'publisher', '--namespace', 'other', '--json'],
    ]);
    const { token, id } = made.json() as { token: string; id: string };
    await refused(
      ['publishers', 'add', 'acme', '--key', 'ab'.repeat(32), '--token', token],
      'namespace-forbidden',
      1,
    );
    await registry.lepton(['tokens', 'revoke', id]);
    await refused(['models', 'list', '--token', token], 'token-invalid', 1);
  });

  test('files that are no ONNX model', async () => {
    const pointer = place.path('pointer.onnx');
    writeFileSync(
      pointer,
      `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 1278912\n`,
    );
    await refused(
      ['models', 'push', pointer, '--name', 'acme/x', '--version', '1.0.0'],
      'model-not-onnx',
      1,
      /LFS/,
    );
    const text = place.path('text.onnx');
    writeFileSync(text, 'hello');
    await refused(['models', 'push', text, '--name', 'acme/x', '--version', '1.0.0'], 'model-not-onnx', 1);
    await refused(
      ['models', 'push', place.path('absent.onnx'), '--name', 'acme/x', '--version', '1.0.0'],
      'input-invalid',
      2,
    );
  });

  test('names that are none', async () => {
    await refused(['models', 'push', 'x.onnx', '--name', 'Acme', '--version', '1.0.0'], 'config-invalid', 2);
    await refused(['models', 'push', 'x.onnx', '--name', 'acme/x', '--version', 'one'], 'config-invalid', 2);
    await refused(['models', 'show', 'acme/nothing'], 'not-found', 1);
  });

  test('unknown devices and rollouts', async () => {
    await refused(['devices', 'show', '0'.repeat(32)], 'device-unknown', 1);
    await refused(['devices', 'revoke', '0'.repeat(32)], 'device-unknown', 1);
    await refused(['rollout', 'status', 'nope'], 'rollout-unknown', 1);
  });

  test('malformed rollout files, with line and column', async () => {
    const file = place.path('rollout.yaml');
    writeFileSync(file, 'apiVersion: lepton/v1\nkind: Rollout\nmetadata: {name: x}\nspec:\n  release: [\n');
    await refused(['rollout', 'start', '-f', file], 'rollout-file-invalid', 2, /line \d+, column \d+/);
    writeFileSync(
      file,
      'apiVersion: lepton/v1\nkind: Rollout\nmetadata: {name: x}\nspec:\n  release: acme/x@1.0.0\n  colour: red\n',
    );
    await refused(['rollout', 'start', '-f', file], 'rollout-file-invalid', 2, /line 6, column 3/);
    writeFileSync(
      file,
      'apiVersion: lepton/v1\nkind: Rollout\nmetadata: {name: x}\nspec:\n  release: acme/x@1.0.0\n  waves:\n    - {percent: 300}\n',
    );
    await refused(
      ['rollout', 'start', '-f', file],
      'rollout-file-invalid',
      2,
      /line 7, column 8: spec\.waves\.0\.percent/,
    );
  });

  test('a rollout of a release that is not there', async () => {
    const file = place.path('unknown.yaml');
    writeFileSync(
      file,
      'apiVersion: lepton/v1\nkind: Rollout\nmetadata: {name: x}\nspec: {release: acme/x@1.0.0, waves: [{percent: 100}]}\n',
    );
    await refused(['rollout', 'start', '-f', file], 'release-unknown', 1);
  });

  test('bad flags', async () => {
    const serve = ['serve', '--data', place.path('none'), '--region', 'eu', '--model-memory-max'];
    await refused([...serve, 'much'], 'config-invalid', 2);
    await refused([...serve, '0'], 'config-invalid', 2);
    await refused(['devices', 'list', '--colour'], 'config-invalid', 2);
    await refused(['frobnicate'], 'config-invalid', 2);
    await refused(['claims', 'create', '--ttl', 'soon', '--out', place.path('c.json')], 'config-invalid', 2);
    await refused(['rollout', 'start'], 'config-invalid', 2);
  });

  // Under /proc nothing can be made: Node's own recursive mkdir never came back from there.
  const nowhere = existsSync('/proc') ? '/proc/nowhere' : null;
  const hint = /where this user may make one/;

  test('folders that cannot be made', async () => {
    const model = place.path('model.onnx');
    writeFileSync(model, tinyModel(2));
    await pushModel(registry, model, 'acme/tiny@1.0.0');
    const root = place.path('root.json');
    const served = await fetch(`${registry.http}/api/v1/metadata/1.root.json`, {
      headers: { authorization: `Bearer ${registry.token}` },
    });
    writeFileSync(root, await served.text());
    const pull = ['models', 'pull', 'acme/tiny@1.0.0', '--out'];
    for (const folder of [...(nowhere === null ? [] : [nowhere]), join(model, 'x')]) {
      await refused(['broker', 'files', '--out', folder], 'disk-io', 1, hint);
      await refused([...pull, folder], 'disk-io', 1, hint);
      const listen = ['--http', '127.0.0.1:0', '--mqtt', '127.0.0.1:0'];
      for (const [program, args] of [
        ['lepton', ['serve', '--data', folder, '--region', 'eu-west', ...listen]],
        ['agent', ['run', '--state', folder, '--http', '127.0.0.1:0']],
        ['agent', ['tuf', 'init', root, '--metadata-dir', folder]],
      ] as const) {
        const done = await run(program, [...args], { env: place.env, timeoutMs: 60_000 });
        assert.equal(done.code, 1, `${args.join(' ')}\n${done.stderr}`);
        assert.match(done.stderr, /^lepton: disk-io: /m);
        assert.match(done.stderr, hint);
      }
    }
  });

  test('files that cannot be written', async () => {
    const file = nowhere ?? place.path('absent', 'x');
    for (const [args, code, exit] of [
      [['keys', 'plan'], 'input-invalid', 2],
      [['claims', 'create'], 'input-invalid', 2],
      [['telemetry', 'export'], 'disk-io', 1],
    ] as const) {
      await refused([...args, '--out', file], code, exit);
    }
  });

  test('help is no error', async () => {
    for (const args of [['--help'], ['models', 'push', '--help'], ['--version']]) {
      const done = await run('lepton', args);
      assert.equal(done.code, 0);
      assert.ok(done.stdout.length > 0);
      assert.equal(done.stderr, '');
    }
  });

  test('a second registry on the same folder is refused', async () => {
    const second = await run('lepton', [
      ...['serve', '--data', place.path('registry'), '--region', 'eu-west'],
      ...['--http', '127.0.0.1:0', '--mqtt', '127.0.0.1:0'],
    ]);
    assert.equal(second.code, 1);
    assert.match(second.stderr, /^lepton: state-locked: /m);
  });
});
