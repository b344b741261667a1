// Why: what every room of the registry is given to work with: one object, made once at start.
// Trusts: registry.ts, which fills it. Must never: be reached through a global.

import type { Clock, Deflate, Entropy, Log } from '../shared/kernel/ports.ts';
import type { RegionAudit } from './audit/open-audit.ts';
import type { Blobs } from './catalog/blobs.ts';
import type { Releases } from './catalog/releases.ts';
import type { Encoding } from './delivery/encoding.ts';
import type { Encodings } from './delivery/encodings.ts';
import type { FleetLimits } from './fleet/limits.ts';
import type { Access } from './policy/access.ts';
import type { PolicyDesk } from './policy/region-policies.ts';
import type { Authorities } from './signing/authorities.ts';
import type { Keyring } from './signing/keys.ts';
import type { CatalogueRepository } from './signing/repository.ts';
import type { RegistryStore } from './store/open.ts';
import type { ErasureJournal } from './telemetry/erasure-journal.ts';
import type { TelemetryKeys } from './telemetry/keys.ts';
import type { MaskingPolicy } from './telemetry/masking.ts';
import type { SamplingPolicy } from './telemetry/sample-rules.ts';
import type { Withholding } from './telemetry/withholding.ts';

export interface RegistryCore {
  region: string;
  /** Another one after each restore from a backup: numbers of lists begin anew with it. */
  incarnation: string;
  /** Version of this program. */
  version: string;
  /** Addresses that people and devices use; what was advertised, else what is bound. */
  addresses: { http: string; mqtt: string };
  store: RegistryStore;
  keyring: Keyring;
  authorities: Authorities;
  repository: CatalogueRepository;
  blobs: Blobs;
  releases: Releases;
  encodings: Encodings;
  encoding: Encoding;
  access: Access;
  audit: RegionAudit;
  policies: PolicyDesk;
  telemetryKeys: TelemetryKeys;
  /** Certificates of erasures, in a file beside the database. */
  journal: ErasureJournal;
  withholding: Withholding;
  masking: MaskingPolicy;
  sampling: SamplingPolicy;
  deflate: Deflate;
  limits: FleetLimits;
  clock: Clock;
  entropy: Entropy;
  log: Log;
}
