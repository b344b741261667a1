// Why: what a rollout would do, told before anything is done: who gets it in which wave, who cannot, what that costs.
// Trusts: the same facts and step as the controller, so that it does what was told. Must never: store or publish anything.

import type { ModelView } from '../../shared/wire/http.ts';
import type { RolloutPlan } from '../../shared/wire/rollout-plan.ts';
import { approvalsMissing } from './approvals.ts';
import { step } from './controller.ts';
import type { DeviceFact, Member, ModelFact, RolloutAhead, RolloutFacts } from './facts.ts';
import { isUnfit } from './fitness.ts';
import { isRemoval, isRemoved } from './removal.ts';
import { together } from './together.ts';

export interface PlanInput {
  /** Of the rollout as if it had just begun. */
  facts: RolloutFacts;
  /** Releases of the rollout's model and of its companions, with what is fetched of each; none where a model is taken away. */
  models: readonly ModelView[];
  /** By device: another rollout of the same name that has not ended. */
  others: ReadonlyMap<string, RolloutAhead>;
  bytesPerSecond: number | null;
}

type Planned = RolloutPlan['devices'][number];

const versionOf = (releaseId: string): string => releaseId.slice(releaseId.indexOf('@') + 1);

/** What a device fetches that runs this; the smallest that it would be offered now. */
function costFrom(
  active: string | null,
  releaseId: string,
  model: ModelView | undefined,
): Pick<Planned, 'bytes' | 'way'> {
  const release = model?.versions.find(({ version }) => version === versionOf(releaseId));
  if (model === undefined || release === undefined) return { bytes: 0, way: 'none' };
  const whole = Math.min(release.bytes, release.compressedBytes ?? release.bytes);
  const sameModel = active?.startsWith(`${model.name}@`) === true;
  const delta = sameModel ? release.deltas.find(({ from }) => from === versionOf(active)) : undefined;
  return delta === undefined ? { bytes: whole, way: 'whole' } : { bytes: delta.bytes, way: 'delta' };
}

function isDone({ rollout }: RolloutFacts, { model, companions = [] }: DeviceFact): boolean {
  if (isRemoval(rollout.release)) return isRemoved(model);
  return partsOf(rollout, { model, companions }).every(({ releaseId, model: one }) => runs(one, releaseId));
}

const runs = (model: ModelFact | null, releaseId: string): boolean =>
  model?.active === releaseId && model.lastGood === releaseId && model.candidate === null;

/** Every release of the rollout with what the device reported under its name. */
function partsOf(
  { release, companions = [] }: RolloutFacts['rollout'],
  device: Pick<DeviceFact, 'model' | 'companions'>,
): { releaseId: string; model: ModelFact | null }[] {
  return [
    { releaseId: release.releaseId, model: device.model },
    ...companions.map((one, at) => ({
      releaseId: one.release.releaseId,
      model: device.companions?.[at] ?? null,
    })),
  ];
}

function conflictOf(device: DeviceFact, others: PlanInput['others']): Planned['conflict'] {
  if (device.behind !== null)
    return { rollout: device.behind.id, state: device.behind.state, outcome: 'waits' };
  const other = others.get(device.id);
  return other === undefined ? null : { rollout: other.id, state: other.state, outcome: 'takes-over' };
}

function planned(
  input: PlanInput,
  device: DeviceFact,
  { wave }: Member,
  costs: Map<string, ReturnType<typeof costFrom>>,
): Planned {
  const done = isDone(input.facts, device);
  const each = partsOf(input.facts.rollout, device).map(({ releaseId, model }, at) => {
    const active = model?.active ?? null;
    // What of several is there already is not fetched again.
    if (device.companions !== undefined && runs(model, releaseId)) return { bytes: 0, way: 'none' as const };
    const key = `${at} ${active}`;
    const cost = costs.get(key) ?? costFrom(active, releaseId, input.models[at]);
    costs.set(key, cost);
    return cost;
  });
  const ways = each.map(({ way }) => way);
  const cost = {
    bytes: each.reduce((sum, { bytes }) => sum + bytes, 0),
    way: ways.find((way) => way === 'whole') ?? ways.find((way) => way === 'delta') ?? ('none' as const),
  };
  return {
    ...{ id: device.id, wave, runs: device.model?.active ?? null, done },
    ...(done ? { bytes: 0, way: 'none' as const } : cost),
    offlineSinceMs: device.online ? null : device.presenceAtMs,
    conflict: conflictOf(device, input.others),
  };
}

/** The least that a wave takes: the slowest of its devices fetches, and it soaks. */
function leastMs(
  { facts, bytesPerSecond }: PlanInput,
  index: number,
  devices: readonly Planned[],
): number | null {
  const soakMs = facts.rollout.waves[index]?.soak ?? 0;
  const open = devices.filter(({ done }) => !done);
  if (open.length === 0) return 0;
  const most = open.reduce((top, { bytes }) => Math.max(top, bytes), 0);
  if (most === 0) return soakMs;
  return bytesPerSecond === null ? null : soakMs + Math.ceil((most / bytesPerSecond) * 1_000);
}

function grounds({ facts, bytesPerSecond }: PlanInput): string[] {
  const { spec } = facts.rollout;
  return [
    'devices and what they run, as they last reported; deltas and compressed files that are made by now',
    bytesPerSecond === null
      ? 'no rate was given (--rate), so how long fetching takes is not told'
      : `${bytesPerSecond} bytes a second and device, all devices of a wave at the same time`,
    'the least: nothing fails, everybody is there, nobody has to wait for a window, a site or another rollout',
    ...(spec.shadow === undefined
      ? []
      : [
          `not counted: ${spec.shadow.requests} live requests that are answered twice before a device switches`,
        ]),
  ];
}

/** Pure. Refuses nothing: whether the rollout may begin was asked before. */
export function planOf(input: PlanInput): RolloutPlan {
  const { facts } = input;
  const { rollout } = facts;
  const { members } = step(facts);
  const costs = new Map<string, ReturnType<typeof costFrom>>();
  const devices: Planned[] = [];
  const incompatible: RolloutPlan['incompatible'] = [];
  for (const device of facts.devices) {
    const member = members.get(device.id);
    if (member === undefined) continue;
    if (isUnfit(member)) incompatible.push({ id: device.id, reason: member.reason?.detail ?? '' });
    else devices.push(planned(input, device, member, costs));
  }
  const ofWave = new Map<number, Planned[]>(rollout.waves.map((_, index) => [index, []]));
  for (const device of devices) ofWave.get(device.wave)?.push(device);
  const waves = [...ofWave].map(([index, inside]) => ({
    index,
    devices: inside.length,
    bytes: inside.reduce((sum, { bytes }) => sum + bytes, 0),
    approvals: approvalsMissing(rollout.spec, index, [], facts.nowMs),
    minMs: leastMs(input, index, inside),
  }));
  const told = waves.every(({ minMs }) => minMs !== null);
  return {
    name: rollout.name,
    release: rollout.release.releaseId,
    ...together(rollout),
    as: rollout.as,
    waves,
    devices,
    incompatible,
    bytes: waves.reduce((sum, { bytes }) => sum + bytes, 0),
    minMs: told ? waves.reduce((sum, { minMs }) => sum + (minMs ?? 0), 0) : null,
    restsOn: grounds(input),
  };
}
