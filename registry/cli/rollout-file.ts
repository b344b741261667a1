// Why: a rollout file as a person names it, read and checked before anything is sent.
// Trusts: nothing in the file. Must never: let a file through that the registry would refuse to read.

import { readFileSync } from 'node:fs';
import { FleetError } from '../../shared/kernel/errors.ts';
import type { RolloutFile } from '../../shared/wire/rollout-file.ts';
import { parseRolloutFile } from '../rollout/file.ts';

/** `-`: standard input. Faults: `rollout-file-invalid`, `rollout-unsupported`, with the place. */
export function readRolloutFile(path: string): { text: string; file: RolloutFile } {
  let text: string;
  try {
    text = readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (cause) {
    throw new FleetError('rollout-file-invalid', `cannot read ${path}: ${String(cause)}`, { cause });
  }
  const checked = parseRolloutFile(text);
  if (!checked.ok) throw new FleetError(checked.refusal.code, `${path}: ${checked.refusal.detail}`);
  return { text, file: checked.value };
}
