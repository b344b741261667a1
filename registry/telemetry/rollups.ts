// Why: adds the counts of a batch to those of its release, device and hour in the batch's own transaction, and answers
// questions about weeks from the sums.
// Trusts: the batch's signature for the device; its records only after the schemas. Must never: count a record twice.

import { formatReleaseId, parseReleaseId } from '../../shared/kernel/releases.ts';
import {
  addFeatures,
  addRequests,
  createFeaturesSummer,
  type FeaturesSum,
  featuresFromText,
  featuresOf,
  featuresToText,
  noFeatures,
  noRequests,
  type RequestsSum,
  requestsOf,
} from '../../shared/stats/rollup.ts';
import { type EnergyStats, energyStatsSchema } from '../../shared/wire/energy.ts';
import { type FeaturesStats, featuresStatsSchema } from '../../shared/wire/feature-stats.ts';
import { type RequestsStats, requestsStatsSchema } from '../../shared/wire/request-stats.ts';
import { type SamplesStats, samplesStatsSchema } from '../../shared/wire/samples.ts';
import { fromColumn, fromNullableColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import {
  addEnergy,
  createEnergyRollups,
  type EnergyRollups,
  type EnergyRow,
  energyRow,
} from './energy-rollups.ts';
import type { OpenedRecord } from './open-batch.ts';

export const hourMs = 3_600_000;

/** Counts in the bins of one profile, of one device. */
export interface CountedFeatures {
  release: string;
  profileSha256: string;
  sum: FeaturesSum;
  /** Time of the newest record in it, by the device's clock. */
  timeMs: number;
}

export interface RollupScope {
  release: string;
  fromMs: number;
  untilMs: number;
  /** Of one device alone. */
  device?: string;
}

export interface DeviceFeatures {
  device: string;
  sum: FeaturesSum;
}

export interface Rollups {
  /** Adds the records of a batch of class `stats`; what it counted in profiles, for who watches. */
  addIn(db: RegistryDb, deviceId: string, records: readonly OpenedRecord[]): CountedFeatures[];
  eraseIn(db: RegistryDb, deviceId: string, untilMs: number): void;
  /** By device; whole hours, the one in which `fromMs` lies included. */
  features(scope: RollupScope & { profileSha256: string }): Promise<DeviceFeatures[]>;
  requests(scope: RollupScope): Promise<RequestsSum>;
  energy: Pick<EnergyRollups, 'releases'>;
  /** Records of class `stats` since the start by their kind. */
  counters(): RollupCounters;
}

export interface RollupCounters {
  requests: number;
  features: number;
  energy: number;
  /** What devices sampled: told, and added up by nobody yet. */
  samples: number;
  /** Of an agent that is newer, or of no release. */
  unknown: number;
}

type Stats = RequestsStats | FeaturesStats | EnergyStats | SamplesStats;

/** Null for what is no statistics of ours: an agent that is newer, or a device that says anything. */
function statsOf(data: string): Stats | null {
  const body: unknown = JSON.parse(data);
  const requests = requestsStatsSchema.safeParse(body);
  if (requests.success) return requests.data;
  const features = featuresStatsSchema.safeParse(body);
  if (features.success) return features.data;
  const energy = energyStatsSchema.safeParse(body);
  if (energy.success) return energy.data;
  const samples = samplesStatsSchema.safeParse(body);
  return samples.success ? samples.data : null;
}

interface Key {
  release: string;
  hour: number;
  model: string;
}

class Sums<Value extends Key & { sum: unknown }> {
  readonly byKey = new Map<string, Value>();
  of(key: string, make: () => Value): Value {
    const present = this.byKey.get(key) ?? make();
    this.byKey.set(key, present);
    return present;
  }
}

type RequestsRow = Key & { sum: RequestsSum };
type FeaturesRow = Key & { profileSha256: string; sum: FeaturesSum; timeMs: number };

/** The batch's records added up, so that each row of the store is changed once. */
function summed(records: readonly OpenedRecord[]): {
  requests: RequestsRow[];
  features: FeaturesRow[];
  energy: EnergyRow[];
  counted: RollupCounters;
} {
  const counted: RollupCounters = { requests: 0, features: 0, energy: 0, samples: 0, unknown: 0 };
  const requests = new Sums<RequestsRow>();
  const features = new Sums<FeaturesRow>();
  const energy = new Map<string, EnergyRow>();
  for (const { timeMs, release, data } of records) {
    const name = release === null ? null : parseReleaseId(release);
    const stats = name === null ? null : statsOf(data);
    if (name === null || stats === null) {
      counted.unknown += 1;
      continue;
    }
    counted[stats.kind] += 1;
    if (stats.kind === 'samples') continue;
    const key = { release: formatReleaseId(name), hour: Math.floor(timeMs / hourMs), model: stats.model };
    const text = `${key.release} ${key.hour} ${key.model}`;
    if (stats.kind === 'requests') {
      const row = requests.of(text, () => ({ ...key, sum: noRequests }));
      row.sum = addRequests(row.sum, requestsOf(stats));
    } else if (stats.kind === 'energy') {
      const row = energyRow(key, stats);
      const present = energy.get(`${row.method} ${text}`);
      energy.set(`${row.method} ${text}`, present === undefined ? row : addEnergy(present, row));
    } else {
      const { profileSha256 } = stats;
      const row = features.of(`${profileSha256} ${text}`, () => ({
        ...key,
        profileSha256,
        sum: noFeatures,
        timeMs,
      }));
      row.sum = addFeatures(row.sum, featuresOf(stats));
      row.timeMs = Math.max(row.timeMs, timeMs);
    }
  }
  return {
    requests: [...requests.byKey.values()],
    features: [...features.byKey.values()],
    energy: [...energy.values()],
    counted,
  };
}

/** Rows read in one transaction: between two of them batches are stored. */
const pageRows = 2_000;

export function createRollups(store: RegistryStore): Rollups {
  const { qb } = store;
  const counters: RollupCounters = { requests: 0, features: 0, energy: 0, samples: 0, unknown: 0 };
  const energyRollups = createEnergyRollups(store);

  function addRequestsIn(db: RegistryDb, deviceId: string, { sum: added, ...key }: RequestsRow): void {
    const where = { release: key.release, hour: key.hour, device_id: deviceId, model: key.model };
    const row = db.first(
      qb
        .selectFrom('rollup_requests')
        .select(['windows', 'window_ms', 'requests', 'errors', 'latency'])
        .where((eb) => eb.and(where)),
    );
    const present: RequestsSum =
      row === undefined
        ? noRequests
        : {
            windows: row.windows,
            windowMs: row.window_ms,
            requests: row.requests,
            errors: fromColumn(row.errors),
            latency: fromNullableColumn(row.latency),
          };
    const sum = addRequests(present, added);
    const values = {
      windows: sum.windows,
      window_ms: Math.round(sum.windowMs),
      requests: sum.requests,
      errors: JSON.stringify(sum.errors),
      latency: sum.latency === null ? null : JSON.stringify(sum.latency),
    };
    db.run(
      qb
        .insertInto('rollup_requests')
        .values({ ...where, ...values })
        .onConflict((conflict) =>
          conflict.columns(['release', 'hour', 'device_id', 'model']).doUpdateSet(values),
        ),
    );
  }

  function addFeaturesIn(db: RegistryDb, deviceId: string, row: FeaturesRow): void {
    const { release, hour, model, profileSha256, sum: added } = row;
    const where = { release, hour, device_id: deviceId, model, profile_sha256: profileSha256 };
    const stored = db.first(
      qb
        .selectFrom('rollup_features')
        .select(['windows', 'window_ms as windowMs', 'rows', 'seen_rows as seenRows', 'features'])
        .where((eb) => eb.and(where)),
    );
    const present: FeaturesSum =
      stored === undefined ? noFeatures : { ...stored, features: featuresFromText(stored.features) };
    const sum = addFeatures(present, added);
    const values = {
      windows: sum.windows,
      window_ms: Math.round(sum.windowMs),
      rows: sum.rows,
      seen_rows: sum.seenRows,
      features: featuresToText(sum.features),
    };
    db.run(
      qb
        .insertInto('rollup_features')
        .values({ ...where, ...values })
        .onConflict((conflict) =>
          conflict.columns(['release', 'hour', 'device_id', 'model', 'profile_sha256']).doUpdateSet(values),
        ),
    );
  }

  function featuresPage(scope: RollupScope & { profileSha256: string }, after: Place, count: number) {
    let query = qb
      .selectFrom('rollup_features')
      .select([
        'hour',
        'device_id as device',
        'model',
        'windows',
        'window_ms as windowMs',
        'rows',
        'seen_rows as seenRows',
        'features',
      ])
      .where('release', '=', scope.release)
      .where('profile_sha256', '=', scope.profileSha256)
      .where('hour', '<=', Math.floor((scope.untilMs - 1) / hourMs))
      .where((eb) =>
        eb(eb.refTuple('hour', 'device_id', 'model'), '>', eb.tuple(after.hour, after.device, after.model)),
      )
      .orderBy('hour')
      .orderBy('device_id')
      .orderBy('model')
      .limit(count);
    if (scope.device !== undefined) query = query.where('device_id', '=', scope.device);
    return store.tx((db) => db.all(query));
  }

  return {
    addIn(db, deviceId, records) {
      const { requests, features, energy, counted } = summed(records);
      for (const kind of ['requests', 'features', 'energy', 'unknown'] as const)
        counters[kind] += counted[kind];
      for (const row of requests) addRequestsIn(db, deviceId, row);
      for (const row of features) addFeaturesIn(db, deviceId, row);
      for (const row of energy) energyRollups.addIn(db, deviceId, row);
      return features.map(({ release, profileSha256, sum, timeMs }) => ({
        release,
        profileSha256,
        sum,
        timeMs,
      }));
    },

    eraseIn(db, deviceId, untilMs) {
      for (const table of ['rollup_requests', 'rollup_features', 'rollup_energy'] as const)
        db.run(
          qb
            .deleteFrom(table)
            .where('device_id', '=', deviceId)
            .where('hour', '<', untilMs / hourMs),
        );
    },

    async features(scope) {
      const summers = new Map<string, ReturnType<typeof createFeaturesSummer>>();
      // Before every row of the first hour: no name is empty.
      let after: Place = { hour: Math.floor(scope.fromMs / hourMs), device: '', model: '' };
      for (;;) {
        const page = await featuresPage(scope, after, pageRows);
        for (const row of page) {
          const summer = summers.get(row.device) ?? createFeaturesSummer();
          summers.set(row.device, summer);
          summer.add({ ...row, features: featuresFromText(row.features) });
        }
        const last = page.at(-1);
        if (last === undefined || page.length < pageRows) break;
        after = last;
      }
      return [...summers]
        .map(([device, summer]) => ({ device, sum: summer.sum() }))
        .sort((a, b) => (a.device < b.device ? -1 : 1));
    },

    async requests({ release, fromMs, untilMs, device }) {
      let query = qb
        .selectFrom('rollup_requests')
        .select(['windows', 'window_ms as windowMs', 'requests', 'errors', 'latency'])
        .where('release', '=', release)
        .where('hour', '>=', Math.floor(fromMs / hourMs))
        .where('hour', '<=', Math.floor((untilMs - 1) / hourMs));
      if (device !== undefined) query = query.where('device_id', '=', device);
      const rows = await store.tx((db) => db.all(query));
      return rows.reduce<RequestsSum>(
        (sum, row) =>
          addRequests(sum, {
            ...row,
            errors: fromColumn(row.errors),
            latency: fromNullableColumn(row.latency),
          }),
        noRequests,
      );
    },

    energy: energyRollups,

    counters: () => ({ ...counters }),
  };
}

interface Place {
  hour: number;
  device: string;
  model: string;
}
