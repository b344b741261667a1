// Why: the table of SECURITY.md, made of the rows themselves, so that it names what is tested and nothing else.
// Trusts: the rows and the results of the last mutation run. Must never: hold a sentence of its own about an attack.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectFolder } from '../support/data.ts';
import type { AttackCase } from './attack-case.ts';

const begin = '<!-- attacks:begin -->';
const end = '<!-- attacks:end -->';

const groups: [AttackCase['group'], string, NonNullable<AttackCase['by']> | 'auditor'][] = [
  ['repository', 'On the catalogue’s repository', 'device'],
  ['fleet', 'On the fleet', 'device'],
  ['region', 'On what regions tell each other', 'registry'],
  ['audit', 'On the audit record (a code is what `lepton audit verify` finds)', 'auditor'],
  ['upload', 'On uploads', 'registry'],
  ['ceremony', 'On key ceremonies', 'registry'],
];

interface MutationSummary {
  checks: number;
  killed: number;
  equivalent: number;
  survivors: number;
}

function mutationLine(): string {
  const path = join(projectFolder, 'test', 'attacks', 'mutation-results.json');
  if (!existsSync(path)) return '';
  const { checks, killed, equivalent, survivors } = JSON.parse(readFileSync(path, 'utf8')) as MutationSummary;
  return [
    `\`npm run mutations\` removes each of ${checks} checks of the trust code in turn: ${killed} turn a row red,`,
    `${equivalent} change nothing (each with its reason in \`test/attacks/equivalent-mutants.json\`),`,
    `${survivors} are left.`,
  ].join('\n');
}

/** Everything between the markers. */
export function attackTable(cases: readonly AttackCase[]): string {
  const wire = cases.filter((one) => one.where === 'wire').length;
  const lines = [
    `${cases.length} attacks, ${wire} of them through the whole agent over a real broker and TLS (\`wire\`), the others`,
    'against the function that decides (`direct`). Written by `node scripts/attack-table.mjs` from `test/attacks/`.',
    '',
    mutationLine(),
  ];
  for (const [group, title, by] of groups) {
    const rows = cases.filter((one) => one.group === group);
    if (rows.length === 0) continue;
    lines.push(
      '',
      `### ${title}`,
      '',
      '| id | attack | code | refused by | shown |',
      '|---|---|---|---|---|',
    );
    for (const one of rows) {
      const pending = one.needs === undefined ? '' : ` (after \`${one.needs}\`)`;
      lines.push(
        `| ${one.id} | ${one.attack} | \`${one.code}\` | ${one.by ?? by} | ${one.where}${pending} |`,
      );
    }
  }
  return `\n${lines.join('\n')}\n\n`;
}

/** SECURITY.md with the table in its place; the text around it is kept. */
export function withAttackTable(text: string, cases: readonly AttackCase[]): string {
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`SECURITY.md has no ${begin} … ${end}`);
  return text.slice(0, from + begin.length) + attackTable(cases) + text.slice(to);
}
