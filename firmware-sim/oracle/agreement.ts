// Why: when a fleet is at rest after everything healed: registry and devices say the same, nothing is under way that
// nobody waits for. Trusts: both sides' databases as committed. Must never: call a fleet at rest that only looks so.

import { outboxFileOf, readMoves } from '../../agent/trust/moves.ts';
import type { MachineState } from '../../agent/update/machine.ts';
import type { GateView } from '../../registry/rollout/facts.ts';
import type { SqlTx } from '../../shared/kernel/ports.ts';
import {
  type AssignedRelease,
  assignmentSchema,
  parseMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import type { DeviceNode } from '../fleet-world/device-node.ts';
import type { Publisher } from '../fleet-world/publisher.ts';
import type { RegistryNode } from '../fleet-world/registry-node.ts';
import { type DeviceOracle, stateFile } from './device-oracle.ts';
import { registryFile } from './registry-oracle.ts';

export interface Watched {
  device: DeviceNode;
  oracle: DeviceOracle;
}

interface DeviceRow {
  status: string;
  presence: string;
  reported: number;
  kept: string | null;
}

/** Why the fleet is not at rest, in words; null where it is. */
export function disagreement(
  registry: RegistryNode,
  watched: readonly Watched[],
  publisher: Publisher,
): string | null {
  if (registry.up() === null) return 'the registry is not up';
  for (const one of watched) {
    const why = ofDevice(registry, one, publisher);
    if (why !== null) return `${one.device.node}: ${why}`;
  }
  return registry.place.look(
    registryFile,
    (db) => openRollouts(db) ?? leftBehind(db) ?? notTakenBack(db) ?? wrongWaves(db),
  );
}

function ofDevice(registry: RegistryNode, { device, oracle }: Watched, publisher: Publisher): string | null {
  const life = device.up();
  const deviceId = oracle.deviceId();
  if (life === null) return 'it is not up';
  if (deviceId === null) return 'it is not enrolled';
  const seen = registry.place.look(registryFile, (db) => {
    const row = db.get<DeviceRow>(
      'SELECT status, presence, reported_epoch AS reported, kept FROM devices WHERE device_id = ?',
      deviceId,
    );
    const assignment = db.get<{ epoch: number; message: Uint8Array }>(
      'SELECT epoch, message FROM assignments WHERE device_id = ?',
      deviceId,
    );
    const models = db.all<{ name: string; state: string; active: string | null; target: string | null }>(
      'SELECT name, state, active_sha256 AS active, target FROM device_models WHERE device_id = ? ORDER BY name',
      deviceId,
    );
    return { row, assignment, models };
  });
  if (seen === null || seen.row === undefined) return 'the registry does not know it';
  const { row, assignment, models } = seen;
  if (row.status !== 'active') return null;
  if (row.presence !== 'online') return `the registry says it is ${row.presence}`;
  if (assignment === undefined) return 'it has no assignment';
  const held = device.place.look(stateFile, (db) =>
    db.get<{ epoch: number }>('SELECT epoch FROM trust_assignment WHERE id = 1'),
  );
  if (held?.epoch !== assignment.epoch) return `it holds epoch ${held?.epoch} of ${assignment.epoch}`;
  if (row.reported !== assignment.epoch) return `it reported epoch ${row.reported} of ${assignment.epoch}`;
  return (
    ofModels(oracle.machines(), assignment.message, keptOf(row)) ??
    ofReport(oracle.machines(), models) ??
    ofRuntime(oracle.machines(), life.core.runtime.serving) ??
    ofDisk(device, oracle.machines(), publisher) ??
    ofOutbox(device)
  );
}

/** What it brought from another region, and its present one cannot assign. */
const keptOf = ({ kept }: DeviceRow): ReadonlySet<string> =>
  new Set(kept === null ? [] : (JSON.parse(kept) as string[]));

function ofModels(
  machines: ReadonlyMap<string, MachineState>,
  message: Uint8Array,
  kept: ReadonlySet<string>,
): string | null {
  const signed = parseMessage(signedMessageSchema, message);
  if (!signed.ok) return 'its assignment does not parse';
  const assignment = parseMessage(assignmentSchema, Buffer.from(signed.value.envelope.payload, 'base64'));
  if (!assignment.ok) return 'its assignment does not parse';
  const wanted = new Map(assignment.value.releases.map((release) => [release.as, release]));
  for (const [as, release] of wanted) {
    const state = machines.get(as);
    if (state === undefined) return `${as} is assigned and unknown to it`;
    if (state.target?.manifestSha256 !== release.manifestSha256) return `${as} has another target`;
    if (state.phase !== 'committed' && state.phase !== 'idle') return `${as} is ${state.phase}`;
    if (state.phase === 'idle' && state.reason === null) return `${as} is idle and says no reason`;
    if (state.active?.manifestSha256 !== state.lastGood?.manifestSha256)
      return `${as} rests on what is not committed`;
  }
  for (const as of machines.keys())
    if (!wanted.has(as) && !kept.has(as)) return `${as} is not assigned and still there`;
  return ofTogether(machines, wanted);
}

/** What a rollout of several releases brought is there whole, or not at all. */
function ofTogether(
  machines: ReadonlyMap<string, MachineState>,
  wanted: ReadonlyMap<string, AssignedRelease>,
): string | null {
  for (const [as, release] of wanted) {
    const state = machines.get(as);
    const switched =
      state?.active?.manifestSha256 === release.manifestSha256 && state.committedFor === release.rolloutId;
    for (const name of switched ? (release.policy.together ?? []) : []) {
      const [other, partner] = [wanted.get(name), machines.get(name)];
      if (other === undefined || other.rolloutId !== release.rolloutId) continue;
      // One that keeps dying goes back; the others cannot where what they ran before may not be installed any more.
      if (partner?.rejected?.reason.code === 'model-crash-loop') continue;
      if (partner?.active?.manifestSha256 !== other.manifestSha256)
        return `${as} switched and ${name}, which goes with it, did not`;
    }
  }
  return null;
}

function ofReport(
  machines: ReadonlyMap<string, MachineState>,
  models: readonly { name: string; state: string; active: string | null; target: string | null }[],
): string | null {
  const reported = models.map(({ name, state, active, target }) => `${name} ${state} ${active} ${target}`);
  const own = [...machines.values()].map(
    ({ as, phase, active, target }) =>
      `${as} ${phase} ${active?.manifestSha256 ?? null} ${target?.releaseId ?? null}`,
  );
  own.sort();
  return reported.join() === own.join()
    ? null
    : `the registry knows [${reported.join()}], it is [${own.join()}]`;
}

function ofRuntime(
  machines: ReadonlyMap<string, MachineState>,
  serving: ReadonlyMap<string, string>,
): string | null {
  for (const { as, active } of machines.values()) {
    if ((serving.get(as) ?? null) !== (active?.manifestSha256 ?? null))
      return `${as} does not serve its active release`;
  }
  for (const as of serving.keys()) if (!machines.has(as)) return `${as} is served and in no journal`;
  return null;
}

function ofDisk(
  device: DeviceNode,
  machines: ReadonlyMap<string, MachineState>,
  publisher: Publisher,
): string | null {
  const needed = new Set<string>();
  const tolerated = new Set<string>();
  for (const { active, lastGood, previous } of machines.values()) {
    for (const ref of [active, lastGood]) {
      for (const digest of ref === null ? [] : (publisher.ofManifest(ref.manifestSha256)?.digests ?? []))
        needed.add(digest);
    }
    for (const digest of previous === null
      ? []
      : (publisher.ofManifest(previous.manifestSha256)?.digests ?? []))
      tolerated.add(digest);
  }
  const files = device.place.files.paths().filter((path) => path.startsWith('blobs/'));
  const digests = new Set(files.map((path) => path.slice('blobs/'.length)));
  for (const digest of needed) if (!digests.has(digest)) return `blob ${digest.slice(0, 8)} is missing`;
  for (const digest of digests) {
    // What was begun of a file that somebody needs is gone on with.
    const [whole = ''] = digest.split('.');
    if (!needed.has(whole) && !tolerated.has(whole)) return `blob ${digest.slice(0, 20)} is needed by nobody`;
    if (whole !== digest && digests.has(whole)) return `${digest} is left over`;
  }
  return null;
}

/** Everything is told and signed for: what the device itself holds, whatever it last reported. */
function ofOutbox(device: DeviceNode): string | null {
  const moves = device.place.look(stateFile, readMoves);
  const held = device.place.look(outboxFileOf(moves?.outbox ?? 0), (db) =>
    db.get<{ batches: number; records: number }>(
      'SELECT count(*) AS batches, total(record_count) AS records FROM batches',
    ),
  );
  if (held === null || held === undefined) return 'its outbox is not open';
  return held.batches === 0 ? null : `its outbox holds ${held.records} records in ${held.batches} batches`;
}

/**
 * It waits for a device that is away, or for a rollout before it that a gate has paused or that says itself what it
 * waits for. Rollouts stand in one order, so that the words lead to an end.
 */
function saysWhy(db: SqlTx, reason: string): boolean {
  if (reason.startsWith('waiting for')) return true;
  const ahead = /(\w+) \((?:paused|running)\) to end$/.exec(reason)?.[1];
  const found = db.get<{ state: string; reason: string | null }>(
    'SELECT state, reason FROM rollouts WHERE rollout_id = ?',
    ahead ?? '',
  );
  if (found?.state === 'paused') return true;
  return found?.state === 'running' && found.reason !== null && saysWhy(db, found.reason);
}

/** What was taken back from a device is not what it is to run, under none of the rollout's names. */
function leftBehind(db: SqlTx): string | null {
  const left = db.get<{ device: string; as: string; rollout: string }>(
    `SELECT w.device_id AS device, w.as_name AS "as", w.rollout_id AS rollout FROM desired w
     JOIN rollout_devices m ON m.rollout_id = w.rollout_id AND m.device_id = w.device_id WHERE m.step = 'reverted'`,
  );
  if (left === undefined) return null;
  return `${left.as} of ${left.device.slice(0, 8)} was taken back by ${left.rollout} and is still assigned`;
}

/** Of a rollout that went back nothing is left assigned. */
function notTakenBack(db: SqlTx): string | null {
  const left = db.get<{ device: string; rollout: string }>(
    `SELECT m.device_id AS device, m.rollout_id AS rollout FROM rollout_devices m
     JOIN rollouts r ON r.rollout_id = m.rollout_id JOIN devices d ON d.device_id = m.device_id
     WHERE m.step = 'assigned' AND d.status = 'active' AND r.state IN ('failed', 'aborted')
       AND EXISTS (SELECT 1 FROM rollout_history h
         WHERE h.rollout_id = r.rollout_id AND h.wave_index IS NULL AND h.what = 'rolling-back')`,
  );
  if (left === undefined) return null;
  return `${left.rollout} went back and ${left.device.slice(0, 8)} still has what it assigned`;
}

/** A wave passes with every gate, and its gates count each of its devices once. */
function wrongWaves(db: SqlTx): string | null {
  const waves = db.all<{ rollout: string; index: number; state: string; gates: string; members: number }>(
    `SELECT w.rollout_id AS rollout, w.wave_index AS "index", w.state, w.gates,
       (SELECT count(*) FROM rollout_devices m
        WHERE m.rollout_id = w.rollout_id AND m.wave_index = w.wave_index) AS members
     FROM rollout_waves w`,
  );
  for (const { rollout, index, state, gates, members } of waves) {
    for (const { gate, devices, verdict } of JSON.parse(gates) as GateView[]) {
      const where = `gate ${gate} of wave ${index} of ${rollout}`;
      if (devices > members) return `${where} counts ${devices} of ${members} devices`;
      if (state === 'passed' && verdict !== 'pass')
        return `${where} says ${verdict}, and the wave has passed`;
    }
  }
  return null;
}

/** Every rollout ends or says what it waits for. */
function openRollouts(db: SqlTx): string | null {
  const rows = db.all<{ id: string; state: string; reason: string | null }>(
    `SELECT rollout_id AS id, state, reason FROM rollouts WHERE state IN ('running', 'rolling-back')`,
  );
  const [open] = rows.filter(
    ({ state, reason }) => state === 'rolling-back' || reason === null || !saysWhy(db, reason),
  );
  return open === undefined ? null : `rollout ${open.id} is ${open.state}: ${open.reason}`;
}
