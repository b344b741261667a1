// Why: another try for the devices on which a rollout failed, as a rollout of its own: a device does not try the same
// bytes for the same rollout twice, and what the first try showed stays as it was.
// Trusts: the same facts and judgements as the controller. Must never: try again where the first is not over.

import type { RolloutFile } from '../../shared/wire/rollout-file.ts';
import type { RolloutFacts } from './facts.ts';
import { outcomeOf } from './members.ts';

/** Devices on which the release failed by their own reports, in the order of their ids. */
export function failedDevices({ rollout, devices, nowMs }: RolloutFacts): string[] {
  const failed = devices.filter(
    (device) => device.member !== null && outcomeOf(rollout, device, device.member, nowMs).kind === 'failed',
  );
  return failed.map(({ id }) => id);
}

/** The file of the first try, for these devices alone. */
export function retryFile({ rollout }: RolloutFacts, devices: readonly string[]): RolloutFile {
  const { name, spec } = rollout;
  const selector = { matchLabels: {}, matchExpressions: [], devices: [...devices] };
  return { apiVersion: 'lepton/v1', kind: 'Rollout', metadata: { name }, spec: { ...spec, selector } };
}
