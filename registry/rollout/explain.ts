// Why: says in words why a rollout, its waves and each device are where they are, and what each waits for.
// Trusts: the same facts and judgements as the controller, so that no other reason is told than the one it acts on.
// Must never: decide anything.

import type { RolloutExplanation } from '../../shared/wire/rollouts.ts';
import { approvalsMissing } from './approvals.ts';
import { type Room, roomFor } from './disruption.ts';
import type { DeviceFact, Member, RolloutFacts, WaveFact } from './facts.ts';
import { fitnessFor, isUnfit } from './fitness.ts';
import { isRestored, type Outcome, outcomeOf } from './members.ts';

type Said = Pick<RolloutExplanation['devices'][number], 'waitsFor' | 'untilMs'>;

const nothing: Said = { waitsFor: null, untilMs: null };
const ended: ReadonlySet<string> = new Set(['succeeded', 'failed', 'aborted']);
const some = (count: number, one: string): string => `${count} ${one}${count === 1 ? '' : 's'}`;

function roomWanted(
  { label, maxUnavailable, maxSites }: NonNullable<RolloutFacts['rollout']['spec']['disruption']>,
  { site, busyElsewhere }: DeviceFact,
): string {
  if (busyElsewhere) return 'another rollout, which is at work on it';
  const where = site === '' ? `devices without the label ${label}` : `${label} ${site}`;
  const sites = maxSites === undefined ? '' : `, in ${some(maxSites, 'site')} at a time`;
  return `room among ${where}: ${some(maxUnavailable, 'device')} at a time${sites}`;
}

/** Of a device that has not got the release yet. */
function waitingMember(
  { rollout, waves }: RolloutFacts,
  device: DeviceFact,
  member: Member,
  rooms: readonly Room[],
): Said {
  if (ended.has(rollout.state) && rollout.state !== 'succeeded') return nothing;
  if (rollout.state === 'paused') return { waitsFor: 'lepton rollout resume', untilMs: null };
  const before = waves.find(({ index, state }) => index < member.wave && state !== 'passed');
  if (before !== undefined)
    return { waitsFor: `wave ${before.index}, which is ${before.state}`, untilMs: null };
  const own = waves.find(({ index }) => index === member.wave);
  if (own?.state === 'pending') return { waitsFor: rollout.reason ?? 'its wave to begin', untilMs: null };
  const { behind } = device;
  if (behind !== null)
    return { waitsFor: `rollout ${behind.id} to end, which is ${behind.state}`, untilMs: null };
  const { disruption } = rollout.spec;
  if (disruption !== undefined && rooms[member.wave]?.has(device) === false)
    return { waitsFor: roomWanted(disruption, device), untilMs: null };
  return { waitsFor: 'the next step, in which it gets the release', untilMs: null };
}

/** Of a device from which the release is taken back. */
function revertedMember({ rollout, nowMs }: RolloutFacts, device: DeviceFact, member: Member): Said {
  const { restored, untilMs } = isRestored(rollout, device, member, nowMs);
  return restored ? nothing : { waitsFor: 'it to run again what it ran before', untilMs };
}

/** What the device itself says that it waits for; its own words, with window and time, stand in `because`. */
const heldBy: Readonly<Record<string, string>> = {
  'window-closed': 'its window to open, in its own time zone',
  'update-together': 'the other releases of the rollout to be ready on it',
  'update-deferred': 'the deferral on the device to end (lepton-agent defer --clear)',
};

/** Of a device that has the release assigned. */
function assignedMember(device: DeviceFact, { kind, state, reason, untilMs }: Outcome): Said {
  switch (kind) {
    case 'committed':
    case 'left':
    case 'failed':
    // The file says that it is not counted while it is away.
    case 'ignored':
      return nothing;
    case 'unreachable':
      return { waitsFor: 'it to come back: the file says that it is waited for', untilMs };
    case 'waiting':
    case 'working': {
      if (!device.online) return { waitsFor: 'it to come back: its assignment lies ready for it', untilMs };
      const held = reason === null ? undefined : heldBy[reason.code];
      if (held !== undefined) return { waitsFor: held, untilMs: reason?.untilMs ?? untilMs };
      const next = state === 'pending' ? 'its report about the assignment' : `its ${state} to end`;
      return { waitsFor: next, untilMs };
    }
  }
}

function saidOf(
  facts: RolloutFacts,
  device: DeviceFact,
  member: Member,
  outcome: Outcome,
  rooms: readonly Room[],
): Said {
  if (member.step === 'waiting') return waitingMember(facts, device, member, rooms);
  return member.step === 'reverted' ? revertedMember(facts, device, member) : assignedMember(device, outcome);
}

/** Room for each wave, as the next step finds it. */
function roomsOf({ rollout, waves, devices, nowMs }: RolloutFacts): Room[] {
  const { disruption } = rollout.spec;
  if (disruption === undefined) return [];
  const parts = devices.map((device) => {
    const member = device.member ?? undefined;
    return {
      device,
      member,
      outcome: member === undefined ? undefined : outcomeOf(rollout, device, member, nowMs),
    };
  });
  return waves.map(({ index }) => roomFor(disruption, index, parts));
}

function explainDevice(
  facts: RolloutFacts,
  device: DeviceFact,
  rooms: readonly Room[],
): RolloutExplanation['devices'][number] {
  const { rollout, nowMs } = facts;
  const head = { id: device.id, online: device.online, runs: device.model?.active ?? null };
  const { member } = device;
  if (member === null) {
    const unfit = fitnessFor(rollout)(device);
    const because = device.active
      ? (unfit?.detail ?? 'it matches the selector and has no wave yet')
      : 'it is revoked or in quarantine';
    const waitsFor = device.active && unfit === null ? 'the next step, which gives it a wave' : null;
    return { ...head, wave: null, state: 'pending', because, waitsFor, untilMs: null };
  }
  const outcome = outcomeOf(rollout, device, member, nowMs);
  const said = saidOf(facts, device, member, outcome, rooms);
  const reason = isUnfit(member) ? member.reason : (outcome.reason ?? member.reason);
  const over = member.step === 'waiting' && said.waitsFor === null ? `the rollout is ${rollout.state}` : null;
  return {
    ...head,
    wave: member.wave,
    state: outcome.state,
    because: reason === null ? over : `${reason.code}: ${reason.detail}`,
    ...said,
  };
}

function explainWave(facts: RolloutFacts, wave: WaveFact): RolloutExplanation['waves'][number] {
  const { index, state, reason, gates } = wave;
  const head = { index, state, because: reason };
  if (state === 'pending') {
    const { rollout, waves, approvals, nowMs } = facts;
    if (ended.has(rollout.state)) return { ...head, waitsFor: [] };
    const before = waves.find((one) => one.index < index && one.state !== 'passed');
    const missing = approvalsMissing(rollout.spec, index, approvals, nowMs);
    return {
      ...head,
      waitsFor: [
        ...(before === undefined ? [] : [`wave ${before.index}, which is ${before.state}`]),
        ...(missing === 0 ? [] : [some(missing, 'approval')]),
      ],
    };
  }
  if (state !== 'running' && state !== 'soaking') return { ...head, waitsFor: [] };
  const open = facts.devices.filter(({ member }) => member?.wave === index && member.step === 'assigned');
  const kinds = new Map<string, number>();
  for (const device of open) {
    if (device.member === null) continue;
    const { kind, state: at } = outcomeOf(facts.rollout, device, device.member, facts.nowMs);
    if (kind !== 'working' && kind !== 'waiting' && kind !== 'unreachable') continue;
    const words = device.online ? at : `${at} and offline`;
    kinds.set(words, (kinds.get(words) ?? 0) + 1);
  }
  return {
    ...head,
    waitsFor: [
      ...[...kinds].sort().map(([words, count]) => `${some(count, 'device')} ${words}`),
      ...(kinds.size > 0
        ? []
        : gates.filter(({ verdict }) => verdict === 'waiting').map(({ gate }) => `gate ${gate}`)),
    ],
  };
}

/** Of the whole rollout, or with one device alone where it is named. Pure. */
export function explain(facts: RolloutFacts, deviceId: string | null): RolloutExplanation {
  const { rollout } = facts;
  const rooms = roomsOf(facts);
  const devices = facts.devices.filter(({ id }) => deviceId === null || id === deviceId);
  return {
    id: rollout.id,
    name: rollout.name,
    release: rollout.release.releaseId,
    state: rollout.state,
    because: rollout.reason,
    waves: facts.waves.map((wave) => explainWave(facts, wave)),
    devices: devices.map((device) => explainDevice(facts, device, rooms)),
  };
}
