// Why: the fast path reads requests in the place of node:http: the two must never disagree, whatever comes, and what
// is handed from one to the other must arrive whole. Needs no data folder.
// Trusts: node:http for what a request is. Must never: call a head plain that was not put before node:http too.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { createBodyReader } from '../../agent/api/body.ts';
import { readFastHead } from '../../agent/api/fast-head.ts';
import { createFastPath, type FastPathOptions } from '../../agent/api/fast-path.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { handClock } from '../agent/hand-clock.ts';

const path = '/v2/models/m/infer';
const head = (length: number, ...lines: string[]): string =>
  [`POST ${path} HTTP/1.1`, 'Host: x', `Content-Length: ${length}`, ...lines, '', ''].join('\r\n');
const plain = (body: string, ...lines: string[]): string => head(body.length, ...lines) + body;

interface Rig {
  port: number;
  /** What reached node:http's place, connection by connection. */
  node: string[];
  /** Bodies that were answered on the fast path. */
  answered: string[];
  /** Whether each was aborted when its answer was made. */
  gone: boolean[];
  refused: string[];
  /** Answers wait for it where it is set. */
  gate: Promise<void> | null;
  fast: ReturnType<typeof createFastPath>;
}

async function rig(options: Partial<FastPathOptions> = {}): Promise<Rig> {
  const reader = createBodyReader(systemClock, {
    bytesMax: 1024 * 1024,
    timeoutMs: 1_000,
    // For two bodies of a megabyte and the beginning of a third.
    totalBytesMax: 2 * 1024 * 1024 + 100 * 1024,
  });
  const made: Omit<Rig, 'port' | 'fast'> = { node: [], answered: [], gone: [], refused: [], gate: null };
  const fast = createFastPath({
    clock: systemClock,
    takes: () => true,
    answer: async ({ body, departure }) => {
      const text = Buffer.from(body.bytes).toString('latin1');
      await made.gate;
      body.done();
      made.answered.push(text);
      made.gone.push(departure.aborted);
      return { status: 200, body: Buffer.from(`<${text.slice(0, 10)}>`), headers: { 'x-made': 'here' } };
    },
    gather: ({ bodyBytes }) => reader.gather(bodyBytes),
    ahead: () => null,
    closing: () => false,
    toNode: (socket) => {
      const index = made.node.push('') - 1;
      socket.on('data', (chunk: Buffer) => {
        made.node[index] += chunk.toString('latin1');
        socket.write('node');
      });
      socket.on('end', () => socket.end());
      socket.on('error', () => undefined);
    },
    refuse: (error, socket) => {
      made.refused.push(error.code ?? '');
      socket.end('refused');
    },
    failed: (thrown) => assert.fail(String(thrown)),
    silentMs: 5_000,
    idleMs: 7_000,
    ...options,
  });
  const server = createServer({ allowHalfOpen: true, noDelay: true }, fast.take);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  after(() => {
    fast.end('all');
    server.close();
  });
  return Object.assign(made, { port: (server.address() as AddressInfo).port, fast });
}

interface Client {
  socket: Socket;
  /** All that came so far. */
  text(): string;
  /** Once so much of it came. */
  until(part: string | RegExp, times?: number): Promise<string>;
  closed: Promise<void>;
}

function client(port: number): Client {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  let text = '';
  socket.setEncoding('latin1').on('data', (piece: string) => {
    text += piece;
  });
  socket.on('error', () => undefined);
  socket.on('end', () => socket.end());
  after(() => socket.destroy());
  return {
    socket,
    text: () => text,
    until: async (part, times = 1) => {
      const seen = (): number => text.split(part).length - 1;
      while (seen() < times) await Promise.race([once(socket, 'data'), once(socket, 'close')]);
      return text;
    },
    closed: once(socket, 'close').then(() => undefined),
  };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('a plain request is answered here, with what node:http would put around it', async () => {
  const made = await rig();
  const { socket, until } = client(made.port);
  socket.write(plain('one'));
  const text = await until('<one>');
  assert.match(text, /^HTTP\/1\.1 200 OK\r\ncontent-type: application\/json\r\n/);
  assert.match(text, /\r\nx-made: here\r\ncontent-length: 5\r\n/);
  assert.match(text, /\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n/);
  assert.match(text, /\r\nConnection: keep-alive\r\nKeep-Alive: timeout=7\r\n\r\n<one>$/);
  socket.write(plain('two', 'Connection: Close'));
  const rest = (await until('<two>')).slice(text.length);
  assert.match(rest, /\r\nConnection: close\r\n\r\n<two>$/);
  assert.deepEqual([made.answered, made.node], [['one', 'two'], []]);
});

test('head and body in packets of their own, a body in many, and several requests in one', async () => {
  const made = await rig();
  const { socket, until } = client(made.port);
  socket.write(head(4));
  await pause(20);
  socket.write('body');
  await until('<body>');
  const large = Buffer.alloc(300_000, 'z').toString('latin1');
  socket.write(plain(large));
  await until('<zzzzzzzzzz>');
  socket.write(`${plain('a')}${plain('b')}${plain('c')}`);
  await until('<c>');
  // The rest of one and the beginning of the next in one packet.
  socket.write(`${plain('d')}${head(6)}fir`);
  await until('<d>');
  socket.write(`st!${plain('e')}`);
  const text = await until('<e>');
  assert.deepEqual(made.answered, ['body', large, 'a', 'b', 'c', 'd', 'first!', 'e']);
  assert.deepEqual(
    [...text.matchAll(/<(\w+!?)>/g)].map(([, one]) => one),
    ['body', 'zzzzzzzzzz', 'a', 'b', 'c', 'd', 'first!', 'e'],
  );
  assert.deepEqual(made.node, []);
});

test('what is not plain goes to node:http as it came, and all that follows it', async () => {
  for (const odd of [
    'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    `POST ${path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    plain('x', 'Expect: 100-continue'),
    plain('x', 'Content-Encoding: gzip'),
    plain('x', 'Some-Header: y'),
    `POST ${path} HT`,
    '\0',
  ]) {
    const made = await rig();
    const { socket, until } = client(made.port);
    socket.write(plain('first'));
    await until('<first>');
    socket.write(`${plain('second')}${odd}`);
    await until('node');
    assert.deepEqual(made.node, [odd]);
    socket.write(plain('third'));
    await until('node', 2);
    assert.deepEqual(made.node, [odd + plain('third')]);
    assert.deepEqual(made.answered, ['first', 'second']);
  }
});

test('a body that takes its time goes to node:http with all that came of it', async () => {
  const clock = handClock();
  const made = await rig({ clock });
  const { socket, until } = client(made.port);
  socket.write(head(200_000) + 'a'.repeat(100_000));
  await pause(50);
  assert.deepEqual(made.node, []);
  await clock.advance(1_000);
  await until('node');
  socket.write('b'.repeat(100_000));
  const whole = head(200_000) + 'a'.repeat(100_000) + 'b'.repeat(100_000);
  while (made.node.join('').length < whole.length) await pause(5);
  assert.deepEqual(made.node, [whole]);
  assert.deepEqual(made.answered, []);
});

test('a body that has no memory, or need not come, goes to node:http', async () => {
  const made = await rig();
  const { socket, until } = client(made.port);
  socket.write(head(1024 * 1024 + 1) + 'a'.repeat(10));
  await until('node');
  assert.deepEqual(made.node, [head(1024 * 1024 + 1) + 'a'.repeat(10)]);
  // Two of a megabyte are all that is there at once; another one finds none and is node:http's to refuse.
  const holders = [client(made.port), client(made.port)];
  for (const { socket: held } of holders) held.write(head(1024 * 1024) + 'h'.repeat(1024 * 1024 - 1));
  await pause(200);
  const third = client(made.port);
  const came = head(1024 * 1024) + 't'.repeat(200_000);
  third.socket.write(came);
  await third.until('node');
  while (made.node.join('').length < head(1024 * 1024 + 1).length + 10 + came.length) await pause(5);
  assert.equal(made.node[1], came);
  for (const { socket: held } of holders) held.write('!');
  await Promise.all(holders.map(({ until }) => until('<hhhhhhhhhh>')));
  assert.equal(made.answered.length, 2);
});

test('a client that is gone is told to whoever works for it; one that ends in a body is told so', async () => {
  const made = await rig();
  const cut = client(made.port);
  cut.socket.write(plain('whole'));
  await cut.until('<whole>');
  cut.socket.end(`${head(10)}abc`);
  await cut.closed;
  assert.match(cut.text(), /<whole>refused$/);
  assert.deepEqual(made.refused, ['HPE_INVALID_EOF_STATE']);
  let open = (): void => undefined;
  made.gate = new Promise((resolve) => {
    open = resolve;
  });
  const leavers = [client(made.port), client(made.port), client(made.port)];
  for (const { socket } of leavers) socket.write(plain('leaver'));
  await pause(50);
  leavers[0]?.socket.destroy();
  leavers[1]?.socket.end();
  leavers[2]?.socket.resetAndDestroy();
  await Promise.all(leavers.map(({ closed }) => closed));
  await pause(50);
  open();
  while (made.answered.length < 4) await pause(5);
  assert.deepEqual(made.gone, [false, true, true, true]);
});

test('who says nothing is asked to leave; who said something before is closed without a word', async () => {
  const made = await rig({ silentMs: 60, idleMs: 60 });
  const silent = client(made.port);
  await silent.closed;
  assert.equal(silent.text(), 'refused');
  assert.deepEqual(made.refused, ['ERR_HTTP_REQUEST_TIMEOUT']);
  const idle = client(made.port);
  idle.socket.write(plain('x'));
  await idle.closed;
  assert.match(idle.text(), /<x>$/);
  // An answer that takes longer is waited for.
  let open = (): void => undefined;
  made.gate = new Promise((resolve) => {
    open = resolve;
  });
  const patient = client(made.port);
  patient.socket.write(plain('y'));
  await pause(150);
  open();
  await patient.until('<y>');
  assert.equal(made.refused.length, 1);
});

test('closing: idle connections end, a body that comes goes to node:http, an answer says that it is the last', async () => {
  let closing = false;
  const made = await rig({ closing: () => closing });
  const [idle, coming, busy] = [client(made.port), client(made.port), client(made.port)];
  idle.socket.write(plain('idle'));
  await idle.until('<idle>');
  let open = (): void => undefined;
  made.gate = new Promise((resolve) => {
    open = resolve;
  });
  busy.socket.write(plain('busy'));
  coming.socket.write(`${head(4)}ab`);
  await pause(50);
  closing = true;
  made.fast.end('idle');
  await Promise.all([idle.closed, coming.until('node')]);
  assert.deepEqual(made.node, [`${head(4)}ab`]);
  open();
  assert.match(await busy.until('<busy>'), /\r\nConnection: close\r\n\r\n<busy>$/);
  await busy.closed;
});

test('a slow reader holds one answer, not as many as it asked for', async () => {
  const big = Buffer.alloc(4 * 1024 * 1024, 'b');
  let made = 0;
  const { port } = await rig({
    answer: async () => {
      made += 1;
      return { status: 200, body: [big, big] };
    },
  });
  const socket = connect({ port, host: '127.0.0.1' });
  after(() => socket.destroy());
  socket.pause();
  for (let index = 0; index < 20; index++) socket.write(plain('x'));
  await pause(300);
  assert.ok(made <= 3, `${made} answers were made for a reader that read none`);
  let came = 0;
  socket.on('data', (chunk: Buffer) => {
    came += chunk.length;
  });
  socket.resume();
  while (came < 20 * 8 * 1024 * 1024) await once(socket, 'data');
  assert.equal(made, 20);
});

/** Each as a head might have it, right or wrong. */
const requestLines = [
  `POST ${path} HTTP/1.1`,
  `POST ${path} HTTP/1.1`,
  'POST /v2/models/a.b_c-1/versions/1.0.0/infer HTTP/1.1',
  `GET ${path} HTTP/1.1`,
  `POST ${path} HTTP/1.0`,
  `POST  ${path} HTTP/1.1`,
  `POST ${path} HTTP/1.1 `,
  ` POST ${path} HTTP/1.1`,
  `POST ${path}?x=1 HTTP/1.1`,
  'POST /v2/models/m%20/infer HTTP/1.1',
  'POST http://x/v2/models/m/infer HTTP/1.1',
  `post ${path} HTTP/1.1`,
];
const names = [
  ...[
    'Host',
    'host',
    'Content-Length',
    'content-length',
    'Connection',
    'User-Agent',
    'Accept',
    'Authorization',
  ],
  ...['Content-Type', 'Accept-Encoding', 'X-Request-Id', 'Inference-Header-Content-Length', 'traceparent'],
  ...[
    'Transfer-Encoding',
    'Expect',
    'Upgrade',
    'Content-Length ',
    ' Host',
    'Ho\tst',
    '',
    'X-Other',
    'Content_Length',
  ],
];
const values = [
  ...['x', '3', '3', '3', '03', '+3', '-3', '3 ', '\t3', '3, 3', '3\t3', '3;', '0x3', '99999999999', ''],
  ...[
    'keep-alive',
    'Keep-Alive',
    'close',
    'keep-alive, upgrade',
    'chunked',
    'gzip, deflate;q=0.5',
    'a\x01b',
    'a\x7fb',
  ],
  ...[
    '\xe9',
    'a\rb',
    'a\nb',
    'Bearer abc',
    'application/json; charset="utf-8"',
    'x\r\n y',
    'a\0b',
    ' spaced  out ',
  ],
];
const ends = ['\r\n', '\r\n', '\r\n', '\r\n', '\r\n', '\n', '\r'];

interface Read {
  url: string | undefined;
  headers: unknown;
  body: string;
}

/** What node:http reads of the bytes, null where it refuses them. */
async function nodeReads(bytes: Buffer): Promise<Read | null> {
  let read: Read | null = null;
  const server = createHttpServer({ requireHostHeader: false }, (request, response) => {
    let body = '';
    request.setEncoding('latin1').on('data', (piece: string) => {
      body += piece;
    });
    request.on('end', () => {
      if (request.method === 'POST' && request.httpVersion === '1.1' && read === null)
        read = { url: request.url, headers: { ...request.headers }, body };
      response.end();
    });
  });
  server.on('clientError', (_error, socket) => socket.destroy());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  socket.on('error', () => undefined).resume();
  socket.end(bytes);
  await once(socket, 'close');
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
  return read;
}

test('every head that is called plain is read by node:http, and read the same', async () => {
  let plainHeads = 0;
  const line = fc.tuple(
    fc.constantFrom(...names),
    fc.constantFrom(': ', ': ', ': ', ':', ':  \t', ' : '),
    fc.constantFrom(...values),
    fc.constantFrom(...ends),
  );
  // Mostly good, so that what is wrong stands alone.
  const good = fc.constantFrom(
    'Host: x\r\nContent-Length: 3\r\n',
    'content-length: 3\r\nhost:x\r\nConnection: keep-alive\r\n',
    'Host: x\r\nContent-Length: \t3 \r\nUser-Agent: a b\r\n',
  );
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...requestLines),
      fc.constantFrom(...ends),
      good,
      fc.array(line, { maxLength: 2 }),
      fc.boolean(),
      async (first, end, base, lines, before) => {
        const more = lines.map((parts) => parts.join('')).join('');
        const text = `${first}${end}${before ? more + base : base + more}\r\n`;
        const at = text.indexOf('\r\n\r\n');
        const fastHead = at < 0 ? null : readFastHead(text.slice(0, at));
        if (fastHead === null) return;
        plainHeads += 1;
        const body = `${text.slice(at + 4)}abc`.slice(0, fastHead.bodyBytes);
        const read = await nodeReads(Buffer.from(text.slice(0, at + 4) + body, 'latin1'));
        assert.deepEqual(
          read,
          { url: fastHead.path, headers: { ...fastHead.headers }, body },
          JSON.stringify(text),
        );
      },
    ),
    { numRuns: 1_500 },
  );
  assert.ok(plainHeads > 50, `${plainHeads} heads were plain`);
});
