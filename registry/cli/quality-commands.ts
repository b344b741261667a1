// Why: `lepton labels import` and `lepton quality`: what was right, and how good the releases were by it.
// Trusts: the registry's answers, validated. Must never: send half of a file that has a wrong line.

import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import { parseLabelFile } from '../../shared/wire/label-file.ts';
import {
  type LabelsImported,
  labelsImportedSchema,
  labelsMax,
  type QualityView,
  qualitySchema,
} from '../../shared/wire/quality.ts';
import { connect } from './client.ts';
import { modelRelease } from './evidence-commands.ts';
import { connected, duration, type GlobalFlags, modelId } from './flags.ts';
import { print, table, when } from './output.ts';

async function importLabels(file: string, flags: GlobalFlags): Promise<void> {
  const bytes = await readFile(file).catch((cause: unknown) => {
    throw new FleetError('input-invalid', `cannot read ${file}`, { cause });
  });
  const labels = unwrap(parseLabelFile(bytes));
  const client = connect(flags);
  const sum: LabelsImported = { imported: 0, replaced: 0, unknown: 0, unknownIds: [] };
  for (let at = 0; at < labels.length; at += labelsMax) {
    const some = { labels: labels.slice(at, at + labelsMax) };
    const taken = await client.send('POST', '/api/v1/labels', some, labelsImportedSchema);
    sum.imported += taken.imported;
    sum.replaced += taken.replaced;
    sum.unknown += taken.unknown;
    sum.unknownIds = [...sum.unknownIds, ...taken.unknownIds].slice(0, 10);
  }
  print({ json: flags.json === true }, sum, () =>
    [
      `${sum.imported} labels, ${sum.replaced} in the place of others`,
      ...(sum.unknown === 0
        ? []
        : [`${sum.unknown} wait for a record of their request, among them ${sum.unknownIds.join(', ')}`]),
    ].join('\n'),
  );
}

interface QualityFlags extends GlobalFlags {
  release?: string;
  since: number;
  window?: number;
}

const shown = (share: number | null | undefined): string =>
  share === null || share === undefined ? '-' : share.toFixed(3);

/** Classes in a terminal's height; --json has more. */
const classesShown = 20;

function classesText(release: string, window: QualityView['releases'][number]['windows'][number]): string {
  const left = window.classes.length - classesShown;
  return [
    '',
    `${release} from ${when(window.fromMs)}`,
    table(
      ['CLASS', 'LABELLED', 'ANSWERED', 'PRECISION', 'RECALL', 'F1'],
      window.classes
        .slice(0, classesShown)
        .map((one) => [
          one.label,
          String(one.support),
          String(one.predicted),
          shown(one.precision),
          shown(one.recall),
          shown(one.f1),
        ]),
    ),
    ...(left > 0 ? [`and ${left} more classes: --json has them`] : []),
  ].join('\n');
}

function qualityText({ releases, hint, waitingLabels }: QualityView): string {
  const rows = releases.flatMap(({ release, windows }) =>
    windows.map((one) => [
      release,
      when(one.fromMs),
      String(one.predictions),
      String(one.count),
      shown(one.accuracy),
      shown(one.macro?.precision),
      shown(one.macro?.recall),
      shown(one.macro?.f1),
    ]),
  );
  return [
    table(['RELEASE', 'FROM', 'ANSWERS', 'LABELLED', 'ACCURACY', 'PRECISION', 'RECALL', 'F1'], rows),
    ...(waitingLabels > 0 ? [`${waitingLabels} labels wait for a record of their request`] : []),
    ...(hint === null ? [] : [hint]),
    ...releases.flatMap(({ release, windows }) =>
      windows.filter(({ classes }) => classes.length > 0).map((one) => classesText(release, one)),
    ),
  ].join('\n');
}

async function quality(model: { namespace: string; name: string }, flags: QualityFlags): Promise<void> {
  const name = `${model.namespace}/${model.name}`;
  const query = new URLSearchParams({ since: String(Math.max(0, Date.now() - flags.since)) });
  if (flags.release !== undefined) query.set('release', modelRelease(name, flags.release));
  if (flags.window !== undefined) query.set('window', String(flags.window));
  const view = await connect(flags).get(`/api/v1/models/${name}/quality?${query}`, qualitySchema);
  print({ json: flags.json === true }, view, () => qualityText(view));
}

export function addQualityCommands(program: Command): void {
  const labels = program.command('labels').description('what was right, found out later');
  connected(labels.command('import'))
    .description(
      'labels by request id (one of a kind in the region), from NDJSON or CSV with id or requestId, label and perhaps time',
    )
    .argument('<file>')
    .action(importLabels);

  connected(program.command('quality'))
    .description('accuracy, precision, recall and F1 of the releases of a model, where labels came')
    .argument('<ns/name>', 'the model', modelId)
    .option('--release <version>', 'of this release; of all that answered where absent')
    .option('--since <duration>', 'how far back', duration, 7 * 24 * 3_600_000)
    .option('--window <duration>', 'in parts of this length, e.g. 1d', duration)
    .action(quality);
}
