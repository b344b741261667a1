// Why: /metrics and the page `/` of the device say what is so, in both languages, and give nothing away.
// Trusts: promtool, where it is installed, for the format. Must never: depend on a browser.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import type { AgentHttp } from '../../agent/api/http.ts';
import { pageLanguage } from '../../agent/api/page-text.ts';
import type { AgentStatus } from '../../agent/status.ts';
import { createHistogram, mergeHistogram, observe, quantileBound } from '../../shared/stats/histogram.ts';
import {
  addToSketch,
  createSketch,
  mergeSketch,
  sketchFromJson,
  sketchQuantile,
  sketchSchema,
  sketchToJson,
} from '../../shared/stats/sketch.ts';
import { createMetricsText } from '../../shared/wire/prometheus.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { emptyStatus, openStage, post, type Stage, startHttp } from './staging.ts';

const script = '<script>alert(1)</script>"\'&';
const status: AgentStatus = {
  ...emptyStatus,
  device: 'a'.repeat(64),
  region: 'eu-west',
  connected: true,
  startedAtMs: Date.UTC(2026, 0, 2),
  labels: { site: script },
  attacks: { count: 1, last: null },
  models: [
    {
      name: 'tiny',
      state: 'soaking',
      active: 'test/tiny@1.0.0',
      activeSha256: null,
      candidate: null,
      lastGood: 'test/tiny@0.9.0',
      target: 'test/tiny@1.0.0',
      rolloutId: 'r-1',
      reason: { code: 'soak-errors', detail: script },
      progress: null,
      probe: null,
    },
  ],
  outbox: {
    producedRecords: 7,
    acknowledgedRecords: 5,
    droppedRecords: 1,
    pendingBatches: 2,
    bytes: 4096,
  },
  refusals: [{ id: 1, code: 'metadata-rollback', detail: script, atMs: 1, attack: true }],
};

describe('metrics and page', () => {
  const undo: (() => Promise<void>)[] = [];
  let stage: Stage;
  let http: AgentHttp;
  before(async () => {
    stage = openStage({ threads: 1 });
    undo.push(stage.close);
    http = await startHttp(stage, { status: async () => status });
    undo.push(http.close);
    await stage.serve('tiny', [{ path: 'model.onnx', role: 'model', bytes: tinyModel(2) }]);
  });
  after(async () => {
    for (const end of undo.reverse()) await end();
  });
  const url = (path: string): string => `${http.url}${path}`;
  const sample = (text: string, name: string): number =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(`${name} `))
        ?.split(' ')
        .at(-1),
    );

  test('requests and failures are counted where a scraper looks', async () => {
    const [input] = stage.host.models()[0]?.inputs ?? [];
    assert.ok(input);
    const shape = input.shape.map((size) => Math.max(1, size));
    const data = Array<number>(shape.reduce((a, b) => a * b, 1)).fill(1);
    const good = JSON.stringify({
      inputs: [{ name: input.name, datatype: input.datatype, shape, data }],
    });
    for (let index = 0; index < 3; index++)
      assert.equal((await post(url('/v2/models/tiny/infer'), good)).response.status, 200);
    const response = await fetch(url('/metrics'));
    assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
    const text = await response.text();
    const labels = `model="tiny",release="${stage.host.models()[0]?.releaseId}"`;
    assert.equal(sample(text, `lepton_infer_requests_total{${labels},outcome="answered"}`), 3);
    assert.equal(sample(text, `lepton_infer_total_seconds_count{${labels}}`), 3);
    assert.equal(sample(text, `lepton_infer_total_seconds_bucket{${labels},le="+Inf"}`), 3);
    assert.ok(sample(text, `lepton_infer_run_seconds_sum{${labels}}`) > 0);
    assert.ok(sample(text, 'lepton_agent_resident_bytes') > 10_000_000);
    assert.equal(sample(text, 'lepton_model_state{model="tiny",state="soaking"}'), 1);
    assert.equal(sample(text, 'lepton_outbox_records_total{outcome="dropped"}'), 1);
    assert.ok(text.includes('lepton_agent_loop_delay_seconds{quantile="0.99"}'));
  });

  test('promtool finds nothing to say', async (context) => {
    const text = await (await fetch(url('/metrics'))).text();
    const ran = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
    if (ran.error !== undefined) return context.diagnostic('promtool is not installed: not checked by it');
    assert.equal(ran.stdout + ran.stderr, '');
    assert.equal(ran.status, 0);
  });

  for (const [language, words] of [
    ['en', ['Release that serves', 'being watched', 'Requests', 'attack']],
    ['zh', ['当前提供服务的版本', '观察期', '请求', '攻击']],
  ] as const) {
    test(`the page in ${language} tells what runs and why, and escapes every text`, async () => {
      const response = await fetch(url('/'), { headers: { 'accept-language': `${language};q=0.9, fr` } });
      assert.equal(response.status, 200);
      assert.equal(response.headers.get('content-language'), language);
      const page = await response.text();
      for (const word of [...words, 'test/tiny@1.0.0', 'test/tiny@0.9.0', 'soak-errors', 'eu-west'])
        assert.ok(page.includes(word), word);
      assert.ok(!page.includes('<script'), 'markup of a label, a detail or a refusal got through');
      assert.equal(page.split('&lt;script&gt;').length - 1, 3);
      assert.match(response.headers.get('content-security-policy') ?? '', /default-src 'none'/);
    });
  }

  test('a token guards both; a browser may give it as a password', async () => {
    const guarded = await startHttp(stage, { status: async () => status, token: 'sesame' });
    try {
      for (const path of ['/', '/metrics']) {
        const refused = await fetch(`${guarded.url}${path}`);
        assert.equal(refused.status, 401);
        assert.match(refused.headers.get('www-authenticate') ?? '', path === '/' ? /^Basic/ : /^Bearer/);
        for (const [given, wanted] of [
          ['Basic bob:sesame', 200],
          ['Basic bob:wrong', 401],
          ['Basic sesame', 401],
        ] as const) {
          const [scheme = '', pair = ''] = given.split(' ');
          const authorization = `${scheme} ${Buffer.from(pair).toString('base64')}`;
          assert.equal((await fetch(`${guarded.url}${path}`, { headers: { authorization } })).status, wanted);
        }
      }
    } finally {
      await guarded.close();
    }
  });
});

test('the language: asked for, then wished for, then English', () => {
  const table: [string | null, string | undefined, string][] = [
    [null, undefined, 'en'],
    [null, 'zh-CN,zh;q=0.9,en;q=0.8', 'zh'],
    [null, 'de, en;q=0.5, zh;q=0.7', 'zh'],
    [null, 'fr', 'en'],
    [null, 'zh;q=0, en;q=0.1', 'en'],
    ['zh', 'en', 'zh'],
    ['en', 'zh', 'en'],
    ['xx', 'zh', 'zh'],
  ];
  for (const [query, header, wanted] of table)
    assert.equal(pageLanguage(query, header), wanted, `${query} ${header}`);
});

test('a histogram adds up and knows its bounds', () => {
  const one = createHistogram([1, 10]);
  for (const value of [0.5, 1, 1.1, 10, 11, Number.NaN]) observe(one, value);
  assert.deepEqual(one.counts, [2, 2, 2]);
  const other = createHistogram([1, 10]);
  observe(other, 2);
  mergeHistogram(one, other);
  assert.deepEqual([one.counts, one.count], [[2, 3, 2], 7]);
  assert.equal(quantileBound(one, 0.5), 10);
  assert.equal(quantileBound(one, 0.99), Number.POSITIVE_INFINITY);
  assert.equal(quantileBound(createHistogram([1]), 0.5), null);
});

test('a merged sketch is the sketch of all values, within its error', () => {
  const values = Array.from({ length: 2_000 }, (_, index) => 0.02 * 1.006 ** index);
  const [all, even, odd] = [createSketch(), createSketch(), createSketch()];
  for (const [index, value] of values.entries()) {
    addToSketch(all, value);
    addToSketch(index % 2 === 0 ? even : odd, value);
  }
  const merged = sketchFromJson(sketchSchema.parse(JSON.parse(JSON.stringify(sketchToJson(even)))));
  mergeSketch(merged, odd);
  assert.deepEqual(sketchToJson(merged), sketchToJson(all));
  for (const fraction of [0.01, 0.5, 0.95, 0.999, 1]) {
    const truth = values[Math.ceil(values.length * fraction) - 1] ?? Number.NaN;
    const told = sketchQuantile(merged, fraction) ?? Number.NaN;
    assert.ok(told >= truth * 0.9999 && told <= truth * 1.0501, `${fraction}: ${told} for ${truth}`);
  }
  assert.equal(sketchQuantile(createSketch(), 0.5), null);
});

test('labels and helps are escaped in the metrics format', () => {
  const text = createMetricsText();
  text.gauge('x', 'a\nb\\', [[{ l: 'q"\\\n' }, Number.POSITIVE_INFINITY]]);
  assert.equal(text.text(), '# HELP x a\\nb\\\\\n# TYPE x gauge\nx{l="q\\"\\\\\\n"} +Inf\n');
});
