// Why: which requests may run as one, joined along their first dimension, and whose rows are whose afterwards.
// Trusts: inputs that were checked against the signature. Must never: join what differs in anything but its rows, or
// hand out rows that do not add up.

import type { Manifest } from '../../shared/wire/manifest.ts';
import { allocateData, elementCount, type Tensor, type TensorData } from '../../shared/wire/tensors.ts';
import { rawBytes } from './pipe.ts';
import type { ModelSignature } from './signature.ts';

export interface BatchTerms {
  /** Rows of one run. */
  rowsMax: number;
  /** How long a request may wait for others. */
  delayMs: number;
}

/** Null where the manifest does not ask for it, or a first dimension is not free. */
export function batchTerms(signature: ModelSignature, session: Manifest['session']): BatchTerms | null {
  const { maxBatch, maxDelayMs } = session;
  if (maxBatch === undefined || maxBatch < 2) return null;
  const free = [...signature.inputs, ...signature.outputs].every(({ shape }) => (shape[0] ?? 0) < 0);
  return free && signature.inputs.length > 0 ? { rowsMax: maxBatch, delayMs: maxDelayMs ?? 0 } : null;
}

/** What must be equal for two requests to be joined, and the rows of this one. Null: it runs alone. */
export function batchPart(inputs: readonly Tensor[]): { key: string; rows: number } | null {
  const rows = inputs[0]?.shape[0] ?? 0;
  if (rows < 1 || inputs.some(({ shape }) => shape[0] !== rows)) return null;
  const parts = inputs.map(({ name, datatype, shape }) => `${name} ${datatype} ${shape.slice(1).join()}`);
  return { key: parts.sort().join('\n'), rows };
}

/** One that waits, as batching sees it. */
export interface Candidate {
  /** Null: it runs alone. */
  part: { key: string; rows: number } | null;
  arrivedAtMs: number;
}

export type BatchPlan<Job> = { run: Job[] } | { waitUntilMs: number };

/**
 * What the first that waits runs with: those of its kind behind it, in order, as long as there is room. Null where
 * nobody waits.
 */
export function planBatch<Job extends Candidate>(
  waiting: readonly Job[],
  terms: BatchTerms | null,
  nowMs: number,
): BatchPlan<Job> | null {
  const [first] = waiting;
  if (first === undefined) return null;
  if (terms === null || first.part === null) return { run: [first] };
  const run = [first];
  let rows = first.part.rows;
  let full = rows >= terms.rowsMax;
  for (const other of waiting.slice(1)) {
    if (full) break;
    if (other.part?.key !== first.part.key) continue;
    // The next of its kind has no room: waiting for another would only delay it.
    if (rows + other.part.rows > terms.rowsMax) full = true;
    else {
      run.push(other);
      rows += other.part.rows;
      full = rows >= terms.rowsMax;
    }
  }
  const waitUntilMs = first.arrivedAtMs + terms.delayMs;
  return full || nowMs >= waitUntilMs ? { run } : { waitUntilMs };
}

function joined(parts: readonly Tensor[], first: Tensor): Tensor {
  const rows = parts.reduce((sum, { shape }) => sum + (shape[0] ?? 0), 0);
  const shape = [rows, ...first.shape.slice(1)];
  if (Array.isArray(first.data))
    return { ...first, shape, data: parts.flatMap(({ data }) => data as string[]) };
  const data = allocateData(first.datatype, elementCount(shape)) as Float32Array;
  let at = 0;
  for (const part of parts) {
    data.set(part.data as Float32Array, at);
    at += part.data.length;
  }
  return { ...first, shape, data };
}

/** Inputs of several requests of one kind as one request's. */
export function joinInputs(requests: readonly (readonly Tensor[])[]): Tensor[] {
  return (requests[0] ?? []).map((first) =>
    joined(
      requests.flatMap((inputs) => inputs.find(({ name }) => name === first.name) ?? []),
      first,
    ),
  );
}

function rowsOf(tensor: Tensor, from: number, rows: number, perRow: number): Tensor {
  const shape = [rows, ...tensor.shape.slice(1)];
  const [start, end] = [from * perRow, (from + rows) * perRow];
  const data: TensorData = Array.isArray(tensor.data)
    ? tensor.data.slice(start, end)
    : tensor.data.subarray(start, end);
  return { ...tensor, shape, data };
}

/** The outputs of each request, as views; null where an output has not as many rows as the requests together. */
export function cutOutputs(outputs: readonly Tensor[], rows: readonly number[]): Tensor[][] | null {
  const total = rows.reduce((sum, count) => sum + count, 0);
  if (outputs.some(({ shape }) => shape[0] !== total)) return null;
  let from = 0;
  return rows.map((count) => {
    const own = outputs.map((tensor) => rowsOf(tensor, from, count, tensor.data.length / total));
    from += count;
    return own;
  });
}

function sameData(a: TensorData, b: TensorData): boolean {
  if (Array.isArray(a) || Array.isArray(b))
    return a.length === b.length && a.every((text, at) => text === b[at]);
  return a.byteLength === b.byteLength && Buffer.compare(rawBytes(a), rawBytes(b)) === 0;
}

/** Whether requests of one kind carry the same: their answers prove nothing about each other. */
export function allSame(requests: readonly (readonly Tensor[])[]): boolean {
  const [first, ...others] = requests;
  return others.every((other) =>
    first?.every((tensor) => {
      const beside = other.find(({ name }) => name === tensor.name);
      return beside !== undefined && sameData(tensor.data, beside.data);
    }),
  );
}
