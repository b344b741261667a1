// Why: everything that the next step of a rollout depends on, read in one transaction.
// Trusts: the tables. Must never: decide anything.

import type { Labels, Reason } from '../../shared/wire/messages.ts';
import type { Selector } from '../../shared/wire/rollout-file.ts';
import { barredAmong } from '../catalog/barred.ts';
import { fromColumn } from '../fleet/columns.ts';
import { fixed, type RegistryDb, type RegistryQueries } from '../store/open.ts';
import type { ReferenceProfile } from '../telemetry/profiles.ts';
import { readCompanionFacts } from './companions.ts';
import {
  Columns,
  deviceFact,
  deviceRows,
  type Others,
  openOfAll,
  openOfMembers,
  selectable,
} from './device-rows.ts';
import { asksForEvidence } from './evidence-gates.ts';
import type { DeviceFact, RolloutFact, RolloutFacts, WaveFact } from './facts.ts';
import { readGroups } from './groups.ts';
import { partsNamed, readAhead, readBusy } from './others.ts';
import { readApprovals, readRollout, readWaves } from './records.ts';
import { matches } from './selector.ts';
import { namesOf } from './together.ts';
import { type EvidenceKept, readBesideEvidence, readWaveEvidence } from './wave-evidence.ts';

const rolloutsQuery = fixed((qb, names: string) =>
  qb
    .selectFrom('rollouts')
    .select(['rollout_id as id', 'number', 'priority', 'ended_at_ms as endedAtMs'])
    .where('rollout_id', 'in', partsNamed(qb, names)),
);

/** How many active devices the selector matches now. */
export function countMatching(
  db: RegistryDb,
  qb: RegistryQueries,
  { selector, region }: { selector: Selector; region: string },
): number {
  const groups = readGroups(db, qb, selector.groups);
  const rows = db.all(
    qb.selectFrom('devices').select(['device_id as id', 'labels', 'agent']).where('status', '=', 'active'),
  );
  return rows.filter((row) => matches(selector, selectable(row, region), groups)).length;
}

function readRollouts(db: RegistryDb, qb: RegistryQueries, names: readonly string[]): Others['rollouts'] {
  const rows = db.all(rolloutsQuery(qb, JSON.stringify(names)));
  return new Map(rows.map(({ id, ...row }) => [id, row]));
}

function readSites(db: RegistryDb, qb: RegistryQueries, { spec }: RolloutFact): Map<string, string> {
  const { disruption } = spec;
  if (disruption === undefined) return new Map();
  const rows = db.all(qb.selectFrom('devices').select(['device_id as id', 'labels']));
  return new Map(rows.map(({ id, labels }) => [id, siteOf(fromColumn(labels), disruption.label)]));
}

function siteOf(labels: Labels, label: string): string {
  return Object.hasOwn(labels, label) ? (labels[label] ?? '') : '';
}

/** Everything the next step depends on. */
export function readFacts(
  db: RegistryDb,
  qb: RegistryQueries,
  rolloutId: string,
  options: FactOptions,
): RolloutFacts | undefined {
  const rollout = readRollout(db, qb, rolloutId);
  return rollout === undefined ? undefined : factsOf(db, qb, rollout, readWaves(db, qb, rolloutId), options);
}

export interface FactOptions {
  /** Of this registry. */
  region: string;
  /** Also the devices that match and have no wave yet. */
  newcomers: boolean;
  nowMs: number;
  changesMax: number;
  /** Of the release, null where it has none. */
  reference: ReferenceProfile | null;
  /** Of its companions, in their order. */
  references?: readonly (ReferenceProfile | null)[];
  /** Sums of evidence from one look to the next; absent: all are made anew. */
  kept?: EvidenceKept;
}

/** Also of a rollout that is not stored. */
export function factsOf(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  waves: WaveFact[],
  options: FactOptions,
): RolloutFacts {
  const kept: EvidenceKept = options.kept ?? new Map();
  const columns = new Columns();
  const rows = deviceRows(db, qb, rollout, options.newcomers);
  const openOnes = (options.newcomers ? openOfAll : openOfMembers)(qb, rollout.id, rollout.as);
  const open = new Map(db.all(openOnes).map((row) => [row.id, row]));
  const groups = readGroups(db, qb, rollout.spec.selector.groups);
  const selected = rows.filter((row) => {
    if (row.wave !== null) return true;
    const labels = open.get(row.id)?.labels;
    return (
      labels !== undefined &&
      matches(rollout.spec.selector, selectable({ ...row, labels }, options.region), groups)
    );
  });
  const others = {
    id: rollout.id,
    ahead: readAhead(db, qb, rollout),
    busy: readBusy(db, qb, rollout),
    sites: readSites(db, qb, rollout),
    rollouts: readRollouts(db, qb, namesOf(rollout)),
    companions: readCompanionFacts(db, qb, rollout),
  };
  const devices = selected.map((row) => deviceFact(row, open.get(row.id), others, columns));
  const measured = asksForEvidence(rollout.spec)
    ? waves.filter(({ state }) => state === 'running' || state === 'soaking')
    : [];
  return {
    rollout,
    waves,
    devices,
    evidence: Object.fromEntries(
      measured.map((wave) => [wave.index, readWaveEvidence(db, qb, rollout, wave, options.reference, kept)]),
    ),
    ...(rollout.companions === undefined
      ? {}
      : {
          beside: Object.fromEntries(
            measured.map((wave) => [
              wave.index,
              readBesideEvidence(db, qb, rollout, wave, options.references ?? [], kept),
            ]),
          ),
        }),
    approvals: rollout.spec.approvals === undefined ? [] : readApprovals(db, qb, rollout.id),
    barred: barredFor(db, qb, rollout, devices),
    nowMs: options.nowMs,
    changesMax: options.changesMax,
  };
}

/** Of the rollout's release and of everything that a device may go back to. */
function barredFor(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  devices: readonly DeviceFact[],
): Record<string, Reason> {
  const own = [rollout, ...(rollout.companions ?? [])].map(({ release }) => release.releaseId);
  const releaseIds = new Set(own);
  for (const { member, proven } of devices) {
    if (member?.previous) releaseIds.add(member.previous.releaseId);
    if (proven !== null) releaseIds.add(proven.releaseId);
  }
  return Object.fromEntries(barredAmong(db, qb, [...releaseIds]));
}
