// Why: cleaning decides what a model learns from; every cell it touches is counted, and the test part decides nothing.
// Trusts: the real files for which values stand for missing ones. Must never: pass where counts do not add up.

import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  categoriesMax,
  cleaningText,
  cleanValue,
  dropDuplicates,
  findSentinels,
  fitCleaning,
} from '../../registry/learn/cleaning.ts';
import { readTable } from '../../registry/learn/reading/read-table.ts';
import type { CategoryColumn, NumericColumn, Table } from '../../registry/learn/table.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

const numeric = (name: string, values: number[]): NumericColumn => ({
  ...{ kind: 'numeric', name, values: Float64Array.from(values) },
});

function category(name: string, texts: (string | null)[]): CategoryColumn {
  const categories = [...new Set(texts.filter((text) => text !== null))];
  const codes = Int32Array.from(texts, (text) => (text === null ? -1 : categories.indexOf(text)));
  return { kind: 'category', name, categories, codes };
}

const tableOf = (...columns: Table['columns']): Table => {
  const first = columns[0];
  return {
    rows: first === undefined ? 0 : first.kind === 'category' ? first.codes.length : first.values.length,
    columns,
  };
};

const all = (length: number): Int32Array => Int32Array.from({ length }, (_, at) => at);
/** Forty values that are no whole numbers, from 1 to 41. */
const measured = Array.from({ length: 40 }, (_, at) => 1.03 + at);

async function readData(...path: string[]) {
  const result = await readTable(createReadStream(dataFolder('datasets', ...path)));
  assert.ok(result.ok);
  return result.value;
}

const found = (values: number[]): number[] =>
  (findSentinels(tableOf(numeric('x', values)), 'auto').get('x') ?? []).map(({ value }) => value);

test('sentinels: a repeated code far outside is one', () => {
  for (const code of [-200, -99, -999, -9999, 999, 9999, -99.9, 999.9])
    assert.deepEqual(found([...measured, code, code, code]), [Math.fround(code)], String(code));
  assert.deepEqual(
    new Set(found([...measured, -9999, -999, -9999, 9999, -999, -999, 9999, -9999, 9999])),
    new Set([-9999, -999, 9999]),
  );
  // Nearly all of a column.
  assert.deepEqual(found([...Array.from({ length: 400 }, () => -200), ...measured]), [-200]);
});

test('sentinels: what may have been measured is none', () => {
  const none: [string, number[]][] = [
    ['twice only', [...measured, -200, -200]],
    ['zero', [...measured.map((value) => value + 500), 0, 0, 0, 0]],
    ['-1 and -2 of a scale', [...measured, -1, -2, -1, -2, -2, -1]],
    ['a greatest value that is no code', [...measured, 5000, 5000, 5000]],
    ['not far enough', [...measured, -20, -20, -20, -19, -18]],
    ['within', [...measured, -99, -99, -99, -500]],
    ['a scale of three', [-10, 0, 10, -10, 0, 10, -10, 0, 10]],
    ['a constant', [-999, -999, -999]],
    [
      'nearer than the middle half is wide',
      [...measured, ...measured.slice(1).map((value) => value + 600), -200, -200, -200],
    ],
    ['no further than a tail reaches', [...measured.map((value) => value + 100), -150.5, -200, -200, -200]],
    ['missing ones', [Number.NaN, Number.NaN, Number.NaN]],
    ['nothing', []],
    [
      'a long tail',
      Array.from({ length: 100 }, (_, at) => -Math.floor(1.1 ** at)).flatMap((value) => [
        value,
        value,
        value,
      ]),
    ],
  ];
  for (const [why, values] of none) assert.deepEqual(found(values), [], why);
});

test('sentinels: what one column knows counts in another where it is the extreme, and there only', () => {
  const wide = Array.from({ length: 40 }, (_, at) => at * 50.5);
  const table = tableOf(
    numeric('sure', [...measured, -200, -200, -200]),
    numeric('wide', [...wide, -200, -200, -200]),
    numeric('within', [...wide.slice(1), -200, -200, -200, -300]),
    numeric('twice', [...measured, 41.5, -200, -200]),
  );
  assert.deepEqual([...findSentinels(table, 'auto').keys()], ['sure', 'wide']);
  assert.deepEqual([...findSentinels(tableOf(...table.columns.slice(1)), 'auto').keys()], []);
});

test('sentinels: none, and a list', () => {
  const table = tableOf(
    numeric('x', [1, -1, -1, 7]),
    numeric('y', [1, 2, 3, 99.9]),
    category('c', ['-1', null, 'b', 'c']),
  );
  assert.equal(findSentinels(table, 'none').size, 0);
  assert.deepEqual(
    [...findSentinels(table, [-1, 99.9, -1, 7])],
    [
      [
        'x',
        [
          { value: -1, count: 2 },
          { value: 7, count: 1 },
        ],
      ],
      ['y', [{ value: Math.fround(99.9), count: 1 }]],
    ],
  );
});

test('sentinels of real files: -200 in AirQuality with its counts, none elsewhere', {
  skip: dataMissing,
}, async () => {
  const { table } = await readData('air', 'AirQualityUCI_raw.csv');
  const counts = new Map([...findSentinels(table, 'auto')].map(([name, list]) => [name, list]));
  assert.equal(counts.size, 13);
  const special: Record<string, number> = {
    'CO(GT)': 1683,
    'NMHC(GT)': 8443,
    'NOx(GT)': 1639,
    'NO2(GT)': 1642,
  };
  for (const [name, list] of counts)
    assert.deepEqual(list, [{ value: -200, count: special[name] ?? 366 }], name);
  const clean = [
    ['finance', 'uci_credit_card_default.csv'],
    ['finance', 'exchange_rate_daily.csv'],
    ['energy', 'ETTh1.csv'],
    ['industrial', 'ai4i2020_9col.csv'],
    ['industrial', 'nab_machine_temperature_system_failure.csv'],
    ['industrial', 'skab', 'anomaly-free.csv'],
    ['industrial', 'skab', 'valve1_0.csv'],
    ...['TravelTime_451', 'occupancy_6005', 'occupancy_t4013', 'speed_6005', 'speed_t4013'].map((one) => [
      'traffic',
      `nab_${one}.csv`,
    ]),
    ['medical', 'cdc_ilinet_weekly.csv'],
    ['tabular', 'Iris.csv'],
    ['tabular', 'small_titanic.csv'],
  ];
  for (const path of clean)
    assert.deepEqual([...findSentinels((await readData(...path)).table, 'auto')], [], path.join('/'));
});

test('duplicates: the first of equal rows is kept; missing equals missing', () => {
  const table = tableOf(
    numeric('x', [1, Number.NaN, 1, Number.NaN, 0, -0, 1]),
    category('c', ['a', null, 'a', null, 'a', 'a', 'b']),
  );
  assert.deepEqual(dropDuplicates(table), { kept: Int32Array.from([0, 1, 4, 6]), dropped: 3 });
  assert.deepEqual(dropDuplicates(tableOf(numeric('x', []))), { kept: new Int32Array(0), dropped: 0 });
});

test('duplicates: rows whose hashes are equal are not', () => {
  // Of so many rows some ten share a hash of 32 bits.
  const values = Array.from({ length: 300_000 }, (_, at) => at * 1.37);
  assert.equal(dropDuplicates(tableOf(numeric('x', values))).dropped, 0);
});

test('duplicates: as a set of rows says', () => {
  const cell = fc.constantFrom(0, 1, 2, Number.NaN, 1e300);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(cell, cell, fc.constantFrom('a', 'b', null)), { maxLength: 200 }),
      (rows) => {
        const table = tableOf(
          numeric(
            'x',
            rows.map((row) => row[0]),
          ),
          {
            ...numeric(
              't',
              rows.map((row) => row[1]),
            ),
            kind: 'time',
          },
          category(
            'c',
            rows.map((row) => row[2]),
          ),
        );
        const seen = new Set<string>();
        const kept = rows.flatMap((row, at) => {
          const key = row.map(String).join();
          return seen.size === seen.add(key).size ? [] : [at];
        });
        assert.deepEqual(dropDuplicates(table), {
          kept: Int32Array.from(kept),
          dropped: rows.length - kept.length,
        });
      },
    ),
  );
});

const rules = { missing: 'median', outliers: 'keep' } as const;

test('fills: median, mean and most frequent of the training rows, sentinels left out', () => {
  const column = numeric('x', [1, 2, 2, 5.1, Number.NaN, -200, 1e9, 1e9]);
  const fill = (missing: 'median' | 'mean' | 'most-frequent'): number | undefined =>
    fitCleaning({
      columns: [column],
      categories: [],
      rows: Int32Array.from([5, 4, 3, 2, 1, 0]),
      sentinels: new Map([['x', [{ value: -200, count: 1 }]]]),
      rules: { missing, outliers: 'keep' },
    }).numeric[0]?.fill;
  assert.equal(fill('median'), 2);
  assert.equal(fill('mean'), Math.fround(10.1 / 4));
  assert.equal(fill('most-frequent'), 2);
  column.values.set([1, 1, 2, 2]);
  assert.equal(fill('most-frequent'), 1, 'of equally frequent ones the smallest');
});

test('fences: three interquartile ranges, clipped or kept, and counted in both', () => {
  const values = [...measured, 1000, -1000, 1001];
  for (const outliers of ['keep', 'clip'] as const) {
    const fitted = fitCleaning({
      ...{ columns: [numeric('x', values)], categories: [], sentinels: new Map(), rows: all(40) },
      rules: { missing: 'median', outliers },
    });
    const [cleaning] = fitted.numeric;
    assert.ok(cleaning);
    // Quartiles of 1.03 … 40.03: 10.78 and 30.28.
    const [low, high] = [Math.fround(10.78 - 3 * 19.5), Math.fround(30.28 + 3 * 19.5)];
    assert.deepEqual(fitted.report.numeric[0]?.outliers, { low, high, below: 1, above: 2 });
    const clipped = outliers === 'clip';
    assert.deepEqual([cleaning.low, cleaning.high], clipped ? [low, high] : [-Infinity, Infinity]);
    assert.equal(cleanValue(cleaning, 1000), clipped ? high : 1000);
    assert.equal(cleanValue(cleaning, -1000), clipped ? low : -1000);
  }
  const flat = fitCleaning({
    ...{ columns: [numeric('x', [1, 1, 1, 1, 9])], categories: [], sentinels: new Map(), rows: all(5) },
    rules: { missing: 'median', outliers: 'clip' },
  });
  assert.equal(flat.report.numeric[0]?.outliers, null);
  assert.equal(flat.numeric[0]?.high, Infinity);
});

test('cleanValue: sentinel, then missing, then clipped', () => {
  const cleaning = { name: 'x', sentinels: [-200, Math.fround(99.9)], low: 0, high: 10, fill: 4 };
  assert.deepEqual(
    [-200, Number.NaN, 99.9, Math.fround(99.9), 99.8, -5, 7].map((value) => cleanValue(cleaning, value)),
    [4, 4, 4, 4, 10, 0, 7],
  );
  assert.equal(cleanValue({ ...cleaning, fill: 50 }, Number.NaN), 10);
});

test('nothing to learn from: filled with 0 and said so', () => {
  const {
    numeric: fitted,
    categories,
    report,
  } = fitCleaning({
    columns: [numeric('x', [Number.NaN, -200, 5])],
    categories: [category('c', [null, null, 'a'])],
    rows: Int32Array.from([0, 1]),
    sentinels: new Map([['x', [{ value: -200, count: 1 }]]]),
    rules,
  });
  assert.equal(fitted[0]?.fill, 0);
  assert.deepEqual(categories[0]?.categories, []);
  assert.deepEqual([report.numeric[0]?.allMissing, report.categories[0]?.allMissing], [true, true]);
});

test('categories: by frequency in the training part, 64 at most, the rest counted', () => {
  const texts = Array.from({ length: 70 }, (_, at) => `t${String(at).padStart(2, '0')}`);
  const cells = [...texts, 't69', 't69', 't68', null, 'only in the test part'];
  const { categories, report } = fitCleaning({
    ...{ columns: [], categories: [category('c', cells)], sentinels: new Map(), rules },
    rows: all(cells.length - 1),
  });
  const known = categories[0]?.categories ?? [];
  assert.equal(known.length, categoriesMax);
  assert.deepEqual(known.slice(0, 4), ['t69', 't68', 't00', 't01']);
  const { missing, other, distinct } = report.categories[0] ?? {};
  assert.deepEqual({ missing, other, distinct }, { missing: 1, other: 7, distinct: 70 });
});

test('counts add up, everything is float32, and the other rows decide nothing', () => {
  const value = fc.oneof(
    fc.constantFrom(Number.NaN, -200, 999.9, 0, 1),
    fc.double({ min: -50, max: 50, noNaN: true }),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
  );
  const text = fc.option(fc.constantFrom('a', 'b', 'c', ...Array.from({ length: 80 }, (_, at) => `t${at}`)));
  const input = fc.record({
    rows: fc.array(fc.tuple(value, text), { minLength: 1, maxLength: 150 }),
    train: fc.double({ min: 0, max: 1, noNaN: true }),
    missing: fc.constantFrom('median' as const, 'mean' as const, 'most-frequent' as const),
    outliers: fc.constantFrom('keep' as const, 'clip' as const),
  });
  fc.assert(
    fc.property(input, ({ rows, train, missing, outliers }) => {
      const column = numeric(
        'x',
        rows.map((row) => row[0]),
      );
      const texts = category(
        'c',
        rows.map((row) => row[1]),
      );
      const part = all(Math.floor(rows.length * train));
      const sentinels = new Map([['x', [-200, 999.9].map((one) => ({ value: one, count: 1 }))]]);
      const fit = (columns: NumericColumn[], categories: CategoryColumn[]) =>
        fitCleaning({ columns, categories, rows: part, sentinels, rules: { missing, outliers } });
      const { numeric: fitted, categories, report } = fit([column], [texts]);
      const [one, cleaning, two] = [report.numeric[0], fitted[0], report.categories[0]];
      assert.ok(one && cleaning && two);
      const stood = one.sentinels.reduce((sum, { count }) => sum + count, 0);
      const beyond = (one.outliers?.below ?? 0) + (one.outliers?.above ?? 0);
      assert.equal(one.missing + stood + one.within + beyond, rows.length);
      assert.equal(two.missing + two.known + two.other, rows.length);
      let changed = 0;
      for (const raw of column.values) {
        const clean = cleanValue(cleaning, raw);
        assert.ok(!Number.isNaN(clean));
        if (!Object.is(clean, raw) && clean !== raw) changed += 1;
      }
      assert.ok(
        changed <= one.missing + stood + (outliers === 'clip' ? beyond : 0),
        'a change that no count has',
      );
      for (const held of [cleaning.fill, cleaning.low, cleaning.high, ...cleaning.sentinels])
        assert.equal(held, Math.fround(held));
      assert.ok(Number.isFinite(cleaning.fill));
      const others = numeric(
        'x',
        [...column.values].map((raw, at) => (at < part.length ? raw : 1e6)),
      );
      assert.deepEqual(fit([others], [texts]).numeric, fitted);
      const otherTexts = { ...texts, codes: texts.codes.map((code, at) => (at < part.length ? code : -1)) };
      assert.deepEqual(fit([column], [otherTexts]).categories, categories);
      assert.deepEqual(JSON.parse(JSON.stringify(report)), report);
    }),
    { numRuns: 300 },
  );
});

test('words: AirQuality told in lines', { skip: dataMissing }, async () => {
  const { table, report: reading } = await readData('air', 'AirQualityUCI_raw.csv');
  const { report } = fitCleaning({
    columns: table.columns.filter((column) => column.kind === 'numeric'),
    categories: [],
    rows: all(6000),
    sentinels: findSentinels(table, 'auto'),
    rules: { missing: 'median', outliers: 'clip' },
  });
  const lines = cleaningText(reading, { ...report, duplicates: 2, rowsWithoutTarget: 1 }, 'air');
  for (const line of [
    'air: 9357 rows, 14 columns (13 of numbers, 0 of texts, 1 of times)',
    'utf-8, separator ";", decimal comma',
    '114 blank rows dropped',
    '2 empty columns dropped',
    '"Date" and "Time" joined to the time "Date Time"',
    '2 duplicate rows dropped',
    '1 row without a target dropped',
    'missing numbers become the median of the training part',
  ])
    assert.ok(lines.includes(line), `${line}\nis not in\n${lines.join('\n')}`);
  const sentinels = lines.find((line) =>
    line.startsWith('-200 stands for missing in 13 columns: CO(GT) 1683, '),
  );
  assert.match(sentinels ?? '', /NMHC\(GT\) 8443/);
  assert.ok(lines.some((line) => /^outliers .*, clipped to it: /.test(line)));
});

test('words: what did not occur has no line, what did has one', async () => {
  async function* bytes(text: string): AsyncGenerator<Uint8Array> {
    yield Buffer.from(text);
  }
  const plain = await readTable(bytes('a,b\n1,2\n3,4\n'));
  assert.ok(plain.ok);
  const empty = { rules, duplicates: 0, rowsWithoutTarget: 0, numeric: [], categories: [] };
  assert.deepEqual(cleaningText(plain.value.report, empty, 'p'), [
    'p: 2 rows, 2 columns (2 of numbers, 0 of texts, 0 of times)',
    'utf-8, separator ","',
  ]);
  const rows = Array.from({ length: 60 }, (_, at) => `${at};2;;01/02/2024;1.234.567`).join('\n');
  const messy = await readTable(bytes(`;x;e;d;t\n${rows}\nerr;3\n1;2;;;;;\n`));
  assert.ok(messy.ok);
  const lines = cleaningText(messy.value.report, empty, 'm').slice(2);
  assert.deepEqual(lines, [
    '1 row with too few fields: the rest is missing',
    '1 row with too many fields, all of those empty: ignored',
    'column 1 has no name: called by its position',
    '"d": day or month first cannot be told; read as DD/MM/YYYY',
    '"t": 60 cells with thousands separators, which are not guessed: texts',
    'columns without any value: e',
    '"column 1": 1 cell no number, taken as missing: "err" at line 62',
  ]);
});
