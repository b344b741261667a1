// Why: rules that an operator sets hold on a device from its next assignment on, before anything is sealed, and after a
// restart without a network. Trusts: the real CLI, registry and agent. Must never: look at what a device holds in memory.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { makeClaim } from '../support/fleet.ts';
import { recordsNow } from '../support/looking.ts';
import { startTestAgent, startTestRegistry, until, workplace } from '../support/processes.ts';

test('what may not leave a device does not', async () => {
  const place = workplace('masking');
  try {
    const registry = await startTestRegistry(place);
    const file = join(place.folder, 'masking.yaml');
    writeFileSync(
      file,
      'apiVersion: lepton/v1\nkind: Masking\nrules:\n' +
        '  - {do: hash, field: patient.id}\n  - {do: drop, field: patient.name}\n  - {do: round, field: age, to: 10}\n',
    );
    const agent = await startTestAgent(place, await makeClaim(place, registry), 'agent');
    const record = async (number: number): Promise<void> => {
      const body = JSON.stringify({ number, age: 37, patient: { id: 'P-1', name: 'Ada' } });
      const answer = await fetch(`${agent.http}/telemetry/v1/records`, { method: 'POST', body });
      assert.equal(answer.status, 200, await answer.text());
    };
    const stored = async (number: number): Promise<Record<string, unknown>> =>
      until(`record ${number} is stored`, async () => {
        const records = await recordsNow(registry, { class: 'app' });
        return records.find(({ data }) => data['number'] === number)?.data;
      });

    await until('the first record is taken', async () => {
      const answer = await fetch(`${agent.http}/telemetry/v1/records`, {
        method: 'POST',
        body: '{"number":0}',
      });
      await answer.arrayBuffer();
      return answer.status === 200 ? true : null;
    });
    await registry.lepton(['masking', 'set', '-f', file]);
    const shown = await registry.lepton(['masking', 'show']);
    assert.match(shown.stdout, /patient\.id\s+hash/);

    let number = 0;
    const masked = await until('records come masked', async () => {
      number += 1;
      await record(number);
      const data = await stored(number);
      return data['age'] === 40 ? data : null;
    });
    const { id, ...patient } = masked['patient'] as { id: string };
    assert.match(id, /^h:[0-9a-f]{32}$/);
    assert.deepEqual(patient, {});

    // The registry is away: the rules are of the assignment that the device holds.
    await registry.daemon.stop();
    await agent.daemon.stop('SIGKILL');
    await agent.restart();
    await record(1_000);
    await registry.restart();
    const expected = { number: 1_000, age: 40, patient: { id } };
    assert.deepEqual(await stored(1_000), expected);
    const { stdout } = await registry.lepton(['telemetry', 'query', '--class', 'app', '--json']);
    const lines = stdout.split('\n').filter((line) => line !== '');
    const printed = lines.map((line) => JSON.parse(line) as StoredRecord);
    assert.deepEqual(printed.find(({ data }) => data['number'] === 1_000)?.data, expected);

    await registry.lepton(['masking', 'clear']);
    await until('records come as they are', async () => {
      number += 1;
      await record(number);
      return (await stored(number))['age'] === 37 ? true : null;
    });
  } finally {
    await place.close();
  }
});
