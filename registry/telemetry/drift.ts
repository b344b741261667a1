// Why: what a release's devices counted beside the release's reference profile, for the fleet, a device or groups by label.
// Trusts: rollups for the counts, the catalogue for the profile. Must never: say "ok" where there are too few counts.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import { type FeatureDrift, featureDrift, type SideCounts } from '../../shared/stats/feature-drift.ts';
import {
  createFeaturesSummer,
  type FeaturesSum,
  featureKey,
  type RequestsSum,
} from '../../shared/stats/rollup.ts';
import { sketchFromJson, sketchQuantile } from '../../shared/stats/sketch.ts';
import type { DriftGroup, DriftView } from '../../shared/wire/drift.ts';
import type { Labels } from '../../shared/wire/messages.ts';
import type { Releases } from '../catalog/releases.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { RegistryStore } from '../store/open.ts';
import type { Evidence } from './evidence.ts';
import type { ReferenceProfile } from './profiles.ts';
import { type DeviceFeatures, hourMs } from './rollups.ts';

export interface DriftQuery {
  /** `NS/NAME`. */
  model: string;
  /** `NS/NAME@VERSION`; the newest that has a profile where absent. */
  release?: string;
  fromMs: number;
  untilMs: number;
  device?: string;
  /** Name of a label: a group for each of its values beside the fleet. */
  by?: string;
}

export interface Drift {
  /** Refusals: `not-found` (no such model, release of it). */
  report(query: DriftQuery): Promise<Result<DriftView>>;
}

const noProfile = 'push a release with --profile FILE: drift is measured against its reference profile';
const noCounts =
  'no device counted anything in this time: look further back with --since, or check that the release is rolled out and asked';

function verdictOf(features: readonly FeatureDrift[]): DriftGroup['verdict'] {
  if (features.some(({ verdict }) => verdict === 'drift')) return 'drift';
  return features.some(({ verdict }) => verdict === 'ok') ? 'ok' : 'too-few';
}

/** Four digits: a share is looked at, not computed with. */
function shownSide(side: SideCounts): SideCounts {
  return { ...side, shares: side.shares.map((share) => Math.round(share * 10_000) / 10_000) };
}

function groupOf(
  head: Pick<DriftGroup, 'group' | 'kind' | 'devices'>,
  sum: FeaturesSum,
  { profile }: ReferenceProfile,
): DriftGroup {
  const features = profile.features.map((feature) => {
    const found = featureDrift(feature, sum.features.get(featureKey(feature)));
    return { ...found, reference: shownSide(found.reference), live: shownSide(found.live) };
  });
  return { ...head, seenRows: sum.seenRows, rows: sum.rows, verdict: verdictOf(features), features };
}

function sumOf(devices: readonly DeviceFeatures[]): FeaturesSum {
  const summer = createFeaturesSummer();
  for (const { sum } of devices) summer.add(sum);
  return summer.sum();
}

function requestsView({ requests, errors, latency }: RequestsSum): DriftView['requests'] {
  const sketch = latency === null ? null : sketchFromJson(latency);
  const quantile = (fraction: number): number =>
    Math.round((sketch === null ? 0 : (sketchQuantile(sketch, fraction) ?? 0)) * 1_000) / 1_000;
  return {
    requests,
    errors,
    latencyMs:
      sketch === null
        ? null
        : { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), max: sketch.max },
  };
}

export function createDrift(
  core: { store: RegistryStore; releases: Pick<Releases, 'show'> },
  evidence: Pick<Evidence, 'rollups' | 'profiles'>,
): Drift {
  const { store, releases } = core;
  const { rollups, profiles } = evidence;

  /** Undefined where the model or the release is unknown; the profile null where there is none. */
  async function choose({ model, release }: DriftQuery): Promise<Result<string | null>> {
    const shown = await releases.show(model);
    if (!shown.ok) return shown;
    const { versions } = shown.value;
    if (release !== undefined) {
      const named = versions.some(({ version }) => `${model}@${version}` === release);
      return named ? ok(release) : refuse('not-found', `${model} has no release ${release}`);
    }
    // The newest first.
    const found = versions.find(({ files }) => files.some(({ role }) => role === 'profile'));
    return ok(found === undefined ? null : `${model}@${found.version}`);
  }

  function labelsOf(): Promise<Map<string, Labels>> {
    return store.tx(
      (db) =>
        new Map(
          db
            .all(store.qb.selectFrom('devices').select(['device_id', 'labels']))
            .map((row) => [row.device_id, fromColumn<Labels>(row.labels)]),
        ),
    );
  }

  async function groupsBy(
    label: string,
    devices: readonly DeviceFeatures[],
  ): Promise<[string, DeviceFeatures[]][]> {
    const labels = await labelsOf();
    const groups = new Map<string, DeviceFeatures[]>();
    for (const one of devices) {
      const own = labels.get(one.device) ?? {};
      const value = Object.hasOwn(own, label) ? (own[label] ?? '') : '';
      const group = groups.get(value) ?? [];
      groups.set(value, group);
      group.push(one);
    }
    return [...groups].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  async function groupsOf(query: DriftQuery, devices: DeviceFeatures[], reference: ReferenceProfile) {
    const whole = sumOf(devices);
    const count = devices.length;
    if (query.device !== undefined)
      return [groupOf({ group: query.device, kind: 'device', devices: count }, whole, reference)];
    const groups = [groupOf({ group: 'fleet', kind: 'fleet', devices: count }, whole, reference)];
    if (query.by === undefined) return groups;
    for (const [value, some] of await groupsBy(query.by, devices)) {
      const head = { group: `${query.by}=${value}`, kind: 'label' as const, devices: some.length };
      groups.push(groupOf(head, sumOf(some), reference));
    }
    return groups;
  }

  return {
    async report(query) {
      const chosen = await choose(query);
      if (!chosen.ok) return chosen;
      const release = chosen.value;
      const fromMs = Math.floor(query.fromMs / hourMs) * hourMs;
      const { model, untilMs } = query;
      const device = query.device === undefined ? {} : { device: query.device };
      const none = { requests: 0, errors: {}, latencyMs: null };
      const head = { model, release, profileSha256: null, fromMs, untilMs, requests: none, groups: [] };
      if (release === null) return ok({ ...head, verdict: 'no-profile' as const, hint: noProfile });
      const scope = { release, fromMs, untilMs, ...device };
      const requests = requestsView(await rollups.requests(scope));
      const reference = await profiles.of(release);
      if (reference === null)
        return ok({ ...head, requests, verdict: 'no-profile' as const, hint: noProfile });
      const profileSha256 = reference.sha256;
      const devices = await rollups.features({ ...scope, profileSha256 });
      const about = { ...head, requests, profileSha256 };
      if (devices.length === 0) return ok({ ...about, verdict: 'no-counts' as const, hint: noCounts });
      const groups = await groupsOf(query, devices, reference);
      const verdict = verdictOf(groups.flatMap(({ features }) => features));
      const hint =
        verdict === 'too-few'
          ? 'a verdict needs a hundred values of a feature on each side: look further back with --since'
          : null;
      return ok({ ...about, verdict, hint, groups });
    },
  };
}
