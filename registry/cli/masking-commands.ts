// Why: `lepton masking`: what of a record leaves no device, or leaves it changed; and a look at what rules would do.
// Trusts: the registry's answers, validated. Must never: send a file that it could not read itself.

import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { FleetError, unwrap } from '../../shared/kernel/errors.ts';
import {
  type MaskingRule,
  type MaskingView,
  maskingFileSchema,
  maskingViewSchema,
} from '../../shared/wire/masking.ts';
import { readYamlFile } from '../policy/yaml-file.ts';
import { connect } from './client.ts';
import { connected, type GlobalFlags } from './flags.ts';
import { print, table, when } from './output.ts';

const path = '/api/v1/masking';

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new FleetError('disk-io', `cannot read ${file}`, {
      cause,
      hint: 'check the path and its permissions',
    });
  }
}

const rulesIn = (file: string): readonly MaskingRule[] =>
  unwrap(readYamlFile(readText(file), maskingFileSchema, 'masking-file-invalid')).data.rules;

function wordsOf(rule: MaskingRule): string {
  if (rule.do === 'round') return `round to ${rule.to}`;
  if (rule.do !== 'clip') return rule.do;
  return `clip to ${rule.min ?? '-'} … ${rule.max ?? '-'}`;
}

function text(view: MaskingView): string {
  if (view.rules.length === 0) return 'no rules: records leave devices as they are';
  const rows = view.rules.map((rule) => [
    rule.field.join('.'),
    wordsOf(rule),
    rule.classes?.join(', ') ?? 'app, sample',
    rule.model ?? '(all)',
  ]);
  return [
    table(['FIELD', 'WAY', 'CLASSES', 'MODEL'], rows),
    `key of the digests made ${when(view.keyMadeAtMs)}`,
  ].join('\n');
}

export function addMaskingCommands(program: Command): void {
  const masking = program
    .command('masking')
    .description('rules that devices apply to records before they seal them');
  const shown = (flags: GlobalFlags, view: MaskingView): void =>
    print({ json: flags.json === true }, view, () => text(view));

  connected(masking.command('show'))
    .description('the rules in force')
    .action(async (flags: GlobalFlags) => shown(flags, await connect(flags).get(path, maskingViewSchema)));

  connected(masking.command('set'))
    .description('put the rules of a file in force; devices apply them from their next assignment on')
    .requiredOption('-f, --file <file>', 'YAML or JSON: apiVersion: lepton/v1, kind: Masking, rules')
    .option('--new-key', 'digests of before and after cannot be compared any more')
    .action(async (flags: GlobalFlags & { file: string; newKey?: boolean }) => {
      const rules = rulesIn(flags.file);
      const wanted = { rules, newKey: flags.newKey === true };
      shown(flags, await connect(flags).send('PUT', path, wanted, maskingViewSchema));
    });

  connected(masking.command('clear'))
    .description('no rules any more')
    .action(async (flags: GlobalFlags) =>
      shown(flags, await connect(flags).send('PUT', path, { rules: [] }, maskingViewSchema)),
    );
}
