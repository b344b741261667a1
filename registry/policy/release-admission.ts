// Why: whether a release may be taken and installed in this region, by what its model card says.
// Trusts: blobs for the card's bytes. Must never: read a card that is no card by its size.

import { ok, type Result } from '../../shared/kernel/result.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import type { Blobs } from '../catalog/blobs.ts';
import { cardBytesMax } from './card-fields.ts';
import type { Decision, ReleasePolicy } from './flows.ts';

export interface ReleaseAdmission {
  decide(releaseId: string, manifest: Pick<Manifest, 'files'>): Promise<Decision>;
  /** Refusal: `policy-denied`, with its rule. */
  check(releaseId: string, manifest: Pick<Manifest, 'files'>): Promise<Result<void>>;
}

export function createReleaseAdmission(parts: {
  blobs: Pick<Blobs, 'readRange'>;
  policies: ReleasePolicy;
}): ReleaseAdmission {
  const { blobs, policies } = parts;

  async function decide(releaseId: string, { files }: Pick<Manifest, 'files'>): Promise<Decision> {
    const card = files.find(({ role }) => role === 'card');
    // One byte more than a card may have: who reads it sees that it is too long.
    const bytes = card === undefined ? null : await blobs.readRange(card.sha256, 0, cardBytesMax + 1);
    return policies.admits({ releaseId, card: bytes });
  }

  return {
    decide,
    async check(releaseId, manifest) {
      const { allowed, rule, reason } = await decide(releaseId, manifest);
      return allowed ? ok() : { ok: false, refusal: { code: 'policy-denied', detail: reason, rule } };
    },
  };
}
