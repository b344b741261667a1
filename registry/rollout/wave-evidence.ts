// Why: what the devices of a wave counted about the release since it began, added up for its gates.
// Trusts: the rollups, which ingest fills in the transaction of each batch. Must never: count another release or wave.

import { featureDrift } from '../../shared/stats/feature-drift.ts';
import { createFeaturesSummer, featureKey, featuresFromText } from '../../shared/stats/rollup.ts';
import { fromNullableColumn } from '../fleet/columns.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import type { ReferenceProfile } from '../telemetry/profiles.ts';
import { readActiveEvidence } from './active-evidence.ts';
import { comparesWithActive, type RequestSums, type WaveEvidence } from './evidence-gates.ts';
import type { BesideEvidence, RolloutFact, WaveFact } from './facts.ts';
import { sumRequests } from './request-sums.ts';

const hourMs = 3_600_000;

/** Sums of the last look by rollout and wave, with what they were made of. */
export type EvidenceKept = Map<string, { stamp: string; sums: RequestSums }>;

/**
 * The same of each companion, in their order, by gates of its own. What a device's probe of the release before took of
 * its memory is noted for the first release alone.
 */
export function readBesideEvidence(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  wave: WaveFact,
  references: readonly (ReferenceProfile | null)[],
  kept: EvidenceKept,
): BesideEvidence[] {
  const { memoryRatio, ...gates } = rollout.spec.gates;
  const spec = { ...rollout.spec, gates };
  return (rollout.companions ?? []).map(({ as, release }, at) => {
    const beside = { ...rollout, as, release, spec };
    return { as, spec, evidence: readWaveEvidence(db, qb, beside, wave, references[at] ?? null, kept) };
  });
}

/** Rows of hours by the devices' own clocks: the hour in which the wave began counts whole. */
export function readWaveEvidence(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  wave: WaveFact,
  reference: ReferenceProfile | null,
  kept: EvidenceKept,
): WaveEvidence {
  const { releaseId } = rollout.release;
  const members = qb
    .selectFrom('rollout_devices')
    .select('device_id')
    .where('rollout_id', '=', rollout.id)
    .where('wave_index', '=', wave.index)
    .where('step', '=', 'assigned');
  const sinceHour = Math.floor((wave.startedAtMs ?? 0) / hourMs);
  const rows = qb
    .selectFrom('rollup_requests')
    .where('release', '=', releaseId)
    .where('hour', '>=', sinceHour)
    .where('device_id', 'in', members);
  /** Rollups only grow, each window that says anything by its requests: the same sums have the same stamp. */
  const stamp = JSON.stringify(
    db.first(rows.select((of) => [of.fn.countAll().as('rows'), of.fn.sum('requests').as('requests')])),
  );
  const key = `${rollout.id} ${rollout.as} ${wave.index} ${sinceHour}`;
  const before = kept.get(key);
  const sums =
    before?.stamp === stamp
      ? before.sums
      : sumRequests(db.all(rows.select(['device_id as device', 'requests', 'errors', 'latency'])));
  kept.set(key, { stamp, sums });
  const { memoryMiB, memoryRatio } = rollout.spec.gates;
  const probes =
    memoryMiB === undefined && memoryRatio === undefined
      ? []
      : db.all(
          qb
            .selectFrom('device_models as d')
            .innerJoin('rollout_devices as m', (join) =>
              join.onRef('m.device_id', '=', 'd.device_id').onRef('m.rollout_id', '=', 'd.rollout_id'),
            )
            .select(['d.probe', 'm.previous_probe as before'])
            .where('d.name', '=', rollout.as)
            .where('d.target', '=', releaseId)
            .where('d.rollout_id', '=', rollout.id)
            .where('d.device_id', 'in', members),
        );
  const peakOf = (probe: string | null): number | null =>
    fromNullableColumn<{ memoryBytesPeak: number }>(probe)?.memoryBytesPeak ?? null;
  const peaks = probes.map(({ probe, before }) => ({ now: peakOf(probe), before: peakOf(before) }));
  return {
    ...sums,
    active: comparesWithActive(rollout.spec) ? readActiveEvidence(db, qb, rollout, wave) : null,
    memoryBytes: peaks.flatMap(({ now }) => (now === null ? [] : [now])),
    memoryRatios: peaks.flatMap((peak) =>
      peak.now !== null && peak.before !== null && peak.before > 0 ? [peak.now / peak.before] : [],
    ),
    drift: reference === null ? null : driftOf(reference),
  };

  function driftOf({ sha256, profile }: ReferenceProfile): WaveEvidence['drift'] {
    const rows = db.all(
      qb
        .selectFrom('rollup_features')
        .select([
          'device_id as device',
          'windows',
          'window_ms as windowMs',
          'rows',
          'seen_rows as seenRows',
          'features',
        ])
        .where('release', '=', releaseId)
        .where('profile_sha256', '=', sha256)
        .where('hour', '>=', sinceHour)
        .where('device_id', 'in', members),
    );
    const summer = createFeaturesSummer();
    for (const row of rows) summer.add({ ...row, features: featuresFromText(row.features) });
    const sum = summer.sum();
    return {
      devices: new Set(rows.map(({ device }) => device)).size,
      rows: sum.rows,
      features: profile.features.map((feature) => {
        const { distances, live } = featureDrift(feature, sum.features.get(featureKey(feature)));
        const { role, tensor, index, of = 'value' } = feature;
        return {
          name: `${role} ${tensor}[${index}]${of === 'value' ? '' : ` ${of}`}`,
          count: live.count,
          psi: distances?.psi ?? null,
        };
      }),
    };
  }
}
