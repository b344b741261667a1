// Why: `lepton cells`: what this region and others tell of their devices' days, as tables.
// Trusts: the registry's answers, validated. Must never: ask for a set of devices or hours of its own making.

import { type Command, InvalidArgumentError } from 'commander';
import { FleetError } from '../../shared/kernel/errors.ts';
import { parseModelId, parseReleaseId } from '../../shared/kernel/releases.ts';
import { sketchQuantile } from '../../shared/stats/sketch.ts';
import {
  type CellFeature,
  type CellList,
  type CellStatement,
  cellListSchema,
  type MergedCells,
  mergedListSchema,
} from '../../shared/wire/cells.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags, modelId, releaseId } from './flags.ts';
import { print, table } from './output.ts';
import { sparkline } from './sparkline.ts';

interface ListFlags extends GlobalFlags {
  release?: { namespace: string; name: string; version: string };
  model?: { namespace: string; name: string };
  from?: number;
  to?: number;
  region?: string;
  allRegions?: boolean;
}

const dayMs = 86_400_000;

export function dayFlag(text: string): number {
  const timeMs = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isFinite(timeMs)) throw new InvalidArgumentError('Expected a day such as 2026-11-01 (UTC).');
  return timeMs;
}

export const dayText = (day: number): string => new Date(day * dayMs).toISOString().slice(0, 10);
const shown = (value: number | null): string => (value === null ? 'withheld' : String(value));
const atLeast = (devices: number): string => `${devices}+`;

function quantile({ latency }: CellStatement, fraction: number): string {
  if (latency === null) return '-';
  const counts = new Map(latency);
  const count = latency.reduce((sum, [, one]) => sum + one, 0);
  const found = sketchQuantile({ counts, count, max: Number.POSITIVE_INFINITY }, fraction);
  return found === null ? '-' : String(Number(found.toPrecision(3)));
}

function withheldText({ withheld, lateRecords, truncated, region }: CellList): string[] {
  return [
    ...(truncated ? ['more than an answer may have: ask for fewer days with --from and --to'] : []),
    ...(withheld.count === 0 ? [] : [`${withheld.count} withheld in ${region}`]),
    ...(lateRecords === 0
      ? []
      : [`${lateRecords} records came after their day was closed and are in no cell`]),
  ];
}

function reasonsText(list: NonNullable<CellList['withheld']['list']>): string[] {
  if (list.length === 0) return [];
  const rows = list.map(({ day, subject, part, rule }) => [dayText(day), subject, part, rule]);
  return ['', table(['WITHHELD', 'SUBJECT', 'PART', 'RULE'], rows)];
}

function listText(list: CellList): string {
  const rows = list.cells.map((cell) => [
    dayText(cell.day),
    cell.region,
    cell.subject,
    atLeast(cell.devicesAtLeast),
    shown(cell.answered),
    shown(cell.failed),
    quantile(cell, 0.5),
    quantile(cell, 0.95),
    cell.energy.map(({ method, joulesPer1000 }) => `${joulesPer1000} ${method}`).join(', ') || '-',
  ]);
  const head = ['DAY', 'REGION', 'SUBJECT', 'DEVICES', 'ANSWERED', 'FAILED', 'P50 MS', 'P95 MS', 'J/1000'];
  return [table(head, rows), ...withheldText(list), ...reasonsText(list.withheld.list ?? [])].join('\n');
}

function mergedText(merged: readonly MergedCells[]): string {
  const rows = merged.map((one) => [
    one.subject,
    one.regions.join(','),
    one.fromDay === one.untilDay ? dayText(one.fromDay) : `${dayText(one.fromDay)}..${dayText(one.untilDay)}`,
    String(one.cells),
    atLeast(one.devicesAtLeast),
    `${one.answered}${one.answeredUntold > 0 ? '+' : ''}`,
    `${one.failed}${one.failedUntold > 0 ? '+' : ''}`,
    one.latencyMs === null ? '-' : `${one.latencyMs.p50}/${one.latencyMs.p95}/${one.latencyMs.p99}`,
    one.energy.map(({ method, joulesPer1000 }) => `${joulesPer1000} ${method}`).join(', ') || '-',
    one.verdict,
  ]);
  const head = [
    ...['SUBJECT', 'REGIONS', 'DAYS', 'CELLS', 'DEVICES', 'ANSWERED', 'FAILED', 'P50/P95/P99 MS', 'J/1000'],
    'DRIFT',
  ];
  const features = merged.flatMap(({ subject, features: of }) =>
    (of ?? []).map((one) => [
      subject,
      `${one.role} ${one.tensor}[${one.index}]${one.of === 'value' ? '' : ` ${one.of}`}`,
      one.verdict,
      one.psi === null ? '-' : `${one.psi.toFixed(3)}/${one.threshold.toFixed(2)}`,
      String(one.count),
      `${one.bins} of ${one.binsAll}`,
    ]),
  );
  const featureTable =
    features.length === 0
      ? []
      : ['', table(['SUBJECT', 'FEATURE', 'VERDICT', 'PSI', 'COUNT', 'BINS TOLD'], features)];
  return [table(head, rows), ...featureTable].join('\n');
}

/** A number followed by `+` is at least that: some cell does not tell its part. */
async function list(flags: ListFlags): Promise<void> {
  const query = new URLSearchParams();
  const { release, model, from, to, region } = flags;
  if (release !== undefined) query.set('release', `${release.namespace}/${release.name}@${release.version}`);
  if (model !== undefined) query.set('model', `${model.namespace}/${model.name}`);
  if (from !== undefined) query.set('from', String(from));
  if (to !== undefined) query.set('to', String(to));
  if (region !== undefined) query.set('region', region);
  const output = { json: flags.json === true };
  const client = connect(flags);
  if (flags.allRegions === true) {
    const found = await client.get(`/api/v1/cells/merged?${query}`, mergedListSchema);
    print(output, found, () => mergedText(found.merged));
    return;
  }
  const found = await client.get(`/api/v1/cells?${query}`, cellListSchema);
  print(output, found, () => listText(found));
}

function featureText(feature: CellFeature): string[] {
  const { role, tensor, index, of, counts, missing, pooled } = feature;
  const all = counts.reduce<number>((sum, one) => sum + (one ?? 0), pooled);
  const told = counts.filter((one) => one !== null).length;
  return [
    `${role} ${tensor}[${index}]${of === 'value' ? '' : ` ${of}`}`,
    `${told} of ${counts.length}`,
    String(pooled),
    shown(missing),
    `│${sparkline(counts.map((one) => (all === 0 ? 0 : (one ?? 0) / all)))}│`,
  ];
}

function cellText(cell: CellStatement): string {
  const { day, region, subject, devicesMin, dominancePercent, features } = cell;
  const errors = Object.entries(cell.errors ?? {}).map(([code, count]) => `${code} ${count}`);
  const latency = ['0.5', '0.95', '0.99'].map(
    (text) => `p${Number(text) * 100} ${quantile(cell, Number(text))}`,
  );
  return [
    `${subject}, ${dayText(day)}, ${region}`,
    `devices   ${cell.devicesAtLeast} or more; no number is of fewer than ${devicesMin}, or known to ${dominancePercent} % by one of them`,
    `answered  ${shown(cell.answered)}`,
    `failed    ${shown(cell.failed)}${errors.length === 0 ? '' : ` (${errors.join(', ')})`}`,
    ...(cell.kind === 'model'
      ? []
      : [`latency   ${cell.latency === null ? 'withheld' : `${latency.join(', ')} ms`}`]),
    ...cell.energy.map(
      ({ method, joulesPer1000 }) => `energy    ${joulesPer1000} J for 1,000 answers (${method})`,
    ),
    ...(features === null
      ? []
      : [
          `features  of ${features.rows} rows (${features.seenRows} seen), profile ${features.profileSha256.slice(0, 12)}`,
          table(['FEATURE', 'BINS TOLD', 'POOLED', 'MISSING', 'COUNTS'], features.features.map(featureText)),
        ]),
  ].join('\n');
}

async function show(subject: string, flags: GlobalFlags & { day: number; region?: string }): Promise<void> {
  const isRelease = parseReleaseId(subject) !== null;
  if (!isRelease && parseModelId(subject) === null)
    throw new FleetError('config-invalid', `${subject} is neither NS/NAME@VERSION nor NS/NAME`);
  const query = new URLSearchParams({
    [isRelease ? 'release' : 'model']: subject,
    from: String(flags.day),
    to: String(flags.day),
  });
  const found = await connect(flags).get(`/api/v1/cells?${query}`, cellListSchema);
  const region = flags.region ?? found.region;
  const cell = found.cells.find((one) => one.subject === subject && one.region === region);
  if (cell === undefined)
    throw new FleetError(
      'not-found',
      `${region} tells nothing of ${subject} on ${dayText(flags.day / dayMs)}`,
      {
        hint: 'a day is published a day after its end; lepton cells list shows what is withheld, and why',
      },
    );
  print({ json: flags.json === true }, cell, () => cellText(cell));
}

export function addCellCommands(program: Command): void {
  const cells = program
    .command('cells')
    .description('what regions tell of their devices: fixed sums of one release and day, of enough devices');

  connected(cells.command('list'))
    .description('published cells, and how much of this region is withheld')
    .option('--release <ns/name@version>', 'of this release', releaseId)
    .option('--model <ns/name>', 'of this model’s releases and of all of them together', modelId)
    .option('--from <day>', 'first day, UTC; a month back where absent', dayFlag)
    .option('--to <day>', 'last day, UTC', dayFlag)
    .option('--region <name>', 'of this region alone')
    .option('--all-regions', 'add the cells of all regions up, by release and model')
    .action(list);

  connected(cells.command('show'))
    .description('one cell with everything that it tells')
    .argument('<ns/name[@version]>', 'a release, or a model for all of its releases')
    .requiredOption('--day <day>', 'UTC', dayFlag)
    .option('--region <name>', 'of another region than this registry’s')
    .action(show);
}
