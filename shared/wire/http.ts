// Why: the bodies of the registry's HTTP API (`/api/v1`; rollouts: rollouts.ts), one schema each for validation, types and
// the OpenAPI document. Shared by the server and its clients.
// Trusts: nothing before the schema. Must never: differ from the contract (DESIGN 11).

import { z } from 'zod';
import { sha256Pattern } from '../kernel/releases.ts';
import { movedDevicesMax } from './claim.ts';
import { moveStates } from './device-move.ts';
import { keyBundleSchema } from './key-plan.ts';
import { manifestSchema } from './manifest.ts';
import {
  agentInfoSchema,
  deviceIdSchema,
  heldVersionsSchema,
  labelsSchema,
  machineStates,
  nameSchema,
  outboxStateSchema,
  probeEvidenceSchema,
  reasonSchema,
  releaseIdSchema,
  versionSchema,
} from './messages.ts';

const timeMs = z.number().int().nonnegative();
const sha256 = z.string().regex(sha256Pattern);

/** RFC 9457 problem document; `code` is a code of shared/kernel/codes.ts. */
export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.number().int(),
  detail: z.string(),
  code: z.string(),
  hint: z.string(),
  /** The rule of the region's policy that decided, where one did. */
  rule: z.string().optional(),
});
export type Problem = z.infer<typeof problemSchema>;

export const roles = ['viewer', 'publisher', 'operator', 'approver', 'auditor', 'admin'] as const;
export type Role = (typeof roles)[number];

export const tokenCreateSchema = z.object({
  user: nameSchema,
  role: z.enum(roles),
  /** Namespaces the token is bound to; absent: all. */
  namespace: nameSchema.optional(),
  ttlMs: z
    .number()
    .int()
    .positive()
    .max(10 * 366 * 86_400_000)
    .optional(),
  /** Region in which the user sits; absent: this one. */
  at: nameSchema.optional(),
});
export const tokenSchema = z.object({
  id: z.string(),
  user: z.string(),
  role: z.enum(roles),
  namespace: z.string().nullable(),
  /** Region in which the user sits; null: this one. */
  atRegion: z.string().nullable(),
  createdAtMs: timeMs,
  expiresAtMs: timeMs.nullable(),
  revokedAtMs: timeMs.nullable(),
});
/** The secret is shown once; only its SHA-256 is stored. */
export const tokenCreatedSchema = tokenSchema.extend({ token: z.string() });

export const claimCreateSchema = z.object({
  labels: labelsSchema.default({}),
  uses: z.number().int().positive().max(1_000_000).default(1),
  ttlMs: z
    .number()
    .int()
    .positive()
    .max(366 * 86_400_000)
    .default(86_400_000),
  /** The only devices that it lets in, once each; `uses` is their number then. */
  deviceIds: z.array(deviceIdSchema).min(1).max(movedDevicesMax).exactOptional(),
});

/** A publisher namespace. Keys are Ed25519 public keys, 32 bytes in hex. */
export const publisherPutSchema = z.object({
  keys: z
    .array(z.string().regex(/^[0-9a-f]{64}$/))
    .min(1)
    .max(16),
  threshold: z.number().int().positive().max(16),
});
export const publisherSchema = z.object({
  namespace: nameSchema,
  keys: z.array(z.string()),
  threshold: z.number().int(),
  /** Version of the namespace's signed targets metadata, 0 before the first push. */
  metadataVersion: z.number().int(),
  /** Versions up to this one were given out and lost with a backup: the next is above. */
  versionFloor: z.number().int().nonnegative().default(0),
  /** The same for the counters of new releases, by model name; models without one are left out. */
  counterFloors: z.record(nameSchema, z.number().int().nonnegative()).default({}),
});
export type PublisherView = z.infer<typeof publisherSchema>;

/** `POST /api/v1/releases`: the namespace's next targets metadata, signed, and the manifest it names. */
export const releasePushSchema = z.object({
  releaseId: releaseIdSchema,
  /** Exact bytes of the delegated targets metadata (TUF JSON), base64. */
  metadata: z.base64(),
  /** Exact bytes of manifest.json, base64. Its files were uploaded with PUT /api/v1/blobs/{sha256} before. */
  manifest: z.base64(),
});
/** In words, what waited for signatures in this namespace and is gone now; absent where nothing did. */
const replaced = z.array(z.string()).optional();
/** What became of a push: in the catalogue, or kept until enough publishers have signed it. */
export const releasePushedSchema = z.discriminatedUnion('status', [
  z.object({
    status: z.literal('accepted'),
    releaseId: releaseIdSchema,
    digest: sha256,
    counter: z.number().int(),
    replaced,
  }),
  z.object({
    status: z.literal('awaiting-signatures'),
    releaseId: releaseIdSchema,
    digest: sha256,
    counter: z.number().int(),
    signatures: z.number().int(),
    threshold: z.number().int(),
    replaced,
  }),
]);
export type ReleasePushed = z.infer<typeof releasePushedSchema>;
/**
 * `POST /api/v1/publishers/{ns}/metadata`: the namespace's next targets metadata where it adds no release:
 * raised floors, withdrawn releases, or the same content with another expiry.
 */
export const publisherStepSchema = z.object({
  /** Exact bytes of the delegated targets metadata (TUF JSON), base64. */
  metadata: z.base64(),
});
/** What became of it: served, or kept until enough publishers have signed it. */
export const publisherStepTakenSchema = z.object({
  status: z.enum(['accepted', 'awaiting-signatures']),
  namespace: nameSchema,
  version: z.number().int(),
  /** Names the content, whoever signed it; every publisher's machine computes it by itself. */
  stepId: z.string(),
  signatures: z.number().int(),
  threshold: z.number().int(),
  replaced,
});
export type PublisherStepTaken = z.infer<typeof publisherStepTakenSchema>;
/**
 * `GET /api/v1/publishers/{ns}/pending`: the step that waits for signatures; `not-found` where none does.
 * Whoever signs believes none of the words here: they follow from the metadata.
 */
export const pendingPushSchema = z.object({
  /** The release that the step adds, null where it adds none; then there is no manifest either. */
  releaseId: releaseIdSchema.nullable(),
  /** Exact bytes, base64, as they were sent; add a signature and send it again. */
  metadata: z.base64(),
  manifest: z.base64().nullable(),
  version: z.number().int(),
  expiresAtMs: timeMs,
  stepId: z.string(),
  /** What the step changes, in words. */
  does: z.array(z.string()),
  signatures: z.number().int(),
  threshold: z.number().int(),
  pushedBy: z.string(),
  updatedAtMs: timeMs,
});
export type PendingPush = z.infer<typeof pendingPushSchema>;
/** `GET /api/v1/registry`. */
export const registryInfoSchema = z.object({
  region: nameSchema,
  version: z.string(),
  mqtt: z.string(),
  http: z.string(),
  catalogueRootSha256: sha256,
  regionRootSha256: sha256,
  /** `development`: the registry made its own keys, on its own disk. */
  keys: z.enum(['development', 'offline']),
});
export const releaseSchema = z.object({
  version: versionSchema,
  counter: z.number().int(),
  /** SHA-256 of manifest.json. */
  digest: sha256,
  /** Sum over the files. */
  bytes: z.number().int(),
  files: manifestSchema.shape.files,
  /** Key ids. */
  signedBy: z.array(z.string()),
  admitted: z.boolean(),
  reason: z.string().nullable(),
  /** What a device fetches that holds that version: for each file the smallest way, nothing for what it has already. */
  deltas: z.array(z.object({ from: z.string(), bytes: z.number().int() })),
  /** What a device fetches that holds nothing: compressed where that is smaller; null where nothing was compressed. */
  compressedBytes: z.number().int().nullable().default(null),
  /** Its publisher took it back, or raised the model's floor above it: nobody installs it any more. */
  withdrawn: z.boolean(),
  belowFloor: z.boolean(),
});
export const modelSchema = z.object({
  name: z.string(),
  /** No release with a lower counter may be assigned. */
  floor: z.number().int().nonnegative(),
  versions: z.array(releaseSchema),
});
export type ModelView = z.infer<typeof modelSchema>;

/** `moved`: it is of another region now. */
export const deviceStatuses = ['active', 'revoked', 'quarantined', 'moved'] as const;
export const presenceStates = ['online', 'offline', 'unknown'] as const;
export const deviceSchema = z.object({
  id: deviceIdSchema,
  status: z.enum(deviceStatuses),
  region: z.string(),
  labels: labelsSchema,
  timezone: z.string(),
  presence: z.enum(presenceStates),
  lastSeenMs: timeMs.nullable(),
  models: z.array(
    z.object({
      name: z.string(),
      active: z.string().nullable(),
      /** SHA-256 of the manifest of what serves, as the device said it; null where it did not. */
      activeSha256: sha256.nullable(),
      candidate: z.string().nullable(),
      lastGood: z.string().nullable(),
      state: z.enum(machineStates),
      reason: reasonSchema.nullable(),
      probe: probeEvidenceSchema.nullable(),
      progress: z.object({ doneBytes: z.number(), totalBytes: z.number() }).nullable(),
    }),
  ),
  agent: agentInfoSchema,
  outbox: outboxStateSchema,
  /** What it trusts and how it stands, by its own reports and the registry's records. */
  trust: z.object({
    /** End of its client certificate, and the authority that issued it. */
    certificateExpiresAtMs: timeMs,
    authority: z.string(),
    /** Versions of the metadata that it has verified. */
    held: heldVersionsSchema.nullable(),
    /** Epoch of the assignment that it holds, 0 where none of ours. */
    epoch: z.number().int().nonnegative(),
    /** Highest time that it has verified, 0 where none. */
    verifiedTimeMs: timeMs,
    /** How far its own clock was ahead of the registry's (negative: behind) when it last reported. */
    clock: z.object({ offsetMs: z.number().int(), source: z.enum(['signed', 'wall']) }).nullable(),
    /** Events about it that mean that somebody tried something. */
    attacks: z.number().int().nonnegative(),
  }),
  /** Absent where it never had anything to do with a move between regions. */
  move: z
    .object({
      movedFrom: z.string().nullable(),
      movedTo: z.string().nullable(),
      /** The newest order that was handed in here. */
      order: z
        .object({
          moveId: z.string(),
          to: z.string(),
          state: z.enum(moveStates),
          reason: reasonSchema.nullable(),
          expiresAtMs: timeMs,
        })
        .nullable(),
    })
    .exactOptional(),
});
export type DeviceView = z.infer<typeof deviceSchema>;
export const deviceLabelsSchema = z.object({
  /** A null value removes the label. */
  labels: z.record(z.string(), z.string().max(128).nullable()),
});

/** What the registry noticed or a device reported: refusals, attacks, state changes. Newest first. */
export const fleetEventSchema = z.object({
  id: z.number().int(),
  atMs: timeMs,
  /** Device id, claim id, or null where nobody could be named. */
  subject: z.string().nullable(),
  source: z.enum(['broker', 'enrolment', 'device', 'registry']),
  code: z.string(),
  detail: z.string(),
  /** Somebody tried something (shared/trust/attacks.ts). */
  attack: z.boolean(),
});
export type FleetEvent = z.infer<typeof fleetEventSchema>;

/** `GET /api/v1/devices/revoked`. */
export const revokedDeviceSchema = z.object({
  id: deviceIdSchema,
  /** A quarantined one may be released again. */
  status: z.enum(['revoked', 'quarantined', 'moved']),
  sinceMs: timeMs,
  /** Those that have not ended yet. */
  certificates: z.array(z.object({ serial: z.string(), authority: z.string(), expiresAtMs: timeMs })),
});
export type RevokedDevice = z.infer<typeof revokedDeviceSchema>;

/** `GET /api/v1/broker/files`: texts of the files that an external broker needs. */
export const brokerFilesSchema = z.object({
  /** Access rules, as mosquitto reads them. */
  acl: z.string(),
  /** One X.509 revocation list (PEM) for each authority in force. */
  revoked: z.string(),
  /** Authorities in force, PEM. */
  authorities: z.string(),
  /** Snippet of a mosquitto.conf. */
  settings: z.string(),
  revokedDevices: z.number().int().nonnegative(),
});
export type BrokerFiles = z.infer<typeof brokerFilesSchema>;

/** `POST /api/v1/broker/certificate`: an external broker's own key, and under which names devices dial it. */
export const brokerCertificateRequestSchema = z.object({
  /** PKCS #10, PEM, Ed25519. */
  csr: z.string().max(8_192),
  /** Beside those that the registry knows. */
  hosts: z
    .array(z.string().regex(/^[A-Za-z0-9.:_-]{1,253}$/))
    .max(32)
    .default([]),
});
export const brokerCertificateSchema = z.object({ certificate: z.string() });

/** A certificate authority of the fleet. */
export const authoritySchema = z.object({
  id: z.string(),
  /** `issuing`: new certificates are of it; `in-force`: those it issued are still taken. */
  state: z.enum(['issuing', 'in-force', 'retired']),
  createdAtMs: timeMs,
  retiredAtMs: timeMs.nullable(),
  expiresAtMs: timeMs,
  /** Of the certificate in PEM. */
  sha256,
  /** TLS server name by which a device asks the broker for a certificate of this authority. */
  serverName: z.string(),
  /** Active devices that hold a certificate of it. */
  devices: z.number().int().nonnegative(),
  /** Claims that name it and could still be used. */
  claims: z.number().int().nonnegative(),
});
export type AuthorityView = z.infer<typeof authoritySchema>;
export const authorityRetireSchema = z.object({ force: z.boolean().default(false) });

/** `GET /api/v1/telemetry/counts`: what is stored of one device, over all its enrolments. */
export const telemetryCountsSchema = z.object({
  device: deviceIdSchema,
  batches: z.number().int().nonnegative(),
  records: z.number().int().nonnegative(),
  /** Records that the device dropped before it could send them, as it said itself. */
  dropped: z.number().int().nonnegative(),
  /** Records whose key was deleted, before or after they came. */
  erased: z.number().int().nonnegative(),
  /** Records that were older than the region's policy keeps their class; `records` counts them too. */
  expired: z.number().int().nonnegative(),
  /** Batches that were acknowledged here and lost when the registry was restored from a backup. */
  lostBatches: z.number().int().nonnegative(),
});
export type TelemetryCounts = z.infer<typeof telemetryCountsSchema>;

/** `POST /api/v1/keys/plan`; the answer is a key plan (key-plan.ts). */
export const keyPlanCreateSchema = z.object({
  /** Make online keys that the next roots may name; those of an earlier plan that were not installed are deleted. */
  newOnline: z.boolean().default(false),
});
/** `POST /api/v1/keys/install`. */
export const keyInstallSchema = z.object({ bundle: keyBundleSchema });
/** What became of a bundle. The same one again changes nothing and says so. */
export const keysInstalledSchema = z.object({
  status: z.enum(['installed', 'in-force-already']),
  /** `root 2`, `region-root 2`, `targets 5`, `publisher:acme 3`. */
  documents: z.array(z.string()),
  /** Documents to which the registry added signatures of its development keys. */
  signedHere: z.array(z.string()),
  /** Keys that no document names any more; their files are deleted. */
  deleted: z.array(z.object({ role: z.string(), keyId: z.string() })),
  /** Assignments that were signed again because the director's key changed. */
  reissued: z.number().int().nonnegative(),
  keys: z.enum(['development', 'offline']),
});
export type KeysInstalled = z.infer<typeof keysInstalledSchema>;

export const keyPlaces = ['this registry', 'offline', 'publisher'] as const;
/** `GET /api/v1/keys`. */
export const keysStatusSchema = z.object({
  region: nameSchema,
  keys: z.enum(['development', 'offline']),
  catalogueRootSha256: sha256,
  regionRootSha256: sha256,
  roles: z.array(
    z.object({
      /** `root`, `targets`, `snapshot`, `timestamp`, `region-root`, `director`, …, `fleet-ca`, `publisher:acme`. */
      role: z.string(),
      threshold: z.number().int(),
      keys: z.array(
        z.object({
          keyId: sha256,
          publicKey: z.string(),
          holder: z.string().nullable(),
          where: z.enum(keyPlaces),
        }),
      ),
      /** Of the document that names or is signed by the role; null where there is none yet. */
      version: z.number().int().nullable(),
      expiresAtMs: timeMs.nullable(),
      daysLeft: z.number().int().nullable(),
    }),
  ),
  /** Online keys that wait for a bundle to name them. */
  pending: z.array(z.object({ role: z.string(), keyId: sha256, madeAtMs: timeMs })),
  warnings: z.array(z.object({ role: z.string(), detail: z.string(), next: z.string() })),
});
export type KeysStatus = z.infer<typeof keysStatusSchema>;
/** `GET /api/v1/telemetry/lost`: what a restore lost, oldest first. */
export const telemetryLostSchema = z.object({
  device: deviceIdSchema,
  epoch: z.number().int().nonnegative(),
  firstSequence: z.number().int().positive(),
  lastSequence: z.number().int().positive(),
  atMs: timeMs,
});
export type TelemetryLost = z.infer<typeof telemetryLostSchema>;
