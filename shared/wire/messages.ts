// Why: the JSON bodies on the bus, validated once at the edge, and the objects that are signed.
// Trusts: nothing before `parseMessage`. Must never: let an unvalidated body past the edge.

import { z } from 'zod';
import { canonicalJson, parseStrictJson } from '../crypto/canonical-json.ts';
import { FleetError } from '../kernel/errors.ts';
import { deviceIdPattern, namePattern, sha256Pattern, versionPattern } from '../kernel/releases.ts';
import { ok, type Result, refuse } from '../kernel/result.ts';
import { maskingSchema } from './masking.ts';
import { assignedSamplingSchema } from './sample-rules.ts';
import { waysHeldMax } from './ways.ts';
import { windowPolicySchema } from './windows.ts';

export const schemaVersion = 1;

const timeMs = z.number().int().nonnegative();
const sha256 = z.string().regex(sha256Pattern);
export const nameSchema = z.string().regex(namePattern);
export const deviceIdSchema = z.string().regex(deviceIdPattern);
export const versionSchema = z.string().regex(versionPattern);
export const releaseIdSchema = z
  .string()
  .regex(
    /^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9-]{0,62}@[0-9A-Za-z.-]{5,80}$/,
    'expected NS/NAME@VERSION',
  );
export const labelsSchema = z.record(
  z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/),
  z.string().max(128),
);
export type Labels = Record<string, string>;

/** What a publisher signs has whole numbers only; anything else could not even be compared with it. */
function hasCanonicalForm(value: z.core.util.JSONType): boolean {
  try {
    canonicalJson(value);
    return true;
  } catch (error) {
    if (error instanceof FleetError) return false;
    throw error;
  }
}

const head = { schemaVersion: z.literal(1), messageId: z.string().min(1).max(64), sentAtMs: timeMs };

/** DSSE envelope (github.com/secure-systems-lab/dsse), base64 payload and signatures. */
export const envelopeSchema = z.object({
  payloadType: z.string().min(1).max(128),
  payload: z.base64().max(1_000_000),
  signatures: z
    .array(z.object({ keyid: z.string().max(128), sig: z.base64().max(256) }))
    .min(1)
    .max(16),
});
export type Envelope = z.infer<typeof envelopeSchema>;

/** Body of `desired`, `reported`, and of other signed messages: an envelope with the usual head. */
export const signedMessageSchema = z.object({ ...head, envelope: envelopeSchema });
export type SignedMessage = z.infer<typeof signedMessageSchema>;

/** Body of `desired`: the signed assignment, and beside it an order to move that the catalogue's root signed. */
export const desiredMessageSchema = signedMessageSchema.extend({ move: envelopeSchema.exactOptional() });

/** DSSE payload types: one per kind of object, so that none can be taken for another. */
export const payloadTypes = {
  assignment: 'application/vnd.lepton.assignment.v1+json',
  report: 'application/vnd.lepton.report.v1+json',
  telemetryBatch: 'application/vnd.lepton.telemetry-batch.v1+json',
  telemetryAnswer: 'application/vnd.lepton.telemetry-answer.v1+json',
  time: 'application/vnd.lepton.time.v1+json',
  authorities: 'application/vnd.lepton.authorities.v1+json',
  erasure: 'application/vnd.lepton.erasure.v1+json',
  regionPolicy: 'application/vnd.lepton.region-policy.v1+json',
  regionList: 'application/vnd.lepton.region-list.v1+json',
  auditHead: 'application/vnd.lepton.audit-head.v1+json',
  auditExport: 'application/vnd.lepton.audit-export.v1+json',
  cell: 'application/vnd.lepton.cell.v1+json',
  deviceMove: 'application/vnd.lepton.device-move.v1+json',
  joining: 'application/vnd.lepton.joining.v1+json',
  carriedNotice: 'application/vnd.lepton.carried-notice.v1+json',
} as const;

export const shadowPolicySchema = z.object({
  requests: z.number().int().positive().max(1_000_000),
  cpuPercent: z.number().positive().max(100),
  timeoutMs: timeMs,
  agreementMin: z.number().min(0).max(1).nullable(),
});

export const activationPolicySchema = z.object({
  /** Deadlines of the machine's states, milliseconds. */
  deadlinesMs: z.object({
    fetching: timeMs.default(3_600_000),
    probing: timeMs.default(300_000),
    soaking: timeMs.default(3_600_000),
  }),
  /** How long the release must serve without failing before it is committed. */
  soakMs: timeMs.default(0),
  /** The candidate first answers copies of live inputs; absent: it does not. */
  shadow: shadowPolicySchema.exactOptional(),
  /** In the device's own time zone; absent: it downloads and switches at any time. */
  windows: windowPolicySchema.exactOptional(),
  /** Names of the other models of the rollout: all of them switch, or none does. */
  together: z.array(nameSchema).min(1).max(31).exactOptional(),
});
export type ActivationPolicy = z.infer<typeof activationPolicySchema>;

export const assignedReleaseSchema = z.object({
  /** Name under which the device serves it. */
  as: nameSchema,
  releaseId: releaseIdSchema,
  /** Repeated from the catalogue by the director: both authorities must name the same bytes. */
  manifestSha256: sha256,
  manifestBytes: z.number().int().positive(),
  counter: z.number().int().nonnegative(),
  /** What the release needs, repeated from the catalogue as its publisher signed it; null where it names nothing. */
  requires: z.json().refine(hasCanonicalForm, 'a value that nobody can sign').default(null),
  rolloutId: z.string().max(64).nullable(),
  policy: activationPolicySchema,
});
export type AssignedRelease = z.infer<typeof assignedReleaseSchema>;

/** What the device seals its telemetry to. */
export const telemetryKeySchema = z.object({
  /** Grows with each enrolment; sequences start at 1 in each. */
  epoch: z.number().int().nonnegative(),
  keyId: z.string().min(1).max(64),
  /** X25519 public key, hex. */
  publicKey: z.string().regex(/^[0-9a-f]{64}$/),
});
export type TelemetryKey = z.infer<typeof telemetryKeySchema>;

/** What the director signs for one device. A model that is not listed is to be removed, unless `keep` names it. */
export const assignmentSchema = z.object({
  schemaVersion: z.literal(1),
  deviceId: deviceIdSchema,
  region: nameSchema,
  epoch: z.number().int().positive(),
  issuedAtMs: timeMs,
  expiresAtMs: timeMs,
  labels: labelsSchema,
  releases: z.array(assignedReleaseSchema).max(64),
  /** The region's key for this device and this period; null until the region has made one. */
  telemetry: telemetryKeySchema.nullable().default(null),
  /** What of a record is changed before it is sealed; absent: nothing. */
  masking: maskingSchema.optional(),
  /** Of which requests samples are kept, for models among the releases; absent: of none. */
  samples: z.array(assignedSamplingSchema).max(64).optional(),
  /**
   * Digest of the fleet's certificate authorities that the device should hold (`authoritiesSha256` in
   * shared/trust/authorities.ts). A device that holds others renews its certificate, which brings them.
   */
  authoritiesSha256: sha256.nullable().default(null),
  /** Models that the device brought from another region, and of which this one has said nothing yet: they stay as they are. */
  keep: z.array(nameSchema).max(64).exactOptional(),
});
export type Assignment = z.infer<typeof assignmentSchema>;

/** States of the update machine, and what the registry adds to them (contract, section 11). */
export const machineStates = [
  'idle',
  'offered',
  'fetching',
  'verifying',
  'staging',
  'probing',
  'shadowing',
  'switching',
  'soaking',
  'committed',
  'rolling-back',
] as const;
export type MachineStateName = (typeof machineStates)[number];

export const reasonSchema = z.object({
  code: z.string().max(64),
  detail: z.string().max(2_000),
  /** When what it waits for comes by itself, Unix milliseconds; absent where that cannot be told. */
  untilMs: timeMs.exactOptional(),
});
export type Reason = z.infer<typeof reasonSchema>;

export const probeEvidenceSchema = z.object({
  goldenCases: z.number().int().nonnegative(),
  goldenPassed: z.number().int().nonnegative(),
  firstFailure: z.string().max(2_000).nullable(),
  latencyP50Ms: z.number().nonnegative(),
  latencyP95Ms: z.number().nonnegative(),
  memoryBytesPeak: z.number().nonnegative(),
});

export const shadowEvidenceSchema = z.object({
  requests: z.number().int().nonnegative(),
  compared: z.number().int().nonnegative(),
  skipped: z.number().int().nonnegative(),
  failed: z.number().int().nonnegative(),
  agreement: z.number().min(0).max(1).nullable(),
  firstFailure: z.string().max(2_000).nullable(),
  latencyP95Ms: z.number().nonnegative().nullable(),
  activeLatencyP95Ms: z.number().nonnegative().nullable(),
  differences: z
    .array(z.object({ output: z.string().max(512), counts: z.array(z.number().int().nonnegative()).max(64) }))
    .max(64),
});

export const reportedModelSchema = z.object({
  name: nameSchema,
  state: z.enum(machineStates),
  /** Release ids, null where the slot is empty. */
  active: releaseIdSchema.nullable(),
  /** SHA-256 of the manifest of what serves, hex: the running bytes, whatever they are called. */
  activeSha256: sha256.nullable().default(null),
  candidate: releaseIdSchema.nullable(),
  lastGood: releaseIdSchema.nullable(),
  /** Release that the last finished or running update was about. */
  target: releaseIdSchema.nullable(),
  rolloutId: z.string().max(64).nullable(),
  reason: reasonSchema.nullable(),
  progress: z
    .object({ doneBytes: z.number().nonnegative(), totalBytes: z.number().nonnegative() })
    .nullable(),
  probe: probeEvidenceSchema.nullable(),
  /** Of the last candidate that was shadowed. */
  shadow: shadowEvidenceSchema.optional(),
});
export type ReportedModel = z.infer<typeof reportedModelSchema>;

/** Something the device refused: an attack, a fault, or an attempt to speak out of turn. */
export const reportedRefusalSchema = z.object({
  /** Grows by one on the device; recent refusals are repeated in every report and stored once. */
  id: z.number().int().positive(),
  code: z.string().max(64),
  detail: z.string().max(2_000),
  atMs: timeMs,
  /** Somebody tried something (shared/trust/attacks.ts), in the device's own judgement. */
  attack: z.boolean().default(false),
});

/** Versions of what a device has verified; 0 where it holds none. Numbers for people: nobody adopts them. */
export const heldVersionsSchema = z.object({
  root: z.number().int().nonnegative(),
  regionRoot: z.number().int().nonnegative(),
  timestamp: z.number().int().nonnegative(),
  snapshot: z.number().int().nonnegative(),
  targets: z.number().int().nonnegative(),
});
export type HeldVersions = z.infer<typeof heldVersionsSchema>;

export const telemetryClasses = ['event', 'stats', 'sample', 'log', 'app'] as const;
export type TelemetryClass = (typeof telemetryClasses)[number];

export const dropReasons = ['space', 'share', 'age', 'refused', 'reset'] as const;

/**
 * Records that a device's outbox let go unacknowledged. `space`: the outbox was full; `share`: their class was over its
 * own; `age`: kept longer than the device's retention; `refused`: the region can never take them; `reset`: they were
 * sealed for an enrolment that ended.
 */
export const droppedRecordsSchema = z.object({
  class: z.enum(telemetryClasses),
  reason: z.enum(dropReasons),
  records: z.number().int().positive(),
});
export type DroppedRecords = z.infer<typeof droppedRecordsSchema>;

export const outboxStateSchema = z.object({
  producedRecords: z.number().int().nonnegative(),
  acknowledgedRecords: z.number().int().nonnegative(),
  droppedRecords: z.number().int().nonnegative(),
  pendingBatches: z.number().int().nonnegative(),
  bytes: z.number().int().nonnegative(),
  /** Absent from agents that did not count it yet. */
  dropped: z.array(droppedRecordsSchema).max(64).optional(),
});

/** An execution provider of ONNX Runtime, as it names them: `cpu`, `cuda`, `webgpu`. */
export const providerNameSchema = z.string().regex(/^[a-z0-9_-]{1,32}$/);
export const providersMax = 32;

/** What a device signs about itself. */
export const agentInfoSchema = z.object({
  version: z.string().max(64),
  runtime: z.string().max(64),
  arch: z.string().max(32),
  /** What its processes may take together; absent where an earlier agent does not tell. */
  memoryMiB: z.number().int().positive().exactOptional(),
  /** Execution providers that run models here; absent while it does not know, and where an earlier agent does not tell. */
  providers: z.array(providerNameSchema).max(providersMax).exactOptional(),
});

/** How far a device is that was ordered to another region. */
export const reportedMoveSchema = z.object({
  moveId: z.string().max(64),
  /** Null once it ended. */
  to: nameSchema.nullable(),
  /** `waiting`: an update must come to its end first; `ended`: it stays where it is, and `reason` says why. */
  state: z.enum(['waiting', 'enrolling', 'rehearsing', 'ended']),
  /** Why it is not further. */
  reason: reasonSchema.nullable(),
});
export type ReportedMove = z.infer<typeof reportedMoveSchema>;

export const reportSchema = z.object({
  schemaVersion: z.literal(1),
  deviceId: deviceIdSchema,
  region: nameSchema,
  /** Strictly increasing over the device's life. */
  counter: z.number().int().positive(),
  /** Grows with each start of the agent, durable before the first report of that start. */
  boot: z.number().int().nonnegative().default(0),
  /** Random, drawn at each start: two devices with one key cannot have the same under one `boot`. */
  session: z
    .string()
    .regex(/^([0-9a-f]{32})?$/)
    .default(''),
  sentAtMs: timeMs,
  /** Highest time the device has verified, 0 where none. */
  verifiedTimeMs: timeMs,
  /** Epoch of the assignment in force, 0 where none. */
  epoch: z.number().int().nonnegative(),
  timezone: z.string().max(64),
  agent: agentInfoSchema,
  models: z.array(reportedModelSchema).max(64),
  refusals: z.array(reportedRefusalSchema).max(100),
  outbox: outboxStateSchema.nullable(),
  held: heldVersionsSchema.nullable().default(null),
  clock: z
    .object({
      /** The device's own clock, Unix milliseconds. */
      wallMs: timeMs,
      /** `signed`: the region's time, fetched in this start; `wall`: its own clock, not below the floor. */
      source: z.enum(['signed', 'wall']),
    })
    .nullable()
    .default(null),
  /** End of its client certificate, Unix milliseconds. */
  certificateExpiresAtMs: timeMs.nullable().default(null),
  /** Absent where it stays where it is. */
  move: reportedMoveSchema.exactOptional(),
});
export type Report = z.infer<typeof reportSchema>;

export const presenceSchema = z.object({ ...head, online: z.boolean() });
export type Presence = z.infer<typeof presenceSchema>;

/**
 * Names of TUF metadata files as they are served: `timestamp.json`, `3.root.json`, `12.acme.json`; `region/2.root.json`, and of
 * another region what this one knows of it: `regions/us-east/2.root.json`.
 */
export const metadataNamePattern =
  /^(timestamp\.json|([1-9]\d{0,15}\.)[a-z0-9][a-z0-9-]{0,62}\.json|(region|regions\/[a-z0-9][a-z0-9-]{0,62})\/[1-9]\d{0,15}\.root\.json)$/;

/** What a device holds, so that one request brings exactly what it lacks; 0 where it holds none. */
export const refreshTargetSchema = z.object({
  kind: z.literal('refresh'),
  held: heldVersionsSchema,
  /** By namespace that the device wants: the version it holds, 0 for none. */
  namespaces: z.record(nameSchema, z.number().int().nonnegative()),
});
export type RefreshTarget = z.infer<typeof refreshTargetSchema>;

/** Which smaller files the registry has from which a device that holds these makes that one (shared/wire/ways.ts). */
export const waysTargetSchema = z.object({
  kind: z.literal('ways'),
  sha256,
  held: z.array(sha256).max(waysHeldMax),
});

export const fetchRequestSchema = z.object({
  ...head,
  requestId: z.number().int().nonnegative().max(0xffffffff),
  target: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('blob'), sha256 }),
    z.object({ kind: z.literal('metadata'), name: z.string().regex(metadataNamePattern) }),
    refreshTargetSchema,
    waysTargetSchema,
  ]),
  offset: z.number().int().nonnegative(),
  length: z
    .number()
    .int()
    .positive()
    .max(16 * 1024 * 1024),
});
export type FetchRequest = z.infer<typeof fetchRequestSchema>;

export const enrolRequestSchema = z.object({
  ...head,
  /** PKCS #10, PEM, signed by the device's new key. */
  csr: z.string().max(8_192),
  labels: labelsSchema,
  timezone: z.string().max(64),
  agent: agentInfoSchema,
  /** Envelope of `joiningSchema` (device-move.ts), signed by the device: needed with a claim that names its devices. */
  joining: envelopeSchema.exactOptional(),
});
export type EnrolRequest = z.infer<typeof enrolRequestSchema>;

export const enrolReplySchema = z.object({
  ...head,
  result: z.discriminatedUnion('status', [
    z.object({
      status: z.literal('accepted'),
      deviceId: deviceIdSchema,
      /** PEM of the device's client certificate. */
      certificate: z.string().max(16_384),
      labels: labelsSchema,
      /** Root metadata, exact bytes in base64; their SHA-256 must be those that the claim names. */
      catalogueRoot: z.base64(),
      regionRoot: z.base64(),
      telemetryEpoch: z.number().int().nonnegative(),
    }),
    z.object({ status: z.literal('refused'), code: z.string().max(64), detail: z.string().max(2_000) }),
  ]),
});
export type EnrolReply = z.infer<typeof enrolReplySchema>;

/** Device → `time`. */
export const timeRequestSchema = z.object({
  ...head,
  /** 16 random bytes, hex: the answer is bound to it, so that no old one can be replayed. */
  nonce: z.string().regex(/^[0-9a-f]{32}$/),
});
export type TimeRequest = z.infer<typeof timeRequestSchema>;

/** What the region's `time` key signs. */
export const timeStatementSchema = z.object({
  schemaVersion: z.literal(1),
  deviceId: deviceIdSchema,
  region: nameSchema,
  nonce: z.string().regex(/^[0-9a-f]{32}$/),
  timeMs,
});
export type TimeStatement = z.infer<typeof timeStatementSchema>;

/** Device → `renew`. */
export const renewRequestSchema = z.object({
  ...head,
  /** PKCS #10, PEM, for the device's own key, signed by it. */
  csr: z.string().max(8_192),
});
export type RenewRequest = z.infer<typeof renewRequestSchema>;

/** What the region's `command` key signs: the certificate authorities that may issue for this fleet. */
export const authoritiesStatementSchema = z.object({
  schemaVersion: z.literal(1),
  region: nameSchema,
  issuedAtMs: timeMs,
  /** Certificates (PEM), the one that issues now first. */
  certificates: z.array(z.string().max(16_384)).min(1).max(8),
});
export type AuthoritiesStatement = z.infer<typeof authoritiesStatementSchema>;

export const renewReplySchema = z.object({
  ...head,
  result: z.discriminatedUnion('status', [
    z.object({
      status: z.literal('accepted'),
      /** PEM of the device's new client certificate. */
      certificate: z.string().max(16_384),
      /** Envelope of `authoritiesStatementSchema`. */
      authorities: envelopeSchema,
    }),
    z.object({ status: z.literal('refused'), code: z.string().max(64), detail: z.string().max(2_000) }),
  ]),
});
export type RenewReply = z.infer<typeof renewReplySchema>;

/** Names of what a device can give back to a registry that was restored from an old backup. */
export const heldFilePattern =
  /^(root|region-root|timestamp|snapshot|targets|ns\/[a-z0-9][a-z0-9-]{0,62}|assignment|acknowledgement)$/;
/** Bytes of one piece: with its base64 and head far below a bus message. */
export const heldPieceBytes = 96 * 1024;

/** Device → `result`: a piece of signed bytes that the device holds and its registry seems to have lost. */
export const heldMessageSchema = z.object({
  ...head,
  kind: z.literal('held'),
  file: z.string().regex(heldFilePattern),
  /** Digest and size of the whole file. */
  sha256,
  totalBytes: z
    .number()
    .int()
    .positive()
    .max(8 * 1024 * 1024),
  offset: z.number().int().nonnegative(),
  bytes: z.base64().max(Math.ceil(heldPieceBytes / 3) * 4),
});
export type HeldMessage = z.infer<typeof heldMessageSchema>;

const encoder = new TextEncoder();

/**
 * Parses and validates a JSON body once. Read strictly: a depth that a schema cannot walk, or a key that stands
 * twice, is no message. Refusal: `message-malformed`, naming the first wrong field.
 */
export function parseMessage<S extends z.ZodType>(schema: S, payload: Uint8Array): Result<z.infer<S>> {
  const body = parseStrictJson(payload, { code: 'message-malformed' });
  if (!body.ok) return body;
  const parsed = schema.safeParse(body.value);
  if (parsed.success) return ok(parsed.data);
  return refuse('message-malformed', describeIssues(parsed.error));
}

const issueCharactersMax = 500;

/** The first wrong field of a validation in words: `releases.0.as: Invalid string`. */
export function describeIssues(error: z.ZodError): string {
  const issue = error.issues[0];
  if (!issue) return 'invalid';
  const path = issue.path.map(String).join('.');
  const words = path === '' ? issue.message : `${path}: ${issue.message}`;
  // A path holds what the sender wrote: a key of megabytes must not travel on in reports and logs.
  return words.length <= issueCharactersMax ? words : `${words.slice(0, issueCharactersMax)}…`;
}

export function encodeMessage(body: object): Uint8Array {
  return encoder.encode(JSON.stringify(body));
}
