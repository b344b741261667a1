// Why: pairs that no data folder has: every weight nudged, the last layer alone, a conversion to int8, one layer more.
// Trusts: the codec's own reader for where numbers lie, not for what they are. Must never: make models for running.

import { type Extent, readLayout } from '../../shared/onnx/delta/layout.ts';
import { ProtobufReader, ProtobufWriter } from '../../shared/onnx/protobuf.ts';
import { chance } from '../support/chance.ts';

/** Standard normal, near enough. */
function bell(next: () => number): number {
  let sum = -6;
  for (let left = 12; left > 0; left--) sum += next();
  return sum;
}

function floatExtents(model: Uint8Array): Extent[] {
  return (readLayout(model)?.extents ?? []).filter(({ kind }) => kind === 'float32');
}

function change(model: Uint8Array, extents: readonly Extent[], to: (value: number) => number): Uint8Array {
  const out = new Uint8Array(model);
  const view = new DataView(out.buffer);
  for (const { offset, length } of extents)
    for (let at = offset; at < offset + length; at += 4)
      view.setFloat32(at, to(view.getFloat32(at, true)), true);
  return out;
}

/** Each weight plus noise of a fixed size, as one more step of training leaves them. */
export function everyWeightNudged(model: Uint8Array): Uint8Array {
  const next = chance(1);
  return change(model, floatExtents(model), (value) => value + bell(next) * 1e-3);
}

/** The last large tensor and what follows it. */
export function lastLayerOnly(model: Uint8Array): Uint8Array {
  const next = chance(2);
  const extents = floatExtents(model);
  const last = extents.findLastIndex(({ dims }) => dims.length > 1);
  return change(model, extents.slice(last), (value) => value * (1 + bell(next) * 1e-2));
}

/** ModelProto with another graph: 7. */
function withGraph(
  model: Uint8Array,
  edit: (graph: ProtobufReader, into: ProtobufWriter) => void,
): Uint8Array {
  const reader = new ProtobufReader(model);
  const out = new ProtobufWriter();
  while (reader.next()) {
    if (reader.field === 7) {
      const graph = new ProtobufWriter();
      edit(reader.message(), graph);
      out.message(7, graph);
    } else if (reader.wireType === 0) out.int(reader.field, reader.varint());
    else out.bytes(reader.field, reader.bytes());
  }
  return out.finish();
}

/** TensorProto: dims 1, data_type 2, name 8, raw_data 9. */
function tensor(name: string, dataType: number, dims: readonly number[], raw: Uint8Array): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const size of dims) writer.int(1, size);
  return writer.int(2, dataType).string(8, name).bytes(9, raw);
}

/** NodeProto: input 1, output 2, op_type 4. */
function node(operator: string, inputs: string[], output: string): ProtobufWriter {
  const writer = new ProtobufWriter();
  for (const name of inputs) writer.string(1, name);
  return writer.string(2, output).string(4, operator);
}

/** One convolution more, somewhere in the list of nodes and of initializers. */
export function oneLayerAdded(model: Uint8Array): Uint8Array {
  const next = chance(3);
  const weights = Float32Array.from({ length: 64 * 64 * 9 }, () => bell(next) * 0.05);
  return withGraph(model, (graph, into) => {
    let added = false;
    while (graph.next()) {
      const field = graph.field;
      into.bytes(field, graph.bytes());
      if (field !== 5 || added) continue;
      added = true;
      into.message(5, tensor('added.weight', 1, [64, 64, 3, 3], new Uint8Array(weights.buffer)));
      into.message(1, node('Conv', ['x', 'added.weight'], 'added'));
    }
  });
}

/** Weights of two axes and more as int8 with a scale for each channel of the first. */
export function quantised(model: Uint8Array): Uint8Array {
  const weights = floatExtents(model).filter(({ dims }) => dims.length > 1);
  const names = new Map(weights.map((extent) => [extent.name, extent]));
  return withGraph(model, (graph, into) => {
    while (graph.next()) {
      const field = graph.field;
      const bytes = graph.bytes();
      const extent = field === 5 ? names.get(nameOf(bytes)) : undefined;
      if (extent === undefined) {
        into.bytes(field, bytes);
        continue;
      }
      const { scales, whole } = toInt8(model, extent);
      const { name, dims } = extent;
      into.message(5, tensor(`${name}_scale`, 1, [scales.length], new Uint8Array(scales.buffer)));
      into.message(5, tensor(`${name}_quantized`, 3, dims, new Uint8Array(whole.buffer)));
      into.message(1, node('DequantizeLinear', [`${name}_quantized`, `${name}_scale`], name));
    }
  });
}

function nameOf(bytes: Uint8Array): string {
  const reader = new ProtobufReader(bytes);
  let name = '';
  while (reader.next()) {
    if (reader.field === 8) name = reader.string();
    else reader.skip();
  }
  return name;
}

function toInt8(
  model: Uint8Array,
  { offset, length, dims }: Extent,
): { scales: Float32Array; whole: Int8Array } {
  const values = new Float32Array(new Uint8Array(model.subarray(offset, offset + length)).buffer);
  const channels = dims[0] ?? 1;
  const inner = values.length / channels;
  const scales = new Float32Array(channels);
  const whole = new Int8Array(values.length);
  for (let channel = 0; channel < channels; channel++) {
    let most = 0;
    for (let at = channel * inner; at < (channel + 1) * inner; at++)
      most = Math.max(most, Math.abs(values[at] ?? 0));
    const scale = Math.fround(most / 127);
    scales[channel] = scale;
    for (let at = channel * inner; at < (channel + 1) * inner; at++)
      whole[at] = scale === 0 ? 0 : nearestEven(Math.fround((values[at] ?? 0) / scale));
  }
  return { scales, whole };
}

function nearestEven(value: number): number {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}
