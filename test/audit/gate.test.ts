// Why: holds who may use which route: every route of the API is asked with a token of every role, and with none.
// Trusts: route-table.ts for what is wanted; what the API answers is what is. Must never: leave a route out.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { accessTable, rolesOf } from '../../registry/api/access-table.ts';
import { type RouteRow, routeOf, routeTable } from '../../registry/api/route-table.ts';
import { roles } from '../../shared/wire/http.ts';
import { openWorld } from '../fleet/world.ts';
import { projectFolder } from '../support/data.ts';
import { openAsking, requestFor, rowsWithoutBody, storeThings } from './asking.ts';

const methods = ['get', 'head', 'post', 'put', 'patch', 'delete'];

test('every route of the document has a row with a verb of its own, and every row is a route', async (t) => {
  const asking = openAsking(await openWorld(t));
  const document = (await (await asking.fetch('GET', '/api/v1/openapi.json')).json()) as {
    paths: Record<string, Record<string, unknown>>;
  };
  const documented = Object.entries(document.paths).flatMap(([path, routes]) =>
    methods.filter((method) => method in routes).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const rows = new Set(routeTable.map(({ method, path }) => `${method} ${path}`));
  const asRow = (route: string): string => route.replace(/^HEAD /, 'GET ');
  assert.deepEqual(
    documented.filter((route) => !rows.has(asRow(route))),
    [],
  );
  const own = 'GET /api/v1/openapi.json';
  assert.deepEqual(
    [...rows].filter((route) => route !== own && !documented.includes(route)),
    [],
  );
  const verbs = routeTable.map(({ verb }) => verb);
  assert.equal(new Set(verbs).size, verbs.length);
  for (const verb of verbs) assert.match(verb, /^[a-z]+(\.[a-z]+)+$/);
  // Whatever changes something is audited; a row cannot say otherwise.
  for (const { method, audited } of routeTable) assert.ok(method === 'GET' || audited);
});

test('paths find their rows: words before parameters, names with slashes, escapes', () => {
  const verb = (method: string, path: string) => routeOf(method, `/api/v1/${path}`)?.row.verb ?? null;
  assert.equal(verb('GET', 'devices/revoked'), 'devices.revoked');
  assert.equal(verb('GET', 'devices/abc'), 'devices.show');
  assert.equal(verb('HEAD', 'blobs/abc'), 'blobs.get');
  assert.equal(verb('GET', 'metadata/region/1.root.json'), 'metadata.get');
  assert.equal(verb('POST', 'rollouts/plan'), 'rollouts.plan');
  assert.equal(verb('POST', 'devices/abc'), null);
  assert.equal(verb('GET', 'devices/a/b'), null);
  assert.equal(verb('GET', 'openapiXjson'), null);
  const matched = routeOf('GET', '/api/v1/models/acme/d%C3%BC/drift');
  assert.deepEqual(
    [...(matched?.params ?? [])],
    [
      ['namespace', 'acme'],
      ['name', 'dü'],
    ],
  );
  assert.deepEqual([...(routeOf('GET', '/api/v1/devices/%E0')?.params ?? [])], [['id', '%E0']]);
});

test('every route × every role, and no token', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const stored = await storeThings(world);
  assert.deepEqual(
    rowsWithoutBody().filter((verb) => !['blobs.put', 'authorities.rotate'].includes(verb)),
    [],
  );
  const tokens = new Map(
    await Promise.all(roles.map(async (role) => [role, await asking.token(role)] as const)),
  );
  const wrong: string[] = [];
  // What ends or changes what others ask about comes last.
  const last = ['rollouts.abort'];
  const rows = [...routeTable].sort((a, b) => last.indexOf(a.verb) - last.indexOf(b.verb));
  for (const row of rows) {
    // A namespace that is there already is the admin's alone: test/registry-core/registry.test.ts.
    const { path, body } = requestFor(row, stored, row.verb === 'publishers.put' ? 'free' : 'acme');
    const content = body === undefined ? {} : { body };
    const without = await asking.outcome(row.method, path, content);
    const wantedWithout = row.actions === 'public' ? null : 'token-missing';
    if (without.code !== wantedWithout) wrong.push(`${row.verb} without a token: ${without.code}`);
    for (const [role, token] of tokens) {
      const { status, code } = await asking.outcome(row.method, path, { token, ...content });
      const denied = status === 401 || code === 'role-forbidden' || code === 'namespace-forbidden';
      if (denied === rolesOf(row).includes(role)) wrong.push(`${row.verb} as ${role}: ${status} ${code}`);
      // A right that the row does not name, or a fault of the route: a bug either way.
      if (status >= 500) wrong.push(`${row.verb} as ${role}: ${status} ${code}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('who may not is told so before anything of the request is looked at', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const wrong: string[] = [];
  const viewer = await asking.token('viewer');
  for (const row of routeTable.filter((one) => !rolesOf(one).includes('viewer'))) {
    const path = row.path.replace(/\{\w+\}/g, '!!');
    const { code } = await asking.outcome(row.method, path, { token: viewer, body: { no: 'such' } }).catch(
      // A GET has no body.
      () => asking.outcome(row.method, path, { token: viewer }),
    );
    if (code !== 'role-forbidden') wrong.push(`${row.verb}: ${code}`);
  }
  assert.deepEqual(wrong, []);
});

test('a token that is bound to another namespace is refused wherever a namespace or the fleet is changed', async (t) => {
  const world = await openWorld(t);
  const asking = openAsking(world);
  const stored = await storeThings(world);
  const foreign = await asking.token('admin', 'other');
  const own = await asking.token('admin', 'acme');
  const ask = async (row: RouteRow, token: string) => {
    const { path, body } = requestFor(row, stored);
    return asking.outcome(row.method, path, { token, ...(body === undefined ? {} : { body }) });
  };
  const wrong: string[] = [];
  for (const row of routeTable) {
    const { code } = await ask(row, foreign);
    if ((code === 'namespace-forbidden') !== (row.scope !== 'any'))
      wrong.push(`${row.verb} of other: ${code}`);
  }
  for (const row of routeTable) {
    const { code } = await ask(row, own);
    if ((code === 'namespace-forbidden') !== (row.scope === 'fleet'))
      wrong.push(`${row.verb} of acme: ${code}`);
  }
  assert.deepEqual(wrong, []);
});

test('docs/access.md is what the tables say', () => {
  const committed = readFileSync(join(projectFolder, 'docs', 'access.md'), 'utf8');
  assert.equal(committed, accessTable(), 'run node scripts/access-table.mjs');
});
