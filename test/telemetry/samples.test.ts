// Why: the review queue: what devices sent, what people said about it, what comes out, and what an erasure leaves.
// Trusts: ingest-world.ts for batches and store. Must never: look for what was erased only where the code would look.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { z } from 'zod';
import { createApi } from '../../registry/api/app.ts';
import { readYamlFile } from '../../registry/policy/yaml-file.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Problem, Role } from '../../shared/wire/http.ts';
import { datasetCsv, datasetLines } from '../../shared/wire/sample-csv.ts';
import { sampleRulesFileSchema, sampleRulesViewSchema } from '../../shared/wire/sample-rules.ts';
import {
  type CaptureRecord,
  type SampleRow,
  type SampleTensor,
  sampleEntrySchema,
  sampleListSchema,
  samplePageSchema,
  sampleRowSchema,
  sampleShownSchema,
} from '../../shared/wire/samples.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { temporaryFolder } from '../registry-core/support.ts';
import { type IngestWorld, openIngestWorld, type Sender } from './ingest-world.ts';
import { pushProfiled } from './profiled.ts';

const release = 'acme/pump@1.0.0';
const tensor = (name: string, shape: number[], ...data: SampleTensor['data']): SampleTensor => ({
  ...{ name, datatype: 'FP32', shape, data },
});
const capture = (number: number, more: Partial<CaptureRecord> = {}): CaptureRecord => ({
  ...{ kind: 'capture', model: 'pump', requestId: `r${number}`, reasons: ['random'], confidence: 0.5 },
  ...{ inputs: [tensor('x', [1, 2], number, 0.25)], outputs: [tensor('p', [1, 2], 0.5, 0.5)] },
  ...more,
});

function asking(world: IngestWorld) {
  const api = createApi(apiParts(world), () => true);
  const ask = async (
    method: string,
    path: string,
    body: object | null = null,
    who: { role?: Role; namespace?: string; user?: string } = {},
  ): Promise<Response> => {
    const { role = 'operator', namespace = null, user = 'tester' } = who;
    const { token } = await world.core.access.create({ user, role, namespace, ttlMs: null });
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const request = { headers, method, ...(body === null ? {} : { body: JSON.stringify(body) }) };
    return api.fetch(new Request(`http://localhost/api/v1${path}`, request));
  };
  return {
    ask,
    get: async <S extends z.ZodType>(path: string, schema: S): Promise<z.infer<S>> => {
      const answer = await ask('GET', path);
      assert.equal(answer.status, 200, await answer.clone().text());
      return schema.parse(await answer.json());
    },
    review: async (id: string, body: object, user = 'alice') => {
      const answer = await ask('POST', `/samples/${id}/review`, body, { user });
      assert.equal(answer.status, 200, await answer.clone().text());
      return sampleEntrySchema.parse(await answer.json());
    },
    code: async (...args: Parameters<typeof ask>) => {
      const answer = await ask(...args);
      return answer.ok ? 'ok' : ((await answer.json()) as Problem).code;
    },
  };
}

async function say(world: IngestWorld, sender: Sender, records: object[], about: string | null = release) {
  const whole = records.map((data) => ({ timeMs: world.clock.wall(), release: about, data: { ...data } }));
  const [answer] = await sender.exchange((await sender.maker.make(whole, { class: 'sample' })).message);
  assert.deepEqual(answer, { status: 'stored', records: records.length });
  world.clock.advance(1_000);
}

test('samples: listed newest first by model, reason and state, in pages; what is none is not listed', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { get } = asking(world);
  await say(world, sender, [
    capture(1),
    { kind: 'capture' },
    capture(2, { reasons: ['low-confidence', 'random'] }),
  ]);
  await say(world, sender, [capture(3, { reasons: ['disagreement'] })], 'acme/fan@2.0.0');
  await say(world, sender, [capture(4)], null);
  await say(world, sender, [{ id: 'x', prediction: 'a record of an application’s kind' }]);
  const list = (query: string) => get(`/samples?${query}`, sampleListSchema);
  const idsOf = async (query: string) => (await list(query)).samples.map(({ id }) => id);
  const whole = await list('');
  assert.equal(whole.waiting, 3);
  const [third, second, first] = whole.samples;
  assert.ok(first && second && third && whole.samples.length === 3);
  assert.deepEqual([third.release, second.release, first.device], ['acme/fan@2.0.0', release, sender.id]);
  assert.deepEqual(
    [second.reasons, second.state, second.label],
    [['low-confidence', 'random'], 'waiting', null],
  );
  assert.deepEqual(await idsOf('model=acme/pump'), [second.id, first.id]);
  assert.deepEqual(await idsOf('reason=random'), [second.id, first.id]);
  assert.deepEqual(await idsOf('reason=low-confidence'), [second.id]);
  assert.deepEqual(await idsOf('state=accepted'), []);
  assert.deepEqual(await idsOf(`release=${release}&limit=1`), [second.id]);
  const page = await list('limit=2');
  assert.equal(page.next, second.id);
  assert.deepEqual(await idsOf(`limit=2&cursor=${page.next}`), [first.id]);
  assert.equal((await list('model=acme/fan')).waiting, 1);

  const shown = await get(`/samples/${second.id}`, sampleShownSchema);
  const { requestId, inputs, confidence } = shown;
  assert.deepEqual([requestId, confidence, inputs], ['r2', 0.5, [tensor('x', [1, 2], 2, 0.25)]]);
});

test('samples: a review is kept with its person, a later one takes its place; rights', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  const { get, review, code } = asking(world);
  await say(world, sender, [capture(1), capture(2)]);
  const [second, first] = (await get('/samples', sampleListSchema)).samples;
  assert.ok(first && second);
  const accepted = await review(first.id, { decision: 'accept', label: 'leak', comment: 'clear' });
  assert.deepEqual(
    [accepted.state, accepted.label, accepted.comment, accepted.reviewer, accepted.reviewedAtMs],
    ['accepted', 'leak', 'clear', 'alice', world.clock.wall()],
  );
  const rejected = await review(first.id, { decision: 'reject' }, 'bob');
  assert.deepEqual(
    [rejected.state, rejected.label, rejected.comment, rejected.reviewer],
    ['rejected', null, null, 'bob'],
  );
  assert.equal((await get('/samples', sampleListSchema)).waiting, 1);

  const path = `/samples/${first.id}/review`;
  const accept = { decision: 'accept', label: 'x' };
  assert.equal(await code('POST', path, accept, { role: 'auditor' }), 'role-forbidden');
  assert.equal(await code('POST', path, accept, { namespace: 'other' }), 'namespace-forbidden');
  assert.equal(await code('POST', path, accept, { namespace: 'acme' }), 'ok');
  assert.equal(await code('POST', path, { decision: 'accept' }), 'input-invalid');
  assert.equal(await code('POST', '/samples/999.0/review', accept), 'not-found');
  assert.equal(await code('GET', '/samples/999.0'), 'not-found');
  assert.equal(await code('GET', '/samples/x'), 'input-invalid');
  assert.equal(await code('GET', `/samples/${first.id}`, null, { role: 'viewer' }), 'role-forbidden');
  assert.equal(await code('GET', '/samples', null, { role: 'viewer' }), 'role-forbidden');
  assert.equal(await code('GET', '/samples', null, { namespace: 'acme' }), 'namespace-forbidden');
  assert.equal(await code('GET', '/samples?model=acme/pump', null, { namespace: 'acme' }), 'ok');
  assert.equal(await code('GET', '/samples', null, { role: 'auditor' }), 'ok');
  assert.equal(
    await code('GET', '/models/acme/pump/samples/dataset', null, { role: 'viewer' }),
    'role-forbidden',
  );
});

test('samples: accepted ones come out in pages; erased ones are counted and nowhere to be found', async (t) => {
  const folder = temporaryFolder(t);
  const world = await openIngestWorld(t, { folder });
  const [one, other] = [await world.sender(), await world.sender()];
  const { get, review, code } = asking(world);
  await say(world, one, [capture(1), capture(2), capture(3)]);
  await say(world, other, [capture(4), capture(5)]);
  const listed = (await get('/samples', sampleListSchema)).samples;
  const [fifth, fourth, third, second, first] = listed;
  assert.ok(first && second && third && fourth && fifth);
  const secret = 'said-of-the-first';
  await review(first.id, { decision: 'accept', label: secret, comment: secret });
  await review(second.id, { decision: 'reject', comment: secret });
  await review(fourth.id, { decision: 'accept', label: 'ok' });
  await review(fifth.id, { decision: 'accept', label: 'leak' });
  const dataset = (query = '') => get(`/models/acme/pump/samples/dataset?${query}`, samplePageSchema);
  const { rows, erased, next } = await dataset();
  assert.deepEqual([rows.map(({ id }) => id), erased, next], [[first.id, fourth.id, fifth.id], 0, null]);
  assert.equal(JSON.stringify(rows).includes(one.id), false, 'no device');
  assert.equal(/r1|alice/.test(JSON.stringify(rows)), false, 'no request id, no person');
  assert.deepEqual(rows[0]?.inputs, [tensor('x', [1, 2], 1, 0.25)]);
  const page = await dataset('limit=2');
  assert.deepEqual([page.rows.length, page.next], [2, fourth.id]);
  assert.deepEqual(
    (await dataset(`limit=2&cursor=${page.next}`)).rows.map(({ target }) => target),
    ['leak'],
  );
  assert.deepEqual((await dataset('release=acme/pump@9.0.0')).rows, []);

  unwrap(await world.fleet.erasures.erase(one.id, { untilMs: null, requestedBy: 'alice', reason: null }));
  const left = await dataset();
  assert.deepEqual([left.rows.map(({ target }) => target), left.erased], [['ok', 'leak'], 1]);
  const states = (await get('/samples', sampleListSchema)).samples.map(({ id, state }) => [id, state]);
  assert.deepEqual(states, [
    [fifth.id, 'accepted'],
    [fourth.id, 'accepted'],
    [first.id, 'erased'],
  ]);
  for (const { id } of [first, second, third]) assert.equal(await code('GET', `/samples/${id}`), 'not-found');
  assert.equal(await code('POST', `/samples/${first.id}/review`, { decision: 'reject' }), 'not-found');
  await world.store.flushLog();
  const holding = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.startsWith('registry.sqlite'))
    .filter((entry) => readFileSync(join(entry.parentPath, entry.name)).includes('"data":['));
  assert.deepEqual(holding, [], 'no tensor in clear');
});

test('samples: rules are set for a model that there is, by who may', async (t) => {
  const world = await openIngestWorld(t);
  await pushProfiled(world, release, 1);
  const { ask, get, code } = asking(world);
  const path = '/models/acme/pump/sample-rules';
  const rules = { lowConfidence: { below: 0.7 } };
  assert.equal((await get(path, sampleRulesViewSchema)).rules, null);
  assert.equal((await ask('PUT', path, { rules })).status, 200);
  const view = await get(path, sampleRulesViewSchema);
  assert.deepEqual([view.rules, view.setBy], [{ ...rules, perHourMax: 20, bytesMax: 65_536 }, 'tester']);
  assert.equal(await code('PUT', path, { rules }, { role: 'publisher' }), 'role-forbidden');
  assert.equal(await code('PUT', path, { rules }, { namespace: 'other' }), 'namespace-forbidden');
  assert.equal(await code('PUT', '/models/acme/none/sample-rules', { rules }), 'not-found');
  for (const wrong of [
    {},
    { perHourMax: 5 },
    { randomShare: 2 },
    { randomShare: 0.1, perHourMax: 0 },
    { every: 1 },
  ])
    assert.equal(await code('PUT', path, { rules: wrong }), 'input-invalid', JSON.stringify(wrong));
  assert.equal(await code('PUT', path, { rules: null }), 'ok');
  assert.equal((await get(path, sampleRulesViewSchema)).rules, null);

  const head = 'apiVersion: lepton/v1\nkind: SampleRules\n';
  const read = (text: string) => readYamlFile(head + text, sampleRulesFileSchema, 'sample-rules-invalid');
  assert.deepEqual(unwrap(read('rules: {outOfRange: true}')).data.rules.outOfRange, true);
  const bad = read('rules:\n  lowConfidence: {below: 7}\n');
  assert.match(
    bad.ok ? '' : `${bad.refusal.code} ${bad.refusal.detail}`,
    /^sample-rules-invalid line 4, column \d+/,
  );
});

test('a dataset as a table: one row each, the same columns, words as words', () => {
  const row = (id: string, target: string, ...inputs: SampleTensor[]): SampleRow =>
    sampleRowSchema.parse({ id, release, timeMs: 1, reasons: ['random'], inputs, outputs: [], target });
  const word = (text: string): SampleTensor => ({
    name: 'side',
    datatype: 'BYTES',
    shape: [1, 1],
    data: [text],
  });
  const rows = [
    row('1.0', 'ok', tensor('x', [1, 2], 0.1, 2), word('left')),
    row('1.1', 'a "leak", big', tensor('x', [1, 2], null, 'NaN'), word('up\ndown')),
  ];
  assert.equal(
    unwrap(datasetCsv(rows)),
    'x[0],x[1],side,target\n0.1,2,left,ok\n,NaN,"up\ndown","a ""leak"", big"\n',
  );
  assert.equal(unwrap(datasetCsv([])), '');
  const refused = (...some: SampleRow[]): string => {
    const made = datasetCsv(some);
    return made.ok ? 'ok' : made.refusal.detail;
  };
  assert.match(refused(row('1.0', 'a', tensor('x', [2, 2], 1, 2, 3, 4))), /no row/);
  assert.match(
    refused(row('1.0', 'a', tensor('x', [1], 1)), row('1.1', 'a', tensor('y', [1], 1))),
    /different columns/,
  );
  assert.match(refused(row('1.0', 'a', tensor('target', [1], 1))), /another column/);
  const lines = datasetLines(rows).trimEnd().split('\n');
  assert.deepEqual(
    lines.map((line) => sampleRowSchema.parse(JSON.parse(line))),
    rows,
  );
});
