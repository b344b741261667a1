// Why: the application's way in, over HTTP, through a real agent into a real registry.
// Trusts: test/support for the processes. Must never: look into the registry's database.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { deviceNow, recordsNow } from '../support/looking.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

interface Line {
  class: string;
  data: Record<string, unknown>;
}

test('records posted to an agent are answered when durable and are read with the CLI', async () => {
  const place = workplace('application');
  try {
    const registry = await startTestRegistry(place);
    const claim = place.path('claim.json');
    await registry.lepton(['claims', 'create', '--out', claim]);
    const agent = await startTestAgent(place, claim);
    const post = async (body: string): Promise<{ status: number; code: string | null; records: unknown }> => {
      const response = await fetch(`${agent.http}/telemetry/v1/records`, { method: 'POST', body });
      const { records } = (await response.json()) as { records?: unknown };
      return { status: response.status, code: response.headers.get('x-lepton-code'), records };
    };
    const stored = async (className: string): Promise<Line[]> => {
      const { stdout } = await registry.lepton(['telemetry', 'query', '--class', className, '--json']);
      return stdout
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Line);
    };
    const status = async (): Promise<{ outbox: Record<string, number> }> =>
      (await (await fetch(`${agent.http}/status`)).json()) as { outbox: Record<string, number> };

    // Its key comes with the first assignment, which is there right after enrolment.
    const first = await until('the key has come', async () => {
      const answer = await post('{"marker":"opaque-71c2"}');
      return answer.status === 503 ? null : answer;
    });
    assert.deepEqual(first, { status: 200, code: null, records: 1 });
    assert.deepEqual(await post('{"n":1}\n{"n":2,"timeMs":5}\n'), { status: 200, code: null, records: 2 });
    assert.deepEqual(await post(''), { status: 200, code: null, records: 0 });
    assert.equal((await post('{"n":3}\n{"n":}')).code, 'input-invalid');
    assert.equal((await post('{"n":3}\n{"n":}')).status, 400);
    assert.equal((await post(JSON.stringify({ note: 'x'.repeat(200_000) }))).status, 413);
    assert.equal((await post(`${'{"n":3}\n'.repeat(700_000)}`)).status, 413);
    const get = await fetch(`${agent.http}/telemetry/v1/records`);
    assert.equal(get.status, 405);
    assert.equal(get.headers.get('allow'), 'POST');
    await get.arrayBuffer();

    await until(
      'the records arrived',
      async () => (await recordsNow(registry, { class: 'app' })).length === 3,
    );
    const app = await stored('app');
    assert.deepEqual(
      app.map(({ data }) => data),
      [{ marker: 'opaque-71c2' }, { n: 1 }, { n: 2 }],
    );
    const events = await stored('event');
    assert.equal(events[0]?.data['kind'], 'agent-started');

    // What the device counts, what it reported, and what the region stored.
    await until('everything was acknowledged', async () => {
      const { outbox } = await status();
      return outbox['producedRecords'] === outbox['acknowledgedRecords'] && outbox['pendingBatches'] === 0;
    });
    const { outbox } = await status();
    assert.equal(outbox['producedRecords'], 3 + events.length);
    await until('the report says so', async () => {
      const shown = await deviceNow(registry, agent.id);
      return shown.outbox.acknowledgedRecords === outbox['acknowledgedRecords'];
    });

    await agent.daemon.stop('SIGKILL');
    for (const name of readdirSync(agent.state, { recursive: true, withFileTypes: true })) {
      if (!name.isFile()) continue;
      const path = join(name.parentPath, name.name);
      assert.equal(readFileSync(path).includes('opaque-71c2'), false, path);
    }
  } finally {
    await place.close();
  }
});
