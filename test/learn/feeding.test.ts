// Why: a table must reach a model as the model means it: by name, in order, in its datatype; what does not fit is refused
// with its numbers. Trusts: real models and data of others. Must never: accept a count of columns that only happens to fit.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { labelsOfColumns, readAnswers } from '../../registry/learn/answers.ts';
import { type FeedingOptions, feed, planFeeding } from '../../registry/learn/feeding.ts';
import type { Column, Table } from '../../registry/learn/table.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { openModelRuns } from '../../shared/host/model-runs.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Result } from '../../shared/kernel/result.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import { numberToHalf, type Tensor } from '../../shared/wire/tensors.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const options = (more: Partial<FeedingOptions> = {}): FeedingOptions => ({
  ...{ target: null, columns: null, metadata: {} },
  ...more,
});
const input = (name: string, datatype: Datatype, ...shape: number[]): TensorSignature => ({
  name,
  datatype,
  shape,
});
const numeric = (name: string, ...values: number[]): Column => ({
  kind: 'numeric',
  name,
  values: Float64Array.from(values),
});
function category(name: string, ...texts: string[]): Column {
  const categories = [...new Set(texts.filter((text) => text !== ''))];
  return {
    kind: 'category',
    name,
    categories,
    codes: Int32Array.from(texts, (text) => categories.indexOf(text)),
  };
}
const tableOf = (...columns: Column[]): Table => {
  const [first] = columns;
  return { rows: (first?.kind === 'category' ? first.codes : first?.values)?.length ?? 0, columns };
};
const all = (rows: number): Int32Array => Int32Array.from({ length: rows }, (_, row) => row);
const detailOf = (result: Result<unknown>): string =>
  result.ok ? 'planned' : `${result.refusal.code}: ${result.refusal.detail}`;

/** Fields of one line; quotes may hold commas. */
const fieldsOf = (line: string): string[] =>
  [...line.matchAll(/("((?:[^"]|"")*)"|[^,]*)(,|$)/g)]
    .slice(0, -1)
    .map((match) => match[2] ?? match[1] ?? '');

function readCsv(...path: string[]): Table {
  const lines = readFileSync(dataFolder('datasets', ...path), 'utf8')
    .trim()
    .split(/\r?\n/);
  const names = fieldsOf(`${lines[0]},`);
  const rows = lines.slice(1).map((line) => fieldsOf(`${line},`));
  return tableOf(
    ...names.map((name, at) => {
      const cells = rows.map((row) => row[at] ?? '');
      const isNumeric = cells.every((cell) => cell === '' || Number.isFinite(Number(cell)));
      return isNumeric
        ? numeric(name, ...cells.map((cell) => (cell === '' ? Number.NaN : Number(cell))))
        : category(name, ...cells);
    }),
  );
}

test('Iris.csv through a random forest of scikit-learn: the species it names', {
  skip: dataMissing,
}, async () => {
  const table = readCsv('tabular', 'Iris.csv');
  const runs = unwrap(
    await openModelRuns({ modelPath: dataFolder('models', 'sklearn', 'rf_iris.onnx'), clock: systemClock }),
  );
  const refused = planFeeding(runs.inputs, table, options({ target: 'Species' }));
  assert.equal(
    detailOf(refused),
    'input-invalid: the input float_input (FP32 [n, 4]) takes 4 columns, and there are 5: Id, SepalLengthCm, SepalWidthCm, PetalLengthCm, PetalWidthCm; name them with --columns in the model’s order',
  );
  const columns = ['SepalLengthCm', 'SepalWidthCm', 'PetalLengthCm', 'PetalWidthCm'];
  const feeding = unwrap(
    planFeeding(runs.inputs, table, options({ target: 'Species', columns, metadata: runs.metadata })),
  );
  assert.deepEqual(
    [feeding.batch, feeding.window, feeding.rows.length, feeding.missing],
    [null, null, 150, 0],
  );
  const outputs = unwrap(await runs.run(feed(feeding, table, feeding.rows)));
  await runs.close();
  const { label, probabilities, value } = readAnswers(outputs, 150);
  assert.ok(label !== null && probabilities === null && value === null);
  const species = table.columns.find(({ name }) => name === 'Species');
  assert.ok(species?.kind === 'category');
  const right = label.filter((one, row) => one === species.codes[row]).length;
  assert.ok(right > 135, `${right} of 150`);
});

test('small_titanic.csv through models whose inputs are columns, texts and whole numbers', {
  skip: dataMissing,
}, async () => {
  const table = readCsv('tabular', 'small_titanic.csv');
  const found: number[][] = [];
  for (const name of ['pipeline_titanic.onnx', 'pipeline_titanic_nozipmap.onnx']) {
    const runs = unwrap(
      await openModelRuns({ modelPath: dataFolder('models', 'sklearn', name), clock: systemClock }),
    );
    const feeding = unwrap(planFeeding(runs.inputs, table, options({ target: 'survived' })));
    assert.equal(feeding.rows.length, table.rows);
    const inputs = feed(feeding, table, feeding.rows);
    assert.deepEqual(inputs.find((one) => one.name === 'pclass')?.data[0], name.includes('nozip') ? 1n : '1');
    const answers = readAnswers(unwrap(await runs.run(inputs)), table.rows);
    assert.equal(answers.probabilities === null, !name.includes('nozip'));
    if (answers.probabilities !== null) {
      assert.ok(answers.probabilities.areShares && answers.probabilities.columns === 2);
      assert.deepEqual(labelsOfColumns(answers.label ?? [], answers.probabilities), [0, 1]);
    }
    found.push((answers.label ?? []).map(Number));
    await runs.close();
  }
  const survived = table.columns.find(({ name }) => name === 'survived');
  assert.ok(survived?.kind === 'numeric');
  assert.equal(found[0]?.length, 38);
  const right = (found[1] ?? []).filter((one, row) => one === survived.values[row]).length;
  assert.ok(right > 19, `${right} of 38`);
});

test('a model of ours says its columns, window, horizon, target and task', () => {
  const table = tableOf(
    numeric('b', 10, 11, 12, 13),
    category('kind', 'x', '', 'y', 'x'),
    numeric('a', 0, 1, 2, 3),
  );
  const metadata = {
    columns: JSON.stringify({ numeric: ['a', 'b'], texts: [] }),
    ...{ window: '3', horizon: '2', target: 'a', task: 'forecast' },
  };
  const windows = unwrap(
    planFeeding([input('values', 'FP32', -1, 3, 2)], table, options({ target: 'a', metadata })),
  );
  assert.deepEqual([windows.window, windows.horizon, windows.target, windows.task], [3, 2, 'a', 'forecast']);
  assert.deepEqual([...windows.rows], [2, 3]);
  assert.deepEqual(feed(windows, table, windows.rows), [
    {
      ...{ name: 'values', datatype: 'FP32', shape: [2, 3, 2] },
      data: Float32Array.of(0, 10, 1, 11, 2, 12, 1, 11, 2, 12, 3, 13),
    },
  ]);
  const both = { columns: JSON.stringify({ numeric: ['b'], texts: ['kind'] }) };
  const inputs = [input('values', 'FP32', -1, 1), input('texts', 'BYTES', -1, 1)];
  const rows = unwrap(planFeeding(inputs, table, options({ metadata: both })));
  assert.deepEqual(feed(rows, table, Int32Array.of(1, 3)), [
    { name: 'values', datatype: 'FP32', shape: [2, 1], data: Float32Array.of(11, 13) },
    { name: 'texts', datatype: 'BYTES', shape: [2, 1], data: ['', 'x'] },
  ]);
  const without = planFeeding(inputs, tableOf(numeric('b', 1)), options({ metadata: both }));
  assert.equal(detailOf(without), 'data-column-unknown: the model takes kind; the file has b');
});

test('columns are found whatever their case, spaces and underscores; the target and times are no input', () => {
  const time: Column = { kind: 'time', name: 'at', values: Float64Array.of(0, 1) };
  const table = tableOf(
    time,
    numeric('Petal Width', 1, 2),
    numeric('y', 7, 8),
    category('Blood_Type', 'A', 'B'),
  );
  const named = [input('petal_width', 'FP64', -1, 1), input('blood type', 'BYTES', -1)];
  const feeding = unwrap(planFeeding(named, table, options()));
  assert.deepEqual(feed(feeding, table, all(2)), [
    { name: 'petal_width', datatype: 'FP64', shape: [2, 1], data: Float64Array.of(1, 2) },
    { name: 'blood type', datatype: 'BYTES', shape: [2], data: ['A', 'B'] },
  ]);
  const one = unwrap(planFeeding([input('X', 'FP32', -1, -1)], table, options({ target: 'Y' })));
  assert.deepEqual(one.inputs[0]?.columns, ['Petal Width']);
  assert.match(
    detailOf(planFeeding([input('X', 'FP32', -1, 1)], table, options())),
    /takes 1 columns, and there are 2: Petal Width, y;/,
  );
  const missing = planFeeding([input('age', 'FP32', -1, 1), input('y', 'FP32', -1, 1)], table, options());
  assert.match(
    detailOf(missing),
    /^data-column-unknown: the model takes age; the file has at, Petal Width, y/,
  );
});

test('rows that go one by one, windows, vectors, and what no table can fill', () => {
  const table = tableOf(numeric('a', 1, 2, 3), numeric('b', 4, 5, 6));
  const layout = (...shape: number[]): string => {
    const planned = planFeeding([input('x', 'FP32', ...shape)], table, options());
    if (!planned.ok) return detailOf(planned);
    const { batch, window, rows } = planned.value;
    const [tensor] = feed(planned.value, table, rows.subarray(0, 1));
    return JSON.stringify([batch, window, rows.length, tensor?.shape, [...(tensor?.data ?? [])]]);
  };
  assert.equal(layout(-1, 2), '[null,null,3,[1,2],[1,4]]');
  assert.equal(layout(1, 2), '[1,null,3,[1,2],[1,4]]');
  assert.equal(layout(2), '[1,null,3,[2],[1,4]]');
  assert.equal(layout(-1, 2, 2), '[null,2,2,[1,2,2],[1,4,2,5]]');
  assert.match(layout(-1, -1, 2), /does not say how many rows a window has/);
  assert.match(layout(5, 2), /takes 5 rows at once/);
  assert.match(layout(), /is none of rows/);
  assert.match(layout(1, 3, 224, 224), /is none of rows/);
  assert.match(layout(-1), /takes 1 column, and there are 2: a, b/);
  const two = [input('x', 'FP32', -1, 2), input('y', 'FP32', -1, 1)];
  assert.match(detailOf(planFeeding(two, table, options())), /x \(FP32 \[n, 2\]\), y \(FP32 \[n, 1\]\)/);
  assert.match(detailOf(planFeeding([], table, options())), /has no input/);
});

test('integers must be whole, in range and there; texts are no numbers', () => {
  const table = tableOf(
    numeric('a', 1, Number.NaN, -3, 4),
    numeric('b', 0.5, 1, 2, 3),
    category('c', 'x', 'y', '', 'x'),
  );
  const plan = (datatype: Datatype, column: string, window = 1) =>
    planFeeding(
      [input('x', datatype, -1, ...(window > 1 ? [window] : []), 1)],
      table,
      options({ columns: [column] }),
    );
  const whole = unwrap(plan('INT64', 'a'));
  assert.deepEqual([[...whole.rows], whole.missing], [[0, 2, 3], 1]);
  assert.deepEqual(feed(whole, table, whole.rows)[0]?.data, BigInt64Array.of(1n, -3n, 4n));
  assert.deepEqual([...unwrap(plan('INT16', 'a', 2)).rows], [3]);
  assert.match(detailOf(plan('INT32', 'b')), /row 1 of the column b is 0.5, and the input x takes INT32/);
  assert.match(detailOf(plan('UINT8', 'a')), /row 3 of the column a is -3/);
  assert.match(detailOf(plan('FP32', 'c')), /the column c holds texts \("x"\)/);
  assert.deepEqual(
    feed(unwrap(plan('FP16', 'b')), table, Int32Array.of(0))[0]?.data,
    Uint16Array.of(numberToHalf(0.5)),
  );
  assert.deepEqual(feed(unwrap(plan('BYTES', 'a')), table, all(4))[0]?.data, ['1', '', '-3', '4']);
  assert.equal(Number.isNaN(feed(unwrap(plan('FP32', 'a')), table, all(4))[0]?.data[1]), true);
});

test('what outputs say: ours by name, others by their form', () => {
  const floats = (name: string, shape: number[], ...data: number[]): Tensor => ({
    name,
    datatype: 'FP32',
    shape,
    data: Float32Array.from(data),
  });
  const longs = (name: string, shape: number[], ...data: bigint[]): Tensor => ({
    name,
    datatype: 'INT64',
    shape,
    data: BigInt64Array.from(data),
  });
  const classes = readAnswers(
    [longs('label', [2], 3n, 5n), floats('probabilities', [2, 2], 0.75, 0.25, 0.5, 0.5)],
    2,
  );
  assert.deepEqual(classes.label, [3, 5]);
  assert.ok(classes.probabilities?.areShares);
  assert.deepEqual([...classes.probabilities.values], [0.75, 0.25, 0.5, 0.5]);
  assert.deepEqual(labelsOfColumns([3, 5], classes.probabilities), [3, null]);
  assert.equal(labelsOfColumns([3, 5], { rows: 2, columns: 2, values: Float64Array.of(1, 0, 1, 0) }), null);
  const scores = readAnswers([floats('logits', [1, 3], -1, 4, 2)], 1);
  assert.equal(scores.probabilities?.areShares, false);
  const anomaly: Tensor = { name: 'anomaly', datatype: 'BOOL', shape: [2], data: Uint8Array.of(0, 1) };
  const odd = readAnswers([floats('score', [2], 0.5, 2), anomaly], 2);
  assert.deepEqual([odd.score, odd.anomaly], [Float64Array.of(0.5, 2), [false, true]]);
  assert.deepEqual(readAnswers([floats('prediction', [2, 1], 1, 2)], 2).value, Float64Array.of(1, 2));
  assert.deepEqual(readAnswers([floats('score', [2, 1], 1, 2)], 2).value, Float64Array.of(1, 2));
  const text: Tensor = { name: 'class', datatype: 'BYTES', shape: [2], data: ['a', 'b'] };
  const more = readAnswers(
    [
      text,
      longs('second', [2], 1n, 2n),
      floats('boxes', [2, 9, 4], ...Array<number>(72).fill(0)),
      floats('w', [7, 2], ...Array<number>(14).fill(0)),
    ],
    2,
  );
  assert.deepEqual(more.label, ['a', 'b']);
  assert.deepEqual(more.others, ['second', 'boxes', 'w']);
});
