// Why: releases: what was pushed, checked and signed, and how people and the director look at it.
// Trusts: signing/repository.ts for signatures. Must never: name a release whose files are not all here and admitted.

import { canonicalJson, parseStrictJson } from '../../shared/crypto/canonical-json.ts';
import { sha256Hex } from '../../shared/crypto/digests.ts';
import { FleetError } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { formatReleaseId, parseReleaseId, type ReleaseName } from '../../shared/kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import type { NewRelease } from '../../shared/trust/tuf/publisher.ts';
import type { ModelView, ReleasePushed } from '../../shared/wire/http.ts';
import { type Manifest, manifestSchema } from '../../shared/wire/manifest.ts';
import { describeIssues } from '../../shared/wire/messages.ts';
import { madeWaysIn, withWays } from '../delivery/shown-ways.ts';
import type { ReleaseAdmission } from '../policy/release-admission.ts';
import type { CatalogueRepository, InspectedPush } from '../signing/repository.ts';
import type { RegistryDb, RegistryStore } from '../store/open.ts';
import type { ReleaseRow } from '../store/tables.ts';
import { type AdmissionTerms, checkReleaseFiles } from './admit.ts';
import { barredBecause } from './barred.ts';
import type { Blobs } from './blobs.ts';
import { createPublisherSteps, type PublisherSteps, type SettledStep } from './publisher-steps.ts';
import type { WaitingStep } from './waiting-steps.ts';

/** A release that the catalogue names. */
export interface ReleaseRecord {
  releaseId: string;
  manifest: Manifest;
  manifestSha256: string;
  manifestBytes: number;
  counter: number;
  /** What it needs as its publisher signed it, JSON; null where it names nothing. */
  requires: string | null;
  /** Why nobody may install it any more, null where everybody may. */
  barred: Refusal | null;
}

export interface Push {
  releaseId: string;
  /** Exact bytes of the namespace's next targets metadata. */
  metadata: Uint8Array;
  /** Exact bytes of manifest.json. */
  manifest: Uint8Array;
  pushedBy: string;
}

/** A release as signed metadata names it, with its manifest. */
export interface MirroredRelease {
  releaseId: string;
  /** Exact bytes of manifest.json; the caller checked their digest. */
  manifest: Uint8Array;
  counter: number;
  /** JSON, null where its publisher names nothing. */
  requires: string | null;
  /** TUF key ids. */
  signedBy: readonly string[];
  /** Region from which it came. */
  from: string;
  /** Once the manifest was read: whether this region takes it, and then brings its files. */
  ready(manifest: Manifest): Promise<Result<void>>;
  /** In the commit that takes it; false where it is not to be taken any more. */
  within(db: RegistryDb): boolean;
}

export interface Releases {
  /**
   * Checks a release as a whole and takes it, or keeps it until enough publishers have signed. The very
   * same push again gives the same answer. Refusals: `input-invalid`, `manifest-malformed`,
   * `release-exists`, `blob-missing`, `blob-size-mismatch`, every `model-…` code of admission,
   * `golden-malformed`, `target-digest-mismatch`, `policy-denied`, and those of `CatalogueRepository.inspect`.
   */
  push(push: Push): Promise<Result<ReleasePushed>>;
  /** The release `NS/NAME@VERSION`, or null where the catalogue does not name it. */
  find(releaseId: string): Promise<ReleaseRecord | null>;
  /** Whether the region's policy lets a release of the catalogue be installed now. Refusal: `policy-denied`. */
  installable(release: Pick<ReleaseRecord, 'releaseId' | 'manifest'>): Promise<Result<void>>;
  list(): Promise<ModelView[]>;
  /** `NS/NAME`. Refusal: `not-found`. */
  show(modelId: string): Promise<Result<ModelView>>;
  /** The step of a namespace that waits for signatures, null where none does. */
  pending(namespace: string): Promise<WaitingStep | null>;
  /** A step of a namespace that adds no release. */
  takeStep: PublisherSteps['take'];
  /**
   * Takes a release that the mirrored catalogue names; whose files `ready` brings. Idempotent. Refusals: those
   * of a push that concern its files and its manifest.
   */
  mirror(release: MirroredRelease): Promise<Result<void>>;
  /** As `PublisherSteps.barred`. */
  barred: PublisherSteps['barred'];
  /** Told after a release is accepted and durable. Returns how to stop. */
  onAccepted(listener: (releaseId: string) => void): () => void;
  /** Told when publishers bar releases that are there. */
  onBarred: PublisherSteps['onBarred'];
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
function storedManifest(row: Pick<ReleaseRow, 'release_id' | 'manifest'>): Manifest {
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
): Result<NewRelease> {
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
  // Rollouts and devices judge by what is signed: what they could not read would bar nobody.
  if (only.entry.requires !== null && !manifestSchema.shape.requires.safeParse(only.entry.requires).success)
    return refuse(
      'metadata-malformed',
      `${formatReleaseId(release)}: custom.requires is not what a manifest requires`,
    );
  return ok(only);
}

function viewOf(row: ReleaseRow): ModelView['versions'][number] {
  const { files } = storedManifest(row);
  const signedBy: string[] = JSON.parse(row.signed_by);
  return {
    version: row.version,
    counter: row.counter,
    digest: row.manifest_sha256,
    bytes: row.total_bytes,
    files,
    signedBy,
    admitted: row.admitted === 1,
    reason: row.reason,
    deltas: [],
    compressedBytes: null,
    withdrawn: row.withdrawn === 1,
    belowFloor: row.below_floor === 1,
  };
}

/** As it is stored; null where nothing is named. */
export function requiresText(requires: NewRelease['entry']['requires']): string | null {
  return requires === null ? null : new TextDecoder().decode(canonicalJson(requires));
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export function createReleases(parts: {
  store: RegistryStore;
  repository: CatalogueRepository;
  blobs: Blobs;
  /** How models are judged. */
  admission?: AdmissionTerms;
  /** What the region's policy lets in; absent: everything. */
  policy?: ReleaseAdmission;
  clock: Clock;
  log: Log;
}): Releases {
  const { store, repository, blobs, clock, log } = parts;
  const { qb } = store;
  const steps = createPublisherSteps({ store, repository, clock, log });
  const accepted = new Set<(releaseId: string) => void>();

  const rowOf = (db: RegistryDb, releaseId: string): ReleaseRow | undefined =>
    db.first(qb.selectFrom('releases').selectAll().where('release_id', '=', releaseId));

  function outcome(push: Push, counter: number, settled: SettledStep | null): ReleasePushed {
    const digest = sha256Hex(push.manifest);
    const replaced = settled === null || settled.replaced === null ? {} : { replaced: settled.replaced };
    const about = { releaseId: push.releaseId, digest, counter, ...replaced };
    if (settled === null || settled.status === 'accepted') return { status: 'accepted', ...about };
    const { signatures, threshold } = settled.step;
    return { status: 'awaiting-signatures', ...about, signatures, threshold };
  }

  /** An answer where this release is there already: the same push again, or `release-exists`. */
  async function known(push: Push, namespace: string): Promise<Result<ReleasePushed> | null> {
    const row = await store.tx((db) => rowOf(db, push.releaseId));
    if (row === undefined) return null;
    // A client that lost the answer asks again with the same bytes.
    const same = row.manifest_sha256 === sha256Hex(push.manifest);
    if (same && (await steps.wasTaken(namespace, push.metadata))) return ok(outcome(push, row.counter, null));
    return refuse('release-exists', `${push.releaseId} was pushed before`);
  }

  function record(
    db: RegistryDb,
    push: Pick<Push, 'releaseId' | 'manifest' | 'pushedBy'>,
    release: ReleaseName,
    manifest: Manifest,
    signed: { signedBy: readonly string[]; counter: number; requires: string | null },
    untried: string | null,
  ): void {
    db.run(
      qb.insertInto('releases').values({
        release_id: push.releaseId,
        namespace: release.namespace,
        name: release.name,
        version: release.version,
        counter: signed.counter,
        manifest_sha256: sha256Hex(push.manifest),
        manifest: push.manifest,
        total_bytes: manifest.files.reduce((sum, file) => sum + file.bytes, 0),
        signed_by: JSON.stringify(signed.signedBy),
        admitted: 1,
        reason: untried === null ? null : `not tried: ${untried}`,
        pushed_by: push.pushedBy,
        pushed_at_ms: clock.wall(),
        requires: signed.requires,
      }),
    );
  }

  function modelsIn(db: RegistryDb, rows: ReleaseRow[]): ModelView[] {
    const floors = new Map(
      db
        .all(qb.selectFrom('model_floors').select(['namespace', 'name', 'floor']))
        .map((row) => [`${row.namespace}/${row.name}`, row.floor]),
    );
    const views = new Map<string, ModelView>();
    for (const row of rows) {
      const name = `${row.namespace}/${row.name}`;
      const view = views.get(name) ?? { name, floor: floors.get(name) ?? 0, versions: [] };
      view.versions.push(viewOf(row));
      views.set(name, view);
    }
    const made = madeWaysIn(db, qb);
    return [...views.values()].map((view) => ({ ...view, versions: withWays(view.versions, made) }));
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
      const named = checkNamed(release, push.manifest, inspected.value.added);
      if (!named.ok) return named;
      const { entry } = named.value;
      const files = await checkReleaseFiles(manifest.value, blobs, parts.admission ?? {});
      if (!files.ok) return files;
      const admitted = await parts.policy?.check(push.releaseId, manifest.value);
      if (admitted?.ok === false) return admitted;
      const { untried } = files.value;
      if (untried !== null)
        log.emit('warn', 'release.untried', { releaseId: push.releaseId, detail: untried });
      const settled = await steps.settle(
        { ...push, namespace: release.namespace },
        {
          // Devices ask for the manifest by its digest, as for every other file.
          ready: () => blobs.put(sha256Hex(push.manifest), once(push.manifest)),
          alongside: (db, { signedBy }) => {
            const { counter } = entry;
            const requires = requiresText(entry.requires);
            record(db, push, release, manifest.value, { signedBy, counter, requires }, untried);
          },
        },
      );
      if (!settled.ok) return settled;
      const { counter } = entry;
      if (settled.value.status === 'accepted') {
        log.emit('info', 'release.accepted', { releaseId: push.releaseId, counter, user: push.pushedBy });
        for (const listener of accepted) listener(push.releaseId);
      }
      return ok(outcome(push, counter, settled.value));
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
        requires: row.requires,
        barred: barredBecause(row),
      };
    },

    installable: async ({ releaseId, manifest }) => (await parts.policy?.check(releaseId, manifest)) ?? ok(),

    list: () => store.tx((db) => modelsIn(db, db.all(ordered))),

    async show(modelId) {
      const [namespace = '', name = ''] = modelId.split('/');
      const [view] = await store.tx((db) =>
        modelsIn(db, db.all(ordered.where('namespace', '=', namespace).where('name', '=', name))),
      );
      return view === undefined ? refuse('not-found', `there is no model ${modelId}`) : ok(view);
    },

    async mirror(mirrored) {
      const { releaseId, from } = mirrored;
      const release = parseReleaseId(releaseId);
      if (release === null) return refuse('input-invalid', `not NS/NAME@VERSION: ${releaseId}`);
      const manifest = readManifest(mirrored.manifest, release);
      if (!manifest.ok) return manifest;
      const ready = await mirrored.ready(manifest.value);
      if (!ready.ok) return ready;
      const files = await checkReleaseFiles(manifest.value, blobs, parts.admission ?? {});
      if (!files.ok) return files;
      const stored = await blobs.put(sha256Hex(mirrored.manifest), once(mirrored.manifest));
      if (!stored.ok) return stored;
      const taken = await store.tx((db) => {
        if (!mirrored.within(db)) return false;
        const before = rowOf(db, releaseId);
        if (before !== undefined && before.admitted === 1) return false;
        // What a home that was lost had named so, or had given this counter to: the catalogue in force says otherwise.
        db.run(
          qb
            .deleteFrom('releases')
            .where('namespace', '=', release.namespace)
            .where('name', '=', release.name)
            .where('admitted', '=', 0)
            .where((where) =>
              where.or([where('release_id', '=', releaseId), where('counter', '=', mirrored.counter)]),
            ),
        );
        const pushedBy = `region:${from}`;
        record(db, { ...mirrored, pushedBy }, release, manifest.value, mirrored, files.value.untried);
        return true;
      });
      if (taken) {
        log.emit('info', 'release.mirrored', { releaseId, counter: mirrored.counter, from });
        for (const listener of accepted) listener(releaseId);
      }
      return ok();
    },

    barred: (db, barrings) => steps.barred(db, barrings),
    pending: (namespace) => steps.waiting.find(namespace),
    takeStep: (step) => steps.take(step),
    onBarred: (listener) => steps.onBarred(listener),
    onAccepted(listener) {
      accepted.add(listener);
      return () => accepted.delete(listener);
    },
  };
}
