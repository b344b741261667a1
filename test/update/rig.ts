// Why: the real updater in a world of virtual time without power cuts, with each port replaceable.
// Trusts: firmware-sim. Must never: wait for real time.

import assert from 'node:assert/strict';
import { deferralMigrations } from '../../agent/update/deferral.ts';
import { readMachines, updateMigrations } from '../../agent/update/journal.ts';
import type { MachineState } from '../../agent/update/machine.ts';
import { createUpdater, type Updater, type UpdaterParts } from '../../agent/update/updater.ts';
import { type Catalogue, createCatalogue, simArch } from '../../firmware-sim/catalogue.ts';
import { createSimDisk, type SimDisk } from '../../firmware-sim/disk.ts';
import { createSimFetcher } from '../../firmware-sim/fetcher.ts';
import { createSimRuntime, type SimRuntime } from '../../firmware-sim/runtime.ts';
import { assignmentOf, type Step } from '../../firmware-sim/scenario.ts';
import { createSimStore } from '../../firmware-sim/store.ts';
import { createWorld, type World } from '../../firmware-sim/world.ts';
import type { LogEvent } from '../../shared/kernel/events.ts';
import type { Disk, Fetcher, Runtime, Store } from '../../shared/kernel/ports.ts';
import type { Assignment, ReportedModel } from '../../shared/wire/messages.ts';

export interface Rig {
  world: World;
  disk: SimDisk;
  catalogue: Catalogue;
  readonly runtime: SimRuntime;
  readonly updater: Updater;
  events: { event: LogEvent; fields: Record<string, unknown> }[];
  /** What `onChange` was told. */
  changes: ReportedModel[][];
  /** Called with the same. */
  onChange: (models: ReportedModel[]) => void;
  /** Bytes asked for, by digest. */
  asked: Map<string, number>;
  machines(): Promise<MachineState[]>;
  /** An assignment of release keys, each `soak 0`, rollout id = the epoch unless given. */
  assignment(epoch: number, wanted: Record<string, string>, more?: RigTerms): Assignment;
  /** Lets the world run until nothing moves. */
  settle(work?: Promise<unknown>): Promise<void>;
  /** The power fails and comes back: the same disk and store under a new updater. */
  reboot(overrides?: RigOverrides): Promise<void>;
}

export interface RigTerms {
  rolloutId?: string;
  soakMs?: number;
  fetchingMs?: number;
}

export interface RigOverrides {
  runtime?: (inner: SimRuntime) => Runtime;
  fetcher?: (inner: Fetcher) => Fetcher;
  store?: (inner: Store) => Store;
  disk?: (inner: Disk) => Disk;
  parts?: Partial<UpdaterParts>;
  /** Taken as soon as it has started, as the agent does. */
  inForce?: Assignment;
}

export async function createRig(overrides: RigOverrides = {}): Promise<Rig> {
  const seed = 1;
  const world = createWorld({ seed, cutAt: () => null, onCut: () => undefined, operationsMax: 1_000_000 });
  const disk = createSimDisk(world);
  const catalogue = createCatalogue(seed);
  const store = createSimStore(world, {
    migrations: [...updateMigrations, ...deferralMigrations],
    onCommit: async () => undefined,
  });
  const none = () => undefined;
  const witness = {
    loading: none,
    probing: none,
    shadowing: none,
    activating: none,
    deactivating: none,
  };
  let of = world.boot('device');
  let life: { runtime: SimRuntime; updater: Updater } | null = null;

  const settle = async (work: Promise<unknown> = Promise.resolve()) => {
    let thrown: { error: unknown } | null = null;
    const watched = work.catch((error: unknown) => {
      thrown = { error };
    });
    await world.run();
    await watched;
    if (thrown !== null) throw (thrown as { error: unknown }).error;
  };

  async function start(more: RigOverrides): Promise<void> {
    const runtime = createSimRuntime({ world, of, disk, catalogue, witness });
    const fetcher = createSimFetcher({
      world,
      of,
      catalogue,
      faults: { offline: 0, timeout: 0, short: 0 },
      onRequest: (sha256, bytes) => rig.asked.set(sha256, (rig.asked.get(sha256) ?? 0) + bytes),
    });
    const opening = store.open(of);
    await world.run();
    const opened = await opening;
    const updater = createUpdater({
      store: more.store?.(opened) ?? opened,
      disk: more.disk?.(disk.port(of)) ?? disk.port(of),
      clock: world.clock(of),
      entropy: world.entropy(of),
      fetcher: more.fetcher?.(fetcher) ?? fetcher,
      runtime: more.runtime?.(runtime) ?? runtime,
      log: { emit: (_level, event, fields = {}) => rig.events.push({ event, fields }) },
      trust: { agree: async (assigned) => catalogue.agree(assigned) },
      onChange: (models) => {
        rig.changes.push(models);
        rig.onChange(models);
      },
      arch: simArch,
      limits: {
        fetchRangeBytesMax: 512,
        fetchSyncBytesMin: 256,
        fetchSyncBytesMax: 512,
        journalWritesMax: 40,
      },
      ...more.parts,
    });
    life = { runtime, updater };
    const { inForce } = more;
    const begun = updater.start();
    await settle(inForce === undefined ? begun : begun.then(() => updater.assign(inForce)));
  }

  const rig: Rig = {
    world,
    disk,
    catalogue,
    events: [],
    changes: [],
    onChange: none,
    asked: new Map(),
    machines: async () => (await store.look(readMachines)) ?? [],
    assignment: (epoch, wanted, terms = {}) => {
      const { rolloutId = String(epoch), soakMs = 0, fetchingMs = 3_600_000 } = terms;
      const step: Step = { after: 'rest', wanted: {} };
      for (const [as, key] of Object.entries(wanted)) step.wanted[as] = { key, rolloutId, soakMs };
      const assignment = assignmentOf(step, epoch, catalogue);
      for (const release of assignment.releases) release.policy.deadlinesMs.fetching = fetchingMs;
      return assignment;
    },
    settle,
    reboot: async (more = {}) => {
      of.alive = false;
      disk.cut();
      store.cut();
      of = world.boot('device');
      await start(more);
    },
    get runtime() {
      assert.ok(life);
      return life.runtime;
    },
    get updater() {
      assert.ok(life);
      return life.updater;
    },
  };
  await start(overrides);
  return rig;
}
