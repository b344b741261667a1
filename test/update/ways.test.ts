// Why: a new release of a model that is here costs what changed in it; whatever goes wrong on a smaller way, the file
// gets here. Trusts: the real codec in its real process. Must never: wait for a fixed time.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { BlobRef } from '../../agent/update/fetch.ts';
import { basesFor } from '../../agent/update/release.ts';
import { drawBytes } from '../../firmware-sim/chance.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { Rebuilder } from '../../shared/kernel/ports.ts';
import { type Result, refuse } from '../../shared/kernel/result.ts';
import { manifestSchema } from '../../shared/wire/manifest.ts';
import {
  contentOf,
  type DeliveryLine,
  deliveryLine,
  encoded,
  type LineTerms,
  refOf,
  twoVersions,
} from './delivery-line.ts';

const wanted = { wanted: () => true };
const KiB = 1024;
const [first, second] = twoVersions(300 * KiB, 5);
const delta = encoded(second, first);

const codeOf = (result: Result<unknown>): string => (result.ok ? 'ok' : result.refusal.code);
const eventsOf = (line: DeliveryLine): string[] => line.events.map(({ event }) => event);

/** The first version is here, and the registry has the second and a smaller way to it. */
async function firstIsHere(
  context: TestContext,
  terms: LineTerms = {},
): Promise<DeliveryLine & { ref: BlobRef; bases: BlobRef[] }> {
  const line = deliveryLine(context, terms);
  const base = line.put(first);
  assert.equal(codeOf(await line.blobs.ensure(base, wanted)), 'ok');
  line.sentBytes = 0;
  line.events.length = 0;
  line.asked.length = 0;
  const ref = line.put(second);
  line.put(delta.bytes);
  line.offers.set(ref.sha256, [{ ways: [delta.way] }]);
  return Object.assign(line, { ref, bases: [base] });
}

test('what changed is fetched, and the rest made of what is here', async (context) => {
  const line = await firstIsHere(context);
  const progress: [number, number][] = [];
  const options = {
    ...wanted,
    bases: line.bases,
    onProgress: (done: number, total: number) => progress.push([done, total]),
  };
  assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'ok');
  assert.deepEqual(contentOf(line, line.ref), second);
  assert.equal(line.sentBytes, delta.bytes.length);
  assert.ok(line.sentBytes < second.length / 5);
  assert.deepEqual(progress.at(-1), [delta.bytes.length, delta.bytes.length]);
  assert.deepEqual(line.names(), [refOf(first).sha256, line.ref.sha256].sort());
  const { arrivedBytes, fileBytes, rebuiltFiles, failedWays } = line.blobs.counters();
  assert.deepEqual([rebuiltFiles, failedWays], [1, 0]);
  assert.equal(fileBytes - arrivedBytes, second.length - delta.bytes.length);
  assert.deepEqual(eventsOf(line), ['fetch.way.chosen', 'fetch.finished', 'fetch.rebuilt']);
});

test('the device says what it holds, and is offered nothing that it lacks', async (context) => {
  const line = await firstIsHere(context);
  const lacked = encoded(second, drawBytes(200 * KiB, 9, 'lacked'));
  line.put(lacked.bytes);
  // Not asked for, however small it says it is.
  line.offers.set(line.ref.sha256, [{ ways: [{ ...lacked.way, bytes: 100 }, delta.way] }]);
  assert.equal(codeOf(await line.blobs.ensure(line.ref, { ...wanted, bases: line.bases })), 'ok');
  assert.deepEqual(line.asked[0], { kind: 'ways', sha256: line.ref.sha256, held: [refOf(first).sha256] });
  assert.equal(line.sentBytes, delta.bytes.length);
});

test('whatever a way comes to, the file gets here', async (context) => {
  const rows: [string, string, (line: DeliveryLine & { ref: BlobRef }) => void, LineTerms?][] = [
    ['an offer that is none', '', (line) => void line.offers.set(line.ref.sha256, [{ sha256: 'x' }])],
    ['an offer for another file', '', (line) => void line.offers.set(line.ref.sha256, [{ bytes: 1 }])],
    ['no offers', '', (line) => void line.offers.clear()],
    ['it is gone', 'fetch-not-found', (line) => void line.files.delete(delta.way.sha256)],
    [
      'it is another',
      'blob-digest-mismatch',
      (line) => void line.files.set(delta.way.sha256, drawBytes(delta.bytes.length, 1, 'x')),
    ],
    [
      'it has another size',
      'blob-size-mismatch',
      (line) => void line.files.set(delta.way.sha256, new Uint8Array(9)),
    ],
    [
      'it is no patch',
      'delta-malformed',
      (line) =>
        void line.offers.set(line.ref.sha256, [
          { ways: [{ ...line.put(drawBytes(5 * KiB, 2, 'no')), bases: [] }] },
        ]),
    ],
    [
      'it makes another file',
      'blob-digest-mismatch',
      (line) => {
        const other = encoded(drawBytes(second.length, 3, 'other').fill(7, 0, 250 * KiB));
        line.put(other.bytes);
        line.offers.set(line.ref.sha256, [{ ways: [other.way] }]);
      },
    ],
    [
      'the rebuilder fails',
      'delta-rebuild-failed',
      () => undefined,
      { rebuilder: () => ({ rebuild: async () => refuse('delta-rebuild-failed', 'as told') }) },
    ],
    [
      'the rebuilder says it is done and is not',
      'blob-digest-mismatch',
      () => undefined,
      { rebuilder: () => ({ rebuild: async () => ({ ok: true, value: undefined }) }) },
    ],
  ];
  for (const [name, code, spoil, terms] of rows) {
    const line = await firstIsHere(context, terms);
    spoil(line);
    assert.equal(codeOf(await line.blobs.ensure(line.ref, { ...wanted, bases: line.bases })), 'ok', name);
    assert.deepEqual(contentOf(line, line.ref), second, name);
    const failed = line.events
      .filter(({ event }) => event === 'fetch.way.failed')
      .map(({ fields }) => fields['code']);
    assert.deepEqual(failed, code === '' ? [] : [code], name);
    assert.equal(line.blobs.counters().failedWays, code === '' ? 0 : 1, name);
    assert.deepEqual(line.names(), [refOf(first).sha256, line.ref.sha256].sort(), name);
  }
});

test('a way that failed gives way to the next smallest, and is not tried again', async (context) => {
  let fail = true;
  const line = await firstIsHere(context, {
    rebuilder: (real): Rebuilder => ({
      rebuild: async (job) => {
        if (fail && job.encodedPath.includes(delta.way.sha256))
          return refuse('delta-base-mismatch', 'as told');
        // The second way is cut off: the try is repeated, without the first.
        if (fail) {
          fail = false;
          throw new FleetError('disk-full', 'as told');
        }
        return real.rebuild(job);
      },
    }),
  });
  const larger = encoded(second, first, drawBytes(9 * KiB, 4, 'beside'));
  const padded = larger.way.bytes > delta.way.bytes;
  assert.ok(padded, 'the second way is the larger one');
  line.put(larger.bytes);
  const beside = line.put(drawBytes(9 * KiB, 4, 'beside'));
  assert.equal(codeOf(await line.blobs.ensure(beside, wanted)), 'ok');
  line.offers.set(line.ref.sha256, [{ ways: [delta.way, larger.way] }]);
  const options = { ...wanted, bases: [...line.bases, beside] };
  await assert.rejects(line.blobs.ensure(line.ref, options), /disk-full|as told/);
  line.sentBytes = 0;
  assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'ok');
  assert.equal(line.sentBytes, 0, 'the encoded file was here already');
  assert.equal(eventsOf(line).filter((event) => event === 'fetch.way.failed').length, 1);
  assert.deepEqual(contentOf(line, line.ref), second);
});

test('offline on a way: it goes on where it was, also in another process, and asks no more than once', async (context) => {
  const line = await firstIsHere(context, { limits: { fetchRangeBytesMax: 8 * KiB } });
  let left = 3;
  line.instead = (target) => {
    if (target.kind !== 'blob') return null;
    left -= 1;
    return left < 0 ? refuse('bus-offline', 'no line') : null;
  };
  const options = { ...wanted, bases: line.bases };
  assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'bus-offline');
  assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'bus-offline');
  assert.equal(line.asked.filter(({ kind }) => kind === 'ways').length, 1);
  line.restart();
  line.instead = () => null;
  assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'ok');
  assert.equal(line.sentBytes, delta.bytes.length);
  assert.deepEqual(contentOf(line, line.ref), second);
});

test('a plain download that has begun is gone on with where less is left of it than of any way', async (context) => {
  for (const [share, byWay] of [
    [0.3, true],
    [0.95, false],
  ] as const) {
    const line = await firstIsHere(context, { limits: { fetchRangeBytesMax: 8 * KiB } });
    const { offers } = line;
    line.offers = new Map();
    line.instead = (_target, offset) =>
      offset > share * second.length ? refuse('bus-offline', 'no line') : null;
    assert.equal(codeOf(await line.blobs.ensure(line.ref, { ...wanted, bases: line.bases })), 'bus-offline');
    line.restart();
    line.offers = offers;
    line.instead = () => null;
    assert.equal(codeOf(await line.blobs.ensure(line.ref, { ...wanted, bases: line.bases })), 'ok');
    assert.equal(line.blobs.counters().rebuiltFiles, byWay ? 1 : 0, `${share}`);
    assert.deepEqual(contentOf(line, line.ref), second);
    assert.deepEqual(line.names(), [refOf(first).sha256, line.ref.sha256].sort());
    if (!byWay) assert.equal(line.sentBytes, second.length);
  }
});

test('a question that could not be asked is asked again, and one that nobody answers is given up', async (context) => {
  const line = await firstIsHere(context);
  const options = { ...wanted, bases: line.bases };
  line.instead = ({ kind }) => (kind === 'ways' ? refuse('bus-offline', 'no line') : null);
  for (let times = 0; times < 4; times += 1)
    assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'bus-offline');
  assert.equal(line.sentBytes, 0);
  line.instead = ({ kind }) => (kind === 'ways' ? refuse('fetch-timeout', 'no answer') : null);
  for (let times = 0; times < 2; times += 1)
    assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'fetch-timeout');
  assert.equal(codeOf(await line.blobs.ensure(line.ref, options)), 'ok');
  assert.equal(line.sentBytes, second.length);
});

test('an encoding that is being made is waited for where the file is large, and no longer than it is worth', async (context) => {
  const terms = { waysWaitBytesMin: 100 * KiB, waysWaitMsMax: 30_000 };
  const line = await firstIsHere(context, { limits: terms });
  const making = { ways: [], retryAfterMs: 1 };
  line.offers.set(line.ref.sha256, [making, making, { ways: [delta.way] }]);
  assert.equal(codeOf(await line.blobs.ensure(line.ref, { ...wanted, bases: line.bases })), 'ok');
  assert.equal(line.sentBytes, delta.bytes.length);

  const impatient = await firstIsHere(context, { limits: { ...terms, waysWaitBytesMin: 301 * KiB } });
  impatient.offers.set(impatient.ref.sha256, [making, { ways: [delta.way] }]);
  assert.equal(
    codeOf(await impatient.blobs.ensure(impatient.ref, { ...wanted, bases: impatient.bases })),
    'ok',
  );
  assert.equal(impatient.sentBytes, second.length);
});

test('a base that rotted is no base', async (context) => {
  const line = await firstIsHere(context);
  line.restart();
  const path = `blobs/${refOf(first).sha256}`;
  await line.disk.create(path);
  const rotten = first.slice();
  rotten[9] = (rotten[9] ?? 0) ^ 1;
  await line.disk.append(path, rotten);
  assert.equal(codeOf(await line.blobs.ensure(line.ref, { ...wanted, bases: line.bases })), 'ok');
  assert.equal(line.sentBytes, second.length);
});

test('bases: what had the path first, then the role, each once', () => {
  const file = (path: string, role: 'model' | 'card' | 'external-data', digit: string) => ({
    path,
    role,
    sha256: digit.repeat(64),
    bytes: 9,
  });
  const manifest = (...files: ReturnType<typeof file>[]) =>
    manifestSchema.parse({ schemaVersion: 1, name: 'acme/m', version: '1.0.0', files });
  const held = [
    manifest(file('card.md', 'card', 'a'), file('model.onnx', 'model', 'b')),
    manifest(
      file('model.onnx', 'model', 'c'),
      file('weights.bin', 'external-data', 'd'),
      file('card.md', 'card', 'a'),
    ),
  ];
  const digits = basesFor(file('model.onnx', 'model', 'e'), held).map(({ sha256 }) => sha256[0]);
  assert.deepEqual(digits, ['b', 'c', 'a', 'd']);
  assert.deepEqual(
    basesFor(file('model.onnx', 'model', 'b'), held).map(({ sha256 }) => sha256[0]),
    ['c', 'a', 'd'],
  );
});
