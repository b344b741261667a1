// Why: whoever sits in another region reads what its policy lets go, and nothing else, over the real HTTP app; every answer
// and every refusal is counted, recorded, and told in the report.
// Trusts: ingest-world.ts. Must never: reach a decision without a request.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createApi } from '../../registry/api/app.ts';
import { residencyMarkdown } from '../../registry/reports/residency.ts';
import { signPolicy } from '../../shared/trust/region-policy.ts';
import { type Problem, type Role, tokenCreatedSchema } from '../../shared/wire/http.ts';
import { policyDecisionSchema, policyViewSchema } from '../../shared/wire/region-policy.ts';
import { residencyReportSchema } from '../../shared/wire/residency-report.ts';
import { telemetryClasses } from '../../shared/wire/telemetry.ts';
import { apiParts } from '../fleet/api-parts.ts';
import { recordsOf } from '../telemetry/batch-maker.ts';
import { type IngestWorld, openIngestWorld } from '../telemetry/ingest-world.ts';
import { even, pushProfiled, sendWindow } from '../telemetry/profiled.ts';
import { policyOf } from './files.ts';

function openApi(world: IngestWorld) {
  const api = createApi(apiParts(world), () => true);
  const audited = async (action: string) => (await world.core.audit.list({ limit: 1_000, action })).entries;
  const tokens = new Map<string, string>();
  const ask = async (
    path: string,
    at: string | null = null,
    options: { method?: string; body?: object; role?: Role } = {},
  ): Promise<Response> => {
    const { method = 'GET', body, role = 'admin' } = options;
    const who = `${role} ${at}`;
    const token =
      tokens.get(who) ??
      (await world.core.access.create({ user: 'ann', role, namespace: null, ttlMs: null, atRegion: at }))
        .token;
    tokens.set(who, token);
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    return api.fetch(new Request(`http://localhost/api/v1${path}`, init));
  };
  const problem = async (...args: Parameters<typeof ask>): Promise<Problem> => {
    const answer = await ask(...args);
    assert.equal(answer.ok, false, `${args[0]} was answered`);
    return (await answer.json()) as Problem;
  };
  const put = async (spec: string, version: number): Promise<void> => {
    const envelope = signPolicy(policyOf(spec, { version }));
    const answer = await ask('/policy', null, { method: 'PUT', body: { envelope } });
    assert.equal(answer.status, 200, await answer.clone().text());
  };
  return { ask, problem, put, audited };
}

const flows = `flows:
- {id: logs-to-us, classes: [log], destinations: [us-east], allow: true, because: vendor support}
- {id: no-samples, classes: [sample], destinations: ['*'], allow: false, because: pictures of people}
retention: {log: 30d}
purposes:
- {classes: [log, event], purpose: find faults, lawfulBasis: legitimate-interests}`;

test('raw telemetry: refused with its rule, counted and recorded; what may go goes and is metered', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  for (const kind of telemetryClasses)
    await sender.exchange((await sender.maker.make(recordsOf(3), { class: kind })).message);
  const { ask, problem, put, audited } = openApi(world);

  // No policy: the defaults.
  assert.equal((await problem('/telemetry?class=log', 'us-east')).rule, 'default/raw-stays');
  await put(flows, 1);

  const all = await problem('/telemetry', 'us-east');
  assert.deepEqual([all.status, all.code, all.rule], [403, 'policy-denied', 'default/raw-stays']);
  assert.match(all.detail, /event may not go to us-east by default\/raw-stays/);
  assert.match(all.detail, /sample may not go to us-east by flows\/no-samples: “pictures of people”/);
  assert.doesNotMatch(all.detail, /\blog may not/);
  assert.match(all.hint, /--class log/);
  assert.equal((await problem('/telemetry?class=sample', 'us-east')).rule, 'flows/no-samples');
  for (const path of ['/samples', '/models/acme/pump/samples/dataset'])
    assert.equal((await problem(path, 'us-east')).rule, 'flows/no-samples', path);
  // A token of this region that says that the file is taken elsewhere; one of elsewhere that says both.
  assert.equal((await problem('/telemetry?class=event&to=us-east')).rule, 'default/raw-stays');
  assert.equal((await problem('/telemetry?class=log&to=cn-north', 'us-east')).rule, 'default/raw-stays');

  const logs = await ask('/telemetry?class=log', 'us-east');
  const text = await logs.text();
  assert.deepEqual([logs.status, text.split('\n').length], [200, 4]);
  assert.equal((await ask('/telemetry?class=log&to=us-east')).status, 200);
  // Here everything is read by who may, and counts as no flow.
  for (const at of [null, 'test']) {
    const here = await (await ask('/telemetry', at)).text();
    assert.equal(here.split('\n').length, 16);
  }

  const facts = residencyReportSchema.parse(await (await ask('/reports/residency')).json());
  assert.deepEqual(facts.left, [
    {
      ...{ class: 'log', destination: 'us-east', rule: 'flows/logs-to-us', requests: 1, records: 3 },
      bytes: Buffer.byteLength(text),
    },
  ]);
  const refused = facts.refused.map((one) => [one.class, one.destination, one.rule, one.requests]);
  assert.deepEqual(refused, [
    ['app', 'us-east', 'default/raw-stays', 1],
    ['event', 'us-east', 'default/raw-stays', 2],
    ['log', 'cn-north', 'default/raw-stays', 1],
    ['log', 'us-east', 'default/raw-stays', 1],
    ['sample', 'us-east', 'flows/no-samples', 4],
    ['stats', 'us-east', 'default/raw-stays', 1],
  ]);
  const kept = facts.kept.find((one) => one.class === 'log');
  assert.deepEqual([kept?.records, kept?.batches, kept?.rule], [3, 1, 'retention/log']);
  assert.ok((kept?.bytes ?? 0) > 0 && (kept?.oldestMs ?? 0) > 0);
  assert.deepEqual(kept?.purposes, [{ purpose: 'find faults', lawfulBasis: 'legitimate-interests' }]);
  const text2 = residencyMarkdown(facts);
  assert.match(text2, /\| log \| us-east \| flows\/logs-to-us \| 1 \| 3 \|/);
  assert.match(text2, /\| sample \| us-east \| flows\/no-samples \| 4 \|/);
  assert.match(text2, /\| sample \| 3 \| 1 \| .* \| until erased \| default\/until-erased \| not stated \|/);
  assert.match(text2, /version 1, in force since 2026-01-01/);

  const flowsTold = await audited('flow.records');
  const rules = flowsTold.map(({ outcome, rule, subject }) => `${outcome} ${rule} ${subject}`);
  assert.equal(rules.filter((one) => one === 'done flows/logs-to-us us-east').length, 2);
  assert.equal(rules.filter((one) => one === 'refused flows/no-samples us-east').length, 4);
  assert.ok(
    flowsTold.every(({ actor, detail }) => actor === 'user:ann' && typeof detail['token'] === 'string'),
  );
  assert.deepEqual(
    (await audited('policy.put')).map(({ actor, outcome, detail }) => [actor, outcome, detail['version']]),
    [['user:ann', 'done', 1]],
  );
  // The request itself is on record too, and names the rule that refused it.
  const asked = (await audited('samples.list')).map(({ outcome, code, rule }) => [outcome, code, rule]);
  assert.deepEqual(asked, [['refused', 'policy-denied', 'flows/no-samples']]);
  assert.equal((await world.events('policy-in-force')).length, 1);
});

test('a reader who hangs up: what was sent until then is counted', async (t) => {
  const world = await openIngestWorld(t);
  const sender = await world.sender();
  for (let batch = 0; batch < 12; batch += 1)
    await sender.exchange((await sender.maker.make(recordsOf(50, 50 * batch), { class: 'log' })).message);
  const { ask, put } = openApi(world);
  await put(flows, 1);
  const reader = (await ask('/telemetry?class=log', 'us-east')).body?.getReader();
  await reader?.read();
  await reader?.cancel();
  const facts = residencyReportSchema.parse(await (await ask('/reports/residency')).json());
  const [sent] = facts.left;
  assert.ok(sent !== undefined && sent.records >= 50 && sent.records < 600, `${sent?.records}`);
});

test('sums over the fleet leave as cells of enough devices; those of one device are its own telemetry', async (t) => {
  const world = await openIngestWorld(t);
  const release = 'acme/pump@1.0.0';
  const about = { release, profileSha256: await pushProfiled(world, release, 1) };
  const { problem, ask, put } = openApi(world);
  const drift = '/models/acme/pump/drift';
  const first = await world.sender();
  await sendWindow(world, first, about, { x: even(30) });
  assert.equal((await problem(`${drift}?device=${first.id}`, 'us-east')).rule, 'default/raw-stays');
  assert.equal((await problem('/models/acme/pump/quality', 'us-east')).rule, 'default/raw-stays');
  await put('cells: {devicesMin: 2}', 1);
  const alone = await problem(drift, 'us-east');
  assert.equal(alone.rule, 'cells/devicesMin');
  assert.match(alone.detail, /1 devices.*fewer than 2/);
  await sendWindow(world, await world.sender(), about, { x: even(30) });
  assert.equal((await ask(drift, 'us-east')).status, 200);
  assert.equal((await ask('/models/acme/pump/energy', 'us-east')).status, 200);
  // Group by group: each of these labels is one device.
  await world.fleet.devices.label(first.id, { site: 'a' });
  assert.equal((await problem(`${drift}?by=site`, 'us-east')).rule, 'cells/devicesMin');
  await put("flows: [{id: no-cells, classes: [cells], destinations: ['*'], allow: false, because: x}]", 2);
  assert.equal((await problem(drift, 'us-east')).rule, 'flows/no-cells');
});

test('over HTTP: who may read and bring a policy, what it answers, and tokens that say where their user sits', async (t) => {
  const world = await openIngestWorld(t);
  const { ask, problem, put } = openApi(world);
  await put(flows, 1);
  const envelope = signPolicy(policyOf(flows, { version: 2 }));
  for (const role of ['viewer', 'publisher', 'approver', 'operator'] as const)
    assert.equal((await problem('/policy', null, { role })).code, 'role-forbidden');
  assert.equal((await ask('/policy', null, { role: 'auditor' })).status, 200);
  const byAuditor = await problem('/policy', null, { role: 'auditor', method: 'PUT', body: { envelope } });
  assert.equal(byAuditor.code, 'role-forbidden');
  const stale = await problem('/policy', null, {
    method: 'PUT',
    body: { envelope: signPolicy(policyOf('cells: {devicesMin: 2}')) },
  });
  assert.deepEqual([stale.status, stale.code], [409, 'policy-version-stale']);
  const view = policyViewSchema.parse(await (await ask('/policy')).json());
  assert.deepEqual([view.region, view.inForce?.version, view.inForce?.putBy], ['test', 1, 'ann']);
  const decision = policyDecisionSchema.parse(
    await (await ask('/policy/decision?class=log&destination=us-east')).json(),
  );
  assert.deepEqual([decision.allowed, decision.rule], [true, 'flows/logs-to-us']);
  assert.equal((await problem('/policy/decision?class=logs&destination=us-east')).code, 'input-invalid');
  assert.equal((await problem('/reports/residency?since=2&until=1')).code, 'input-invalid');

  const wanted = { user: 'bob', role: 'operator', at: 'us-east' };
  const made = await ask('/tokens', null, { method: 'POST', body: wanted });
  assert.equal(tokenCreatedSchema.parse(await made.json()).atRegion, 'us-east');
  // From elsewhere nobody makes a token of here.
  const body = { user: 'bob', role: 'admin', at: 'test' };
  assert.equal((await problem('/tokens', 'us-east', { method: 'POST', body })).code, 'role-forbidden');
  const { at: _at, ...inherits } = body;
  const inherited = await ask('/tokens', 'us-east', { method: 'POST', body: inherits });
  assert.equal(tokenCreatedSchema.parse(await inherited.json()).atRegion, 'us-east');
});

test('masking over HTTP: a rule of the policy is not taken away, and the refusal names it', async (t) => {
  const world = await openIngestWorld(t);
  const { ask, problem, put } = openApi(world);
  await put('masking: [{do: drop, field: name}]', 1);
  const clear = await problem('/masking', null, { method: 'PUT', body: { rules: [] } });
  assert.deepEqual([clear.code, clear.rule], ['policy-denied', 'masking/drop:name']);
  const rules = [
    { do: 'round', field: 'load', to: 5 },
    { do: 'drop', field: 'name' },
  ];
  assert.equal((await ask('/masking', null, { method: 'PUT', body: { rules } })).status, 200);
});
