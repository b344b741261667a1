// Why: metadata goes packed to whoever takes it packed, once packed for all, and exact to everybody.
// Trusts: node:http for what really travels; node:zlib to unpack. Must never: let a client unpack for the test.

import assert from 'node:assert/strict';
import { get, type IncomingHttpHeaders } from 'node:http';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { acceptsGzip, createPackedFiles } from '../../registry/api/packed.ts';
import { startRegistry } from '../../registry/registry.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { heardLog, temporaryFolder } from './support.ts';

function ask(
  url: string,
  token: string,
  accept: string | null,
): Promise<{ headers: IncomingHttpHeaders; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Bearer ${token}`,
      ...(accept === null ? {} : { 'accept-encoding': accept }),
    };
    get(url, { headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => resolve({ headers: response.headers, body: Buffer.concat(chunks) }));
    }).on('error', reject);
  });
}

test('a root comes packed where it is wanted so, and has the same bytes either way', async (t) => {
  const loopback = { host: '127.0.0.1', port: 0 };
  const registry = await startRegistry({
    dataFolder: temporaryFolder(t),
    region: 'test',
    http: loopback,
    mqtt: loopback,
    version: '0.0.0-test',
    clock: systemClock,
    entropy: systemEntropy,
    log: heardLog(),
  });
  t.after(() => registry.stop());
  const url = `${registry.httpUrl}/api/v1/metadata`;
  const exact = await registry.parts.repository.file('1.root.json');
  assert.ok(exact && exact.length > 1024);
  for (const name of ['1.root.json', 'region/1.root.json']) {
    const plain = await ask(`${url}/${name}`, registry.adminToken, null);
    assert.equal(plain.headers['content-encoding'], undefined);
    assert.equal(plain.headers['vary'], 'accept-encoding');
    for (const accept of ['gzip', 'br;q=1.0, gzip;q=0.5', '*']) {
      const packed = await ask(`${url}/${name}`, registry.adminToken, accept);
      assert.equal(packed.headers['content-encoding'], 'gzip', accept);
      assert.ok(packed.body.length < plain.body.length);
      assert.deepEqual(gunzipSync(packed.body), plain.body);
    }
    const unwanted = await ask(`${url}/${name}`, registry.adminToken, 'gzip;q=0, br');
    assert.equal(unwanted.headers['content-encoding'], undefined);
    assert.deepEqual(unwanted.body, plain.body);
  }
  // Small, and the only name whose bytes change.
  const timestamp = await ask(`${url}/timestamp.json`, registry.adminToken, 'gzip');
  assert.equal(timestamp.headers['content-encoding'], undefined);
  assert.deepEqual(
    new Uint8Array(timestamp.body),
    new Uint8Array((await registry.parts.repository.file('timestamp.json')) ?? []),
  );
});

test('Accept-Encoding is read as RFC 9110 says', () => {
  for (const [header, expected] of [
    [undefined, false],
    ['', false],
    ['identity', false],
    ['gzip', true],
    ['GZIP', true],
    ['x-gzip', true],
    ['gzip;q=0', false],
    ['gzip;q=0.000', false],
    ['gzip; q=0.001', true],
    ['*', true],
    ['*;q=0', false],
    ['*, gzip;q=0', false],
    ['gzipped', false],
    ['gzip;q=nonsense', false],
  ] as const) {
    assert.equal(acceptsGzip(header), expected, header);
  }
});

test('a file is packed once for many, forgotten within a bound, and tried again after a failure', async () => {
  const packed: string[] = [];
  let failing = true;
  const files = createPackedFiles(async (bytes) => {
    await Promise.resolve();
    packed.push(Buffer.from(bytes).toString());
    if (failing) throw new Error('no memory');
    return bytes;
  }, 10);
  const file = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));
  await assert.rejects(files.get('a', file('aaaa')));
  failing = false;
  packed.length = 0;
  await Promise.all([
    files.get('a', file('aaaa')),
    files.get('a', file('aaaa')),
    files.get('b', file('bbbb')),
  ]);
  assert.deepEqual(packed, ['aaaa', 'bbbb']);
  await files.get('a', file('aaaa'));
  // Twelve bytes are too many: b was not used for the longest time.
  await files.get('c', file('cccc'));
  await files.get('a', file('aaaa'));
  await files.get('c', file('cccc'));
  assert.deepEqual(packed, ['aaaa', 'bbbb', 'cccc']);
  await files.get('b', file('bbbb'));
  assert.deepEqual(packed, ['aaaa', 'bbbb', 'cccc', 'bbbb']);
});
