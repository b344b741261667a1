// Why: what a device must not forget, because forgetting it is a rollback: who it is, its roots, the highest
// versions and numbers. In one shape, so that two copies can be compared (DESIGN 3 "Trust").
// Trusts: that each copy held only what had been verified. Must never: prefer the lower number.

import { z } from 'zod';
import { sha256Pattern } from '../../shared/kernel/releases.ts';
import type { Result } from '../../shared/kernel/result.ts';
import { checkAssignment } from '../../shared/trust/assignment.ts';
import { parseRegionRoot, type RegionRoot } from '../../shared/trust/region.ts';
import { noBounds } from '../../shared/trust/tuf/floors.ts';
import { housePolicy } from '../../shared/trust/tuf/house-policy.ts';
import { parseSnapshot } from '../../shared/trust/tuf/metadata.ts';
import { checkThreshold } from '../../shared/trust/tuf/signatures.ts';
import { followTimestamp, trustRoot } from '../../shared/trust/tuf/trusted-set.ts';
import { deviceIdSchema, labelsSchema } from '../../shared/wire/messages.ts';
import { mergeFloors } from './clock.ts';
import { credentialsSchema } from './identity.ts';
import { movesSchema, neverMoved } from './moves.ts';
import { heldEnvelope } from './trust-store.ts';

const bytesSchema = z.base64().transform((text): Uint8Array => new Uint8Array(Buffer.from(text, 'base64')));
const number = z.number().int().nonnegative();

export const heldSchema = z.object({
  identity: credentialsSchema
    .extend({
      seed: bytesSchema.refine((seed) => seed.length === 32),
      deviceId: deviceIdSchema,
      region: z.string(),
      brokerUrl: z.string(),
      labels: labelsSchema,
      telemetryEpoch: number,
      claimId: z.string(),
      settled: z.boolean(),
      proven: credentialsSchema.nullable(),
    })
    .nullable(),
  /** Exact bytes. Timestamp and snapshot carry the versions of everything below them. */
  root: bytesSchema.nullable(),
  regionRoot: bytesSchema.nullable(),
  timestamp: bytesSchema.nullable(),
  snapshot: bytesSchema.nullable(),
  assignment: z
    .object({ epoch: number, payloadSha256: z.string().regex(sha256Pattern), envelope: z.string() })
    .nullable(),
  floors: z.array(z.object({ role: z.enum(['time', 'director']), keys: z.array(z.string()), atMs: number })),
  /** Starts of the agent so far. */
  boot: number,
  /** No report counter and no id of a refusal above it was used. */
  reserved: number,
  /** The enrolment whose telemetry chain was begun on this device. */
  outbox: z.object({ deviceId: z.string(), epoch: number }).nullable(),
  /** Absent in a copy of an earlier version. */
  moves: movesSchema.default(neverMoved),
});
export type Held = z.infer<typeof heldSchema>;

export const nothingHeld: Held = {
  identity: null,
  root: null,
  regionRoot: null,
  timestamp: null,
  snapshot: null,
  assignment: null,
  floors: [],
  boot: 0,
  reserved: 0,
  outbox: null,
  moves: neverMoved,
};

/** As JSON text; bytes in base64. */
export function encodeHeld(held: Held): string {
  return JSON.stringify(held, function (this: Record<string, unknown>, key: string, value: unknown) {
    // As it was before a Buffer made an object of itself.
    const bytes = this[key];
    return bytes instanceof Uint8Array ? Buffer.from(bytes).toString('base64') : value;
  });
}

/** Null where it is not what this version, or one before it, wrote. */
export function decodeHeld(text: string): Held | null {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // Broken is an expected state of a copy.
    return null;
  }
  const parsed = heldSchema.safeParse(json);
  return parsed.success && isWhole(parsed.data) ? parsed.data : null;
}

/** Whether a device can start from it: an identity always has roots that can be read. */
export function isWhole(held: Held): boolean {
  if (held.identity === null) return true;
  if (held.root === null || held.regionRoot === null) return false;
  return trustRoot(housePolicy, held.root).ok && parseRegionRoot(held.regionRoot).ok;
}

type Pick2 = (a: Uint8Array | null, b: Uint8Array | null) => Uint8Array | null;

/** The one with the higher version; `a` where neither has one. */
function higherBy(versionOf: (bytes: Uint8Array) => number): Pick2 {
  return (a, b) => {
    const [of_a, of_b] = [a, b].map((bytes) => (bytes === null ? -1 : versionOf(bytes)));
    return (of_b ?? -1) > (of_a ?? -1) ? b : a;
  };
}

/**
 * What two copies of one device hold together: the higher verified number each. `written` was written first at
 * each change, so where nothing says which is newer (the identity), it is the newer one, unless it is of an
 * earlier start.
 */
export function higherOf(kept: Held, written: Held): Held {
  if (kept.identity === null || written.identity === null) {
    const [full, empty] = kept.identity === null ? [written, kept] : [kept, written];
    return {
      ...full,
      boot: Math.max(full.boot, empty.boot),
      reserved: Math.max(full.reserved, empty.reserved),
    };
  }
  const newer = written.boot >= kept.boot ? written : kept;
  const numbers = {
    boot: Math.max(kept.boot, written.boot),
    reserved: Math.max(kept.reserved, written.reserved),
  };
  // An enrolment that was cut off between the two: another device, whose numbers are its own.
  if (kept.identity.deviceId !== written.identity.deviceId) return { ...newer, ...numbers };
  // A move that was cut off between the two: versions and epochs of two regions do not compare. The catalogue is the same.
  const hasMoved = kept.identity.claimId !== written.identity.claimId;

  const root = higherBy((bytes) => {
    const read = trustRoot(housePolicy, bytes);
    return read.ok ? read.value.version : -1;
  })(kept.root, written.root);
  const regionRoot = hasMoved
    ? newer.regionRoot
    : higherBy((bytes) => {
        const read = parseRegionRoot(bytes);
        return read.ok ? read.value.version : -1;
      })(kept.regionRoot, written.regionRoot);
  const trusted = root === null ? null : trustRoot(housePolicy, root);
  /** Numbers that the present root's keys did not sign bind nobody (TUF 1.0.34 §5.3.11). */
  const timestamp = higherBy((bytes) => {
    const read =
      trusted?.ok === true ? followTimestamp(housePolicy, trusted.value, null, noBounds, bytes) : null;
    return read?.ok === true ? read.value.version : -1;
  })(kept.timestamp, written.timestamp);
  const snapshot = higherBy((bytes) => {
    const read = parseSnapshot(bytes);
    if (!read.ok || trusted?.ok !== true) return -1;
    return checkThreshold(read.value, trusted.value.roles.get('snapshot'), 'snapshot').ok
      ? read.value.version
      : -1;
  })(kept.snapshot, written.snapshot);
  const inForce = regionRoot === null ? null : parseRegionRoot(regionRoot);
  const keptEpoch = epochOf(kept.identity, kept.assignment, inForce);
  const writtenEpoch = epochOf(written.identity, written.assignment, inForce);
  return {
    ...numbers,
    identity: newer.identity,
    root,
    regionRoot,
    timestamp,
    snapshot,
    assignment: hasMoved
      ? newer.assignment
      : writtenEpoch > keptEpoch
        ? written.assignment
        : (kept.assignment ?? written.assignment),
    floors: mergeFloors(kept.floors, written.floors),
    outbox: hasMoved
      ? newer.outbox
      : (written.outbox?.epoch ?? -1) > (kept.outbox?.epoch ?? -1)
        ? written.outbox
        : kept.outbox,
    moves: newerMoves(kept, written, newer),
  };
}

/** The later of the two orders binds, whichever copy knows of it. */
function newerMoves(kept: Held, written: Held, newer: Held): Held['moves'] {
  const [a, b] = [kept.moves, written.moves];
  if (a.lastIssuedAtMs === b.lastIssuedAtMs) return newer.moves;
  return a.lastIssuedAtMs > b.lastIssuedAtMs ? a : b;
}

/** Epoch of the assignment, 0 where none verifies under this region root. */
function epochOf(
  { deviceId, region }: NonNullable<Held['identity']>,
  assignment: Held['assignment'],
  regionRoot: Result<RegionRoot> | null,
): number {
  const envelope = assignment === null ? null : heldEnvelope(assignment.envelope);
  if (envelope === null || regionRoot?.ok !== true) return 0;
  const checked = checkAssignment({
    envelope,
    regionRoot: regionRoot.value,
    deviceId,
    region,
    current: null,
    nowMs: 0,
  });
  return checked.ok ? checked.value.assignment.epoch : 0;
}
