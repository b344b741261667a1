// Why: one tally for each release that serves and has a reference profile, and the records of a window.
// Trusts: the manifest for the profile's digest; its file was verified before it came here. Must never: keep a release
// from serving because its profile cannot be read.

import { asFleetError } from '../../shared/kernel/errors.ts';
import type { Clock, Disk, Log } from '../../shared/kernel/ports.ts';
import { listsOf } from '../../shared/stats/measuring.ts';
import type { Manifest } from '../../shared/wire/manifest.ts';
import { parseProfile } from '../../shared/wire/profile.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import type { ModelSignature } from './signature.ts';
import { createTally, type Tally } from './tally.ts';

/** A profile of more is not worth its memory on a device: 4,000 features of 64 bins have about as much. */
const profileBytesMax = 4 * 1024 * 1024;

/** Counts that a profile may have here, half a mebibyte in memory. */
const countsMax = 65_536;

/** Text of the features in one record; the outbox refuses one of more than `limits.recordBytesMax`. */
const featuresTextMax = 64 * 1024;

interface Kept {
  tally: Tally;
  as: string;
  releaseId: string;
  profileSha256: string;
  /** It was unloaded: gone once its last window was taken. */
  closed: boolean;
}

export interface Tallies {
  /** Null where the release has no profile, or none that can be read. */
  open(
    as: string,
    releaseId: string,
    manifest: Pick<Manifest, 'files'>,
    signature: ModelSignature,
  ): Promise<Tally | null>;
  /** The release is unloaded; what it counted is still taken. */
  close(tally: Tally): void;
  /** Of the window that ends now, also of releases that serve no more. */
  take(): TelemetryRecord[];
}

type Window = NonNullable<ReturnType<Tally['take']>>;

/** Added up again they are the window: rows and time stand in the first of them alone. */
function inParts(window: Window): Window[] {
  const parts: Window[] = [{ ...window, features: [] }];
  let left = featuresTextMax;
  for (const feature of window.features) {
    // Not by their counts: of features with few the names are most of the text.
    const bytes = Buffer.byteLength(JSON.stringify(feature)) + 1;
    if (bytes > left && left < featuresTextMax) {
      parts.push({ ...window, windowMs: 0, rows: 0, seenRows: 0, features: [] });
      left = featuresTextMax;
    }
    parts.at(-1)?.features.push(feature);
    left -= bytes;
  }
  return parts;
}

export function createTallies(parts: { clock: Clock; disk: Pick<Disk, 'read'>; log: Log }): Tallies {
  const { clock, disk, log } = parts;
  /** By what they count and where; one that was opened twice goes on. */
  const kept = new Map<string, Kept>();
  let sinceMs = clock.mono();

  return {
    async open(as, releaseId, manifest, signature) {
      const file = manifest.files.find(({ role }) => role === 'profile');
      if (file === undefined) return null;
      const key = `${as} ${releaseId} ${file.sha256}`;
      const known = kept.get(key);
      if (known !== undefined) {
        known.closed = false;
        return known.tally;
      }
      const without = (code: string, detail: string): null => {
        log.emit('warn', 'inference.profile.unusable', { as, release: releaseId, code, detail });
        return null;
      };
      if (file.bytes > profileBytesMax)
        return without(
          'profile-malformed',
          `it has ${file.bytes} bytes, at most ${profileBytesMax} are read`,
        );
      try {
        const bytes = await disk.read(`blobs/${file.sha256}`);
        const profile = bytes === null ? null : parseProfile(bytes);
        if (profile === null) return without('fetch-not-found', 'it is not on the disk');
        if (!profile.ok) return without(profile.refusal.code, profile.refusal.detail);
        const counts = profile.value.features.reduce((sum, feature) => sum + feature.counts.length, 0);
        if (counts > countsMax)
          return without('profile-malformed', `it has ${counts} counts, at most ${countsMax} are kept`);
        const tally = createTally(
          profile.value,
          () => clock.mono(),
          listsOf([...signature.inputs, ...signature.outputs]),
        );
        kept.set(key, { tally, as, releaseId, profileSha256: file.sha256, closed: false });
        return tally;
      } catch (thrown) {
        const { code, message } = asFleetError(thrown);
        return without(code, message);
      }
    },

    close(tally) {
      for (const one of kept.values()) if (one.tally === tally) one.closed = true;
    },

    take() {
      const nowMs = clock.mono();
      const windowMs = Math.round(nowMs - sinceMs);
      sinceMs = nowMs;
      const timeMs = Math.max(0, Math.floor(clock.wall()));
      const records: TelemetryRecord[] = [];
      for (const [key, { tally, as, releaseId, profileSha256, closed }] of kept) {
        const window = tally.take(windowMs);
        for (const part of window === null ? [] : inParts(window))
          records.push({ timeMs, release: releaseId, data: { ...part, model: as, profileSha256 } });
        if (closed) kept.delete(key);
      }
      return records;
    },
  };
}
