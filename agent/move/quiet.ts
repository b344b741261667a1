// Why: a device must not leave its region in the middle of an update: whether one is.
// Trusts: the update machine for its states. Must never: let a download, which may take days, hold a move up.

import type { MachineStateName, ReportedModel } from '../../shared/wire/messages.ts';

const middle: ReadonlySet<MachineStateName> = new Set<MachineStateName>([
  'verifying',
  'staging',
  'probing',
  'shadowing',
  'switching',
  'soaking',
  'rolling-back',
]);

/** The first model that is between two releases, or null. */
export function inTheMiddle(models: readonly ReportedModel[]): ReportedModel | null {
  return models.find(({ state }) => middle.has(state)) ?? null;
}
