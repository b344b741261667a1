// Why: alarms: what arrives is gathered in windows, for the fleet and for each device, and a feature that begins or ceases
// to drift is an event.
// Trusts: shared/stats/drift-watch.ts for the judgement. Must never: judge a count twice, or more often than once a minute.

import type { Clock, Log } from '../../shared/kernel/ports.ts';
import {
  addToWatch,
  type DriftChange,
  isDue,
  judgeWatch,
  newWatch,
  type Watch,
  watchTerms,
} from '../../shared/stats/drift-watch.ts';
import { featuresFromText, featuresToText } from '../../shared/stats/rollup.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { FleetEvents } from '../fleet/events.ts';
import type { Tasks } from '../fleet/tasks.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { Profiles, ReferenceProfile } from './profiles.ts';
import type { CountedFeatures } from './rollups.ts';

export interface DriftWatchCounters {
  /** Windows that were judged. */
  judged: number;
  /** Alarms that began and that ended. */
  began: number;
  ended: number;
}

export interface DriftWatch {
  /** In the transaction that stores the batch. */
  addIn(db: RegistryDb, deviceId: string, counted: readonly CountedFeatures[], nowMs: number): void;
  /** Forgets the device's own windows and alarms. */
  eraseIn(db: RegistryDb, deviceId: string): void;
  /** After a commit: judges the windows that became full. */
  look(): void;
  /** Resolves when nothing is being judged. */
  idle(): Promise<void>;
  /** Features in alarm now by model, of the fleet and of devices; models without one are left out. */
  alarms(): Promise<{ scope: 'fleet' | 'device'; model: string; features: number }[]>;
  counters(): DriftWatchCounters;
}

interface WatchKey {
  release: string;
  profileSha256: string;
  /** '' for the fleet. */
  deviceId: string;
}

/** Events of one window; a profile of a thousand pixels must not push out all others. */
const eventsPerWindowMax = 20;

const nameOf = (key: WatchKey): string => `${key.release} ${key.profileSha256} ${key.deviceId}`;

export function createDriftWatch(parts: {
  store: RegistryStore;
  events: FleetEvents;
  profiles: Profiles;
  tasks: Tasks;
  clock: Clock;
  log: Log;
}): DriftWatch {
  const { store, events, profiles, tasks, clock, log } = parts;
  const { qb } = store;
  const counters: DriftWatchCounters = { judged: 0, began: 0, ended: 0 };
  const touched = new Map<string, WatchKey>();
  let looking: Promise<void> | null = null;

  const columns = ({ release, profileSha256, deviceId }: WatchKey) => ({
    release,
    profile_sha256: profileSha256,
    device_id: deviceId,
  });

  function readIn(db: RegistryDb, key: WatchKey): Watch {
    const row = db.first(
      qb
        .selectFrom('drift_watches')
        .selectAll()
        .where((eb) => eb.and(columns(key))),
    );
    if (row === undefined) return newWatch;
    return {
      window: { rows: row.rows, seenRows: row.seen_rows, features: featuresFromText(row.features) },
      states: fromColumn(row.states),
      judgedAtMs: row.judged_at_ms,
    };
  }

  function writeIn(db: RegistryDb, key: WatchKey, { window, states, judgedAtMs }: Watch): void {
    const values = {
      rows: window.rows,
      seen_rows: window.seenRows,
      features: featuresToText(window.features),
      states: JSON.stringify(states),
      judged_at_ms: judgedAtMs,
    };
    db.run(
      qb
        .insertInto('drift_watches')
        .values({ ...columns(key), ...values })
        .onConflict((conflict) =>
          conflict.columns(['release', 'profile_sha256', 'device_id']).doUpdateSet(values),
        ),
    );
  }

  function recordIn(db: RegistryDb, key: WatchKey, changes: readonly DriftChange[]): void {
    const subject = key.deviceId === '' ? null : key.deviceId;
    const record = (code: string, detail: string): void =>
      events.recordIn(db, { source: 'registry', subject, code, detail });
    for (const change of changes.slice(0, eventsPerWindowMax))
      record(`drift-${change.to === 'drift' ? 'began' : 'ended'}`, detailOf(key, change));
    const more = changes.length - eventsPerWindowMax;
    if (more > 0) record('drift-more', `${key.release}: ${more} more features began or ceased to drift`);
  }

  /** Everything in one transaction, so that an alarm is told once, whatever happens in between. */
  async function judge(key: WatchKey, reference: ReferenceProfile): Promise<void> {
    const changes = await store.tx((db) => {
      const before = readIn(db, key);
      const nowMs = clock.wall();
      if (!isDue(before, nowMs)) return null;
      const after = judgeWatch(before, reference.profile, nowMs);
      writeIn(db, key, after.watch);
      recordIn(db, key, after.changes);
      return after.changes;
    });
    if (changes === null) return;
    counters.judged += 1;
    for (const { to, feature } of changes) {
      if (to === 'drift') counters.began += 1;
      else counters.ended += 1;
      log.emit(to === 'drift' ? 'warn' : 'info', to === 'drift' ? 'drift.began' : 'drift.ended', {
        release: key.release,
        deviceId: key.deviceId === '' ? null : key.deviceId,
        role: feature.role,
        tensor: feature.tensor,
        index: feature.index,
        psi: feature.distances?.psi,
        exceeded: feature.exceeded,
      });
    }
  }

  async function lookAt(keys: readonly WatchKey[]): Promise<void> {
    for (const key of keys) {
      const due = await store.tx((db) => isDue(readIn(db, key), clock.wall()));
      const reference = due ? await profiles.of(key.release) : null;
      // Counted in the bins of another profile than the release's: there is nothing to judge it by.
      if (reference?.sha256 === key.profileSha256) await judge(key, reference);
    }
  }

  async function lookAtAll(): Promise<void> {
    try {
      while (touched.size > 0) {
        const keys = [...touched.values()];
        touched.clear();
        await lookAt(keys);
      }
    } finally {
      looking = null;
    }
  }

  return {
    addIn(db, deviceId, counted, nowMs) {
      for (const { release, profileSha256, sum, timeMs } of counted) {
        if (nowMs - timeMs > watchTerms.recordAgeMsMax) continue;
        for (const scope of ['', deviceId]) {
          const key = { release, profileSha256, deviceId: scope };
          writeIn(db, key, addToWatch(readIn(db, key), sum));
          touched.set(nameOf(key), key);
        }
      }
    },

    eraseIn(db, deviceId) {
      db.run(qb.deleteFrom('drift_watches').where('device_id', '=', deviceId));
    },

    look() {
      if (looking !== null || touched.size === 0) return;
      const work = lookAtAll();
      looking = work;
      tasks.run('drift', () => work);
    },

    async idle() {
      // What fails is logged by who runs it.
      while (looking !== null) await looking.catch(() => undefined);
    },

    async alarms() {
      const rows = await store.tx((db) =>
        db.all(
          qb
            .selectFrom('drift_watches')
            .select(['release', 'device_id', 'states'])
            .where('states', '!=', '{}')
            .orderBy('release'),
        ),
      );
      const found = new Map<string, { scope: 'fleet' | 'device'; model: string; features: number }>();
      for (const { release, device_id: deviceId, states } of rows) {
        const standing: Watch['states'] = fromColumn(states);
        const features = Object.values(standing).filter(({ alarm }) => alarm).length;
        if (features === 0) continue;
        const scope = deviceId === '' ? ('fleet' as const) : ('device' as const);
        const model = release.replace(/@.*$/, '');
        const before = found.get(`${scope} ${model}`)?.features ?? 0;
        found.set(`${scope} ${model}`, { scope, model, features: before + features });
      }
      return [...found.values()];
    },

    counters: () => ({ ...counters }),
  };
}

function detailOf({ release }: WatchKey, { feature }: DriftChange): string {
  const { role, tensor, index, of, distances, exceeded, live } = feature;
  const measured =
    distances === null
      ? ''
      : `; psi ${distances.psi.toFixed(3)}, js ${distances.js.toFixed(3)}, ks ${distances.ks.toFixed(3)}`;
  const above = exceeded.length === 0 ? '' : `; above its threshold: ${exceeded.join(', ')}`;
  const what = of === 'value' ? '' : ` (${of})`;
  return `${release} ${role} ${tensor}[${index}]${what}: ${live.count} values, ${live.missing} missing${measured}${above}`;
}
