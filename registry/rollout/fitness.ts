// Why: to which devices a release may not go: those that lack what it needs, those that would go back to one
// that its publisher took back. Trusts: the facts. Must never: take from a device what it runs now.

import { manifestSchema } from '../../shared/wire/manifest.ts';
import type { Reason } from '../../shared/wire/messages.ts';
import { lacking } from '../../shared/wire/requires.ts';
import { mayStay } from '../catalog/staying.ts';
import { fromColumn } from '../fleet/columns.ts';
import type { DesiredRelease, DeviceFact, Member, ModelFact, RolloutFact, RolloutFacts } from './facts.ts';

/** Why the device cannot run the release, by its own last report; null where it can. */
export type Fitness = (device: DeviceFact) => Reason | null;

const incompatible = (detail: string): Reason => ({ code: 'release-incompatible', detail });

/** `requires` as it stands signed in the catalogue. */
export function fitnessOf(requires: string | null): Fitness {
  if (requires === null) return () => null;
  const parsed = manifestSchema.shape.requires.safeParse(fromColumn(requires));
  if (!parsed.success) return () => incompatible('what the release needs cannot be read');
  return ({ agent }) => {
    const { arch, version: agentVersion, memoryMiB } = agent;
    const lacks = lacking(parsed.data, { arch, agentVersion, memoryMiB });
    return lacks === null ? null : incompatible(lacks);
  };
}

/** Of all its releases: one that a device cannot run keeps the others from it. */
export function fitnessFor({ release, companions = [] }: RolloutFact): Fitness {
  const all = [release, ...companions.map((one) => one.release)].map(({ requires }) => fitnessOf(requires));
  return (device) => {
    for (const fits of all) {
      const reason = fits(device);
      if (reason !== null) return reason;
    }
    return null;
  };
}

/** Not assigned by the registry itself, because the device lacks what the release needs. */
export function isUnfit(member: Member): boolean {
  return member.step === 'left' && member.epoch === 0 && member.reason?.code === 'release-incompatible';
}

/** What was good there once goes on at once and alone: windows and companions are for what is new. */
function unheld(release: DesiredRelease): DesiredRelease {
  const { windows, together, ...policy } = release.policy;
  return windows === undefined && together === undefined ? release : { ...release, policy };
}

/**
 * What a device gets in place of what is taken from it: what it ran before, unless nobody may install that
 * any more and it does not stay by itself.
 */
export function goingBack(
  barred: RolloutFacts['barred'],
  device: { model: Pick<ModelFact, 'active' | 'lastGood'> | null },
  previous: DesiredRelease | null,
): { release: DesiredRelease | null; reason: Reason | null } {
  const why = previous === null ? undefined : barred[previous.releaseId];
  if (previous === null || why === undefined || mayStay(why.code, device.model, previous.releaseId))
    return { release: previous === null ? null : unheld(previous), reason: null };
  const detail = `${why.detail}: the device does not go back to it and nothing is assigned in its place`;
  return { release: null, reason: { code: why.code, detail } };
}
