// Why: a model of a few hundred bytes, `y = factor · x` over two floats, so that whole-agent tests need no
// downloaded data. Trusts: shared/onnx's writer. Must never: grow a second meaning.

import { ProtobufWriter } from '../../shared/onnx/protobuf.ts';

const float32 = 1;

function valueInfo(name: string): ProtobufWriter {
  const shape = new ProtobufWriter().message(1, new ProtobufWriter().int(1, 2));
  const tensor = new ProtobufWriter().int(1, float32).message(2, shape);
  return new ProtobufWriter().string(1, name).message(2, new ProtobufWriter().message(1, tensor));
}

/** The bytes of an ONNX file. */
export function tinyModel(factor: number): Uint8Array {
  const data = new Uint8Array(Float32Array.of(factor, factor).buffer);
  const node = new ProtobufWriter().string(1, 'x').string(1, 'k').string(2, 'y').string(4, 'Mul');
  const initializer = new ProtobufWriter().int(1, 2).int(2, float32).string(8, 'k').bytes(9, data);
  const graph = new ProtobufWriter()
    .message(1, node)
    .string(2, 'tiny')
    .message(5, initializer)
    .message(11, valueInfo('x'))
    .message(12, valueInfo('y'));
  return new ProtobufWriter()
    .int(1, 8)
    .message(7, graph)
    .message(8, new ProtobufWriter().string(1, '').int(2, 13))
    .finish();
}

/** A golden file: what a model of that factor answers to [1, 2]. */
export function tinyGolden(factor: number): Uint8Array {
  const tensor = (name: string, data: number[]) => ({ name, shape: [2], datatype: 'FP32', data });
  const cases = [
    {
      request: { inputs: [tensor('x', [1, 2])] },
      response: { model_name: 'tiny', outputs: [tensor('y', [factor, 2 * factor])] },
    },
  ];
  return new TextEncoder().encode(JSON.stringify(cases));
}

/** Files of a release as the stand-in takes them; `says` is what its golden file promises. */
export function tinyRelease(
  factor: number,
  says: number = factor,
): { role: string; path: string; bytes: Uint8Array }[] {
  return [
    { role: 'model', path: 'model.onnx', bytes: tinyModel(factor) },
    { role: 'golden', path: 'golden.json', bytes: tinyGolden(says) },
  ];
}
