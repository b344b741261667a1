// Why: whoever brings a file gets its numbers, dates and texts as they stand in it, or is told which line is wrong.
// Trusts: the real files for what people write, fast-check for what nobody expects.
// Must never: pass where a value was dropped uncounted.

import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { readDates } from '../../registry/learn/reading/dates.ts';
import { readTable } from '../../registry/learn/reading/read-table.ts';
import type { ReadingReport } from '../../registry/learn/reading/report.ts';
import { type Column, columnOf, type Table } from '../../registry/learn/table.ts';
import { dataFolder, dataMissing } from '../support/data.ts';

type Read = Awaited<ReturnType<typeof readTable>>;

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  // One buffer that is filled again, as a careless reader does.
  const buffer = new Uint8Array(size);
  for (let at = 0; at < bytes.length; at += size) {
    const piece = bytes.subarray(at, at + size);
    buffer.set(piece);
    yield buffer.subarray(0, piece.length);
  }
}

const bytesOf = (input: string | Uint8Array): Uint8Array =>
  typeof input === 'string' ? Buffer.from(input) : input;

function attempt(input: string | Uint8Array, cellsMax?: number, size = 7): Promise<Read> {
  return readTable(pieces(bytesOf(input), size), cellsMax === undefined ? {} : { cellsMax });
}

async function read(
  input: string | Uint8Array,
  size?: number,
): Promise<{ table: Table; report: ReadingReport }> {
  const result = await attempt(input, undefined, size);
  assert.ok(result.ok, result.ok ? '' : result.refusal.detail);
  return result.value;
}

async function readFile(...path: string[]): Promise<{ table: Table; report: ReadingReport }> {
  const result = await readTable(createReadStream(dataFolder('datasets', ...path)));
  assert.ok(result.ok, result.ok ? '' : result.refusal.detail);
  return result.value;
}

async function refused(input: string | Uint8Array, code: string, detail: RegExp): Promise<void> {
  const result = await attempt(input);
  assert.ok(!result.ok, `${JSON.stringify(input)} was read`);
  assert.equal(result.refusal.code, code);
  assert.match(result.refusal.detail, detail);
}

/** Cells as people see them: numbers, texts, ISO times, null for missing. */
function cells(column: Column | undefined): (number | string | null)[] {
  assert.ok(column);
  if (column.kind === 'category') return [...column.codes].map((code) => column.categories[code] ?? null);
  return [...column.values].map((value) => {
    if (Number.isNaN(value)) return null;
    return column.kind === 'time' ? new Date(value).toISOString() : value;
  });
}

const kinds = (table: Table): string[] => table.columns.map(({ name, kind }) => `${name}: ${kind}`);

test('fields: quotes, line breaks in them, every line ending, spaces around', async () => {
  for (const end of ['\n', '\r\n', '\r']) {
    const lines = ['name, x ,note', '"Allen, Miss", 1 ,"say ""so"""', ` b ,2, "two${end}lines" `];
    const { table } = await read(lines.join(end));
    assert.deepEqual(kinds(table), ['name: category', 'x: numeric', 'note: category']);
    assert.deepEqual(cells(table.columns[0]), ['Allen, Miss', 'b']);
    assert.deepEqual(cells(table.columns[1]), [1, 2]);
    assert.deepEqual(cells(table.columns[2]), ['say "so"', `two${end}lines`]);
  }
});

test('pieces: a table is the same however its bytes are cut', async () => {
  const text = '\ufeffdate;größe;t\r\n1.2.2024;2,5;"ä; €"\r\n\r\n3.2.2024;NA;\r\n';
  const whole = await read(text, 1000);
  assert.deepEqual(cells(columnOf(whole.table, 'größe')), [2.5, null]);
  for (const size of [1, 2, 3, 5, 8]) assert.deepEqual(await read(text, size), whole);
});

test('encodings: UTF-8, UTF-16 both ways round, else windows-1252', async () => {
  const text = 'Größe;Preis\nä€;1\n“b”;2\n';
  const utf16 = Buffer.from(`\ufeff${text}`, 'utf16le');
  const swapped = Buffer.from(utf16).swap16();
  const old = Buffer.from('Gr\xf6\xdfe;Preis\n\xe4\x80;1\n\x93b\x94;2\n', 'latin1');
  const inputs: [Uint8Array, string, boolean][] = [
    [Buffer.from(text), 'utf-8', false],
    [Buffer.from(`\ufeff${text}`), 'utf-8', true],
    [utf16, 'utf-16le', true],
    [swapped, 'utf-16be', true],
    [old, 'windows-1252', false],
  ];
  for (const [bytes, encoding, byteOrderMark] of inputs) {
    for (const size of [1, 3, 1000]) {
      const { table, report } = await read(bytes, size);
      assert.equal(report.encoding, encoding);
      assert.equal(report.byteOrderMark, byteOrderMark);
      assert.deepEqual(cells(columnOf(table, 'Größe')), ['ä€', '“b”'], encoding);
    }
  }
});

test('encodings: a byte that shows itself late, and one that fits nothing', async () => {
  const rows = 'x,1\n'.repeat(200_000);
  const late = Buffer.concat([Buffer.from(`a,b\n${rows}`), Buffer.from([0xe9, 0x2c, 0x32])]);
  const { table, report } = await read(late, 65_536);
  assert.equal(report.encoding, 'windows-1252');
  assert.equal(cells(columnOf(table, 'a')).at(-1), 'é');
  await refused(
    Buffer.concat([Buffer.from('a,b\né,1\n'), Buffer.from([0xe9, 0x2c, 0x32])]),
    'data-malformed',
    /line 3 .*no UTF-8/,
  );
  await refused(Buffer.from([0xff, 0xfe, 0x61, 0x00, 0x0a]), 'data-malformed', /UTF-16/);
});

test('delimiter and decimal sign are found', async () => {
  const inputs: [string, string, string, number][] = [
    ['a,b\n1.5,2\n', ',', '.', 1.5],
    ['a;b\n1,5;2\n', ';', ',', 1.5],
    ['a;b\n1.5;2\n', ';', '.', 1.5],
    ['a\tb\n1,5\t2\n', '\t', ',', 1.5],
    ['a|b\n1.5|x, y\n', '|', '.', 1.5],
    ['"a";"b, c; d"\n1,5;"x;y,z"\n', ';', ',', 1.5],
    ['a,"b;c;d"\n1.5,"x;y;z"\n', ',', '.', 1.5],
    ['a,b|c,d\n1,2|3,4\n', ',', '.', 1],
    ['a\n7\n', ',', '.', 7],
  ];
  for (const [text, delimiter, decimal, first] of inputs) {
    const { table, report } = await read(text);
    assert.deepEqual([report.delimiter, report.decimal], [delimiter, decimal], text);
    assert.equal(cells(table.columns[0])[0], first, text);
  }
});

test('decimal comma: what has a point is then no number; thousands separators are reported, not guessed', async () => {
  const { table, report } = await read('a;b;c\n1,5;2.5;1.234,5\n2,5;3.5;9.876,5\n');
  assert.deepEqual(cells(table.columns[0]), [1.5, 2.5]);
  assert.deepEqual(cells(table.columns[1]), ['2.5', '3.5']);
  assert.deepEqual(cells(table.columns[2]), ['1.234,5', '9.876,5']);
  assert.equal(report.columns[2]?.thousands, 2);
  const quoted = await read('a,b\n"1,234",1\n"5,678",2\n');
  assert.deepEqual(cells(quoted.table.columns[0]), ['1,234', '5,678']);
  assert.equal(quoted.report.columns[0]?.thousands, 2);
});

test('missing: each word for it, and none that only looks like one', async () => {
  const words = ['', 'NA', 'N/A', 'NaN', 'nan', 'null', 'None', '?', '-'];
  const { table, report } = await read(['a,b', ...words.map((word) => `${word},x`), '1,x'].join('\n'));
  assert.equal(report.columns[0]?.missing, words.length);
  assert.equal(table.columns[0]?.kind, 'numeric');
  const texts = await read('a,b\nna,1\nNONE,2\n--,3\n');
  assert.equal(texts.report.columns[0]?.missing, 0);
  assert.equal(texts.report.columns[0]?.distinct, 3);
});

test('numbers: how they may be written; a column of 98 % numbers counts the rest', async () => {
  const written = ['1', '-2.50', '+3', '.5', '5.', '1e-05', '1E3', '007', '-0', '1180591620717411303424'];
  const { table } = await read(`a,b\n${written.map((one) => `${one},x`).join('\n')}`);
  assert.deepEqual(cells(table.columns[0]), [1, -2.5, 3, 0.5, 5, 1e-5, 1000, 7, -0, 2 ** 70]);

  const rows = Array.from({ length: 98 }, (_, at) => `${at},x`);
  const mostly = await read(['a,b', 'err,x', ...rows, '1e999,x'].join('\n'));
  assert.equal(mostly.table.columns[0]?.kind, 'numeric');
  const unreadable = [
    { line: 2, text: 'err' },
    { line: 101, text: '1e999' },
  ];
  assert.deepEqual(mostly.report.columns[0]?.unreadable, { count: 2, examples: unreadable });
  assert.equal(cells(mostly.table.columns[0])[0], null);

  const fewer = await read(['a,b', 'err,x', ...rows, 'off,x', '1 0,x'].join('\n'));
  assert.equal(fewer.table.columns[0]?.kind, 'category');
});

test('texts: a column of both keeps each number as it was written', async () => {
  const point = [
    '007',
    '7',
    '7.0',
    '7.00',
    '+7',
    '1e5',
    '-0',
    '-0.0',
    '.5',
    '5.',
    'PC 17599',
    '0.30000000000000004',
  ];
  const long = ['12345678901234567890', '0.1000000000000000055511151231257827', '24160'];
  for (const [delimiter, texts] of [
    [',', [...point, ...long]],
    [';', ['1,50', '1,5', '01,5', 'x', '3', '1.5', ',5', '-0,0']],
  ] as const) {
    const { table } = await read(`a${delimiter}b\n${texts.map((text) => `${text}${delimiter}1`).join('\n')}`);
    assert.deepEqual(cells(table.columns[0]), texts);
  }
});

test('texts: every number among texts comes back letter by letter', async () => {
  const number = fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
    fc.stringMatching(/^-?[0-9]{1,20}(\.[0-9]{1,20})?$/),
    fc.stringMatching(/^[+-]?[0-9]{0,4}[.,]?[0-9]{0,4}(e[+-]?[0-9]{1,3})?$/),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(number, { minLength: 1, maxLength: 20 }), async (numbers) => {
      const all = [...numbers, 'text', 'text'];
      const { table } = await read(`a;b\n${all.map((one) => `${one};1`).join('\n')}`, 1000);
      const expected = all.map((one) => (['', '-'].includes(one) ? null : one));
      assert.deepEqual(cells(table.columns[0]), expected);
    }),
    { numRuns: 300 },
  );
});

test('dates: each way of writing', () => {
  const ways: [string[], string, string[]][] = [
    [['2024-02-29'], 'YYYY-MM-DD', ['2024-02-29T00:00:00.000Z']],
    [
      ['2024-02-29T23:59:58.125Z', '2024-02-29 12:00:00+02:00', '2024-03-01t00:30-0130'],
      'YYYY-MM-DD HH:MM:SS.f and zone',
      ['2024-02-29T23:59:58.125Z', '2024-02-29T10:00:00.000Z', '2024-03-01T02:00:00.000Z'],
    ],
    [
      ['1990/1/1 0:00', '1990/12/31 23:59'],
      'YYYY/MM/DD HH:MM',
      ['1990-01-01T00:00:00.000Z', '1990-12-31T23:59:00.000Z'],
    ],
    [['10/03/2004', '13/03/2004'], 'DD/MM/YYYY', ['2004-03-10T00:00:00.000Z', '2004-03-13T00:00:00.000Z']],
    [
      ['3/10/2004 1:05', '3/13/2004 2:00'],
      'MM/DD/YYYY HH:MM',
      ['2004-03-10T01:05:00.000Z', '2004-03-13T02:00:00.000Z'],
    ],
    [['31.12.1969 18.30.00'], 'DD.MM.YYYY HH.MM.SS', ['1969-12-31T18:30:00.000Z']],
    [['18.00.00', '9.05.01'], 'HH.MM.SS', ['1970-01-01T18:00:00.000Z', '1970-01-01T09:05:01.000Z']],
    [['18:00'], 'HH:MM', ['1970-01-01T18:00:00.000Z']],
  ];
  for (const [texts, format, times] of ways) {
    const dates = readDates(texts);
    assert.ok(dates, texts[0]);
    assert.equal(dates.format, format);
    assert.equal(dates.dayFirstGuessed, false);
    assert.deepEqual(
      [...dates.times].map((time) => new Date(time).toISOString()),
      times,
    );
  }
  assert.deepEqual(readDates(['01/02/2004'])?.dayFirstGuessed, true);
  assert.equal(readDates(['01/02/2004'])?.times[0], Date.UTC(2004, 1, 1));
});

test('dates: what no calendar has, and two ways in one column, are no dates', () => {
  for (const text of [
    '2023-02-29',
    '2024-13-01',
    '2024-00-10',
    '31/04/2024',
    '24:00',
    '12:60',
    '2024',
    '20240101',
  ])
    assert.equal(readDates([text]), null, text);
  assert.equal(readDates(['2024-01-01', '2024/01/02']), null);
  assert.equal(readDates(['13/01/2024', '01/13/2024']), null);
  assert.equal(readDates(['2024-01-01 10:00+99:00']), null);
  assert.equal(readDates([]), null);
});

test('dates: every day of a thousand years, as the platform counts them', () => {
  fc.assert(
    fc.property(fc.integer({ min: -250_000, max: 150_000 }), (day) => {
      const text = new Date(day * 86_400_000).toISOString().slice(0, 10);
      assert.equal(readDates([text])?.times[0], day * 86_400_000);
    }),
  );
});

test('times: whole numbers are never dates; a date beside its time of day is joined', async () => {
  const { table, report } = await read(
    'year,d,Time,d2,n\n2004,01/02/2004,18:00,2024-01-01,20240101\n2005,03/02/2004,,2024-01-02,20240102\n',
  );
  assert.deepEqual(kinds(table), ['year: numeric', 'd Time: time', 'd2: time', 'n: numeric']);
  assert.deepEqual(cells(columnOf(table, 'd Time')), ['2004-02-01T18:00:00.000Z', null]);
  assert.deepEqual(report.joinedColumns, [{ name: 'd Time', from: ['d', 'Time'] }]);
  const { dateFormat, dayFirstGuessed, missing } = report.columns[1] ?? {};
  assert.deepEqual(
    { dateFormat, dayFirstGuessed, missing },
    { dateFormat: 'DD/MM/YYYY HH:MM', dayFirstGuessed: true, missing: 1 },
  );
  const taken = await read('d,t,d t\n2024-01-01,10:00,5\n');
  assert.deepEqual(kinds(taken.table), ['d: time', 't: time', 'd t: numeric']);
});

test('rows: blank ones dropped, ragged ones counted, values beyond the header refused', async () => {
  const text = '\n;;\na;b;;\n1;2;;\n\n;;;\n3\n4;5;;;;\n6;7;;\n;;\n';
  const { table, report } = await read(text);
  assert.deepEqual(kinds(table), ['a: numeric', 'b: numeric']);
  assert.deepEqual(cells(table.columns[0]), [1, 3, 4, 6]);
  assert.deepEqual(cells(table.columns[1]), [2, null, 5, 7]);
  assert.equal(report.blankRows, 5);
  assert.deepEqual(report.raggedRows, { short: 1, long: 1 });
  assert.deepEqual(report.emptyColumns, [3, 4]);
  await refused('a,b\n1,2\n\n1,2,,3\n', 'data-malformed', /line 4 has 4 fields, the header names 2/);
});

test('lines: named as an editor counts them, through quotes and CRLF', async () => {
  await refused('a,b\r\n"x\r\ny\r\nz",2\r\n1,2,3\r\n', 'data-malformed', /line 5 /);
  await refused('a,b\n"x\n\ny",2\n1,2,3\n', 'data-malformed', /line 5 /);
});

test('columns: named and empty kept, unnamed with values called by position', async () => {
  const { table, report } = await read(',a,empty,,column 1\n0,1,,,5\n1,2,NA,,6\n');
  assert.deepEqual(kinds(table), ['column 1’: numeric', 'a: numeric', 'empty: numeric', 'column 1: numeric']);
  assert.deepEqual(report.unnamedColumns, [1]);
  assert.deepEqual(report.emptyColumns, [4]);
  assert.deepEqual(report.columns[2], {
    name: 'empty',
    kind: 'numeric',
    missing: 2,
    unreadable: { count: 0, examples: [] },
  });
});

test('refusals name the place', async () => {
  await refused('', 'data-malformed', /empty/);
  await refused('\n\n  \n', 'data-malformed', /empty/);
  await refused('a,b\n', 'data-malformed', /no row/);
  await refused('a,b\n,\n', 'data-malformed', /no row/);
  await refused('a,b,a\n1,2,3\n', 'data-malformed', /line 1 names two columns "a"/);
  await refused('1,2.5,\n3,4,\n', 'data-malformed', /line 1 holds numbers only; the first line must name/);
  await refused('a,b\n1,\u00002\n', 'data-malformed', /line 2 holds a NUL/);
  await refused('a,b\n1,2\n"x\n,3\n4,5\n', 'data-malformed', /line 3 and never closed/);
  await refused('a,b\n1,"x"y\n', 'data-malformed', /line 2 text follows a closing quote/);
  await refused('a,b\n1,5" pipe\n', 'data-malformed', /line 2 a quote stands in a field/);
  await refused(
    `${Array.from({ length: 16_385 }, (_, at) => `c${at}`).join(',')}\n`,
    'data-too-large',
    /16384/,
  );
});

test('too large: refused at the row beyond the limit, before the rest is asked for', async () => {
  const ten = `a,b\n${'1,2\n'.repeat(5)}`;
  assert.ok((await attempt(ten, 10)).ok);
  let asked = 0;
  async function* endless(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('a,b\n');
    for (; asked < 1000; asked += 1) yield Buffer.from('1,2\n'.repeat(50_000));
  }
  const result = await readTable(endless(), { cellsMax: 250_001 });
  assert.ok(!result.ok);
  assert.equal(result.refusal.code, 'data-too-large');
  assert.match(result.refusal.detail, /more than 250001 cells, at line 125002/);
  assert.ok(asked < 10, `${asked} blocks were asked for`);
});

test('a reader that fails: its error is thrown on', async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('a,b\n1,2\n');
    throw new Error('unplugged');
  }
  await assert.rejects(readTable(broken()), /unplugged/);
});

test('progress: bytes read, to the last one', async () => {
  const seen: number[] = [];
  await readTable(pieces(Buffer.from('a,b\n1,2\n'), 3), { onProgress: (bytes) => seen.push(bytes) });
  assert.deepEqual(seen, [3, 6, 8]);
});

test('fuzz: bytes of every kind are read or refused, never thrown on', async () => {
  const csv = fc
    .array(
      fc.constantFrom(
        ...[
          'a',
          'b',
          '1',
          '2,5',
          ',',
          ';',
          '\t',
          '|',
          '"',
          '\n',
          '\r\n',
          ' ',
          '\u00e9',
          '.',
          '-',
          'NA',
          '1/2/2004',
          ':',
        ],
      ),
    )
    .map((parts) => Buffer.from(parts.join('')));
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    csv,
    csv.map((text) => Buffer.concat([Buffer.from('x;y\n'), text])),
  );
  await fc.assert(
    fc.asyncProperty(bytes, fc.integer({ min: 1, max: 64 }), async (input, size) => {
      const result = await attempt(input, 1000, size);
      if (!result.ok) return assert.match(result.refusal.code, /^data-/);
      const { table, report } = result.value;
      assert.equal(table.rows, report.rows);
      assert.equal(new Set(table.columns.map(({ name }) => name)).size, table.columns.length);
      for (const [index, column] of table.columns.entries()) {
        const read = cells(column);
        assert.equal(read.length, table.rows);
        const { missing = 0, unreadable } = report.columns[index] ?? {};
        assert.equal(read.filter((cell) => cell === null).length, missing + (unreadable?.count ?? 0));
      }
      assert.deepEqual(JSON.parse(JSON.stringify(report)), report);
    }),
    { numRuns: 1000 },
  );
});

test('real: AirQuality, semicolons, decimal commas, blank tail', { skip: dataMissing }, async () => {
  const { table, report } = await readFile('air', 'AirQualityUCI_raw.csv');
  assert.equal(table.rows, 9357);
  const { delimiter, decimal, blankRows, emptyColumns, encoding, raggedRows } = report;
  assert.deepEqual(
    { delimiter, decimal, blankRows, emptyColumns, encoding, raggedRows },
    {
      delimiter: ';',
      decimal: ',',
      blankRows: 114,
      emptyColumns: [16, 17],
      encoding: 'utf-8',
      raggedRows: { short: 0, long: 0 },
    },
  );
  assert.deepEqual(report.joinedColumns, [{ name: 'Date Time', from: ['Date', 'Time'] }]);
  assert.equal(report.columns[0]?.dateFormat, 'DD/MM/YYYY HH.MM.SS');
  assert.equal(report.columns[0]?.dayFirstGuessed, undefined);
  assert.equal(table.columns.filter(({ kind }) => kind === 'numeric').length, 13);
  const times = cells(table.columns[0]);
  assert.deepEqual([times[0], times.at(-1)], ['2004-03-10T18:00:00.000Z', '2005-04-04T14:00:00.000Z']);
  assert.equal(cells(columnOf(table, 'AH'))[0], 0.7578);
});

test('real: a byte-order mark, quoted commas, points between semicolons, single-digit dates', {
  skip: dataMissing,
}, async () => {
  const ai4i = await readFile('industrial', 'ai4i2020_9col.csv');
  assert.deepEqual(
    [ai4i.report.byteOrderMark, ai4i.table.rows, ai4i.table.columns[0]?.name],
    [true, 10_000, 'UDI'],
  );
  assert.equal(ai4i.report.columns[2]?.distinct, 3);

  const titanic = await readFile('tabular', 'small_titanic.csv');
  assert.equal(titanic.table.rows, 38);
  assert.equal(cells(columnOf(titanic.table, 'name'))[0], 'Allen, Miss. Elisabeth Walton');
  assert.equal(titanic.report.columns.find(({ name }) => name === 'age')?.missing, 2);
  assert.ok(cells(columnOf(titanic.table, 'ticket')).includes('24160'));

  const iris = await readFile('tabular', 'Iris.csv');
  assert.deepEqual(
    [iris.table.rows, iris.table.columns.length, iris.report.columns[5]?.distinct],
    [150, 6, 3],
  );

  const skab = await readFile('industrial', 'skab', 'valve1_0.csv');
  assert.deepEqual([skab.report.delimiter, skab.report.decimal, skab.table.rows], [';', '.', 1147]);
  assert.deepEqual(kinds(skab.table).slice(0, 2), ['datetime: time', 'Accelerometer1RMS: numeric']);

  const rates = await readFile('finance', 'exchange_rate_daily.csv');
  assert.equal(rates.table.columns[0]?.kind, 'time');
  assert.equal(cells(rates.table.columns[0])[1], '1990-01-02T00:00:00.000Z');
  assert.equal(rates.table.columns.length, 9);
});
