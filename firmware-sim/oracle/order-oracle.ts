// Why: what must hold of rollouts across regions at every commit of every region: no part begins before the stage before it has
// succeeded as its own regions know it and has stood for its time, one that is paused is paused everywhere, each word is acted on
// once and undoes nothing that people of the region said, and nobody but a home region is followed.
// Trusts: the stores of all regions as committed. Must never: judge by what one region says of another.

import { ownRolloutId } from '../../registry/regions/own-rollouts.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import type { RegionList } from '../../shared/wire/regions.ts';
import type { RolloutOrder } from '../../shared/wire/rollout-orders.ts';
import type { Reached } from '../fleet-world/node-log.ts';
import type { World } from '../world.ts';

export interface OrderOracle {
  /** A region committed. */
  committed(region: string, db: SqlTx): void;
  /** It was set back to an older disk. */
  restored(region: string): void;
  /** Something of this region has reached that one. */
  heard(region: string, by: string): void;
}

interface Part {
  stage: number;
  leftOut: boolean;
}

interface Told {
  coordinator: string;
  id: string;
  skipAfterMs: number | null;
  parts: Map<string, Part>;
  /** Stages that went on without a region that was cut off, as `region stage`. */
  skipped: Set<string>;
  /** By region and revision the words that were given. */
  words: Map<string, Set<string>>;
  /** By region: how often it was told to run, to stop, to end. */
  wishes: Map<string, string[]>;
}

interface Seen {
  orders: number;
  paused: Set<string>;
  /** By its own rollout, who stopped it last. */
  pausedBy: Map<string, string | null>;
  began: Set<string>;
  history: number;
  taken: Map<string, { revision: number; acted: number }>;
  takenText: string;
  byOrders: Map<string, number>;
}

const unseen = (): Seen => ({
  ...{ paused: new Set<string>(), pausedBy: new Map<string, string | null>() },
  ...{ orders: 0, began: new Set<string>(), history: 0, taken: new Map(), takenText: '' },
  byOrders: new Map(),
});
const attemptsMax = 12;
/** Between a look at the list of regions and the commit of what follows from it. */
const listSlackMs = 60_000;
const contactSlackMs = 5_000;
/** Between the clocks of two registries that began at one time. */
const clockSlackMs = 2_000;

export function createOrderOracle(world: World, reached: Reached): OrderOracle {
  const told = new Map<string, Told>();
  /** By the id of a region's own rollout, which order it is for. */
  const ownOf = new Map<string, { of: Told; region: string; attempt: number }>();
  /** `order region`: when it first succeeded there, as that region committed it. */
  const succeeded = new Map<string, number>();
  /** By region who was home as its list said, and until when. */
  const homes = new Map<string, { takenAtMs: number; home: string; until: Map<string, number> }>();
  const seen = new Map<string, Seen>();
  const contacts = new Map<string, number>();

  const seenOf = (region: string): Seen => {
    const known = seen.get(region) ?? unseen();
    seen.set(region, known);
    return known;
  };

  // --- the region that coordinates ---

  function coordinates(region: string, db: SqlTx): void {
    const now = seenOf(region);
    const last =
      db.get<{ number: number | null }>('SELECT max(order_number) AS number FROM region_rollout_parts')
        ?.number ?? 0;
    if (last === now.orders) return;
    const rows = db.all<{
      id: string;
      skip: number | null;
      soaks: string;
      heardAtMs: number | null;
      region: string;
      stage: number;
      wish: string;
      revision: number;
      attempt: number;
      leftOut: number;
      progress: string | null;
      number: number;
    }>(
      `SELECT r.region_rollout_id AS id, r.skip_after_ms AS skip, r.soaks, p.succeeded_at_ms AS heardAtMs, p.region, p.stage, p.wish, p.revision, p.attempt,
         p.left_out AS leftOut, p.progress, p.order_number AS number
       FROM region_rollouts r JOIN region_rollout_parts p ON p.region_rollout_id = r.region_rollout_id
       ORDER BY r.number, p.stage, p.region`,
    );
    for (const row of rows) learn(region, row.id, row.skip, row.region, row.stage, row.leftOut === 1);
    for (const row of rows) {
      if (row.number <= now.orders) continue;
      const one = told.get(row.id);
      if (one === undefined) continue;
      const words = one.words.get(`${row.region} ${row.revision}`) ?? new Set<string>();
      words.add(`${row.wish} ${row.attempt}`);
      one.words.set(`${row.region} ${row.revision}`, words);
      const isFirst = one.wishes.get(row.region)?.includes('run') !== true;
      one.wishes.set(row.region, [...(one.wishes.get(row.region) ?? []), row.wish]);
      if (row.wish === 'run') mayRun(region, one, row, rows);
      if (row.wish === 'run' && isFirst) hasStood(region, row, rows);
    }
    now.orders = last;
  }

  function learn(
    coordinator: string,
    id: string,
    skipAfterMs: number | null,
    region: string,
    stage: number,
    leftOut: boolean,
  ): void {
    const one = told.get(id) ?? {
      ...{ coordinator, id, skipAfterMs, parts: new Map(), skipped: new Set<string>() },
      ...{ words: new Map(), wishes: new Map() },
    };
    told.set(id, one);
    if (!one.parts.has(region))
      for (let attempt = 1; attempt <= attemptsMax; attempt += 1)
        ownOf.set(ownRolloutId({ coordinator, orderId: id, region, attempt }), { of: one, region, attempt });
    one.parts.set(region, { stage, leftOut });
  }

  /** A region is told to run: all before it have succeeded, or are left out, or were cut off for long enough. */
  function mayRun(
    coordinator: string,
    one: Told,
    { region, stage }: { region: string; stage: number },
    rows: readonly { id: string; region: string; stage: number; revision: number; progress: string | null }[],
  ): void {
    for (const [other, part] of one.parts) {
      if (part.stage >= stage || part.leftOut || succeeded.has(`${one.id} ${other}`)) continue;
      const lastMs = contacts.get(`${other} ${coordinator}`) ?? 0;
      const row = rows.find((each) => each.id === one.id && each.region === other);
      const said = JSON.parse(row?.progress ?? '{"revision":0}') as { revision: number };
      const isCutOff =
        one.skipAfterMs !== null &&
        (world.nowMs() - lastMs >= one.skipAfterMs - contactSlackMs || said.revision < (row?.revision ?? 0));
      if (isCutOff) {
        one.skipped.add(`${other} ${stage}`);
        reached.count('order', 'skipped');
      } else
        world.violate(
          `${coordinator} tells ${region} of stage ${stage} to run ${one.id} before it has succeeded in ${other}`,
        );
    }
  }

  /** What was heard to have succeeded in the stage before has stood for as long as the file says. */
  function hasStood(
    coordinator: string,
    { id, region, stage, soaks }: { id: string; region: string; stage: number; soaks: string },
    rows: readonly { id: string; region: string; stage: number; leftOut: number; heardAtMs: number | null }[],
  ): void {
    const soakMs = (JSON.parse(soaks) as number[])[stage - 1] ?? 0;
    if (soakMs === 0) return;
    for (const other of rows) {
      if (other.id !== id || other.stage !== stage - 1 || other.leftOut === 1) continue;
      const atMs = succeeded.get(`${id} ${other.region}`);
      if (other.heardAtMs === null || atMs === undefined) continue;
      reached.count('order', 'stage stood');
      if (world.nowMs() - atMs < soakMs - clockSlackMs)
        world.violate(
          `${coordinator} tells ${region} to run ${id} ${world.nowMs() - atMs} of ${soakMs} ms after ${other.region} had succeeded`,
        );
    }
  }

  /** The commit that pauses it tells everybody who may go on. */
  function pausesAll(region: string, db: SqlTx): void {
    const now = seenOf(region);
    const rows = db.all<{ id: string }>(
      "SELECT region_rollout_id AS id FROM region_rollouts WHERE state = 'paused'",
    );
    for (const { id } of rows) {
      if (now.paused.has(id)) continue;
      reached.count('order', 'paused');
      const parts = db.all<{ other: string; attempt: number; progress: string | null }>(
        `SELECT region AS other, attempt, progress FROM region_rollout_parts
         WHERE region_rollout_id = ? AND wish = 'run' AND left_out = 0`,
        id,
      );
      for (const { other, attempt, progress } of parts) {
        const said = progress === null ? null : (JSON.parse(progress) as { attempt: number; state: string });
        if (said?.attempt === attempt && said.state === 'succeeded') continue;
        world.violate(`${region} pauses ${id}, and ${other} is told to run`);
      }
    }
    now.paused = new Set(rows.map(({ id }) => id));
  }

  // --- the region that takes part ---

  function takes(region: string, db: SqlTx): void {
    const now = seenOf(region);
    const rows = db.all<{ coordinator: string; id: string; revision: number; acted: number; body: string }>(
      'SELECT coordinator, order_id AS id, revision, acted, body FROM region_orders ORDER BY coordinator, order_id',
    );
    const text = rows.map(({ id, revision, acted }) => `${id} ${revision} ${acted}`).join();
    if (text === now.takenText) return;
    now.takenText = text;
    for (const { coordinator, id, revision, acted, body } of rows) {
      const before = now.taken.get(`${coordinator} ${id}`);
      const order = JSON.parse(body) as RolloutOrder;
      const words = told.get(id)?.words.get(`${region} ${revision}`);
      if (words === undefined || !words.has(`${order.wish} ${order.attempt}`))
        world.violate(`${region} took revision ${revision} of ${id}: ${order.wish}, which nobody gave`);
      if (before !== undefined && revision < before.revision)
        world.violate(`${region}: revision ${revision} of ${id} was taken after ${before.revision}`);
      if (before !== undefined && acted < before.acted)
        world.violate(`${region}: ${id} was acted on to ${acted} after ${before.acted}`);
      if (acted > revision) world.violate(`${region}: ${id} was acted on to ${acted} of ${revision}`);
      if (before?.revision !== revision) reached.count('order', `taken ${order.wish}`);
      now.taken.set(`${coordinator} ${id}`, { revision, acted });
    }
  }

  function begins(region: string, db: SqlTx): void {
    const now = seenOf(region);
    const rows = db.all<{ id: string; state: string }>(
      `SELECT rollout_id AS id, state FROM rollouts WHERE created_by LIKE 'region:%'`,
    );
    for (const { id, state } of rows) {
      const own = ownOf.get(id);
      if (own === undefined) {
        world.violate(`${region} began ${id}, which no region ordered`);
        continue;
      }
      const key = `${own.of.id} ${region}`;
      if (state === 'succeeded' && !succeeded.has(key)) succeeded.set(key, world.nowMs());
      if (now.began.has(id)) continue;
      now.began.add(id);
      reached.count('order', own.of.coordinator === region ? 'begun at home' : 'begun');
      mayBegin(region, own.of, own.attempt);
    }
  }

  function mayBegin(region: string, of: Told, attempt: number): void {
    const own = of.parts.get(region);
    const given = [...of.words].some(
      ([key, words]) => key.startsWith(`${region} `) && words.has(`run ${attempt}`),
    );
    if (own === undefined || !given) {
      world.violate(`${region} began attempt ${attempt} of ${of.id}, which it was never told to`);
      return;
    }
    for (const [other, part] of of.parts) {
      if (part.stage >= own.stage || part.leftOut) continue;
      if (succeeded.has(`${of.id} ${other}`) || of.skipped.has(`${other} ${own.stage}`)) continue;
      world.violate(
        `${region} of stage ${own.stage} began ${of.id} before it had succeeded in ${other} of stage ${part.stage}`,
      );
    }
    const homeAtMs = homes.get(region)?.until.get(of.coordinator);
    // What stands until the next commit stands until now.
    const isHome = homeAtMs !== undefined && world.nowMs() - homeAtMs <= listSlackMs;
    if (of.coordinator !== region && !isHome)
      world.violate(`${region} began ${of.id} for ${of.coordinator}, which is not home`);
  }

  /** What was done by an order is done once for each word, and lets nothing go on that anybody else stopped. */
  function actsOnce(region: string, db: SqlTx): void {
    const now = seenOf(region);
    const last = db.get<{ id: number | null }>('SELECT max(history_id) AS id FROM rollout_history')?.id ?? 0;
    if (last === now.history) return;
    const rows = db.all<{ rollout: string; what: string; user: string | null }>(
      `SELECT rollout_id AS rollout, what, user FROM rollout_history
       WHERE history_id > ? AND wave_index IS NULL ORDER BY history_id`,
      now.history,
    );
    now.history = last;
    for (const { rollout, what, user } of rows) {
      if (what === 'paused') now.pausedBy.set(rollout, user);
      if (user?.startsWith('region:') !== true) continue;
      const stoppedBy = now.pausedBy.get(rollout);
      if (what === 'running' && stoppedBy !== undefined && stoppedBy?.startsWith('region:') !== true)
        world.violate(`${region} lets ${rollout} go on by order, which ${stoppedBy ?? 'a gate'} had stopped`);
      const own = ownOf.get(rollout);
      if (own === undefined) continue;
      const key = `${own.of.id} ${what}`;
      const times = (now.byOrders.get(key) ?? 0) + 1;
      now.byOrders.set(key, times);
      reached.count('order', `did ${what}`);
      const wishes = own.of.wishes.get(region) ?? [];
      const wanted = (...these: string[]): number => wishes.filter((wish) => these.includes(wish)).length;
      // An attempt that replaces another ends it first.
      const allowed =
        what === 'paused'
          ? wanted('pause')
          : what === 'running'
            ? wanted('run')
            : wanted('abort', 'abort-revert') + own.attempt;
      if (times > allowed)
        world.violate(
          `${region} did by order for ${own.of.id}: ${what}, ${times} times, and was told ${allowed}`,
        );
    }
  }

  function homeOf(region: string, db: SqlTx): void {
    const known = homes.get(region) ?? { takenAtMs: -1, home: '', until: new Map<string, number>() };
    homes.set(region, known);
    known.until.set(known.home, world.nowMs());
    const at = db.get<{ atMs: number }>('SELECT taken_at_ms AS atMs FROM region_list')?.atMs ?? -1;
    if (at === known.takenAtMs) return;
    const row = db.get<{ envelope: Uint8Array }>('SELECT envelope FROM region_list');
    if (row === undefined) return;
    const { payload } = JSON.parse(Buffer.from(row.envelope).toString()) as { payload: string };
    const { home } = JSON.parse(Buffer.from(payload, 'base64').toString()) as RegionList;
    known.takenAtMs = at;
    known.home = home;
    known.until.set(home, world.nowMs());
  }

  return {
    committed(region, db) {
      coordinates(region, db);
      pausesAll(region, db);
      takes(region, db);
      homeOf(region, db);
      begins(region, db);
      actsOnce(region, db);
    },
    restored(region) {
      seen.set(region, unseen());
      homes.delete(region);
    },
    heard: (region, by) => void contacts.set(`${region} ${by}`, world.nowMs()),
  };
}
