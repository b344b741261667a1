// Why: holds that whoever wants to be told of events is told of each, in order, however often it could not be reached.
// Trusts: world.ts for events; a real HTTP server once. Must never: check a signature with the code that made it.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createWebhooks, webhookLimits } from '../../registry/outlets/webhooks.ts';
import { systemHttpPost } from '../../shared/host/http-post.ts';
import type { HttpPost } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import {
  type WebhookDelivery,
  webhookCreateSchema,
  webhookDeliverySchema,
} from '../../shared/wire/webhooks.ts';
import { openWorld, type World } from './world.ts';

const url = 'https://example.test/hook';

interface Post {
  to: string;
  headers: Record<string, string>;
  body: string;
  delivery: WebhookDelivery;
}

async function opened(t: TestContext, world: World, answers: Result<number>[] = []) {
  const posts: Post[] = [];
  const post: HttpPost = async (to, { headers, body }) => {
    const text = Buffer.from(body).toString();
    posts.push({ to, headers, body: text, delivery: webhookDeliverySchema.parse(JSON.parse(text)) });
    return answers.shift() ?? ok(204);
  };
  const webhooks = createWebhooks({ ...world.core, events: world.fleet.events, post });
  t.after(() => webhooks.stop());
  webhooks.start();
  const pass = async (ms: number): Promise<void> => {
    world.clock.advance(ms);
    await world.settle();
  };
  const told = (): string[] => posts.flatMap(({ delivery }) => delivery.events.map(({ code }) => code));
  return { webhooks, posts, told, pass };
}

async function happened(world: World, ...codes: string[]): Promise<void> {
  await world.core.store.tx((db) => {
    for (const code of codes)
      world.fleet.events.recordIn(db, { source: 'registry', subject: null, code, detail: 'it happened' });
  });
}

test('events from now on, those that are wanted, in order and signed', async (t) => {
  const world = await openWorld(t);
  await happened(world, 'rollout-before');
  const { webhooks, posts, told, pass } = await opened(t, world);
  const made = await webhooks.add({ url, codes: ['rollout-', 'drift-'], createdBy: 'alice' });
  await happened(world, 'rollout-running', 'key-used', 'rollout-succeeded');
  await pass(webhookLimits.lookMs);
  assert.deepEqual(told(), ['rollout-running', 'rollout-succeeded']);
  await happened(world, 'drift-alarm');
  await pass(webhookLimits.lookMs);
  await pass(webhookLimits.lookMs);
  assert.deepEqual(told(), ['rollout-running', 'rollout-succeeded', 'drift-alarm']);
  assert.equal(posts.length, 2);

  const [first] = posts;
  assert.ok(first);
  assert.equal(first.to, url);
  const { 'webhook-id': id, 'webhook-timestamp': seconds, 'webhook-signature': signature } = first.headers;
  const secret = Buffer.from(made.secret.replace('whsec_', ''), 'base64');
  const expected = createHmac('sha256', secret).update(`${id}.${seconds}.${first.body}`).digest('base64');
  assert.equal(signature, `v1,${expected}`);
  assert.equal(JSON.stringify(await webhooks.list()).includes(made.secret), false);
});

test('what does not answer is tried again later and later, loses nothing and holds up nobody', async (t) => {
  const world = await openWorld(t);
  const down: Result<number>[] = [refuse('webhook-unreachable', 'nobody listens'), ok(500), ok(302)];
  const { webhooks, told, pass } = await opened(t, world, down);
  await webhooks.add({ url, codes: [], createdBy: 'alice' });
  await happened(world, 'a-one');
  for (const [at, why] of ['nobody listens', 'it answered 500', 'it answered 302'].entries()) {
    await pass(Math.max(webhookLimits.lookMs, webhookLimits.retryMsMin * 2 ** (at - 1)));
    const [hook] = await webhooks.list();
    assert.deepEqual([hook?.failures, hook?.lastError], [at + 1, why]);
  }
  await happened(world, 'a-two');
  await pass(webhookLimits.lookMs);
  assert.equal(told().length, 3, 'not before its time');
  const other = await webhooks.add({ url: 'https://other.test/', codes: [], createdBy: 'bob' });
  await happened(world, 'a-three');
  await pass(webhookLimits.lookMs);
  assert.equal(told().at(-1), 'a-three', 'the other one is told');
  await pass(webhookLimits.retryMsMin * 4);
  assert.deepEqual(told().slice(-3), ['a-one', 'a-two', 'a-three']);
  const [hook] = await webhooks.list();
  assert.deepEqual([hook?.failures, hook?.lastError], [0, null]);

  const gone = await webhooks.remove(other.id);
  assert.equal(gone.ok && gone.value.id, other.id);
  assert.equal((await webhooks.list()).length, 1);
  const again = await webhooks.remove(other.id);
  assert.equal(again.ok ? 'ok' : again.refusal.code, 'not-found');
});

test('many events come in several deliveries; those that were removed meanwhile are counted', async (t) => {
  const world = await openWorld(t);
  const { webhooks, posts, told, pass } = await opened(t, world);
  await webhooks.add({ url, codes: [], createdBy: 'alice' });
  const codes = Array.from({ length: 120 }, (_, at) => `a-${at}`);
  await happened(world, ...codes);
  await world.core.store.tx((db) =>
    db.sql.run('DELETE FROM fleet_events WHERE code IN (?, ?)', 'a-0', 'a-1'),
  );
  for (let round = 0; round < 4; round += 1) await pass(webhookLimits.lookMs);
  assert.deepEqual(told(), codes.slice(2));
  assert.deepEqual(
    posts.map(({ delivery }) => [delivery.events.length, delivery.missed]),
    [
      [50, 2],
      [50, 0],
      [18, 0],
    ],
  );
});

test('a stop breaks off what does not answer, and it comes again after the start', async (t) => {
  const world = await openWorld(t);
  const begun: string[] = [];
  const webhooks = createWebhooks({
    ...world.core,
    events: world.fleet.events,
    post: (to, { signal }) =>
      new Promise((resolve) => {
        begun.push(to);
        signal.addEventListener('abort', () => resolve(refuse('webhook-unreachable', 'aborted')));
      }),
  });
  webhooks.start();
  await webhooks.add({ url, codes: [], createdBy: 'alice' });
  await happened(world, 'a-one');
  world.clock.advance(webhookLimits.lookMs);
  await world.settle();
  assert.deepEqual(begun, [url]);
  await webhooks.stop();
  assert.equal((await webhooks.list())[0]?.failures, 0, 'that was our doing');
  const { told, pass } = await opened(t, world);
  await pass(webhookLimits.lookMs);
  assert.deepEqual(told(), ['a-one']);
});

test('addresses: TLS, or this machine; no passwords', () => {
  const fits = (text: string): boolean => webhookCreateSchema.safeParse({ url: text }).success;
  assert.deepEqual(
    [
      'https://a.test/x',
      'http://127.0.0.1:9/x',
      'http://a.test/x',
      'https://u:p@a.test/',
      'ftp://a.test/',
      'x',
    ].map(fits),
    [true, true, false, false, false, false],
  );
});

test('over a real connection: a status is told, a redirect is not followed, silence ends', async (t) => {
  const paths: string[] = [];
  const server = createServer((request, answer) => {
    paths.push(request.url ?? '');
    if (request.url === '/silent') return;
    answer.writeHead(request.url === '/moved' ? 302 : 202, { location: '/elsewhere' }).end('ignored');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const options = {
    ...{ headers: {}, body: new Uint8Array([1]), timeoutMs: 300 },
    signal: new AbortController().signal,
  };
  assert.deepEqual(await systemHttpPost(`${at}/good`, options), ok(202));
  assert.deepEqual(await systemHttpPost(`${at}/moved`, options), ok(302));
  const silent = await systemHttpPost(`${at}/silent`, options);
  assert.equal(silent.ok ? 'ok' : silent.refusal.code, 'webhook-unreachable');
  assert.deepEqual(paths, ['/good', '/moved', '/silent']);
});
