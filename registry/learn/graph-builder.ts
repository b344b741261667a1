// Why: puts together the nodes and constants of a graph, each under a name that a reader of the file understands.
// Pure. Trusts: its caller's shapes. Must never: give two nodes one name (the writer refuses that).

import type { Attribute, GraphNode } from '../../shared/onnx/writer.ts';
import type { Tensor } from '../../shared/wire/tensors.ts';

export class GraphBuilder {
  readonly nodes: GraphNode[] = [];
  readonly initializers: Tensor[] = [];

  /** A node with one output, which carries its name. Returns that name. */
  node(
    name: string,
    operator: string,
    inputs: string[],
    attributes: Record<string, Attribute> = {},
    domain?: NonNullable<GraphNode['domain']>,
  ): string {
    this.nodes.push({
      operator,
      name,
      inputs,
      outputs: [name],
      attributes,
      ...(domain === undefined ? {} : { domain }),
    });
    return name;
  }

  /** A constant in single precision. Returns its name. */
  floats(name: string, shape: number[], values: ArrayLike<number>): string {
    this.initializers.push({ name, datatype: 'FP32', shape, data: Float32Array.from(values) });
    return name;
  }

  /** A constant of whole numbers; shape [] is one number. */
  integers(name: string, shape: number[], values: readonly number[]): string {
    this.initializers.push({ name, datatype: 'INT64', shape, data: BigInt64Array.from(values, BigInt) });
    return name;
  }

  texts(name: string, values: string[]): string {
    this.initializers.push({ name, datatype: 'BYTES', shape: [values.length], data: values });
    return name;
  }

  /** Joins along axis 1; a single part is itself. */
  join(name: string, parts: string[]): string {
    const [only] = parts;
    if (parts.length === 1 && only !== undefined) return only;
    return this.node(name, 'Concat', parts, { axis: { int: 1 } });
  }
}
