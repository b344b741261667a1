// Why: the Fetcher over MQTT against frames that are lost, late, foreign or lies.
// Trusts: a bus and a clock moved by hand. Must never: wait for real time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type BusFetcher, createFetcher, fetchWhole } from '../../agent/bus/fetcher.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Bus, FetchTarget } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { encodeFrame, type FrameStatus } from '../../shared/wire/frames.ts';
import { fetchRequestSchema, parseMessage } from '../../shared/wire/messages.ts';
import { countingEntropy, type HandClock, handClock, settle, silent } from './hand-clock.ts';

interface SentRequest {
  requestId: number;
  offset: number;
  length: number;
  target: FetchTarget;
}

function fetcherScene(): {
  clock: HandClock;
  fetcher: BusFetcher;
  sent: SentRequest[];
  line: { up: boolean };
  answer(
    request: SentRequest | undefined,
    frame: { offset: number; total: number; bytes: number[]; status?: FrameStatus },
  ): void;
} {
  const clock = handClock();
  const sent: SentRequest[] = [];
  const line = { up: true };
  const bus: Bus & { connected(): boolean } = {
    connected: () => line.up,
    publish: async (_topic, payload) => {
      const request = parseMessage(fetchRequestSchema, payload);
      assert.ok(request.ok);
      sent.push(request.value);
    },
    subscribe: () => Promise.reject(new Error('not used')),
  };
  const parts = {
    bus,
    region: 'r',
    deviceId: 'd'.repeat(32),
    clock,
    entropy: countingEntropy(),
    log: silent,
  };
  const fetcher = createFetcher({ ...parts, timeoutMs: 1_000 });
  return {
    clock,
    fetcher,
    sent,
    line,
    answer: (request, frame) => {
      assert.ok(request);
      const payload = encodeFrame({
        status: frame.status ?? 'data',
        requestId: request.requestId,
        offset: frame.offset,
        totalBytes: frame.total,
        payload: Uint8Array.from(frame.bytes),
      });
      fetcher.receive({ topic: 't', payload, retained: false });
    },
  };
}

const blob: FetchTarget = { kind: 'blob', sha256: 'a'.repeat(64) };

function bytesOf(result: Result<{ bytes: Uint8Array; totalBytes: number }>): number[] | string {
  return result.ok ? [...result.value.bytes] : result.refusal.code;
}

test('fetcher: frames of one request become its bytes', async () => {
  const { fetcher, sent, answer } = fetcherScene();
  const asked = fetcher.range(blob, 10, 4);
  await settle();
  answer(sent[0], { offset: 10, total: 100, bytes: [1, 2] });
  answer(sent[0], { offset: 12, total: 100, bytes: [3, 4] });
  const result = await asked;
  assert.deepEqual(bytesOf(result), [1, 2, 3, 4]);
  assert.ok(result.ok && result.value.totalBytes === 100);
});

test('fetcher: frames that are not the next ones are never mixed in', async () => {
  const wrong: [string, { offset: number; total: number; bytes: number[] }][] = [
    ['a gap', { offset: 13, total: 100, bytes: [9] }],
    ['twice', { offset: 10, total: 100, bytes: [9] }],
    ['another size', { offset: 12, total: 99, bytes: [9] }],
    ['more than was asked', { offset: 12, total: 100, bytes: [9, 9, 9] }],
  ];
  for (const [name, frame] of wrong) {
    const { fetcher, sent, answer } = fetcherScene();
    const asked = fetcher.range(blob, 10, 4);
    await settle();
    answer(sent[0], { offset: 10, total: 100, bytes: [1, 2] });
    answer(sent[0], frame);
    // Ends what still waits, so that a frame that was taken shows.
    fetcher.offline();
    assert.deepEqual(bytesOf(await asked), [1, 2], name);
  }
  // Another request's frame is not this one's.
  const { fetcher, sent, answer, clock } = fetcherScene();
  const asked = fetcher.range(blob, 0, 4);
  await settle();
  const [request] = sent;
  assert.ok(request);
  answer({ ...request, requestId: request.requestId + 1 }, { offset: 0, total: 4, bytes: [9, 9, 9, 9] });
  fetcher.receive({ topic: 't', payload: Uint8Array.of(1, 2, 3), retained: false });
  await clock.advance(1_000);
  assert.equal(bytesOf(await asked), 'fetch-timeout');
});

test('fetcher: a huge announced size allocates nothing beyond what was asked', async () => {
  const { fetcher, sent, answer } = fetcherScene();
  const asked = fetcher.range(blob, 0, 2 ** 40);
  await settle();
  assert.equal(sent[0]?.length, limits.fetchRangeBytesMax);
  answer(sent[0], { offset: 0, total: 2 ** 45, bytes: [1] });
  fetcher.offline();
  assert.deepEqual(bytesOf(await asked), [1]);
});

test('fetcher: each refusal has its code; busy is asked again; silence and a lost line end it', async () => {
  for (const [status, code] of [
    ['not-found', 'fetch-not-found'],
    ['denied', 'fetch-denied'],
    ['invalid', 'fetch-invalid'],
    ['failed', 'fetch-timeout'],
  ] as const) {
    const { fetcher, sent, answer } = fetcherScene();
    const asked = fetcher.range(blob, 0, 4);
    await settle();
    answer(sent[0], { offset: 0, total: 0, bytes: [], status });
    assert.equal(bytesOf(await asked), code);
  }
  const busy = fetcherScene();
  const asked = busy.fetcher.range(blob, 0, 1);
  await settle();
  busy.answer(busy.sent[0], { offset: 0, total: 0, bytes: [], status: 'busy' });
  await settle();
  await busy.clock.advance(200);
  assert.equal(busy.sent.length, 2);
  busy.answer(busy.sent[1], { offset: 0, total: 1, bytes: [7] });
  assert.deepEqual(bytesOf(await asked), [7]);

  const lost = fetcherScene();
  const waiting = lost.fetcher.range(blob, 0, 1);
  await settle();
  lost.line.up = false;
  lost.fetcher.offline();
  assert.equal(bytesOf(await waiting), 'bus-offline');
  assert.equal(bytesOf(await lost.fetcher.range(blob, 0, 1)), 'bus-offline');
});

test('fetcher: never more requests at once than the registry serves', async () => {
  const { fetcher, sent, answer } = fetcherScene();
  const asked = Array.from({ length: 9 }, () => fetcher.range(blob, 0, 1));
  await settle();
  assert.ok(sent.length < limits.fetchesPerDeviceMax, `${sent.length} at once`);
  for (let index = 0; index < asked.length; index += 1) {
    answer(sent[index], { offset: 0, total: 1, bytes: [index] });
    await settle();
  }
  assert.deepEqual((await Promise.all(asked)).map(bytesOf), [[0], [1], [2], [3], [4], [5], [6], [7], [8]]);
});

test('metadata: whole files only, within their limit, and missing is not offline', async () => {
  const file = Uint8Array.from({ length: 10 }, (_, index) => index);
  const pieces = {
    range: async (_target: FetchTarget, offset: number) =>
      ok({ bytes: file.subarray(offset, offset + 4), totalBytes: 10 }),
  };
  const timestamp: FetchTarget = { kind: 'metadata', name: 'timestamp.json' };
  const whole = await fetchWhole(pieces, timestamp, 10);
  assert.deepEqual(whole.ok && [...whole.value], [...file]);
  const codeOf = async (
    range: typeof pieces.range | (() => Promise<Result<never>>),
    bytesMax = 10,
  ): Promise<string> => {
    const result = await fetchWhole({ range }, timestamp, bytesMax);
    return result.ok ? 'ok' : result.refusal.code;
  };
  assert.equal(await codeOf(pieces.range, 9), 'metadata-too-large');
  assert.equal(await codeOf(async () => refuse('fetch-not-found', '')), 'metadata-missing');
  assert.equal(await codeOf(async () => refuse('bus-offline', '')), 'bus-offline');
});
