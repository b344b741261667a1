// Why: `lepton report`: documents for those who have to answer for a region or a model, and were not there.
// Trusts: the registry's answers, validated. Must never: make up a number that the registry did not tell, or leave out of the
// Markdown that something is not told.

import { type Command, InvalidArgumentError, Option } from 'commander';
import { speaker } from '../../shared/host/speech.ts';
import { parseModelId, parseReleaseId } from '../../shared/kernel/releases.ts';
import { modelsReportSchema } from '../../shared/wire/model-report.ts';
import { residencyReportSchema } from '../../shared/wire/residency-report.ts';
import { durationSchema } from '../../shared/wire/rollout-file.ts';
import { modelsMarkdown } from '../reports/models.ts';
import { residencyJson, residencyMarkdown } from '../reports/residency.ts';
import { connect } from './client.ts';
import { connected, duration, type GlobalFlags } from './flags.ts';
import { writeOut } from './output.ts';

interface ReportFlags extends GlobalFlags {
  format: 'md' | 'json';
}

const asJson = (flags: ReportFlags): boolean => flags.json === true || flags.format === 'json';
const formatOption = (): Option =>
  new Option('--format <format>', 'Markdown, or the facts as JSON').choices(['md', 'json']).default('md');

/** `2026-01-31`, or so long ago: `30d`. */
function dayArgument(text: string): number {
  const ago = durationSchema.safeParse(text);
  if (ago.success) return Math.max(0, Date.now() - ago.data);
  const timeMs = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : Number.NaN;
  if (!Number.isSafeInteger(timeMs) || timeMs < 0)
    throw new InvalidArgumentError('Expected a day such as 2026-01-31, or how long ago, such as 30d.');
  return timeMs;
}

async function residency(flags: ReportFlags & { since?: number; until?: number }): Promise<void> {
  const query = new URLSearchParams();
  if (flags.since !== undefined) query.set('since', String(flags.since));
  if (flags.until !== undefined) query.set('until', String(flags.until));
  const facts = await connect(flags).get(`/api/v1/reports/residency?${query}`, residencyReportSchema);
  await writeOut(asJson(flags) ? residencyJson(facts) : residencyMarkdown(facts, speaker()));
}

function subject(text: string): string {
  if (parseModelId(text) === null && parseReleaseId(text) === null)
    throw new InvalidArgumentError('Expected NAMESPACE/NAME or NAMESPACE/NAME@VERSION.');
  return text;
}

async function models(model: string | undefined, flags: ReportFlags & { since: number }): Promise<void> {
  const query = new URLSearchParams({ since: String(Math.max(0, Date.now() - flags.since)) });
  if (model !== undefined) query.set('model', model);
  const report = await connect(flags).get(`/api/v1/reports/models?${query}`, modelsReportSchema);
  await writeOut(asJson(flags) ? `${JSON.stringify(report)}\n` : modelsMarkdown(report, speaker()));
}

const dayMs = 86_400_000;

export function addReportCommands(program: Command): void {
  const report = program
    .command('report')
    .description('documents for those who have to answer for a region or a model');

  connected(report.command('residency'))
    .description('what left the region under which rule, what was refused, what is kept and what for')
    .option('--since <day>', 'first day (UTC), or how long ago (default: 30d)', dayArgument)
    .option('--until <day>', 'last day (UTC), or how long ago (default: today)', dayArgument)
    .addOption(formatOption())
    .action(residency);

  connected(report.command('models'))
    .description('releases: card, metrics, golden cases, where they run, requests, drift, energy, incidents')
    .argument('[ns/name[@version]]', 'one model or release; all of them where absent', subject)
    .addOption(formatOption())
    .option('--since <duration>', 'how far back, whole days for what regions tell', duration, 30 * dayMs)
    .action(models);
}
