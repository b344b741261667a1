// Why: the facts of a rollout read from, and a decision written to, the registry's tables; one transaction each.
// Trusts: the tables of 002-fleet.sql. Must never: decide anything.

import { createRecent } from '../../shared/kernel/recent.ts';
import type { Labels, Reason } from '../../shared/wire/messages.ts';
import type { RolloutSpec, Selector } from '../../shared/wire/rollout-file.ts';
import type { RolloutState, WaveState } from '../../shared/wire/rollouts.ts';
import { barredAmong } from '../catalog/barred.ts';
import { fromColumn, toColumn, toNullableColumn } from '../fleet/columns.ts';
import type {
  DesiredTable,
  RolloutDevicesTable,
  RolloutRow,
  RolloutWavesTable,
} from '../store/fleet-tables.ts';
import { fixed, type RegistryDb, type RegistryQueries } from '../store/open.ts';
import type { ReferenceProfile } from '../telemetry/profiles.ts';
import { moveCompanions, readCompanionFacts, readCompanions, releaseIn } from './companions.ts';
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
import type {
  DesiredRelease,
  DeviceFact,
  GateView,
  Member,
  RolloutDecision,
  RolloutFact,
  RolloutFacts,
  WaveFact,
} from './facts.ts';
import { readGroups } from './groups.ts';
import { partsNamed, readAhead, readBusy } from './others.ts';
import { matches } from './selector.ts';
import { namesOf } from './together.ts';
import { type EvidenceKept, readBesideEvidence, readWaveEvidence } from './wave-evidence.ts';
import { wavesOf } from './waves.ts';

const specs = createRecent<RolloutSpec>(256);

/** The same text is the same value: nothing changes a spec, and a rollout is looked at many times. */
export function specOf(text: string): RolloutSpec {
  const known = specs.get(text);
  if (known !== undefined) return known;
  const spec = fromColumn<RolloutSpec>(text);
  specs.set(text, spec);
  return spec;
}

function rolloutFact(row: RolloutRow & { requires: string | null }): RolloutFact {
  const spec = specOf(row.spec);
  return {
    id: row.rollout_id,
    number: row.number,
    name: row.name,
    as: row.as_name,
    release: releaseIn(row),
    spec,
    createdBy: row.created_by,
    priority: row.priority,
    waves: wavesOf(spec),
    state: row.state as RolloutState,
    reason: row.reason,
    endsAs: row.ends_as as RolloutFact['endsAs'],
    endedAtMs: row.ended_at_ms,
  };
}

const rolloutQuery = fixed((qb, rolloutId: string) =>
  qb
    .selectFrom('rollouts')
    .leftJoin('releases', 'releases.release_id', 'rollouts.release_id')
    .selectAll('rollouts')
    .select('releases.requires')
    .where('rollout_id', '=', rolloutId),
);

const wavesQuery = fixed((qb, rolloutId: string) =>
  qb.selectFrom('rollout_waves').selectAll().where('rollout_id', '=', rolloutId).orderBy('wave_index'),
);

const rolloutsQuery = fixed((qb, names: string) =>
  qb
    .selectFrom('rollouts')
    .select(['rollout_id as id', 'number', 'priority', 'ended_at_ms as endedAtMs'])
    .where('rollout_id', 'in', partsNamed(qb, names)),
);

export function readRollout(db: RegistryDb, qb: RegistryQueries, rolloutId: string): RolloutFact | undefined {
  const row = db.first(rolloutQuery(qb, rolloutId));
  if (row === undefined) return undefined;
  const companions = readCompanions(db, qb, rolloutId);
  const rollout = rolloutFact(row);
  return companions.length === 0 ? rollout : { ...rollout, companions };
}

export function readWaves(db: RegistryDb, qb: RegistryQueries, rolloutId: string): WaveFact[] {
  return db.all(wavesQuery(qb, rolloutId)).map((row: RolloutWavesTable) => ({
    index: row.wave_index,
    state: row.state as WaveState,
    reason: row.reason,
    gates: fromColumn<GateView[]>(row.gates),
    startedAtMs: row.started_at_ms,
    endedAtMs: row.ended_at_ms,
  }));
}

export function readApprovals(db: RegistryDb, qb: RegistryQueries, rolloutId: string) {
  return db.all(
    qb
      .selectFrom('rollout_approvals')
      .select([
        'wave_index as wave',
        'user as by',
        'comment',
        'at_ms as atMs',
        'expires_at_ms as expiresAtMs',
      ])
      .where('rollout_id', '=', rolloutId)
      .orderBy('at_ms')
      .orderBy('user'),
  );
}

export interface HistoryEntry {
  wave: number | null;
  what: string;
  by: string | null;
  reason: string | null;
  atMs: number;
}

export function writeHistory(
  db: RegistryDb,
  qb: RegistryQueries,
  rolloutId: string,
  entry: HistoryEntry,
): void {
  const { wave, what, by, reason, atMs } = entry;
  const values = { rollout_id: rolloutId, at_ms: atMs, wave_index: wave, what, user: by, reason };
  db.run(qb.insertInto('rollout_history').values(values));
}

export function readHistory(db: RegistryDb, qb: RegistryQueries, rolloutId: string): HistoryEntry[] {
  return db.all(
    qb
      .selectFrom('rollout_history')
      .select(['wave_index as wave', 'what', 'user as by', 'reason', 'at_ms as atMs'])
      .where('rollout_id', '=', rolloutId)
      .orderBy('history_id'),
  );
}

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

/** Values that came from one column are one object, so that almost always a look at each field is enough. */
function isSame(before: Member | null, member: Member): boolean {
  if (before === member) return true;
  if (before === null) return false;
  const { wave, state, step, epoch, stepAtMs, reason, previous } = before;
  return (
    wave === member.wave &&
    state === member.state &&
    step === member.step &&
    epoch === member.epoch &&
    stepAtMs === member.stepAtMs &&
    (reason === member.reason || !differs(reason, member.reason)) &&
    (previous === member.previous || !differs(previous, member.previous))
  );
}

const differs = (a: object | null, b: object | null): boolean => JSON.stringify(a) !== JSON.stringify(b);

/** Stores the rollout itself. */
export function writeRollout(db: RegistryDb, qb: RegistryQueries, rollout: RolloutFact): void {
  const { state, reason, endsAs, endedAtMs } = rollout;
  db.run(
    qb
      .updateTable('rollouts')
      .set({ state, reason, ends_as: endsAs, ended_at_ms: endedAtMs })
      .where('rollout_id', '=', rollout.id),
  );
}

/**
 * Stores what differs from the facts. `issue` signs a device's next assignment after its desired
 * release changed, in the same transaction, and returns its epoch.
 */
export function writeDecision(
  db: RegistryDb,
  qb: RegistryQueries,
  facts: RolloutFacts,
  decision: RolloutDecision,
  issue: (deviceId: string) => number,
): void {
  const { rollout } = decision;
  if (differs(facts.rollout, rollout)) writeRollout(db, qb, rollout);
  for (const [at, wave] of decision.waves.entries()) {
    const before = facts.waves[at] ?? null;
    if (!differs(before, wave)) continue;
    writeWave(db, qb, rollout.id, wave);
    const { index, state: what, reason } = wave;
    if (before?.state !== what)
      writeHistory(db, qb, rollout.id, { wave: index, what, by: null, reason, atMs: facts.nowMs });
  }
  const write = (deviceId: string, as: string, release: DesiredRelease | null): void =>
    writeDesired(db, qb, deviceId, as, release);
  /** What companions go back to, of devices that are assigned now. */
  const companionsOf = new Map<string, string>();
  for (const moved of decision.desired) {
    const before = moveCompanions(db, qb, rollout, moved, write);
    if (before !== null) companionsOf.set(moved[0], before);
    write(moved[0], rollout.as, moved[1]);
  }
  const before = new Map(facts.devices.map(({ id, member }) => [id, member]));
  for (const [deviceId, decided] of decision.members) {
    const member = decision.desired.has(deviceId) ? { ...decided, epoch: issue(deviceId) } : decided;
    const known = before.get(deviceId) ?? null;
    if (isSame(known, member)) continue;
    writeMember(db, qb, rollout.id, deviceId, member);
    const companions = companionsOf.get(deviceId);
    if (companions !== undefined) noteCompanions(db, qb, rollout.id, deviceId, companions);
    const begins = member.step === 'assigned' && known?.step !== 'assigned';
    if (begins && rollout.spec.gates.memoryRatio !== undefined)
      notePreviousProbe(db, qb, rollout, deviceId, member);
  }
}

function noteCompanions(
  db: RegistryDb,
  qb: RegistryQueries,
  rolloutId: string,
  deviceId: string,
  companions: string,
): void {
  db.run(
    qb
      .updateTable('rollout_devices')
      .set({ companions })
      .where('rollout_id', '=', rolloutId)
      .where('device_id', '=', deviceId),
  );
}

/** What the device measured of the release that it leaves: its next report tells of another. */
function notePreviousProbe(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  deviceId: string,
  { previous }: Member,
): void {
  const measured = db.first(
    qb
      .selectFrom('device_models')
      .select('probe')
      .where('device_id', '=', deviceId)
      .where('name', '=', rollout.as)
      .where('target', '=', previous?.releaseId ?? ''),
  );
  db.run(
    qb
      .updateTable('rollout_devices')
      .set({ previous_probe: measured?.probe ?? null })
      .where('rollout_id', '=', rollout.id)
      .where('device_id', '=', deviceId),
  );
}

export function writeWave(db: RegistryDb, qb: RegistryQueries, rolloutId: string, wave: WaveFact): void {
  const columns = {
    state: wave.state,
    reason: wave.reason,
    gates: toColumn(wave.gates),
    started_at_ms: wave.startedAtMs,
    ended_at_ms: wave.endedAtMs,
  };
  db.run(
    qb
      .insertInto('rollout_waves')
      .values({ rollout_id: rolloutId, wave_index: wave.index, ...columns })
      .onConflict((conflict) => conflict.columns(['rollout_id', 'wave_index']).doUpdateSet(columns)),
  );
}

function writeMember(
  db: RegistryDb,
  qb: RegistryQueries,
  rolloutId: string,
  deviceId: string,
  member: Member,
): void {
  const columns: Omit<RolloutDevicesTable, 'rollout_id' | 'device_id' | 'previous_probe' | 'companions'> = {
    wave_index: member.wave,
    state: member.state,
    reason: toNullableColumn(member.reason),
    step: member.step,
    epoch: member.epoch,
    step_at_ms: member.stepAtMs,
    previous: toNullableColumn(member.previous),
  };
  db.run(
    qb
      .insertInto('rollout_devices')
      .values({ rollout_id: rolloutId, device_id: deviceId, ...columns })
      .onConflict((conflict) => conflict.columns(['rollout_id', 'device_id']).doUpdateSet(columns)),
  );
}

function writeDesired(
  db: RegistryDb,
  qb: RegistryQueries,
  deviceId: string,
  as: string,
  release: DesiredRelease | null,
): void {
  if (release === null) {
    db.run(qb.deleteFrom('desired').where('device_id', '=', deviceId).where('as_name', '=', as));
    return;
  }
  const columns: Omit<DesiredTable, 'device_id' | 'as_name'> = {
    release_id: release.releaseId,
    manifest_sha256: release.manifestSha256,
    manifest_bytes: release.manifestBytes,
    counter: release.counter,
    rollout_id: release.rolloutId,
    policy: toColumn(release.policy),
    requires: release.requires,
  };
  db.run(
    qb
      .insertInto('desired')
      .values({ device_id: deviceId, as_name: as, ...columns })
      .onConflict((conflict) => conflict.columns(['device_id', 'as_name']).doUpdateSet(columns)),
  );
}
