// Why: one device with the real update machine, updater, files and SQLite, under power cuts from one
// seed, against what it does without them. Trusts: the world and the invariants.
// Must never: let a run pass that did not come to rest.

import { deferralMigrations } from '../agent/update/deferral.ts';
import { readMachines, updateMigrations } from '../agent/update/journal.ts';
import { createUpdater, type Updater } from '../agent/update/updater.ts';
import { unwrap } from '../shared/kernel/errors.ts';
import type { Disk, Log, Store } from '../shared/kernel/ports.ts';
import { type Assignment, assignmentSchema, encodeMessage, parseMessage } from '../shared/wire/messages.ts';
import { type Catalogue, createCatalogue, simArch } from './catalogue.ts';
import { draw, drawInt } from './chance.ts';
import { createSimDisk } from './disk.ts';
import { createSimEncodings } from './encodings.ts';
import { createSimFetcher, type LineFaults } from './fetcher.ts';
import { guarded } from './guard.ts';
import { createInvariants, type End } from './invariants.ts';
import { createSimRuntime, type SimRuntime } from './runtime.ts';
import { assignmentOf, drawScenario, type Step } from './scenario.ts';
import { createSimStore } from './store.ts';
import { type Cut, createWorld, type Incarnation, latencyMs, type Mark, type Operation } from './world.ts';

/** Bugs planted by tests: what stands between the updater and its disk or store. */
export interface Plant {
  disk?: (disk: Disk, catalogue: Catalogue) => Disk;
  store?: (store: Store) => Store;
}

export interface RunOptions {
  seed: number;
  /** `swarm`: drawn from the seed; a function: exactly there. */
  cuts: 'none' | 'swarm' | ((operation: Operation) => Cut | null);
  /** Many cuts and a small journal budget: it must stay safe, but need not end where the calm run ends. */
  storm?: boolean;
  plant?: Plant;
  steps?: Step[];
}

export interface RunResult {
  seed: number;
  violation: string | null;
  end: End;
  operations: number;
  cuts: number;
  /** Transactions of the device, over all its lives. */
  transactions: number;
  /** Bytes the registry sent, and the sizes of the files it sent them of. */
  sentBytes: number;
  virtualMs: number;
  traceSha256: string;
  trace: string[];
  marks: readonly Mark[];
}

const node = 'device';
const assignmentMigration = {
  name: 'sim-001-assignment',
  sql: 'CREATE TABLE sim_assignment (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL) STRICT',
};

/** Production's thresholds shrunk, so that rare paths are common. */
function drawLimits(seed: number, storm: boolean) {
  const fetchSyncBytesMin = 2 ** drawInt(6, 9, seed, 'sync');
  return {
    fetchRangeBytesMax: 2 ** drawInt(6, 11, seed, 'range'),
    fetchSyncBytesMin,
    fetchSyncBytesMax: fetchSyncBytesMin * 2,
    waysBytesMin: 2 ** drawInt(4, 11, seed, 'ways-min'),
    waysWaitBytesMin: 1_000,
    // The longest way takes 9 writes, a cut costs 3 at most: `cutsMax` of a calm run stays below it.
    journalWritesMax: storm ? 12 : 40,
  };
}

function drawFaults(seed: number): LineFaults {
  const rate = (name: string) => (draw(seed, 'on', name) < 0.5 ? 0 : draw(seed, 'rate', name) * 0.3);
  return { offline: rate('offline'), timeout: rate('timeout'), short: rate('short') };
}

function drawCuts(seed: number, storm: boolean): (operation: Operation) => Cut | null {
  const rate = 0.002 + draw(seed, 'cut-rate') ** 2 * (storm ? 0.3 : 0.08);
  const cutsMax = storm ? 40 : drawInt(1, 8, seed, 'cuts');
  let cuts = 0;
  return ({ kind, index }) => {
    if (cuts >= cutsMax || draw(seed, 'cut', kind, node, index) >= rate) return null;
    cuts += 1;
    return draw(seed, 'cut-side', kind, node, index) < 0.5 ? 'before' : 'after';
  };
}

/** One run of one world. Deterministic: the same options give the same trace. */
export async function runWorld(options: RunOptions): Promise<RunResult> {
  return guarded(() => run(options));
}

async function run(options: RunOptions): Promise<RunResult> {
  const { seed, plant = {} } = options;
  const storm = options.storm === true;
  const limits = drawLimits(seed, storm);
  const faults = drawFaults(seed);
  const steps = options.steps ?? drawScenario(seed);
  const catalogue = createCatalogue(seed);
  // Half of all registries have no smaller ways, as one before them.
  const encodings = draw(seed, 'ways') < 0.5 ? null : createSimEncodings(seed, catalogue);
  let cutAt: (operation: Operation) => Cut | null = () => null;
  if (options.cuts === 'swarm') cutAt = drawCuts(seed, storm);
  else if (options.cuts !== 'none') cutAt = options.cuts;

  let cuts = 0;
  let transactions = 0;
  let sentBytes = 0;
  let desired: Assignment | null = null;
  let life: { of: Incarnation; updater: Updater; runtime: SimRuntime; deliver: () => void } | null = null;

  const world = createWorld({
    seed,
    operationsMax: 60_000,
    cutAt,
    onCut: () => {
      cuts += 1;
      life = null;
      disk.cut();
      store.cut();
      invariants.afterCut();
      world.later(drawInt(10, 3_600_000, seed, 'down', cuts), () => void boot());
    },
  });
  const disk = createSimDisk(world);
  const invariants = createInvariants({ world, catalogue, disk, journalWritesMax: limits.journalWritesMax });
  const store = createSimStore(world, {
    migrations: [...updateMigrations, ...deferralMigrations, assignmentMigration],
    onCommit: async () => {
      transactions += 1;
      const machines = await store.look(readMachines);
      if (machines !== null) invariants.committed(machines);
    },
  });

  async function boot(): Promise<void> {
    const of = world.boot(node);
    let started = false;
    const log: Log = {
      emit: (level, event, fields) => {
        world.note(`${node} ${level} ${event} ${JSON.stringify(fields ?? {})}`);
        // This disk keeps what was synced: a resume that must start afresh trusted what was not, unless
        // the registry itself sends wrong bytes.
        if (event === 'fetch.restarted' && !catalogue.spoiled(String(fields?.['sha256']))) {
          world.violate('bytes were resumed that had not been synced');
        }
      },
    };
    const runtime = createSimRuntime({ world, of, disk, catalogue, witness: invariants.witness });
    const opened = await store.open(of);
    const storage = plant.disk?.(disk.port(of), catalogue) ?? disk.port(of);
    const updater = createUpdater({
      store: plant.store?.(opened) ?? opened,
      disk: storage,
      ...(encodings === null ? {} : { rebuilder: encodings.rebuilder(storage) }),
      clock: world.clock(of),
      entropy: world.entropy(of),
      fetcher: createSimFetcher({
        world,
        of,
        catalogue,
        faults,
        ...(encodings === null ? {} : { encodings }),
        onRequest: (_sha256, bytes) => {
          sentBytes += bytes;
          if (!started) world.violate('the network was used before the active releases were served');
        },
      }),
      runtime,
      log,
      trust: {
        agree: (assigned) =>
          world.call(of, 'trust.agree', assigned.releaseId, latencyMs(world, 1, 9, assigned.as), () =>
            catalogue.agree(assigned),
          ),
      },
      onChange: () => undefined,
      arch: simArch,
      limits,
    });
    await updater.start();
    started = true;
    for (const [as, active] of Object.entries(invariants.end())) {
      if (active.active !== null && !runtime.serving.has(as))
        world.violate(`${as} does not serve after boot`);
    }
    let epoch = 0;
    let taking = Promise.resolve();
    const take = async (assignment: Assignment, isNew: boolean) => {
      if (assignment.epoch <= epoch) return;
      epoch = assignment.epoch;
      if (isNew) {
        const body = encodeMessage(assignment);
        await opened.tx((db) =>
          db.run('INSERT OR REPLACE INTO sim_assignment (one, body) VALUES (1, ?)', body),
        );
      }
      await updater.assign(assignment);
    };
    const deliver = () => {
      const sent = desired;
      if (sent === null) return;
      void world
        .call(of, 'bus.deliver', `epoch ${sent.epoch}`, latencyMs(world, 1, 80, sent.epoch), () => undefined)
        .then(() => {
          taking = taking.then(() => take(sent, true));
        });
    };
    const stored = await opened.tx((db) => db.get<{ body: Uint8Array }>('SELECT body FROM sim_assignment'));
    if (stored !== undefined) await take(unwrap(parseMessage(assignmentSchema, stored.body)), false);
    life = { of, updater, runtime, deliver };
    deliver();
  }

  const issue = (step: Step, epoch: number) => {
    desired = assignmentOf(step, epoch, catalogue);
    invariants.assigned(desired);
    world.note(`registry issues epoch ${epoch} ${JSON.stringify(step.wanted)}`);
    life?.deliver();
  };
  const checkRest = () => {
    if (world.violation() !== null) return;
    if (life === null) return world.violate('the device did not come up again');
    invariants.atRest(life.runtime);
  };

  const onRejection = (thrown: unknown) => {
    world.violate(
      `unhandled: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)}`,
    );
  };
  process.on('unhandledRejection', onRejection);
  try {
    void boot();
    await world.run();
    for (let index = 0; index < steps.length && world.violation() === null; ) {
      let afterMs = 0;
      for (let first = true; index < steps.length; first = false) {
        const step = steps[index];
        if (step === undefined || (!first && step.after === 'rest')) break;
        afterMs += first || step.after === 'rest' ? 0 : step.after;
        const epoch = index + 1;
        world.later(afterMs, () => issue(step, epoch));
        index += 1;
      }
      await world.run();
      checkRest();
    }
  } finally {
    process.off('unhandledRejection', onRejection);
  }
  return {
    seed,
    violation: world.violation(),
    end: invariants.end(),
    operations: world.operations(),
    cuts,
    transactions,
    sentBytes,
    virtualMs: world.nowMs(),
    traceSha256: world.traceSha256(),
    trace: world.trace(),
    marks: world.marks(),
  };
}

/**
 * One seed: the run with its cuts must keep every invariant and end where the run without them ends.
 * Every eighth seed is a storm, which must keep the invariants and come to rest.
 */
export async function exploreSeed(seed: number, plant: Plant = {}): Promise<RunResult> {
  const storm = seed % 8 === 7;
  const result = await runWorld({ seed, cuts: 'swarm', storm, plant });
  if (storm || result.violation !== null) return result;
  const calm = await runWorld({ seed, cuts: 'none' });
  if (calm.violation !== null) return calm;
  return { ...result, violation: differenceOf(calm.end, result.end) };
}

/** In words where two ends differ, or null. */
export function differenceOf(calm: End, cut: End): string | null {
  const [a, b] = [JSON.stringify(calm), JSON.stringify(cut)];
  return a === b ? null : `ends elsewhere than without cuts: ${b} instead of ${a}`;
}
