// Why: labels and answers find each other by request id, whichever came first, and the numbers are those of the textbook.
// Trusts: ingest-world.ts for batches and store. Must never: compute an expected number with the code under test.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { createPairs } from '../../shared/stats/quality.ts';
import type { Problem, Role } from '../../shared/wire/http.ts';
import { parseLabelFile } from '../../shared/wire/label-file.ts';
import { classText, type LabelLine, labelsImportedSchema, qualitySchema } from '../../shared/wire/quality.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { type IngestWorld, openIngestWorld, type Sender } from './ingest-world.ts';
import { pushProfiled } from './profiled.ts';

const release = 'acme/pump@1.0.0';

function asking(world: IngestWorld) {
  const api = createApi(apiParts(world), () => true);
  const ask = async (path: string, body: object | null, role: Role = 'operator') => {
    const { token } = await world.core.access.create({ user: 'tester', role, namespace: null, ttlMs: null });
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const request = body === null ? { headers } : { headers, method: 'POST', body: JSON.stringify(body) };
    return api.fetch(new Request(`http://localhost/api/v1${path}`, request));
  };
  return {
    ask,
    labels: async (...pairs: [string, string][]) => {
      const labels: LabelLine[] = pairs.map(([requestId, label]) => ({ requestId, label, timeMs: null }));
      const answer = await ask('/labels', { labels });
      assert.equal(answer.status, 200);
      return labelsImportedSchema.parse(await answer.json());
    },
    quality: async (query = '') => {
      const answer = await ask(`/models/acme/pump/quality${query}`, null);
      assert.equal(answer.status, 200, await answer.clone().text());
      return qualitySchema.parse(await answer.json());
    },
  };
}

async function say(
  world: IngestWorld,
  sender: Sender,
  records: Partial<TelemetryRecord>[],
  kind: 'app' | 'sample' | 'event' = 'app',
): Promise<void> {
  const whole = records.map((one) => ({ timeMs: world.clock.wall(), release, data: {}, ...one }));
  const [answer] = await sender.exchange((await sender.maker.make(whole, { class: kind })).message);
  assert.equal(answer?.status, 'stored');
  world.clock.advance(1_000);
}

const answered = (id: string, prediction: string | number): Partial<TelemetryRecord> => ({
  data: { id, prediction },
});

test('quality: labels join answers by request id, in either order; duplicates replace; unknown ones wait', async (t) => {
  const world = await openIngestWorld(t);
  await pushProfiled(world, release, 1);
  const sender = await world.sender();
  const { labels, quality } = asking(world);
  assert.deepEqual(await labels(['early', 'cat'], ['nobody', 'dog']), {
    ...{ imported: 2, replaced: 0, unknown: 2, unknownIds: ['early', 'nobody'] },
  });
  await say(world, sender, [
    answered('early', 'cat'),
    { data: { requestId: 'a', label: 'cat', confidence: 0.9 } },
    answered('b', 'dog'),
    answered('c', 'dog'),
    answered('unlabelled', 'cat'),
    { data: { id: 'no answer' } },
    { ...answered('no release', 'cat'), release: null },
  ]);
  await say(world, sender, [answered('d', 'fish')], 'sample');
  await say(world, sender, [answered('e', 'fish')], 'event');
  // Wrong at first, told again, and answered again: the last word counts on either side.
  assert.equal((await labels(['a', 'dog'])).replaced, 0);
  const told = await labels(['a', 'cat'], ['b', 'cat'], ['c', 'dog'], ['d', 'cat'], ['e', 'fish']);
  assert.deepEqual([told.replaced, told.unknownIds], [1, ['e']]);
  await say(world, sender, [answered('c', 'cat')]);

  const view = await quality();
  assert.deepEqual(
    view.releases.map((one) => one.release),
    [release],
  );
  assert.equal(view.waitingLabels, 2);
  const [window] = view.releases[0]?.windows ?? [];
  // early cat/cat, a cat/cat, b dog/cat, c cat/dog, d fish/cat: 2 of 5.
  assert.deepEqual([window?.predictions, window?.count, window?.accuracy], [6, 5, 0.4]);
  const cat = window?.classes.find(({ label }) => label === 'cat');
  assert.deepEqual([cat?.support, cat?.predicted, cat?.precision, cat?.recall], [4, 3, 2 / 3, 0.5]);
  assert.equal(window?.macro?.recall, 0.5 / 3);
});

test('quality: by release and window; releases nobody asked are left out; an erased device too', async (t) => {
  const world = await openIngestWorld(t);
  await pushProfiled(world, release, 1);
  await pushProfiled(world, 'acme/pump@1.1.0', 2);
  await pushProfiled(world, 'acme/pump@1.2.0', 3);
  const [one, two] = [await world.sender(), await world.sender()];
  const { labels, quality, ask } = asking(world);
  const hourMs = 3_600_000;
  const startMs = world.clock.wall();
  await say(world, one, [
    { timeMs: startMs, ...answered('a', 1) },
    { timeMs: startMs + hourMs, ...answered('b', 1) },
    { timeMs: startMs + hourMs, release: 'acme/pump@1.1.0', ...answered('c', 0) },
  ]);
  await say(world, two, [{ timeMs: startMs, ...answered('z', 1) }]);
  await labels(['a', '1'], ['b', '0'], ['c', '0'], ['z', '0']);
  const query = `?since=${startMs}&until=${startMs + 2 * hourMs}&window=${hourMs}`;
  const view = await quality(query);
  const shape = view.releases.map((some) => [
    some.release,
    ...some.windows.map(({ count, accuracy }) => [count, accuracy]),
  ]);
  assert.deepEqual(shape, [
    ['acme/pump@1.1.0', [0, null], [1, 1]],
    [release, [2, 0.5], [1, 0]],
  ]);
  unwrap(await world.fleet.erasures.erase(two.id, { untilMs: null, requestedBy: 'tester', reason: null }));
  const after = await quality(`${query}&release=${encodeURIComponent(release)}`);
  assert.deepEqual(after.releases[0]?.windows[0]?.accuracy, 1);

  const codeOf = async (...asked: Parameters<typeof ask>) =>
    ((await (await ask(...asked)).json()) as Problem).code;
  assert.equal(await codeOf('/models/acme/none/quality', null), 'not-found');
  assert.equal(await codeOf('/models/acme/pump/quality?release=acme/pump@9.0.0', null), 'not-found');
  assert.equal(await codeOf('/models/acme/pump/quality?window=1', null), 'input-invalid');
  assert.equal(await codeOf('/models/acme/pump/quality', null, 'viewer'), 'role-forbidden');
  assert.equal(await codeOf('/labels', { labels: [] }, 'auditor'), 'role-forbidden');
});

test('quality: the textbook’s numbers, and nothing where nothing is', () => {
  assert.equal(createPairs().quality(), null);
  const pairs = createPairs();
  // 40 true positives, 10 false, 20 false negatives, 30 true negatives.
  for (const [prediction, label, count] of [
    ['yes', 'yes', 40],
    ['yes', 'no', 10],
    ['no', 'yes', 20],
    ['no', 'no', 30],
  ] as const)
    for (let at = 0; at < count; at += 1) pairs.add(prediction, label);
  const found = pairs.quality();
  const [no, yes] = found?.classes ?? [];
  assert.equal(found?.accuracy, 0.7);
  assert.deepEqual([yes?.precision, yes?.recall], [0.8, 40 / 60]);
  assert.deepEqual([no?.precision, no?.recall], [0.6, 0.75]);
  assert.ok(Math.abs((yes?.f1 ?? 0) - 80 / 110) < 1e-12);
  assert.ok(Math.abs((found?.macro.f1 ?? 0) - (80 / 110 + 60 / 90) / 2) < 1e-12);
});

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test('label files: NDJSON and CSV, and what is wrong is named by its line', () => {
  const ndjson = '{"id":"a","label":1}\n\n{"requestId":"b","label":"x, y","time":"2026-01-02T03:04:05Z"}\n';
  assert.deepEqual(unwrap(parseLabelFile(bytes(ndjson))), [
    { requestId: 'a', label: '1', timeMs: null },
    { requestId: 'b', label: 'x, y', timeMs: Date.UTC(2026, 0, 2, 3, 4, 5) },
  ]);
  const csv = 'label,id,time,who\r\n1.0,a,1700000000000,ann\r\n"x, ""y""\n z",b,,\r\n';
  assert.deepEqual(unwrap(parseLabelFile(bytes(csv))), [
    { requestId: 'a', label: '1', timeMs: 1_700_000_000_000 },
    { requestId: 'b', label: 'x, "y"\n z', timeMs: null },
  ]);
  assert.deepEqual(
    [classText(true), classText(1), classText('01.50'), classText(' a ')],
    ['true', '1', '1.5', 'a'],
  );
  const wrong = (text: string): string => {
    const parsed = parseLabelFile(bytes(text));
    assert.ok(!parsed.ok && parsed.refusal.code === 'input-invalid', text);
    return parsed.refusal.detail;
  };
  assert.match(wrong('id,label\na,1\nb,\n'), /^line 3/);
  assert.match(wrong('{"id":"a","label":1}\n{"label":1}'), /^line 2/);
  assert.match(wrong('{"id":"a"'), /^line 1/);
  wrong('id,what\na,1\n');
  wrong('id,label\n"a,1\n');
});
