// Why: records whose append was answered are stored exactly once, whatever dies in between; the device's
// files show nothing of them.
// Trusts: the application's own note of what was answered. Must never: end a process kindly where it says kill -9.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { makeClaim, showDevice } from '../support/fleet.ts';
import { deviceNow } from '../support/looking.ts';
import { startTestAgent, startTestRegistry, type TestAgent, until, workplace } from '../support/processes.ts';

const recordsWanted = 20_000;
const recordsPerRequest = 25;
const registryDownMs = Number(process.env['LEPTON_REGISTRY_DOWN_MS'] ?? 20_000);
const marker = 'marker-that-must-not-be-on-disk';

/** An application that writes and notes what was answered; what was not answered is written under a new number. */
function startWriter(agent: TestAgent): { answered: Set<number>; tried: () => number; done: Promise<void> } {
  const answered = new Set<number>();
  let next = 0;
  const write = async (): Promise<void> => {
    while (answered.size < recordsWanted) {
      const numbers = Array.from({ length: recordsPerRequest }, () => next++);
      const body = numbers.map((number) => JSON.stringify({ data: { number, text: marker } })).join('\n');
      try {
        const response = await fetch(`${agent.http}/telemetry/v1/records`, {
          method: 'POST',
          headers: { 'content-type': 'application/x-ndjson' },
          body,
          signal: AbortSignal.timeout(10_000),
        });
        const answer = await response.text();
        if (response.status === 200) {
          assert.deepEqual(JSON.parse(answer), { records: recordsPerRequest });
          for (const number of numbers) answered.add(number);
        }
        // Slow enough that the writing goes on through every crash.
        await new Promise((resolve) => setTimeout(resolve, response.status === 200 ? 90 : 200));
      } catch (error) {
        // The agent is down: nothing of this request was answered.
        if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  };
  return { answered, tried: () => next, done: write() };
}

function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

test('registry down, agent killed three times, 20,000 records: each answered one stored once', async () => {
  const place = workplace('records');
  try {
    const registry = await startTestRegistry(place);
    const agent = await startTestAgent(place, await makeClaim(place, registry), 'agent');
    await until('the device may write records', async () => {
      const response = await fetch(`${agent.http}/telemetry/v1/records`, {
        method: 'POST',
        body: '{"data":{}}',
      });
      await response.arrayBuffer();
      return response.status === 200;
    });
    const writer = startWriter(agent);

    await until('some were written', () => writer.answered.size > 1_000);
    await registry.daemon.stop('SIGKILL');
    const downUntil = performance.now() + registryDownMs;
    for (const written of [3_000, 6_000]) {
      await until(`${written} were written`, () => writer.answered.size > written, 60_000);
      await agent.daemon.stop('SIGKILL');
      await agent.restart();
    }
    await until('that time has passed', () => performance.now() > downUntil, registryDownMs + 10_000);
    await registry.restart();
    await until('more were written', () => writer.answered.size > 18_000, 120_000);
    await agent.daemon.stop('SIGKILL');
    await agent.restart();
    await writer.done;

    await until(
      'the outbox is empty',
      async () => {
        const device = await deviceNow(registry, agent.id);
        const { producedRecords, acknowledgedRecords, pendingBatches } = device.outbox;
        return (
          pendingBatches === 0 && producedRecords === acknowledgedRecords && producedRecords > recordsWanted
        );
      },
      120_000,
    );
    const { outbox } = await showDevice(registry, agent.id);
    assert.equal(outbox.droppedRecords, 0);

    const query = await registry.lepton([
      'telemetry',
      'query',
      '--device',
      agent.id,
      '--class',
      'app',
      '--json',
    ]);
    const stored = query.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as StoredRecord);
    const counts = new Map<number, number>();
    for (const { data } of stored) {
      if (typeof data['number'] === 'number')
        counts.set(data['number'], (counts.get(data['number']) ?? 0) + 1);
    }
    const missing = [...writer.answered].filter((number) => !counts.has(number));
    assert.deepEqual(missing, [], `${missing.length} answered records are not stored`);
    const twice = [...counts].filter(([, count]) => count > 1);
    assert.deepEqual(twice, [], `${twice.length} records are stored more than once`);
    assert.ok(counts.size <= writer.tried());
    const places = new Set(stored.map((one) => `${one.epoch}:${one.sequence}:${one.index}`));
    assert.equal(places.size, stored.length);

    for (const file of filesOf(agent.state)) {
      assert.ok(!readFileSync(file).includes(marker), `${file} shows a record in clear`);
    }
  } finally {
    await place.close();
  }
});
