// Why: what a registry may say, judged at the moment it says it: nothing before it is durable, no wave before its turn.
// Trusts: the registry's database as committed. Must never: judge by what the registry says of itself.

import { cumulativeDevices } from '../../registry/rollout/waves.ts';
import type { RegistryBus, SqlTx } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import {
  type Assignment,
  assignmentSchema,
  parseMessage,
  signedMessageSchema,
} from '../../shared/wire/messages.ts';
import type { RolloutSpec } from '../../shared/wire/rollout-file.ts';
import { batchAnswerSchema } from '../../shared/wire/telemetry.ts';
import { parseTopic } from '../../shared/wire/topics.ts';
import type { Reached } from '../fleet-world/node-log.ts';
import type { SimPlace } from '../machine/place.ts';
import type { World } from '../world.ts';
import type { Truth } from './truth.ts';

export const registryFile = 'registry.sqlite';

/** Between a decision and the message that carries it, where nothing went wrong. */
const freshMs = 2_000;

/** An order to another region goes beside it, and is kept elsewhere. */
function sameAssignment(a: Uint8Array, b: Uint8Array): boolean {
  if (Buffer.compare(a, b) === 0) return true;
  const [one, other] = [parseMessage(signedMessageSchema, a), parseMessage(signedMessageSchema, b)];
  return one.ok && other.ok && JSON.stringify(one.value.envelope) === JSON.stringify(other.value.envelope);
}

export interface RegistryOracle {
  /** The bus of one registry, with everything judged that it publishes. */
  watched(bus: RegistryBus): RegistryBus;
  /** It has taken a report of this device. */
  reported(deviceId: string): void;
}

export function createRegistryOracle(parts: {
  world: World;
  node: string;
  place: SimPlace;
  truth: Truth;
  reached: Reached;
}): RegistryOracle {
  const { world, node, place, truth, reached } = parts;
  const judged = new Set<string>();
  const look = <T>(work: (db: SqlTx) => T): T | null => place.look(registryFile, work);

  function onDesired(deviceId: string, message: Uint8Array): void {
    if (message.length === 0) return;
    const stored = look((db) =>
      db.get<{ message: Uint8Array }>('SELECT message FROM assignments WHERE device_id = ?', deviceId),
    );
    if (stored === null) return;
    // A later one may have been stored since; what is published must have been durable, and this one is not now.
    const parsed = parseMessage(signedMessageSchema, message);
    if (!parsed.ok) {
      world.violate(`${node} published what is no signed message`);
      return;
    }
    const payload = Buffer.from(parsed.value.envelope.payload, 'base64');
    const assignment = parseMessage(assignmentSchema, payload);
    if (!assignment.ok) {
      world.violate(`${node} published what is no assignment`);
      return;
    }
    const { epoch, releases, expiresAtMs } = assignment.value;
    const durable = stored === undefined ? null : epochOf(stored.message);
    if (
      stored === undefined ||
      (durable === epoch && !sameAssignment(stored.message, message)) ||
      (durable ?? 0) < epoch
    ) {
      world.violate(`${node} published epoch ${epoch} of ${deviceId.slice(0, 8)} before it was durable`);
      return;
    }
    truth.issued(deviceId, epoch, payload, releases, expiresAtMs);
    for (const { as, releaseId } of releases)
      if (parseReleaseId(releaseId)?.name !== as)
        world.violate(`${node}: ${releaseId} is assigned to ${deviceId.slice(0, 8)} as ${as}`);
    if (durable === epoch) for (const release of releases) checkWave(deviceId, release);
  }

  function epochOf(message: Uint8Array): number {
    const parsed = parseMessage(signedMessageSchema, message);
    if (!parsed.ok) return 0;
    const assignment = parseMessage(assignmentSchema, Buffer.from(parsed.value.envelope.payload, 'base64'));
    return assignment.ok ? assignment.value.epoch : 0;
  }

  /** Who gets a release by a rollout is in a wave whose predecessors have passed, and no wave holds too many. */
  function checkWave(deviceId: string, release: Assignment['releases'][number]): void {
    const { rolloutId } = release;
    if (rolloutId === null) return;
    look((db) => {
      const rollout = db.get<{ state: string; spec: string }>(
        'SELECT state, spec FROM rollouts WHERE rollout_id = ?',
        rolloutId,
      );
      const member = db.get<{ wave: number; step: string }>(
        'SELECT wave_index AS wave, step FROM rollout_devices WHERE rollout_id = ? AND device_id = ?',
        rolloutId,
        deviceId,
      );
      if (rollout === undefined || member === undefined) return;
      if (member.step !== 'assigned') return;
      const spec = JSON.parse(rollout.spec) as RolloutSpec;
      if (['running', 'succeeded', 'paused'].includes(rollout.state))
        checkTurn(db, deviceId, rolloutId, spec);
      if (!['running', 'succeeded'].includes(rollout.state)) return;
      const waves = db.all<{ index: number; state: string }>(
        'SELECT wave_index AS "index", state FROM rollout_waves WHERE rollout_id = ? ORDER BY wave_index',
        rolloutId,
      );
      for (const wave of waves) {
        reached.count('wave', wave.state);
        if (wave.index < member.wave && wave.state !== 'passed') {
          world.violate(
            `${node}: ${deviceId.slice(0, 8)} of wave ${member.wave} was assigned while wave ${wave.index} is ${wave.state}`,
          );
        }
      }
      const members = db.all<{ wave: number }>(
        `SELECT wave_index AS wave FROM rollout_devices WHERE rollout_id = ? AND state != 'incompatible'`,
        rolloutId,
      );
      for (const [index, wave] of (spec.waves ?? []).entries()) {
        const inside = members.filter((one) => one.wave <= index).length;
        const room = cumulativeDevices(wave, members.length);
        if (inside > room) {
          world.violate(
            `${node}: waves up to ${index} hold ${inside} of ${members.length} devices, ${room} are allowed`,
          );
        }
      }
    });
  }

  /** Who is given a release is in turn: allowed, not while it is paused, behind nobody, within its site's bound. */
  function checkTurn(db: SqlTx, deviceId: string, rolloutId: string, spec: RolloutSpec): void {
    const short = deviceId.slice(0, 8);
    const own = db.get<{ number: number; priority: number; sinceMs: number; wave: number }>(
      `SELECT r.number, r.priority, m.step_at_ms AS sinceMs, m.wave_index AS wave
       FROM rollouts r JOIN rollout_devices m ON m.rollout_id = r.rollout_id
       WHERE r.rollout_id = ? AND m.device_id = ?`,
      rolloutId,
      deviceId,
    );
    // What is published again later was judged when it was new.
    if (own === undefined || judged.has(`${rolloutId} ${deviceId} ${own.sinceMs}`)) return;
    judged.add(`${rolloutId} ${deviceId} ${own.sinceMs}`);
    checkApproved(db, rolloutId, spec, own.wave);
    checkWavesDone(db, rolloutId, own);
    const paused = db.get<{ at: number; what: string }>(
      `SELECT at_ms AS at, what FROM rollout_history
       WHERE rollout_id = ? AND wave_index IS NULL AND at_ms < ? ORDER BY history_id DESC LIMIT 1`,
      rolloutId,
      own.sinceMs,
    );
    if (paused?.what === 'paused')
      world.violate(`${node}: ${short} was assigned while its rollout was paused`);
    const ahead = db.get<{ id: string }>(
      `SELECT r.rollout_id AS id FROM rollouts r JOIN rollout_devices m ON m.rollout_id = r.rollout_id
       WHERE m.device_id = ? AND m.step != 'left' AND r.ended_at_ms IS NULL AND r.created_at_ms < ?
         AND r.rollout_id IN (SELECT rollout_id FROM rollout_parts WHERE as_name IN
           (SELECT as_name FROM rollout_parts WHERE rollout_id = ?))
         AND r.rollout_id != ? AND (r.priority > ? OR (? AND r.priority = ? AND r.number < ?))`,
      deviceId,
      own.sinceMs,
      rolloutId,
      rolloutId,
      own.priority,
      spec.whenBusy === 'queue' ? 1 : 0,
      own.priority,
      own.number,
    );
    if (ahead !== undefined)
      world.violate(`${node}: ${short} was assigned by ${rolloutId} before ${ahead.id}, which goes first`);
    // Of several releases one may have been taken from it by a third: what is assigned then says nothing of that one.
    const later = db.get<{ id: string }>(
      `SELECT r.rollout_id AS id FROM rollouts r JOIN rollout_devices m ON m.rollout_id = r.rollout_id
       WHERE m.device_id = ? AND m.step = 'assigned' AND m.step_at_ms < ? AND r.number > ?
         AND r.rollout_id IN (SELECT rollout_id FROM rollout_parts WHERE as_name IN
           (SELECT as_name FROM rollout_parts WHERE rollout_id = ?))
         AND r.rollout_id NOT IN (SELECT rollout_id FROM rollout_companions)
         AND (r.priority >= ? OR r.ended_at_ms < ?)`,
      deviceId,
      own.sinceMs,
      own.number,
      rolloutId,
      own.priority,
      own.sinceMs,
    );
    if (later !== undefined)
      world.violate(`${node}: ${short} was taken by ${rolloutId} from ${later.id}, which came later`);
    if (spec.disruption !== undefined) checkSite(db, deviceId, rolloutId, spec.disruption);
  }

  /** A wave that passed in the step that assigned the next one: all of its devices were done by then. */
  function checkWavesDone(db: SqlTx, rolloutId: string, own: { wave: number; sinceMs: number }): void {
    if (Math.abs(world.originMs + world.nowMs() - own.sinceMs) > freshMs) return;
    const open = db.get<{ id: string; wave: number; state: string }>(
      `SELECT m.device_id AS id, m.wave_index AS wave, m.state FROM rollout_devices m
       JOIN rollout_waves w ON w.rollout_id = m.rollout_id AND w.wave_index = m.wave_index
       WHERE m.rollout_id = ? AND m.wave_index < ? AND w.state = 'passed' AND w.ended_at_ms = ?
         AND (m.step = 'waiting' OR (m.step = 'assigned' AND m.state != 'committed' AND m.reason IS NULL))`,
      rolloutId,
      own.wave,
      own.sinceMs,
    );
    if (open !== undefined)
      world.violate(
        `${node}: wave ${open.wave} of ${rolloutId} passed while ${open.id.slice(0, 8)} was ${open.state}`,
      );
  }

  function checkApproved(db: SqlTx, rolloutId: string, spec: RolloutSpec, wave: number): void {
    if (spec.approvals === undefined) return;
    for (const needed of spec.approvals.waves ?? [0]) {
      if (needed > wave) continue;
      const row = db.get<{ people: number }>(
        `SELECT count(DISTINCT a.user) AS people FROM rollout_approvals a
         JOIN rollout_waves w ON w.rollout_id = a.rollout_id AND w.wave_index = a.wave_index
         JOIN rollouts r ON r.rollout_id = a.rollout_id
         WHERE a.rollout_id = ? AND a.wave_index = ? AND a.user != r.created_by AND a.expires_at_ms > w.started_at_ms`,
        rolloutId,
        needed,
      );
      if ((row?.people ?? 0) < spec.approvals.required)
        world.violate(
          `${node}: wave ${needed} of ${rolloutId} began before ${spec.approvals.required} people allowed it`,
        );
    }
  }

  function checkSite(
    db: SqlTx,
    deviceId: string,
    rolloutId: string,
    { label, maxUnavailable, maxSites }: NonNullable<RolloutSpec['disruption']>,
  ): void {
    const members = db.all<{ id: string; labels: string }>(
      `SELECT m.device_id AS id, d.labels FROM rollout_devices m JOIN devices d ON d.device_id = m.device_id
       WHERE m.rollout_id = ? AND m.step = 'assigned' AND d.status = 'active'
         AND m.state NOT IN ('committed', 'idle', 'incompatible', 'unreachable') AND m.reason IS NULL`,
      rolloutId,
    );
    const siteOf = (labels: string): string => (JSON.parse(labels) as Record<string, string>)[label] ?? '';
    const own = members.find(({ id }) => id === deviceId);
    if (own === undefined) return;
    const busy = new Map<string, number>();
    for (const { labels } of members) busy.set(siteOf(labels), (busy.get(siteOf(labels)) ?? 0) + 1);
    const here = busy.get(siteOf(own.labels)) ?? 0;
    // Who was moved to another site meanwhile was not assigned there.
    if (truth.isRelabelled()) return;
    if (here > maxUnavailable)
      world.violate(`${node}: ${here} devices of one site are under way, ${maxUnavailable} are allowed`);
    if (maxSites !== undefined && busy.size > maxSites)
      world.violate(`${node}: devices of ${busy.size} sites are under way, ${maxSites} are allowed`);
  }

  function onAnswer(deviceId: string, message: Uint8Array): void {
    const parsed = parseMessage(signedMessageSchema, message);
    if (!parsed.ok) {
      world.violate(`${node} answered with what is no signed message`);
      return;
    }
    const answer = parseMessage(batchAnswerSchema, Buffer.from(parsed.value.envelope.payload, 'base64'));
    if (!answer.ok || answer.value.result.status !== 'stored') return;
    const { epoch, sequence, result } = answer.value;
    const kept = look((db) =>
      db.get<{ records: number }>(
        'SELECT records FROM telemetry_batches WHERE device_id = ? AND epoch = ? AND sequence = ?',
        deviceId,
        epoch,
        sequence,
      ),
    );
    if (kept === null) return;
    const lost = look((db) => lostInRestore(db, deviceId, epoch, sequence));
    if (kept === undefined && lost !== true) {
      world.violate(`${node} acknowledged batch ${sequence} of ${deviceId.slice(0, 8)} before it was stored`);
    } else if (kept !== undefined && result.status === 'stored' && kept.records < result.records) {
      world.violate(`${node} acknowledged more records of batch ${sequence} than it has`);
    }
  }

  /** What a device says of a number counts only as far as this registry signed it, or adopted the signed bytes. */
  function onReport(deviceId: string): void {
    // Only a registry of which there is, or was, another can be told of a number that it has not given out.
    if (!truth.isForked()) return;
    const row = look((db) =>
      db.get<{ reported: number; issued: number | null }>(
        `SELECT d.reported_epoch AS reported, a.epoch AS issued FROM devices d
         LEFT JOIN assignments a ON a.device_id = d.device_id WHERE d.device_id = ?`,
        deviceId,
      ),
    );
    if (row != null && row.reported > (row.issued ?? 0))
      world.violate(
        `${node} believes that ${deviceId.slice(0, 8)} holds its epoch ${row.reported} and has issued ${row.issued ?? 0}`,
      );
  }

  return {
    reported: onReport,
    watched: (bus) => ({
      ...bus,
      publish: (topic, payload, options) => {
        const parsed = parseTopic(topic);
        if (parsed?.kind === 'device' && parsed.channel === 'desired') onDesired(parsed.deviceId, payload);
        if (parsed?.kind === 'device' && parsed.channel === 'telemetry/ack')
          onAnswer(parsed.deviceId, payload);
        return bus.publish(topic, payload, options);
      },
    }),
  };
}

/** The chain of the device says that it was stored before a backup was restored. */
function lostInRestore(db: SqlTx, deviceId: string, epoch: number, sequence: number): boolean {
  const chain = db.get<{ last: number }>(
    'SELECT last_sequence AS last FROM telemetry_chains WHERE device_id = ? AND epoch = ?',
    deviceId,
    epoch,
  );
  const lost = db.get<{ n: number }>("SELECT count(*) AS n FROM fleet_events WHERE code = 'lost-in-restore'");
  return (chain?.last ?? 0) >= sequence && (lost?.n ?? 0) > 0;
}
