// Why: joules of releases by device, hour and method, added as batches are stored, and asked for over weeks.
// Trusts: its caller for the transaction and for records that the schema accepted. Must never: add what was measured
// to what was modelled.

import {
  type EnergyMethod,
  type EnergyStats,
  type EnergyView,
  energyMethods,
  energySources,
} from '../../shared/wire/energy.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';

export interface EnergyRow {
  release: string;
  hour: number;
  model: string;
  method: EnergyMethod;
  windows: number;
  requests: number;
  joules: number;
  cpuMs: number;
  /** Of the windows in which the device could tell the CPU time. */
  cpuRequests: number;
}

export function energyRow(key: { release: string; hour: number }, stats: EnergyStats): EnergyRow {
  const { model, method, requests, joules, cpuMs } = stats;
  return {
    ...{ ...key, model, method, requests },
    windows: 1,
    joules: joules ?? 0,
    cpuMs: cpuMs ?? 0,
    cpuRequests: cpuMs === null ? 0 : requests,
  };
}

export function addEnergy(one: EnergyRow, other: EnergyRow): EnergyRow {
  return {
    ...one,
    windows: one.windows + other.windows,
    requests: one.requests + other.requests,
    joules: one.joules + other.joules,
    cpuMs: one.cpuMs + other.cpuMs,
    cpuRequests: one.cpuRequests + other.cpuRequests,
  };
}

export interface EnergyRollups {
  addIn(db: RegistryDb, deviceId: string, row: EnergyRow): void;
  /** Releases of one model (`NS/NAME`), or one of them; whole hours. */
  releases(scope: {
    model: string;
    release?: string;
    fromHour: number;
    untilHour: number;
  }): Promise<EnergyView['releases']>;
}

const per1000 = (sum: number, requests: number): number | null =>
  requests === 0 ? null : Math.round((sum / requests) * 1e9) / 1e6;

export function createEnergyRollups(store: RegistryStore): EnergyRollups {
  const { qb } = store;
  return {
    addIn(db, deviceId, row) {
      const { release, hour, model, method, windows, requests, joules, cpuMs, cpuRequests } = row;
      db.run(
        qb
          .insertInto('rollup_energy')
          .values({
            ...{ release, hour, device_id: deviceId, model, method, windows, requests, joules },
            ...{ cpu_ms: cpuMs, cpu_requests: cpuRequests },
          })
          .onConflict((conflict) =>
            conflict.columns(['release', 'hour', 'device_id', 'model', 'method']).doUpdateSet((eb) => ({
              windows: eb('rollup_energy.windows', '+', windows),
              requests: eb('rollup_energy.requests', '+', requests),
              joules: eb('rollup_energy.joules', '+', joules),
              cpu_ms: eb('rollup_energy.cpu_ms', '+', cpuMs),
              cpu_requests: eb('rollup_energy.cpu_requests', '+', cpuRequests),
            })),
          ),
      );
    },

    async releases({ model, release, fromHour, untilHour }) {
      let query = qb
        .selectFrom('rollup_energy')
        .select((eb) => [
          'release',
          'method',
          eb.fn.count<number>('device_id').distinct().as('devices'),
          eb.fn.sum<number>('requests').as('requests'),
          eb.fn.sum<number>('joules').as('joules'),
          eb.fn.sum<number>('cpu_ms').as('cpuMs'),
          eb.fn.sum<number>('cpu_requests').as('cpuRequests'),
        ])
        .where('hour', '>=', fromHour)
        .where('hour', '<=', untilHour)
        .groupBy(['release', 'method'])
        .orderBy('release');
      // The names of a model's releases lie side by side: `@` is in no other part of a name.
      query =
        release === undefined
          ? query.where('release', '>=', `${model}@`).where('release', '<', `${model}A`)
          : query.where('release', '=', release);
      const rows = await store.tx((db) => db.all(query));
      const releases = new Map<string, EnergyView['releases'][number]>();
      for (const row of rows) {
        const method = energyMethods.find((one) => one === row.method);
        if (method === undefined) continue;
        const known = method !== 'none';
        const view = releases.get(row.release) ?? { release: row.release, methods: [] };
        releases.set(row.release, view);
        view.methods.push({
          ...{ source: energySources[method], method, devices: row.devices, requests: row.requests },
          joules: known ? row.joules : null,
          joulesPer1000: known ? per1000(row.joules, row.requests) : null,
          cpuMsPer1000: per1000(row.cpuMs, row.cpuRequests),
        });
      }
      return [...releases.values()];
    },
  };
}
