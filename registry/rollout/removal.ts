// Why: a rollout that takes a model away is one that gives a release of no bytes: what a device is to run under a name is
// written down also where it is nothing, or an earlier rollout would give it back to whoever comes later.
// Trusts: nothing. Must never: reach a device: an assignment leaves such a name out.

import type { DesiredRelease, ModelFact } from './facts.ts';

/** In place of a release: `NS/NAME` without a version. */
export function removalOf(modelId: string): Omit<DesiredRelease, 'rolloutId' | 'policy'> {
  return { releaseId: modelId, manifestSha256: '', manifestBytes: 0, counter: 0, requires: null };
}

/** No manifest is empty. */
export const isRemoval = (release: Pick<DesiredRelease, 'manifestBytes'>): boolean =>
  release.manifestBytes === 0;

/** Whether nothing is served under the name any more, and nothing is being tried. */
export function isRemoved(model: ModelFact | null): boolean {
  return model === null || (model.active === null && model.candidate === null && model.state === 'idle');
}
