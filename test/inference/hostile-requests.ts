// Why: what a hostile client may send, as data: each with what it must get. Trusts: nothing; that is the point.
// Must never: list a request whose answer would be right.

import { deflateRawSync, gzipSync } from 'node:zlib';

export interface Hostile {
  name: string;
  /** All bytes of the connection. */
  bytes: Buffer;
  /** Statuses that are right; 400 where absent. `null`: closed without an answer. */
  status?: readonly (number | null)[];
  /** The server waits its whole time for the rest. */
  slow?: boolean;
  /** The client closes its end after the bytes. */
  gone?: boolean;
}

type Headers = readonly (readonly [string, string])[];
const host: Headers = [
  ['Host', 'x'],
  ['Connection', 'close'],
];

function post(model: string, body: Buffer | string, headers: Headers = []): Buffer {
  const bytes = Buffer.from(body);
  const length: Headers = headers.some(([name]) => /^(content-length|transfer-encoding)$/i.test(name))
    ? []
    : [['Content-Length', String(bytes.length)]];
  const lines = [...host, ...length, ...headers].map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([
    Buffer.from(`POST /v2/models/${model}/infer HTTP/1.1\r\n${lines.join('')}\r\n`, 'latin1'),
    bytes,
  ]);
}

const input = (datatype: string, shape: string, data: string, more = ''): string =>
  `{"name":"x","datatype":${JSON.stringify(datatype)},"shape":${shape},"data":${data}${more}}`;
const asked = (tensor: string, more = ''): string => `{"inputs":[${tensor}]${more}}`;
const goodInt = input('INT64', '[1]', '[1]');
export const goodBody = asked(input('INT64', '[2]', '[9007199254740993,-1]'));
export const goodRequest = post('ints', goodBody);

const json = (model: string, cases: Record<string, string | Buffer>, group = 'JSON'): Hostile[] =>
  Object.entries(cases).map(([name, body]) => ({ name: `${group}: ${name}`, bytes: post(model, body) }));

const deep = 10_000;
const documents = json('ints', {
  empty: '',
  'a brace': '{',
  null: 'null',
  list: '[]',
  string: '"x"',
  number: '1',
  'without inputs': '{}',
  'no inputs': '{"inputs":[]}',
  'inputs null': '{"inputs":null}',
  'inputs an object': '{"inputs":{}}',
  'cut off': goodBody.slice(0, -1),
  'a second document': goodBody + goodBody,
  'a comma behind': `${goodBody},`,
  'a comma too many': asked(`${goodInt},`),
  'a byte order mark': `\ufeff${goodBody}`,
  'UTF-16': Buffer.from(goodBody, 'utf16le'),
  'zeros behind': Buffer.concat([Buffer.from(goodBody), Buffer.alloc(8)]),
  'single quotes': goodBody.replaceAll('"', "'"),
  'a comment': `${goodBody}//`,
  'deep lists': '['.repeat(deep),
  'deep objects': '{"a":'.repeat(deep),
  'deep lists, closed': asked(goodInt, `,"z":${'['.repeat(deep)}${']'.repeat(deep)}`),
  'deep objects, closed': asked(goodInt, `,"z":${'{"a":'.repeat(deep)}1${'}'.repeat(deep)}`),
  'deep data': asked(input('INT64', '[1]', `${'['.repeat(deep)}1${']'.repeat(deep)}`)),
  'deep shape': asked(input('INT64', `${'['.repeat(deep)}1${']'.repeat(deep)}`, '[1]')),
  'deep parameters': asked(goodInt, `,"parameters":{"a":${'['.repeat(deep)}${']'.repeat(deep)}}`),
  'parameters in parameters': asked(goodInt, ',"parameters":{"a":{}}'),
  'a long list as parameter': asked(goodInt, `,"parameters":{"a":[${'{},'.repeat(500_000)}{}]}`),
  'parameters a list': asked(goodInt, ',"parameters":[]'),
  'a parameter null': asked(goodInt, ',"parameters":{"a":null}'),
  'ten thousand keys': asked(goodInt, `,"z":{${Array.from({ length: deep }, (_, n) => `"${n}":0`)}}`),
  'a long key': asked(goodInt, `,"${'k'.repeat(deep)}":0`),
  'two thousand inputs': `{"inputs":[${Array.from({ length: 2_000 }, (_, n) => goodInt.replace('"x"', `"x${n}"`))}]}`,
  'two thousand outputs': asked(
    goodInt,
    `,"outputs":[${Array.from({ length: 2_000 }, (_, n) => `{"name":"${n}"}`)}]`,
  ),
  'a key twice': asked(goodInt, `,"inputs":[${goodInt}]`),
  'a key twice, once escaped': asked(goodInt, `,"\\u0069nputs":[${goodInt}]`),
  'an input twice': asked(`${goodInt},${goodInt}`),
  'data twice': asked(input('INT64', '[1]', '[1]', ',"data":[2]')),
  'shape twice': asked(input('INT64', '[1]', '[1]', ',"shape":[1]')),
  'an output twice': asked(goodInt, ',"outputs":[{"name":"y"},{"name":"y"}]'),
  'an unknown output': asked(goodInt, ',"outputs":[{"name":"z"}]'),
  'an output without name': asked(goodInt, ',"outputs":[{}]'),
  'id a number': asked(goodInt, ',"id":7'),
  'a long id': asked(goodInt, `,"id":"${'i'.repeat(deep)}"`),
});

type Parts = [datatype: string, shape: string, data: string];
const tensor = (group: string, cases: Record<string, Parts>): Hostile[] =>
  json(
    'ints',
    Object.fromEntries(Object.entries(cases).map(([name, parts]) => [name, asked(input(...parts))])),
    group,
  );

const numbers = tensor('numbers', {
  'NaN bare': ['INT64', '[1]', '[NaN]'],
  'Infinity bare': ['INT64', '[1]', '[Infinity]'],
  'NaN in quotes': ['INT64', '[1]', '["NaN"]'],
  fraction: ['INT64', '[1]', '[1.5]'],
  'beyond int64': ['INT64', '[1]', '[9223372036854775808]'],
  'below int64': ['INT64', '[1]', '[-9223372036854775809]'],
  'a large exponent': ['INT64', '[1]', '[1e400]'],
  'an absurd exponent': ['INT64', '[1]', `[1e${'9'.repeat(deep)}]`],
  'a million digits': ['INT64', '[1]', `[${'9'.repeat(1_000_000)}]`],
  'a leading zero': ['INT64', '[1]', '[01]'],
  'a plus': ['INT64', '[1]', '[+1]'],
  hexadecimal: ['INT64', '[1]', '[0x10]'],
  'a lone minus': ['INT64', '[1]', '[-]'],
  'a lone point': ['INT64', '[1]', '[1.]'],
  null: ['INT64', '[1]', '[null]'],
  boolean: ['INT64', '[1]', '[true]'],
  'a string': ['INT64', '[1]', '["1"]'],
  'too few': ['INT64', '[3]', '[1,2]'],
  'too many': ['INT64', '[1]', '[1,2]'],
  'data null': ['INT64', '[1]', 'null'],
  'data an object': ['INT64', '[1]', '{"0":1}'],
  'data a string': ['INT64', '[1]', '"1"'],
  'data bare': ['INT64', '[1]', '1'],
  'nested too deep': ['INT64', '[1]', '[[1]]'],
  ragged: ['INT64', '[2,2]', '[[1,2,3],[4]]'],
  'half nested': ['INT64', '[2,2]', '[[1,2],3,4]'],
  'the wrong rank': ['INT64', '[1,1]', '[1]'],
  'another datatype': ['INT32', '[1]', '[1]'],
});

const shapes = tensor('shape', {
  negative: ['INT64', '[-1]', '[1]'],
  'twice negative': ['INT64', '[-1,-1]', '[1]'],
  fractional: ['INT64', '[1.5]', '[1]'],
  'a string': ['INT64', '["1"]', '[1]'],
  null: ['INT64', '[null]', '[1]'],
  'no list': ['INT64', '1', '[1]'],
  overflowing: ['INT64', '[4294967296,4294967296]', '[1]'],
  'overflowing by four': ['INT64', '[65536,65536,65536,65536]', '[]'],
  'overflowing to one': ['INT64', '[4294967297,4294967297]', '[1]'],
  'overflowing beside zero': ['INT64', '[0,9007199254740991,9007199254740991]', '[]'],
  'beyond 2^53': ['INT64', '[9007199254740993]', '[1]'],
  'beyond 2^64': ['INT64', '[18446744073709551617]', '[1]'],
  'a large exponent': ['INT64', '[1e308]', '[1]'],
  'a promise': ['INT64', '[500000000]', '[1]'],
  'a hundred dimensions': ['INT64', `[${'1,'.repeat(99)}1]`, '[1]'],
});

const datatypes = tensor(
  'datatype',
  Object.fromEntries(
    ['', 'int64', 'BF16', 'STRING', '__proto__', 'constructor', 'INT64\u0000', 'x'.repeat(deep)].map(
      (one) => [JSON.stringify(one.slice(0, 20)), [one, '[1]', '[1]']],
    ),
  ),
);

const names = json('ints', {
  'name with NUL': asked(goodInt.replace('"x"', '"x\\u0000"')),
  'name half a surrogate pair': asked(goodInt.replace('"x"', '"x\\ud800"')),
  'name too long': asked(goodInt.replace('"x"', `"${'x'.repeat(deep)}"`)),
  'name empty': asked(goodInt.replace('"x"', '""')),
  'name a number': asked(goodInt.replace('"x"', '1')),
  'name __proto__': asked(goodInt.replace('"x"', '"__proto__"')),
  'no name': asked('{"datatype":"INT64","shape":[1],"data":[1]}'),
  'no shape': asked('{"name":"x","datatype":"INT64","data":[1]}'),
  'no datatype': asked('{"name":"x","shape":[1],"data":[1]}'),
  'no data': asked('{"name":"x","datatype":"INT64","shape":[1]}'),
});

const around = (bytes: number[]): Buffer => {
  const [before = '', behind = ''] = asked(input('BYTES', '[1]', '["@"]')).split('@');
  return Buffer.concat([Buffer.from(before), Buffer.from(bytes), Buffer.from(behind)]);
};
const strings = json('texts', {
  'NUL escaped': asked(input('BYTES', '[1]', '["a\\u0000b"]')),
  'NUL raw': around([0x61, 0, 0x62]),
  'half a surrogate pair': asked(input('BYTES', '[1]', '["\\ud800"]')),
  'the other half': asked(input('BYTES', '[1]', '["\\udc00x"]')),
  'no UTF-8': around([0xff]),
  'overlong UTF-8': around([0xc0, 0x80]),
  'a surrogate in UTF-8': around([0xed, 0xa0, 0x80]),
  'a line end': around([0x0a]),
  'a wrong escape': asked(input('BYTES', '[1]', '["\\x41"]')),
  'half an escape': asked(input('BYTES', '[1]', '["\\u12"]')),
  'a number': asked(input('BYTES', '[1]', '[1]')),
  'more than a million': asked(input('BYTES', '[1000001]', `[${'"",'.repeat(1_000_000)}""]`)),
});
const flags = json('flags', {
  'BOOL 2': asked(input('BOOL', '[1]', '[2]')),
  'BOOL a string': asked(input('BOOL', '[1]', '["true"]')),
  'BOOL null': asked(input('BOOL', '[1]', '[null]')),
  'BOOL objects': asked(input('BOOL', '[1]', `[[${'{},'.repeat(300_000)}{}]]`)),
});

const lengthHeader = 'Inference-Header-Content-Length';
const raw = (sizes: string, shape = '[1,2]', datatype = 'FP32', more = ''): string =>
  `{"name":"x","shape":${shape},"datatype":"${datatype}","parameters":{"binary_data_size":${sizes}}${more}}`;

/** JSON, tail, and the header's value: the JSON's own length where it is not given. */
function binary(model: string, text: string, tail: Buffer, length?: string | string[]): Buffer {
  const values = length === undefined ? [String(Buffer.byteLength(text))] : [length].flat();
  return post(
    model,
    Buffer.concat([Buffer.from(text), tail]),
    values.map((value) => [lengthHeader, value] as const),
  );
}

const zeros = (bytes: number): Buffer => Buffer.alloc(bytes);
const eight = asked(raw('8'));
const texts = (size: number, shape = '[1]'): string => asked(raw(String(size), shape, 'BYTES'));
const second = raw('4', '[1]').replace('"x"', '"x2"');
const first = raw('4', '[1]').replace('"x"', '"x1"');
const binaries: Hostile[] = Object.entries({
  ...Object.fromEntries(
    [
      '-1',
      '-0',
      '+8',
      'x',
      '1e2',
      '0x10',
      '1.0',
      '8,8',
      '8 8',
      '9'.repeat(30),
      '9007199254740993',
      'NaN',
      '',
    ].map((value) => [`length ${value}`, binary('floats', eight, zeros(8), value)]),
  ),
  'length twice': binary('floats', eight, zeros(8), [String(eight.length), String(eight.length)]),
  'length twice, different': binary('floats', eight, zeros(8), [String(eight.length), '0']),
  'length beyond the body': binary('floats', eight, zeros(8), String(eight.length + 9)),
  'length of the whole body': binary('floats', eight, zeros(8), String(eight.length + 8)),
  'length too short': binary('floats', eight, zeros(8), String(eight.length - 1)),
  'length 1': binary('floats', eight, zeros(8), '1'),
  'length without binary inputs': binary('ints', goodBody, zeros(8)),
  'length too short for JSON alone': binary('ints', goodBody, zeros(0), String(goodBody.length - 1)),
  ...Object.fromEntries(
    [
      '-8',
      '8.5',
      '"8"',
      'true',
      'null',
      '[8]',
      '1e300',
      '9007199254740991',
      '18446744073709551624',
      '0',
      '4',
      '7',
      '12',
      '16',
    ].map((size) => [`size ${size}`, binary('floats', asked(raw(size)), zeros(8))]),
  ),
  'tail missing': binary('floats', eight, zeros(0)),
  'tail short': binary('floats', eight, zeros(7)),
  'tail long': binary('floats', eight, zeros(9)),
  'size and data': binary('floats', asked(raw('8', '[1,2]', 'FP32', ',"data":[1,2]')), zeros(8)),
  'data and no size': binary('floats', asked(input('FP32', '[1,2]', '[1,2]')), zeros(8)),
  'size without the header': post('floats', eight),
  'size without the header, bytes behind': post('floats', Buffer.concat([Buffer.from(eight), zeros(8)])),
  'size twice': binary('floats', asked(raw('8,"binary_data_size":8')), zeros(8)),
  'a file': binary(
    'floats',
    eight.replace('"binary_data_size":8', '"binary_data_file":"/etc/hostname"'),
    zeros(8),
  ),
  'an overflowing shape': binary('floats', asked(raw('8', '[4294967296,4294967296]')), zeros(8)),
  'a shape of 2^53': binary('floats', asked(raw('8', '[4503599627370496,2]')), zeros(8)),
  'a negative shape': binary('floats', asked(raw('8', '[-1,2]')), zeros(8)),
  'another datatype': binary('floats', asked(raw('8', '[1,2]', 'INT32')), zeros(8)),
  'sums short': binary('pair', asked(`${first},${second}`), zeros(7)),
  'sums long': binary('pair', asked(`${first},${second}`), zeros(9)),
  'the first takes all': binary('pair', asked(`${first.replace(':4', ':8')},${second}`), zeros(8)),
  'BOOL 2': binary('flags', asked(raw('1', '[1]', 'BOOL')), Buffer.from([2])),
  'BOOL 255': binary('flags', asked(raw('1', '[1]', 'BOOL')), Buffer.from([255])),
  'string beyond its bytes': binary('texts', texts(5), Buffer.from([2, 0, 0, 0, 0x61])),
  'string of 4 GiB': binary('texts', texts(5), Buffer.from([255, 255, 255, 255, 0x61])),
  'string with a byte behind': binary('texts', texts(6), Buffer.from([1, 0, 0, 0, 0x61, 0x62])),
  'string with half a length': binary('texts', texts(3), Buffer.from([1, 0, 0])),
  'string with NUL': binary('texts', texts(5), Buffer.from([1, 0, 0, 0, 0])),
  'string without UTF-8': binary('texts', texts(5), Buffer.from([1, 0, 0, 0, 0xff])),
  'string in big-endian': binary('texts', texts(5), Buffer.from([0, 0, 0, 1, 0x61])),
  'fewer strings than the shape': binary('texts', texts(5, '[2]'), Buffer.from([1, 0, 0, 0, 0x61])),
  'more than a million strings': binary('texts', texts(4_000_004, '[1000001]'), zeros(4_000_004)),
  'raw body too short': binary('floats', '', zeros(4), '0'),
  'raw body odd': binary('floats', '', zeros(9), '0'),
  'raw body for two inputs': binary('pair', '', zeros(8), '0'),
  'raw body without UTF-8': binary('texts', '', Buffer.from([0xff]), '0'),
  'raw body with NUL': binary('texts', '', zeros(1), '0'),
  'raw body of JSON': binary('ints', `${goodBody} `, zeros(0), '0'),
  'binary_data a string': binary(
    'floats',
    asked(raw('8'), ',"outputs":[{"name":"y","parameters":{"binary_data":"no"}}]'),
    zeros(8),
  ),
  'binary_data_output 2': binary(
    'floats',
    asked(raw('8'), ',"parameters":{"binary_data_output":2}'),
    zeros(8),
  ),
}).map(([name, bytes]) => ({ name: `binary: ${name}`, bytes }));

const start = 'POST /v2/models/ints/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n';
const text = (head: string, body = ''): Buffer => Buffer.from(`${head}\r\n${body}`, 'latin1');
const chunked = (body: string): Buffer => text(`${start}Transfer-Encoding: chunked\r\n`, body);
const framing: Hostile[] = Object.entries({
  'Content-Length negative': text(`${start}Content-Length: -1\r\n`),
  'Content-Length not a number': text(`${start}Content-Length: x\r\n`),
  'Content-Length with a plus': text(`${start}Content-Length: +5\r\n`, goodBody),
  'Content-Length in hexadecimal': text(`${start}Content-Length: 0x10\r\n`, goodBody),
  'Content-Length beyond 2^64': text(`${start}Content-Length: 99999999999999999999\r\n`),
  'Content-Length as a list': text(`${start}Content-Length: 5, 5\r\n`, goodBody),
  'Content-Length twice': text(`${start}Content-Length: 5\r\nContent-Length: 6\r\n`, goodBody),
  'Content-Length too short': text(`${start}Content-Length: 5\r\n`, goodBody),
  'Content-Length and chunked': text(
    `${start}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n`,
    `${goodBody.length.toString(16)}\r\n${goodBody}\r\n0\r\n\r\n`,
  ),
  'chunked and Content-Length': text(
    `${start}Transfer-Encoding: chunked\r\nContent-Length: ${goodBody.length}\r\n`,
    goodBody,
  ),
  'chunked twice': text(`${start}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n`, '0\r\n\r\n'),
  'not quite chunked': text(`${start}Transfer-Encoding: xchunked\r\n`, goodBody),
  'chunked in the middle': text(`${start}Transfer-Encoding: chunked, identity\r\n`, '0\r\n\r\n'),
  'chunk size no number': chunked('zz\r\n'),
  'chunk size negative': chunked('-1\r\n'),
  'chunk size beyond 2^64': chunked('fffffffffffffffff\r\n'),
  'chunk size 0x': chunked('0x5\r\nhello\r\n0\r\n\r\n'),
  'chunk longer than its size': chunked(`2\r\n${goodBody}\r\n0\r\n\r\n`),
  'chunks of nothing': chunked('0\r\n\r\n'),
  'a space before the colon': text(`${start}Content-Length : 5\r\n`, goodBody),
  'a header without colon': text(`${start}hello\r\n`),
  'NUL in a header': text(`${start}X: a\0b\r\n`),
  'no Host': Buffer.from(
    'POST /v2/models/ints/infer HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n',
  ),
  'no method of HTTP': Buffer.from('HELLO / HTTP/1.1\r\nHost: x\r\n\r\n'),
  'HTTP/2': Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  'HTTP/9': Buffer.from('GET / HTTP/9.9\r\nHost: x\r\n\r\n'),
  TLS: Buffer.from('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 'latin1'),
  'a broken path': Buffer.from('GET /v2/models/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
  'a path of no UTF-8': Buffer.from('GET /v2/models/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
}).map(([name, bytes]) => ({ name: `HTTP: ${name}`, bytes }));

const large = 4 * 1024 * 1024 + 1;
const bomb = Buffer.concat(Array<Buffer>(64).fill(gzipSync(Buffer.alloc(16 * 1024 * 1024), { level: 1 })));
const gz = (body: Buffer | string, coding = 'gzip'): Buffer =>
  post('ints', body, [['Content-Encoding', coding]]);
const packedGood = gzipSync(goodBody);
const withStatus: Hostile[] = [
  {
    name: 'size: announced too large',
    bytes: text(`${start}Content-Length: ${large}\r\n`),
    status: [413],
    slow: true,
  },
  { name: 'size: sent too large', bytes: post('ints', zeros(large)), status: [413] },
  {
    name: 'size: chunked too large',
    bytes: chunked(`${large.toString(16)}\r\n${' '.repeat(large)}\r\n0\r\n\r\n`),
    status: [413],
  },
  { name: 'size: headers too large', bytes: text(`${start}X: ${'x'.repeat(40_000)}\r\n`), status: [431] },
  {
    name: 'size: path too large',
    bytes: Buffer.from(`GET /${'x'.repeat(40_000)} HTTP/1.1\r\n\r\n`),
    status: [431],
  },
  {
    name: 'size: chunk extension too large',
    bytes: chunked(`5;${'x'.repeat(40_000)}\r\nhello\r\n0\r\n\r\n`),
    status: [413],
  },
  { name: 'gzip: a bomb of 1 GiB', bytes: gz(bomb), status: [413] },
  { name: 'gzip: just too large', bytes: gz(gzipSync(zeros(large))), status: [413] },
  { name: 'gzip: cut off', bytes: gz(packedGood.subarray(0, -9)) },
  { name: 'gzip: cut off in its end', bytes: gz(packedGood.subarray(0, -1)) },
  { name: 'gzip: empty', bytes: gz('') },
  { name: 'gzip: of nothing', bytes: gz(gzipSync('')) },
  { name: 'gzip: not packed', bytes: gz(goodBody) },
  { name: 'gzip: packed twice', bytes: gz(gzipSync(packedGood)) },
  { name: 'gzip: bytes behind', bytes: gz(Buffer.concat([packedGood, Buffer.from('hello world')])) },
  { name: 'gzip: zeros behind', bytes: gz(Buffer.concat([packedGood, zeros(100)])) },
  { name: 'gzip: a wrong checksum', bytes: gz(Buffer.concat([packedGood.subarray(0, -8), zeros(8)])) },
  { name: 'gzip: said to be deflate', bytes: gz(packedGood, 'deflate') },
  { name: 'deflate: raw', bytes: gz(deflateRawSync(goodBody), 'deflate') },
  { name: 'coding: twice', bytes: gz(packedGood, 'gzip, gzip'), status: [415] },
  { name: 'coding: unknown', bytes: gz(packedGood, 'br'), status: [415] },
  { name: 'coding: none but packed', bytes: post('ints', packedGood) },
  { name: 'slow: no body', bytes: text(`${start}Content-Length: 10\r\n`), status: [408], slow: true },
  {
    name: 'slow: half a body',
    bytes: text(`${start}Content-Length: 10\r\n`, '{'),
    status: [408],
    slow: true,
  },
  { name: 'slow: half a chunk', bytes: chunked('ff\r\nhello'), status: [408], slow: true },
  { name: 'slow: no last chunk', bytes: chunked('5\r\nhello\r\n'), status: [408], slow: true },
  {
    name: 'gone: half a body',
    bytes: text(`${start}Content-Length: 10\r\n`, '{'),
    status: [400, null],
    gone: true,
  },
  { name: 'gone: half a chunk', bytes: chunked('ff\r\nhello'), status: [400, null], gone: true },
  { name: 'gone: half a head', bytes: Buffer.from(start), status: [400, null], gone: true },
  {
    name: 'path: NUL',
    bytes: Buffer.from('GET /v2/models/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
    status: [404],
  },
  {
    name: 'path: up',
    bytes: Buffer.from('GET /v2/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
    status: [404],
  },
  {
    name: 'path: __proto__',
    bytes: Buffer.from('GET /__proto__ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
    status: [404],
  },
  {
    name: 'smuggling: a request in a body that ends early',
    bytes: text(`${start}Content-Length: 4\r\n`, 'null' + 'GET /v2 HTTP/1.1\r\n'),
    status: [400],
  },
];

export const hostileRequests: readonly Hostile[] = [
  ...documents,
  ...numbers,
  ...shapes,
  ...datatypes,
  ...names,
  ...strings,
  ...flags,
  ...binaries,
  ...framing,
  ...withStatus,
];

/** Odd, and still served: the protocol does not forbid them. */
export const oddRequests: readonly { name: string; bytes: Buffer }[] = [
  ...['text/plain', 'multipart/form-data; boundary=x', 'application/octet-stream', ';;;', ''].map((type) => ({
    name: `content type ${JSON.stringify(type)}`,
    bytes: post('ints', goodBody, [['Content-Type', type]]),
  })),
  { name: 'the header without binary inputs', bytes: binary('ints', goodBody, zeros(0)) },
  { name: 'white space', bytes: post('ints', ` \r\n\t${goodBody}\n`) },
  {
    name: 'one byte in each chunk',
    bytes: text(
      `${start}Transfer-Encoding: chunked\r\n`,
      `${[...goodBody].map((byte) => `1\r\n${byte}\r\n`).join('')}0\r\n\r\n`,
    ),
  },
  {
    name: 'trailers behind the chunks',
    bytes: text(
      `${start}Transfer-Encoding: chunked\r\n`,
      `${goodBody.length.toString(16)};ext=1\r\n${goodBody}\r\n0\r\n${lengthHeader}: 5\r\n\r\n`,
    ),
  },
  {
    name: 'an odd Accept-Encoding',
    bytes: post('ints', goodBody, [['Accept-Encoding', 'gzip;q=x;;,,=,*;q']]),
  },
  { name: 'Expect', bytes: post('ints', goodBody, [['Expect', '100-continue']]) },
];
