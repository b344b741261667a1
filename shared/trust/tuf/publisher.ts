// Why: how a publisher's targets metadata grows: the publisher's CLI makes the next file from the current
// one, the registry checks that step before it serves it. Trusts: the delegation in verified targets.
// Must never: let a release that was signed once change, vanish, or lose its floor.

import type { Signer } from '../../crypto/ed25519.ts';
import { parseReleaseId, type ReleaseName, targetPath } from '../../kernel/releases.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { parseTargets, type TargetEntry, type TargetsMetadata } from './metadata.ts';
import { countValidSignatures, makeTargets, type RoleSpec } from './repository.ts';

/** A publisher's targets file as it was read: reading one of 10,000 releases again takes a tenth of a second. */
export type PublisherTargets = TargetsMetadata;

export interface NewRelease {
  release: ReleaseName;
  entry: TargetEntry & { counter: number };
}

/**
 * Numbers that were given out already and are not in the current file: a registry that came back from an old
 * backup learns of them from what devices hold (DESIGN 3). Absent: none.
 */
export interface PublisherFloors {
  /** The next version is one above this, or above the current file's where that is higher. */
  versionFloor?: number;
  /** By model name: new releases have a counter above it. */
  counterFloors?: ReadonlyMap<string, number>;
}

/**
 * A registry says without proof how many versions and counters a restore lost. More than this is no backup's age but an attempt
 * to use the numbers up.
 */
export const restoreLostMax = 1_000;

/** File names hold nine digits (`metadataNamePattern`): a later version could not be asked for. */
const versionMax = 999_999_999;

/** Reads a namespace's targets file. Refusals: `metadata-malformed`, `metadata-too-large`. */
export function readPublisherTargets(bytes: Uint8Array): Result<PublisherTargets> {
  return parseTargets(bytes);
}

/**
 * The next targets file of a namespace, one version on, signed by `signers`. Everything of the current file is
 * kept; `floors` (by model name) raise those they name, `withdrawn` adds to what was taken back; with neither
 * and nothing to add it is the same content with another expiry. Refusals: `metadata-malformed` (the current
 * file), `input-invalid` (another namespace), and those of `checkPublisherStep`.
 */
export function nextPublisherTargets(
  parts: {
    namespace: string;
    current: Uint8Array | PublisherTargets | null;
    add: readonly NewRelease[];
    floors?: ReadonlyMap<string, number>;
    withdrawn?: ReadonlyMap<string, ReadonlySet<number>>;
    expiresAtMs: number;
    signers: readonly Signer[];
  } & PublisherFloors,
): Result<Uint8Array> {
  const read = readCurrent(parts.current);
  if (!read.ok) return read;
  const current = read.value;
  const targets = new Map(current?.targets ?? []);
  for (const { release, entry } of parts.add) {
    if (release.namespace !== parts.namespace) {
      return refuse('input-invalid', `${targetPath(release)} is not of namespace ${parts.namespace}`);
    }
    if (targets.has(targetPath(release)))
      return refuse('release-exists', `${targetPath(release)} is signed already`);
    targets.set(targetPath(release), entry);
  }
  const floors = new Map([...(current?.floors ?? []), ...(parts.floors ?? [])]);
  const withdrawn = new Map(current?.withdrawn ?? []);
  for (const [model, counters] of parts.withdrawn ?? []) {
    withdrawn.set(model, new Set([...(withdrawn.get(model) ?? []), ...counters]));
  }
  const next = makeTargets({
    version: versionAfter(current, parts.versionFloor),
    expiresAtMs: parts.expiresAtMs,
    targets,
    floors,
    withdrawn,
    signers: parts.signers,
  });
  const checked = checkPublisherStep({ ...parts, current, next });
  return checked.ok ? ok(next) : checked;
}

function versionAfter(current: PublisherTargets | null, versionFloor = 0): number {
  return Math.max(current?.version ?? 0, versionFloor) + 1;
}

/** The highest counter that a model's releases have so far, 0 for none. Refusals: `metadata-malformed`. */
export function highestCounter(
  current: Uint8Array | PublisherTargets | null,
  model: { namespace: string; name: string },
): Result<number> {
  const read = readCurrent(current);
  if (!read.ok) return read;
  return ok(highestIn(read.value, model));
}

function highestIn(current: PublisherTargets | null, model: { namespace: string; name: string }): number {
  const prefix = `${model.namespace}/${model.name}/`;
  let highest = 0;
  for (const [path, entry] of current?.targets ?? []) {
    if (path.startsWith(prefix)) highest = Math.max(highest, entry.counter ?? 0);
  }
  return highest;
}

/**
 * The counter of a model's next release: above every counter that was given out, also in versions that were
 * lost (`counterFloors`), and not below the model's own floor. Refusals: `metadata-malformed`.
 */
export function nextCounter(
  current: Uint8Array | PublisherTargets | null,
  model: { namespace: string; name: string },
  counterFloors: ReadonlyMap<string, number> = new Map(),
): Result<number> {
  const read = readCurrent(current);
  if (!read.ok) return read;
  const given = Math.max(highestIn(read.value, model), counterFloors.get(model.name) ?? 0);
  return ok(Math.max(given + 1, read.value?.floors.get(model.name) ?? 0));
}

/** A model whose floor the step raises: releases with a lower counter may not be assigned any more. */
export interface RaisedFloor {
  /** Name without namespace. */
  model: string;
  from: number;
  to: number;
}

/** One release that the step takes back. */
export interface WithdrawnRelease {
  release: ReleaseName;
  counter: number;
}

/** What a step changes. With nothing added, raised or withdrawn it renews: same content, another expiry. */
export interface PublisherStep {
  version: number;
  expiresAtMs: number;
  /** Releases that the next file names and the current one does not. */
  added: readonly NewRelease[];
  raised: readonly RaisedFloor[];
  withdrawn: readonly WithdrawnRelease[];
  /** The next file, as it was read. */
  next: PublisherTargets;
}

/**
 * Whether `next` may follow `current`, whoever signed it. Refusals: `metadata-malformed`, `metadata-too-large`,
 * `metadata-version-invalid`, `release-exists` (a release with other content), `metadata-rollback` (a release,
 * floor or withdrawal that was taken back), `conflict` (a counter that does not grow), `release-below-floor`
 * (a new release that nobody could be given), `target-unknown` (a withdrawal of no release).
 */
export function checkPublisherStep(
  parts: {
    namespace: string;
    current: Uint8Array | PublisherTargets | null;
    next: Uint8Array | PublisherTargets;
  } & PublisherFloors,
): Result<PublisherStep> {
  const read = readCurrent(parts.current);
  if (!read.ok) return read;
  const current = read.value;
  const parsed = readFile(parts.next);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  const version = versionAfter(current, parts.versionFloor);
  if (next.version !== version) {
    return refuse('metadata-version-invalid', `version ${next.version} where ${version} must follow`);
  }
  if (version > versionMax) return refuse('metadata-version-invalid', `no version can follow ${versionMax}`);
  if (next.delegations.length > 0)
    return refuse('metadata-malformed', 'a publisher does not delegate further');
  const kept = checkKept(current, next);
  if (!kept.ok) return kept;
  const releases = readReleases(parts.namespace, next);
  if (!releases.ok) return releases;
  const added = checkAdded(releases.value, current, next, parts.counterFloors ?? new Map());
  if (!added.ok) return added;
  const withdrawn = newlyWithdrawn(releases.value, current, next);
  if (!withdrawn.ok) return withdrawn;
  const raised = raisedFloors(current, next);
  return ok({
    version,
    expiresAtMs: next.expiresAtMs,
    added: added.value,
    raised,
    withdrawn: withdrawn.value,
    next,
  });
}

/**
 * The step above, fully signed and not expired: what the registry demands before it serves the file.
 * Refusals: as above, and `metadata-signature-invalid`, `metadata-expired`. With a threshold above one, stage
 * a file that passes `checkPublisherStep` until `countValidSignatures` is enough.
 */
export function checkPublisherMetadata(
  parts: {
    namespace: string;
    role: RoleSpec;
    current: Uint8Array | PublisherTargets | null;
    next: Uint8Array;
    nowMs: number;
  } & PublisherFloors,
): Result<PublisherStep> {
  const step = checkPublisherStep(parts);
  if (!step.ok) return step;
  const signatures = countValidSignatures(parts.next, parts.role.keys);
  if (signatures < parts.role.threshold) {
    const detail = `${parts.namespace}: ${signatures} of ${parts.role.threshold} needed signatures are valid`;
    return refuse('metadata-signature-invalid', detail);
  }
  if (step.value.expiresAtMs <= parts.nowMs)
    return refuse('metadata-expired', `${parts.namespace}: has expired`);
  return step;
}

function readFile(file: Uint8Array | PublisherTargets): Result<PublisherTargets> {
  return file instanceof Uint8Array ? parseTargets(file) : ok(file);
}

function readCurrent(file: Uint8Array | PublisherTargets | null): Result<PublisherTargets | null> {
  return file === null ? ok(null) : readFile(file);
}

function checkKept(current: TargetsMetadata | null, next: TargetsMetadata): Result<void> {
  for (const [path, entry] of current?.targets ?? []) {
    const same = next.targets.get(path);
    if (same === undefined) return refuse('metadata-rollback', `${path} was signed before and is gone`);
    if (!isSameEntry(entry, same))
      return refuse('release-exists', `${path} was signed before with other content`);
  }
  for (const [model, floor] of current?.floors ?? []) {
    if ((next.floors.get(model) ?? 0) < floor)
      return refuse('metadata-rollback', `the floor of ${model} falls`);
  }
  for (const [model, counters] of current?.withdrawn ?? []) {
    for (const counter of counters) {
      if (next.withdrawn.get(model)?.has(counter) !== true)
        return refuse('metadata-rollback', `${model}: counter ${counter} was withdrawn and comes back`);
    }
  }
  return ok();
}

function isSameEntry(a: TargetEntry, b: TargetEntry): boolean {
  return (
    a.sha256 === b.sha256 &&
    a.bytes === b.bytes &&
    a.counter === b.counter &&
    JSON.stringify(a.requires) === JSON.stringify(b.requires)
  );
}

/** Every target as a release of the namespace, with a counter that no other release of its model has. */
function readReleases(namespace: string, next: TargetsMetadata): Result<NewRelease[]> {
  const releases: NewRelease[] = [];
  const counters = new Map<string, Set<number>>();
  for (const [path, entry] of next.targets) {
    const release = releaseOf(path);
    if (release?.namespace !== namespace)
      return refuse('metadata-malformed', `${path} is no release of ${namespace}`);
    const { counter } = entry;
    if (counter === null) return refuse('metadata-malformed', `${path} has no counter`);
    const taken = counters.get(release.name) ?? new Set<number>();
    if (taken.has(counter)) return refuse('conflict', `${path}: counter ${counter} is taken`);
    counters.set(release.name, taken.add(counter));
    releases.push({ release, entry: { ...entry, counter } });
  }
  return ok(releases);
}

function checkAdded(
  releases: readonly NewRelease[],
  current: TargetsMetadata | null,
  next: TargetsMetadata,
  counterFloors: ReadonlyMap<string, number>,
): Result<NewRelease[]> {
  const added: NewRelease[] = [];
  const highestBefore = new Map<string, number>();
  for (const one of releases) {
    const { release, entry } = one;
    if (current?.targets.has(targetPath(release))) {
      highestBefore.set(release.name, Math.max(entry.counter, highestBefore.get(release.name) ?? 0));
    } else {
      added.push(one);
    }
  }
  for (const { release, entry } of added) {
    const highest = Math.max(highestBefore.get(release.name) ?? 0, counterFloors.get(release.name) ?? 0);
    if (entry.counter <= highest) {
      return refuse(
        'conflict',
        `${targetPath(release)}: counter ${entry.counter} does not grow beyond ${highest}`,
      );
    }
    const floor = next.floors.get(release.name) ?? 0;
    if (entry.counter < floor) {
      return refuse(
        'release-below-floor',
        `${targetPath(release)}: counter ${entry.counter} is below the floor ${floor} of its model`,
      );
    }
  }
  return ok(added);
}

function raisedFloors(current: TargetsMetadata | null, next: TargetsMetadata): RaisedFloor[] {
  const raised: RaisedFloor[] = [];
  for (const [model, to] of next.floors) {
    const from = current?.floors.get(model) ?? 0;
    if (to > from) raised.push({ model, from, to });
  }
  return raised;
}

/** A counter that no release has would take back, unseen, what somebody signs later. */
function newlyWithdrawn(
  releases: readonly NewRelease[],
  current: TargetsMetadata | null,
  next: TargetsMetadata,
): Result<WithdrawnRelease[]> {
  const wanted = new Map<string, Set<number>>();
  for (const [model, counters] of next.withdrawn) {
    const before = current?.withdrawn.get(model);
    const fresh = [...counters].filter((counter) => before?.has(counter) !== true);
    if (fresh.length > 0) wanted.set(model, new Set(fresh));
  }
  const found: WithdrawnRelease[] = [];
  for (const { release, entry } of releases) {
    if (wanted.get(release.name)?.delete(entry.counter)) found.push({ release, counter: entry.counter });
  }
  for (const [model, counters] of wanted) {
    const [counter] = counters;
    if (counter !== undefined)
      return refuse('target-unknown', `no release of ${model} has the withdrawn counter ${counter}`);
  }
  return ok(found);
}

function releaseOf(path: string): ReleaseName | null {
  const [namespace = '', name = '', version = '', ...rest] = path.split('/');
  return rest.length > 0 ? null : parseReleaseId(`${namespace}/${name}@${version}`);
}
