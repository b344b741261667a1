// Why: what it means that several releases go out as one: their names, and what each device is told of the others.
// Trusts: nothing; pure. Must never: name a release its own companion.

import type { ActivationPolicy } from '../../shared/wire/messages.ts';
import type { RolloutFact } from './facts.ts';

/** Every name under which the rollout changes what a device serves, its own first. */
export const namesOf = ({ as, companions = [] }: Pick<RolloutFact, 'as' | 'companions'>): string[] => [
  as,
  ...companions.map((one) => one.as),
];

/** For people: all its releases, where there are several. */
export const together = ({ release, companions = [] }: Pick<RolloutFact, 'release' | 'companions'>) =>
  companions.length === 0
    ? {}
    : { releases: [release.releaseId, ...companions.map((one) => one.release.releaseId)] };

/** What the device is told of the others. */
export function togetherWith(
  rollout: Pick<RolloutFact, 'as' | 'companions'>,
  as: string,
  policy: ActivationPolicy,
): ActivationPolicy {
  const others = namesOf(rollout).filter((name) => name !== as);
  return others.length === 0 ? policy : { ...policy, together: others };
}
