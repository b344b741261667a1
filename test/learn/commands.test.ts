// Why: `lepton train`, `evaluate` and `profile` as somebody runs them who has a table and no Python.
// Trusts: the built programs. Must never: look into a process instead of at what it prints and writes.

import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { unwrap } from '../../shared/kernel/errors.ts';
import { admitModel, opsetMaxDefault } from '../../shared/onnx/admission.ts';
import { parseGolden } from '../../shared/wire/golden.ts';
import { parseProfile } from '../../shared/wire/profile.ts';
import { dataFolder, dataMissing } from '../support/data.ts';
import { runLoaded } from '../support/loaded-lepton.ts';
import { type Finished, type Workplace, workplace } from '../support/processes.ts';
import { checkOnnx } from './onnx-checker.ts';
import { clouds } from './textbook-pipeline.test.ts';

interface Report {
  out: string;
  rows: { trained: number; tested: number };
  metrics: {
    rows: number;
    accuracy: number;
    precision: number;
    recall: number;
    f1: number;
    rocAuc: number;
    r2: number;
  };
  files: string[];
}

const airQuality = 'datasets/air/AirQualityUCI_raw.csv';

describe('from a table to a release', () => {
  let place: Workplace;
  before(() => {
    place = workplace('learn');
  });
  after(async () => place.close());

  const lepton = (args: string[]): Promise<Finished> => runLoaded(args, place.env);

  async function json<T>(args: string[]): Promise<T> {
    const done = await lepton([...args, '--json']);
    assert.equal(done.code, 0, `${args.join(' ')}\n${done.stdout}\n${done.stderr}`);
    return JSON.parse(done.stdout) as T;
  }

  function written(name: string, text: string | Uint8Array): string {
    const path = place.path(name);
    writeFileSync(path, text);
    return path;
  }

  /** A refusal in one line with its code, and no folder that was begun. */
  async function refused(args: string[], code: string, exit: 1 | 2, words: RegExp): Promise<void> {
    const out = place.path('never');
    const done = await lepton([...args, '--out', out]);
    assert.equal(done.code, exit, done.stderr);
    assert.match(done.stderr, new RegExp(`^lepton: ${code}: `));
    assert.match(done.stderr, words);
    assert.equal(done.stderr.trim().split('\n').length, 1, done.stderr);
    assert.deepEqual(
      readdirSync(place.path('.')).filter((name) => name.includes('never')),
      [],
    );
  }

  test('raw air quality trains with no options but the target, and says what it found', {
    skip: dataMissing,
  }, async () => {
    const out = place.path('air');
    const done = await lepton(['train', dataFolder(airQuality), '--target', 'C6H6(GT)', '--out', out]);
    assert.equal(done.code, 0, done.stderr);
    for (const words of [
      'separator ";", decimal comma',
      '114 blank rows dropped',
      '2 empty columns dropped',
      'CO(GT) 1683',
      'NMHC(GT) 8443',
      'the target C6H6(GT): 366',
      'skill 0.9',
    ])
      assert.ok(done.stdout.includes(words), `${words}\n${done.stdout}`);
    assert.deepEqual(readdirSync(out).sort(), [
      ...[
        'card.md',
        'golden.json',
        'manifest.yaml',
        'metrics.json',
        'model.onnx',
        'profile.json',
        'recipe.yaml',
      ],
    ]);
    const bytes = new Uint8Array(readFileSync(`${out}/model.onnx`));
    unwrap(
      admitModel(bytes, {
        excludeOutputs: [],
        externalFiles: new Map(),
        opsetMax: opsetMaxDefault,
        memoryBounds: [],
      }),
    );
    const checked = await checkOnnx(bytes);
    if (checked !== null) assert.deepEqual(checked, { ok: true });
    const golden = unwrap(parseGolden(new Uint8Array(readFileSync(`${out}/golden.json`)), () => null));
    assert.equal(golden.length, 24);
    const { features } = unwrap(parseProfile(new Uint8Array(readFileSync(`${out}/profile.json`))));
    assert.equal(features.length, 13);
    // The same recipe and data are the same model, to the last byte.
    await json([
      'train',
      dataFolder(airQuality),
      '--recipe',
      `${out}/recipe.yaml`,
      '--out',
      place.path('again'),
    ]);
    assert.ok(Buffer.compare(bytes, readFileSync(place.path('again/model.onnx'))) === 0);
    // The file that is there is not touched.
    const twice = await lepton(['train', dataFolder(airQuality), '--target', 'T', '--out', out]);
    assert.equal(twice.code, 1);
    assert.match(twice.stderr, /^lepton: conflict: .*exists already/);
  });

  test('the textbook case: evaluate finds the same numbers in the ONNX file', async () => {
    const { columns } = clouds(7);
    const lines = Array.from({ length: 100 }, (_, row) =>
      columns.map((column) => (column.kind === 'numeric' ? column.values[row] : '')).join(','),
    );
    const data = written('clouds.csv', `a,b,class\n${lines.join('\n')}\n`);
    const out = place.path('clouds');
    const flags = [
      '--target',
      'class',
      '--hidden',
      '5',
      '--optimizer',
      'sgd',
      '--learning-rate',
      '0.1',
      '--epochs',
      '100',
    ];
    const trained = await json<Report>([
      'train',
      data,
      ...flags,
      '--batch',
      '70',
      '--patience',
      'none',
      '--out',
      out,
    ]);
    assert.deepEqual(trained.rows, { trained: 70, tested: 30 });
    const evaluated = await json<Report>(['evaluate', `${out}/model.onnx`, data]);
    for (const name of ['rows', 'accuracy', 'precision', 'recall', 'f1'] as const)
      assert.equal(evaluated.metrics[name], trained.metrics[name], name);
    assert.ok(Math.abs(evaluated.metrics.rocAuc - trained.metrics.rocAuc) < 1e-6);
    const { precision, recall, f1 } = trained.metrics;
    assert.ok(Math.abs(f1 - (2 * precision * recall) / (precision + recall)) < 1e-12);
    const all = await json<Report>(['evaluate', `${out}/model.onnx`, data, '--rows', 'all']);
    assert.equal(all.metrics.rows, 100);
  });

  test('texts, missing cells and classes by name go through to the file', async () => {
    const rows = Array.from({ length: 400 }, (_, row) => {
      const [kind, size] = [['oak', 'ash', 'elm'][row % 3] ?? '', (row * 37) % 100];
      const label = kind === 'oak' || size > 70 ? 'keep' : 'fell';
      return `${row % 11 === 0 ? '' : kind},${row % 13 === 0 ? 'NA' : size},${label}`;
    });
    const data = written('trees.csv', `kind,size,what\n${rows.join('\n')}\n`);
    const out = place.path('trees');
    const trained = await json<Report>([
      'train',
      data,
      '--target',
      'what',
      '--epochs',
      '120',
      '--learning-rate',
      '0.01',
      '--out',
      out,
    ]);
    assert.ok(trained.metrics.accuracy > 0.85, `${trained.metrics.accuracy}`);
    const evaluated = await json<Report>(['evaluate', `${out}/model.onnx`, data]);
    assert.equal(evaluated.metrics.accuracy, trained.metrics.accuracy);
    assert.match(readFileSync(`${out}/card.md`, 'utf8'), /\| keep \|/);
  });

  test('a model of scikit-learn: evaluation, golden cases and a profile', { skip: dataMissing }, async () => {
    const [model, data] = [
      dataFolder('models/sklearn/rf_iris.onnx'),
      dataFolder('datasets/tabular/Iris.csv'),
    ];
    const columns = [
      '--target',
      'Species',
      '--columns',
      'SepalLengthCm,SepalWidthCm,PetalLengthCm,PetalWidthCm',
    ];
    const evaluated = await json<Report & { assumed: string }>(['evaluate', model, data, ...columns]);
    assert.ok(evaluated.metrics.accuracy > 0.95, `${evaluated.metrics.accuracy}`);
    assert.match(evaluated.assumed, /0 is taken for Iris-setosa/);
    const out = place.path('iris-profile');
    await json(['profile', model, data, ...columns, '--out', out]);
    const golden = unwrap(parseGolden(new Uint8Array(readFileSync(`${out}/golden.json`)), () => null));
    const labels = new Set(
      golden.map(({ expected }) => String(expected.find(({ shape }) => shape.length === 1)?.data[0])),
    );
    assert.deepEqual([...labels].sort(), ['0', '1', '2']);
    const { features } = unwrap(parseProfile(new Uint8Array(readFileSync(`${out}/profile.json`))));
    assert.equal(features.filter(({ role }) => role === 'input').length, 4);
  });

  test('bad data is a clear error with a code, and nothing is left of a folder', async () => {
    const train = (name: string, text: string | Uint8Array, target: string): string[] => [
      'train',
      written(name, text),
      '--target',
      target,
    ];
    const rows = (cell: (row: number) => string): string =>
      Array.from({ length: 60 }, (_, row) => cell(row)).join('\n');
    await refused(train('empty.csv', '', 'y'), 'data-malformed', 2, /empty/);
    await refused(train('head.csv', 'x,y\n', 'y'), 'data-malformed', 2, /no (data )?row/);
    await refused(
      train('one.csv', `x,y\n${rows((row) => `${(row * 7) % 13},same`)}\n`, 'y'),
      'data-unfit',
      1,
      /"same" in every row/,
    );
    await refused(
      train('target.csv', `x,y\n${rows((row) => `${row},${row % 2}`)}\n`, 'z'),
      'data-column-unknown',
      2,
      /"z".*there are x, y/,
    );
    await refused(
      ['train', place.path('target.csv'), '--target', 'y', '--features', 'q'],
      'data-column-unknown',
      2,
      /"q"/,
    );
    await refused(
      [
        ...train('text.csv', `x,y\n${rows((row) => `${row % 7},word${row % 5}`)}\n`, 'y'),
        '--task',
        'regression',
      ],
      'data-malformed',
      2,
      /texts/,
    );
    await refused(
      train('nan.csv', `x,y\n${rows((row) => `NaN,${row % 2}`)}\n`, 'y'),
      'data-unfit',
      1,
      /no value/,
    );
    await refused(
      train('void.csv', `x,y\n${rows((row) => `${row % 7},NaN`)}\n`, 'y'),
      'data-unfit',
      1,
      /no value/,
    );
    const wild = rows((row) => `${(row * 7919) % 1000},${((row * 104_729) % 997) + 0.5}`);
    const diverging = [
      ...train('wild.csv', `x,y\n${wild}\n`, 'y'),
      '--optimizer',
      'sgd',
      '--learning-rate',
      '90',
      '--hidden',
      '64,64',
      '--epochs',
      '200',
    ];
    await refused(diverging, 'training-diverged', 1, /epoch \d+/);
    await refused(['train', place.path('nothing.csv'), '--target', 'y'], 'input-invalid', 2, /no file/);
    await refused(
      ['train', place.path('wild.csv'), '--target', 'y', '--activation', 'cubic'],
      'config-invalid',
      2,
      /relu/,
    );
    const recipe = written('recipe.yaml', 'target: y\nepochs: many\n');
    await refused(
      ['train', place.path('wild.csv'), '--recipe', recipe],
      'config-invalid',
      2,
      /line 2.*epochs/,
    );
  });

  test('a file of two gigabytes is refused before it is read', async () => {
    const path = place.path('huge.csv');
    const file = openSync(path, 'w');
    // A hole: it has the size and takes no room.
    ftruncateSync(file, 2 * 1024 ** 3);
    closeSync(file);
    await refused(['train', path, '--target', 'y'], 'data-too-large', 1, /2\.0 GiB; at most 1 GiB/);
  });

  test('what cannot be held is refused before it is tried, with what to do', async () => {
    const rows = Array.from({ length: 30_000 }, (_, row) => `${row % 97},${row % 89}`).join('\n');
    const data = written('long.csv', `x,y\n${rows}\n`);
    const wide = ['train', data, '--target', 'y', '--task', 'forecast', '--window', '4096'];
    await refused(wide, 'data-too-large', 1, /numbers, at most 100000000 are held; use fewer/);
    await refused([...wide, '--window-features', 'bands'], 'config-invalid', 2, /at most 1024 rows/);
    await refused(
      ['train', data, '--target', 'y', '--hidden', '4096,4096,4096'],
      'data-too-large',
      1,
      /weights, at most 20000000/,
    );
  });

  test('a folder that cannot be written is said so, and what is there stays', async () => {
    const data = written(
      'small.csv',
      `x,y\n${Array.from({ length: 60 }, (_, row) => `${(row * 7) % 13},${row % 2}`).join('\n')}\n`,
    );
    const blocked = place.path('blocked');
    writeFileSync(blocked, 'a file');
    const done = await lepton(['train', data, '--target', 'y', '--epochs', '2', '--out', `${blocked}/model`]);
    assert.equal(done.code, 1, done.stderr);
    assert.match(done.stderr, /^lepton: disk-io: /);
    const folder = place.path('replaced');
    mkdirSync(folder);
    writeFileSync(`${folder}/mine.txt`, 'mine');
    await json(['train', data, '--target', 'y', '--epochs', '2', '--out', folder, '--force']);
    assert.ok(existsSync(`${folder}/model.onnx`));
    assert.ok(!existsSync(`${folder}/mine.txt`));
  });
});
