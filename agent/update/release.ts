// Why: a release as it lies on the disk: its manifest, and the files the manifest names.
// Trusts: a manifest whose digest was assigned, after the schema. Must never: hand out a release with
// a file that was not digested.

import { limits } from '../../shared/kernel/limits.ts';
import type { LoadableRelease } from '../../shared/kernel/ports.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { type Manifest, manifestSchema } from '../../shared/wire/manifest.ts';
import { parseMessage, type Reason } from '../../shared/wire/messages.ts';
import { type BlobRef, type Blobs, blobPath, type KeepSet } from './fetch.ts';
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
  /** Bytes that are fetched for what was not here; fewer than the files have where a smaller way is found. */
  onProgress: (doneBytes: number, totalBytes: number) => void;
  /** Called with the manifest before any of its files is asked for. */
  onManifest: (manifest: Manifest) => Promise<void>;
  /** Manifests of releases of this model that are here: the registry may know a small way from their files. */
  held?: () => Promise<readonly Manifest[]>;
  keep?: KeepSet;
}

/** Files of held releases from which one like this may be made: what had its path first, then its role. */
export function basesFor(file: Manifest['files'][number], held: readonly Manifest[]): BlobRef[] {
  const all = held.flatMap((manifest) => manifest.files).filter(({ sha256 }) => sha256 !== file.sha256);
  const likeness = (one: Manifest['files'][number]): number =>
    one.path === file.path ? 0 : one.role === file.role ? 1 : 2;
  const bases = new Map<string, BlobRef>();
  // The sort keeps the order of the releases within each likeness.
  for (const { sha256, bytes } of all.sort((a, b) => likeness(a) - likeness(b)))
    bases.set(sha256, { sha256, bytes });
  return [...bases.values()];
}

/** One try to have the whole release here, manifest first. Refusals: of `Blobs.ensure`, `manifest-malformed`. */
export async function fetchRelease(
  blobs: Blobs,
  ref: ReleaseRef,
  options: FetchReleaseOptions,
): Promise<Result<void>> {
  const { wanted } = options;
  const keeping = options.keep === undefined ? {} : { keep: options.keep };
  if (ref.manifestBytes <= limits.manifestBytesMax) {
    const fetched = await blobs.ensure(manifestBlob(ref), { wanted, ...keeping });
    if (!fetched.ok) return fetched;
  }
  const manifest = await readManifest(blobs, ref);
  if (!manifest.ok) return manifest;
  await options.onManifest(manifest.value);
  const missing: BlobRef[] = [];
  for (const file of blobsOf(manifest.value)) if (!(await blobs.holds(file))) missing.push(file);
  const held = missing.length === 0 ? [] : await heldOf(options);
  let restBytes = missing.reduce((sum, { bytes }) => sum + bytes, 0);
  let doneBytes = 0;
  for (const file of missing) {
    restBytes -= file.bytes;
    let ofFile = { done: 0, total: file.bytes };
    const onProgress = (done: number, total: number): void => {
      ofFile = { done, total };
      options.onProgress(doneBytes + done, doneBytes + total + restBytes);
    };
    const named = manifest.value.files.find(({ sha256 }) => sha256 === file.sha256);
    const bases = named === undefined ? [] : basesFor(named, held);
    const fetched = await blobs.ensure(file, { wanted, onProgress, bases, ...keeping });
    if (!fetched.ok) return fetched;
    doneBytes += ofFile.total;
    options.onProgress(doneBytes, doneBytes + restBytes);
  }
  return ok();
}

async function heldOf({ held }: FetchReleaseOptions): Promise<readonly Manifest[]> {
  return held === undefined ? [] : held();
}
