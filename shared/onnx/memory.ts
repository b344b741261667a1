// Why: what a graph makes out of little: a file of nine kilobytes may hold a shape from which the runtime fills a
// gigabyte. Follows shapes and short constants through the graph as far as that is cheap.
// Trusts: nothing; sizes are numbers here and never memory. Must never: count what the runtime does not make.

import { type Facts, inferNode } from './shapes.ts';
import type { OnnxValue } from './signature.ts';
import { bitsOf, type TensorFacts } from './tensor.ts';

export interface OnnxAttribute {
  /** Its number or numbers; empty where it holds something else. */
  numbers: number[];
  tensor?: TensorFacts;
}

export interface OnnxNode {
  /** `Add`; operators of other domains as `domain:opType`. */
  operator: string;
  inputs: string[];
  outputs: string[];
  attributes: Map<string, OnnxAttribute>;
  /** Bodies of If, Loop and Scan. */
  graphs: OnnxGraph[];
}

export interface OnnxGraph {
  nodes: OnnxNode[];
  initializers: Map<string, TensorFacts>;
  inputs: OnnxValue[];
  outputs: OnnxValue[];
}

export interface OwnMemory {
  /** Bytes of constants that the runtime works out when it loads, and keeps. */
  generatedBytes: number;
  /** Bytes of the largest constant on the way there. */
  foldedBytesMax: number;
  /** Bytes of the largest value that a run makes, as far as shapes can be followed, free dimensions being 1. */
  activationBytesMax: number;
}

/** What it takes at the least, at one moment, beyond the file's own tensors. */
export function ownBytes({ generatedBytes, foldedBytesMax, activationBytesMax }: OwnMemory): number {
  return Math.max(generatedBytes + activationBytesMax, foldedBytesMax);
}

/** Values by name; a body sees those of the graphs around it. */
class Scope {
  readonly #values = new Map<string, Facts>();
  readonly #outer: Scope | null;

  constructor(outer: Scope | null) {
    this.#outer = outer;
  }

  get(name: string): Facts | undefined {
    return this.#values.get(name) ?? this.#outer?.get(name);
  }

  set(name: string, facts: Facts): void {
    this.#values.set(name, facts);
  }
}

/** The model's graph and the bodies of its functions. */
export function ownMemory(graphs: readonly OnnxGraph[]): OwnMemory {
  const total: OwnMemory = { generatedBytes: 0, foldedBytesMax: 0, activationBytesMax: 0 };
  const counted = new Set<Facts>();
  for (const graph of graphs) follow(graph, null, total, counted);
  total.generatedBytes = Math.min(total.generatedBytes, Number.MAX_SAFE_INTEGER);
  return total;
}

function follow(graph: OnnxGraph, outer: Scope | null, total: OwnMemory, counted: Set<Facts>): void {
  const scope = new Scope(outer);
  for (const { name, elemType, shape } of graph.inputs) {
    // A free dimension is one of size 1 here: what it may grow to is up to the caller.
    const dims = shape?.map((size) => Math.max(size, 1)) ?? null;
    scope.set(name, { dims, bits: bitsOf(elemType), numbers: null, constant: false, madeBytes: 0 });
  }
  for (const [name, { dims, bits, numbers }] of graph.initializers)
    scope.set(name, { dims, bits, numbers, constant: true, madeBytes: 0 });

  /** A constant that something uses which is none: it stays. */
  const use = (facts: Facts | undefined): void => {
    if (facts === undefined || !facts.constant || counted.has(facts)) return;
    counted.add(facts);
    total.generatedBytes += facts.madeBytes;
  };
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((name) => scope.get(name));
    const outputs = inferNode(node, inputs);
    for (const [index, facts] of outputs.entries()) {
      const name = node.outputs[index] ?? '';
      if (name !== '') scope.set(name, facts);
      const kind = facts.constant ? 'foldedBytesMax' : 'activationBytesMax';
      total[kind] = Math.max(total[kind], facts.madeBytes);
    }
    if (outputs[0]?.constant !== true) for (const facts of inputs) use(facts);
    for (const body of node.graphs) follow(body, scope, total, counted);
  }
  for (const { name } of graph.outputs) use(scope.get(name));
}
