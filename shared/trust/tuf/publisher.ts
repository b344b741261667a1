// Why: how a publisher's targets metadata grows: the publisher's CLI makes the next file from the current
// one, the registry checks that step before it serves it. Trusts: the delegation in verified targets.
// Must never: let a release that was signed once change, vanish, or lose its floor.

import type { Signer } from '../../crypto/ed25519.ts';
import { parseReleaseId, type ReleaseName, targetPath } from '../../kernel/releases.ts';
import { ok, type Result, refuse } from '../../kernel/result.ts';
import { parseTargets, type TargetEntry, type TargetsMetadata } from './metadata.ts';
import { countValidSignatures, makeTargets, type RoleSpec } from './repository.ts';

export interface NewRelease {
  release: ReleaseName;
  entry: TargetEntry & { counter: number };
}

/**
 * The next targets file of a namespace, one version on, signed by `signers`. Everything of the current file is
 * kept; `floors` (by model name) raise those they name, `withdrawn` adds to what was taken back. Refusals: `metadata-malformed` (the current file),
 * `release-exists`, `conflict` (a counter that does not grow), `metadata-rollback` (a falling floor),
 * `input-invalid` (another namespace).
 */
export function nextPublisherTargets(parts: {
  namespace: string;
  current: Uint8Array | null;
  add: readonly NewRelease[];
  floors?: ReadonlyMap<string, number>;
  withdrawn?: ReadonlyMap<string, ReadonlySet<number>>;
  expiresAtMs: number;
  signers: readonly Signer[];
}): Result<Uint8Array> {
  const current = readCurrent(parts.current);
  if (!current.ok) return current;
  const targets = new Map(current.value?.targets ?? []);
  for (const { release, entry } of parts.add) {
    if (release.namespace !== parts.namespace) {
      return refuse('input-invalid', `${targetPath(release)} is not of namespace ${parts.namespace}`);
    }
    if (targets.has(targetPath(release)))
      return refuse('release-exists', `${targetPath(release)} is signed already`);
    targets.set(targetPath(release), entry);
  }
  const floors = new Map([...(current.value?.floors ?? []), ...(parts.floors ?? [])]);
  const withdrawn = new Map(current.value?.withdrawn ?? []);
  for (const [model, counters] of parts.withdrawn ?? []) {
    withdrawn.set(model, new Set([...(withdrawn.get(model) ?? []), ...counters]));
  }
  const version = (current.value?.version ?? 0) + 1;
  const next = makeTargets({
    version,
    expiresAtMs: parts.expiresAtMs,
    targets,
    floors,
    withdrawn,
    signers: parts.signers,
  });
  const checked = checkPublisherStep({ ...parts, next });
  return checked.ok ? ok(next) : checked;
}

/** The highest counter that a model's releases have so far, 0 for none. Refusals: `metadata-malformed`. */
export function highestCounter(
  current: Uint8Array | null,
  model: { namespace: string; name: string },
): Result<number> {
  const read = readCurrent(current);
  if (!read.ok) return read;
  const prefix = `${model.namespace}/${model.name}/`;
  let highest = 0;
  for (const [path, entry] of read.value?.targets ?? []) {
    if (path.startsWith(prefix)) highest = Math.max(highest, entry.counter ?? 0);
  }
  return ok(highest);
}

export interface PublisherStep {
  version: number;
  expiresAtMs: number;
  /** Releases that the next file names and the current one does not. */
  added: readonly NewRelease[];
}

/**
 * Whether `next` may follow `current`, whoever signed it. Refusals: `metadata-malformed`, `metadata-too-large`,
 * `metadata-version-invalid`, `release-exists` (a release with other content), `metadata-rollback` (a release
 * or floor that was taken back), `conflict` (a counter that does not grow).
 */
export function checkPublisherStep(parts: {
  namespace: string;
  current: Uint8Array | null;
  next: Uint8Array;
}): Result<PublisherStep> {
  const current = readCurrent(parts.current);
  if (!current.ok) return current;
  const parsed = parseTargets(parts.next);
  if (!parsed.ok) return parsed;
  const next = parsed.value;
  const version = (current.value?.version ?? 0) + 1;
  if (next.version !== version) {
    return refuse('metadata-version-invalid', `version ${next.version} where ${version} must follow`);
  }
  if (next.delegations.length > 0)
    return refuse('metadata-malformed', 'a publisher does not delegate further');
  const kept = checkKept(current.value, next);
  if (!kept.ok) return kept;
  const added = checkAdded(parts.namespace, current.value, next);
  return added.ok ? ok({ version, expiresAtMs: next.expiresAtMs, added: added.value }) : added;
}

/**
 * The step above, fully signed and not expired: what the registry demands before it serves the file.
 * Refusals: as above, and `metadata-signature-invalid`, `metadata-expired`. With a threshold above one, stage
 * a file that passes `checkPublisherStep` until `countValidSignatures` is enough.
 */
export function checkPublisherMetadata(parts: {
  namespace: string;
  role: RoleSpec;
  current: Uint8Array | null;
  next: Uint8Array;
  nowMs: number;
}): Result<PublisherStep> {
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

function readCurrent(bytes: Uint8Array | null): Result<TargetsMetadata | null> {
  return bytes === null ? ok(null) : parseTargets(bytes);
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

function checkAdded(
  namespace: string,
  current: TargetsMetadata | null,
  next: TargetsMetadata,
): Result<NewRelease[]> {
  const added: NewRelease[] = [];
  const counters = new Map<string, Set<number>>();
  const highestBefore = new Map<string, number>();
  for (const [path, entry] of next.targets) {
    const release = releaseOf(path);
    if (release?.namespace !== namespace)
      return refuse('metadata-malformed', `${path} is no release of ${namespace}`);
    const { counter } = entry;
    if (counter === null) return refuse('metadata-malformed', `${path} has no counter`);
    const taken = counters.get(release.name) ?? new Set<number>();
    if (taken.has(counter)) return refuse('conflict', `${path}: counter ${counter} is taken`);
    counters.set(release.name, taken.add(counter));
    if (current?.targets.has(path)) {
      highestBefore.set(release.name, Math.max(counter, highestBefore.get(release.name) ?? 0));
    } else {
      added.push({ release, entry: { ...entry, counter } });
    }
  }
  for (const { release, entry } of added) {
    const highest = highestBefore.get(release.name) ?? 0;
    if (entry.counter <= highest) {
      return refuse(
        'conflict',
        `${targetPath(release)}: counter ${entry.counter} does not grow beyond ${highest}`,
      );
    }
  }
  return ok(added);
}

function releaseOf(path: string): ReleaseName | null {
  const [namespace = '', name = '', version = '', ...rest] = path.split('/');
  return rest.length > 0 ? null : parseReleaseId(`${namespace}/${name}@${version}`);
}
