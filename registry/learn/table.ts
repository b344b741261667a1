// Why: a table of data in memory, by column, so that a column is one typed array however many rows it has. Pure.
// Trusts: whoever made it. Must never: hold two columns of one name or of different lengths.

/** A missing value is NaN. */
export interface NumericColumn {
  kind: 'numeric';
  name: string;
  values: Float64Array;
}

/** A missing value is the code −1. */
export interface CategoryColumn {
  kind: 'category';
  name: string;
  /** The different texts, in the order in which they first appear. */
  categories: string[];
  codes: Int32Array;
}

/** Unix milliseconds; text without a zone is taken as UTC. A missing value is NaN. */
export interface TimeColumn {
  kind: 'time';
  name: string;
  values: Float64Array;
}

export type Column = NumericColumn | CategoryColumn | TimeColumn;

export interface Table {
  rows: number;
  columns: Column[];
}

export function columnOf(table: Table, name: string): Column | undefined {
  return table.columns.find((column) => column.name === name);
}

/** The rows named, in that order. */
export function selectRows(table: Table, rows: Int32Array): Table {
  return {
    rows: rows.length,
    columns: table.columns.map((column): Column => {
      if (column.kind === 'category') {
        const codes = new Int32Array(rows.length);
        for (let at = 0; at < rows.length; at += 1) codes[at] = column.codes[rows[at] as number] ?? -1;
        return { ...column, codes };
      }
      const values = new Float64Array(rows.length);
      for (let at = 0; at < rows.length; at += 1)
        values[at] = column.values[rows[at] as number] ?? Number.NaN;
      return { ...column, values };
    }),
  };
}
