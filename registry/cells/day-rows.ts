// Why: what each device did with one release on one day, read from the sums that ingest keeps by hour.
// Trusts: the rollups. Must never: hold more than one release's day at once, or block ingest for long.

import { sha256Hex } from '../../shared/crypto/digests.ts';
import type { DeviceDay } from '../../shared/stats/cells.ts';
import { createFeaturesSummer, featuresFromText } from '../../shared/stats/rollup.ts';
import type { SketchJson } from '../../shared/stats/sketch.ts';
import { type EnergyMethod, energyMethods } from '../../shared/wire/energy.ts';
import { fromColumn, fromNullableColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';

/** Rows read in one transaction: between two of them batches are stored. */
const pageRows = 1_000;
const dayHours = 24;

/** A device's name in lists of members, which outlive an erasure: they protect whom they name. */
export const memberOf = (deviceId: string): string =>
  sha256Hex(Buffer.from(`cells ${deviceId}`)).slice(0, 24);

/** In what order the rows of one release and hour stand; the empty place is before every row. */
interface Place {
  device: string;
  model: string;
  last: string;
}

interface OpenDay extends DeviceDay {
  failed: Map<string, number>;
  latency: Map<number, number>;
  energy: Map<EnergyMethod, { joules: number; requests: number }>;
  summers: Map<string, ReturnType<typeof createFeaturesSummer>>;
}

const addTo = <Key>(counts: Map<Key, number>, key: Key, count: number): void => {
  // Devices may say any number; a sum that is no whole number any more would fit no schema.
  counts.set(key, Math.min(Number.MAX_SAFE_INTEGER, (counts.get(key) ?? 0) + count));
};

export interface DayRows {
  /** Those that a device told requests of on that day. */
  releasesIn(db: RegistryDb, day: number): string[];
  /** The first day from `day` on of which there is something; null where there is none. */
  firstDayIn(db: RegistryDb, day: number): number | null;
  /** By member. `leaveOut`: ids of devices that are being erased. */
  read(release: string, day: number, leaveOut: ReadonlySet<string>): Promise<Map<string, DeviceDay>>;
}

export function createDayRows(store: RegistryStore): DayRows {
  const { qb } = store;

  /** From release to release by the index: there are few, and many rows of each. */
  function* eachRelease(db: RegistryDb): Generator<string> {
    let after = '';
    for (;;) {
      const next = db.first(
        qb
          .selectFrom('rollup_requests')
          .select('release')
          .where('release', '>', after)
          .orderBy('release')
          .limit(1),
      );
      if (next === undefined) return;
      after = next.release;
      yield after;
    }
  }

  /** The first hour from `hour` on in which somebody told of it. */
  const hourIn = (db: RegistryDb, release: string, hour: number): number | null =>
    db.first(
      qb
        .selectFrom('rollup_requests')
        .select('hour')
        .where('release', '=', release)
        .where('hour', '>=', hour)
        .orderBy('hour')
        .limit(1),
    )?.hour ?? null;

  /** Every row that `page` gives, a page in a transaction. */
  async function eachRow<Row>(
    page: (db: RegistryDb, after: Place) => Row[],
    take: (row: Row) => Place,
  ): Promise<void> {
    let after: Place = { device: '', model: '', last: '' };
    for (;;) {
      const rows = await store.tx((db) => page(db, after));
      for (const row of rows) after = take(row);
      if (rows.length < pageRows) return;
    }
  }

  function readRequests(release: string, hour: number, dayOf: (device: string) => OpenDay): Promise<void> {
    return eachRow(
      (db, after) =>
        db.all(
          qb
            .selectFrom('rollup_requests')
            .select(['device_id as device', 'model', 'errors', 'latency'])
            .where('release', '=', release)
            .where('hour', '=', hour)
            .where((eb) => eb(eb.refTuple('device_id', 'model'), '>', eb.tuple(after.device, after.model)))
            .orderBy('device_id')
            .orderBy('model')
            .limit(pageRows),
        ),
      ({ device, model, errors, latency }) => {
        const day = dayOf(device);
        for (const [code, count] of Object.entries(fromColumn<Record<string, number>>(errors)))
          addTo(day.failed, code, count);
        for (const [at, count] of fromNullableColumn<SketchJson>(latency)?.counts ?? [])
          addTo(day.latency, at, count);
        return { device, model, last: '' };
      },
    );
  }

  function readEnergy(release: string, hour: number, dayOf: (device: string) => OpenDay): Promise<void> {
    return eachRow(
      (db, after) =>
        db.all(
          qb
            .selectFrom('rollup_energy')
            .select(['device_id as device', 'model', 'method', 'joules', 'requests'])
            .where('release', '=', release)
            .where('hour', '=', hour)
            .where((eb) =>
              eb(
                eb.refTuple('device_id', 'model', 'method'),
                '>',
                eb.tuple(after.device, after.model, after.last),
              ),
            )
            .orderBy('device_id')
            .orderBy('model')
            .orderBy('method')
            .limit(pageRows),
        ),
      ({ device, model, method: name, joules, requests }) => {
        const method = energyMethods.find((one) => one === name);
        if (method !== undefined) {
          const { energy } = dayOf(device);
          const sum = energy.get(method) ?? { joules: 0, requests: 0 };
          energy.set(method, { joules: sum.joules + joules, requests: sum.requests + requests });
        }
        return { device, model, last: name };
      },
    );
  }

  function readFeatures(release: string, hour: number, dayOf: (device: string) => OpenDay): Promise<void> {
    return eachRow(
      (db, after) =>
        db.all(
          qb
            .selectFrom('rollup_features')
            .select(['device_id as device', 'model', 'profile_sha256 as profile', 'windows'])
            .select(['window_ms as windowMs', 'rows', 'seen_rows as seenRows', 'features'])
            .where('release', '=', release)
            .where('hour', '=', hour)
            .where((eb) =>
              eb(
                eb.refTuple('device_id', 'model', 'profile_sha256'),
                '>',
                eb.tuple(after.device, after.model, after.last),
              ),
            )
            .orderBy('device_id')
            .orderBy('model')
            .orderBy('profile_sha256')
            .limit(pageRows),
        ),
      ({ device, model, profile, features, ...sum }) => {
        const { summers } = dayOf(device);
        const summer = summers.get(profile) ?? createFeaturesSummer();
        summers.set(profile, summer);
        summer.add({ ...sum, features: featuresFromText(features) });
        return { device, model, last: profile };
      },
    );
  }

  return {
    releasesIn: (db, day) =>
      [...eachRelease(db)].filter((release) => {
        const hour = hourIn(db, release, day * dayHours);
        return hour !== null && hour < (day + 1) * dayHours;
      }),

    firstDayIn(db, day) {
      const hours = [...eachRelease(db)].flatMap((release) => hourIn(db, release, day * dayHours) ?? []);
      return hours.length === 0 ? null : Math.floor(Math.min(...hours) / dayHours);
    },

    async read(release, day, leaveOut) {
      const days = new Map<string, OpenDay>();
      const dayOf = (device: string): OpenDay => {
        const known = days.get(device) ?? {
          ...{ failed: new Map(), latency: new Map(), energy: new Map() },
          ...{ features: new Map(), summers: new Map() },
        };
        days.set(device, known);
        return known;
      };
      for (let hour = day * dayHours; hour < (day + 1) * dayHours; hour += 1) {
        await readRequests(release, hour, dayOf);
        await readEnergy(release, hour, dayOf);
        await readFeatures(release, hour, dayOf);
      }
      const found = new Map<string, DeviceDay>();
      for (const [device, { summers, ...sums }] of days) {
        if (leaveOut.has(device)) continue;
        const features = new Map([...summers].map(([profile, summer]) => [profile, summer.sum()]));
        found.set(memberOf(device), { ...sums, features });
      }
      return found;
    },
  };
}
