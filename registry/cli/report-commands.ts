// Why: `lepton report`: documents for those who have to answer for a region.
// Trusts: the registry's answers, validated. Must never: make up a number that the registry did not tell.

import { type Command, InvalidArgumentError, Option } from 'commander';
import { residencyReportSchema } from '../../shared/wire/residency-report.ts';
import { durationSchema } from '../../shared/wire/rollout-file.ts';
import { residencyJson, residencyMarkdown } from '../reports/residency.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags } from './flags.ts';
import { writeOut } from './output.ts';

/** `2026-01-31`, or so long ago: `30d`. */
function dayArgument(text: string): number {
  const ago = durationSchema.safeParse(text);
  if (ago.success) return Math.max(0, Date.now() - ago.data);
  const timeMs = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : Number.NaN;
  if (!Number.isSafeInteger(timeMs) || timeMs < 0)
    throw new InvalidArgumentError('Expected a day such as 2026-01-31, or how long ago, such as 30d.');
  return timeMs;
}

interface ResidencyFlags extends GlobalFlags {
  since?: number;
  until?: number;
  format: 'md' | 'json';
}

export function addReportCommands(program: Command): void {
  const report =
    program.commands.find((one) => one.name() === 'report') ??
    program.command('report').description('documents for those who have to answer for a region');

  connected(report.command('residency'))
    .description('what left the region under which rule, what was refused, what is kept and what for')
    .option('--since <day>', 'first day (UTC), or how long ago (default: 30d)', dayArgument)
    .option('--until <day>', 'last day (UTC), or how long ago (default: today)', dayArgument)
    .addOption(
      new Option('--format <format>', 'Markdown, or the facts as JSON').choices(['md', 'json']).default('md'),
    )
    .action(async (flags: ResidencyFlags) => {
      const query = new URLSearchParams();
      if (flags.since !== undefined) query.set('since', String(flags.since));
      if (flags.until !== undefined) query.set('until', String(flags.until));
      const facts = await connect(flags).get(`/api/v1/reports/residency?${query}`, residencyReportSchema);
      const json = flags.json === true || flags.format === 'json';
      await writeOut(json ? residencyJson(facts) : residencyMarkdown(facts));
    });
}
