// Why: what must hold on one device at every commit and every call of its runtime, stated apart from the code it judges.
// Trusts: the device's own database as committed, its disk, and the world's truth.
// Must never: pass because nothing was seen, or break because the world itself tore the database.

import { decodeHeld } from '../../agent/trust/held.ts';
import { readMachines } from '../../agent/update/journal.ts';
import { type MachineState, servingTarget } from '../../agent/update/machine.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import { parseTargets } from '../../shared/trust/tuf/metadata.ts';
import type { Reached } from '../fleet-world/node-log.ts';
import { namespace, type Publisher } from '../fleet-world/publisher.ts';
import type { SimPlace } from '../machine/place.ts';
import type { RuntimeWitness, SimRuntime } from '../machine/runtime.ts';
import type { Incarnation, World } from '../world.ts';
import type { Truth } from './truth.ts';
import { createWindowsOracle } from './windows-oracle.ts';

export const stateFile = 'state.sqlite';
const outboxFile = 'outbox.sqlite';
const copyFile = 'state-copy.json';

export interface DeviceOracle {
  witness: RuntimeWitness;
  committed(file: string): void;
  /** The core has come up and used no network yet. */
  serving(life: { of: Incarnation; runtime: SimRuntime }, faultsBefore: number): void;
  network(served: boolean): void;
  /** The power failed, before the next boot. */
  afterCut(): void;
  /** Another disk was put in: what was known does not bind any more. */
  forget(): void;
  /** As last committed. */
  machines(): ReadonlyMap<string, MachineState>;
  deviceId(): string | null;
}

export interface DeviceOracleParts {
  world: World;
  node: string;
  place: SimPlace;
  truth: Truth;
  publisher: Publisher;
  reached: Reached;
  /** In which it stands. */
  timezone: string;
  journalWritesMax: number;
  outboxBytesMax: number;
  /** Faults that took place so far in this world. */
  faults(): number;
  alive(of: Incarnation): boolean;
  present(): Incarnation | null;
}

interface Held {
  epoch: number;
  payloadSha256: string;
}

/** A soak counts only while the device is on; each boot may repeat what was not journalled. */
interface Soak {
  attempt: number;
  onMs: number;
  sinceMs: number | null;
}

const needFiles: ReadonlySet<string> = new Set(['verifying', 'staging', 'probing', 'shadowing', 'switching']);
/** A release that was good once serves again this long after a boot, whatever went wrong meanwhile. */
const servesAgainMs = 15 * 60_000;
/** The soak begins before its journal is written, which may have to be tried again. */
const soakSlackMs = 5_000;
/** What a region signs is by its own clock, which drifts a little. */
const clockSlackMs = 10 * 60_000;
/** What the outbox may hold beyond its limit: the batch that is being written, and what cannot be dropped. */
const outboxSlackBytes = 16 * 1024;
/** Beyond its deadline: the journal may have had to be tried again. */
const deadlineSlackMs = 15 * 60_000;

export function createDeviceOracle(parts: DeviceOracleParts): DeviceOracle {
  const { world, node, place, truth, publisher, reached } = parts;
  let machines = new Map<string, MachineState>();
  let journalText = '';
  let held: Held | null = null;
  let deviceId: string | null = null;
  let region: string | null = null;
  /** Under which the numbers of the catalogue were counted. */
  let onlineKeys: string | null = null;
  /** Its names so far: what a director assigned to it under an earlier one may still be under way. */
  const names = new Set<string>();
  let versions = new Map<string, { bytes: Uint8Array; version: number }>();
  const soaks = new Map<string, Soak>();
  /** What the journal said is gone with a torn database: until the device is up to date again, less is asked. */
  let torn = false;

  const require = (condition: boolean, message: string): void => {
    if (!condition) world.violate(`${node}: ${message}`);
  };
  const windows = createWindowsOracle({
    world,
    timezone: parts.timezone,
    require,
    machine: (as) => machines.get(as),
    alive: parts.alive,
    present: parts.present,
  });
  const nameOf = (manifestSha256: string): string =>
    publisher.ofManifest(manifestSha256)?.releaseId ?? manifestSha256.slice(0, 8);
  const look = <T>(work: (db: SqlTx) => T): T | null => place.look(stateFile, work);

  // --- the journal ---

  function journalCommitted(db: SqlTx): void {
    const rows = db.all<{ name: string; state: string }>('SELECT name, state FROM machines ORDER BY name');
    const text = JSON.stringify(rows);
    if (text === journalText) return;
    journalText = text;
    const next = new Map(readMachines(db).map((state) => [state.as, state]));
    for (const [as, before] of machines) {
      const after = next.get(as);
      if (after === undefined || before.lastGood === null || after.target === null || torn) continue;
      require(after.lastGood !== null, `${as} forgot its last good release`);
    }
    for (const state of next.values()) {
      const before = machines.get(state.as);
      if (state.phase === 'fetching' && before?.phase === 'offered' && state.candidate !== null && !torn) {
        const why = barredHere(db, state.candidate.manifestSha256);
        require(why === null, `${state.as} begins to fetch ${state.candidate.releaseId}: ${why}`);
      }
      changed(before, state);
      switchedTogether(state, next);
    }
    machines = next;
  }

  function changed(before: MachineState | undefined, state: MachineState): void {
    const { as, phase, attempt } = state;
    if (before?.phase !== phase || before.attempt !== attempt) {
      reached.count('state', `device ${phase}`);
      reached.count('transition', `${before?.phase ?? 'idle'} ${phase}`);
      if (state.reason !== null) reached.count('code', state.reason.code);
      world.mark({ node, kind: 'phase', text: `${as} ${phase}` });
      watchDeadline(state);
    }
    if (state.candidate !== null) {
      require(state.journalWrites <= parts.journalWritesMax, `${as} went on beyond its journal budget`);
    }
    windows.changed(before, state);
    if (state.held !== null && before?.held == null) reached.count('state', `device ${phase} held`);
    soaked(before, state);
    const { rejected } = before ?? { rejected: null };
    if (phase === 'offered' && before?.attempt !== attempt && rejected !== null && !torn) {
      const isAgain =
        state.candidate?.manifestSha256 === rejected.manifestSha256 && state.rolloutId === rejected.rolloutId;
      require(!isAgain, `${as} tries again what it refused for the same rollout`);
    }
    if (phase === 'committed' && before?.phase === 'soaking') {
      const kind = publisher.ofManifest(state.active?.manifestSha256 ?? '')?.kind;
      require(kind !== 'fails-in-service', `${as} committed what failed all the time while it soaked`);
    }
    if (phase === 'committed' && before?.phase !== 'committed') {
      require(state.active !== null && state.lastGood !== null, `${as} committed nothing`);
    }
    if (phase === 'rolling-back' && before !== undefined && before.lastGood !== null && !torn) {
      require(state.active !==
        null, `${as} rolls back to nothing, though ${before.lastGood.releaseId} was good`);
    }
  }

  /** None of a rollout switches before all of it have passed their probe. */
  function switchedTogether(state: MachineState, all: ReadonlyMap<string, MachineState>): void {
    if ((state.phase !== 'switching' && state.phase !== 'soaking') || torn) return;
    for (const name of state.policy.together ?? []) {
      const other = all.get(name);
      if (other === undefined || other.rolloutId !== state.rolloutId) continue;
      reached.count('state', `device ${state.phase} together`);
      require(other.probe !== null ||
        other.phase === 'committed', `${state.as} switches before ${name} has passed its probe`);
    }
  }

  function soaked(before: MachineState | undefined, state: MachineState): void {
    const soak = soaks.get(state.as);
    if (state.phase === 'soaking') {
      if (soak?.attempt !== state.attempt)
        soaks.set(state.as, { attempt: state.attempt, onMs: 0, sinceMs: world.nowMs() });
      else soak.sinceMs ??= world.nowMs();
      return;
    }
    if (before?.phase === 'soaking' && state.phase === 'committed' && soak !== undefined && !torn) {
      // The lastGood that is assigned again is committed without a soak: its attempt stays the same.
      const sameRelease = before.active?.manifestSha256 === state.lastGood?.manifestSha256;
      const onMs = soak.onMs + (soak.sinceMs === null ? 0 : world.nowMs() - soak.sinceMs);
      const wantedMs = Math.min(before.policy.soakMs, state.policy.soakMs);
      if (sameRelease && before.lastGood?.manifestSha256 !== state.lastGood?.manifestSha256)
        require(onMs * 1.02 + soakSlackMs >=
          wantedMs, `${state.as} was committed after ${onMs} ms of ${wantedMs} ms soak`);
    }
    soaks.delete(state.as);
  }

  /** A state that outlives its deadline, though the device was on all the time, is a deadline that nobody keeps. */
  function watchDeadline(state: MachineState): void {
    const of = parts.present();
    if (of === null || state.deadlineAtMs === null) return;
    const leftMs = state.deadlineAtMs - state.asOfMs;
    const dueAtMs = state.deadlineAtMs;
    if (leftMs > 30 * 86_400_000) return;
    world.later(Math.max(0, leftMs) + deadlineSlackMs, () => {
      const now = machines.get(state.as);
      if (!parts.alive(of) || now === undefined || now.phase !== state.phase || now.attempt !== state.attempt)
        return;
      if (now.deadlineAtMs === null || now.deadlineAtMs > dueAtMs + 1) return;
      require(false, `${state.as} is ${now.phase} since long after its deadline`);
    });
  }

  // --- trust ---

  function trustCommitted(db: SqlTx): void {
    const identity = db.get<{ device_id: string; region: string }>('SELECT device_id, region FROM identity');
    const keys =
      db.get<{ online: string }>('SELECT online_keys AS online FROM trust_floor_keys')?.online ?? null;
    // Another home signs with keys of its own, and counts anew.
    if (keys !== onlineKeys) versions = new Map();
    onlineKeys = keys;
    // Epochs are counted in each region.
    if (identity !== undefined && identity.region !== region) held = null;
    region = identity?.region ?? region;
    if (identity !== undefined && identity.device_id !== deviceId) {
      deviceId = identity.device_id;
      names.add(deviceId);
      held = null;
      versions = new Map();
    }
    const row = db.get<{ epoch: number; payload_sha256: string }>(
      'SELECT epoch, payload_sha256 FROM trust_assignment WHERE id = 1',
    );
    const clock = db.get<{ at: number | null }>('SELECT max(at_ms) AS at FROM clock_floors');
    if (row !== undefined && row.payload_sha256 !== held?.payloadSha256) assignmentTaken(row, clock?.at ?? 0);
    const floorMs = (clock?.at ?? 0) - world.originMs - world.nowMs();
    require(floorMs <
      clockSlackMs, `its clock floor is ${Math.round(floorMs / 60_000)} minutes ahead of the time`);
    for (const name of ['timestamp', 'snapshot']) {
      const file = db.get<{ bytes: Uint8Array }>('SELECT bytes FROM trust_files WHERE name = ?', name);
      if (file !== undefined) fileTaken(name, file.bytes);
    }
  }

  function assignmentTaken(row: { epoch: number; payload_sha256: string }, floorMs: number): void {
    const next = { epoch: row.epoch, payloadSha256: row.payload_sha256 };
    require(held === null || next.epoch > held.epoch, `epoch ${next.epoch} was taken after ${held?.epoch}`);
    require(deviceId !== null &&
      truth.isIssued(
        deviceId,
        next.payloadSha256,
      ), `epoch ${next.epoch} was taken, which no registry issued for this device`);
    const expiresAtMs = truth.expiryOf(next.payloadSha256) ?? floorMs + 1;
    require(expiresAtMs >
      floorMs, `epoch ${next.epoch} was taken ${floorMs - expiresAtMs} ms after it expired`);
    held = next;
    const copy = place.files.peek(copyFile);
    const text = copy === null ? '' : new TextDecoder().decode(copy);
    const second = decodeHeld(text.slice(text.indexOf('\n') + 1));
    if (second !== null)
      require((second.assignment?.epoch ?? 0) >= next.epoch, 'the second copy is behind the main store');
  }

  function fileTaken(name: string, bytes: Uint8Array): void {
    const before = versions.get(name);
    if (before !== undefined && Buffer.compare(before.bytes, bytes) === 0) return;
    const parsed = JSON.parse(new TextDecoder().decode(bytes)) as { signed?: { version?: number } };
    const version = parsed.signed?.version ?? 0;
    require(before === undefined ||
      version >= before.version, `${name} ${version} was taken after ${before?.version}`);
    versions.set(name, { bytes, version });
  }

  // --- telemetry ---

  function outboxCommitted(): void {
    const held = place.look(outboxFile, (db) =>
      db.get<{ bytes: number }>('SELECT total(held_bytes) AS bytes FROM batches'),
    );
    const bytes = held?.bytes ?? 0;
    const most = parts.outboxBytesMax * 1.1 + outboxSlackBytes;
    require(bytes <= most, `its outbox holds ${bytes} bytes, ${parts.outboxBytesMax} are allowed`);
  }

  // --- the runtime ---

  const journalOf = (as: string): MachineState | undefined => machines.get(as);
  /** What the durable journal asks the runtime to serve; undefined: the model is in no journal. */
  const asked = (as: string): string | null | undefined => {
    const state = journalOf(as);
    return state === undefined ? undefined : (servingTarget(state)?.manifestSha256 ?? null);
  };

  /** Why this release must not be switched on here now, or null. */
  function whyNot(as: string, manifestSha256: string): string | null {
    const release = publisher.ofManifest(manifestSha256);
    if (release === undefined) return 'no publisher signed it';
    const state = journalOf(as);
    const proven = [state?.lastGood, state?.previous, state?.active].some(
      (ref) => ref?.manifestSha256 === manifestSha256,
    );
    if (['bad-golden', 'slow', 'hungry', 'no-load', 'other-arch'].includes(release.kind))
      return `it is ${release.kind}`;
    // Under an earlier enrolment, perhaps: what a director assigned then was proven then.
    if (proven) return null;
    if (![...names].some((name) => truth.everAssigned(name, as, manifestSha256)))
      return 'no director assigned it';
    if (state !== undefined && state.probe === null) return 'it was not probed';
    const shadowed = state?.policy.shadow !== undefined && (state.lastGood ?? state.active) !== null;
    if (shadowed && (state?.shadow === null || release.kind === 'disagrees')) return 'it was not compared';
    return null;
  }

  /** What the catalogue that the device holds says against a release that it begins to install. */
  function barredHere(db: SqlTx, manifestSha256: string): string | null {
    const release = publisher.ofManifest(manifestSha256);
    if (release === undefined) return 'no publisher signed it';
    const file = db.get<{ bytes: Uint8Array }>(
      'SELECT bytes FROM trust_files WHERE name = ?',
      `delegated/${namespace}`,
    );
    if (file === undefined) return 'the catalogue held names nothing of the namespace';
    const targets = parseTargets(file.bytes);
    if (!targets.ok) return null;
    const entry = targets.value.targets.get(release.releaseId.replace('@', '/'));
    if (entry?.sha256 !== manifestSha256) return 'the catalogue held does not name these bytes';
    if (release.counter < (targets.value.floors.get(release.model) ?? 0))
      return 'it is below the floor of its model';
    if (targets.value.withdrawn.get(release.model)?.has(release.counter) === true) return 'it was withdrawn';
    return null;
  }

  const witness: RuntimeWitness = {
    loading: ({ as, manifestSha256 }) => {
      const state = journalOf(as);
      const staged = state?.phase === 'staging' && state.candidate?.manifestSha256 === manifestSha256;
      require(staged || asked(as) === manifestSha256, `${as} was loaded before its journal said so`);
    },
    probing: (as, manifestSha256) => {
      const state = journalOf(as);
      const due = state?.phase === 'probing' && state.candidate?.manifestSha256 === manifestSha256;
      require(due, `${as} was probed before its journal said so`);
    },
    shadowing: (as, manifestSha256) => {
      const state = journalOf(as);
      const due = state?.phase === 'shadowing' && state.candidate?.manifestSha256 === manifestSha256;
      require(due, `${as} was shadowed before its journal said so`);
    },
    activating: (as, manifestSha256) => {
      windows.activating(journalOf(as), manifestSha256);
      const why = whyNot(as, manifestSha256);
      require(why === null, `${as} serves ${nameOf(manifestSha256)}: ${why}`);
      require(asked(as) === manifestSha256, `${as} was switched before its journal said so`);
    },
    deactivating: (as) => {
      require((asked(as) ?? null) === null, `${as} was taken down before its journal said so`);
    },
    serves: () => undefined,
    wrongBytes: (release, path) => {
      require(false, `${release.as} ${release.releaseId} was loaded with other bytes of ${path} than were signed`);
    },
  };

  function intact(manifestSha256: string): boolean {
    for (const digest of publisher.ofManifest(manifestSha256)?.digests ?? []) {
      const bytes = place.files.peek(`blobs/${digest}`);
      if (bytes === null || sha256Hex(bytes) !== digest) return false;
    }
    return true;
  }

  return {
    witness,
    machines: () => machines,
    deviceId: () => deviceId,
    committed: (file) => {
      if (file === outboxFile) outboxCommitted();
      if (file !== stateFile) return;
      look((db) => {
        journalCommitted(db);
        trustCommitted(db);
      });
    },
    serving: ({ of, runtime }, faultsBefore) => {
      if (place.wasTorn(stateFile)) torn = true;
      // The journal of a database that was opened anew.
      look(journalCommitted);
      const good = [...machines.values()].filter(({ lastGood }) => lastGood !== null);
      const check = (when: string) => () => {
        if (!parts.alive(of) || torn) return;
        for (const { as } of good) {
          const now = machines.get(as);
          if (now?.lastGood == null || !intact(now.lastGood.manifestSha256)) continue;
          require(runtime.serving.has(
            as,
          ), `${as} does not serve ${when}, though a good release is on the disk`);
        }
      };
      if (parts.faults() === faultsBefore) check('after boot')();
      else world.later(servesAgainMs, check('long after boot'));
      for (const soak of soaks.values()) soak.sinceMs = world.nowMs();
    },
    network: (served) => {
      require(served || machines.size === 0, 'the network was used before the active releases were served');
    },
    afterCut: () => {
      for (const soak of soaks.values()) {
        if (soak.sinceMs !== null) soak.onMs += world.nowMs() - soak.sinceMs;
        soak.sinceMs = null;
      }
      for (const { as, phase, active, lastGood, candidate } of machines.values()) {
        if (torn) continue;
        const needed = [active, lastGood, needFiles.has(phase) ? candidate : null];
        for (const ref of needed) {
          if (ref === null) continue;
          for (const digest of publisher.ofManifest(ref.manifestSha256)?.digests ?? []) {
            const bytes = place.files.peek(`blobs/${digest}`);
            const name = nameOf(ref.manifestSha256);
            require(bytes !== null ||
              place.files.rotted.has(
                `blobs/${digest}`,
              ), `after a cut ${as}, ${phase}, lost a file of ${name}`);
          }
        }
      }
    },
    forget: () => {
      machines = new Map();
      journalText = '';
      held = null;
      versions = new Map();
      soaks.clear();
    },
  };
}
