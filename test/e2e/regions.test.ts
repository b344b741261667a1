// Why: three regions in three processes, ten devices each, over links that are cut: what is pushed at home is everywhere, a
// rollout goes from region to region, a region that is cut off goes on alone, the home is lost and another takes over; nothing is
// lost or stored twice; and of every byte that went between regions nothing is a record or opens one.
// Trusts: nothing it did not start. Must never: look into a registry but through its CLI, its API and its files.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { openSealed } from '../../shared/crypto/sealed-box.ts';
import { seedFromPkcs8Pem } from '../../shared/crypto/spki.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { createRegionLine, regionIdentity } from '../../shared/host/region-door.ts';
import { openStore } from '../../shared/host/sqlite.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { decodeBatchMessage } from '../../shared/trust/telemetry.ts';
import type { AuditPage } from '../../shared/wire/audit.ts';
import type { DeviceView, Problem } from '../../shared/wire/http.ts';
import type { RegionRolloutStatus } from '../../shared/wire/region-rollouts.ts';
import type { Invitation } from '../../shared/wire/regions.ts';
import type { RolloutHistory, RolloutStatus } from '../../shared/wire/rollouts.ts';
import { identityModel } from '../registry-core/support.ts';
import { bundleFrom, firstChanges, holder, onlineChanges, signedBy } from '../support/ceremony.ts';
import { createLayers } from '../support/layers.ts';
import { leptonRunner, until, type Workplace, workplace } from '../support/processes.ts';
import {
  begin,
  doorKeyOf,
  install,
  openThreeRegions,
  planOf,
  type RegionName,
  type RegionProcess,
  regionNames,
  storedRecords,
  type ThreeRegions,
  writeRecords,
} from '../support/three-regions.ts';
import { openCaptured, readKeyLog } from '../support/tls-capture.ts';

const devicesEach = 10;
/** In every record of an application, and nowhere else. */
const recordMarker = 'raw-record-that-must-stay';
/** In a model card, which goes to every region: who finds nothing looked at the wrong bytes. */
const cardMarker = 'card-that-goes-everywhere';
const stages = [['home'], ['west'], ['east']];
const quick = { selector: {}, waves: [{ count: 1 }, { percent: 100 }] };

async function push(place: Workplace, region: RegionProcess, version: string): Promise<void> {
  const model = place.path(`model-${version}.onnx`);
  writeFileSync(model, identityModel(`release ${version}`));
  const card = place.path(`card-${version}.md`);
  writeFileSync(card, `# The model\n\n${cardMarker}\n`);
  await region.lepton(['models', 'push', model, '--name', 'acme/one', '--version', version, '--card', card]);
}

async function versionsIn(region: RegionProcess): Promise<string[]> {
  const [model] = JSON.parse(await region.get('models')) as { versions: { version: string }[] }[];
  return (model?.versions ?? []).map(({ version }) => version).sort();
}

/** It is in these regions, with its files. */
const isEverywhere = (version: string, ...regions: readonly RegionProcess[]) =>
  until(
    `${version} is in ${regions.map(({ name }) => name).join(', ')}`,
    async () => {
      for (const region of regions) {
        if (!(await versionsIn(region)).includes(version)) return false;
        if ((await region.status()).catalogue.wanted > 0) return false;
      }
      return true;
    },
    60_000,
  );

const rollout = async (region: RegionProcess, id: string) =>
  JSON.parse(await region.get(`rollouts/${id}`)) as RegionRolloutStatus;
const ownRollouts = async (region: RegionProcess) =>
  Promise.all(
    (JSON.parse(await region.get('rollouts')) as { id: string }[])
      .filter(({ id }) => !id.startsWith('rr'))
      .map(async ({ id }) => JSON.parse(await region.get(`rollouts/${id}`)) as RolloutStatus),
  );

/** Each device of the region runs it, and each is counted once. */
async function allRun(region: RegionProcess, release: string, count = devicesEach): Promise<void> {
  const own = (await ownRollouts(region)).find((one) => one.release === release);
  assert.equal(own?.state, 'succeeded', `${region.name}: ${release}`);
  assert.equal(own.devices.length, count);
  assert.deepEqual(new Set(own.devices.map(({ state }) => state)), new Set(['committed']));
  assert.equal(new Set(own.devices.map(({ id }) => id)).size, count);
}

interface Scene {
  place: Workplace;
  world: ThreeRegions;
  /** What was answered by devices, by the region that they were in. */
  written: Record<RegionName, string[]>;
}

async function writeAll({ world, written }: Scene, region: RegionProcess, name: string): Promise<void> {
  const each = region.devices.map((device, index) =>
    writeRecords(device, `${name} ${region.name} ${index}`, 5, `${recordMarker} ${region.name}`),
  );
  written[region.name].push(...(await Promise.all(each)).flat());
  assert.ok(world.regions[region.name] === region);
}

async function oneRegionAfterTheOther({ place, world }: Scene): Promise<void> {
  const { home, west, east } = world.regions;
  await push(place, home, '1.0.0');
  await isEverywhere('1.0.0', home, west, east);
  const id = await begin(place, home, 'first', { release: 'acme/one@1.0.0', regions: stages, ...quick });
  await home.lepton(['rollout', 'watch', id]);
  assert.deepEqual(
    (await rollout(home, id)).regions.map(({ region, state }) => [region, state]),
    stages.flat().map((region) => [region, 'succeeded']),
  );
  const times: number[] = [];
  for (const region of [home, west, east]) {
    await allRun(region, 'acme/one@1.0.0');
    const [own] = await ownRollouts(region);
    const history = JSON.parse(await region.get(`rollouts/${own?.id}/history`)) as RolloutHistory;
    times.push(history.at(0)?.atMs ?? 0, history.at(-1)?.atMs ?? 0);
  }
  // No region begins before the one before has ended.
  assert.deepEqual(
    times,
    [...times].sort((a, b) => a - b),
  );
}

async function cutOff(scene: Scene): Promise<void> {
  const { place, world } = scene;
  const { home, west, east } = world.regions;
  await push(place, home, '1.1.0');
  await isEverywhere('1.1.0', home, west, east);
  world.cut('east', true);
  await until('home misses east', async () =>
    (await home.status()).regions.some(
      ({ region, link }) => region === 'east' && link?.state === 'unreachable',
    ),
  );
  // The region goes on alone: its own rollout, its own records.
  const alone = await begin(place, east, 'alone', { release: 'acme/one@1.1.0', ...quick });
  await writeAll(scene, east, 'alone');
  await east.lepton(['rollout', 'watch', alone]);
  await allRun(east, 'acme/one@1.1.0');
  // Meanwhile the others get on, as far as they can without it.
  await push(place, home, '1.2.0');
  const id = await begin(place, home, 'second', { release: 'acme/one@1.2.0', regions: stages, ...quick });
  await until(
    'home and west have it',
    async () => {
      const [first, second] = (await rollout(home, id)).regions;
      return first?.state === 'succeeded' && second?.state === 'succeeded';
    },
    60_000,
  );
  assert.equal((await rollout(home, id)).state, 'running');
  assert.ok(!(await versionsIn(east)).includes('1.2.0'));
  await writeAll(scene, home, 'meanwhile');

  // Slow at first, and cut again and again.
  for (const other of ['home', 'west'] as const)
    for (const link of [world.link('east', other), world.link(other, 'east')])
      link.use({ bytesPerSecond: 400_000, delayMs: 10, cutEveryMs: 1_500 });
  await home.lepton(['rollout', 'watch', id]);
  world.cut('east', false);
  for (const region of [home, west, east]) await allRun(region, 'acme/one@1.2.0');
}

/** A device of home moves to east with what it had buffered, which east carries and cannot read. */
async function moved(scene: Scene): Promise<void> {
  const { place, world, written } = scene;
  const { home, east } = world.regions;
  const device = home.devices.pop();
  assert.ok(device);
  const order = place.path('order.json');
  await home.lepton([
    ...['devices', 'move', device.id, '--to', 'east', '--to-registry', east.http, '--to-token', east.token],
    ...['--out', order, '--sign'],
  ]);
  // It cannot arrive yet, and then it cannot reach its old region either: so it buffers.
  await east.kill();
  await home.lepton(['devices', 'move', '--apply', order]);
  await until('the device tries', async () => {
    const view = JSON.parse(await home.get(`devices/${device.id}`)) as DeviceView;
    return view.move?.order?.state === 'enrolling';
  });
  await home.kill();
  const buffered = await writeRecords(device, 'buffered', 40, `${recordMarker} buffered`);
  await east.start();
  await until(
    'it is in east',
    async () => {
      const devices = JSON.parse(await east.get('devices')) as DeviceView[];
      return devices.some(({ id, status }) => id === device.id && status === 'active');
    },
    60_000,
  );
  await home.start();
  const after = await writeRecords(device, 'after', 5, `${recordMarker} after`);
  east.devices.push(device);
  written.home.push(...buffered);
  written.east.push(...after);
  await until(
    'what it had buffered is where it belongs',
    async () => {
      const there = await storedRecords(home);
      return buffered.every((one) => there.includes(one));
    },
    60_000,
  );
  assert.equal((JSON.parse(await home.get(`devices/${device.id}`)) as DeviceView).status, 'moved');
}

async function forbidden({ place, world }: Scene): Promise<void> {
  const { home, west } = world.regions;
  const made = await home.lepton([
    ...['tokens', 'create', '--user', 'wanda', '--role', 'admin', '--at', 'west', '--json'],
  ]);
  const { token } = made.json() as { token: string };
  // By API, with a token of somebody who sits in west; by CLI, with a file that is taken there.
  const answer = await fetch(`${home.http}/api/v1/telemetry?class=app`, {
    headers: { authorization: `Bearer ${token}` },
  });
  const problem = (await answer.json()) as Problem;
  assert.deepEqual([answer.status, problem.code, problem.rule], [403, 'policy-denied', 'default/raw-stays']);
  const out = place.path('taken.ndjson');
  const asWanda = leptonRunner(place, { http: home.http, token });
  for (const lepton of [asWanda, home.lepton]) {
    const to = lepton === asWanda ? [] : ['--to', 'west'];
    const refused = await lepton(['telemetry', 'export', '--class', 'app', '--out', out, ...to], 1);
    assert.match(refused.stderr, /policy-denied.*default\/raw-stays/);
  }
  // A forged request with the key of west's own door, stolen from its disk.
  const seed = unwrap(seedFromPkcs8Pem(doorKeyOf(west)));
  const line = createRegionLine({
    identity: await regionIdentity({ seed, region: 'west', clock: systemClock, entropy: systemEntropy }),
    clock: systemClock,
  });
  const invitation = JSON.parse(readFileSync(place.path('west-invitation.json'), 'utf8')) as Invitation;
  const { publicKey } = invitation.home;
  const peer = { url: `https://127.0.0.1:${world.link('west', 'home').port}`, publicKey };
  for (const path of ['streams/telemetry?after=0&limit=100', 'streams/app?after=0&limit=100', 'telemetry']) {
    const asked = await line.ask(peer, {
      ...{ method: 'GET', path: `/regions/v1/${path}`, bytesMax: 1e6, timeoutMs: 5_000 },
    });
    const { status, bytes } = unwrap(asked);
    assert.equal(status, 403, path);
    assert.match(new TextDecoder().decode(bytes), /"policy-denied".*"rule":"default\/raw-stays"/, path);
  }
  line.close();
  const page = JSON.parse(await home.get('audit?limit=1000')) as AuditPage;
  const denied = page.entries.filter(({ code }) => code === 'policy-denied');
  assert.ok(denied.every(({ rule, outcome }) => rule === 'default/raw-stays' && outcome === 'refused'));
  for (const [actor, action] of [
    ['user:wanda', 'telemetry.read'],
    ['user:wanda', 'flow.records'],
    ['user:admin', 'flow.records'],
    ['region:west', 'flow.ask'],
  ])
    assert.ok(
      denied.some((one) => one.actor === actor && one.action === action),
      `${actor} ${action} is not on record: ${JSON.stringify(denied.map((one) => [one.actor, one.action]))}`,
    );
}

async function homeLost(scene: Scene): Promise<void> {
  const { place, world } = scene;
  const { home, west, east } = world.regions;
  const holders = [holder('alice'), holder('bob'), holder('carol')];
  const tina = holder('tina');
  const nowMs = systemClock.wall();
  const first = await planOf(place, home);
  const ceremony = bundleFrom(first, [...firstChanges(holders, tina), ...onlineChanges(first)], { nowMs });
  await install(place, home, signedBy(ceremony, ...holders.slice(0, 2), tina));
  await push(place, home, '1.3.0');
  await isEverywhere('1.3.0', home, west, east);

  await home.kill();
  await west.lepton(
    ['models', 'push', place.path('model-1.3.0.onnx'), '--name', 'acme/one', '--version', '9.0.0'],
    1,
  );
  const plan = await planOf(place, west);
  await install(
    place,
    west,
    signedBy(bundleFrom(plan, onlineChanges(plan), { nowMs }), ...holders.slice(0, 2)),
  );
  assert.equal((await west.status()).signs, true);
  await until('east knows the new home', async () => (await east.status()).home === 'west');
  await push(place, west, '2.0.0');
  await isEverywhere('2.0.0', west, east);
  const id = await begin(place, west, 'new-home', {
    ...{ release: 'acme/one@2.0.0', regions: [['west'], ['east']], ...quick },
  });
  await writeAll(scene, west, 'new home');
  await west.lepton(['rollout', 'watch', id]);
  await allRun(west, 'acme/one@2.0.0');
  await allRun(east, 'acme/one@2.0.0', devicesEach + 1);
  // Its devices ran on while it was away, and it mirrors when it is back.
  const lateRecords = home.devices.map((device, index) =>
    writeRecords(device, `late ${index}`, 2, `${recordMarker} late`),
  );
  scene.written.home.push(...(await Promise.all(lateRecords)).flat());
  await home.start();
  await isEverywhere('2.0.0', home);
  assert.deepEqual([(await home.status()).signs, (await home.status()).home], [false, 'west']);
}

async function audited({ place, world }: Scene): Promise<void> {
  const { home, west, east } = world.regions;
  const file = (region: RegionProcess): string => place.path(`${region.name}-audit.ndjson`);
  for (const region of [home, west, east]) await region.lepton(['audit', 'export', '--out', file(region)]);
  // Heads that were signed with these exports are at the others a moment later.
  await until('the others hold heads of it', async () => {
    for (const region of [home, west, east]) await region.lepton(['audit', 'export', '--out', file(region)]);
    const verified = await west.lepton([
      ...['audit', 'verify', file(west), '--against', file(home), '--against', file(east), '--json'],
    ]);
    const { holds, neighbours } = verified.json() as { holds: boolean; neighbours: { fit: number }[] };
    return holds && neighbours.length === 2 && neighbours.every(({ fit }) => fit > 0);
  });
  const lines = readFileSync(file(west), 'utf8').split('\n');
  const at = lines.findIndex((line) => line.includes('"action":"keys.install"'));
  assert.ok(at > 0);
  writeFileSync(file(west), [...lines.slice(0, at), ...lines.slice(at + 1)].join('\n'));
  const found = await west.lepton(['audit', 'verify', file(west)], 1);
  assert.match(found.stdout, /removed/);
}

async function nothingLost({ world, written }: Scene): Promise<void> {
  for (const region of Object.values(world.regions)) {
    const expected = [...written[region.name]].sort();
    await until(
      `${region.name} has every record`,
      async () => (await storedRecords(region)).length >= expected.length,
      60_000,
    );
    // Once each: what is stored twice stands there twice.
    assert.deepEqual(await storedRecords(region), expected, region.name);
  }
}

async function keysHeld(
  region: RegionProcess,
): Promise<{ id: string; publicKey: Buffer; secretKey: Buffer }[]> {
  const store = await openStore(`${region.data}/telemetry-keys.sqlite`, {
    migrations: [],
    synchronous: 'FULL',
    readOnly: true,
  });
  try {
    return await store.tx((db) =>
      db
        .all<{ key_id: string; public_key: Uint8Array; secret_key: Uint8Array }>(
          'SELECT key_id, public_key, secret_key FROM telemetry_keys',
        )
        .map((row) => ({
          id: row.key_id,
          publicKey: Buffer.from(row.public_key),
          secretKey: Buffer.from(row.secret_key),
        })),
    );
  } finally {
    await store.close();
  }
}

/** Every byte between regions, read as whoever holds all secrets of TLS reads it. */
async function captured({ world }: Scene): Promise<void> {
  const log = readKeyLog(world.keyLog());
  const keys = new Map<RegionName, Awaited<ReturnType<typeof keysHeld>>>();
  for (const name of regionNames) keys.set(name, await keysHeld(world.regions[name]));
  const needles = new Map<string, Buffer>([
    ['record', Buffer.from(recordMarker)],
    ['card', Buffer.from(cardMarker)],
  ]);
  for (const [name, held] of keys)
    for (const { id, secretKey } of held) {
      needles.set(`secret key ${id} of ${name}`, secretKey);
      needles.set(`secret key ${id} of ${name}, in hex`, Buffer.from(secretKey.toString('hex')));
    }
  assert.ok(needles.size > 2 + 2 * 3 * devicesEach);
  let bytes = 0;
  let connections = 0;
  const found = new Set<string>();
  const layers = createLayers();
  /** Batches that a device sealed, with the link on which they went. */
  const batches = new Map<string, Set<string>>();
  for (const [link, captures] of world.captured()) {
    let ofLink = 0;
    for (const { up, down } of captures) {
      const plain = openCaptured({ client: up, server: down }, log);
      // Cut in the middle of the handshake: nothing of an application went through.
      if (plain === null) continue;
      connections += 1;
      for (const side of [plain.client, plain.server]) {
        ofLink += side.length;
        for (const layer of layers.of(side)) {
          for (const [what, needle] of needles) if (layer.includes(needle)) found.add(what);
          const batch = decodeBatchMessage(layer);
          if (!batch.ok || batch.value.wrap.length === 0) continue;
          const wrap = Buffer.from(batch.value.wrap).toString('hex');
          batches.set(wrap, (batches.get(wrap) ?? new Set()).add(link));
        }
      }
    }
    assert.ok(ofLink > 0, `nothing was captured of ${link}`);
    bytes += ofLink;
  }
  assert.ok(connections >= 6 && bytes > 100_000, `${connections} connections, ${bytes} bytes`);
  // The card proves that what was looked at is what went through, and that a marker is found in it.
  assert.deepEqual([...found], ['card']);
  assert.ok(batches.size > 0, 'no carried batch went by');
  for (const [wrap, links] of batches) {
    // From east, which has the device now, to home, which asks for what is its own.
    assert.deepEqual([...links], ['home>east']);
    const opens = (region: RegionName): boolean =>
      (keys.get(region) ?? []).some(
        ({ publicKey, secretKey }) => openSealed(publicKey, secretKey, Buffer.from(wrap, 'hex')) !== null,
      );
    assert.deepEqual(regionNames.filter(opens), ['home'], 'who can open it');
  }
}

test('three regions, ten devices each', async (t) => {
  const place = workplace('regions');
  t.after(() => place.close());
  const world = await openThreeRegions(place, devicesEach);
  const scene: Scene = { place, world, written: { home: [], west: [], east: [] } };
  for (const region of Object.values(world.regions)) await writeAll(scene, region, 'first');
  const steps: [string, (scene: Scene) => Promise<void>][] = [
    ['a push at home is everywhere, and a rollout goes from region to region', oneRegionAfterTheOther],
    ['a region that is cut off goes on with its own rollout, and catches up', cutOff],
    ['a device moves, and what it had buffered is carried', moved],
    ['raw records that another region asks for are refused by the rule, and it is on record', forbidden],
    ['the home is lost, and another region takes over with the offline keys', homeLost],
    ['records of who did what hold, also as neighbours saw them', audited],
    ['no record is lost, none is there twice', nothingLost],
    ['between the regions went no record and nothing that opens one', captured],
  ];
  for (const [name, step] of steps) {
    const beganMs = performance.now();
    await step(scene);
    t.diagnostic(`${name}: ${((performance.now() - beganMs) / 1_000).toFixed(1)} s`);
  }
});
