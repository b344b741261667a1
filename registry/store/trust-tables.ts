// Why: the tables of migrations/006-trust.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.
// Columns ending in `_ms` are Unix milliseconds.

export interface AuthoritiesTable {
  number: number;
  /** PEM. */
  certificate: string;
  created_at_ms: number;
  retired_at_ms: number | null;
  crl_number: number;
}

export interface CertificatesTable {
  /** Upper-case hex. */
  serial: string;
  device_id: string;
  authority: number;
  /** PEM. */
  certificate: string;
  issued_at_ms: number;
  expires_at_ms: number;
}

export interface VersionFloorsTable {
  role: string;
  version: number;
  at_ms: number;
}

export interface TelemetryLostTable {
  device_id: string;
  epoch: number;
  first_sequence: number;
  last_sequence: number;
  at_ms: number;
}

export interface TrustTables {
  authorities: AuthoritiesTable;
  certificates: CertificatesTable;
  version_floors: VersionFloorsTable;
  telemetry_lost: TelemetryLostTable;
}
