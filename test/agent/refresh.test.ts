// Why: a refresh is one question and one answer, costs next to nothing where nothing changed, and is exactly as
// safe as fetching file after file. Trusts: the stand-in's broker and trust chain, which are the real ones.
// Must never: wait without a limit.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMetadataSources, type FetchWhole, heldVersions } from '../../agent/trust/refresh.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import type { FetchTarget } from '../../shared/kernel/ports.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { encodeParcel, type Parcel, packParcel, parcelPlainBytesMax } from '../../shared/wire/refresh.ts';
import { silent } from './hand-clock.ts';
import { deploy, scene, statusOf, until } from './scene.ts';
import { testCatalogue } from './test-catalogue.ts';
import { tinyRelease } from './tiny-model.ts';
import { tlsMeter } from './tls-meter.ts';

const bytesMax = 1_024;

test('a refresh without news costs at most 1 KB on the wire, both ways, with its doorbell', async (t) => {
  const { registry, start } = await scene(t);
  const meter = await tlsMeter(t, Number(new URL(registry.url()).port));
  const claim = await registry.claim();
  const agent = await start({
    claim: { ...claim, brokerUrl: `mqtts://127.0.0.1:${meter.port}` },
    reportEveryMs: 3_600_000,
  });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  const quiet = async (): Promise<number> => {
    for (let last = -1; ; ) {
      const { up, down } = meter.bytes();
      if (up + down === last) return last;
      last = up + down;
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
  };
  await until('it has refreshed', () => registry.fetches.includes('refresh'));
  await quiet();
  const refreshes = (): number => registry.fetches.filter((one) => one === 'refresh').length;
  const costs: number[] = [];
  for (let round = 0; round < 3; round += 1) {
    const before = await quiet();
    const asked = refreshes();
    const fetched = registry.fetches.length;
    await registry.ringWith(systemEntropy.bytes(1));
    await until('it asked', () => refreshes() > asked);
    costs.push((await quiet()) - before);
    assert.equal(registry.fetches.length, fetched + 1, 'one question');
  }
  t.diagnostic(`a no-change refresh: ${Math.max(...costs)} bytes, doorbell included`);
  assert.ok(Math.max(...costs) <= bytesMax, `${costs.join(', ')} bytes`);
});

test('a first refresh and a new release are one question each; a registry without parcels is asked file by file', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim() });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  assert.deepEqual(
    registry.fetches.filter((one) => one.startsWith('metadata')),
    [],
  );
  registry.tamper.parcel = () => null;
  await registry.disconnect(agent.deviceId);
  await until('it is back', () => registry.connected().includes(agent.deviceId));
  await deploy(registry, agent, 'acme/tiny@1.1.0', 3);
  assert.ok(registry.fetches.includes('metadata timestamp.json'));
  const asked = (): number => registry.fetches.filter((one) => one === 'refresh').length;
  const before = asked();
  await deploy(registry, agent, 'acme/tiny@1.2.0', 4);
  assert.equal(asked(), before, 'it remembers until the next connection');
  delete registry.tamper.parcel;
  await registry.disconnect(agent.deviceId);
  await until('it asks again', () => asked() > before);
  assert.deepEqual(await statusOf(agent).then(({ refusals }) => refusals), []);
});

test('a forged, rolled back or mixed parcel is refused as its files would be, and never believed', async (t) => {
  const { registry, start } = await scene(t);
  const agent = await start({ claim: await registry.claim(), pollMs: 300 });
  await deploy(registry, agent, 'acme/tiny@1.0.0', 2);
  const older = new Map<string, Uint8Array>();
  registry.tamper.parcel = (parcel) => {
    for (const [name, bytes] of parcel.files) older.set(name, bytes);
    return parcel;
  };
  await deploy(registry, agent, 'acme/tiny@1.1.0', 3);
  const oldTimestamp = older.get('timestamp.json') ?? assert.fail();
  await deploy(registry, agent, 'acme/tiny@1.2.0', 4);
  const held = (await statusOf(agent)).held;
  const refusedFor = (code: string) => async () =>
    (await statusOf(agent)).refusals.some((refusal) => refusal.code === code);
  const forge = (change: (files: Map<string, Uint8Array>) => void) => {
    registry.tamper.parcel = (parcel: Parcel): Parcel => {
      const files = new Map(parcel.files);
      change(files);
      return { ...parcel, files };
    };
  };
  forge((files) => files.set('timestamp.json', oldTimestamp));
  await until('an older timestamp', refusedFor('metadata-rollback'));
  forge((files) => files.set('timestamp.json', Uint8Array.of(0x7b, 0x7d)));
  await until('no timestamp at all', refusedFor('metadata-malformed'));
  forge((files) => files.set('2.root.json', files.get('1.root.json') ?? oldTimestamp));
  await until('no root', async () => (await statusOf(agent)).refusals.length >= 3);
  assert.deepEqual((await statusOf(agent)).held, held, 'nothing was taken');
  delete registry.tamper.parcel;
  await deploy(registry, agent, 'acme/tiny@1.3.0', 5);
});

interface Sources {
  asked: string[];
  /** The answer to `refresh`. */
  parcel: Result<Uint8Array>;
  fetch(name: string): Promise<Result<Uint8Array>>;
}

function sourcesFor(parcel: Result<Uint8Array>, held = testCatalogue('r', Date.now() + 86_400_000)): Sources {
  const asked: string[] = [];
  const fetch: FetchWhole = async (target: FetchTarget) => {
    asked.push(target.kind === 'metadata' ? target.name : target.kind);
    if (target.kind === 'refresh') return parcel;
    return ok(Uint8Array.of(1));
  };
  const sources = createMetadataSources({ fetch, deflate: systemDeflate, log: silent });
  const source = sources.open(
    {
      catalogue: {
        root: held.rootFile,
        timestamp: held.files.get('timestamp.json') ?? null,
        snapshot: held.files.get('1.snapshot.json') ?? null,
        targets: held.files.get('1.targets.json') ?? null,
        delegated: {},
      },
      regionRoot: held.regionFile,
    },
    ['acme'],
  );
  return { asked, parcel, fetch: (name) => source.fetch(name, 1_000) };
}

const parcelOf = (files: Record<string, Uint8Array>, over: Partial<Parcel> = {}): Result<Uint8Array> =>
  ok(
    encodeParcel(
      packParcel({ files: new Map(Object.entries(files)), behind: [], behindNamespaces: [], ...over }),
      null,
    ),
  );
const codeOf = (result: Result<Uint8Array>): string => (result.ok ? 'ok' : result.refusal.code);

test('what a parcel lacks: no further root, the timestamp that is held, and everything else one by one', async () => {
  const held = testCatalogue('r', Date.now() + 86_400_000);
  const { asked, fetch } = sourcesFor(parcelOf({ '5.acme.json': Uint8Array.of(7) }), held);
  assert.deepEqual(await fetch('5.acme.json'), ok(Uint8Array.of(7)));
  assert.equal(codeOf(await fetch('2.root.json')), 'metadata-missing');
  assert.equal(codeOf(await fetch('region/2.root.json')), 'metadata-missing');
  assert.deepEqual(await fetch('timestamp.json'), ok(held.files.get('timestamp.json') ?? assert.fail()));
  assert.deepEqual(asked, ['refresh']);
  await fetch('9.snapshot.json');
  assert.deepEqual(asked, ['refresh', '9.snapshot.json']);
  const large = sourcesFor(parcelOf({ 'timestamp.json': new Uint8Array(1_001) }));
  assert.equal(codeOf(await large.fetch('timestamp.json')), 'metadata-too-large');
});

test('after a change of root keys the timestamp that is held says nothing, and the registry’s own is asked for', async () => {
  const moved = sourcesFor(parcelOf({ '2.root.json': Uint8Array.of(1) }));
  await moved.fetch('timestamp.json');
  assert.deepEqual(moved.asked, ['refresh', 'timestamp.json']);
});

test('a parcel that is none, a bomb or unknown: files one by one; a lost line is a lost line', async () => {
  const bomb = await systemDeflate.deflate(new Uint8Array(1 << 20));
  const lying = encodeParcel(new Uint8Array(2_000), bomb);
  const huge = encodeParcel(new Uint8Array(1), null);
  new DataView(huge.buffer).setUint32(2, parcelPlainBytesMax + 1);
  const none: Result<Uint8Array>[] = [
    refuse('metadata-missing', ''),
    refuse('fetch-invalid', ''),
    ok(new Uint8Array(0)),
    ok(Uint8Array.of(9, 9, 9, 9, 9, 9, 9)),
    ok(lying),
    ok(huge),
  ];
  for (const parcel of none) {
    const { asked, fetch } = sourcesFor(parcel);
    assert.equal(codeOf(await fetch('2.root.json')), 'ok');
    assert.deepEqual(asked, ['refresh', '2.root.json']);
  }
  const offline = sourcesFor(refuse('bus-offline', ''));
  assert.equal(codeOf(await offline.fetch('2.root.json')), 'bus-offline');
});

test('versions of what is held, 0 where nothing is', () => {
  const held = testCatalogue('r', Date.now() + 86_400_000);
  held.release('acme/tiny@1.0.0', tinyRelease(2));
  held.rotate('time');
  const files = {
    root: held.rootFile,
    timestamp: held.files.get('timestamp.json') ?? null,
    snapshot: null,
    targets: held.files.get('1.targets.json') ?? null,
    delegated: {},
  };
  assert.deepEqual(
    heldVersions({ catalogue: files, regionRoot: held.files.get('region/2.root.json') ?? assert.fail() }),
    { root: 1, regionRoot: 2, timestamp: 2, snapshot: 0, targets: 1 },
  );
});
