// Why: real recordings with labelled anomalies as a device would count them, and the alarms of the registry's own watch on
// them: how many were right, how many labelled windows were found, and what a quiet recording costs.
// Trusts: the labels of their authors. Must never: have a term of its own for one recording.

import { readFileSync } from 'node:fs';
import { type Bins, binOf, binsOf } from '../../shared/stats/binning.ts';
import { addToWatch, isDue, judgeWatch, newWatch, watchTerms } from '../../shared/stats/drift-watch.ts';
import { type FeatureSum, type FeaturesSum, featureKey, noFeatures } from '../../shared/stats/rollup.ts';
import type { Profile } from '../../shared/wire/profile.ts';
import { dataFolder, readJson } from '../support/data.ts';

export interface Span {
  fromMs: number;
  untilMs: number;
}

export interface Recording {
  name: string;
  sensors: string[];
  rows: { timeMs: number; values: number[] }[];
  anomalies: Span[];
}

const utc = (text: string): number => Date.parse(`${text.slice(0, 19).replace(' ', 'T')}Z`);

function nab(folder: string, file: string, group: string): Recording {
  const labels = readJson<Record<string, [string, string][]>>(
    dataFolder('datasets/nab_labels_combined_windows.json'),
  );
  const rows = readFileSync(dataFolder('datasets', folder, `nab_${file}.csv`), 'utf8')
    .trim()
    .split(/\r?\n/);
  return {
    name: file.replace('_system_failure', ''),
    sensors: ['value'],
    rows: rows.slice(1).map((row) => {
      const [time = '', value] = row.split(',');
      return { timeMs: utc(time), values: [Number(value)] };
    }),
    anomalies: (labels[`${group}/${file}.csv`] ?? []).map(([from, until]) => ({
      fromMs: utc(from),
      untilMs: utc(until),
    })),
  };
}

function skab(file: string): Recording {
  const lines = readFileSync(dataFolder('datasets/industrial/skab', `${file}.csv`), 'utf8')
    .trim()
    .split(/\r?\n/);
  const head = (lines[0] ?? '').split(';');
  const anomalyAt = head.indexOf('anomaly');
  const sensors = head.slice(1, 9);
  const cells = lines.slice(1).map((line) => line.split(';'));
  const rows = cells.map((row) => ({ timeMs: utc(row[0] ?? ''), values: row.slice(1, 9).map(Number) }));
  const anomalies: Span[] = [];
  for (const [at, { timeMs }] of rows.entries()) {
    if (anomalyAt < 0 || Number(cells[at]?.[anomalyAt]) !== 1) continue;
    const last = anomalies.at(-1);
    if (last !== undefined && last.untilMs === rows[at - 1]?.timeMs) last.untilMs = timeMs;
    else anomalies.push({ fromMs: timeMs, untilMs: timeMs });
  }
  return { name: `skab ${file}`, sensors, rows, anomalies };
}

export function recordings(): Recording[] {
  const roads = ['TravelTime_451', 'occupancy_6005', 'occupancy_t4013', 'speed_6005', 'speed_t4013'];
  return [
    ...roads.map((road) => nab('traffic', road, 'realTraffic')),
    nab('industrial', 'machine_temperature_system_failure', 'realKnownCause'),
    skab('valve1_0'),
    skab('anomaly-free'),
  ];
}

const bins = 10;
/** Of each recording; its labelled rows are left out, as whoever makes a reference would. */
const referenceShare = 0.3;
/** A reference has at least so many parts, for thresholds to be learned; each at most a window long. */
const chunksMin = 8;

/** Edges that cut the values into bins of equal counts. */
function edgesOf(values: readonly number[]): Bins {
  const sorted = [...values].sort((a, b) => a - b);
  const edges: number[] = [];
  for (let at = 0; at <= bins; at += 1) {
    const edge = sorted[Math.floor((at * (sorted.length - 1)) / bins)] ?? 0;
    if (edges.length === 0 || edge > (edges.at(-1) ?? 0)) edges.push(edge);
  }
  if (edges.length === 1) edges.push((edges[0] ?? 0) + 1);
  return binsOf(edges);
}

function countsOf(places: Bins, values: readonly number[]): number[] {
  const counts = Array<number>(places.edges.length + 1).fill(0);
  for (const value of values) {
    const at = binOf(places, value);
    counts[at] = (counts[at] ?? 0) + 1;
  }
  return counts;
}

export function profileOf(recording: Pick<Recording, 'sensors'>, rows: Recording['rows']): Profile {
  const length = Math.min(watchTerms.windowRowsMin, Math.floor(rows.length / chunksMin));
  return {
    schemaVersion: 1,
    features: recording.sensors.map((_, index) => {
      const values = rows.map((row) => row.values[index] ?? Number.NaN);
      const places = edgesOf(values);
      const chunks = Array.from({ length: Math.floor(rows.length / length) }, (_none, at) =>
        countsOf(places, values.slice(at * length, (at + 1) * length)),
      );
      const about = { role: 'input' as const, tensor: 'sensors', index, missing: 0 };
      return {
        ...about,
        kind: 'numeric' as const,
        edges: [...places.edges],
        counts: countsOf(places, values),
        chunks,
      };
    }),
  };
}

const within = (timeMs: number, spans: readonly Span[]): boolean =>
  spans.some(({ fromMs, untilMs }) => fromMs <= timeMs && timeMs <= untilMs);
const meet = (one: Span, other: Span): boolean => one.fromMs <= other.untilMs && other.fromMs <= one.untilMs;

function rowSum(profile: Profile, values: readonly number[]): FeaturesSum {
  const features = new Map<string, FeatureSum>();
  for (const feature of profile.features) {
    if (feature.kind !== 'numeric') continue;
    const { role, tensor, index } = feature;
    const counts = countsOf(binsOf(feature.edges), [values[index] ?? Number.NaN]);
    features.set(featureKey(feature), { role, tensor, index, of: 'value', counts, missing: 0, other: 0 });
  }
  return { ...noFeatures, windows: 1, rows: 1, seenRows: 1, features };
}

export interface Judged {
  name: string;
  referenceRows: number;
  windows: number;
  /** Alarms that began, of all sensors, and those of them whose two windows touch a labelled one. */
  alarms: number;
  right: number;
  /** Labelled windows after the reference, and those in which an alarm stood. */
  labelled: number;
  found: number;
  /** Share of the windows in which any sensor was in alarm. */
  inAlarm: number;
}

/** Row by row through the watch, as counts of one device arrive. */
export function judge(recording: Recording, referenceRows = firstPart(recording)): Judged {
  const { rows, anomalies } = recording;
  const live = rows.slice(firstPart(recording));
  const profile = profileOf(
    recording,
    rows.slice(0, referenceRows).filter(({ timeMs }) => !within(timeMs, anomalies)),
  );
  const ahead = anomalies.filter(({ untilMs }) => untilMs >= (live[0]?.timeMs ?? 0));
  const found = new Set<Span>();
  let [watch, windows, alarms, right, standing] = [newWatch, 0, 0, 0, 0];
  let before: Span | null = null;
  let fromMs = live[0]?.timeMs ?? 0;
  for (const { timeMs, values } of live) {
    watch = addToWatch(watch, rowSum(profile, values));
    if (!isDue(watch, timeMs)) continue;
    const step = judgeWatch(watch, profile, timeMs);
    watch = step.watch;
    const window = { fromMs, untilMs: timeMs };
    // An alarm tells of the window that began it as well.
    const seen = { fromMs: before?.fromMs ?? fromMs, untilMs: timeMs };
    const begun = step.changes.filter(({ to }) => to === 'drift').length;
    windows += 1;
    alarms += begun;
    if (ahead.some((one) => meet(one, seen))) right += begun;
    if (Object.values(watch.states).some(({ alarm }) => alarm)) {
      standing += 1;
      for (const one of ahead) if (meet(one, seen)) found.add(one);
    }
    before = window;
    fromMs = timeMs + 1;
  }
  const { name } = recording;
  const inAlarm = windows === 0 ? 0 : standing / windows;
  return { name, referenceRows, windows, alarms, right, labelled: ahead.length, found: found.size, inAlarm };
}

export function firstPart({ rows }: Recording): number {
  return Math.floor(rows.length * referenceShare);
}

/** Every recording beside the first part of itself, and the quiet one also beside the whole of itself. */
export function driftTable(): Judged[] {
  const all = recordings();
  const judged = all.map((one) => judge(one));
  const quiet = all.find(({ anomalies }) => anomalies.length === 0);
  if (quiet !== undefined)
    judged.push({ ...judge(quiet, quiet.rows.length), name: `${quiet.name}, reference of all of it` });
  return judged;
}

const percent = (part: number, whole: number): string =>
  whole === 0 ? '-' : `${part}/${whole} (${Math.round((100 * part) / whole)} %)`;

export function tableText(judged: readonly Judged[]): string {
  const labelled = judged.filter((one) => one.labelled > 0);
  const sum = (pick: (one: Judged) => number): number => labelled.reduce((all, one) => all + pick(one), 0);
  const rows = judged.map((one) => [
    one.name,
    String(one.referenceRows),
    String(one.windows),
    String(one.alarms),
    one.labelled === 0 ? '-' : percent(one.right, one.alarms),
    percent(one.found, one.labelled),
    `${Math.round(one.inAlarm * 100)} %`,
  ]);
  rows.push([
    'all labelled',
    '',
    String(sum(({ windows }) => windows)),
    String(sum(({ alarms }) => alarms)),
    percent(
      sum(({ right }) => right),
      sum(({ alarms }) => alarms),
    ),
    percent(
      sum(({ found }) => found),
      sum((one) => one.labelled),
    ),
    '',
  ]);
  const head = ['recording', 'reference', 'windows', 'alarms', 'precision', 'recall', 'in alarm'];
  const all = [head, head.map(() => '---'), ...rows];
  return all.map((row) => `| ${row.join(' | ')} |`).join('\n');
}
