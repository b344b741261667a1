// Why: bad input to the real CLI prints one line with a code and a remedy, and the right exit code.
// Trusts: a real registry. Must never: accept a stack trace where a line is promised.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { codes, type ErrorCode } from '../../shared/kernel/codes.ts';
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

  /** Runs it in text and with --json; both must name the code, once and with a remedy. */
  async function refused(args: string[], code: ErrorCode, exit: 1 | 2, words?: RegExp): Promise<void> {
    const env = { ...place.env, LEPTON_REGISTRY: registry.http, LEPTON_TOKEN: registry.token };
    const text = await run('lepton', args, { env });
    assert.equal(text.code, exit, `${args.join(' ')}\n${text.stdout}\n${text.stderr}`);
    assert.equal(text.stdout, '');
    const lines = text.stderr.trim().split('\n');
    assert.equal(lines.length, 1, text.stderr);
    assert.match(text.stderr, new RegExp(`^lepton: ${code}: .{10,}`));
    if (words) assert.match(text.stderr, words);

    const json = await run('lepton', [...args, '--json'], { env });
    assert.equal(json.code, exit);
    const { error } = JSON.parse(json.stdout) as { error: { code: string; message: string; hint: string } };
    assert.equal(error.code, code);
    assert.ok(error.message.length > 0);
    assert.ok(error.hint.length > 0, codes[code].hint);
  }

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
    await refused(['devices', 'list', '--colour'], 'config-invalid', 2);
    await refused(['frobnicate'], 'config-invalid', 2);
    await refused(['claims', 'create', '--ttl', 'soon', '--out', place.path('c.json')], 'config-invalid', 2);
    await refused(['rollout', 'start'], 'config-invalid', 2);
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
