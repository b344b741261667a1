// Why: a registry that dies anywhere between making online keys, installing the roots that name them and
// deleting the old ones starts again, signs with the right keys, and leaves no key behind that nobody names.
// Trusts: SQLite for its own commits. Must never: count a run in which nothing was cut.

import assert from 'node:assert/strict';
import { cpSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { openKeyring } from '../../registry/signing/keys.ts';
import { type CatalogueRepository, openRepository } from '../../registry/signing/repository.ts';
import { openRegistryStore, type RegistryStore } from '../../registry/store/open.ts';
import { openDisk } from '../../shared/host/disk.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Disk } from '../../shared/kernel/ports.ts';
import { ok, refuse } from '../../shared/kernel/result.ts';
import { refreshCatalogue } from '../../shared/trust/tuf/client.ts';
import { bundleFrom, firstChanges, holder, onlineChanges, signedBy } from '../support/ceremony.ts';
import { countedEntropy, type HeardLog, heardLog, temporaryFolder, turnedClock } from './support.ts';

const [alice, bob, tina] = [holder('alice'), holder('bob'), holder('tina')];

class PowerCut extends Error {}

/** Counts whatever changes the disk or the database; from step `at` on nothing happens any more. */
interface Power {
  steps: number;
  at: number;
  step(): void;
}

function power(at: number): Power {
  const self: Power = {
    steps: 0,
    at,
    step() {
      self.steps += 1;
      if (self.steps >= self.at) throw new PowerCut(`at step ${self.steps}`);
    },
  };
  return self;
}

function cutDisk(disk: Disk, supply: Power): Disk {
  const after = <A extends unknown[], R>(work: (...args: A) => Promise<R>) => {
    return async (...args: A): Promise<R> => {
      supply.step();
      return work(...args);
    };
  };
  return {
    ...disk,
    create: after(disk.create),
    append: after(disk.append),
    fsync: after(disk.fsync),
    rename: after(disk.rename),
    unlink: after(disk.unlink),
    fsyncDir: after(disk.fsyncDir),
  };
}

/** A transaction is cut before it begins, or after its commit and before anybody hears of it. */
function cutStore(store: RegistryStore, supply: Power): RegistryStore {
  return {
    ...store,
    async tx(work) {
      supply.step();
      const value = await store.tx(work);
      supply.step();
      return value;
    },
  };
}

let opened = 0;

async function open(
  folder: string,
  log: HeardLog,
  options: { mayCreate?: boolean; supply?: Power } = {},
): Promise<{ store: RegistryStore; repository: CatalogueRepository }> {
  const { mayCreate = false, supply } = options;
  const clock = turnedClock();
  const disk = openDisk(join(folder, 'keys'));
  const real = await openRegistryStore(join(folder, 'registry.sqlite'));
  try {
    const store = supply === undefined ? real : cutStore(real, supply);
    const keyring = await openKeyring({
      disk: supply === undefined ? disk : cutDisk(disk, supply),
      mayCreate,
      region: 'test',
      hosts: ['localhost'],
      clock,
      entropy: countedEntropy(`start ${opened++}`),
      log,
    });
    return { store: real, repository: await openRepository({ store, keyring, region: 'test', clock, log }) };
  } catch (error) {
    await real.close();
    throw error;
  }
}

/** The steps of stolen online keys: plan, sign, install. */
async function rotateOnline(repository: CatalogueRepository): Promise<void> {
  const plan = await repository.keys.plan({ newOnline: true });
  const bundle = bundleFrom(plan, onlineChanges(plan), { nowMs: turnedClock().wall() });
  unwrap(await repository.keys.install(signedBy(bundle, alice, bob)));
}

/** A device that was enrolled at the very beginning accepts all of it. */
async function checkDevice(repository: CatalogueRepository, firstRoot: Uint8Array): Promise<void> {
  unwrap(
    await refreshCatalogue({
      state: { root: firstRoot, timestamp: null, snapshot: null, targets: null, delegated: {} },
      fetcher: {
        async fetch(name) {
          const bytes = await repository.file(name);
          return bytes === null ? refuse('metadata-missing', name) : ok(new Uint8Array(bytes));
        },
      },
      nowMs: turnedClock().wall(),
      namespaces: [],
      saveRoot: async () => undefined,
    }),
  );
}

/** Ids of the keys in files: those of the roots and of a plan that waits, and nothing else. */
async function checkFiles(folder: string, repository: CatalogueRepository): Promise<void> {
  const files = readdirSync(join(folder, 'keys')).filter((name) => !/^(server|fleet-ca)\./.test(name));
  const { roles, pending } = await repository.keys.status();
  const here = roles.filter(({ role }) => role !== 'fleet-ca').flatMap(({ keys }) => keys);
  const wanted = [
    ...here.filter((key) => key.where === 'this registry').map((key) => key.keyId),
    ...pending.map((key) => key.keyId),
  ];
  assert.equal(files.length, new Set(wanted).size, `${files.join(' ')} for ${wanted.length} keys`);
  assert.deepEqual(
    files.filter((name) => name.endsWith('.new')),
    [],
  );
  assert.equal(here.filter((key) => key.where === 'this registry').length, 6, 'one for each online role');
}

async function ground(t: TestContext, ceremony: boolean): Promise<{ folder: string; firstRoot: Uint8Array }> {
  const folder = temporaryFolder(t);
  const { store, repository } = await open(folder, heardLog(), { mayCreate: true });
  const firstRoot = new Uint8Array(await repository.catalogueRoot());
  if (ceremony) {
    const plan = await repository.keys.plan({ newOnline: false });
    const bundle = bundleFrom(plan, firstChanges([alice, bob], tina), {
      nowMs: turnedClock().wall(),
      renew: true,
    });
    unwrap(await repository.keys.install(signedBy(bundle, alice, bob, tina)));
  }
  await store.close();
  return { folder, firstRoot };
}

test('cut anywhere while online keys are rotated: the next start has the right keys and no others', async (t) => {
  const { folder: prepared, firstRoot } = await ground(t, true);
  let cuts = 0;
  let finished = false;
  for (let at = 1; !finished; at += 1) {
    // Six keys are written in the same five steps each: the first and the last of them stand for the others.
    if (at > 6 && at < 25) continue;
    const folder = temporaryFolder(t);
    cpSync(prepared, folder, { recursive: true });
    const supply = power(Number.POSITIVE_INFINITY);
    const log = heardLog();
    const first = await open(folder, log, { supply });
    // Counted from here: the start itself has its own test below.
    supply.at = supply.steps + at;
    try {
      await rotateOnline(first.repository);
      // Deleting is not the install's business: a disk that fails there fails the next time.
      finished = !log.events.some(({ event }) => event === 'registry.failed');
    } catch (error) {
      assert.ok(error instanceof PowerCut, String(error));
    }
    if (!finished) cuts += 1;
    await first.store.close();

    const second = await open(folder, log);
    await checkFiles(folder, second.repository);
    await checkDevice(second.repository, firstRoot);
    // Every fourth also goes on to the end; each costs a tenth of a second.
    if (at % 4 === 0) {
      await rotateOnline(second.repository);
      await checkFiles(folder, second.repository);
      await checkDevice(second.repository, firstRoot);
    }
    await second.store.close();
  }
  assert.ok(cuts > 20, `only ${cuts} cuts`);
});

test('a start that is cut while it tidies up is a start again', async (t) => {
  const { folder: prepared, firstRoot } = await ground(t, true);
  const folder = temporaryFolder(t);
  cpSync(prepared, folder, { recursive: true });
  const log = heardLog();
  // Installed, and nothing deleted yet: the first unlink is the first step after the commit's.
  const supply = power(Number.POSITIVE_INFINITY);
  const { store, repository } = await open(folder, log, { supply });
  const plan = await repository.keys.plan({ newOnline: true });
  const bundle = signedBy(bundleFrom(plan, onlineChanges(plan), { nowMs: turnedClock().wall() }), alice, bob);
  let commits = 0;
  const step = supply.step.bind(supply);
  supply.step = () => {
    commits += 1;
    // Transaction of the install: before and after; of `follow`: before and after; of `tidy`: before and after.
    if (commits > 6) throw new PowerCut('before the first file is deleted');
    step();
  };
  unwrap(await repository.keys.install(bundle));
  await store.close();
  assert.equal(
    readdirSync(join(folder, 'keys')).filter((name) => /^(snapshot|director)/.test(name)).length,
    4,
  );

  for (let at = 1; ; at += 1) {
    const again = power(at);
    try {
      const started = await open(folder, log, { supply: again });
      await started.store.close();
      if (again.steps < at) break;
    } catch (error) {
      assert.ok(error instanceof PowerCut, String(error));
    }
  }
  const last = await open(folder, log);
  await checkFiles(folder, last.repository);
  await checkDevice(last.repository, firstRoot);
  await last.store.close();
});

test('a registry whose keys do not fit its roots deletes nothing', async (t) => {
  const { folder, firstRoot } = await ground(t, false);
  // The database of yesterday beside the keys of today.
  const yesterday = temporaryFolder(t);
  cpSync(join(folder, 'registry.sqlite'), join(yesterday, 'registry.sqlite'));
  const { store, repository } = await open(folder, heardLog());
  const plan = await repository.keys.plan({ newOnline: true });
  unwrap(
    await repository.keys.install(bundleFrom(plan, onlineChanges(plan), { nowMs: turnedClock().wall() })),
  );
  await store.close();
  cpSync(join(folder, 'keys'), join(yesterday, 'keys'), { recursive: true });
  const before = readdirSync(join(yesterday, 'keys'));
  await assert.rejects(open(yesterday, heardLog()), { code: 'state-corrupt' });
  assert.deepEqual(readdirSync(join(yesterday, 'keys')), before);
  const good = await open(folder, heardLog());
  await checkDevice(good.repository, firstRoot);
  await good.store.close();
});
