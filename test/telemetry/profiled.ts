// Why: a release with a reference profile in a test's catalogue, and windows of counts as devices send them.
// Trusts: test/registry-core/support.ts for the push. Must never: compute a distance.

import assert from 'node:assert/strict';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { FeaturesStats } from '../../shared/wire/feature-stats.ts';
import type { Profile } from '../../shared/wire/profile.ts';
import type { TelemetryRecord } from '../../shared/wire/telemetry.ts';
import { hexOf, identityModel, once, preparePush, publisherKey } from '../registry-core/support.ts';
import type { IngestWorld, Sender } from './ingest-world.ts';

/** One input of ten bins, evenly filled, and a class. */
export const evenProfile: Profile = {
  schemaVersion: 1,
  features: [
    {
      role: 'input',
      tensor: 'x',
      index: 0,
      missing: 0,
      chunks: [],
      kind: 'numeric',
      edges: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
      counts: [0, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 0],
    },
    {
      role: 'output',
      tensor: 'class',
      index: 0,
      missing: 0,
      chunks: [],
      kind: 'categorical',
      values: ['good', 'bad'],
      counts: [900, 100],
      other: 0,
    },
  ],
};

/** The release with its profile in the catalogue; the profile's digest. Null: without one. */
export async function pushProfiled(
  world: IngestWorld,
  releaseId: string,
  counter: number,
  profile: Profile | null = evenProfile,
): Promise<string> {
  const publisher = publisherKey('acme');
  if ((await world.repository.publisher('acme')) === null)
    unwrap(await world.repository.delegate('acme', [hexOf(publisher)], 1));
  const version = (await world.repository.publisher('acme'))?.metadataVersion ?? 0;
  const model = identityModel(releaseId);
  const text = Buffer.from(JSON.stringify(profile));
  const files = [{ path: 'model.onnx', role: 'model', sha256: sha256Hex(model), bytes: model.length }];
  if (profile !== null)
    files.push({ path: 'profile.json', role: 'profile', sha256: sha256Hex(text), bytes: text.length });
  const push = preparePush({
    releaseId,
    model,
    current: version === 0 ? null : await world.repository.file(`${version}.acme.json`),
    counter,
    signers: [publisher],
    expiresAtMs: world.clock.wall() + 365 * 86_400_000,
    manifest: { files },
  });
  unwrap(await world.blobs.put(sha256Hex(model), once(model)));
  unwrap(await world.blobs.put(sha256Hex(text), once(text)));
  assert.equal(unwrap(await world.releases.push(push)).status, 'accepted');
  return sha256Hex(text);
}

export interface WindowCounts {
  x?: number[];
  missing?: number;
  classes?: number[];
  other?: number;
}

/** 10 counts of `x` without under and over. */
export const even = (each: number): number[] => [0, ...Array<number>(10).fill(each), 0];
export const shifted = (each: number): number[] => [0, 0, 0, 0, 0, 0, ...Array<number>(5).fill(2 * each), 0];

export function windowRecord(parts: {
  release: string;
  profileSha256: string;
  timeMs: number;
  counts: WindowCounts;
}): TelemetryRecord {
  const { x, missing = 0, classes, other = 0 } = parts.counts;
  const rows = (x ?? classes ?? []).reduce((sum, one) => sum + one, missing);
  const features: FeaturesStats['features'] = [];
  if (x !== undefined)
    features.push({ role: 'input', tensor: 'x', index: 0, of: 'value', counts: x, missing });
  if (classes !== undefined)
    features.push({
      role: 'output',
      tensor: 'class',
      index: 0,
      of: 'value',
      counts: classes,
      missing: 0,
      other,
    });
  const data: FeaturesStats = {
    kind: 'features',
    model: 'pump',
    profileSha256: parts.profileSha256,
    windowMs: 60_000,
    rows,
    seenRows: rows,
    features,
  };
  return { timeMs: parts.timeMs, release: parts.release, data };
}

/** Sends one window that was counted now, and lets a minute pass. */
export async function sendWindow(
  world: IngestWorld,
  sender: Sender,
  about: { release: string; profileSha256: string; ageMs?: number },
  counts: WindowCounts,
): Promise<void> {
  const timeMs = world.clock.wall() - (about.ageMs ?? 0);
  const made = await sender.maker.make([windowRecord({ ...about, timeMs, counts })], { class: 'stats' });
  const [answer] = await sender.exchange(made.message);
  assert.equal(answer?.status, 'stored');
  world.clock.advance(61_000);
}
