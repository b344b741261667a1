// Why: a device's part in a rollout's facts: the rows that tell it, and how they are read when there are ten thousand.
// Trusts: the tables. Must never: decide anything.

import type { SqlValue } from '../../shared/kernel/ports.ts';
import type { MachineStateName } from '../../shared/wire/messages.ts';
import { fromColumn } from '../fleet/columns.ts';
import { previousColumn } from '../fleet/previous.ts';
import { fixed, type RegistryDb, type RegistryQueries, sql } from '../store/open.ts';
import type {
  CompanionFact,
  DesiredRelease,
  DeviceFact,
  Member,
  ModelFact,
  RolloutAhead,
  RolloutFact,
} from './facts.ts';
import { isRemoval, isRemoved } from './removal.ts';
import type { Selectable } from './selector.ts';

/** Itself, what it reported under the rollout's name, and its part in the rollout. Columns as they are stored. */
interface DeviceRow {
  id: string;
  status: string;
  presence: string;
  presenceAtMs: number;
  reportedEpoch: number;
  agent: string;
  wave: number | null;
  memberState: string | null;
  memberReason: string | null;
  step: Member['step'] | null;
  epoch: number | null;
  stepAtMs: number | null;
  previous: string | null;
  modelState: string | null;
  active: string | null;
  candidate: string | null;
  lastGood: string | null;
  target: string | null;
  modelRolloutId: string | null;
  modelReason: string | null;
  desiredReleaseId: string | null;
  desiredRolloutId: string | null;
}

/** Columns that say the same of most devices of a rollout: who waits, who switches, who is done. */
const alike = [
  ['d.status', 'status'],
  ['d.presence', 'presence'],
  ['m.state', 'memberState'],
  ['m.step', 'step'],
  ['m.previous', 'previous'],
  ['r.state', 'modelState'],
  ['r.active', 'active'],
  ['r.candidate', 'candidate'],
  ['r.last_good', 'lastGood'],
  ['r.target', 'target'],
  ['r.rollout_id', 'modelRolloutId'],
  ['w.release_id', 'desiredReleaseId'],
  ['w.rollout_id', 'desiredRolloutId'],
] as const;
const others = [
  ['d.device_id', 'id'],
  ['d.presence_at_ms', 'presenceAtMs'],
  ['d.reported_epoch', 'reportedEpoch'],
  ['m.wave_index', 'wave'],
  ['m.reason', 'memberReason'],
  ['m.epoch', 'epoch'],
  ['m.step_at_ms', 'stepAtMs'],
  ['r.reason', 'modelReason'],
] as const;
/** Most rollouts ask for nothing that an agent tells of itself; then it is not read for each of its devices. */
const unasked = JSON.stringify({ version: '', runtime: '', arch: '' });
const fewRows = 16;
/** In place of a text that is the common one: no column that is alike holds numbers. */
const asCommon = 0;

/** Texts that stand for themselves where a row has `asCommon`; null: each row tells its own. */
type Common = readonly SqlValue[] | null;

/** Whether newcomers are looked for, and what an agent tells of itself is read. */
interface Looks {
  newcomers: boolean;
  asked: boolean;
}

function devicesQuery(
  qb: RegistryQueries,
  rollout: Pick<RolloutFact, 'id' | 'as'>,
  { newcomers, asked }: Looks,
  common: Common,
) {
  const query = qb
    .selectFrom('devices as d')
    .leftJoin('rollout_devices as m', (join) =>
      join.onRef('m.device_id', '=', 'd.device_id').on('m.rollout_id', '=', rollout.id),
    )
    .leftJoin('device_models as r', (join) =>
      join.onRef('r.device_id', '=', 'd.device_id').on('r.name', '=', rollout.as),
    )
    .leftJoin('desired as w', (join) =>
      join.onRef('w.device_id', '=', 'd.device_id').on('w.as_name', '=', rollout.as),
    )
    .select([
      ...alike.map(([column, name], at) => {
        const value = common?.[at] ?? null;
        const own = sql<SqlValue>`${sql.ref(column)}`;
        return (value === null ? own : sql<SqlValue>`iif(${own} = ${value}, ${asCommon}, ${own})`).as(name);
      }),
      ...others.map(([column, name]) => sql<SqlValue>`${sql.ref(column)}`.as(name)),
      (asked ? sql<SqlValue>`d.agent` : sql<SqlValue>`NULL`).as('agent'),
    ]);
  // Members lie in the order of their devices; newcomers are found among all devices.
  return newcomers
    ? query.orderBy('d.device_id')
    : query.where('m.rollout_id', 'is not', null).orderBy('m.device_id');
}

const someDevices = (looks: Looks) =>
  fixed((qb, id: string, as: string, few: number) => devicesQuery(qb, { id, as }, looks, null).limit(few));
const someMembers = someDevices({ newcomers: false, asked: false });
const someMembersAsked = someDevices({ newcomers: false, asked: true });
const someOfAll = someDevices({ newcomers: true, asked: true });

/**
 * A row for each device: of the rollout, or also of those that have no wave yet. There are ten thousand each time a
 * rollout is looked at. So the driver gives values, in half the time of objects, and what a first row says is not
 * handed over again for each that says the same. `few`: fewer rows than this are not worth that.
 */
export function deviceRows(
  db: RegistryDb,
  qb: RegistryQueries,
  rollout: RolloutFact,
  newcomers: boolean,
  few: number = fewRows,
): DeviceRow[] {
  const needs = [rollout, ...(rollout.companions ?? [])].some(({ release }) => release.requires !== null);
  const asked = newcomers || needs;
  const first = newcomers ? someOfAll : asked ? someMembersAsked : someMembers;
  const some = db.values(first(qb, rollout.id, rollout.as, few), (row) => row);
  const common = some[0]?.slice(0, alike.length) ?? [];
  const isAll = some.length < few;
  const rows = isAll
    ? some
    : db.values(devicesQuery(qb, rollout, { newcomers, asked }, common), (row) => row);
  return rows.map((row) => {
    const text = (at: number): string | null =>
      (row[at] === asCommon ? common[at] : row[at]) as string | null;
    return {
      status: text(0) as string,
      presence: text(1) as string,
      memberState: text(2),
      step: text(3) as DeviceRow['step'],
      previous: text(4),
      modelState: text(5),
      active: text(6),
      candidate: text(7),
      lastGood: text(8),
      target: text(9),
      modelRolloutId: text(10),
      desiredReleaseId: text(11),
      desiredRolloutId: text(12),
      id: row[13] as string,
      presenceAtMs: row[14] as number,
      reportedEpoch: row[15] as number,
      wave: row[16] as number | null,
      memberReason: row[17] as string | null,
      epoch: row[18] as number | null,
      stepAtMs: row[19] as number | null,
      modelReason: row[20] as string | null,
      agent: (row[21] ?? unasked) as string,
    };
  });
}

/**
 * Of devices that may be assigned something in this step: what they are by label, and what they are to run now, whole.
 * It is most of the bytes of a look, and of no use for those that have the release assigned.
 */
function openQuery(qb: RegistryQueries, id: string, as: string) {
  return qb
    .selectFrom('devices as d')
    .leftJoin('rollout_devices as m', (join) =>
      join.onRef('m.device_id', '=', 'd.device_id').on('m.rollout_id', '=', id),
    )
    .leftJoin('desired as w', (join) =>
      join.onRef('w.device_id', '=', 'd.device_id').on('w.as_name', '=', as),
    )
    .leftJoin('rollout_devices as om', (join) =>
      join.onRef('om.device_id', '=', 'd.device_id').onRef('om.rollout_id', '=', 'w.rollout_id'),
    )
    .leftJoin('rollouts as o', 'o.rollout_id', 'w.rollout_id')
    .select([
      'd.device_id as id',
      'd.labels as labels',
      'w.release_id as desiredReleaseId',
      'w.manifest_sha256 as desiredSha256',
      'w.manifest_bytes as desiredBytes',
      'w.counter as desiredCounter',
      'w.rollout_id as desiredRolloutId',
      'w.policy as desiredPolicy',
      'w.requires as desiredRequires',
      'om.state as ownerState',
      previousColumn(as, { rollout: 'o', member: 'om' }).as('ownerPrevious'),
    ])
    .where((where) => where.or([where('m.step', 'is', null), where('m.step', 'in', ['waiting', 'left'])]));
}

export const openOfAll = fixed(openQuery);
export const openOfMembers = fixed((qb, id: string, as: string) =>
  openQuery(qb, id, as).where('m.rollout_id', 'is not', null),
);

type RowOf<Query> = Query extends { execute(): Promise<(infer Row)[]> } ? Row : never;
export type OpenRow = RowOf<ReturnType<typeof openQuery>>;

/** The same text many times over is the same value: nothing in the facts is ever changed in place. */
export class Columns {
  private readonly known = new Map<string, unknown>();

  of<T>(text: string): T {
    const before = this.known.get(text);
    if (before !== undefined) return before as T;
    const value = fromColumn<T>(text);
    this.known.set(text, value);
    return value;
  }

  ofNullable<T>(text: string | null): T | null {
    return text === null ? null : this.of<T>(text);
  }
}

function memberOf(row: DeviceRow, columns: Columns): Member | null {
  if (row.wave === null || row.step === null || row.stepAtMs === null || row.epoch === null) return null;
  return {
    wave: row.wave,
    state: row.memberState as Member['state'],
    reason: columns.ofNullable(row.memberReason),
    step: row.step,
    epoch: row.epoch,
    stepAtMs: row.stepAtMs,
    previous: columns.ofNullable(row.previous),
  };
}

function modelOf(row: DeviceRow, columns: Columns): ModelFact | null {
  if (row.modelState === null) return null;
  return {
    state: row.modelState as MachineStateName,
    active: row.active,
    candidate: row.candidate,
    lastGood: row.lastGood,
    target: row.target,
    rolloutId: row.modelRolloutId,
    reason: columns.ofNullable(row.modelReason),
  };
}

function desiredOf(row: OpenRow, columns: Columns): DesiredRelease | null {
  const { desiredReleaseId, desiredSha256, desiredBytes, desiredCounter, desiredPolicy } = row;
  if (desiredReleaseId === null || desiredSha256 === null) return null;
  if (desiredBytes === null || desiredCounter === null || desiredPolicy === null) return null;
  return {
    releaseId: desiredReleaseId,
    manifestSha256: desiredSha256,
    manifestBytes: desiredBytes,
    counter: desiredCounter,
    requires: row.desiredRequires,
    rolloutId: row.desiredRolloutId,
    policy: columns.of(desiredPolicy),
  };
}

/**
 * What to go back to if the present desired release is replaced now: that one where it is proven on
 * the device, else what its own rollout would have gone back to.
 */
function provenOf(row: OpenRow, model: ModelFact | null, columns: Columns): DesiredRelease | null {
  const desired = desiredOf(row, columns);
  const byRollout = row.ownerState !== null;
  const gone = desired !== null && isRemoval(desired) && isRemoved(model);
  const proven = row.ownerState === 'committed' || (model?.lastGood ?? null) === desired?.releaseId || gone;
  return byRollout && !proven ? columns.ofNullable(row.ownerPrevious) : desired;
}

/** What other rollouts mean for devices of this one. */
export interface Others {
  /** Whose facts these are. */
  id: string;
  ahead: ReadonlyMap<string, RolloutAhead>;
  busy: ReadonlySet<string>;
  /** By device, where the file bounds disruption. */
  sites: ReadonlyMap<string, string>;
  /** All under its names, by id. */
  rollouts: ReadonlyMap<string, { number: number; priority: number; endedAtMs: number | null }>;
  /** By device, in the order of the rollout's companions. */
  companions: ReadonlyMap<string, readonly CompanionFact[]>;
}

export function deviceFact(
  row: DeviceRow,
  open: OpenRow | undefined,
  { id, ahead, busy, sites, rollouts, companions }: Others,
  columns: Columns,
): DeviceFact {
  const model = modelOf(row, columns);
  const numberOf = (one: DeviceFact['desired']): number => rollouts.get(one?.rolloutId ?? '')?.number ?? 0;
  const beside = companions.get(row.id);
  const own =
    row.desiredReleaseId === null
      ? null
      : { releaseId: row.desiredReleaseId, rolloutId: row.desiredRolloutId };
  const all = [own, ...(beside ?? []).map((one) => one.desired)];
  // Once it is assigned here, a name that is another rollout's says that the device is.
  const foreign = own?.rolloutId === id ? all.filter((one) => one?.rolloutId !== id) : all;
  const desired = foreign.reduce((a, b) => (numberOf(b) > numberOf(a) ? b : a), foreign[0] ?? own);
  const owner = rollouts.get(desired?.rolloutId ?? '');
  return {
    ...(beside === undefined ? {} : { companions: beside.map((one) => one.model) }),
    id: row.id,
    active: row.status === 'active',
    online: row.presence === 'online',
    presenceAtMs: row.presenceAtMs,
    reportedEpoch: row.reportedEpoch,
    agent: columns.of(row.agent),
    model,
    desired,
    desiredNumber: owner?.number ?? 0,
    desiredPriority: owner?.priority ?? 0,
    desiredOpen: owner !== undefined && owner.endedAtMs === null,
    behind: ahead.get(row.id) ?? null,
    site: sites.get(row.id) ?? '',
    busyElsewhere: busy.has(row.id),
    proven: open === undefined ? null : provenOf(open, model, columns),
    member: memberOf(row, columns),
  };
}

export function selectable(row: { id: string; labels: string; agent: string }, region: string): Selectable {
  const { id, labels, agent } = row;
  return { id, region, labels: fromColumn(labels), agent: fromColumn(agent) };
}
