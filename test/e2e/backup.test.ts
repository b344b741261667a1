// Why: with real programs: a region is backed up while it works, goes on, is lost, and comes back from the backup; its devices
// are not visited, nothing goes back, and what was erased since opens nowhere.
// Trusts: the devices' and the registry's own answers. Must never: look for erased records only where the registry looks.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type AgentStatus, agentStatusSchema } from '../../agent/status.ts';
import { openRecords, storageKey } from '../../registry/telemetry/sealed-records.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { checkErasure } from '../../shared/trust/erasure.ts';
import { parseRegionRoot } from '../../shared/trust/region.ts';
import type { BackupStatus } from '../../shared/wire/backup.ts';
import type { Erasure } from '../../shared/wire/erasure.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { tinyModel } from '../agent/tiny-model.ts';
import { makeClaim, pushModel } from '../support/fleet.ts';
import {
  run,
  startTestAgent,
  startTestRegistry,
  type TestAgent,
  type TestRegistry,
  until,
  type Workplace,
  workplace,
} from '../support/processes.ts';

const patienceMs = 120_000;

async function statusOf(agent: TestAgent): Promise<AgentStatus> {
  return agentStatusSchema.parse(await (await fetch(`${agent.http}/status`)).json());
}

/** One record of the application, once the device may write; it is kept when this resolves. */
async function write(agent: TestAgent, number: number): Promise<void> {
  await until('the record is kept', async () => {
    const body = JSON.stringify({ data: { number } });
    const response = await fetch(`${agent.http}/telemetry/v1/records`, { method: 'POST', body });
    await response.arrayBuffer();
    return response.status === 200;
  });
}

/** Of the API: a program for each question would cost more than everything else here. */
async function asked(registry: TestRegistry, path: string, body?: object): Promise<string> {
  const headers = { authorization: `Bearer ${registry.token}`, 'content-type': 'application/json' };
  const init = body === undefined ? { headers } : { method: 'POST', headers, body: JSON.stringify(body) };
  const response = await fetch(`${registry.http}/api/v1${path}`, init);
  const text = await response.text();
  assert.ok(response.ok, text);
  return text;
}

/** Numbers of the records that the registry gives out. */
async function numbersOf(registry: TestRegistry, device: string): Promise<number[]> {
  const lines = (await asked(registry, `/telemetry?device=${device}&class=app`)).split('\n').slice(0, -1);
  return lines.map((line) => Number((JSON.parse(line) as StoredRecord).data['number'])).sort((a, b) => a - b);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** As `until`, for what costs a question to the registry. */
const patiently = (what: string, check: () => Promise<boolean>): Promise<boolean> =>
  until(
    what,
    async () => {
      const seen = await check();
      if (!seen) await pause(150);
      return seen;
    },
    patienceMs,
  );

/** Rolled out, and run by every one of the devices. */
async function release(
  place: Workplace,
  parts: { registry: TestRegistry; agents: readonly TestAgent[] },
  id: string,
  factor: number,
): Promise<void> {
  const path = place.path(`times-${factor}.onnx`);
  writeFileSync(path, tinyModel(factor));
  await pushModel(parts.registry, path, id);
  const spec = { release: id, waves: [{ percent: 100, soak: '0s' }] };
  const file = { apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name: `times-${factor}` }, spec };
  await asked(parts.registry, '/rollouts', { file: JSON.stringify(file) });
  await patiently(`${id} runs everywhere`, async () => {
    const statuses = await Promise.all(parts.agents.map(statusOf));
    return statuses.every(({ models }) => models[0]?.active === id && models[0].state === 'committed');
  });
}

const filesUnder = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

/** Batches of a device in all databases under these folders that any key in any of them opens. */
async function opening(
  folders: readonly string[],
  deviceId: string,
): Promise<{ sealed: number; opened: number }> {
  const found = folders.flatMap(filesUnder);
  const keys: Uint8Array[] = [];
  for (const file of found.filter((path) => path.endsWith('telemetry-keys.sqlite'))) {
    const store = await openStore(file, { synchronous: 'FULL', readOnly: true });
    const rows = await store.tx((db) =>
      db.all<{ k: Uint8Array }>('SELECT secret_key AS k FROM telemetry_keys'),
    );
    await store.close();
    keys.push(...rows.map(({ k }) => new Uint8Array(k)));
  }
  const counted = { sealed: 0, opened: 0 };
  for (const file of found.filter((path) => path.endsWith('registry.sqlite'))) {
    const store = await openStore(file, { synchronous: 'FULL', readOnly: true });
    const rows = await store.tx((db) =>
      db.all<{ epoch: number; sequence: number; sealed: Uint8Array }>(
        `SELECT epoch, sequence, sealed FROM telemetry_sealed JOIN telemetry_batches USING (batch_id)
         WHERE device_id = ?`,
        deviceId,
      ),
    );
    await store.close();
    for (const { epoch, sequence, sealed } of rows) {
      counted.sealed += 1;
      for (const key of keys) {
        const place = { deviceId, epoch, sequence };
        const parts = { key: storageKey(key), deflate: systemDeflate };
        const plain = await openRecords(new Uint8Array(sealed), place, parts);
        if (plain === null) continue;
        counted.opened += 1;
        break;
      }
    }
  }
  return counted;
}

test('backed up at work, lost, restored: devices go on, nothing goes back, what was erased opens nowhere', async () => {
  const place = workplace('backup');
  const backups = place.path('backups');
  try {
    const registry = await startTestRegistry(place, 'registry', ['--backup-folder', backups]);
    const claim = await makeClaim(place, registry, 'claim', ['--uses', '2']);
    const agents: TestAgent[] = [];
    for (const name of ['one', 'two']) agents.push(await startTestAgent(place, claim, name));
    const [erased, other] = agents;
    assert.ok(erased && other);
    await release(place, { registry, agents }, 'acme/tiny@1.0.0', 2);
    for (const agent of agents) await write(agent, 0);
    for (const { id } of agents)
      await patiently('the first record is stored', async () => (await numbersOf(registry, id)).length === 1);

    // Records go on being written while the backup is taken.
    let working = true;
    let written = 0;
    const load = (async () => {
      while (working) {
        written += 1;
        for (const agent of agents) await write(agent, written);
        await pause(100);
      }
    })();
    const created = await registry.lepton(['backup', 'create', '--json']);
    const backup = created.json() as BackupStatus;
    working = false;
    await load;
    assert.match(created.stderr, /online keys in clear/);
    assert.ok((await opening([backup.path], erased.id)).opened > 0, 'the backup opens what is in it');

    await release(place, { registry, agents }, 'acme/tiny@2.0.0', 3);
    for (const agent of agents) await write(agent, written + 1);
    const all = Array.from({ length: written + 2 }, (_, number) => number);
    for (const { id } of agents)
      await patiently(
        'everything is stored',
        async () => (await numbersOf(registry, id)).length === all.length,
      );
    const erase = `/devices/${erased.id}/telemetry/erasure`;
    const certificate: Erasure = JSON.parse(await asked(registry, erase, { reason: 'article 17' }));
    assert.deepEqual(await numbersOf(registry, erased.id), []);
    const before = await Promise.all(agents.map(statusOf));
    const pids = agents.map((agent) => agent.daemon.child.pid);

    await registry.daemon.stop('SIGKILL');
    const journal = join(place.path('registry'), 'erasures.jsonl');
    const restore = [
      'backup',
      'restore',
      backup.path,
      '--data',
      place.path('restored'),
      '--erasures',
      journal,
    ];
    const restored = await run('lepton', restore, { env: place.env });
    assert.equal(restored.code, 0, restored.stderr);
    // On the ports that the backup names: those of the registry that is gone.
    const again = await startTestRegistry(place, 'restored', ['--backup-folder', backups]);
    assert.deepEqual([again.http, again.mqtt], [registry.http, registry.mqtt]);

    const after = await until(
      'every device goes on above what it held',
      async () => {
        await pause(100);
        const now = await Promise.all(agents.map(statusOf));
        return now.every(({ epoch }, at) => epoch > (before[at]?.epoch ?? 0)) ? now : null;
      },
      patienceMs,
    );
    for (const { models } of after) assert.equal(models[0]?.active, 'acme/tiny@2.0.0', 'no older release');

    // What others recorded is there or named as lost; nothing is there twice, and the next records come.
    for (const agent of agents) await write(agent, written + 2);
    const numbers = await until(
      'the record of after the restore is stored',
      async () => {
        await pause(100);
        const stored = await numbersOf(again, other.id);
        return stored.includes(written + 2) ? stored : null;
      },
      patienceMs,
    );
    assert.equal(new Set(numbers).size, numbers.length);
    const missing = all.filter((number) => !numbers.includes(number));
    const lost = await asked(again, `/telemetry/lost?device=${other.id}`);
    if (missing.length > 0) assert.match(lost, /firstSequence/, `${missing} are missing and nobody says so`);
    assert.ok(numbers.includes(0), 'what the backup had');

    const erasures = JSON.parse(await asked(again, '/telemetry/erasures')) as Erasure[];
    assert.deepEqual(erasures, [certificate], 'as it was signed, and no second one');
    const root = unwrap(
      parseRegionRoot(new TextEncoder().encode(await asked(again, '/metadata/region/1.root.json'))),
    );
    assert.deepEqual(unwrap(checkErasure(certificate.certificate, root)), certificate.statement);
    const folders = [place.path('registry'), place.path('restored'), backups];
    await patiently('no key within reach opens a batch of before', async () => {
      const numbers = await numbersOf(again, erased.id);
      const { sealed, opened } = await opening([backup.path, ...folders.slice(0, 1)], erased.id);
      return sealed > 0 && opened === 0 && numbers.every((number) => number > written + 1);
    });
    const keys = certificate.statement.keys.map(({ keyId }) => keyId);
    assert.ok(keys.length > 0);
    for (const file of folders.flatMap(filesUnder).filter((path) => path.endsWith('telemetry-keys.sqlite'))) {
      const store = await openStore(file, { synchronous: 'FULL', readOnly: true });
      const left = await store.tx((db) => db.all<{ id: string }>('SELECT key_id AS id FROM telemetry_keys'));
      await store.close();
      assert.deepEqual(
        left.filter(({ id }) => keys.includes(id)),
        [],
        file,
      );
    }
    for (const { models } of await Promise.all(agents.map(statusOf)))
      assert.deepEqual(
        models.map(({ active, candidate }) => [active, candidate]),
        [['acme/tiny@2.0.0', null]],
        'also later',
      );
    const rights = place.path('rights');
    await again.lepton(['rights', 'export', '--device', erased.id, '--out', rights]);
    assert.match(readFileSync(join(rights, 'README.md'), 'utf8'), /erasures\.ndjson/);
    assert.deepEqual(
      agents.map((agent) => [agent.daemon.child.pid, agent.daemon.child.exitCode]),
      pids.map((pid) => [pid, null]),
      'never visited',
    );
  } finally {
    await place.close();
  }
});
