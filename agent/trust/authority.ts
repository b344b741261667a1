// Why: the one place on the device that says what it may run: what its region's director assigned and the
// publishers signed (DESIGN 3). Trusts: the roots pinned at enrolment and what it verified by them since.
// Must never: fetch anything for an assignment that was not checked, or store one that was refused.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import type { Clock, Log } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkAgreement } from '../../shared/trust/agreement.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import { refreshCatalogue } from '../../shared/trust/tuf/client.ts';
import { parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import type { AssignedRelease, Assignment, Envelope, HeldVersions } from '../../shared/wire/messages.ts';
import { openTrustedClock, type TrustedClock, vouchersOf } from './clock.ts';
import type { Keeper } from './keeper.ts';
import {
  type HeldFiles,
  heldFile,
  heldVersions,
  type MetadataSource,
  type MetadataSources,
} from './refresh.ts';
import { walkRegionRoots } from './region-walk.ts';
import { heldEnvelope, loadTrust, type TrustRecord } from './trust-store.ts';

export interface Authority {
  /** The assignment in force, or null where there is none that still verifies. */
  assignment(): Assignment | null;
  /** Epoch of the last assignment that was accepted, 0 where none. */
  epoch(): number;
  /** The region root in force. */
  regionRoot(): RegionRoot;
  /** The catalogue root in force, exact bytes. */
  catalogueRoot(): Uint8Array;
  /** What time it is, by whose word (clock.ts). */
  time: TrustedClock;
  held(): HeldVersions;
  /** Whether these are the bytes of the timestamp that is held, so that a doorbell needs no refresh. */
  holdsTimestamp(bytes: Uint8Array): boolean;
  /**
   * Checks an assignment, refreshes the catalogue, checks that both authorities agree on each release,
   * and puts it in force durably. `fresh` is false for the one already in force.
   * Refusals: `assignment-*`, `metadata-*`, `target-*`, `release-below-floor`, the Fetcher's.
   */
  consider(envelope: Envelope): Promise<Result<{ assignment: Assignment; fresh: boolean }>>;
  /**
   * Refreshes region root and catalogue. `refused`: publishers whose metadata was not accepted; they do not
   * hold up the others. Refusals: `metadata-*`, the Fetcher's.
   */
  refresh(): Promise<Result<{ changed: boolean; refused: Refusal[] }>>;
  /** Whether the catalogue held now names the same bytes. Refusals: `target-*`, `release-below-floor`. */
  agree(assigned: AssignedRelease): Promise<Result<void>>;
}

export interface AuthorityParts {
  keeper: Keeper;
  region: string;
  deviceId: string;
  sources: MetadataSources;
  /** Signed bytes that the registry seems to have lost: a held file by its name on the wire. Must not block. */
  giveBack(file: string, bytes: Uint8Array): void;
  /** Whether exactly these bytes serve under that name already. */
  runs?(assigned: AssignedRelease): boolean;
  /** Whether it is the last good release of that name, entry by entry: proven here, so that its way back installs nothing. */
  proven?(assigned: AssignedRelease): boolean;
  clock: Clock;
  log: Log;
}

/** A publisher's word against a release that both authorities still agree on. */
const barring: ReadonlySet<ErrorCode> = new Set(['release-withdrawn', 'release-below-floor']);

/** The catalogue forgot it, or names other bytes by now: a home was lost, and another took over without its last files. */
const forgotten: ReadonlySet<ErrorCode> = new Set(['target-unknown', 'target-digest-mismatch']);

/** A flood of badly signed assignments must not become a flood of requests for a newer region root. */
const regionRootGapMs = 10_000;

const curedByRegionRoot: ReadonlySet<ErrorCode> = new Set([
  'assignment-signature-invalid',
  'metadata-expired',
  // By a clock that a stolen key moved: the next root no longer names it.
  'assignment-expired',
]);

/** Genuine, and older than what is held: the registry may have been restored from a backup. */
const olderThanHeld: ReadonlySet<ErrorCode> = new Set(['assignment-replayed', 'assignment-epoch-reused']);

/** The two authorities speak of different catalogues. */
const otherCatalogue: ReadonlySet<ErrorCode> = new Set([
  'target-unknown',
  'target-digest-mismatch',
  'release-counter-mismatch',
]);

function sameBytes(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (a === null || b === null) return a === b;
  return Buffer.compare(a, b) === 0;
}

function namespacesOf(assignment: Assignment | null): string[] {
  const found = new Set<string>();
  for (const { releaseId } of assignment?.releases ?? []) {
    const release = parseReleaseId(releaseId);
    if (release) found.add(release.namespace);
  }
  return [...found].sort();
}

/** Fault: `enrolment-required` where nothing was pinned, `state-corrupt` where the pinned root cannot be read. */
export async function openAuthority(parts: AuthorityParts): Promise<Authority> {
  const { keeper, region, deviceId, sources, clock, log } = parts;
  const runs = parts.runs ?? (() => false);
  const proven = parts.proven ?? (() => false);
  const record: TrustRecord = unwrap(
    await loadTrust(keeper.store).then((found) =>
      found === null ? refuse('enrolment-required', 'this device holds no roots') : ok(found),
    ),
  );
  let regionRoot: RegionRoot = unwrap(readHeldRegionRoot(record.regionRoot));
  const time = openTrustedClock({
    clock,
    floors: keeper.held().floors,
    root: regionRoot,
    save: (floors) => keeper.floors(floors),
  });
  /** False where the held assignment's director is no longer the region's: its epoch binds nobody then. */
  let bound = true;
  let inForce = readHeldAssignment();
  let regionRootAskedMs = Number.NEGATIVE_INFINITY;
  let last: Promise<unknown> = Promise.resolve();

  /** One at a time: two refreshes at once could store the older one last. */
  function exclusive<T>(work: () => Promise<T>): Promise<T> {
    const next = last.then(work, work);
    last = next.catch(() => undefined);
    return next;
  }

  function readHeldRegionRoot(bytes: Uint8Array): Result<RegionRoot> {
    const parsed = parseRegionRoot(bytes);
    return parsed.ok ? parsed : refuse('state-corrupt', `the pinned region root: ${parsed.refusal.detail}`);
  }

  /**
   * The stored assignment once more through the check of its signature. Its expiry does not matter: what
   * it made the device run goes on running. Null where the director's key has changed since.
   */
  function readHeldAssignment(): Assignment | null {
    if (record.assignment === null) return null;
    const envelope = heldEnvelope(record.assignment.envelope);
    if (envelope === null) return null;
    const checked = checkAssignment({
      envelope,
      regionRoot,
      deviceId,
      region,
      current: null,
      nowMs: 0,
    });
    bound = checked.ok || checked.refusal.code !== 'assignment-signature-invalid';
    if (checked.ok) return checked.value.assignment;
    log.emit('warn', 'trust.refused', { what: 'stored assignment', ...checked.refusal });
    return null;
  }

  const heldFiles = (): HeldFiles => ({ catalogue: record.catalogue, regionRoot: record.regionRoot });

  /** True where there was a newer one. */
  async function refreshRegionRoot(source: MetadataSource): Promise<Result<boolean>> {
    regionRootAskedMs = clock.mono();
    return walkRegionRoots(regionRoot, source.fetch, async (next) => {
      await keeper.regionRoot(next.bytes);
      record.regionRoot = next.bytes;
      regionRoot = next;
      // The word of a key that was stolen and replaced no longer counts: neither its time nor its epochs.
      await time.follow(regionRoot);
      inForce = readHeldAssignment();
    });
  }

  async function refreshFiles(
    source: MetadataSource,
    namespaces: string[],
  ): Promise<Result<{ changed: boolean; refused: Refusal[] }>> {
    const before = record.catalogue;
    const refreshed = await refreshCatalogue({
      state: before,
      fetcher: source,
      nowMs: time.nowMs(),
      namespaces,
      saveRoot: async (root) => {
        await keeper.root(root);
        record.catalogue = { ...record.catalogue, root };
      },
    });
    if (!refreshed.ok) return refreshed;
    const next = refreshed.value;
    const names = new Set([...Object.keys(before.delegated), ...Object.keys(next.delegated)]);
    const changed =
      !sameBytes(before.root, next.root) ||
      !sameBytes(before.timestamp, next.timestamp) ||
      !sameBytes(before.snapshot, next.snapshot) ||
      !sameBytes(before.targets, next.targets) ||
      [...names].some((name) => !sameBytes(before.delegated[name] ?? null, next.delegated[name] ?? null));
    if (changed) {
      await keeper.catalogue(next);
      log.emit('info', 'trust.refreshed', { namespaces });
    }
    record.catalogue = next;
    return ok({ changed, refused: Object.values(next.refused ?? {}) });
  }

  async function refreshAll(
    source: MetadataSource,
    namespaces: string[],
  ): Promise<Result<{ changed: boolean; refused: Refusal[] }>> {
    const walked = await refreshRegionRoot(source);
    if (!walked.ok) return walked;
    const files = await refreshFiles(source, namespaces);
    if (!files.ok) return files;
    return ok({ ...files.value, changed: files.value.changed || walked.value });
  }

  function check(envelope: Envelope): ReturnType<typeof checkAssignment> {
    const current =
      record.assignment === null || !bound
        ? null
        : { epoch: record.assignment.epoch, payloadSha256: record.assignment.payloadSha256 };
    return checkAssignment({ envelope, regionRoot, deviceId, region, current, nowMs: time.nowMs() });
  }

  async function consider(envelope: Envelope): Promise<Result<{ assignment: Assignment; fresh: boolean }>> {
    let checked = check(envelope);
    if (!checked.ok && curedByRegionRoot.has(checked.refusal.code)) {
      // The director's key may have been rotated since, or the root renewed. Only the region's own root says so.
      if (clock.mono() - regionRootAskedMs >= regionRootGapMs) {
        const source = sources.open(heldFiles(), namespacesOf(inForce));
        const walked = await refreshRegionRoot(source);
        if (walked.ok && walked.value) checked = check(envelope);
      }
    }
    if (!checked.ok) {
      if (olderThanHeld.has(checked.refusal.code) && record.assignment !== null) {
        parts.giveBack('assignment', new TextEncoder().encode(record.assignment.envelope));
      }
      return checked;
    }
    const { assignment, payloadSha256, unchanged } = checked.value;
    if (unchanged) {
      inForce ??= assignment;
      return ok({ assignment, fresh: false });
    }
    if (assignment.releases.length > 0) {
      const namespaces = namespacesOf(assignment);
      const source = sources.open(heldFiles(), namespaces);
      const refreshed = await refreshFiles(source, namespaces);
      giveBackBehind(source);
      if (!refreshed.ok) return refreshed;
      for (const assigned of assignment.releases) {
        const agreed = checkAgreement(record.catalogue, assigned);
        // What was withdrawn is not installed any more; where it serves already, it goes on.
        if (!agreed.ok && barring.has(agreed.refusal.code) && runs(assigned)) continue;
        if (!agreed.ok) {
          if (otherCatalogue.has(agreed.refusal.code)) giveBackOnline();
          // Both authorities named it once, and nothing is installed: refused, it would hold up all else that is assigned.
          if (forgotten.has(agreed.refusal.code) && proven(assigned)) continue;
          return refuse(agreed.refusal.code, `${assigned.releaseId}: ${agreed.refusal.detail}`);
        }
      }
    }
    const held = { epoch: assignment.epoch, payloadSha256, envelope: JSON.stringify(envelope) };
    await keeper.assignment(held);
    record.assignment = held;
    bound = true;
    inForce = assignment;
    await time.proven({
      role: 'director',
      keys: vouchersOf(envelope, regionRoot, 'director'),
      atMs: provenTimeMs(assignment),
    });
    return ok({ assignment, fresh: true });
  }

  /**
   * The director names what the catalogue here does not have. Where the registry signed the same numbers twice, before
   * and after a restore, neither side sees that the other's files are not its own: these show it.
   */
  function giveBackOnline(): void {
    for (const name of ['timestamp', 'snapshot'] as const) {
      const bytes = record.catalogue[name];
      if (bytes !== null) parts.giveBack(name, bytes);
    }
  }

  /** What the registry says it lost is given back as it was signed; it verifies it by its own keys. */
  function giveBackBehind(source: MetadataSource): void {
    for (const name of source.behind()) {
      const bytes = heldFile(heldFiles(), name);
      if (bytes !== null) parts.giveBack(name, bytes);
    }
  }

  /**
   * What an accepted assignment proves about the time. Bounded by what the catalogue signed, so that a
   * stolen director cannot push the floor beyond every expiry and so cut the device off for good.
   */
  function provenTimeMs(assignment: Assignment): number {
    const timestamp = record.catalogue.timestamp === null ? null : parseTimestamp(record.catalogue.timestamp);
    return timestamp?.ok === true ? Math.min(assignment.issuedAtMs, timestamp.value.expiresAtMs) : 0;
  }

  return {
    assignment: () => inForce,
    epoch: () => (bound ? (record.assignment?.epoch ?? 0) : 0),
    regionRoot: () => regionRoot,
    catalogueRoot: () => record.catalogue.root,
    time,
    held: () => heldVersions(heldFiles()),
    holdsTimestamp: (bytes) => sameBytes(record.catalogue.timestamp, bytes),
    consider: (envelope) => exclusive(() => consider(envelope)),
    refresh: () =>
      exclusive(async () => {
        // A root that unbinds the assignment does not change which publishers matter to what runs.
        const namespaces = namespacesOf(inForce);
        const source = sources.open(heldFiles(), namespaces);
        const refreshed = await refreshAll(source, namespaces);
        giveBackBehind(source);
        return refreshed;
      }),
    agree: async (assigned) => {
      const agreed = checkAgreement(record.catalogue, assigned);
      return agreed.ok ? ok() : agreed;
    },
  };
}
