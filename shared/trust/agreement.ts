// Why: two authorities (DESIGN 3): a device runs only what its director assigns and a publisher signed.
// Trusts: the catalogue's chain for the bytes, the counter and the floor; an assignment for the choice alone.
// Must never: judge a release by a number that the director wrote.

import { isSameJson } from '../crypto/canonical-json.ts';
import { parseReleaseId } from '../kernel/releases.ts';
import { type Result, refuse } from '../kernel/result.ts';
import type { AssignedRelease } from '../wire/messages.ts';
import { type CatalogueRelease, findRelease, type TrustState } from './tuf/catalogue.ts';

/**
 * Whether both authorities name the same bytes. Refusals: `target-unknown`, `target-digest-mismatch`,
 * `release-counter-mismatch`, `release-requires-mismatch`, `release-below-floor`, `release-withdrawn`, and those of `findRelease`.
 */
export function checkAgreement(state: TrustState, assigned: AssignedRelease): Result<CatalogueRelease> {
  const name = parseReleaseId(assigned.releaseId);
  if (name === null) return refuse('target-unknown', `${assigned.releaseId} is no release id`);
  const found = findRelease(state, name);
  if (!found.ok) return found;
  const release = found.value;
  if (assigned.manifestSha256 !== release.sha256 || assigned.manifestBytes !== release.bytes) {
    return refuse(
      'target-digest-mismatch',
      `${assigned.releaseId}: director and publisher name different bytes`,
    );
  }
  if (assigned.counter !== release.counter) {
    return refuse(
      'release-counter-mismatch',
      `${assigned.releaseId}: counter ${assigned.counter}, not ${release.counter}`,
    );
  }
  // Hardware as its publisher signed it: a director that leaves it out could bring a release where it was never meant.
  if (!isSameJson(assigned.requires, release.requires)) {
    return refuse(
      'release-requires-mismatch',
      `${assigned.releaseId}: director and publisher name different requirements`,
    );
  }
  if (release.counter < release.floor) {
    return refuse(
      'release-below-floor',
      `${assigned.releaseId}: counter ${release.counter}, floor ${release.floor}`,
    );
  }
  if (release.withdrawn) {
    return refuse('release-withdrawn', `${assigned.releaseId}: its publisher took it back`);
  }
  return found;
}
