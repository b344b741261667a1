// Why: reports and tables of regions in Chinese: nothing of ours stays English, nothing of others' is changed.
// Trusts: the real catalogue. Must never: depend on the language of whoever runs it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { spoken } from '../../registry/cli/output.ts';
import { regionRolloutText } from '../../registry/cli/region-rollout-text.ts';
import { modelsMarkdown } from '../../registry/reports/models.ts';
import { residencyMarkdown } from '../../registry/reports/residency.ts';
import { speakerFor } from '../../shared/host/languages.ts';
import { speakAs } from '../../shared/host/speech.ts';
import { displayWidth } from '../../shared/wire/display-width.ts';
import { english } from '../../shared/wire/languages.ts';
import { type ModelsReport, modelsReportSchema } from '../../shared/wire/model-report.ts';
import { regionRolloutStatusSchema } from '../../shared/wire/region-rollouts.ts';
import { residencyReportSchema } from '../../shared/wire/residency-report.ts';

const zh = speakerFor('zh');
const dayMs = 86_400_000;
const day = 20_000;
const sha256 = 'ab'.repeat(32);

/** Latin words that are neither names nor units; what is quoted is its writer's. */
function latinWords(text: string, names: readonly string[]): string[] {
  const rest = text.replace(/^>.*$/gm, '');
  const known = new Set(['SHA', 'UTC', 'ms', 'MiB', 'PSI', 'ab'.repeat(8), ...names]);
  return [...rest.matchAll(/[A-Za-z]{2,}/g)].flatMap(([word]) => (known.has(word) ? [] : [word]));
}

const cells = {
  ...{ kind: 'release', subject: 'acme/pump@1.0.0', regions: ['north', 'south'], fromDay: day },
  ...{ untilDay: day + 2, cells: 6, devicesAtLeast: 40, answered: 2_400, failed: 60 },
  ...{ answeredUntold: 1, failedUntold: 0, errors: { 'infer-failed': 60 } },
  latencyMs: { p50: 1, p95: 2, p99: 3 },
  energy: [{ method: 'rapl', source: 'measured', joulesPer1000: 12 }],
  features: null,
  verdict: 'ok',
};

const models: ModelsReport = modelsReportSchema.parse({
  ...{ region: 'north', madeAtMs: day * dayMs, sinceMs: (day - 30) * dayMs, truncated: true },
  models: [
    {
      ...{ name: 'acme/pump', floor: 1, cells: { ...cells, kind: 'model', subject: 'acme/pump' } },
      releases: [
        {
          ...{
            release: 'acme/pump@1.0.0',
            counter: 2,
            digest: sha256,
            bytes: 12,
            status: 'release-withdrawn',
          },
          ...{ pushedBy: 'pat', pushedAtMs: day * dayMs, signedBy: [sha256], files: [], metrics: null },
          card: { text: 'Requests and errors, in English.', truncated: true },
          probes: {
            ...{ devices: 2, devicesPassed: 1, goldenCases: 8, latencyP95MsMedian: 4, firstFailure: null },
            memoryBytesPeakMax: 1_048_576,
          },
          runs: {
            ...{ active: 2, states: { committed: 2, probing: 1 } },
            regions: [{ region: 'south', devicesAtLeast: 20, lastDay: day }],
          },
          cells,
          own: {
            ...{ requests: 7, errors: {}, latencyMs: null, drift: 'no-profile' },
            features: [
              { role: 'input', tensor: 'x', index: 0, of: 'value', verdict: 'drift', psi: 0.5, count: 9 },
            ],
            energy: [
              {
                source: 'unknown',
                method: 'none',
                devices: 1,
                requests: 1,
                joules: null,
                joulesPer1000: null,
                cpuMsPer1000: 1,
              },
            ],
          },
          incidents: [
            {
              ...{ kind: 'device', atMs: day * dayMs, code: 'move-waits', count: 2 },
              detail: 'telemetry of 3 earlier regions is not acknowledged yet',
            },
          ],
        },
      ],
    },
  ],
});

test('the report of models', () => {
  const text = modelsMarkdown(models, zh);
  const names = [
    'north',
    'south',
    'acme',
    'pump',
    'pat',
    'rapl',
    'input',
    'infer',
    'failed',
    'move',
    'waits',
  ];
  assert.deepEqual(latinWords(text, names), []);
  assert.match(text, /^- 已被其发布者\*\*撤回\*\*；计数器 2（下限 1）/m);
  assert.match(text, /^- 已应答至少 2400，失败 60（infer-failed 60）$/m);
  assert.match(text, /；应运行它的设备（台）：2 已提交，1 运行基准用例$/m);
  assert.match(text, /^\| input x\\\[0\\\] \| 漂移 \| 0\.500 \| 9 \| 全部 \|$/m);
  assert.match(text, /\| 设备 \| move-waits \| 2 \| 先前 3 个区域的遥测尚未确认 \|$/m);
  assert.match(text, /^> Requests and errors, in English\.$/m);
  // The same lines in both, so that nobody is told less.
  assert.equal(text.split('\n').length, modelsMarkdown(models).split('\n').length);
});

test('the report of residency', () => {
  const report = residencyReportSchema.parse({
    ...{ schemaVersion: 1, region: 'north', madeAtMs: day * dayMs, sinceMs: 0, untilMs: dayMs },
    policy: { name: 'eu', version: 3, sha256, signedBy: [sha256], putAtMs: 0, cellDevicesMin: 5 },
    left: [{ class: 'cells', destination: 'south', rule: 'flows/a', requests: 1, records: 2, bytes: 3 }],
    refused: [],
    kept: [
      {
        ...{ class: 'app', batches: 1, records: 2, bytes: 3, oldestMs: 0, keptMs: null, rule: 'flows/a' },
        purposes: [{ purpose: 'upkeep', lawfulBasis: 'contract' }],
      },
    ],
  });
  const names = ['north', 'south', 'eu', 'cells', 'app', 'flows', 'upkeep', 'contract'];
  const text = residencyMarkdown(report, zh);
  assert.deepEqual(latinWords(text, [...names, sha256]), []);
  assert.match(
    text,
    /^\| app \| 2 \| 1 \| 3 \| 1970\S+ \| 直到被删除 \| flows\/a \| upkeep \(contract\) \|$/m,
  );
  assert.deepEqual(latinWords(residencyMarkdown({ ...report, policy: null }, zh), names), []);
});

test('a rollout across regions: words, reasons within reasons, and columns that stand below each other', () => {
  const part = {
    ...{ stage: 0, region: 'north', state: 'running', reason: null, code: null, rule: null, wish: 'run' },
    ...{ acted: true, rollout: 'r1', gates: [], lastHeardMs: 0, unreachableSinceMs: null },
    waves: [{ index: 0, state: 'passed', devices: { total: 3, committed: 2, pending: 1 } }],
  };
  const reason = 'wave 1: gate errors is 0.5, limit 0.1';
  const status = regionRolloutStatusSchema.parse({
    ...{
      id: 'rr1',
      name: 'n',
      release: 'acme/pump@1.0.0',
      state: 'paused',
      reason: `south failed: ${reason}`,
    },
    ...{ createdBy: 'pat', createdAtMs: 0, endedAtMs: null, failed: ['south'] },
    regions: [
      part,
      { ...part, region: 'south', state: 'failed', reason },
      { ...part, region: 'east', wish: 'pause', acted: false, lastHeardMs: null, unreachableSinceMs: null },
    ],
  });
  speakAs(zh);
  try {
    const [head = '', ...lines] = spoken(regionRolloutText(status)).split('\n');
    assert.equal(
      head,
      '跨区域发布任务 rr1（n）：acme/pump@1.0.0，已暂停：south 失败：批次 1：关卡 errors 为 0.5，上限 0.1',
    );
    const names = [
      'north',
      'south',
      'east',
      'errors',
      'lepton',
      'rollout',
      'resume',
      'rr',
      'without',
      'abort',
    ];
    assert.deepEqual(latinWords(lines.join('\n'), names), []);
    const [columns = '', ...rows] = lines.slice(0, 4);
    const at = displayWidth(columns.slice(0, columns.indexOf('当地任务')));
    for (const row of rows) assert.equal(displayWidth(row.slice(0, row.indexOf('r1'))), at, row);
    assert.match(rows[2] ?? '', /进行中，已被告知暂停 .* 2 已提交，1 待处理 .* 从未 /);
  } finally {
    speakAs(english);
  }
});
