// Why: by which way files come, when the other one is taken, and HTTPS beside the bus at a real registry.
// Trusts: the registry's HTTPS. Must never: wait for a fixed time.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { createHttpsFetcher, spanOf } from '../../agent/bus/https-fetcher.ts';
import { chooseTransport, createTransport, type Way } from '../../agent/bus/transport.ts';
import { startRegistry } from '../../registry/registry.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { createHttpsDoor, type HttpsAsk, type HttpsDoor } from '../../shared/host/https-door.ts';
import { openLog } from '../../shared/host/log.ts';
import type { Fetcher, FetchPiece } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { newAuthority } from '../broker/fleet.ts';
import { addDevice, releaseWith } from '../support/downloading.ts';
import { workplace } from '../support/processes.ts';
import { silent } from './hand-clock.ts';

const MiB = 1024 * 1024;
const codeOf = (result: Result<unknown>): string => (result.ok ? 'ok' : result.refusal.code);

test('auto: three questions without an answer, or two tries that were too slow, and the other way is taken; and back', () => {
  const choice = chooseTransport('auto');
  const unanswered = (): boolean => choice.failed('fetch-timeout', choice.moment());
  assert.equal(choice.way(), 'mqtt');
  assert.deepEqual([unanswered(), unanswered()], [false, false]);
  choice.answered();
  assert.deepEqual([unanswered(), unanswered(), unanswered()], [false, false, true]);
  assert.equal(choice.way(), 'https');
  assert.equal(choice.tooSlow(), false);
  choice.answered();
  assert.equal(choice.tooSlow(), true);
  assert.equal(choice.way(), 'mqtt');
});

test('what fails together counts once; what another way would not cure, never', () => {
  const choice = chooseTransport('auto');
  const together = choice.moment();
  for (let ranges = 0; ranges < 5; ranges += 1) assert.equal(choice.failed('fetch-timeout', together), false);
  for (const code of ['bus-offline', 'fetch-busy', 'fetch-not-found', 'fetch-denied'])
    for (let times = 0; times < 5; times += 1) assert.equal(choice.failed(code, choice.moment()), false);
  assert.equal(choice.way(), 'mqtt');
});

test('a way that was named stays', () => {
  for (const mode of ['mqtt', 'https'] as const) {
    const choice = chooseTransport(mode);
    for (let times = 0; times < 9; times += 1) {
      choice.failed('fetch-timeout', choice.moment());
      choice.tooSlow();
    }
    assert.equal(choice.way(), mode);
  }
});

test('a broker that speaks no HTTPS is asked for it once; a way that was named stays refused', async () => {
  const asked: Way[] = [];
  const door: Fetcher = {
    range: async () => {
      asked.push('https');
      return refuse('not-implemented', 'the broker speaks no HTTPS');
    },
  };
  const bus: Fetcher = {
    range: async () => {
      asked.push('mqtt');
      return ok({ bytes: new Uint8Array(1), totalBytes: 1 });
    },
  };
  const target = { kind: 'blob', sha256: 'a'.repeat(64) } as const;
  for (const mode of ['auto', 'https'] as const) {
    asked.length = 0;
    const choice = chooseTransport(mode);
    const ways = { mqtt: bus, https: door };
    const transport = createTransport({ ways, choice, online: () => true, log: silent });
    for (let times = 0; times < 2; times += 1) transport.tooSlow?.();
    const answers = [await transport.range(target, 0, 1), await transport.range(target, 0, 1)];
    for (let times = 0; times < 9; times += 1) transport.tooSlow?.();
    answers.push(await transport.range(target, 0, 1));
    if (mode === 'auto') assert.deepEqual(asked, ['https', 'mqtt', 'mqtt', 'mqtt']);
    else assert.deepEqual(answers.map(codeOf), Array(3).fill('not-implemented'));
  }
});

test('files come by the way chosen, everything else over the bus, nothing without a session', async () => {
  const asked: string[] = [];
  let up = true;
  const by = (way: Way): Fetcher => ({
    range: async (target) => {
      asked.push(`${target.kind} ${way}`);
      return way === 'mqtt' && target.kind === 'blob'
        ? refuse('fetch-timeout', 'as told')
        : ok({ bytes: new Uint8Array(1), totalBytes: 1 });
    },
  });
  const fetcher = createTransport({
    ways: { mqtt: by('mqtt'), https: by('https') },
    choice: chooseTransport('auto'),
    online: () => up,
    log: silent,
  });
  const blob = { kind: 'blob', sha256: 'a'.repeat(64) } as const;
  for (let times = 0; times < 4; times += 1) await fetcher.range(blob, 0, 1);
  await fetcher.range({ kind: 'ways', sha256: blob.sha256, held: [] }, 0, 1);
  assert.deepEqual(asked, ['blob mqtt', 'blob mqtt', 'blob mqtt', 'blob https', 'ways mqtt']);
  up = false;
  assert.equal(codeOf(await fetcher.range(blob, 0, 1)), 'bus-offline');
  assert.equal(asked.length, 5);
});

test('an answer is one to the question that was asked, or none', () => {
  const span = (status: number, contentRange?: string, contentLength?: string) =>
    spanOf({ status, contentRange, contentLength }, 10, 5);
  assert.deepEqual(span(206, 'bytes 10-14/100'), { bytes: 5, totalBytes: 100 });
  assert.deepEqual(span(206, 'bytes 10-11/12'), { bytes: 2, totalBytes: 12 });
  for (const range of [
    'bytes 11-14/100',
    'bytes 10-15/100',
    'bytes 10-14/14',
    'bytes 10-9/100',
    'bytes 10-14/*',
    '',
    undefined,
  ])
    assert.equal(span(206, range), null, range);
  assert.equal(span(200, 'bytes 10-14/100', '100'), null, 'the whole file is no answer for its middle');
  assert.deepEqual(spanOf({ status: 200, contentRange: undefined, contentLength: '100' }, 0, 5), {
    bytes: 5,
    totalBytes: 100,
  });
});

/** What a server does with one question; an error ends it. */
type Told = (ask: HttpsAsk) => Error | null;

/** A door that answers as told. */
function doorOf(answers: Told[]): HttpsDoor {
  return {
    get: (ask) => {
      const failed = answers.shift()?.(ask);
      return {
        done: failed instanceof Error ? Promise.reject(failed) : Promise.resolve(),
        cancel: () => undefined,
      };
    },
    close: () => undefined,
  };
}

test('answers become results: refusals, patience with one that is busy, and what came before a break', async () => {
  const head = (status: number, more: { contentRange?: string; retryAfter?: string } = {}) => ({
    status,
    contentRange: more.contentRange,
    contentLength: undefined,
    retryAfter: more.retryAfter,
  });
  const answer = (...answers: Told[]) =>
    createHttpsFetcher({ door: doorOf(answers), clock: systemClock, entropy: systemEntropy }).range(
      { kind: 'blob', sha256: 'a'.repeat(64) },
      10,
      4,
    );
  const status =
    (code: number): Told =>
    (ask) => {
      ask.onHead(head(code));
      return null;
    };
  const part: Told = (ask) => {
    ask.onHead(head(206, { contentRange: 'bytes 10-13/100' }));
    ask.onBody(Uint8Array.of(1, 2));
    return null;
  };
  const codes = {
    400: 'fetch-invalid',
    403: 'fetch-denied',
    404: 'fetch-not-found',
    416: 'fetch-invalid',
    500: 'fetch-timeout',
    200: 'fetch-timeout',
  };
  for (const [code, expected] of Object.entries(codes))
    assert.equal(codeOf(await answer(status(Number(code)))), expected, code);
  assert.equal(codeOf(await answer(() => new Error('refused'))), 'fetch-timeout');
  for (const busy of [429, 503]) {
    const result = await answer(status(busy), status(busy), part);
    assert.ok(result.ok && result.value.bytes.length === 2);
  }
  const broken = await answer((ask) => {
    part(ask);
    return new Error('reset');
  });
  assert.deepEqual(broken, ok({ bytes: Uint8Array.of(1, 2), totalBytes: 100 }));
});

test('at a real registry: ranges by certificate, in pieces, on kept connections; no other server is asked', async (t) => {
  const place = workplace('transport');
  t.after(() => place.close());
  const address = { host: '127.0.0.1', port: 0 };
  const registry = await startRegistry({
    ...{ dataFolder: place.path('registry'), region: 'eu-west', http: address, mqtt: address },
    ...{ version: '0.0.0-test', clock: systemClock, entropy: systemEntropy, encoder: null },
    log: openLog({ level: 'error' }),
  });
  place.onClose(() => registry.stop());
  const file = randomBytes(MiB + 77);
  const sha256 = await releaseWith(registry, 'acme/big@1.0.0', file);
  const device = await addDevice(registry, 'acme/big@1.0.0');
  const stranger = await addDevice(registry, null);
  let trusted = true;
  const fetcherOf = (one: typeof device, authority = one.authority): Fetcher => {
    const door = createHttpsDoor({
      brokerUrl: () => registry.mqttUrl,
      credentials: () => ({ ca: authority, cert: one.cert, key: one.key }),
      trusts: () => trusted,
      clock: systemClock,
    });
    place.onClose(async () => door.close());
    return createHttpsFetcher({ door, clock: systemClock, entropy: systemEntropy });
  };
  const blob = { kind: 'blob', sha256 } as const;
  const mine = fetcherOf(device);
  const pieces: FetchPiece[] = [];
  const part = await mine.range(blob, 5, MiB, (piece) => void pieces.push(piece));
  assert.ok(part.ok);
  assert.equal(part.value.totalBytes, file.length);
  assert.equal(Buffer.compare(part.value.bytes, file.subarray(5, MiB + 5)), 0);
  assert.equal(Buffer.compare(Buffer.concat(pieces.map(({ bytes }) => bytes)), part.value.bytes), 0);
  const rest = await mine.range(blob, MiB + 5, MiB);
  assert.ok(rest.ok && Buffer.compare(rest.value.bytes, file.subarray(MiB + 5)) === 0);
  assert.equal(codeOf(await mine.range(blob, file.length + 1, 5)), 'fetch-invalid');
  assert.equal(codeOf(await fetcherOf(stranger).range(blob, 0, 5)), 'fetch-denied');
  const another = (await newAuthority()).certificatePem;
  assert.equal(codeOf(await fetcherOf(device, another).range(blob, 0, 5)), 'fetch-timeout');
  trusted = false;
  assert.equal(codeOf(await fetcherOf(device).range(blob, 0, 5)), 'fetch-timeout');
});
