// Why: what a step decided, written to the tables where it differs from the facts; one transaction.
// Trusts: the controller. Must never: decide anything.

import { toColumn, toNullableColumn } from '../fleet/columns.ts';
import type { DesiredTable, RolloutDevicesTable } from '../store/fleet-tables.ts';
import type { RegistryDb, RegistryQueries } from '../store/open.ts';
import { moveCompanions } from './companions.ts';
import type { DesiredRelease, Member, RolloutDecision, RolloutFact, RolloutFacts } from './facts.ts';

import { writeHistory, writeRollout, writeWave } from './records.ts';

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
