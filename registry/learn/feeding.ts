// Why: how the rows of a table become the inputs of a model, ours or anybody's, so that one command evaluates them all.
// Pure. Trusts: tables that were read, signatures that were admitted.
// Must never: guess which column a model means, or round a value that an input cannot hold.

import { ok, type Result, refuse } from '../../shared/kernel/result.ts';
import type { Datatype, TensorSignature } from '../../shared/wire/manifest.ts';
import { allocateData, numberToHalf, type Tensor } from '../../shared/wire/tensors.ts';
import { checkColumn, usableRows } from './feeding-checks.ts';
import type { Column, Table } from './table.ts';

/** One input and the columns that fill its last axis, in order. */
export interface FedInput {
  name: string;
  datatype: Datatype;
  columns: string[];
  /** `list` [n], `row` [n, columns], `window` [n, window, columns], `vector` [columns] without an axis of rows. */
  layout: 'list' | 'row' | 'window' | 'vector';
}

export interface Feeding {
  inputs: FedInput[];
  /** Rows that one example takes: row i is given as the rows i − window + 1 … i. Null: the row alone. */
  window: number | null;
  /** The most rows that the model takes at once; null: any number. */
  batch: 1 | null;
  /** Rows that can be fed, rising. */
  rows: Int32Array;
  /** Rows left out because a value is missing that an integer input cannot do without. */
  missing: number;
  /** What the model says of itself: the column it answers about, how many rows ahead, and as which task. */
  target: string | null;
  horizon: number;
  task: string | null;
}

export interface FeedingOptions {
  /** Not an input, unless `columns` names it. */
  target: string | null;
  /** The columns of a model whose input does not name them; null: the numeric ones in the file's order. */
  columns: readonly string[] | null;
  /** The model's metadata_props. */
  metadata: Readonly<Record<string, string>>;
}

/** Names are alike where only case, spaces and underscores differ. */
const plain = (name: string): string =>
  name
    .trim()
    .toLowerCase()
    .replace(/[\s_]+/g, '_');

function findColumn(table: Table, name: string): Column | undefined {
  return (
    table.columns.find((column) => column.name === name) ??
    table.columns.find((column) => plain(column.name) === plain(name))
  );
}

const listed = (names: readonly string[]): string => (names.length === 0 ? 'none' : names.join(', '));

function findColumns(table: Table, names: readonly string[]): Result<string[]> {
  const found = names.map((name) => findColumn(table, name));
  const unknown = names.filter((_, at) => found[at] === undefined);
  if (unknown.length === 0) return ok(found.flatMap((column) => column?.name ?? []));
  return refuse(
    'data-column-unknown',
    `the model takes ${listed(unknown)}; the file has ${listed(table.columns.map(({ name }) => name))}`,
  );
}

function numberOf(metadata: FeedingOptions['metadata'], key: string): number | null {
  const value = Number(metadata[key] ?? Number.NaN);
  return Number.isSafeInteger(value) && value > 0 ? value : null;
}

function namesIn(body: unknown, key: string): string[] | null {
  const names = typeof body === 'object' && body !== null ? Object.entries(body) : [];
  const found: unknown = names.find(([name]) => name === key)?.[1];
  return Array.isArray(found) && found.every((name) => typeof name === 'string') ? found : null;
}

/** The columns that a model of ours names itself; null where it is none of ours. */
function ownColumns(
  inputs: readonly TensorSignature[],
  metadata: FeedingOptions['metadata'],
): { values: string[]; texts: string[] } | null {
  const text = metadata['columns'];
  if (text === undefined || !inputs.every(({ name }) => name === 'values' || name === 'texts')) return null;
  try {
    const body: unknown = JSON.parse(text);
    const [values, texts] = [namesIn(body, 'numeric'), namesIn(body, 'texts')];
    return values === null || texts === null ? null : { values, texts };
  } catch (error) {
    // Others may call something else "columns".
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

interface Laid {
  inputs: FedInput[];
  window: number | null;
  batch: 1 | null;
}

const shown = ({ name, datatype, shape }: TensorSignature): string =>
  `${name} (${datatype} [${shape.map((size) => (size < 0 ? 'n' : size)).join(', ')}])`;

/** An axis of rows is free, or 1: then they go one by one. */
function batchOf(input: TensorSignature): Result<1 | null> {
  const [first = -1] = input.shape;
  if (first < 0) return ok(null);
  if (first === 1) return ok(1);
  return refuse(
    'input-invalid',
    `the input ${shown(input)} takes ${first} rows at once; export it with a free first axis`,
  );
}

/** Whether each row gives this input one value. */
const isScalar = ({ shape }: TensorSignature): boolean =>
  (shape.length === 1 && (shape[0] === -1 || shape[0] === 1)) || (shape.length === 2 && shape[1] === 1);

/** Every input takes one value a row, and there is a column of its name. */
function byName(inputs: readonly TensorSignature[], table: Table): Result<FedInput[]> {
  const columns = findColumns(
    table,
    inputs.map(({ name }) => name),
  );
  if (!columns.ok) return columns;
  return ok(
    inputs.map(({ name, datatype, shape }, at) => ({
      ...{ name, datatype, columns: [columns.value[at] ?? name] },
      layout: shape.length === 1 ? 'list' : 'row',
    })),
  );
}

/** The only input takes the columns side by side. */
function sideBySide(
  input: TensorSignature,
  table: Table,
  { target, columns }: FeedingOptions,
  metadataWindow: number | null,
): Result<{ input: FedInput; window: number | null }> {
  const { name, datatype, shape } = input;
  const rank = shape.length;
  if (rank < 1 || rank > 3)
    return refuse(
      'input-invalid',
      `the input ${shown(input)} is none of rows [n, columns] or windows [n, rows, columns]`,
    );
  const declared = rank === 3 ? (shape[1] ?? -1) : null;
  const window = declared === null ? null : declared > 0 ? declared : metadataWindow;
  if (rank === 3 && window === null)
    return refuse('input-invalid', `the input ${shown(input)} does not say how many rows a window has`);
  const kind = datatype === 'BYTES' ? 'category' : 'numeric';
  const isTarget = (one: string): boolean => target !== null && plain(one) === plain(target);
  const usual = table.columns.filter((column) => column.kind === kind && !isTarget(column.name));
  const found = findColumns(table, columns ?? usual.map((column) => column.name));
  if (!found.ok) return found;
  const width = shape.at(-1) ?? -1;
  if (width >= 0 && width !== found.value.length)
    return refuse(
      'input-invalid',
      `the input ${shown(input)} takes ${width} columns, and there are ${found.value.length}: ${listed(found.value)}; name them with --columns in the model’s order`,
    );
  if (found.value.length === 0)
    return refuse('input-invalid', `there is no ${kind} column for the input ${shown(input)}`);
  const layout = rank === 1 ? 'vector' : rank === 2 ? 'row' : 'window';
  return ok({ input: { name, datatype, columns: found.value, layout }, window });
}

function layOwn(
  inputs: readonly TensorSignature[],
  table: Table,
  own: { values: string[]; texts: string[] },
  window: number | null,
): Result<Laid> {
  const laid: FedInput[] = [];
  for (const input of inputs) {
    const columns = findColumns(table, input.name === 'texts' ? own.texts : own.values);
    if (!columns.ok) return columns;
    const width = input.shape.at(-1) ?? -1;
    if (width >= 0 && width !== columns.value.length)
      return refuse(
        'input-invalid',
        `the input ${shown(input)} and the model’s own columns differ: ${listed(columns.value)}`,
      );
    const layout = input.shape.length === 3 ? 'window' : 'row';
    laid.push({ name: input.name, datatype: input.datatype, columns: columns.value, layout });
  }
  const declared = inputs.find(({ shape }) => shape.length === 3)?.shape[1] ?? -1;
  const rows = declared > 0 ? declared : window;
  if (laid.some(({ layout }) => layout === 'window') && rows === null)
    return refuse('input-invalid', 'the model takes windows and does not say how many rows they have');
  return ok({
    inputs: laid,
    window: laid.some(({ layout }) => layout === 'window') ? rows : null,
    batch: null,
  });
}

function lay(inputs: readonly TensorSignature[], table: Table, options: FeedingOptions): Result<Laid> {
  const metadataWindow = numberOf(options.metadata, 'window');
  const own = ownColumns(inputs, options.metadata);
  if (own !== null) return layOwn(inputs, table, own, metadataWindow);
  const [only] = inputs;
  if (only === undefined) return refuse('input-invalid', 'the model has no input');
  const isVector = inputs.length === 1 && only.shape.length === 1 && (only.shape[0] ?? -1) > 1;
  let batch: 1 | null = isVector ? 1 : null;
  for (const input of isVector ? [] : inputs) {
    const taken = batchOf(input);
    if (!taken.ok) return taken;
    batch ??= taken.value;
  }
  const named = inputs.every(isScalar) && (inputs.length > 1 || findColumn(table, only.name) !== undefined);
  if (named) {
    const laid = byName(inputs, table);
    return laid.ok ? ok({ inputs: laid.value, window: null, batch }) : laid;
  }
  if (inputs.length > 1)
    return refuse(
      'input-invalid',
      `the model’s inputs are neither one value a row each nor one input of all columns: ${inputs.map(shown).join(', ')}`,
    );
  const laid = sideBySide(only, table, options, metadataWindow);
  if (!laid.ok) return laid;
  const isList = laid.value.input.layout === 'vector' && !isVector;
  const input: FedInput = isList ? { ...laid.value.input, layout: 'list' } : laid.value.input;
  if (isList && input.columns.length !== 1)
    return refuse(
      'input-invalid',
      `the input ${shown(only)} takes 1 column, and there are ${input.columns.length}: ${listed(input.columns)}; name it with --columns`,
    );
  return ok({ inputs: [input], window: laid.value.window, batch });
}

/**
 * How a table is given to a model. Ours name their columns (`columns` in metadata_props); inputs of one value a row
 * take the column of their name; a single input [n, F] or [n, window, F] takes `columns`, or the numeric columns in the
 * file's order (of BYTES: the columns of texts) without target and time. Rows of the table must be in the order of
 * time where there is a window. Refusals: `input-invalid`, `data-column-unknown`.
 */
export function planFeeding(
  inputs: readonly TensorSignature[],
  table: Table,
  options: FeedingOptions,
): Result<Feeding> {
  const laid = lay(inputs, table, options);
  if (!laid.ok) return laid;
  const lacking = new Uint8Array(table.rows);
  for (const input of laid.value.inputs) {
    for (const name of input.columns) {
      const column = findColumn(table, name);
      const checked = column === undefined ? ok() : checkColumn(column, input, lacking);
      if (!checked.ok) return checked;
    }
  }
  const { metadata } = options;
  return ok({
    ...laid.value,
    ...usableRows(lacking, laid.value.window ?? 1),
    target: metadata['target'] ?? null,
    horizon: numberOf(metadata, 'horizon') ?? 0,
    task: metadata['task'] ?? null,
  });
}

/** Writes one value of a column to a place of the tensor. */
type Writer = (at: number, row: number) => void;

function textOf(column: Column, row: number): string {
  if (column.kind === 'category') return column.categories[column.codes[row] ?? -1] ?? '';
  const value = column.values[row] ?? Number.NaN;
  return Number.isNaN(value) ? '' : String(value);
}

function writerFor(column: Column, datatype: Datatype, data: Tensor['data']): Writer {
  if (Array.isArray(data))
    return (at, row) => {
      data[at] = textOf(column, row);
    };
  const values = column.kind === 'category' ? null : column.values;
  const numberAt = (row: number): number => values?.[row] ?? Number.NaN;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array)
    return (at, row) => {
      data[at] = BigInt(numberAt(row));
    };
  if (datatype === 'FP16')
    return (at, row) => {
      data[at] = numberToHalf(numberAt(row));
    };
  return (at, row) => {
    data[at] = numberAt(row);
  };
}

function shapeOf({ layout, columns }: FedInput, rows: number, window: number): number[] {
  const width = columns.length;
  if (layout === 'list') return [rows];
  if (layout === 'vector') return [width];
  return layout === 'row' ? [rows, width] : [rows, window, width];
}

/** The inputs for these rows, which must be among `feeding.rows`; of a `batch` of 1 one row. */
export function feed(feeding: Feeding, table: Table, rows: Int32Array): Tensor[] {
  return feeding.inputs.map((input) => {
    const { name, datatype, columns } = input;
    const window = input.layout === 'window' ? (feeding.window ?? 1) : 1;
    const width = columns.length;
    const data = allocateData(datatype, rows.length * window * width);
    for (const [place, columnName] of columns.entries()) {
      const column = findColumn(table, columnName);
      if (column === undefined) throw new TypeError(`no column ${columnName} in this table`);
      const write = writerFor(column, datatype, data);
      for (let at = 0; at < rows.length * window; at += 1) {
        const row = (rows[Math.floor(at / window)] as number) - window + 1 + (at % window);
        write(at * width + place, row);
      }
    }
    return { name, datatype, shape: shapeOf(input, rows.length, window), data };
  });
}
