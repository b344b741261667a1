// Why: a release as it lies on the disk: its manifest, and the files the manifest names.
// Trusts: a manifest whose digest was assigned, after the schema. Must never: hand out a release with
// a file that was not digested.

import { limits } from '../../shared/kernel/limits.ts';
import type { LoadableRelease } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Manifest, manifestSchema } from '../../shared/wire/manifest.ts';
import { parseMessage, type Reason } from '../../shared/wire/messages.ts';
import { type BlobRef, type Blobs, blobPath } from './fetch.ts';
import type { ReleaseRef } from './machine.ts';

const detailCharsMax = 2_000;

/** A refusal as a reason that fits into the journal and into a report. */
export function reasonOf(refusal: Refusal): Reason {
  return { code: refusal.code, detail: refusal.detail.slice(0, detailCharsMax) };
}

export function manifestBlob(ref: ReleaseRef): BlobRef {
  return { sha256: ref.manifestSha256, bytes: ref.manifestBytes };
}

/** The release's manifest from the disk. Refusals: `manifest-malformed`, and those of `Blobs.verify`. */
export async function readManifest(blobs: Blobs, ref: ReleaseRef): Promise<Result<Manifest>> {
  if (ref.manifestBytes > limits.manifestBytesMax) {
    return refuse('manifest-malformed', `${ref.manifestBytes} bytes, the most is ${limits.manifestBytesMax}`);
  }
  const bytes = await blobs.read(manifestBlob(ref));
  if (!bytes.ok) return bytes;
  const parsed = parseMessage(manifestSchema, bytes.value);
  if (!parsed.ok) return refuse('manifest-malformed', parsed.refusal.detail);
  const manifest = parsed.value;
  if (`${manifest.name}@${manifest.version}` !== ref.releaseId) {
    return refuse(
      'manifest-malformed',
      `it is of ${manifest.name}@${manifest.version}, not of ${ref.releaseId}`,
    );
  }
  const tooLarge = manifest.files.find((file) => file.bytes > limits.blobBytesMax);
  if (tooLarge !== undefined) return refuse('manifest-malformed', `${tooLarge.path} is too large`);
  return ok(manifest);
}

/** The files of a release without repetition, as blobs. */
export function blobsOf(manifest: Manifest): BlobRef[] {
  const byDigest = new Map<string, BlobRef>();
  for (const { sha256, bytes } of manifest.files) byDigest.set(sha256, { sha256, bytes });
  return [...byDigest.values()];
}

export interface OpenRelease {
  manifest: Manifest;
  loadable: LoadableRelease;
}

/**
 * The release, every file of it digested by this process. A rotten file is removed from the disk.
 * Refusals: `fetch-not-found`, `blob-digest-mismatch`, `blob-size-mismatch`, `manifest-malformed`.
 */
export async function openRelease(blobs: Blobs, as: string, ref: ReleaseRef): Promise<Result<OpenRelease>> {
  const manifest = await readManifest(blobs, ref);
  if (!manifest.ok) return manifest;
  for (const blob of blobsOf(manifest.value)) {
    const checked = await blobs.verify(blob);
    if (!checked.ok) return checked;
  }
  const files = manifest.value.files.map((file) => ({ ...file, diskPath: blobPath(file.sha256) }));
  const { releaseId, manifestSha256 } = ref;
  return ok({ manifest: manifest.value, loadable: { as, releaseId, manifestSha256, files } });
}

/** Whether a release is incomplete on this disk, so that fetching helps. */
export function needsFetching(refusal: Refusal): boolean {
  const { code } = refusal;
  return code === 'fetch-not-found' || code === 'blob-digest-mismatch' || code === 'blob-size-mismatch';
}

export interface FetchReleaseOptions {
  wanted: () => boolean;
  onProgress: (doneBytes: number, totalBytes: number) => void;
  /** Called with the manifest before any of its files is asked for. */
  onManifest: (manifest: Manifest) => Promise<void>;
}

/** One try to have the whole release here, manifest first. Refusals: of `Blobs.ensure`, `manifest-malformed`. */
export async function fetchRelease(
  blobs: Blobs,
  ref: ReleaseRef,
  options: FetchReleaseOptions,
): Promise<Result<void>> {
  const { wanted } = options;
  if (ref.manifestBytes <= limits.manifestBytesMax) {
    const fetched = await blobs.ensure(manifestBlob(ref), { wanted });
    if (!fetched.ok) return fetched;
  }
  const manifest = await readManifest(blobs, ref);
  if (!manifest.ok) return manifest;
  await options.onManifest(manifest.value);
  const files = blobsOf(manifest.value);
  const totalBytes = files.reduce((sum, file) => sum + file.bytes, 0);
  let doneBytes = 0;
  for (const file of files) {
    const onProgress = (ofFile: number) => options.onProgress(doneBytes + ofFile, totalBytes);
    const fetched = await blobs.ensure(file, { wanted, onProgress });
    if (!fetched.ok) return fetched;
    doneBytes += file.bytes;
    options.onProgress(doneBytes, totalBytes);
  }
  return ok();
}
