// Why: what trust costs on the wire and in time: a refresh without news and a first one, over MQTT with TLS, beside
// tuf-js on the same repository over plain HTTP in the same run. Trusts: the real registry, broker and client.
// Must never: leave out a check, or compare two different repositories.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Updater } from 'tuf-js';
import { createFetcher, fetchWhole } from '../../agent/bus/fetcher.ts';
import { createMetadataSources } from '../../agent/trust/refresh.ts';
import type { Registry } from '../../registry/registry.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { type Signer, signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemDeflate } from '../../shared/host/deflate.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId, targetPath } from '../../shared/kernel/releases.ts';
import { refreshCatalogue, type TrustState } from '../../shared/trust/tuf/client.ts';
import { deviceTopic } from '../../shared/wire/topics.ts';
import { silent } from '../agent/hand-clock.ts';
import { type TlsMeter, tlsMeter } from '../agent/tls-meter.ts';
import { identityModel, once, preparePush } from '../registry-core/support.ts';
import { type Workplace, workplace } from '../support/processes.ts';
import { openTestRegistry, testRegion } from '../support/registry.ts';
import { openLoneDevice } from './lone-device.ts';

const publishers = 100;
const dayMs = 86_400_000;

interface Cost {
  p50Ms: number;
  p99Ms: number;
  /** Inside TLS, both ways; for HTTP the same as on the wire. */
  bytes: number;
  wireBytes: number;
}

interface Side {
  /** From nothing but the pinned root. */
  first(): Promise<void>;
  /** Everything is held. */
  again(): Promise<void>;
  meter: TlsMeter;
  /** HTTP has no records to look into. */
  plain: boolean;
}

const round = (value: number): number => Math.round(value * 1_000) / 1_000;

/** Publishers are delegated and push as they do; each publisher's releases follow one another. */
async function publish(registry: Registry, releases: number): Promise<string> {
  const { repository, releases: catalogue, blobs } = registry.parts;
  const model = identityModel('bench');
  await blobs.put(sha256Hex(model), once(model));
  let first = '';
  for (let index = 0; index < publishers; index++) {
    const namespace = `publisher-${index}`;
    const signer: Signer = signerFromSeed(systemEntropy.bytes(32), 'node');
    unwrap(await repository.delegate(namespace, [Buffer.from(signer.publicKey).toString('hex')], 1));
    const own =
      Math.floor(((index + 1) * releases) / publishers) - Math.floor((index * releases) / publishers);
    let current: Uint8Array | null = null;
    for (let number = 0; number < own; number++) {
      const releaseId = `${namespace}/model@1.${number}.0`;
      const push = preparePush({
        releaseId,
        model,
        current,
        counter: number + 1,
        signers: [signer],
        expiresAtMs: systemClock.wall() + 90 * dayMs,
      });
      unwrap(await catalogue.push(push));
      current = push.metadata;
      first ||= releaseId;
    }
  }
  return first;
}

/** A device that is enrolled and connected, asking as an agent asks. */
async function ourSide(registry: Registry, place: Workplace, namespace: string): Promise<Side> {
  const { bus, online, deviceId, region, roots, meter } = await openLoneDevice(registry, place);
  const common = { clock: systemClock, entropy: systemEntropy, log: silent };
  const fetcher = createFetcher({ bus, region, deviceId, ...common });
  await bus.subscribe(deviceTopic(region, deviceId, 'bytes'), (message) => fetcher.receive(message));
  await online;
  const sources = createMetadataSources({
    fetch: (target, bytesMax) => fetchWhole(fetcher, target, bytesMax),
    deflate: systemDeflate,
    log: silent,
  });
  const nothing: TrustState = {
    root: roots.catalogue,
    timestamp: null,
    snapshot: null,
    targets: null,
    delegated: {},
  };
  let held = nothing;
  const refresh = async (state: TrustState): Promise<void> => {
    const source = sources.open({ catalogue: state, regionRoot: roots.region }, [namespace]);
    held = unwrap(
      await refreshCatalogue({
        state,
        fetcher: source,
        nowMs: systemClock.wall(),
        namespaces: [namespace],
        saveRoot: async () => undefined,
      }),
    );
    if (held.delegated[namespace] === undefined) throw new Error('the publisher was not verified');
  };
  return { first: () => refresh(nothing), again: () => refresh(held), meter, plain: false };
}

/** tuf-js, as its users run it: an updater for each refresh, files in a folder, its own fetcher. */
async function tufJsSide(registry: Registry, place: Workplace, releaseId: string): Promise<Side> {
  const { repository } = registry.parts;
  const server = createServer((request, response) => {
    const name = decodeURIComponent((request.url ?? '').slice(1));
    void repository.file(name).then((bytes) => {
      if (bytes === null) response.writeHead(404).end();
      else response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const ends: (() => Promise<void>)[] = [];
  place.onClose(async () => {
    for (const end of ends) await end();
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  });
  const meter = await tlsMeter({ after: (end) => ends.push(end) }, (server.address() as AddressInfo).port);
  const release = parseReleaseId(releaseId);
  const root = await repository.file('1.root.json');
  if (release === null || root === null) throw new Error('no repository');
  const path = targetPath(release);
  let folder = '';
  const run = async (): Promise<void> => {
    const updater = new Updater({ metadataDir: folder, metadataBaseUrl: `http://127.0.0.1:${meter.port}` });
    await updater.refresh();
    if ((await updater.getTargetInfo(path)) === undefined) throw new Error('tuf-js did not find the release');
  };
  return {
    first: async () => {
      if (folder !== '') rmSync(folder, { recursive: true });
      mkdirSync(place.path('tuf-js'), { recursive: true });
      folder = mkdtempSync(place.path('tuf-js', 'client-'));
      writeFileSync(join(folder, 'root.json'), root);
      await run();
    },
    again: run,
    meter,
    plain: true,
  };
}

async function measure(sides: readonly Side[], which: 'first' | 'again', rounds: number): Promise<Cost[]> {
  const times = sides.map((): number[] => []);
  const bytes = sides.map((): number[] => []);
  const wire = sides.map((): number[] => []);
  for (let index = -3; index < rounds; index++) {
    for (const [at, side] of sides.entries()) {
      const before = { inside: sum(side.meter), wire: side.meter.wireBytes() };
      const startMs = systemClock.mono();
      await side[which]();
      const endMs = systemClock.mono();
      if (index < 0) continue;
      times[at]?.push(endMs - startMs);
      const onWire = side.meter.wireBytes() - before.wire;
      wire[at]?.push(onWire);
      bytes[at]?.push(side.plain ? onWire : sum(side.meter) - before.inside);
    }
  }
  return sides.map((_, at) => ({
    p50Ms: round(quantile(times[at], 0.5)),
    p99Ms: round(quantile(times[at], 0.99)),
    bytes: quantile(bytes[at], 0.5),
    wireBytes: quantile(wire[at], 0.5),
  }));
}

const sum = (meter: TlsMeter): number => meter.bytes().up + meter.bytes().down;

function quantile(values: number[] | undefined, fraction: number): number {
  const sorted = [...(values ?? [])].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? Number.NaN;
}

async function benchRepository(releases: number): Promise<object> {
  const place = workplace('bench-metadata');
  try {
    const { registry } = await openTestRegistry(place);
    const releaseId = await publish(registry, releases);
    const namespace = releaseId.slice(0, releaseId.indexOf('/'));
    const sides = [await ourSide(registry, place, namespace), await tufJsSide(registry, place, releaseId)];
    const [first, tufJsFirst] = await measure(sides, 'first', 30);
    const [again, tufJsAgain] = await measure(sides, 'again', 300);
    if (!first || !tufJsFirst || !again || !tufJsAgain) throw new Error('nothing was measured');
    return {
      releases,
      publishers,
      region: testRegion,
      first: { ours: first, tufJs: tufJsFirst, ratio: round(first.p50Ms / tufJsFirst.p50Ms) },
      noChange: { ours: again, tufJs: tufJsAgain, ratio: round(again.p50Ms / tufJsAgain.p50Ms) },
      noChangeBytesMax: 1_024,
    };
  } finally {
    await place.close();
  }
}

/** Bytes and milliseconds of a first refresh and of one without news, with 10 and with 1,000 releases. */
export async function benchMetadata(): Promise<object> {
  return { few: await benchRepository(10), many: await benchRepository(1_000) };
}
