// Why: a scenario's sensor asks an agent what its models can answer, waits for it, and counts truthfully.
// Trusts: a stand-in for the agent that reads with our own reader. Must never: reach a network beyond 127.0.0.1.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import {
  createFeed,
  createScore,
  fedColumns,
  readPrediction,
  type Score,
  scoreText,
} from '../../firmware-sim/scenarios/feeding.ts';
import { findScenario } from '../../firmware-sim/scenarios/known.ts';
import type { Scenario } from '../../firmware-sim/scenarios/scenario.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import {
  encodeInferRequest,
  encodeInferResponse,
  type InferRequest,
  type InferResponse,
  parseInferRequest,
} from '../../shared/wire/oip-json.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';
import { run, until } from '../support/processes.ts';
import { programs } from '../support/programs.ts';

const scenarioNamed = (name: string): Scenario => unwrap(findScenario(name));
const answerOf = (...outputs: Tensor[]): InferResponse => ({
  modelName: 'm',
  modelVersion: '1.0.0',
  outputs,
});
const float = (name: string, ...data: number[]): Tensor => ({
  name,
  datatype: 'FP32',
  shape: [1, data.length],
  data: Float32Array.from(data),
});
const text = (name: string, one: string): Tensor => ({ name, datatype: 'BYTES', shape: [1], data: [one] });
const whole = (name: string, one: bigint): Tensor => ({
  name,
  datatype: 'INT64',
  shape: [1],
  data: BigInt64Array.of(one),
});

test('a row: numbers in the order of the columns, what is missing NaN, texts beside them, the truth kept back', () => {
  const finance = scenarioNamed('finance');
  const { numbers, texts } = fedColumns(finance);
  assert.deepEqual(texts, ['employment', 'housing', 'purpose']);
  assert.equal(numbers.length, finance.columns.length - texts.length - 1);
  const [source, feed] = [finance.source(3), createFeed(finance, 3)];
  let [missing, unsaid] = [0, 0];
  for (let row = 1; row <= 300; row += 1) {
    const cells = source.next();
    const fed = feed.next();
    const [values, words] = unwrap(parseInferRequest(encodeInferRequest(fed.request))).inputs;
    assert.deepEqual([fed.row, fed.truth, fed.naive], [row, cells.at(-1), 'no']);
    assert.deepEqual([values?.name, values?.shape, values?.datatype], ['values', [1, 8], 'FP32']);
    assert.deepEqual([words?.name, words?.shape, words?.datatype], ['texts', [1, 3], 'BYTES']);
    const given = (column: string) => cells[finance.columns.indexOf(column)] ?? null;
    const expected = numbers.map((column) => Math.fround(Number(given(column) ?? Number.NaN)));
    assert.deepEqual(Array.from(values?.data as Float32Array), expected);
    assert.deepEqual(
      words?.data,
      texts.map((column) => given(column) ?? ''),
    );
    missing += expected.filter(Number.isNaN).length;
    unsaid += texts.filter((column) => given(column) === null).length;
  }
  assert.ok(missing > 5 && unsaid > 0, `${missing} ${unsaid}`);
});

test('a window: its rows oldest first, and of a forecast the truth of the row it is about', () => {
  const traffic = scenarioNamed('traffic');
  const source = traffic.source(4);
  const rows = Array.from({ length: 60 }, () => source.next());
  const feed = createFeed(traffic, 4);
  for (let first = 0; first < 30; first += 1) {
    const { request, row, truth, naive } = feed.next();
    // Twelve rows are seen; the truth stands six rows behind the last of them.
    assert.equal(row, first + 12);
    assert.equal(truth, rows[first + 11 + 6]?.[2]);
    assert.equal(naive, rows[first + 11]?.[2]);
    const [values] = request.inputs;
    assert.equal(request.inputs.length, 1);
    assert.deepEqual(values?.shape, [1, 12, 6]);
    const expected = rows
      .slice(first, first + 12)
      .flatMap((cells) => cells.slice(1).map((cell) => Math.fround(Number(cell ?? Number.NaN))));
    assert.deepEqual(Array.from(values?.data as Float32Array), expected);
  }
  const medicine = createFeed(scenarioNamed('medicine'), 1).next();
  assert.deepEqual([medicine.row, medicine.request.inputs[0]?.shape], [15, [1, 15, 5]]);
});

test('answers by their types: a class, a quantity, a score; anything else is refused', () => {
  const read = (name: string, ...outputs: Tensor[]) =>
    readPrediction(scenarioNamed(name), answerOf(...outputs));
  const finance = read('finance', text('label', 'yes'), float('probabilities', 0.3, 0.7));
  assert.deepEqual(unwrap(finance), { value: 'yes', score: null });
  assert.deepEqual(unwrap(read('medicine', float('p', 0.3, 0.7), whole('label', 1n))), {
    value: 1,
    score: null,
  });
  assert.deepEqual(unwrap(read('energy', float('value', 112.5))), { value: 112.5, score: null });
  assert.deepEqual(unwrap(read('industry', float('score', 1.5), whole('anomaly', 1n))), {
    value: 1,
    score: 1.5,
  });
  assert.deepEqual(unwrap(read('industry', float('score', 1))), { value: 0, score: 1 });
  for (const refused of [
    read('finance', float('probabilities', 0.3, 0.7)),
    read('energy', float('value', 1, 2)),
    read('energy', float('value', Number.NaN)),
    read('energy', float('a', 1), float('b', 2)),
    read('energy'),
  ])
    assert.ok(!refused.ok && refused.refusal.code === 'infer-invalid');
});

test('the score, counted by hand', () => {
  const finance = scenarioNamed('finance');
  const classes = createScore(finance);
  const fed = (truth: number | string, naive: number | string | null) => ({
    ...createFeed(finance, 1).next(),
    truth,
    naive,
  });
  for (const [truth, value] of [
    ['yes', 'yes'],
    ['yes', 'no'],
    ['no', 'yes'],
    ['no', 'no'],
    ['no', 'no'],
  ] as const)
    classes.add(fed(truth, 'no'), { value, score: null });
  const told = classes.score();
  assert.ok(told.kind === 'classes');
  assert.deepEqual([told.answers, told.right, told.accuracy, told.naiveAccuracy], [5, 3, 0.6, 0.6]);
  assert.deepEqual([told.positives, told.found, told.falseAlarms], [2, 1, 1]);
  assert.equal(
    scoreText(finance, told),
    '5 answers, 3 right (0.600; naive 0.600); defaulted yes: found 1 of 2, false alarms 1',
  );
  const energy = scenarioNamed('energy');
  const quantities = createScore(energy);
  quantities.add(fed(10, 14), { value: 11, score: null });
  quantities.add(fed(10, null), { value: 7, score: null });
  assert.equal(scoreText(energy, quantities.score()), '2 answers, mean absolute error 2.000 (naive 4.000)');
  assert.equal(scoreText(energy, createScore(energy).score()), 'no answers');
});

interface StandIn {
  url: string;
  requests: InferRequest[];
  close(): Promise<void>;
}

/** An agent as its HTTP looks from outside; `reply` gives a refusal's status, or the outputs of an answer. */
async function standIn(reply: (asked: number) => number | Tensor[]): Promise<StandIn> {
  const requests: InferRequest[] = [];
  let asked = 0;
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const given = reply(asked);
      asked += 1;
      const status = request.url === '/v2/models/m/infer' && request.method === 'POST' ? given : 405;
      if (typeof status === 'number') {
        response.writeHead(status).end('{"error":"not now"}');
        return;
      }
      // Throws, and so fails the test, where the agent would refuse the body.
      requests.push(unwrap(parseInferRequest(new Uint8Array(Buffer.concat(chunks)))));
      response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(encodeInferResponse(answerOf(...status)));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

const linesOf = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown> & { summary?: Score });

test('the command: waits while the agent is not ready, asks about every row, and ends after --count', async () => {
  const refusals = [503, 404, 503];
  const agent = await standIn(
    (asked) => refusals[asked] ?? [text('label', 'no'), float('probabilities', 0.9, 0.1)],
  );
  try {
    const flags = [
      '--agent',
      `${agent.url}/`,
      '--model',
      'acme/m',
      '--every',
      '0s',
      '--count',
      '40',
      '--json',
    ];
    const { code, stdout, stderr } = await run('sim', ['sensor', 'finance', '--seed', '3', ...flags]);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^waiting for http:\S+\/v2\/models\/m\/infer: 503: /);
    assert.equal(stderr.trim().split('\n').length, refusals.length);
    const feed = createFeed(scenarioNamed('finance'), 3);
    const fed = Array.from({ length: 40 }, () => feed.next());
    assert.deepEqual(
      agent.requests,
      fed.map(({ request }) => request),
    );
    const lines = linesOf(stdout);
    assert.deepEqual(
      lines.slice(0, -1),
      fed.map(({ row, truth }) => ({ row, prediction: 'no', truth })),
    );
    const good = fed.filter(({ truth }) => truth === 'no').length;
    const summary = lines.at(-1)?.summary;
    assert.ok(summary?.kind === 'classes' && good < 40);
    assert.deepEqual([summary.answers, summary.right, summary.naiveAccuracy], [40, good, good / 40]);
    assert.deepEqual([summary.positives, summary.found, summary.falseAlarms], [40 - good, 0, 0]);
  } finally {
    await agent.close();
  }
});

test('the command: a forecast in lines for a person', async () => {
  const agent = await standIn(() => [float('value', 12.5)]);
  try {
    const flags = ['--agent', agent.url, '--model', 'm', '--every', '10ms', '--count', '2'];
    const { code, stdout, stderr } = await run('sim', ['sensor', 'traffic', ...flags]);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(
      stdout,
      /^row 12 {2}prediction 12\.500 {2}truth of row 18 [\d.]+\nrow 13 .+ of row 19 .+\n2 answers, mean absolute error [\d.]+ \(naive [\d.]+\)\n$/,
    );
    assert.equal(agent.requests.length, 2);
  } finally {
    await agent.close();
  }
});

test('the command: a refusal that will not pass ends it with 1 and says what to look at', async () => {
  const agent = await standIn(() => 400);
  try {
    const { code, stdout, stderr } = await run('sim', [
      'sensor',
      'energy',
      '--agent',
      agent.url,
      '--model',
      'm',
    ]);
    assert.deepEqual([code, stdout], [1, '']);
    assert.match(
      stderr,
      /^lepton: infer-invalid: the agent refused it, 400: .*not now.*; is this a model of this scenario/,
    );
  } finally {
    await agent.close();
  }
});

for (const [signal, answers] of [
  ['SIGTERM', true],
  ['SIGINT', false],
] as const) {
  test(`${signal} ends it with its summary and 0, ${answers ? 'between two rows' : 'while it waits for an agent'}`, async () => {
    const agent = await standIn(() => (answers ? [float('score', 0.5)] : 503));
    const flags = ['--agent', agent.url, '--model', 'm', '--every', '1h', '--json'];
    const child = spawn(process.execPath, [programs.sim, 'sensor', 'industry', ...flags]);
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk;
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      stderr += chunk;
    });
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
    try {
      await until('its first line', () => (answers ? stdout : stderr) !== '');
      child.kill(signal);
      assert.equal(await ended, 0);
      assert.equal(linesOf(stdout).at(-1)?.summary?.answers, answers ? 1 : 0);
    } finally {
      child.kill('SIGKILL');
      await agent.close();
    }
  });
}
