// Why: what may leave a region of one release's day, made of what each device did: every number of enough devices, none of
// which can be worked out from the others. ARCHITECTURE.md ("Cells") has the argument; test/stats holds it by elimination.
// Trusts: its caller for the sums of a day that is closed, one entry a device. Must never: depend on the order of devices.

import type { CellFeature, CellStatement, Withheld, WithheldRule } from '../wire/cells.ts';
import { type EnergyMethod, energyMethods } from '../wire/energy.ts';
import { coarseLatency } from './coarse-latency.ts';
import { chooseCohort, keepsApart, type Members } from './cohort.ts';
import {
  addBlock,
  type Block,
  blocksThatStay,
  type DisclosureTerms,
  isSafeApart,
  sensitive,
  sumOf,
} from './disclosure.ts';
import type { FeaturesSum } from './rollup.ts';

/** What one device did with one release on one day. */
export interface DeviceDay {
  failed: ReadonlyMap<string, number>;
  /** Answered requests by class of latency (sketch.ts). */
  latency: ReadonlyMap<number, number>;
  energy: ReadonlyMap<EnergyMethod, { joules: number; requests: number }>;
  /** By profile. */
  features: ReadonlyMap<string, Pick<FeaturesSum, 'rows' | 'seenRows' | 'features'>>;
}

/** Counts kept at once for the features of one release: some hundred megabytes. */
const countsMax = 20_000_000;

export type CellPart = Omit<Withheld, 'day' | 'kind' | 'subject'>;
type Body = Omit<CellStatement, 'schemaVersion' | 'region' | 'day' | 'kind' | 'subject'>;

export interface MadeCell {
  /** Null where all of it is withheld. */
  body: Body | null;
  /** Which devices are in it: what later days are compared with. Never leaves. */
  members: Set<string>;
  withheld: CellPart[];
  /** By device, for the sum over releases: also where nothing of it is published. */
  parts: Record<'answered' | 'failed', Block>;
}

const total = (counts: ReadonlyMap<unknown, number>): number =>
  [...counts.values()].reduce((sum, one) => sum + one, 0);

const block = (days: ReadonlyMap<string, DeviceDay>, of: (day: DeviceDay) => number): Map<string, number> =>
  new Map([...days].map(([device, day]) => [device, of(day)] as const).filter(([, part]) => part > 0));

/** The greatest of k, 2k, 4k … that is not above. */
export function deviceBand(devices: number, devicesMin: number): number {
  let band = devicesMin;
  while (band * 2 <= devices) band *= 2;
  return band;
}

/** Null: withheld; nothing is told where nothing was done, which is no secret of anybody. */
function tell(
  part: string,
  counts: Block,
  terms: DisclosureTerms,
  withheld: CellPart[],
  rule = sumOf(counts) === 0 ? null : sensitive(counts.values(), terms),
): number | null {
  if (rule === null) return sumOf(counts);
  withheld.push({ part, rule });
  return null;
}

function errorsOf(days: ReadonlyMap<string, DeviceDay>, terms: DisclosureTerms): Record<string, number> {
  const codes = [...new Set([...days.values()].flatMap(({ failed }) => [...failed.keys()]))].sort();
  const blocks = codes.map((code) => block(days, ({ failed }) => failed.get(code) ?? 0));
  const stays = blocksThatStay(blocks, terms);
  // Something may be called so already.
  const errors = new Map<string, number>();
  for (const [at, code] of codes.entries()) {
    const name = stays[at] === true ? code : 'other';
    errors.set(name, (errors.get(name) ?? 0) + sumOf(blocks[at] ?? new Map()));
  }
  return Object.fromEntries(errors);
}

function energyOf(
  days: ReadonlyMap<string, DeviceDay>,
  terms: DisclosureTerms,
  withheld: CellPart[],
): Body['energy'] {
  return energyMethods.flatMap((method) => {
    const joules = block(days, ({ energy }) => energy.get(method)?.joules ?? 0);
    if (method === 'none' || joules.size === 0) return [];
    const answered = new Map(
      [...joules.keys()].map((device) => [device, days.get(device)?.energy.get(method)?.requests ?? 0]),
    );
    const rule = sensitive(joules.values(), terms) ?? sensitive(answered.values(), terms);
    if (rule !== null) {
      withheld.push({ part: `energy ${method}`, rule });
      return [];
    }
    // A ratio: joules and requests as sums would be subtracted from others' requests.
    const joulesPer1000 = Number(((sumOf(joules) / sumOf(answered)) * 1_000).toPrecision(3));
    return [{ method, joulesPer1000 }];
  });
}

/** The profile in which most devices counted. */
function profileOf(days: ReadonlyMap<string, DeviceDay>): string | null {
  const devices = new Map<string, number>();
  for (const { features } of days.values())
    for (const sha256 of features.keys()) devices.set(sha256, (devices.get(sha256) ?? 0) + 1);
  const [most] = [...devices].sort(([a, one], [b, other]) => other - one || (a < b ? -1 : 1));
  return most?.[0] ?? null;
}

type Counted = Map<string, Pick<FeaturesSum, 'rows' | 'seenRows' | 'features'>>;

function featureOf(
  key: string,
  counted: Counted,
  rows: Block,
  terms: DisclosureTerms,
): CellFeature | WithheldRule {
  const own = [...counted].flatMap(([device, { features }]) => {
    const feature = features.get(key);
    return feature === undefined ? [] : [{ device, feature }];
  });
  const [first] = own;
  if (first === undefined) return 'cells/k';
  const { role, tensor, index, of, counts } = first.feature;
  const bins = counts.length;
  // Counts in other bins than most are of no profile that is known here.
  if (own.some(({ feature }) => feature.counts.length !== bins)) return 'cells/size';
  const blockOf = (read: (feature: (typeof own)[number]['feature']) => number): Block =>
    new Map(own.map(({ device, feature }) => [device, read(feature)]));
  const blocks = [
    ...counts.map((_, at) => blockOf((feature) => feature.counts[at] ?? 0)),
    blockOf(({ missing }) => missing),
    blockOf(({ other }) => other),
  ];
  const whole = new Map<string, number>();
  for (const one of blocks) addBlock(whole, one);
  const rule = sensitive(whole.values(), terms);
  if (rule !== null) return rule;
  if (!isSafeApart(whole, rows, terms)) return 'cells/complement';
  const stays = blocksThatStay(blocks, terms);
  const told = blocks.map((one, at) => (stays[at] === true ? sumOf(one) : null));
  const [missing = null, other = null] = told.slice(bins);
  return {
    ...{ role, tensor, index, of, counts: told.slice(0, bins), missing, other },
    pooled: blocks.reduce((sum, one, at) => (stays[at] === true ? sum : sum + sumOf(one)), 0),
  };
}

function featuresOf(
  days: ReadonlyMap<string, DeviceDay>,
  answered: Block,
  terms: DisclosureTerms,
  withheld: CellPart[],
): Body['features'] {
  const profileSha256 = profileOf(days);
  if (profileSha256 === null) return null;
  const counted: Counted = new Map();
  for (const [device, { features }] of days) {
    const sum = features.get(profileSha256);
    if (sum !== undefined && sum.rows > 0) counted.set(device, sum);
  }
  const blockOf = (of: 'rows' | 'seenRows'): Block =>
    new Map([...counted].map(([device, sum]) => [device, sum[of]]));
  const [rows, seenRows] = [blockOf('rows'), blockOf('seenRows')];
  const keys = [...new Set([...counted.values()].flatMap(({ features }) => [...features.keys()]))].sort();
  const bins = keys.reduce((sum, key) => {
    const found = [...counted.values()].find(({ features }) => features.has(key));
    return sum + (found?.features.get(key)?.counts.length ?? 0);
  }, 0);
  const apart = [rows, seenRows].every((one) => isSafeApart(one, answered, terms));
  const rule =
    sensitive(rows.values(), terms) ??
    sensitive(seenRows.values(), terms) ??
    (apart ? null : 'cells/complement') ??
    (bins * counted.size > countsMax ? 'cells/size' : null);
  if (rule !== null) {
    if (counted.size > 0) withheld.push({ part: 'features', rule });
    return null;
  }
  const features = keys.flatMap((key) => {
    const feature = featureOf(key, counted, rows, terms);
    if (typeof feature !== 'string') return [feature];
    withheld.push({ part: `feature ${key}`, rule: feature });
    return [];
  });
  return { profileSha256, rows: sumOf(rows), seenRows: sumOf(seenRows), features };
}

/** Of one release on one day. `before`: whose devices are in the same cell of the days before. */
export function makeReleaseCell(
  present: ReadonlyMap<string, DeviceDay>,
  before: readonly Members[],
  terms: DisclosureTerms,
): MadeCell {
  const all = block(present, ({ latency, failed }) => total(latency) + total(failed));
  const cohort = chooseCohort(new Set(all.keys()), before, terms.devicesMin);
  const members = cohort ?? new Set(all.keys());
  const days = new Map([...present].filter(([device]) => members.has(device)));
  const answered = block(days, ({ latency }) => total(latency));
  const failed = block(days, (day) => total(day.failed));
  const made = { members, parts: { answered, failed } };
  const rule =
    sensitive(block(days, ({ latency, failed: by }) => total(latency) + total(by)).values(), terms) ??
    (cohort === null ? ('cells/neighbour' as const) : null);
  if (rule !== null) {
    // Few, because others had to wait: that is the reason to tell.
    const left = members.size < all.size && sensitive(all.values(), terms) === null;
    return { ...made, body: null, withheld: [{ part: 'cell', rule: left ? 'cells/neighbour' : rule }] };
  }
  const withheld: CellPart[] = [];
  const told = {
    answered: tell('answered', answered, terms, withheld),
    failed: tell('failed', failed, terms, withheld),
  };
  const latencies = new Map([...days].map(([device, { latency }]) => [device, latency]));
  const latency = told.answered === null ? null : coarseLatency(latencies, terms);
  if (latency === null && (told.answered ?? 0) > 0) withheld.push({ part: 'latency', rule: 'cells/k' });
  const errors = told.failed === null ? null : errorsOf(days, terms);
  const energy = energyOf(days, terms, withheld);
  const features = featuresOf(days, answered, terms, withheld);
  const body = { ...headOf(members, terms), ...told, errors, latency, energy, features };
  return { ...made, withheld, body };
}

function headOf(members: Members, { devicesMin, percent }: DisclosureTerms) {
  return {
    ...{ devicesMin, dominancePercent: percent },
    devicesAtLeast: deviceBand(members.size, devicesMin),
  };
}

/**
 * All releases of a model on one day: two numbers, since anything finer could be set against the releases' own. What the
 * releases that tell nothing have together is this less the others, so that it must be a sum that may be told.
 */
export function makeModelCell(
  releases: readonly MadeCell[],
  before: readonly Members[],
  terms: DisclosureTerms,
): MadeCell {
  const members = new Set(releases.flatMap((one) => [...one.members]));
  const parts = { answered: new Map<string, number>(), failed: new Map<string, number>() };
  const hidden = { answered: new Map<string, number>(), failed: new Map<string, number>() };
  for (const release of releases)
    for (const part of ['answered', 'failed'] as const) {
      addBlock(parts[part], release.parts[part]);
      if ((release.body?.[part] ?? null) === null) addBlock(hidden[part], release.parts[part]);
    }
  const made = { members, parts };
  const everything = new Map(parts.answered);
  addBlock(everything, parts.failed);
  const whole =
    sensitive(everything.values(), terms) ??
    (keepsApart(members, before, terms.devicesMin) ? null : ('cells/neighbour' as const));
  if (whole !== null) return { ...made, body: null, withheld: [{ part: 'cell', rule: whole }] };
  const withheld: CellPart[] = [];
  const told = (part: 'answered' | 'failed'): number | null => {
    const sum = tell(part, parts[part], terms, withheld);
    if (sum === null || sumOf(hidden[part]) === 0 || sensitive(hidden[part].values(), terms) === null)
      return sum;
    withheld.push({ part, rule: 'cells/complement' });
    return null;
  };
  const [answered, failed] = [told('answered'), told('failed')];
  if (answered === null && failed === null) {
    const rule = withheld[0]?.rule ?? 'cells/k';
    return { ...made, body: null, withheld: [{ part: 'cell', rule }] };
  }
  const rest = { errors: null, latency: null, energy: [], features: null };
  return { ...made, withheld, body: { ...headOf(members, terms), answered, failed, ...rest } };
}
