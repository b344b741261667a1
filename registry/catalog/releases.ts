// Why: releases: what was pushed, checked and signed, and how people and the director look at it.
// Trusts: signing/repository.ts for signatures. Must never: name a release whose files are not all here and admitted.

import { parseStrictJson } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { formatReleaseId, parseReleaseId, type ReleaseName } from '../../shared/kernel/releases.ts';
import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { ModelView, ReleasePushed } from '../../shared/wire/http.ts';
import { type Manifest, manifestSchema } from '../../shared/wire/manifest.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import type { CatalogueRepository, InspectedPush } from '../signing/repository.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { ReleasesTable } from '../store/tables.ts';
import { checkReleaseFiles } from './admit.ts';
import type { Blobs } from './blobs.ts';

/** A release that the catalogue names. */
export interface ReleaseRecord {
  releaseId: string;
  manifest: Manifest;
  manifestSha256: string;
  manifestBytes: number;
  counter: number;
}

export interface PendingPush {
  releaseId: string;
  metadata: Uint8Array;
  manifest: Uint8Array;
  signatures: number;
  threshold: number;
}

export interface Push {
  releaseId: string;
  /** Exact bytes of the namespace's next targets metadata. */
  metadata: Uint8Array;
  /** Exact bytes of manifest.json. */
  manifest: Uint8Array;
  pushedBy: string;
}

export interface Releases {
  /**
   * Checks a release as a whole and takes it, or keeps it until enough publishers have signed. The very
   * same push again gives the same answer. Refusals: `input-invalid`, `manifest-malformed`,
   * `release-exists`, `blob-missing`, `blob-size-mismatch`, every `model-…` code of admission,
   * `golden-malformed`, `target-digest-mismatch`, and those of `CatalogueRepository.inspect`.
   */
  push(push: Push): Promise<Result<ReleasePushed>>;
  /** The release `NS/NAME@VERSION`, or null where the catalogue does not name it. */
  find(releaseId: string): Promise<ReleaseRecord | null>;
  list(): Promise<ModelView[]>;
  /** `NS/NAME`. Refusal: `not-found`. */
  show(modelId: string): Promise<Result<ModelView>>;
  /** The push of a namespace that waits for signatures, null where none does. */
  pending(namespace: string): Promise<PendingPush | null>;
}

/** The manifest's exact bytes as its type, and that it speaks of this release. Refusal: `manifest-malformed`. */
function readManifest(bytes: Uint8Array, release: ReleaseName): Result<Manifest> {
  if (bytes.length > limits.manifestBytesMax) {
    return refuse('manifest-malformed', `larger than ${limits.manifestBytesMax} bytes`);
  }
  const json = parseStrictJson(bytes, { code: 'manifest-malformed' });
  if (!json.ok) return json;
  const parsed = manifestSchema.safeParse(json.value);
  if (!parsed.success) return refuse('manifest-malformed', describeIssues(parsed.error));
  const { name, version } = parsed.data;
  if (name !== `${release.namespace}/${release.name}` || version !== release.version) {
    return refuse(
      'manifest-malformed',
      `it speaks of ${name}@${version}, pushed was ${formatReleaseId(release)}`,
    );
  }
  return ok(parsed.data);
}

/** The manifest of a stored release; it was checked when it was pushed. */
function storedManifest(row: Pick<ReleasesTable, 'release_id' | 'manifest'>): Manifest {
  const json = parseStrictJson(row.manifest);
  const parsed = json.ok ? manifestSchema.safeParse(json.value) : null;
  if (parsed === null || !parsed.success) {
    throw new FleetError('state-corrupt', `the stored manifest of ${row.release_id} does not parse`);
  }
  return parsed.data;
}

/** The signed metadata adds exactly this release, with exactly these bytes. */
function checkNamed(
  release: ReleaseName,
  manifest: Uint8Array,
  added: InspectedPush['added'],
): Result<number> {
  const [only, ...others] = added;
  if (only === undefined || formatReleaseId(only.release) !== formatReleaseId(release) || others.length > 0) {
    const names = added.map((one) => formatReleaseId(one.release)).join(', ');
    return refuse(
      'metadata-malformed',
      `the metadata must add ${formatReleaseId(release)} and nothing else; it adds ${names === '' ? 'nothing' : names}`,
    );
  }
  if (only.entry.sha256 !== sha256Hex(manifest) || only.entry.bytes !== manifest.length) {
    return refuse('target-digest-mismatch', 'the signed metadata names another manifest than the one pushed');
  }
  return ok(only.entry.counter);
}

function viewOf(row: ReleasesTable): ModelView['versions'][number] {
  const signedBy: string[] = JSON.parse(row.signed_by);
  return {
    version: row.version,
    counter: row.counter,
    digest: row.manifest_sha256,
    bytes: row.total_bytes,
    files: storedManifest(row).files,
    signedBy,
    admitted: row.admitted === 1,
    reason: row.reason,
    deltas: [],
  };
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export function createReleases(parts: {
  store: RegistryStore;
  repository: CatalogueRepository;
  blobs: Blobs;
  clock: Clock;
  log: Log;
}): Releases {
  const { store, repository, blobs, clock, log } = parts;
  const { qb } = store;

  const rowOf = (db: RegistryDb, releaseId: string): ReleasesTable | undefined =>
    db.first(qb.selectFrom('releases').selectAll().where('release_id', '=', releaseId));

  const outcome = (releaseId: string, manifest: Uint8Array, counter: number): ReleasePushed => ({
    status: 'accepted',
    releaseId,
    digest: sha256Hex(manifest),
    counter,
  });

  /** An answer where this release is there already: the same push again, or `release-exists`. */
  async function known(push: Push, namespace: string): Promise<Result<ReleasePushed> | null> {
    const row = await store.tx((db) => rowOf(db, push.releaseId));
    if (row === undefined) return null;
    // A client that lost the answer asks again with the same bytes.
    const publisher = await repository.publisher(namespace);
    const current = await repository.file(`${publisher?.metadataVersion ?? 0}.${namespace}.json`);
    if (
      current !== null &&
      Buffer.from(current).equals(push.metadata) &&
      row.manifest_sha256 === sha256Hex(push.manifest)
    ) {
      return ok(outcome(push.releaseId, push.manifest, row.counter));
    }
    return refuse('release-exists', `${push.releaseId} was pushed before`);
  }

  async function stage(
    push: Push,
    namespace: string,
    inspected: InspectedPush,
    counter: number,
  ): Promise<ReleasePushed> {
    const { signatures, threshold } = inspected;
    const row = {
      release_id: push.releaseId,
      metadata: push.metadata,
      manifest: push.manifest,
      pushed_by: push.pushedBy,
      updated_at_ms: clock.wall(),
    };
    await store.tx((db) =>
      db.run(
        qb
          .insertInto('pending_pushes')
          .values({ namespace, ...row })
          .onConflict((conflict) => conflict.column('namespace').doUpdateSet(row)),
      ),
    );
    const digest = sha256Hex(push.manifest);
    return {
      status: 'awaiting-signatures',
      releaseId: push.releaseId,
      digest,
      counter,
      signatures,
      threshold,
    };
  }

  function record(
    db: RegistryDb,
    push: Push,
    release: ReleaseName,
    manifest: Manifest,
    accepted: InspectedPush,
    counter: number,
  ): void {
    db.run(
      qb.insertInto('releases').values({
        release_id: push.releaseId,
        namespace: release.namespace,
        name: release.name,
        version: release.version,
        counter,
        manifest_sha256: sha256Hex(push.manifest),
        manifest: push.manifest,
        total_bytes: manifest.files.reduce((sum, file) => sum + file.bytes, 0),
        signed_by: JSON.stringify(accepted.signedBy),
        admitted: 1,
        reason: null,
        pushed_by: push.pushedBy,
        pushed_at_ms: clock.wall(),
      }),
    );
    // Whatever waited was made for the version that this one replaces.
    db.run(qb.deleteFrom('pending_pushes').where('namespace', '=', release.namespace));
  }

  function models(rows: ReleasesTable[]): ModelView[] {
    const views = new Map<string, ModelView>();
    for (const row of rows) {
      const name = `${row.namespace}/${row.name}`;
      const view = views.get(name) ?? { name, versions: [] };
      view.versions.push(viewOf(row));
      views.set(name, view);
    }
    return [...views.values()];
  }
  const ordered = qb
    .selectFrom('releases')
    .selectAll()
    .orderBy('namespace')
    .orderBy('name')
    .orderBy('counter', 'desc');

  return {
    async push(push) {
      const release = parseReleaseId(push.releaseId);
      if (release === null) return refuse('input-invalid', `not NS/NAME@VERSION: ${push.releaseId}`);
      const before = await known(push, release.namespace);
      if (before !== null) return before;
      const manifest = readManifest(push.manifest, release);
      if (!manifest.ok) return manifest;
      const inspected = await repository.inspect(release.namespace, push.metadata);
      if (!inspected.ok) return inspected;
      const counter = checkNamed(release, push.manifest, inspected.value.added);
      if (!counter.ok) return counter;
      const files = await checkReleaseFiles(manifest.value, blobs);
      if (!files.ok) return files;
      if (inspected.value.signatures < inspected.value.threshold) {
        return ok(await stage(push, release.namespace, inspected.value, counter.value));
      }
      // Devices ask for the manifest by its digest, as for every other file.
      const held = await blobs.put(sha256Hex(push.manifest), once(push.manifest));
      if (!held.ok) return held;
      const accepted = await repository.acceptPublisherMetadata(
        release.namespace,
        push.metadata,
        (db, final) => record(db, push, release, manifest.value, final, counter.value),
      );
      if (!accepted.ok) return accepted;
      log.emit('info', 'release.accepted', {
        releaseId: push.releaseId,
        counter: counter.value,
        user: push.pushedBy,
      });
      return ok(outcome(push.releaseId, push.manifest, counter.value));
    },

    async find(releaseId) {
      const row = await store.tx((db) => rowOf(db, releaseId));
      if (row === undefined) return null;
      return {
        releaseId,
        manifest: storedManifest(row),
        manifestSha256: row.manifest_sha256,
        manifestBytes: row.manifest.length,
        counter: row.counter,
      };
    },

    list: async () => models(await store.tx((db) => db.all(ordered))),

    async show(modelId) {
      const [namespace = '', name = ''] = modelId.split('/');
      const rows = await store.tx((db) =>
        db.all(ordered.where('namespace', '=', namespace).where('name', '=', name)),
      );
      const [view] = models(rows);
      return view === undefined ? refuse('not-found', `there is no model ${modelId}`) : ok(view);
    },

    async pending(namespace) {
      const row = await store.tx((db) =>
        db.first(qb.selectFrom('pending_pushes').selectAll().where('namespace', '=', namespace)),
      );
      if (row === undefined) return null;
      const inspected = await repository.inspect(namespace, row.metadata);
      if (!inspected.ok) return null;
      const { signatures, threshold } = inspected.value;
      return {
        releaseId: row.release_id,
        metadata: row.metadata,
        manifest: row.manifest,
        signatures,
        threshold,
      };
    },
  };
}
