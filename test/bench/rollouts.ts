// Why: what a rollout of ten thousand devices costs its registry: one look at all of them, and a plan before it begins.
// Trusts: test/fleet/world.ts on a file database. Must never: measure a step from which something was left out.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RawBuilder } from 'kysely';
import { step } from '../../registry/rollout/controller.ts';
import { writeDecision } from '../../registry/rollout/decision-writing.ts';
import { readFacts } from '../../registry/rollout/fact-reading.ts';
import { parseRolloutFile } from '../../registry/rollout/file.ts';
import type { EvidenceKept } from '../../registry/rollout/wave-evidence.ts';
import { sql } from '../../registry/store/open.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { addToSketch, createSketch, sketchToJson } from '../../shared/stats/sketch.ts';
import { openWorld, region, rolloutFile, type World } from '../fleet/world.ts';
import { onRelease1, v1, v2 } from '../rollout/ground.ts';
import { percentiles, round } from './measure.ts';

const devices = 10_000;
const rounds = 30;
const reports = 1_000;

const raw = <T>(world: World, query: RawBuilder<T>) => ({ compile: () => query.compile(world.store.qb) });

/** One device enrols and runs release 1; the others are rows like its own. */
async function crowd(world: World): Promise<void> {
  const [one] = await world.devices(1);
  if (one === undefined) throw new Error('no device');
  await onRelease1(world, [one]);
  await world.store.tx((db) => {
    const copy = (table: string, columns: string) =>
      db.run(
        raw(
          world,
          sql`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${devices - 1})
            INSERT INTO ${sql.raw(table)} SELECT printf('%032x', i), ${sql.raw(columns)} FROM ${sql.raw(table)}, n
            WHERE device_id = ${one.id}`,
        ),
      );
    const others = (table: string): string =>
      db
        .all<{ name: string }>(raw(world, sql`SELECT name FROM pragma_table_info(${table})`))
        .map(({ name }) => name)
        .filter((name) => name !== 'device_id')
        .join(', ');
    for (const table of ['devices', 'device_models', 'desired', 'assignments']) copy(table, others(table));
  });
}

interface Look {
  wallMs: number[];
  cpuMs: number[];
}

/** As the shell steps: facts, step and what differs, in one transaction. */
async function looks(world: World, id: string, before: (round: number) => Promise<void>): Promise<Look> {
  const { store, clock } = world;
  const out: Look = { wallMs: [], cpuMs: [] };
  const kept: EvidenceKept = new Map();
  for (let at = 0; at < rounds + 3; at += 1) {
    await before(at);
    const cpu = process.cpuUsage();
    const began = performance.now();
    await store.tx((db) => {
      const options = {
        region,
        newcomers: false,
        nowMs: clock.wall(),
        changesMax: 200,
        reference: null,
        kept,
      };
      const facts = readFacts(db, store.qb, id, options);
      if (facts === undefined) throw new Error('no rollout');
      writeDecision(db, store.qb, facts, step(facts), () => {
        throw new Error('nothing is assigned in these steps');
      });
    });
    // The first of each compile.
    if (at < 3) continue;
    out.wallMs.push(performance.now() - began);
    const { user, system } = process.cpuUsage(cpu);
    out.cpuMs.push((user + system) / 1_000);
  }
  return out;
}

const told = ({ wallMs, cpuMs }: Look) => ({
  ...percentiles(wallMs),
  cpuP50Ms: percentiles(cpuMs).p50Ms,
});

async function report(world: World, round: number): Promise<void> {
  const state = round % 2 === 0 ? 'fetching' : 'probing';
  await world.store.tx((db) =>
    db.run(
      raw(
        world,
        sql`UPDATE device_models SET state = ${state}, candidate = ${v2}, target = ${v2},
            rollout_id = (SELECT max(rollout_id) FROM rollouts WHERE state = 'running'), reason = NULL
          WHERE device_id IN (SELECT device_id FROM devices ORDER BY device_id LIMIT ${reports})`,
      ),
    ),
  );
}

async function evidence(world: World): Promise<void> {
  const latencies = createSketch();
  for (let at = 1; at <= 60; at += 1) addToSketch(latencies, 5 + (at % 17));
  const data = {
    ...{ kind: 'requests', model: 'digits', windowMs: 60_000, requests: 60, errors: {} },
    latencySketch: sketchToJson(latencies),
  };
  const record = { timeMs: world.clock.wall(), release: v2, data: JSON.stringify(data) };
  await world.store.tx((db) => {
    const ids = db.all(raw(world, sql<{ id: string }>`SELECT device_id AS id FROM devices`));
    for (const { id } of ids) world.fleet.evidence.rollups.addIn(db, id, [record]);
  });
}

async function inFlight(world: World, gates: object): Promise<string> {
  const id = await world.start(rolloutFile('all', { release: v2, gates }));
  for (let turn = 0; turn < 200; turn += 1) {
    const { devices: members } = await world.status(id);
    const assigned = await world.store.tx((db) =>
      db.first(
        raw(
          world,
          sql<{
            n: number;
          }>`SELECT count(*) AS n FROM rollout_devices WHERE rollout_id = ${id} AND step = 'assigned'`,
        ),
      ),
    );
    if (members.length === devices && assigned?.n === devices) return id;
    await world.settle();
  }
  throw new Error('not everybody was assigned the release');
}

export async function benchRollouts(): Promise<object> {
  const folder = mkdtempSync(join(tmpdir(), 'lepton-bench-rollouts-'));
  const ends: (() => unknown)[] = [];
  const t = { after: (end: () => unknown) => void ends.unshift(end) };
  try {
    const world = await openWorld(t, { folder });
    await world.push(v1, 1);
    await world.push(v2, 2);
    await crowd(world);
    const planMs: number[] = [];
    const file = unwrap(
      parseRolloutFile(rolloutFile('planned', { release: v2, waves: [{ count: 1 }, { percent: 100 }] })),
    );
    for (let at = 0; at < 12; at += 1) {
      const began = performance.now();
      const plan = unwrap(await world.rollouts.plan(file, 'bench', 1_000_000));
      if (at >= 2) planMs.push(performance.now() - began);
      if (plan.devices.length !== devices) throw new Error('a device is missing in the plan');
    }
    const plain = await inFlight(world, {});
    await world.rollouts.stop();
    const nothingNew = await looks(world, plain, async () => undefined);
    const withReports = await looks(world, plain, (at) => report(world, at));
    await evidence(world);
    await world.store.tx((db) => {
      const gates = JSON.stringify({ latencyP95Ms: 50, errorRate: 0.01, minRequests: 100 });
      db.run(
        raw(
          world,
          sql`UPDATE rollouts SET spec = json_set(spec, '$.gates', json(${gates})) WHERE rollout_id = ${plain}`,
        ),
      );
    });
    const withEvidence = await looks(world, plain, (at) => report(world, at));
    return {
      devices,
      plan: { ...percentiles(planMs), limitMs: 2_000 },
      tick: {
        limitMs: 100,
        nothingNew: told(nothingNew),
        thousandReports: told(withReports),
        thousandReportsAndEvidence: told(withEvidence),
        perDeviceUs: round((percentiles(withReports.wallMs).p50Ms / devices) * 1_000),
      },
    };
  } finally {
    for (const end of ends) await end();
    rmSync(folder, { recursive: true, force: true });
  }
}
