// Why: the report of models as Markdown that people read from top to bottom.
// Trusts: the report's schema. Must never: let words of a publisher or a device end a table, or look like the report's own.

import type { MergedCells } from '../../shared/wire/cells.ts';
import { english, type Speaker } from '../../shared/wire/languages.ts';
import type { ModelsReport, OwnFacts, ReleaseReport } from '../../shared/wire/model-report.ts';

const dayMs = 86_400_000;

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029]+/g;
const cell = (text: string | number): string =>
  String(text)
    .replace(/[\r\n\t]+/g, ' ')
    .replace(controls, '')
    .replace(/([\\|`*_<>[\]])/g, '\\$1');

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
const minuteOf = (ms: number): string => new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
const atLeast = (count: number, untold: number): string => `${count}${untold > 0 ? ' or more' : ''}`;

function table({ word }: Speaker, head: string[], rows: (string | number)[][]): string[] {
  return [
    `| ${head.map(word).join(' | ')} |`,
    `|${head.map(() => '---').join('|')}|`,
    ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
  ];
}

const errorsText = (errors: Record<string, number>): string =>
  Object.entries(errors)
    .map(([code, count]) => `${cell(code)} ${count}`)
    .join(', ');

const latencyText = (latency: { p50: number; p95: number; p99: number } | null): string =>
  latency === null ? 'not told' : `p50 ${latency.p50} ms, p95 ${latency.p95} ms, p99 ${latency.p99} ms`;

const featureName = ({
  role,
  tensor,
  index,
  of,
}: {
  role: string;
  tensor: string;
  index: number;
  of: string;
}) => `${role} ${tensor}[${index}]${of === 'value' ? '' : ` ${of}`}`;

function cellsLines(cells: MergedCells | null): string[] {
  if (cells === null) return ['- No region tells of it: too few devices, or too early.'];
  const errors = errorsText(cells.errors);
  const { answered, answeredUntold, failed, failedUntold } = cells;
  const days = `${dayOf(cells.fromDay * dayMs)} to ${dayOf(cells.untilDay * dayMs)}`;
  return [
    `- ${cells.devicesAtLeast} or more devices in ${cells.regions.map(cell).join(', ')}; ${cells.cells} cell${cells.cells === 1 ? '' : 's'}, ${days}`,
    `- ${atLeast(answered, answeredUntold)} answered, ${atLeast(failed, failedUntold)} failed${errors === '' ? '' : ` (${errors})`}`,
    ...(cells.kind === 'release' ? [`- Latency: ${latencyText(cells.latencyMs)}`] : []),
    ...cells.energy.map(
      ({ source, method, joulesPer1000 }) =>
        `- Energy: ${joulesPer1000} J for 1,000 answers, ${source} (${method})`,
    ),
    ...(cells.kind === 'release' ? [`- Drift: ${cells.verdict}`] : []),
  ];
}

function featureTable(
  voice: Speaker,
  features: readonly (NonNullable<MergedCells['features']>[number] | OwnFacts['features'][number])[],
) {
  if (features.length === 0) return [];
  const rows = features.map((one) => [
    featureName(one),
    voice.word(one.verdict),
    one.psi === null ? '-' : one.psi.toFixed(3),
    one.count,
    voice.say('bins' in one ? `${one.bins} of ${one.binsAll}` : 'all'),
  ]);
  return ['', ...table(voice, ['Feature', 'Verdict', 'PSI', 'Counts', 'Bins told'], rows)];
}

function ownLines(own: OwnFacts): string[] {
  const errors = errorsText(own.errors);
  const energy = own.energy.map(({ source, method, devices, joulesPer1000 }) =>
    joulesPer1000 === null
      ? `- Energy: unknown on ${devices} device${devices === 1 ? '' : 's'}`
      : `- Energy: ${joulesPer1000} J for 1,000 answers, ${source} (${method}), ${devices} device${devices === 1 ? '' : 's'}`,
  );
  return [
    `- ${own.requests} requests${errors === '' ? ', none failed' : `, failed: ${errors}`}`,
    `- Latency: ${latencyText(own.latencyMs)}`,
    ...energy,
    `- Drift: ${own.drift}`,
  ];
}

const statusWords: Record<ReleaseReport['status'], string> = {
  available: 'available',
  'release-withdrawn': '**withdrawn** by its publisher',
  'release-below-floor': '**below the floor** that its publisher signed',
  'release-lost': '**lost**: the catalogue that devices hold does not name it',
};

/** Quoted, so that no line of it stands beside the report's own. */
function cardLines({ say }: Speaker, { text, truncated }: NonNullable<ReleaseReport['card']>): string[] {
  const lines = text
    .replace(/\r\n?/g, '\n')
    .replace(controls, '')
    .replaceAll('<', '&lt;')
    .trimEnd()
    .split('\n');
  return [
    ...['', say('#### Card, in its publisher’s words'), ''],
    ...lines.map((line) => `> ${line}`.trimEnd()),
    ...(truncated ? ['', say('The card is longer than is shown here.')] : []),
  ];
}

function runsLines({ probes, runs }: ReleaseReport): string[] {
  const states = Object.entries(runs.states).map(([state, count]) => `${count} ${cell(state)}`);
  const tried =
    probes === null
      ? '- Golden cases: no device has tried it'
      : `- Golden cases: all of ${probes.goldenCases} right on ${probes.devicesPassed} of ${probes.devices} device${probes.devices === 1 ? '' : 's'}; p95 ${Number(probes.latencyP95MsMedian.toPrecision(4))} ms in the middle, at most ${(probes.memoryBytesPeakMax / 1_048_576).toFixed(1)} MiB`;
  return [
    `- Serving on ${runs.active} device${runs.active === 1 ? '' : 's'} here${states.length === 0 ? '' : `; to be run by: ${states.join(', ')}`}`,
    ...runs.regions.map(
      ({ region, devicesAtLeast, lastDay }) =>
        `- ${cell(region)}: ${devicesAtLeast} or more devices on ${dayOf(lastDay * dayMs)}`,
    ),
    tried,
    ...(probes?.firstFailure ? [`- First wrong case: ${cell(probes.firstFailure)}`] : []),
  ];
}

function incidentLines(voice: Speaker, { incidents }: ReleaseReport): string[] {
  const { say, word } = voice;
  if (incidents.length === 0) return [say('None in this time.')];
  return table(
    voice,
    ['When', 'What', 'Code', 'Times', 'In words'],
    incidents.map(({ atMs, kind, code, count, detail }) => [
      minuteOf(atMs),
      word(kind),
      code,
      count,
      say(detail).slice(0, 300),
    ]),
  );
}

function releaseLines(voice: Speaker, report: ReleaseReport, floor: number): string[] {
  const { say } = voice;
  const { release, counter, digest, files, cells, own, card, metrics } = report;
  return [
    ...['', `### ${release}`, ''],
    ...[
      `- ${statusWords[report.status]}; counter ${counter} (floor ${floor}), manifest ${digest.slice(0, 16)}…, ${report.bytes} bytes in ${files.length} file${files.length === 1 ? '' : 's'}`,
      `- Pushed by ${cell(report.pushedBy)} on ${minuteOf(report.pushedAtMs)}, signed by ${report.signedBy.map((id) => cell(id.slice(0, 16))).join(', ')}`,
      ...(metrics ?? []).map(
        (line) => `- Card, of the test part: ${line.replace(controls, '').replaceAll('<', '&lt;')}`,
      ),
      ...['', '#### Where it runs', '', ...runsLines(report)],
      ...['', '#### What regions tell', '', ...cellsLines(cells)],
    ].map(say),
    ...featureTable(voice, cells?.features ?? []),
    ...(own === null
      ? []
      : [
          ...['', say('#### What this region’s devices told'), '', ...ownLines(own).map(say)],
          ...featureTable(voice, own.features),
        ]),
    ...['', say('#### Incidents'), '', ...incidentLines(voice, report)],
    ...(card === null ? [] : cardLines(voice, card)),
  ];
}

/** What publishers and devices said stays as it is, but for messages of our own. */
export function modelsMarkdown(report: ModelsReport, voice: Speaker = english): string {
  const { say } = voice;
  const { region, madeAtMs, sinceMs, models, truncated } = report;
  return [
    say('# Models'),
    '',
    say(
      `Region ${cell(region)}, made ${minuteOf(madeAtMs)} UTC, from ${dayOf(sinceMs)} on. What regions tell are cells: sums of one release and UTC day over enough devices, published once. “Or more”: some cell does not tell its part. Latencies are of what enough devices have: requests that were slower on a few devices alone count as the slowest of the others.`,
    ),
    ...models.flatMap((model) => [
      ...['', `## ${model.name}`, ''],
      ...(model.cells === null ? [] : ['All releases together:', '', ...cellsLines(model.cells)].map(say)),
      ...model.releases.flatMap((release) => releaseLines(voice, release, model.floor)),
    ]),
    ...(models.length === 0 ? ['', say('There is no release.')] : []),
    ...(truncated ? ['', say('There are more releases: ask for one model.')] : []),
    '',
  ]
    .join('\n')
    .replace(/\n{3,}/g, '\n\n');
}
