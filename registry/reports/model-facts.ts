// Why: gathers what is known of models' releases: catalogue, devices, cells of all regions, incidents.
// Trusts: the rooms it asks. Must never: take of another region anything but its cells, or tell somebody what this region's
// devices counted who may not read it.

import { FleetError } from '../../shared/kernel/errors.ts';
import type { MergedCells } from '../../shared/wire/cells.ts';
import type { DeviceView, ModelView } from '../../shared/wire/http.ts';
import type { ModelsReport, OwnFacts, ReleaseReport } from '../../shared/wire/model-report.ts';
import { barredBecause } from '../catalog/barred.ts';
import { cellDayMs } from '../cells/publishing.ts';
import { type CellQuery, createCellRecords } from '../cells/records.ts';
import type { RegistryCore } from '../core.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { RegistryDb } from '../store/open.ts';
import { createDrift } from '../telemetry/drift.ts';
import type { Evidence } from '../telemetry/evidence.ts';
import { hourMs } from '../telemetry/rollups.ts';
import { incidentsIn } from './incidents.ts';

export interface ReportQuery {
  /** `NS/NAME`; every model where absent. */
  model?: string | undefined;
  /** One release of it. */
  release?: string | undefined;
  sinceMs: number;
  /** Whether who asks may read what this region's devices counted, of a namespace. */
  mayReadOwn(namespace: string): boolean;
}

const releasesMax = 200;
const cardBytesMax = 65_536;

/** The part of a card that `lepton train` writes about the test (registry/learn/card.ts). */
export function metricsOf(card: string): string[] | null {
  const lines = card.split(/\r?\n/);
  const from = lines.indexOf('## On the test part');
  if (from < 0) return null;
  const until = lines.findIndex((line, at) => at > from && line.startsWith('## '));
  const part = lines.slice(from + 1, until < 0 ? undefined : until);
  return part.filter((line) => line.startsWith('- ')).map((line) => line.slice(2));
}

type ProbeEvidence = NonNullable<DeviceView['models'][number]['probe']>;

const middle = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? 0;

export function createModelFacts(
  core: Pick<RegistryCore, 'region' | 'store' | 'releases' | 'blobs' | 'clock'>,
  evidence: Pick<Evidence, 'rollups' | 'profiles'>,
) {
  const { store, releases, blobs } = core;
  const { qb } = store;
  const cells = createCellRecords({ ...core, profiles: evidence.profiles });
  const drift = createDrift(core, evidence);

  const rowIn = (db: RegistryDb, release: string) =>
    db.first(
      qb
        .selectFrom('releases')
        .select(['release_id', 'pushed_by as pushedBy', 'pushed_at_ms as pushedAtMs'])
        .select(['withdrawn', 'below_floor', 'admitted'])
        .where('release_id', '=', release),
    );

  async function cardOf(sha256: string | undefined): Promise<ReleaseReport['card']> {
    if (sha256 === undefined) return null;
    const bytes = await blobs.readRange(sha256, 0, cardBytesMax + 1);
    if (bytes === null) return null;
    const text = new TextDecoder().decode(bytes.subarray(0, cardBytesMax));
    return { text, truncated: bytes.length > cardBytesMax };
  }

  function probesIn(db: RegistryDb, release: string): ReleaseReport['probes'] {
    const probes = db
      .all(
        qb
          .selectFrom('device_models')
          .select('probe')
          .where('target', '=', release)
          .where('probe', 'is not', null),
      )
      .map(({ probe }) => fromColumn<ProbeEvidence>(probe ?? 'null'));
    if (probes.length === 0) return null;
    return {
      devices: probes.length,
      devicesPassed: probes.filter((one) => one.goldenPassed === one.goldenCases).length,
      goldenCases: Math.max(...probes.map(({ goldenCases }) => goldenCases)),
      latencyP95MsMedian: middle(probes.map(({ latencyP95Ms }) => latencyP95Ms)),
      memoryBytesPeakMax: Math.max(...probes.map(({ memoryBytesPeak }) => memoryBytesPeak)),
      firstFailure: probes.find(({ firstFailure }) => firstFailure !== null)?.firstFailure ?? null,
    };
  }

  function runsIn(db: RegistryDb, release: string): Omit<ReleaseReport['runs'], 'regions'> {
    const count = qb.selectFrom('device_models').select((eb) => eb.fn.countAll<number>().as('count'));
    const active = db.first(count.where('active', '=', release))?.count ?? 0;
    const states = db.all(
      count.select('state').where('target', '=', release).groupBy('state').orderBy('state'),
    );
    return { active, states: Object.fromEntries(states.map((row) => [row.state, row.count])) };
  }

  async function regionsOf(release: string, scope: CellQuery): Promise<ReleaseReport['runs']['regions']> {
    const regions = new Map<string, { region: string; devicesAtLeast: number; lastDay: number }>();
    // By day: the newest stands last.
    for (const { kind, region, devicesAtLeast, day } of await cells.all({ ...scope, release }))
      if (kind === 'release' && region !== core.region)
        regions.set(region, { region, devicesAtLeast, lastDay: day });
    return [...regions.values()].sort((a, b) => (a.region < b.region ? -1 : 1));
  }

  async function ownFacts(model: string, release: string, sinceMs: number): Promise<OwnFacts | null> {
    const untilMs = core.clock.wall();
    const report = await drift.report({ model, release, fromMs: sinceMs, untilMs });
    if (!report.ok) return null;
    const { requests, errors, latencyMs } = report.value.requests;
    const [energy] = await evidence.rollups.energy.releases({
      ...{ model, release, fromHour: Math.floor(sinceMs / hourMs), untilHour: Math.floor(untilMs / hourMs) },
    });
    const [fleet] = report.value.groups;
    return {
      ...{ requests, errors, drift: report.value.verdict },
      latencyMs: latencyMs === null ? null : { p50: latencyMs.p50, p95: latencyMs.p95, p99: latencyMs.p99 },
      features: (fleet?.features ?? []).map(({ role, tensor, index, of, verdict, distances, live }) => ({
        ...{ role, tensor, index, of, verdict, count: live.count },
        psi: distances === null ? null : Math.round(distances.psi * 10_000) / 10_000,
      })),
      energy: energy?.methods ?? [],
    };
  }

  async function releaseReport(
    model: ModelView,
    view: ModelView['versions'][number],
    query: ReportQuery,
    merged: ReadonlyMap<string, MergedCells>,
    scope: CellQuery,
  ): Promise<ReleaseReport> {
    const release = `${model.name}@${view.version}`;
    const stored = await store.tx((db) => {
      const row = rowIn(db, release);
      if (row === undefined) throw new FleetError('state-corrupt', `${release} is listed and not there`);
      const incidents = incidentsIn(db, qb, release, query.sinceMs);
      return { row, incidents, probes: probesIn(db, release), runs: runsIn(db, release) };
    });
    const { counter, digest, bytes, signedBy, files } = view;
    const card = await cardOf(files.find(({ role }) => role === 'card')?.sha256);
    const [namespace = ''] = model.name.split('/');
    return {
      ...{ release, counter, digest, bytes, signedBy, files, card },
      status: barredBecause(stored.row)?.code ?? 'available',
      pushedBy: stored.row.pushedBy,
      pushedAtMs: stored.row.pushedAtMs,
      metrics: card === null ? null : metricsOf(card.text),
      probes: stored.probes,
      runs: { ...stored.runs, regions: await regionsOf(release, scope) },
      cells: merged.get(release) ?? null,
      own: query.mayReadOwn(namespace) ? await ownFacts(model.name, release, query.sinceMs) : null,
      incidents: stored.incidents,
    };
  }

  async function modelsOf({ model, release }: ReportQuery): Promise<ModelView[]> {
    if (model === undefined) return releases.list();
    const shown = await releases.show(model);
    if (!shown.ok) throw new FleetError(shown.refusal.code, shown.refusal.detail);
    if (release === undefined) return [shown.value];
    const versions = shown.value.versions.filter(({ version }) => `${model}@${version}` === release);
    if (versions.length === 0) throw new FleetError('not-found', `${model} has no release ${release}`);
    return [{ ...shown.value, versions }];
  }

  return {
    /** Faults: `not-found` (no such model, or release of it). */
    async report(query: ReportQuery): Promise<ModelsReport> {
      const nowMs = core.clock.wall();
      const days = {
        fromDay: Math.floor(query.sinceMs / cellDayMs),
        untilDay: Math.floor(nowMs / cellDayMs),
      };
      const models: ModelsReport['models'] = [];
      let left = releasesMax;
      let truncated = false;
      for (const model of await modelsOf(query)) {
        const scope = { ...days, model: model.name };
        const merged = new Map((await cells.merged(scope)).map((one) => [one.subject, one]));
        const reports: ReleaseReport[] = [];
        truncated ||= model.versions.length > left;
        for (const view of model.versions.slice(0, left))
          reports.push(await releaseReport(model, view, query, merged, scope));
        left -= reports.length;
        const { name, floor } = model;
        if (reports.length > 0)
          models.push({ name, floor, cells: merged.get(name) ?? null, releases: reports });
      }
      return { region: core.region, madeAtMs: nowMs, sinceMs: query.sinceMs, models, truncated };
    },
  };
}
