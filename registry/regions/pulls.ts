// Why: takes the lists of another region page by page; the place moves on in the commit that took the items.
// Trusts: each list's own `takeIn` for what an item is worth. Must never: move on without taking, or take without moving on.

import { isErrorCode } from '../../shared/kernel/codes.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { RegistryCore } from '../core.ts';
import type { RegistryDb } from '../store/open.ts';
import type { RegionAsker } from './asking.ts';
import type { RegionLimits } from './limits.ts';
import type { IncomingStream } from './streams.ts';

export interface Pulls {
  /** Every list of that region, as far as it lets them go. Refusals of single lists are told, and do not hold up others. */
  pull(
    region: string,
    asker: Pick<RegionAsker, 'page'>,
  ): Promise<Result<{ taken: number; refused: Refused[] }>>;
  /** How far each list of a region was taken. */
  places(region: string): Promise<{ name: string; last: number; taken: number }[]>;
}

export interface Refused extends Refusal {
  stream: string;
}

interface Place {
  incarnation: string;
  last: number;
  taken: number;
}

export function createPulls(
  core: Pick<RegistryCore, 'store' | 'log'>,
  parts: { streams: readonly IncomingStream[]; limits: RegionLimits },
): Pulls {
  const { store, log } = core;
  const { qb } = store;
  const told = new Map<string, string>();

  const placeIn = (db: RegistryDb, region: string, name: string): Place | undefined =>
    db.first(
      qb
        .selectFrom('region_streams')
        .select(['incarnation', 'last', 'taken'])
        .where('region', '=', region)
        .where('name', '=', name),
    );

  function moveIn(db: RegistryDb, region: string, name: string, place: Place): void {
    db.run(
      qb
        .insertInto('region_streams')
        .values({ region, name, ...place })
        .onConflict((conflict) => conflict.columns(['region', 'name']).doUpdateSet(place)),
    );
  }

  async function pullOne(
    region: string,
    asker: Pick<RegionAsker, 'page'>,
    stream: IncomingStream,
  ): Promise<Result<number>> {
    let taken = 0;
    for (let pages = 0; pages < parts.limits.pagesPerRound; pages += 1) {
      const place = await store.tx((db) => placeIn(db, region, stream.name));
      const page = await asker.page(stream.name, place?.last ?? 0);
      if (!page.ok) return page;
      const { incarnation, items, more } = page.value;
      const isNew = place !== undefined && place.incarnation !== incarnation;
      // A database that was restored, or another one, numbers anew: what was behind our place was asked for in vain.
      if (isNew && place.last > 0) {
        await store.tx((db) => moveIn(db, region, stream.name, { incarnation, last: 0, taken: place.taken }));
        continue;
      }
      const after = place?.last ?? 0;
      const fresh = items.filter(({ id }) => id > after);
      if (fresh.length === 0) return ok(taken);
      const last = Math.max(...fresh.map(({ id }) => id));
      const done = await store.tx((db) => {
        // Another pull may have been faster.
        if ((placeIn(db, region, stream.name)?.last ?? 0) !== after) return false;
        stream.takeIn(db, region, fresh);
        moveIn(db, region, stream.name, { incarnation, last, taken: (place?.taken ?? 0) + fresh.length });
        return true;
      });
      if (done) {
        taken += fresh.length;
        stream.taken?.(region);
      }
      if (!more) return ok(taken);
    }
    return ok(taken);
  }

  /** A list that cannot be judged yet keeps its place, and the others go on. */
  const held = (pulling: Promise<Result<number>>): Promise<Result<number>> =>
    pulling.catch((thrown: unknown) => {
      if (thrown instanceof FleetError && thrown.code === 'audit-head-unverified')
        return refuse(thrown.code, thrown.message);
      throw thrown;
    });

  return {
    async pull(region, asker) {
      let taken = 0;
      const refused: Refused[] = [];
      for (const stream of parts.streams) {
        const pulled = await held(pullOne(region, asker, stream));
        if (pulled.ok) {
          taken += pulled.value;
          continue;
        }
        const { code, detail } = pulled.refusal;
        if (code === 'region-unreachable' || code === 'region-untrusted') return pulled;
        refused.push({ stream: stream.name, code, detail });
        const key = `${region} ${stream.name}`;
        if (isErrorCode(code) && told.get(key) !== code)
          log.emit('warn', 'regions.stream.refused', { region, stream: stream.name, code, detail });
        told.set(key, code);
      }
      return ok({ taken, refused });
    },

    places: (region) =>
      store.tx((db) =>
        db.all(
          qb
            .selectFrom('region_streams')
            .select(['name', 'last', 'taken'])
            .where('region', '=', region)
            .orderBy('name'),
        ),
      ),
  };
}
