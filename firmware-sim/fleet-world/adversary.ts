// Why: whoever owns the bus, or a key of another device: messages that were never sent, sent before, or sent by somebody
// else. Trusts: nothing. Must never: hold a key that the attack is not supposed to have.

import { signerFromSeed } from '../../shared/crypto/ed25519.ts';
import { signAssignment } from '../../shared/trust/assignment.ts';
import { signReport } from '../../shared/trust/report.ts';
import { signAnswer } from '../../shared/trust/telemetry.ts';
import { signTime } from '../../shared/trust/time.ts';
import {
  type Assignment,
  assignmentSchema,
  encodeMessage,
  parseMessage,
  type Report,
  schemaVersion,
  signedMessageSchema,
  timeRequestSchema,
} from '../../shared/wire/messages.ts';
import { type DeviceChannel, deviceTopic } from '../../shared/wire/topics.ts';
import { drawBytes, drawInt } from '../chance.ts';
import { registryFile } from '../oracle/registry-oracle.ts';
import { originMsDefault } from '../world.ts';
import type { FleetDevice, FleetWorld } from './fleet.ts';
import { type RegistryParts, region } from './registry-node.ts';
import type { AttackKind } from './scenario.ts';

const dayMs = 86_400_000;
/** The name by which a forged record or release would be seen anywhere. */
export const forgedName = 'forged-by-nobody';

export function attack(fleet: FleetWorld, victim: FleetDevice, how: AttackKind): void {
  const { world } = fleet;
  const parts = fleet.registry.up();
  const deviceId = victim.oracle.deviceId();
  if (parts === null || deviceId === null) return;
  const thiefs = signerFromSeed(drawBytes(32, world.seed, 'attacker'), 'node');
  const stored = (id: string): Uint8Array | null =>
    fleet.registry.place.look(registryFile, (db) =>
      db.get<{ message: Uint8Array }>('SELECT message FROM assignments WHERE device_id = ?', id),
    )?.message ?? null;
  const head = { schemaVersion, messageId: 'attack', sentAtMs: world.originMs + world.nowMs() } as const;
  const toDevice = (channel: DeviceChannel, message: Uint8Array): void => {
    parts.broker.bus
      .publish(deviceTopic(region, deviceId, channel), message, { qos: 1, retain: false })
      .catch(() => undefined);
  };
  const toRegistry = (channel: DeviceChannel, message: Uint8Array): void =>
    parts.inject(deviceTopic(region, deviceId, channel), message);

  switch (how) {
    case 'replay-assignment': {
      const message = stored(deviceId);
      if (message === null) return;
      for (const minutes of [2, 10, 25]) {
        world.later(minutes * 60_000, () => republish(fleet, deviceId, message));
      }
      return;
    }
    case 'forge-assignment': {
      const message = stored(deviceId);
      const assignment = message === null ? null : assignmentIn(message);
      if (assignment === null) return;
      const forged: Assignment = { ...assignment, epoch: assignment.epoch + 7, releases: [] };
      toDevice('desired', encodeMessage({ ...head, envelope: signAssignment(forged, thiefs) }));
      return;
    }
    case 'other-device-assignment': {
      const other = fleet.devices.find((one) => one !== victim)?.oracle.deviceId() ?? null;
      const message = other === null ? null : stored(other);
      if (message !== null) toDevice('desired', message);
      return;
    }
    case 'forge-acknowledgement':
      forgeAcknowledgements(fleet, parts, victim, deviceId);
      return;
    case 'forge-time': {
      const listening = parts.bus.subscribe(deviceTopic(region, deviceId, 'time'), ({ payload }) => {
        const question = parseMessage(timeRequestSchema, payload);
        // Somebody else's garbage may come this way.
        if (!question.ok) return;
        const { nonce } = question.value;
        const timeMs = world.originMs + world.nowMs() + 900 * dayMs;
        const statement = { schemaVersion, deviceId, region, nonce, timeMs } as const;
        toDevice('time/reply', encodeMessage({ ...head, envelope: signTime(statement, thiefs) }));
      });
      listening.catch(() => undefined);
      victim.device.fail('exit', 5_000);
      return;
    }
    case 'forge-report':
      toRegistry('reported', encodeMessage({ ...head, envelope: signReport(reportOf(deviceId), thiefs) }));
      return;
    case 'replay-report': {
      const kept: Uint8Array[] = [];
      parts.bus
        .subscribe(deviceTopic(region, deviceId, 'reported'), ({ payload }) => void kept.push(payload))
        .catch(() => undefined);
      for (const minutes of [4, 15]) {
        world.later(minutes * 60_000, () => {
          const [first] = kept;
          if (first !== undefined)
            fleet.registry.up()?.inject(deviceTopic(region, deviceId, 'reported'), first);
        });
      }
      return;
    }
    case 'forge-telemetry':
      toRegistry('telemetry', drawBytes(400, world.seed, 'telemetry', deviceId));
      return;
    case 'tamper':
      tamper(fleet, deviceId);
      return;
    case 'garbage':
      for (const channel of [
        'reported',
        'fetch',
        'telemetry',
        'time',
        'renew',
        'result',
        'presence',
      ] as const) {
        toRegistry(channel, drawBytes(60, world.seed, 'garbage', channel));
      }
      for (const channel of ['desired', 'bytes', 'telemetry/ack', 'time/reply', 'renew/reply'] as const) {
        toDevice(channel, drawBytes(60, world.seed, 'garbage', channel));
      }
  }
}

function assignmentIn(message: Uint8Array): Assignment | null {
  const signed = parseMessage(signedMessageSchema, message);
  if (!signed.ok) return null;
  const parsed = parseMessage(assignmentSchema, Buffer.from(signed.value.envelope.payload, 'base64'));
  return parsed.ok ? parsed.value : null;
}

/** Genuine, and not from now. */
function republish(fleet: FleetWorld, deviceId: string, message: Uint8Array): void {
  const parts = fleet.registry.up();
  parts?.broker.bus
    .publish(deviceTopic(region, deviceId, 'desired'), message, { qos: 1, retain: false })
    .catch(() => undefined);
}

/** Answers each batch before the region does, so that the device would delete what nobody has. */
function forgeAcknowledgements(
  fleet: FleetWorld,
  parts: RegistryParts,
  victim: FleetDevice,
  deviceId: string,
): void {
  const { world } = fleet;
  const signer = signerFromSeed(drawBytes(32, world.seed, 'attacker'), 'node');
  const held = victim.device.place.look('outbox.sqlite', (db) => ({
    batches: db.all<{ sequence: number; sha256: string; records: number }>(
      "SELECT sequence, head_sha256 AS sha256, record_count AS records FROM batches WHERE format <> 'open' LIMIT 20",
    ),
    epoch: db.get<{ epoch: number }>('SELECT epoch FROM outbox_state')?.epoch ?? 0,
  }));
  for (const { sequence, sha256, records } of held?.batches ?? []) {
    const answer = {
      schemaVersion,
      deviceId,
      region,
      epoch: held?.epoch ?? 0,
      sequence,
      headSha256: sha256,
      result: { status: 'stored', records },
    } as const;
    const message = encodeMessage({
      schemaVersion,
      messageId: 'attack',
      sentAtMs: world.originMs + world.nowMs(),
      envelope: signAnswer(answer, signer),
    });
    parts.broker.bus
      .publish(deviceTopic(region, deviceId, 'telemetry/ack'), message, { qos: 1, retain: false })
      .catch(() => undefined);
  }
}

/** Not signed, and nothing but a lamp on a page hangs on it; and what a new device has said of itself. */
const leftAlone = /\/(presence|enrol)(\/|$)/;

/**
 * For some minutes whoever owns the bus changes what goes to and from one device: bits, ends, and whole messages of
 * before or of other devices in the place of its own.
 */
function tamper(fleet: FleetWorld, deviceId: string): void {
  const { world, network } = fleet;
  const { seed } = world;
  fleet.truth.tampered();
  const prefix = deviceTopic(region, deviceId, 'desired').slice(0, -'desired'.length);
  const seen = new Map<string, Uint8Array[]>();
  const untilMs = world.nowMs() + drawInt(60_000, 15 * 60_000, seed, 'tamper', deviceId, 'ms');
  let number = 0;
  network.tamper((towards, topic, payload) => {
    if (world.nowMs() > untilMs || leftAlone.test(topic)) return payload;
    const channel = topic.split('/').slice(5).join('/');
    const others = seen.get(channel) ?? [];
    seen.set(channel, [...others.slice(-8), payload]);
    if (!topic.startsWith(prefix)) return payload;
    number += 1;
    const int = (below: number, name: string): number =>
      drawInt(0, below - 1, seed, 'tamper', number, towards, name);
    const how = int(10, 'how');
    if (how < 6 || payload.length === 0) return payload;
    const changed = new Uint8Array(payload);
    if (how === 6) return changed.subarray(0, int(payload.length, 'end'));
    if (how === 7) return others[int(others.length + 1, 'which')] ?? payload;
    const at = int(payload.length, 'at');
    changed[at] = (changed[at] ?? 0) ^ (1 << int(8, 'bit'));
    return changed;
  });
}

function reportOf(deviceId: string): Report {
  return {
    schemaVersion,
    deviceId,
    region,
    counter: 1_000_000,
    boot: 1_000,
    session: 'f'.repeat(32),
    sentAtMs: originMsDefault,
    verifiedTimeMs: 0,
    epoch: 1,
    timezone: 'UTC',
    agent: { version: '0.0.0-sim', runtime: 'sim', arch: 'x64' },
    models: [
      {
        name: forgedName,
        state: 'committed',
        active: `acme/${forgedName}@1.0.0`,
        activeSha256: '0'.repeat(64),
        candidate: null,
        lastGood: null,
        target: null,
        rolloutId: null,
        reason: null,
        progress: null,
        probe: null,
      },
    ],
    refusals: [],
    outbox: null,
    held: null,
    clock: null,
    certificateExpiresAtMs: null,
  };
}
