// Why: devices move between two real registries as people do it: an order, signed, handed in; what was buffered for the old
// region arrives there through the new one, whatever is stopped or killed in between.
// Trusts: nothing it did not start. Must never: count a record that was not answered.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { AgentStatus } from '../../agent/status.ts';
import type { DeviceView } from '../../shared/wire/http.ts';
import type { StoredRecord } from '../../shared/wire/telemetry.ts';
import { joinRegion, publisher, type Region, startRegion } from '../regions/support.ts';
import {
  type LeptonRunner,
  leptonRunner,
  startTestAgent,
  type TestAgent,
  until,
  workplace,
} from '../support/processes.ts';

async function write(agent: TestAgent, name: string, count: number): Promise<void> {
  const body = Array.from({ length: count }, (_, number) => JSON.stringify({ data: { name, number } }));
  await until(`${name} is durable`, async () => {
    const response = await fetch(`${agent.http}/telemetry/v1/records`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson' },
      body: body.join('\n'),
    });
    await response.arrayBuffer();
    return response.status === 200;
  });
}

const agentStatus = async (agent: TestAgent): Promise<AgentStatus> =>
  (await fetch(`${agent.http}/status`)).json() as Promise<AgentStatus>;

async function asked({ registry }: Region, path: string): Promise<string> {
  const headers = { authorization: `Bearer ${registry.adminToken}` };
  return (await fetch(`${registry.httpUrl}/api/v1/${path}`, { headers })).text();
}

const device = async (region: Region, id: string): Promise<DeviceView> =>
  JSON.parse(await asked(region, `devices/${id}`)) as DeviceView;

/** How often each record of the application is stored in a region, by `name number`, in order. */
async function stored(region: Region, id: string): Promise<[string, number][]> {
  const lines = (await asked(region, `telemetry?device=${id}&class=app`)).split('\n');
  const counts = new Map<string, number>();
  for (const line of lines) {
    if (line === '') continue;
    const { data } = JSON.parse(line) as StoredRecord;
    const key = `${data['name']} ${data['number']}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** By which start of a device a region knows it: its number and its session. */
const startIn = ({ registry }: Region, id: string): Promise<[number, string] | null> => {
  const { store } = registry.parts;
  return store.tx((db) => {
    const row = db.first(
      store.qb
        .selectFrom('devices')
        .select(['report_boot', 'report_session'])
        .where('device_id', '=', id)
        .where('report_session', '!=', ''),
    );
    return row === undefined ? null : [row.report_boot, row.report_session];
  });
};

const each = (...of: [string, number][]): [string, number][] =>
  of
    .flatMap(([name, count]) =>
      Array.from({ length: count }, (_, number): [string, number] => [`${name} ${number}`, 1]),
    )
    .sort(([a], [b]) => (a < b ? -1 : 1));

test('two devices move with what they had buffered: nothing lost, nothing twice', async (t) => {
  const place = workplace('moving');
  t.after(() => place.close());
  const home = await startRegion(t, 'home');
  await publisher('acme').push(home, 'acme/one@1.0.0');
  const west = await joinRegion(t, home, 'west');
  const lepton: LeptonRunner = (args, exit) =>
    leptonRunner(place, { http: home.registry.httpUrl, token: home.registry.adminToken }, true)(args, exit);
  const { claims, moves } = home.registry.parts.fleet;
  const claim = await claims.create({ labels: { site: 'a' }, uses: 2, ttlMs: 600_000, createdBy: 'tester' });
  writeFileSync(place.path('claim.json'), JSON.stringify(claim));
  const first = await startTestAgent(place, place.path('claim.json'), 'agent-1');
  const second = await startTestAgent(place, place.path('claim.json'), 'agent-2');
  const agents = [first, second];
  for (const agent of agents) await write(agent, 'before', 20);

  // One order for both. Two holders of root keys sign it, each alone; with one of them it is nothing.
  const order = place.path('move.json');
  const made = await lepton([
    ...['devices', 'move', first.id, second.id, '--to', 'west'],
    ...['--to-registry', west.registry.httpUrl, '--to-token', west.registry.adminToken],
    ...['--out', order, '--json'],
  ]);
  assert.deepEqual((made.json() as { signedBy: string[] }).signedBy, []);
  const keyFile = (role: string): string => join(home.folder, 'data', 'keys', `${role}.pem`);
  const sign = (role: string, exit?: number) =>
    lepton(['devices', 'sign-move', order, '--key', keyFile(role), '--json'], exit);
  assert.match((await sign('director', 1)).stderr, /key-not-needed/);
  await sign('root-1');
  assert.match((await lepton(['devices', 'move', '--apply', order], 1)).stderr, /move-signature-invalid/);
  const signed = (await sign('root-3')).json() as { signedBy: string[]; needed: number };
  assert.deepEqual([signed.signedBy.length, signed.needed], [2, 2]);

  // It is handed in while the new region is away: the devices stay where they are.
  await west.stop();
  await lepton(['devices', 'move', '--apply', order]);
  await until('both try', async () =>
    (await Promise.all(agents.map(agentStatus))).every(({ move }) => move?.state === 'enrolling'),
  );
  await until('home knows', async () =>
    (await moves.list()).every(({ devices }) => devices.every(({ state }) => state === 'enrolling')),
  );
  for (const agent of agents) assert.equal((await agentStatus(agent)).region, 'home');

  // The old region goes away, they buffer; one of them is killed.
  await home.stop();
  for (const agent of agents) await write(agent, 'buffered', 30);
  await second.daemon.stop('SIGKILL');
  await second.restart();
  await write(second, 'restarted', 5);
  await west.start();
  for (const agent of agents) {
    await until('it is in west', async () => (await agentStatus(agent)).region === 'west');
    await write(agent, 'after', 10);
  }
  await until('what is for home waits in west', () =>
    agents.every(({ id }) =>
      west.log.events.some(({ event, fields }) => event === 'carried.stored' && fields['deviceId'] === id),
    ),
  );
  await until('it reported in west', async () => (await startIn(west, first.id)) !== null);
  const firstStart = await startIn(west, first.id);
  await first.daemon.stop('SIGKILL');
  await first.restart();
  for (const agent of agents) {
    const [waiting] = (await agentStatus(agent)).carried;
    assert.equal(waiting?.region, 'home');
    assert.ok((waiting?.pendingRecords ?? 0) >= 30);
  }

  await home.start();
  // The line began anew and the device did not: two sessions of one start would be two devices.
  assert.deepEqual(await startIn(home, first.id), firstStart);
  for (const [agent, buffered] of [
    [first, each(['before', 20], ['buffered', 30])],
    [second, each(['before', 20], ['buffered', 30], ['restarted', 5])],
  ] as const) {
    await until('home signed for all of it', async () => (await agentStatus(agent)).carried.length === 0);
    assert.deepEqual(await stored(home, agent.id), buffered);
    await until('the new ones are stored', async () => (await stored(west, agent.id)).length === 10);
    assert.deepEqual(await stored(west, agent.id), each(['after', 10]));
    const status = await agentStatus(agent);
    assert.equal(status.movedFrom, 'home');
    assert.equal(status.attacks.count, 0);
    const there = await device(west, agent.id);
    assert.equal(there.status, 'active');
    assert.deepEqual(there.labels, { site: 'a' });
    assert.equal(there.move?.movedFrom, 'home');
    await until('home lets it go', async () => (await device(home, agent.id)).status === 'moved');
    assert.equal((await device(home, agent.id)).move?.movedTo, 'west');
  }
  const shown = await lepton(['devices', 'moves']);
  assert.equal(shown.stdout.match(/ moved /g)?.length, 2);
});
