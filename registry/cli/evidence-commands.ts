// Why: `lepton drift`: whether a model still sees what it was made for, as a table with shapes.
// Trusts: the registry's answers, validated. Must never: decide anything itself, or end with a failure for a drift.

import { type Command, InvalidArgumentError } from 'commander';
import { type DriftFeature, type DriftGroup, type DriftView, driftSchema } from '../../shared/wire/drift.ts';
import { connect } from './client.ts';
import { connected, duration, type GlobalFlags, modelId } from './flags.ts';
import { print, table, when } from './output.ts';
import { sparkline } from './sparkline.ts';

interface DriftFlags extends GlobalFlags {
  release?: string;
  since: number;
  device?: string;
  by?: string;
  all?: boolean;
}

const shown = (value: number | null | undefined): string =>
  value === null || value === undefined ? '-' : value.toFixed(3);

function nameOf({ role, tensor, index, of }: DriftFeature): string {
  return `${role} ${tensor}[${index}]${of === 'value' ? '' : ` ${of}`}`;
}

/** Of both thresholds the one that counts. */
function bound({ thresholds }: DriftFeature, measure: 'psi' | 'js' | 'ks'): string {
  return Math.max(thresholds.fixed[measure], thresholds.learned?.[measure] ?? 0).toFixed(2);
}

function cell(feature: DriftFeature, measure: 'psi' | 'js' | 'ks'): string {
  if (feature.distances === null) return '-';
  const mark = feature.exceeded.includes(measure) ? '!' : ' ';
  return `${shown(feature.distances[measure])}/${bound(feature, measure)}${mark}`;
}

/** The worst first. */
const severity = ({ verdict, distances }: DriftFeature): number =>
  (verdict === 'drift' ? 1_000 : verdict === 'ok' ? 100 : 0) + Math.min(99, distances?.psi ?? 0);

/** Features in a terminal's height; --all and --json have them all. */
const featuresShown = 20;

function groupText(group: DriftGroup, all: boolean): string {
  const features = [...group.features].sort((a, b) => severity(b) - severity(a));
  const some = all ? features : features.slice(0, featuresShown);
  const devices = group.devices === 1 ? '1 device' : `${group.devices} devices`;
  const sampled = group.rows < group.seenRows ? ` of ${group.seenRows} (sampled)` : '';
  const left = features.length - some.length;
  return [
    `${group.group}: ${group.verdict}   ${devices}, ${group.rows} rows counted${sampled}`,
    table(
      [
        'VERDICT',
        'FEATURE',
        'PSI',
        'JS',
        'KS',
        'WASSERSTEIN',
        'COUNT',
        'MISSING',
        'OUT',
        'REFERENCE',
        'LIVE',
      ],
      some.map((feature) => [
        feature.verdict,
        nameOf(feature),
        cell(feature, 'psi'),
        cell(feature, 'js'),
        cell(feature, 'ks'),
        shown(feature.distances?.wasserstein),
        String(feature.live.count),
        `${feature.live.missing}${feature.exceeded.includes('missing') ? '!' : ''}`,
        String(feature.live.outOfRange),
        `│${sparkline(feature.reference.shares)}│`,
        `│${sparkline(feature.live.shares)}│`,
      ]),
    ),
    ...(left > 0 ? [`and ${left} more features: --all shows them`] : []),
  ].join('\n');
}

function driftText(view: DriftView, all: boolean): string {
  const { requests, errors, latencyMs } = view.requests;
  const failed = Object.values(errors).reduce((sum, one) => sum + one, 0);
  const latency =
    latencyMs === null
      ? ''
      : `, latency p50 ${latencyMs.p50} ms, p95 ${latencyMs.p95} ms, p99 ${latencyMs.p99} ms`;
  return [
    `${view.release ?? view.model}: ${view.verdict}   ${when(view.fromMs)} to ${when(view.untilMs)}`,
    ...(view.release === null ? [] : [`${requests} requests, ${failed} failed${latency}`]),
    ...(view.hint === null ? [] : [view.hint]),
    ...view.groups.flatMap((group) => ['', groupText(group, all)]),
  ].join('\n');
}

/** `VERSION`, or `NS/NAME@VERSION` of the same model. */
export function modelRelease(model: string, text: string): string {
  if (!text.includes('@')) return `${model}@${text}`;
  if (!text.startsWith(`${model}@`))
    throw new InvalidArgumentError(`--release names another model than ${model}: ${text}`);
  return text;
}

async function drift(model: { namespace: string; name: string }, flags: DriftFlags): Promise<void> {
  const { namespace, name } = model;
  const query = new URLSearchParams({ since: String(Math.max(0, Date.now() - flags.since)) });
  if (flags.release !== undefined) query.set('release', modelRelease(`${namespace}/${name}`, flags.release));
  if (flags.device !== undefined) query.set('device', flags.device);
  if (flags.by !== undefined) query.set('by', flags.by);
  const path = `/api/v1/models/${namespace}/${name}/drift?${query}`;
  const view = await connect(flags).get(path, driftSchema);
  print({ json: flags.json === true }, view, () => driftText(view, flags.all === true));
}

const dayMs = 24 * 3_600_000;

export function addEvidenceCommands(program: Command): void {
  connected(program.command('drift'))
    .description('what devices saw and answered beside the reference profile of the release')
    .argument('<ns/name>', 'the model', modelId)
    .option('--release <version>', 'of this release; the newest with a profile where absent')
    .option('--since <duration>', 'how far back, e.g. 24h or 7d, by the devices’ clocks', duration, dayMs)
    .option('--device <id>', 'of one device')
    .option('--by <label>', 'beside the fleet a group for each value of this label')
    .option('--all', 'every feature, not the worst twenty of each group')
    .action(drift);
}
