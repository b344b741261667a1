// Why: the columns of migrations/023-cells.sql as types, so that a query with a wrong name does not compile.
// Trusts: the migration; both are changed together. Must never: hold logic.

import type { Generated } from 'kysely';

type CellKind = 'release' | 'model';

export interface CellDaysTable {
  day: number;
  closed_at_ms: number;
  published: number;
  withheld: number;
  late_records: number;
}

export interface CellsTable {
  cell_id: Generated<number>;
  day: number;
  kind: CellKind;
  subject: string;
  model: string;
  /** CellStatement, exact bytes. */
  body: Uint8Array;
  /** JSON: `signatures` of the envelope. */
  signatures: string;
}

export interface CellsWithheldTable {
  day: number;
  kind: CellKind;
  subject: string;
  model: string;
  part: string;
  /** WithheldRule. */
  rule: string;
}

export interface CellMembersTable {
  kind: CellKind;
  subject: string;
  day: number;
  /** JSON array. */
  members: string;
}

export interface PeerCellsTable {
  region: string;
  kind: CellKind;
  subject: string;
  day: number;
  model: string;
  body: Uint8Array;
  signatures: string;
  taken_at_ms: number;
}

export interface CellTables {
  cell_days: CellDaysTable;
  cells: CellsTable;
  cells_withheld: CellsWithheldTable;
  cell_members: CellMembersTable;
  peer_cells: PeerCellsTable;
}
