// Why: which language is chosen, how wide its text is, and how sentences inside sentences are said.
// Trusts: small catalogues of its own. Must never: depend on the language of whoever runs it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { asTyped, type Cell, spoken, table } from '../../registry/cli/output.ts';
import { rightsReadme } from '../../registry/cli/rights-readme.ts';
import { speakerFor, speakerOf } from '../../shared/host/languages.ts';
import { speakAs } from '../../shared/host/speech.ts';
import { displayWidth, padCells, wrapCells } from '../../shared/wire/display-width.ts';
import {
  chooseLanguage,
  english,
  languageOf,
  languageOfEnvironment,
  negotiate,
} from '../../shared/wire/languages.ts';
import { escaped, Phrases } from '../../shared/wire/phrases.ts';
import { type RightsIndex, rightsSections } from '../../shared/wire/rights.ts';

test('a language is known by its tag or locale', () => {
  for (const tag of ['zh', 'zh-CN', 'zh_CN.UTF-8', 'ZH-Hant-TW', 'zh_TW@x'])
    assert.equal(languageOf(tag), 'zh', tag);
  for (const tag of ['en', 'en_GB.UTF-8']) assert.equal(languageOf(tag), 'en', tag);
  for (const tag of ['C', 'POSIX', 'de', '', '*', 'zhx']) assert.equal(languageOf(tag), null, tag);
});

test('of the environment LEPTON_LANG goes first, then LC_ALL, LC_MESSAGES and LANG; what is unknown is English', () => {
  const zh = 'zh_CN.UTF-8';
  assert.equal(languageOfEnvironment({}), 'en');
  assert.equal(languageOfEnvironment({ LANG: zh }), 'zh');
  assert.equal(languageOfEnvironment({ LANG: zh, LC_ALL: 'C' }), 'en');
  assert.equal(languageOfEnvironment({ LANG: 'C', LC_MESSAGES: zh }), 'zh');
  assert.equal(languageOfEnvironment({ LANG: zh, LC_ALL: '' }), 'zh');
  assert.equal(languageOfEnvironment({ LEPTON_LANG: 'en', LC_ALL: zh }), 'en');
  assert.equal(languageOfEnvironment({ LEPTON_LANG: 'fr' }), 'en');
});

test('--lang stands anywhere before --, and must be a language that is spoken', () => {
  const of = (words: string[]) => chooseLanguage(words, { LANG: 'zh_CN' });
  assert.deepEqual(of(['devices', 'list']), {
    ok: true,
    value: { language: 'zh', words: ['devices', 'list'] },
  });
  for (const words of [
    ['--lang', 'en', 'devices', 'list'],
    ['devices', 'list', '--lang=en-US'],
  ])
    assert.deepEqual(of(words), { ok: true, value: { language: 'en', words: ['devices', 'list'] } });
  assert.deepEqual(of(['x', '--', '--lang', 'en']), {
    ok: true,
    value: { language: 'zh', words: ['x', '--', '--lang', 'en'] },
  });
  for (const words of [['--lang'], ['--lang='], ['--lang', 'fr'], ['--lang', 'zh; rm']]) {
    const chosen = of(words);
    assert.equal(chosen.ok ? 'ok' : chosen.refusal.code, 'config-invalid', words.join(' '));
  }
});

test('Accept-Language: the highest weight that is spoken, English else', () => {
  const cases: [string, string][] = [
    ['', 'en'],
    ['zh', 'zh'],
    ['zh-CN:1,en:0.8', 'zh'],
    ['en:1,zh:0.9', 'en'],
    ['fr:1,zh:0.3', 'zh'],
    ['fr:1', 'en'],
    ['zh:0', 'en'],
    ['*:1', 'en'],
    ['en:0,*:0.5', 'zh'],
    ['zh:0.5,en:0.5', 'zh'],
  ];
  for (const [wished, expected] of cases) {
    const wishes = wished === '' ? [] : wished.split(',').map((one) => one.split(':'));
    const found = negotiate(wishes.map(([tag = '', weight = '1']) => ({ tag, weight: Number(weight) })));
    assert.equal(found, expected, wished);
  }
});

test('Chinese takes two cells, combining marks none', () => {
  assert.equal(displayWidth('abc'), 3);
  assert.equal(displayWidth('设备'), 4);
  assert.equal(displayWidth('（无）'), 6);
  assert.equal(displayWidth('e\u0301 한 ア 𠀀'), 1 + 1 + 2 + 1 + 2 + 1 + 2);
  assert.equal(displayWidth('… – “x”'), 7);
  assert.equal(padCells('设备', 6), '设备  ');
  assert.equal(padCells('设备', 3), '设备');
});

test('lines are broken between Chinese characters and at spaces, no sign begins or ends one that may not', () => {
  assert.deepEqual(wrapCells('one two three', 7), ['one two', 'three']);
  assert.deepEqual(wrapCells('密钥文件，和口令', 8), ['密钥文', '件，和口', '令']);
  assert.deepEqual(wrapCells('密钥（文件）', 6), ['密钥', '（文', '件）']);
  assert.deepEqual(wrapCells('', 8), ['']);
  fc.assert(
    fc.property(
      fc.stringMatching(/^[a-c 密钥，（）]{0,40}$/),
      fc.integer({ min: 8, max: 20 }),
      (text, cells) => {
        assert.equal(wrapCells(text, cells).join('').replace(/ /g, ''), text.replace(/ /g, ''));
      },
    ),
  );
});

const small = new Map([
  ['there is no model {$a}', '没有模型 {$a}'],
  ['rollout {$a} is {$b}: {$c}', '发布任务 {$a}，{$b :word}：{$c}'],
  ['{$a} of {$b} cases passed', '{$b} 个用例中通过 {$a} 个'],
  ['{$a} of {$b}', '{$b} 中的 {$a}'],
  ['wave {$a} {$b} ({$c})', '批次 {$a} {$b :word}（{$c}）'],
  ['{$a}: {$b} rows in {$c} parts ({$d})', '{$a}：{$c} 部分中 {$b} 行（{$d}）'],
  ['{$a} rows in {$b}', '{$b} 中的 {$a} 行'],
  ['a brace \\{ stays', '花括号 \\{ 保留'],
  ['{$a} of {$b} {$c}{$d} needed', '{$c :word}{$d :word} 需要 {$b} 个，实际 {$a} 个'],
  ['rows of before', '之前的行'],
  ['rows', '行'],
  ['failed', '失败'],
  ['running', '进行中'],
]);

test('values stay what they are, sentences inside sentences are said, words only where the translation says so', () => {
  const { say, lines } = speakerOf('zh', small);
  assert.equal(say('there is no model running'), '没有模型 running');
  assert.equal(say('there is no model 中文'), '没有模型中文');
  assert.equal(say('rollout r-1 is failed: there is no model a/b'), '发布任务 r-1，失败：没有模型 a/b');
  assert.equal(say('a brace { stays'), '花括号 { 保留');
  assert.equal(say('x.y: 3 of 4 cases passed; there is no model z'), 'x.y：4 个用例中通过 3 个；没有模型 z');
  assert.equal(say('wave 1 running (2 failed, 1 running)'), '批次 1 进行中（2 失败，1 进行中）');
  // Each by itself, also where the last value of the first could take in the second.
  assert.equal(
    say('x: 1 rows in 2 parts (a/b); y: 3 rows in 4 parts (c/d)'),
    'x：2 部分中 1 行（a/b）；y：4 部分中 3 行（c/d）',
  );
  assert.equal(say('1 rows in all'), 'all 中的 1 行');
  assert.equal(say('x, y of z'), 'z 中的 x, y');
  // Nobody's words are changed by halves: it is one message or it stays.
  assert.equal(say('list of keys is out of date'), 'list of keys is out of date');
  assert.equal(say('nobody knows this: 3 of 4'), 'nobody knows this：4 中的 3');
  assert.equal(say(''), '');
  assert.equal(say('3 of 4 rows of before needed'), '之前的行需要 4 个，实际 3 个');
  assert.equal(say('3 of 4 rows needed'), '行需要 4 个，实际 3 个');
  assert.equal(lines('  there is no model x\n\n-\n'), '  没有模型 x\n\n-\n');
});

test('what a person typed stays, whatever it reads like; where it is found goes before messages that say more', () => {
  const { say } = speakerOf(
    'zh',
    new Map([
      ...small,
      ['paused by {$a}: {$b}', '由 {$a} 暂停：{$b :typed}'],
      ['{$a} may not go by {$b}: “{$c}”', '按 {$b}，{$a} 不可去：“{$c :typed}”'],
    ]),
  );
  assert.equal(say('paused by bob: running'), '由 bob 暂停：running');
  assert.equal(say('paused by bob: there is no model x'), '由 bob 暂停：there is no model x');
  assert.equal(say('paused by bob: 1 of 2; 3 of 4'), '由 bob 暂停：1 of 2; 3 of 4');
  assert.equal(
    say('paused by bob: the region takes no more than 3 of 4 cases passed'),
    '由 bob 暂停：the region takes no more than 3 of 4 cases passed',
  );
  assert.equal(
    say('rollout r-1 is running: paused by bob: 3 of 4'),
    '发布任务 r-1，进行中：由 bob 暂停：3 of 4',
  );
  // One region repeats what was said in another.
  assert.equal(say('paused by north: paused by bob: 3 of 4'), '由 north 暂停：由 bob 暂停：3 of 4');
  assert.equal(
    say('log may not go by r: “3 of 4 rows”; app may not go by s: “1 of 2”'),
    '按 r，log 不可去：“3 of 4 rows”；按 s，app 不可去：“1 of 2”',
  );
});

test('cells of a table: words and messages of ours are said, what a person typed is not', () => {
  const row = (reason: Cell): Cell[] => ['test', 'low-confidence, random', reason];
  const typed = ['upgrade', 'test', 'failed', '(none)', 'no model is loaded', 'two\nlines'];
  speakAs(speakerFor('zh'));
  try {
    const shown = (reason: Cell): string => spoken(table(['NAME', 'REASONS', 'REASON'], [row(reason)]));
    for (const words of typed) {
      const line = shown(asTyped(words)).split('\n')[1] ?? '';
      assert.equal(line, `test  置信度低、随机  ${words.replace('\n', ' ')}`);
    }
    assert.match(shown('failed'), / 失败$/);
    assert.match(shown('no model is loaded'), / 没有加载模型$/);
  } finally {
    speakAs(english);
  }
  assert.match(
    table(['NAME', 'REASONS', 'REASON'], [row(asTyped('test'))]),
    /\ntest +low-confidence, random +test$/,
  );
});

test('the README of an export is in the language of its reader, sentence by sentence', () => {
  const index: RightsIndex = {
    ...{ schemaVersion: 1, region: 'north', exportedAtMs: 0 },
    devices: ['d1', 'd2'].map((device) => ({
      device,
      files: Object.keys(rightsSections).map((section) => ({
        ...{ section, path: `${device}/${section}.ndjson`, entries: 1, bytes: 2, sha256: '00' },
      })),
    })),
  };
  const read = rightsReadme(index, english);
  assert.match(
    read,
    /^# What is held about your device\n\nRegion north wrote this on 1970-01-01T00:00:00Z\. /,
  );
  const lines = rightsReadme(index, speakerFor('zh')).split('\n');
  assert.equal(lines.length, read.split('\n').length);
  for (const line of lines.filter((one) => /[A-Za-z]/.test(one))) assert.match(line, /\p{Script=Han}/u, line);
  // No English sentence is left: names of files and fields alone.
  assert.doesNotMatch(lines.join('\n').replaceAll(/`[^`]*`/g, ''), /[A-Za-z]{2,} [A-Za-z]{2,}/);
});

test('a text of any kind is said within bounds', () => {
  const { say } = speakerFor('zh');
  for (const part of ['a: ', 'a; b: ', ' of ', 'is no ', '(', '{$a} ']) {
    const text = `there is nothing at GET /${part.repeat(1_000)}`;
    const beganMs = performance.now();
    assert.equal(typeof say(text), 'string');
    assert.ok(performance.now() - beganMs < 1_000, part);
  }
});

test('property: what a key was filled with comes back', () => {
  const phrases = new Phrases(['cannot read {$a}: {$b}', 'the {$a} of {$b} is not {$c}']);
  const value = fc.stringMatching(/^[a-z/.-]{1,12}$/);
  fc.assert(
    fc.property(value, value, value, (a, b, c) => {
      assert.deepEqual(phrases.recognise(`cannot read ${a}: ${b}`)?.values, { a, b });
      assert.deepEqual(phrases.recognise(`the ${a} of ${b} is not ${c}`)?.values, { a, b, c });
    }),
  );
  assert.deepEqual(new Phrases([escaped('{x}')]).recognise('{x}'), { key: '\\{x\\}', values: {} });
});
