// Why: the registry's tables as types, so that a query against a column that does not exist does not compile.
// Trusts: the migrations; a change there changes this file in the same commit.
// Must never: hold a secret in clear (tokens are stored as digests, private keys live in files).

import type { FleetTables } from './fleet-tables.ts';
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
}

/** One push per namespace that waits for more signatures. */
export interface PendingPushesTable {
  namespace: string;
  release_id: string;
  metadata: Uint8Array;
  manifest: Uint8Array;
  pushed_by: string;
  updated_at_ms: number;
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
}

export interface CatalogueTables {
  settings: SettingsTable;
  metadata_files: MetadataFilesTable;
  metadata_roles: MetadataRolesTable;
  publishers: PublishersTable;
  releases: ReleasesTable;
  pending_pushes: PendingPushesTable;
  tokens: TokensTable;
}

export type Tables = CatalogueTables & FleetTables & TelemetryTables & TrustTables;
