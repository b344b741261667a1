// Why: heals a registry that was restored from a backup, with what its devices give back (DESIGN 3).
// Trusts: restore-judgement.ts for what bytes prove. Must never: change anything for a number that nobody signed,
// or change two things of which one could be lost.

import type { RegistryBus, Timer } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { heldMessageSchema, parseMessage } from '../../shared/wire/messages.ts';
import type { RegistryCore } from '../core.ts';
import type { RoleFiles } from '../signing/role-files.ts';
import type { RegistryDb } from '../store/open.ts';
import { createAdoptions } from './adoptions.ts';
import type { Standing } from './devices.ts';
import type { Director } from './director.ts';
import type { FleetEvents } from './events.ts';
import { createHeldFiles } from './held-files.ts';
import { createRate } from './rate.ts';
import { judgeHeld, type Present, type Verdict } from './restore-judgement.ts';
import type { Tasks } from './tasks.ts';

export interface Restore {
  /** Goes on with a healing that was cut off. */
  start(): Promise<void>;
  /** A message on the device's `result` topic: a piece of what it holds. */
  handle(bus: RegistryBus, deviceId: string, payload: Uint8Array): Promise<void>;
  /** Numbers of a device are higher than ours: an event, at most one an hour, and nothing else. */
  suspect(deviceId: string, detail: string): Promise<void>;
  stop(): void;
}

export function createRestore(
  core: RegistryCore,
  parts: {
    events: FleetEvents;
    director: Director;
    tasks: Tasks;
    standing: (deviceId: string) => Promise<Standing | null>;
  },
): Restore {
  const { store, repository, clock, log, region } = core;
  const { qb } = store;
  const { events, director, tasks } = parts;
  const heldFiles = createHeldFiles(clock);
  const adoptions = createAdoptions(core, { events, director });
  const rate = createRate(clock, {
    burst: core.limits.heldBurst,
    perSecond: core.limits.heldPerSecond,
    keysMax: core.limits.ratedDevicesMax,
  });
  let healing: Timer | null = null;
  let suspectedAtMs = Number.NEGATIVE_INFINITY;

  function* earlierRoots(db: RegistryDb, files: RoleFiles, version: number): Generator<Uint8Array> {
    for (let earlier = version - 1; earlier >= 1; earlier -= 1) {
      const bytes = files.read(db, `region/${earlier}.root.json`);
      if (bytes !== null) yield bytes;
    }
  }

  function presentIn(db: RegistryDb, files: RoleFiles, deviceId: string): Present {
    const device = db.first(
      qb.selectFrom('devices').select('telemetry_epoch').where('device_id', '=', deviceId),
    );
    const epoch = device?.telemetry_epoch ?? 0;
    const chain = db.first(
      qb
        .selectFrom('telemetry_chains')
        .select('last_sequence')
        .where('device_id', '=', deviceId)
        .where('epoch', '=', epoch),
    );
    const assignment = db.first(
      qb.selectFrom('assignments').select(['epoch', 'message']).where('device_id', '=', deviceId),
    );
    const targets = files.expect(db, 'targets');
    const regionRoot = files.expect(db, 'region/root');
    return {
      deviceId,
      region,
      root: files.expect(db, 'root').bytes,
      regionRoot: regionRoot.bytes,
      earlierRegionRoots: () => earlierRoots(db, files, regionRoot.version),
      targets: targets.bytes,
      versionOf: (role) => files.current(db, role)?.version ?? 0,
      bytesOf: (role) => files.current(db, role)?.bytes ?? null,
      targetsMissing: adoptions.floorIn(db, 'targets') > targets.version,
      epoch: assignment?.epoch ?? 0,
      assignment: assignment === undefined ? null : new Uint8Array(assignment.message),
      telemetry: { epoch, lastSequence: chain?.last_sequence ?? 0 },
      signsUnder: files.signsUnder,
      mirrors: files.hasRegions(db) && !files.isHome(db),
    };
  }

  /** Judged and adopted in one transaction: nothing changes between the two. */
  function adopt(deviceId: string, file: string, bytes: Uint8Array): Promise<Result<Verdict>> {
    return repository.withFiles(`restored from ${deviceId}`, (db, files) => {
      const verdict = judgeHeld(file, bytes, presentIn(db, files, deviceId));
      if (verdict.ok) adoptions.adoptIn(db, files, { deviceId, bytes, verdict: verdict.value });
      return verdict;
    });
  }

  async function invalid(deviceId: string, refusal: Refusal): Promise<void> {
    log.emit('warn', 'restore.refused', { deviceId, ...refusal });
    await events.recordStranger({ source: 'registry', subject: deviceId, ...refusal });
  }

  async function suspect(deviceId: string, detail: string): Promise<void> {
    const now = clock.mono();
    if (now - suspectedAtMs < core.limits.restoreSuspectedEveryMs) return;
    suspectedAtMs = now;
    log.emit('warn', 'restore.suspected', { deviceId, detail });
    await store.tx((db) =>
      events.recordIn(db, { source: 'registry', subject: deviceId, code: 'restore-suspected', detail }),
    );
  }

  /** Signs above every number that is proven to have existed. */
  function heal(): Promise<void> {
    healing?.cancel();
    healing = null;
    return repository.withFiles('restore', (db, files) => adoptions.signAboveIn(db, files));
  }

  /**
   * A device refuses a snapshot that lists an older file than it knows. Where such a file is still missing, it is
   * on its way from the same device: signing waits a moment for it, so that nobody sees a half-healed catalogue.
   */
  async function healSoon(mayComplete: boolean): Promise<void> {
    const state = await store.tx((db) => adoptions.stateIn(db));
    if (state === 'whole') return;
    if (state === 'complete' && mayComplete) {
      await heal();
      return;
    }
    if (healing !== null) return;
    const timer = clock.timer(core.limits.healAfterMs);
    healing = timer;
    void timer.done.then(() => {
      if (healing === timer) tasks.run('heal', heal);
    });
  }

  /** What follows a commit. */
  async function follow(deviceId: string, file: string, verdict: Verdict): Promise<void> {
    if (verdict.kind === 'known') {
      log.emit('debug', 'restore.refused', { deviceId, file, detail: 'not later than what is here' });
      return;
    }
    if (verdict.kind === 'roots-missing') {
      const { version, ours } = verdict;
      const hint = `lepton keys install the ones between`;
      await suspect(deviceId, `${file} ${version} where ${ours} is the last here; ${hint}`);
      return;
    }
    if (verdict.kind === 'elsewhere') {
      await suspect(deviceId, `it holds a newer ${file}, which another region signs: it comes from there`);
      return;
    }
    log.emit('warn', 'restore.adopted', { deviceId, file, what: adoptions.describe(verdict) });
    if (verdict.kind === 'assignment') await director.publish([deviceId]);
    // A timestamp comes first and does not say which files there were: the snapshot behind it does.
    else if (verdict.kind !== 'acknowledgement') await healSoon(verdict.kind !== 'timestamp');
  }

  return {
    start: () => healSoon(true),
    suspect,

    async handle(_bus, deviceId, payload) {
      if ((await parts.standing(deviceId)) !== 'active') return;
      const message = parseMessage(heldMessageSchema, payload);
      if (!message.ok) {
        await invalid(deviceId, { code: 'held-invalid', detail: message.refusal.detail });
        return;
      }
      const piece = message.value;
      if (piece.offset === 0 && !rate.admit(deviceId)) return;
      const whole = heldFiles.add(deviceId, piece);
      const adopted = !whole.ok
        ? whole
        : whole.value === null
          ? ok<Verdict>({ kind: 'known' })
          : await adopt(deviceId, piece.file, whole.value);
      if (!adopted.ok)
        await invalid(deviceId, refuse('held-invalid', `${piece.file}: ${adopted.refusal.detail}`).refusal);
      else if (!whole.ok || whole.value !== null) await follow(deviceId, piece.file, adopted.value);
    },

    stop() {
      healing?.cancel();
      healing = null;
    },
  };
}
