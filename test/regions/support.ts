// Why: several registries of one company in this process, over their real doors, each reached through a link that can be
// cut. Trusts: nothing it did not start. Must never: leave a port or a folder behind.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Registry, type RegistryOptions, startRegistry } from '../../registry/registry.ts';
import type { Signer } from '../../shared/crypto/ed25519.ts';
import { systemClock } from '../../shared/host/clock.ts';
import { systemEntropy } from '../../shared/host/entropy.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { nextPublisherTargets } from '../../shared/trust/tuf/publisher.ts';
import type { Invitation, RegionsStatus } from '../../shared/wire/regions.ts';
import {
  dayMs,
  type HeardLog,
  heardLog,
  hexOf,
  identityModel,
  once,
  preparePush,
  publisherKey,
  temporaryFolder,
} from '../registry-core/support.ts';

const loopback = { host: '127.0.0.1', port: 0 };

export interface Region {
  name: string;
  folder: string;
  log: HeardLog;
  registry: Registry;
  status(): Promise<RegionsStatus>;
  stop(): Promise<void>;
  /** Starts again on the same folder. */
  start(more?: Partial<RegistryOptions>): Promise<void>;
}

export async function startRegion(
  t: TestContext,
  name: string,
  more: Partial<RegistryOptions> = {},
): Promise<Region> {
  const folder = temporaryFolder(t);
  const log = heardLog();
  const start = (now: Partial<RegistryOptions>): Promise<Registry> =>
    startRegistry({
      dataFolder: join(folder, 'data'),
      region: name,
      http: loopback,
      mqtt: loopback,
      regions: loopback,
      regionLimits: { roundEveryMs: 100, roundEveryMaxMs: 400, askTimeoutMs: 3_000, refusedRetryMs: 500 },
      encoder: null,
      version: '0.0.0-test',
      clock: systemClock,
      entropy: systemEntropy,
      log,
      ...now,
    });
  let registry = await start(more);
  t.after(() => registry.stop());
  return {
    name,
    folder,
    log,
    get registry() {
      return registry;
    },
    async status() {
      const { regions } = registry.parts;
      assert.ok(regions);
      return regions.status();
    },
    stop: () => registry.stop(),
    async start(again = {}) {
      registry = await start({ ...more, ...again });
    },
  };
}

export async function invite(home: Region, region: string): Promise<Invitation> {
  const { regions } = home.registry.parts;
  assert.ok(regions);
  return unwrap(await regions.invite({ region, createdBy: 'tester', ttlMs: 60_000 }));
}

/** A registry that joined the home's. */
export async function joinRegion(
  t: TestContext,
  home: Region,
  name: string,
  more: Partial<RegistryOptions> = {},
): Promise<Region> {
  return startRegion(t, name, { invitation: await invite(home, name), ...more });
}

/** Waits until `look` says yes; fails with `what` after `timeoutMs`. */
export async function until(
  what: string,
  look: () => Promise<boolean> | boolean,
  timeoutMs = 20_000,
): Promise<void> {
  const endMs = systemClock.mono() + timeoutMs;
  while (!(await look())) {
    if (systemClock.mono() > endMs) assert.fail(`not in time: ${what}`);
    await systemClock.timer(25).done;
  }
}

export interface Publisher {
  namespace: string;
  signer: Signer;
  /** Pushes `NS/NAME@VERSION` with a model of its own bytes to whoever is home. */
  push(home: Region, release: string, note?: string): Promise<void>;
  withdraw(home: Region, release: string): Promise<void>;
}

/** Its metadata is remembered, as a publisher's machine does. */
export function publisher(namespace: string): Publisher {
  const signer = publisherKey(namespace);
  return {
    namespace,
    signer,
    async push(home, releaseId, note = releaseId) {
      const { repository, blobs, releases } = home.registry.parts;
      if ((await repository.publisher(namespace)) === null)
        unwrap(await repository.delegate(namespace, [hexOf(signer)], 1));
      const present = await repository.publisher(namespace);
      const current =
        present === null || present.metadataVersion === 0
          ? null
          : await repository.file(`${present.metadataVersion}.${namespace}.json`);
      const models = await releases.list();
      const name = releaseId.slice(0, releaseId.indexOf('@'));
      const counter =
        1 +
        Math.max(0, ...(models.find((one) => one.name === name)?.versions ?? []).map((one) => one.counter));
      const prepared = preparePush({
        releaseId,
        model: identityModel(note),
        current,
        counter,
        signers: [signer],
        expiresAtMs: systemClock.wall() + 300 * dayMs,
      });
      const put = await blobs.put(
        (JSON.parse(new TextDecoder().decode(prepared.manifest)) as { files: { sha256: string }[] }).files[0]
          ?.sha256 ?? '',
        once(prepared.model),
      );
      unwrap(put);
      unwrap(await releases.push(prepared));
    },
    async withdraw(home, releaseId) {
      const { repository, releases } = home.registry.parts;
      const release = await releases.find(releaseId);
      const present = await repository.publisher(namespace);
      assert.ok(release && present);
      const metadata = nextPublisherTargets({
        namespace,
        current: await repository.file(`${present.metadataVersion}.${namespace}.json`),
        add: [],
        withdrawn: new Map([[parseReleaseId(releaseId)?.name ?? '', new Set([release.counter])]]),
        expiresAtMs: systemClock.wall() + 300 * dayMs,
        signers: [signer],
      });
      unwrap(await releases.takeStep({ namespace, metadata: unwrap(metadata), pushedBy: 'tester' }));
    },
  };
}

/** Every release that may be installed, with its digest. */
export async function installable(region: Region): Promise<string[]> {
  const models = await region.registry.parts.releases.list();
  return models
    .flatMap(({ name, versions }) =>
      versions
        .filter((one) => one.admitted && !one.withdrawn && !one.belowFloor)
        .map((one) => `${name}@${one.version} ${one.digest}`),
    )
    .sort();
}
