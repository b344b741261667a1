// Why: the one place on the device that says what it may run: what its region's director assigned and the
// publishers signed (DESIGN 3). Trusts: the roots pinned at enrolment and what it verified by them since.
// Must never: fetch anything for an assignment that was not checked, or store one that was refused.

import type { ErrorCode } from '../../shared/kernel/codes.ts';
import { unwrap } from '../../shared/kernel/errors.ts';
import { limits } from '../../shared/kernel/limits.ts';
import type { Clock, Fetcher, Log, Store } from '../../shared/kernel/ports.ts';
import { parseReleaseId } from '../../shared/kernel/releases.ts';
import { ok, type Refusal, type Result, refuse } from '../../shared/kernel/result.ts';
import { checkAgreement } from '../../shared/trust/agreement.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { parseRegionRoot, type RegionRoot, updateRegionRoot } from '../../shared/trust/region.ts';
import { type MetadataFetcher, refreshCatalogue } from '../../shared/trust/tuf/client.ts';
import { parseTimestamp } from '../../shared/trust/tuf/metadata.ts';
import {
  type AssignedRelease,
  type Assignment,
  type Envelope,
  envelopeSchema,
} from '../../shared/wire/messages.ts';
import {
  loadTrust,
  saveAssignment,
  saveCatalogue,
  saveRegionRoot,
  saveRoot,
  type TrustRecord,
} from './trust-store.ts';

export interface Authority {
  /** The assignment in force, or null where there is none that still verifies. */
  assignment(): Assignment | null;
  /** Epoch of the last assignment that was accepted, 0 where none. */
  epoch(): number;
  /** The region root in force. */
  regionRoot(): RegionRoot;
  verifiedTimeMs(): number;
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
  store: Store;
  region: string;
  deviceId: string;
  fetcher: Fetcher;
  fetchMetadata(fetcher: Fetcher, name: string, bytesMax: number): Promise<Result<Uint8Array>>;
  clock: Clock;
  log: Log;
}

/** A flood of badly signed assignments must not become a flood of requests for a newer region root. */
const regionRootGapMs = 10_000;

const curedByRegionRoot: ReadonlySet<ErrorCode> = new Set([
  'assignment-signature-invalid',
  'metadata-expired',
]);

function sameBytes(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && Buffer.compare(a, b) === 0;
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
  const { store, region, deviceId, fetcher, clock, log } = parts;
  const record: TrustRecord = unwrap(
    await loadTrust(store).then((found) =>
      found === null ? refuse('enrolment-required', 'this device holds no roots') : ok(found),
    ),
  );
  let regionRoot: RegionRoot = unwrap(readHeldRegionRoot(record.regionRoot));
  let inForce = readHeldAssignment();
  let regionRootAskedMs = Number.NEGATIVE_INFINITY;
  let last: Promise<unknown> = Promise.resolve();

  /** The clock floor: time that was verified once does not go back, whatever the wall clock says. */
  const nowMs = (): number => Math.max(clock.wall(), record.verifiedTimeMs);

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
    const envelope = envelopeSchema.safeParse(JSON.parse(record.assignment.envelope));
    if (!envelope.success) return null;
    const checked = checkAssignment({
      envelope: envelope.data,
      regionRoot,
      deviceId,
      region,
      current: null,
      nowMs: 0,
    });
    if (checked.ok) return checked.value.assignment;
    log.emit('warn', 'trust.refused', { what: 'stored assignment', ...checked.refusal });
    return null;
  }

  const metadata: MetadataFetcher = {
    fetch: (name, bytesMax) => parts.fetchMetadata(fetcher, name, bytesMax),
  };

  /** Walks the region's roots one by one, each signed by the one before. True where there was a newer one. */
  async function refreshRegionRoot(): Promise<Result<boolean>> {
    regionRootAskedMs = clock.mono();
    let moved = false;
    for (let step = 0; step < limits.rootRotationsMax; step += 1) {
      const next = await metadata.fetch(`region/${regionRoot.version + 1}.root.json`, limits.rootBytesMax);
      if (!next.ok) return next.refusal.code === 'metadata-missing' ? ok(moved) : next;
      const updated = updateRegionRoot(record.regionRoot, next.value);
      if (!updated.ok) return updated;
      await saveRegionRoot(store, next.value);
      record.regionRoot = next.value;
      regionRoot = updated.value;
      moved = true;
    }
    return ok(moved);
  }

  async function refreshFiles(
    namespaces: string[],
  ): Promise<Result<{ changed: boolean; refused: Refusal[] }>> {
    const before = record.catalogue;
    const refreshed = await refreshCatalogue({
      state: before,
      fetcher: metadata,
      nowMs: nowMs(),
      namespaces,
      saveRoot: async (root) => {
        await saveRoot(store, root);
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
      await saveCatalogue(store, next);
      log.emit('info', 'trust.refreshed', { namespaces });
    }
    record.catalogue = next;
    return ok({ changed, refused: Object.values(next.refused ?? {}) });
  }

  function check(envelope: Envelope): ReturnType<typeof checkAssignment> {
    const current =
      record.assignment === null
        ? null
        : { epoch: record.assignment.epoch, payloadSha256: record.assignment.payloadSha256 };
    return checkAssignment({ envelope, regionRoot, deviceId, region, current, nowMs: nowMs() });
  }

  async function consider(envelope: Envelope): Promise<Result<{ assignment: Assignment; fresh: boolean }>> {
    let checked = check(envelope);
    if (!checked.ok && curedByRegionRoot.has(checked.refusal.code)) {
      // The director's key may have been rotated since, or the root renewed. Only the region's own root says so.
      if (clock.mono() - regionRootAskedMs >= regionRootGapMs) {
        const walked = await refreshRegionRoot();
        if (walked.ok && walked.value) checked = check(envelope);
      }
    }
    if (!checked.ok) return checked;
    const { assignment, payloadSha256, unchanged } = checked.value;
    if (unchanged) {
      inForce ??= assignment;
      return ok({ assignment, fresh: false });
    }
    if (assignment.releases.length > 0) {
      const refreshed = await refreshFiles(namespacesOf(assignment));
      if (!refreshed.ok) return refreshed;
      for (const assigned of assignment.releases) {
        const agreed = checkAgreement(record.catalogue, assigned);
        if (!agreed.ok) {
          return refuse(agreed.refusal.code, `${assigned.releaseId}: ${agreed.refusal.detail}`);
        }
      }
    }
    const verifiedTimeMs = Math.max(record.verifiedTimeMs, provenTimeMs(assignment));
    const held = { epoch: assignment.epoch, payloadSha256, envelope: JSON.stringify(envelope) };
    await saveAssignment(store, held, verifiedTimeMs);
    record.assignment = held;
    record.verifiedTimeMs = verifiedTimeMs;
    inForce = assignment;
    return ok({ assignment, fresh: true });
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
    epoch: () => record.assignment?.epoch ?? 0,
    regionRoot: () => regionRoot,
    verifiedTimeMs: () => record.verifiedTimeMs,
    holdsTimestamp: (bytes) => sameBytes(record.catalogue.timestamp, bytes),
    consider: (envelope) => exclusive(() => consider(envelope)),
    refresh: () =>
      exclusive(async () => {
        const walked = await refreshRegionRoot();
        if (!walked.ok) return walked;
        const files = await refreshFiles(namespacesOf(inForce));
        if (!files.ok) return files;
        return ok({ ...files.value, changed: files.value.changed || walked.value });
      }),
    agree: async (assigned) => {
      const agreed = checkAgreement(record.catalogue, assigned);
      return agreed.ok ? ok() : agreed;
    },
  };
}
