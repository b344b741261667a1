// Why: the reference profile of a release, read once and kept while it is asked for.
// Trusts: the catalogue for the digest, admission for the content. Must never: give the profile of another release.

import { FleetError } from '../../shared/kernel/errors.ts';
import { type Profile, parseProfile } from '../../shared/wire/profile.ts';
import type { Blobs } from '../catalog/blobs.ts';
import type { Releases } from '../catalog/releases.ts';

export interface ReferenceProfile {
  sha256: string;
  profile: Profile;
}

export interface Profiles {
  /** Null where there is no such release, or it has no profile. A fault where its file is gone or damaged. */
  of(releaseId: string): Promise<ReferenceProfile | null>;
}

/** Parsed ones; a large one takes some megabytes. The longest unused goes first. */
const keptMax = 8;

export function createProfiles(parts: { releases: Releases; blobs: Blobs }): Profiles {
  const kept = new Map<string, Profile>();

  async function parsed(sha256: string): Promise<Profile> {
    const known = kept.get(sha256);
    kept.delete(sha256);
    const profile = known ?? (await read(sha256));
    kept.set(sha256, profile);
    for (const oldest of kept.keys()) {
      if (kept.size <= keptMax) break;
      kept.delete(oldest);
    }
    return profile;
  }

  async function read(sha256: string): Promise<Profile> {
    const bytes = await parts.blobs.read(sha256);
    const profile = bytes === null ? null : parseProfile(bytes);
    if (profile?.ok !== true) throw new FleetError('state-corrupt', `the profile ${sha256} does not parse`);
    return profile.value;
  }

  return {
    async of(releaseId) {
      const release = await parts.releases.find(releaseId);
      const file = release?.manifest.files.find(({ role }) => role === 'profile');
      return file === undefined ? null : { sha256: file.sha256, profile: await parsed(file.sha256) };
    },
  };
}
