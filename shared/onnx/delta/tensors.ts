// Why: the tensors of a release's files, wherever each of them lies: in the model or in an external file.
// Trusts: layout.ts. Must never: give out two tensors that overlap, or one outside of its file.

import { elementBytes, loadElements } from './elements.ts';
import { type Extent, type Layout, type Quantisation, readLayout } from './layout.ts';
import { toNumbers } from './numbers.ts';

export interface DeltaFile {
  /** In its release; external data is found by it. */
  path: string;
  bytes: Uint8Array;
}

export interface FileTensor extends Extent {
  /** Index of its file. */
  file: number;
  bytes: Uint8Array;
}

export interface TensorSet {
  /** Long enough to be coded apart, by file and offset. */
  apart: FileTensor[];
  /** All, by name: a scale may be a single number. */
  byName: Map<string, FileTensor>;
  quantised: Map<string, Quantisation>;
}

/** Shorter ones stay in the skeleton: an entry in the plan costs some bytes. */
const apartBytesMin = 32;

/** The tensors that lie in `files`; `layouts` are models that may describe what lies there, by path. */
export function tensorsOf(files: readonly DeltaFile[], describing: readonly DeltaFile[]): TensorSet {
  const found: FileTensor[] = [];
  const quantised = new Map<string, Quantisation>();
  for (const model of describing) {
    const layout = readLayout(model.bytes);
    if (layout === null) continue;
    for (const [name, uses] of layout.quantised) quantised.set(name, uses);
    const own = files.findIndex((file) => file.path === model.path);
    const bytes = files[own]?.bytes;
    if (bytes !== undefined)
      // Field by field: a graph has thousands of them.
      for (const { name, kind, signed, dims, offset, length } of layout.extents) {
        const part = bytes.subarray(offset, offset + length);
        found.push({ name, kind, signed, dims, offset, length, file: own, bytes: part });
      }
    found.push(...externalOf(files, model.path, layout));
  }
  found.sort((a, b) => a.file - b.file || a.offset - b.offset);
  const apart: FileTensor[] = [];
  for (const tensor of found) {
    const before = apart.at(-1);
    const overlaps = before?.file === tensor.file && before.offset + before.length > tensor.offset;
    if (tensor.length >= apartBytesMin && !overlaps) apart.push(tensor);
  }
  return { apart, byName: new Map(found.map((tensor) => [tensor.name, tensor])), quantised };
}

function externalOf(files: readonly DeltaFile[], modelPath: string, layout: Layout): FileTensor[] {
  const folder = modelPath.slice(0, modelPath.lastIndexOf('/') + 1);
  return layout.external.flatMap(({ path, externalLength, ...extent }) => {
    const file = files.findIndex((one) => one.path === folder + path);
    const bytes = files[file]?.bytes;
    if (bytes === undefined) return [];
    const length = externalLength ?? bytes.length - extent.offset;
    if (length < 0 || extent.offset + length > bytes.length) return [];
    const kind = length % elementBytes(extent.kind) === 0 ? extent.kind : 'bytes';
    const whole = extent.dims.reduce((product, size) => product * size, 1) * elementBytes(kind) === length;
    return [
      {
        ...{ ...extent, kind, dims: whole ? extent.dims : [], length, file },
        bytes: bytes.subarray(extent.offset, extent.offset + length),
      },
    ];
  });
}

export function countOf(tensor: Pick<Extent, 'kind' | 'length'>): number {
  return tensor.length / elementBytes(tensor.kind);
}

/** Elements from `from` on, into memory that is given. */
export function readElements(tensor: FileTensor, from: number, count: number, into: Uint32Array): void {
  const width = elementBytes(tensor.kind);
  loadElements(tensor.bytes.subarray(from * width, (from + count) * width), width, into);
}

/** The numbers of a short tensor, such as scales or zero points; null where they are not known. */
export function numbersOf(tensor: FileTensor): Float64Array | null {
  if (tensor.kind === 'bytes') return varintsOf(tensor.bytes);
  const count = countOf(tensor);
  const numbers = new Float64Array(count);
  const elements = new Uint32Array(count);
  readElements(tensor, 0, count, elements);
  toNumbers(tensor.kind, tensor.signed, elements, count, numbers);
  return numbers;
}

/** Packed varints of small non-negative numbers: zero points are often written so. */
function varintsOf(bytes: Uint8Array): Float64Array | null {
  const numbers: number[] = [];
  for (let at = 0; at < bytes.length; at++) {
    let value = 0;
    for (let scale = 1; ; scale *= 128, at++) {
      const byte = bytes[at];
      if (byte === undefined || scale > 2 ** 28) return null;
      value += (byte & 127) * scale;
      if (byte < 128) break;
    }
    numbers.push(value);
  }
  return Float64Array.from(numbers);
}
