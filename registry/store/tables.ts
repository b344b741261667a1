// Why: the registry's tables as types, so that a query against a column that does not exist does not compile.
// Trusts: the migrations; a change there changes this file in the same commit.
// Must never: hold a secret in clear (tokens are stored as digests, private keys live in files).

import type { Generated, Selectable } from 'kysely';
import type { AuditTables } from './audit-tables.ts';
import type { CellTables } from './cell-tables.ts';
import type { DeliveryTables } from './delivery-tables.ts';
import type { EvidenceTables } from './evidence-tables.ts';
import type { FleetTables } from './fleet-tables.ts';
import type { MoveTables } from './move-tables.ts';
import type { OrderTables } from './order-tables.ts';
import type { OutletTables } from './outlet-tables.ts';
import type { PolicyTables } from './policy-tables.ts';
import type { RegionTables } from './region-tables.ts';
import type { RightsTables } from './rights-tables.ts';
import type { SampleTables } from './sample-tables.ts';
import type { TelemetryTables } from './telemetry-tables.ts';
import type { TrustTables } from './trust-tables.ts';

/** Facts of this registry that outlive a restart: the ports it picked, its region. */
export interface SettingsTable {
  key: string;
  value: string;
}

/** Every metadata file that was ever served, exact bytes, by the name it is served under. */
export interface MetadataFilesTable {
  name: string;
  bytes: Uint8Array;
  created_at_ms: number;
}

/**
 * The current file of each role: `root`, `targets`, `snapshot`, `timestamp`, `region/root` and one
 * `ns/<namespace>` for each publisher who has pushed.
 */
export interface MetadataRolesTable {
  role: string;
  version: number;
  file: string;
  expires_at_ms: number;
}

/** Who may sign for a namespace. `keys` is a JSON array of raw Ed25519 public keys in hex. */
export interface PublishersTable {
  namespace: string;
  keys: string;
  threshold: number;
  created_at_ms: number;
  /** The next version of its metadata is above; only rises. */
  version_floor: Generated<number>;
}

/** Two numbers of a model, both only rising: the signed floor, and counters that a lost version gave out. */
export interface ModelFloorsTable {
  namespace: string;
  name: string;
  floor: Generated<number>;
  counter_floor: Generated<number>;
}

/** Accepted releases; never updated in what was signed, never replaced. */
export interface ReleasesTable {
  release_id: string;
  namespace: string;
  name: string;
  version: string;
  counter: number;
  manifest_sha256: string;
  /** Exact bytes of manifest.json. */
  manifest: Uint8Array;
  total_bytes: number;
  /** JSON array of TUF key ids. */
  signed_by: string;
  /** 0 or 1. */
  admitted: number;
  reason: string | null;
  pushed_by: string;
  pushed_at_ms: number;
  /** 0 or 1: what the namespace's metadata in force says of it. Neither is ever taken back. */
  withdrawn: Generated<number>;
  below_floor: Generated<number>;
  /** `custom.requires` as its publisher signed it, JSON; null where the target names none. */
  requires: string | null;
}

/** A stored release as it is read. */
export type ReleaseRow = Selectable<ReleasesTable>;

/** One step of a namespace's metadata that waits for more signatures; without a release no manifest. */
export interface PublisherStepsTable {
  namespace: string;
  release_id: string | null;
  metadata: Uint8Array;
  manifest: Uint8Array | null;
  pushed_by: string;
  updated_at_ms: number;
}

/** Online keys made for a plan (migrations/004-keys.sql). The private key is a file. */
export interface PendingKeysTable {
  role: string;
  key_id: string;
  public_key: string;
  made_at_ms: number;
}

/** Names of key holders; words for people. */
export interface KeyHoldersTable {
  key_id: string;
  holder: string;
}

export interface TokensTable {
  id: string;
  user: string;
  role: string;
  namespace: string | null;
  secret_sha256: string;
  created_at_ms: number;
  expires_at_ms: number | null;
  revoked_at_ms: number | null;
  /** Region in which its user sits; null: this one. */
  at_region: Generated<string | null>;
}

/** A stored token as it is read. */
export type TokenRow = Selectable<TokensTable>;

export interface CatalogueTables {
  settings: SettingsTable;
  metadata_files: MetadataFilesTable;
  metadata_roles: MetadataRolesTable;
  publishers: PublishersTable;
  releases: ReleasesTable;
  model_floors: ModelFloorsTable;
  publisher_steps: PublisherStepsTable;
  pending_keys: PendingKeysTable;
  key_holders: KeyHoldersTable;
  tokens: TokensTable;
}

export type Tables = CatalogueTables &
  AuditTables &
  CellTables &
  DeliveryTables &
  EvidenceTables &
  SampleTables &
  FleetTables &
  OrderTables &
  MoveTables &
  OutletTables &
  PolicyTables &
  RightsTables &
  RegionTables &
  TelemetryTables &
  TrustTables;
