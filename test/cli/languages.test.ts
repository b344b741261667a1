// Why: the real programs and the real API speak Chinese where they are asked to, and what programs read stays the same.
// Trusts: a real registry. Must never: depend on the language of whoever runs it.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { displayWidth } from '../../shared/wire/display-width.ts';
import { problemSchema } from '../../shared/wire/http.ts';
import {
  run,
  startTestRegistry,
  type TestRegistry,
  type Workplace,
  workplace,
} from '../support/processes.ts';

const han = /\p{Script=Han}/u;

describe('languages of the programs', () => {
  let place: Workplace;
  let registry: TestRegistry;
  let env: Record<string, string>;
  before(async () => {
    place = workplace('languages');
    registry = await startTestRegistry(place);
    // An empty variable is none.
    env = {
      ...place.env,
      ...{ LEPTON_LANG: '', LC_ALL: '', LC_MESSAGES: '', LANG: 'zh_CN.UTF-8' },
      ...{ LEPTON_REGISTRY: registry.http, LEPTON_TOKEN: registry.token },
    };
  });
  after(async () => place.close());

  test('help, with what commander says itself', async () => {
    for (const program of ['lepton', 'agent', 'sim'] as const) {
      const { code, stdout } = await run(program, ['--help'], { env });
      assert.equal(code, 0);
      assert.match(stdout, /^用法： lepton(-agent|-sim)? \[选项\] \[命令\]\n/);
      assert.match(stdout, /\n选项：\n/);
      assert.match(stdout, /-h, --help +显示命令的帮助\n/);
      assert.doesNotMatch(stdout, /\b(Usage|Options|Commands|display help)\b/);
    }
  });

  test('one line for an error, its code as ever; --lang wherever it stands goes before the environment', async () => {
    const zh = await run('lepton', ['rollout', 'status', 'nope'], { env });
    assert.equal(zh.code, 1);
    assert.equal(
      zh.stderr,
      'lepton: rollout-unknown: 没有发布任务 nope; lepton rollout list 会列出发布任务\n',
    );
    const en = await run('lepton', ['rollout', 'status', 'nope', '--lang=en'], { env });
    assert.equal(
      en.stderr,
      'lepton: rollout-unknown: there is no rollout nope; lepton rollout list shows the rollouts\n',
    );
    const wrong = await run('lepton', ['rollout', 'lisst'], { env });
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /^lepton: config-invalid: 未知命令“lisst”（是否想输入 list？）; /);
    const unknown = await run('lepton', ['--lang', 'xx', 'rollout', 'list'], { env: { ...env, LANG: 'C' } });
    assert.equal(unknown.code, 2);
    assert.equal(
      unknown.stderr,
      'lepton: config-invalid: --lang takes en or zh, not "xx"; correct the setting; --help lists them\n',
    );
    const daemon = await run('agent', ['run', '--state', place.folder, '--http', 'nowhere'], { env });
    assert.equal(daemon.code, 2);
    assert.match(daemon.stderr, /^lepton: config-invalid: --http "nowhere" 不是 HOST:PORT; /);
  });

  test('a table is aligned by what a terminal shows', async () => {
    const { stdout } = await run('lepton', ['authorities', 'list'], { env });
    const [head = '', row = ''] = stdout.split('\n');
    assert.match(head, /^颁发机构 +状态 +创建时间/);
    assert.match(row, /^ca-1 +签发中 +20/);
    assert.equal(
      displayWidth(head.slice(0, head.indexOf('创建'))),
      displayWidth(row.slice(0, row.indexOf('20'))),
    );
    assert.doesNotMatch(stdout, /\u2060/);
  });

  test('what is told beside a result, and words of ours in columns', async () => {
    const made = await run('lepton', ['backup', 'create'], { env });
    assert.equal(made.code, 0, made.stderr);
    assert.match(made.stderr, /^此备份以明文保存注册中心的在线密钥/);
    assert.match(made.stdout, /^备份 \S+：\S+ KiB，位于 \S+\n在线密钥为明文，遥测密钥保留到 \S+\n$/);
    const { stdout } = await run('lepton', ['backup', 'list'], { env });
    const [head = '', row = ''] = stdout.split('\n');
    assert.match(head, /^创建时间 +备份 +状态 +大小 +在线密钥 +遥测密钥保留到$/);
    assert.match(row, / 已完成 +\S+ KiB +明文 +20/);
    const path = /位于 (\S+)/.exec(made.stdout)?.[1] ?? '';
    const verified = await run('lepton', ['backup', 'verify', path], { env });
    assert.match(verified.stdout, /^区域 \S+ 的备份 .*，均与写入时一致\n.*；遥测密钥：可用\n$/);
  });

  test('--json keeps its keys, codes and words; only what is for people differs', async () => {
    const list = await run('lepton', ['authorities', 'list', '--json'], { env });
    assert.doesNotMatch(list.stdout, han);
    assert.match(list.stdout, /"state":"issuing"/);
    const failed = await run('lepton', ['rollout', 'status', 'nope', '--json'], { env });
    assert.deepEqual(JSON.parse(failed.stdout), {
      error: {
        code: 'rollout-unknown',
        ...{ message: '没有发布任务 nope', hint: 'lepton rollout list 会列出发布任务' },
      },
    });
  });

  test('the API answers problems in the language that is wished most', async () => {
    const asked = async (wished: string | null) => {
      const response = await fetch(`${registry.http}/api/v1/rollouts/nope`, {
        headers: {
          authorization: `Bearer ${registry.token}`,
          ...(wished === null ? {} : { 'accept-language': wished }),
        },
      });
      assert.equal(response.headers.get('content-type'), 'application/problem+json');
      assert.match(response.headers.get('vary') ?? '', /accept-language/i);
      return {
        language: response.headers.get('content-language'),
        problem: problemSchema.parse(await response.json()),
      };
    };
    const en = await asked('de, en;q=0.7, zh;q=0.2');
    assert.equal(en.language, 'en');
    assert.equal(en.problem.detail, 'there is no rollout nope');
    assert.equal(en.problem.title, 'rollout-unknown');
    for (const wished of ['zh-CN,zh;q=0.9,en;q=0.8', 'fr;q=1, zh-Hans;q=0.1', 'en;q=0, *']) {
      const zh = await asked(wished);
      assert.equal(zh.language, 'zh');
      assert.deepEqual(zh.problem, {
        ...en.problem,
        ...{ title: '发布任务未知', detail: '没有发布任务 nope', hint: 'lepton rollout list 会列出发布任务' },
      });
    }
    for (const wished of [null, '', 'xx', 'zh;q=0', ';;;,,=', 'x,'.repeat(3_000)])
      assert.equal((await asked(wished)).language, 'en', wished ?? '');
  });
});
