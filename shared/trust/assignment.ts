// Why: what the director tells one device to run, and the order in which a device doubts it.
// Trusts: the region root pinned on the device. Must never: store or compare anything of an assignment for
// another device; its genuine, higher epoch would lock this one out.

import { sha256Hex } from '../crypto/digests.ts';
import { openEnvelope, signEnvelope } from '../crypto/dsse.ts';
import type { Signer } from '../crypto/ed25519.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import {
  type Assignment,
  assignmentSchema,
  type Envelope,
  encodeMessage,
  payloadTypes,
} from '../wire/messages.ts';
import type { RegionRoot } from './region.ts';
import { readSignedBody } from './signed-body.ts';

/** What a device keeps of the assignment in force. */
export interface AssignmentInForce {
  epoch: number;
  /** Hex digest of its payload: the same bytes again are no news, other bytes are an attack. */
  payloadSha256: string;
}

export interface CheckedAssignment {
  assignment: Assignment;
  payloadSha256: string;
  /** True where exactly this assignment is in force already. */
  unchanged: boolean;
}

export function signAssignment(assignment: Assignment, signer: Signer): Envelope {
  return signEnvelope(payloadTypes.assignment, encodeMessage(assignment), [signer]);
}

/**
 * Whether a device may act on this assignment. Refusals, in the order of the checks: `envelope-malformed`,
 * `assignment-signature-invalid`, `assignment-malformed`, `assignment-other-device`,
 * `assignment-other-region`, `assignment-replayed`, `assignment-epoch-reused`, `assignment-expired`,
 * `metadata-expired` (the region root). Pure: storing the result is the caller's.
 */
export function checkAssignment(parts: {
  envelope: Envelope;
  regionRoot: RegionRoot;
  deviceId: string;
  region: string;
  current: AssignmentInForce | null;
  nowMs: number;
}): Result<CheckedAssignment> {
  const { envelope, regionRoot, deviceId, region, current, nowMs } = parts;
  const { keys, threshold } = regionRoot.roles.director;
  const publicKeys = keys.map((key) => key.publicKey);
  const opened = openEnvelope(
    envelope,
    payloadTypes.assignment,
    publicKeys,
    threshold,
    'assignment-signature-invalid',
  );
  if (!opened.ok) return opened;

  const body = readSignedBody(assignmentSchema, opened.value, 'assignment-malformed');
  if (!body.ok) return body;
  const assignment = body.value;
  const names = assignment.releases.map((release) => release.as);
  if (new Set(names).size !== names.length) {
    return refuse('assignment-malformed', 'two releases are to be served under one name');
  }

  if (assignment.deviceId !== deviceId) {
    return refuse('assignment-other-device', `it is for device ${assignment.deviceId}`);
  }
  if (assignment.region !== region || regionRoot.region !== region) {
    return refuse('assignment-other-region', `it is of region ${assignment.region}`);
  }

  const payloadSha256 = sha256Hex(opened.value);
  if (current !== null && assignment.epoch < current.epoch) {
    return refuse('assignment-replayed', `epoch ${assignment.epoch} after ${current.epoch}`);
  }
  const unchanged = current !== null && assignment.epoch === current.epoch;
  if (unchanged && payloadSha256 !== current.payloadSha256) {
    return refuse('assignment-epoch-reused', `another assignment has epoch ${current.epoch} already`);
  }

  if (assignment.expiresAtMs <= nowMs) return refuse('assignment-expired', 'its time is over');
  if (regionRoot.expiresAtMs <= nowMs) return refuse('metadata-expired', 'the region root has expired');
  return ok({ assignment, payloadSha256, unchanged });
}
