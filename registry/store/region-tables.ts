// Why: the columns of migrations/021-regions.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

import type { Generated, Selectable } from 'kysely';

export interface RegionListTable {
  id: 1;
  version: number;
  envelope: Uint8Array;
  taken_at_ms: number;
}

export interface RegionInvitationsTable {
  region: string;
  secret_sha256: string;
  created_by: string;
  created_at_ms: number;
  expires_at_ms: number;
  used_by: string | null;
  used_at_ms: number | null;
}

export interface RegionLinksTable {
  region: string;
  state: 'connected' | 'unreachable' | 'refused' | 'waiting';
  last_contact_ms: number | null;
  code: string | null;
  detail: string | null;
  bytes_in: Generated<number>;
}

export interface RegionStreamsTable {
  region: string;
  name: string;
  incarnation: string;
  last: number;
  taken: number;
}

export interface RegionRootsTable {
  region: string;
  version: number;
  bytes: Uint8Array;
}

export interface MirrorReleasesTable {
  release_id: string;
  namespace: string;
  manifest_sha256: string;
  manifest_bytes: number;
  counter: number;
  requires: string | null;
  /** JSON array of TUF key ids. */
  signed_by: string;
  state: 'wanted' | 'refused';
  code: string | null;
  detail: string | null;
  retry_at_ms: Generated<number>;
}

/** As it is read. */
export type MirrorReleaseRow = Selectable<MirrorReleasesTable>;

export interface MirrorNumbersTable {
  id: 1;
  /** JSON of VersionFloors. */
  numbers: string;
}

export interface RegionTables {
  region_list: RegionListTable;
  region_invitations: RegionInvitationsTable;
  region_links: RegionLinksTable;
  region_streams: RegionStreamsTable;
  region_roots: RegionRootsTable;
  mirror_releases: MirrorReleasesTable;
  mirror_numbers: MirrorNumbersTable;
}
